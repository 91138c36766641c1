//! Restoring into real directories: that everything comes back, and that nothing leaves the root.
//! What only root may make or restore is left out, in the open, where the tests run as a user.

mod engine;

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, RenameFlags, SeekFrom, Timespec, Timestamps, UTIME_OMIT,
    ioctl_getflags, ioctl_setflags, makedev, mknodat, renameat_with, seek, utimensat,
};
use strongroom_repo::env::Timestamp;
use tempfile::TempDir;

use super::{
    apply::{Attribute, Problem},
    dir::Dir,
    target::{Target, TargetOptions},
};
use crate::{
    error::Error,
    node::{DeviceNumber, LinkId, Metadata, Node, NodeKind, RESTORED_FLAGS, Xattr},
};

/// A file as it is on disk: what a backup would keep of it, and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    node: Node,
    /// Pieces that are not holes.
    data: Vec<(u64, Vec<u8>)>,
    children: Vec<Self>,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Reads a tree; files with several names are numbered in the order of their first names.
fn read_tree(path: &Path, links: &mut HashMap<u64, u64>) -> Found {
    let stat = fs::symlink_metadata(path).unwrap();
    let device = DeviceNumber {
        major: rustix::fs::major(stat.rdev()),
        minor: rustix::fs::minor(stat.rdev()),
    };
    let mut found = Found {
        node: Node {
            name: path.file_name().unwrap().as_bytes().to_vec(),
            kind: NodeKind::Fifo,
            meta: Metadata {
                mode: u16::try_from(stat.mode() & 0o7777).unwrap(),
                uid: stat.uid(),
                gid: stat.gid(),
                mtime: time(stat.mtime(), u32::try_from(stat.mtime_nsec()).unwrap()),
                xattrs: read_xattrs(path),
                ..Metadata::default()
            },
        },
        data: Vec::new(),
        children: Vec::new(),
    };
    let next = links.len() as u64;
    if stat.nlink() > 1 && !stat.is_dir() {
        let inode = *links.entry(stat.ino()).or_insert(next);
        found.node.meta.link = Some(LinkId { device: 0, inode });
    }
    found.node.kind = match FileType::from_raw_mode(stat.mode()) {
        FileType::RegularFile => {
            found.data = read_data(path, stat.len());
            found.node.meta.flags = read_flags(path);
            NodeKind::File { size: stat.len() }
        }
        FileType::Directory => {
            found.node.meta.flags = read_flags(path);
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap()).collect();
            names.sort_by_key(fs::DirEntry::file_name);
            found.children = names.iter().map(|e| read_tree(&e.path(), links)).collect();
            NodeKind::Dir
        }
        FileType::Symlink => NodeKind::Symlink {
            target: fs::read_link(path).unwrap().into_os_string().into_vec(),
        },
        FileType::BlockDevice => NodeKind::BlockDevice(device),
        FileType::CharacterDevice => NodeKind::CharDevice(device),
        FileType::Socket => NodeKind::Socket,
        _ => NodeKind::Fifo,
    };
    found
}

fn time(secs: i64, nanos: u32) -> Timestamp {
    Timestamp { secs, nanos }
}

fn read_flags(path: &Path) -> u32 {
    ioctl_getflags(fs::File::open(path).unwrap())
        .unwrap()
        .bits()
        & RESTORED_FLAGS
}

fn read_xattrs(path: &Path) -> Vec<Xattr> {
    let mut xattrs: Vec<_> = xattr::list(path)
        .unwrap()
        .map(|name| Xattr {
            value: xattr::get(path, &name).unwrap().unwrap(),
            name: name.into_vec(),
        })
        .filter(|xattr| xattr.name != b"security.selinux")
        .collect();
    xattrs.sort();
    xattrs
}

fn read_data(path: &Path, size: u64) -> Vec<(u64, Vec<u8>)> {
    let file = fs::File::open(path).unwrap();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = seek(&file, SeekFrom::Data(at)) else {
            break;
        };
        let end = seek(&file, SeekFrom::Hole(start)).unwrap();
        let mut piece = vec![0; usize::try_from(end - start).unwrap()];
        file.read_exact_at(&mut piece, start).unwrap();
        pieces.push((start, piece));
        at = end;
    }
    pieces
}

/// Restores the content of `found` into `dir`.
fn restore_children(target: &Target, dir: &Dir, found: &Found) -> Result<Vec<Problem>, Error> {
    let mut problems = Vec::new();
    for child in &found.children {
        let Node { name, kind, meta } = &child.node;
        if let Some(link) = meta.link
            && target.has_link(link)
        {
            assert!(dir.link(name, link)?);
            continue;
        }
        let of_child = match kind {
            NodeKind::Dir => {
                let sub = dir.create_dir(name)?;
                problems.extend(restore_children(target, &sub, child)?);
                sub.finish(meta)?
            }
            NodeKind::File { size } => {
                let writer = dir.create_file(name, *size, meta.mode)?;
                for (offset, piece) in &child.data {
                    writer.write_at(*offset, piece)?;
                }
                writer.finish(meta)?
            }
            _ => dir.create_node(name, kind, meta)?,
        };
        problems.extend(of_child);
    }
    Ok(problems)
}

fn restore(found: &Found, to: &Path, options: TargetOptions) -> Vec<Problem> {
    let target = Target::open(to, true, options).unwrap();
    let mut problems = restore_children(&target, target.root(), found).unwrap();
    problems.extend(target.root().finish(&found.node.meta).unwrap());
    problems.extend(target.finish());
    problems
}

fn options() -> TargetOptions {
    TargetOptions::new(0x5eed)
}

fn target(path: &Path) -> Target {
    Target::open(path, true, options()).unwrap()
}

fn meta(mode: u16) -> Metadata {
    Metadata {
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: time(1_600_000_000, 5),
        ..Metadata::default()
    }
}

fn put_file(dir: &Dir, name: &[u8], content: &[u8]) -> Result<Vec<Problem>, Error> {
    let writer = dir.create_file(name, content.len() as u64, 0o644)?;
    writer.write_at(0, content)?;
    writer.finish(&meta(0o644))
}

/// Version 2 of the kernel's form: user, a named user, group, mask, other.
fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    let none = u32::MAX;
    for (tag, perm, id) in [
        (1_u16, 6_u16, none),
        (2, 6, 1001),
        (4, 4, none),
        (16, 6, none),
        (32, 0, none),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    let modified = Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: omit,
        last_modification: modified,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn write_parts(path: &Path, size: u64, parts: &[(u64, Vec<u8>)]) {
    let file = fs::File::create(path).unwrap();
    for (offset, part) in parts {
        file.write_all_at(part, *offset).unwrap();
    }
    file.set_len(size).unwrap();
}

/// One of every kind of thing that a file system can hold and a user may make; root makes more.
fn build_everything(root: &Path) {
    for dir in [
        "plain",
        "hard/sub",
        "sym",
        "special",
        "mode",
        "xattr",
        "acl/dir",
        "sparse",
        "names",
        "times/dir",
    ] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for size in [0_u32, 1, 4095, 4096, 4097, 65_536, 1_048_577] {
        let content: Vec<u8> = (0..size).map(|i| (i * 7 % 251).to_le_bytes()[0]).collect();
        fs::write(root.join(format!("plain/size_{size}")), content).unwrap();
    }
    fs::write(root.join("hard/a"), "shared inode").unwrap();
    fs::hard_link(root.join("hard/a"), root.join("hard/sub/c")).unwrap();
    for i in 0..200 {
        fs::hard_link(root.join("hard/a"), root.join(format!("hard/many_{i:04}"))).unwrap();
    }
    let long = [vec![b'x'; 250], vec![b'/'], vec![b'y'; 3800]].concat();
    for (name, to) in [
        ("rel", b"dir/target".as_slice()),
        ("absolute", b"/etc/hostname"),
        ("self", b"self"),
        ("long", &long),
        ("nonutf8", b"\xff\xfe\x80"),
        ("newline", b"a\nb"),
    ] {
        symlink(OsStr::from_bytes(to), root.join("sym").join(name)).unwrap();
        set_mtime(&root.join("sym").join(name), 1_500_000_000, 123_456_789);
    }
    fs::hard_link(root.join("sym/self"), root.join("sym/self_too")).unwrap();
    for (name, kind) in [("fifo", FileType::Fifo), ("sock", FileType::Socket)] {
        let mode = Mode::from_raw_mode(0o640);
        mknodat(CWD, root.join("special").join(name), kind, mode, 0).unwrap();
    }
    fs::hard_link(root.join("special/fifo"), root.join("special/fifo_too")).unwrap();
    let modes = [
        0o000, 0o111, 0o400, 0o644, 0o4755, 0o2755, 0o1644, 0o6711, 0o7777,
    ];
    for mode in modes
        .into_iter()
        .filter(|mode| is_root() || mode & 0o400 != 0)
    {
        let path = root.join(format!("mode/f_{mode:04o}"));
        fs::write(&path, "m").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for mode in [0o500, 0o700, 0o1777, 0o2775, 0o3777] {
        let path = root.join(format!("mode/d_{mode:04o}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    build_attributes(root);
    build_layouts_and_names(root);
    if is_root() {
        build_what_only_root_may(root);
    } else {
        eprintln!("not root: devices, owners, trusted attributes and capabilities are not tested");
    }
    set_mtime(&root.join("times/dir"), 987_654_321, 987_654_321);
    set_mtime(&root.join("hard"), 1_234_567, 89);
    set_mtime(root, 7_654_321, 1);
}

fn build_attributes(root: &Path) {
    let user = root.join("xattr/user");
    fs::write(&user, "x").unwrap();
    let binary: Vec<u8> = (0..=255).collect();
    for (name, value) in [
        (b"user.simple".as_slice(), b"v".as_slice()),
        (b"user.empty", b""),
        (b"user.binary", &binary),
        (b"user.\xff\xfe", b"name"),
        (b"user.big", &[7; 2500]),
    ] {
        xattr::set(&user, OsStr::from_bytes(name), value).unwrap();
    }
    let read_only = root.join("xattr/read_only");
    fs::write(&read_only, "x").unwrap();
    xattr::set(&read_only, "user.kept", b"1").unwrap();
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).unwrap();
    xattr::set(root.join("xattr"), "user.ondir", b"1").unwrap();
    fs::write(root.join("acl/file"), "a").unwrap();
    xattr::set(root.join("acl/file"), "system.posix_acl_access", &acl()).unwrap();
    fs::write(root.join("acl/dir/without"), "a").unwrap();
    xattr::set(root.join("acl/dir"), "system.posix_acl_default", &acl()).unwrap();
    fs::write(root.join("acl/dir/inherits"), "a").unwrap();
    for (name, flags) in [("nodump", IFlags::NODUMP), ("noatime", IFlags::NOATIME)] {
        let path = root.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("without"), "x").unwrap();
        fs::write(path.join("with"), "x").unwrap();
        for path in [path.join("with"), path] {
            let file = fs::File::open(path).unwrap();
            let now = ioctl_getflags(&file).unwrap();
            ioctl_setflags(&file, now | flags).unwrap();
        }
    }
}

fn build_layouts_and_names(root: &Path) {
    let mib = 1 << 20;
    write_parts(&root.join("sparse/all_hole"), 8 * mib, &[]);
    write_parts(
        &root.join("sparse/islands"),
        8 * mib,
        &[(mib, vec![1; 9000]), (5 * mib + 17, vec![2; 70_000])],
    );
    write_parts(
        &root.join("sparse/tail_hole"),
        2 * mib,
        &[(0, vec![3; 100_000])],
    );
    write_parts(
        &root.join("sparse/head_hole"),
        2 * mib,
        &[(2 * mib - 4096, vec![4; 4096])],
    );
    write_parts(
        &root.join("sparse/real_zeros"),
        mib,
        &[(0, vec![0; 1 << 20])],
    );
    write_parts(&root.join("sparse/odd_end"), mib + 7, &[(0, vec![b'x'])]);
    for name in [
        vec![b'n'; 255],
        b"\xff\xfe\x80bytes".to_vec(),
        b"new\nline".to_vec(),
        b"-rf".to_vec(),
        b" lead".to_vec(),
        b"back\\slash".to_vec(),
        b"dots...".to_vec(),
        b"..x".to_vec(),
        b"a:b".to_vec(),
    ] {
        fs::write(root.join("names").join(OsStr::from_bytes(&name)), "n").unwrap();
    }
    for (name, secs, nanos) in [
        ("ns", 1_234_567_890, 123_456_789),
        ("pre1970", -1_000_000_000, 500_000_000),
        ("minus1ns", -1, 999_999_999),
        ("epoch", 0, 0),
        ("y1902", -2_145_916_800, 0),
        ("y2400", 13_569_465_600, 999_999_999),
    ] {
        let path = root.join("times").join(name);
        fs::write(&path, name).unwrap();
        set_mtime(&path, secs, nanos);
    }
}

fn build_what_only_root_may(root: &Path) {
    for (name, kind, device) in [
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("blk", FileType::BlockDevice, makedev(7, 200)),
        ("big", FileType::CharacterDevice, makedev(511, 70_000)),
    ] {
        mknodat(
            CWD,
            root.join("special").join(name),
            kind,
            Mode::from_raw_mode(0o660),
            device,
        )
        .unwrap();
    }
    fs::create_dir(root.join("owner")).unwrap();
    for (uid, gid) in [
        (1000, 1000),
        (12_345, 54_321),
        (4_000_000_000, 4_100_000_000),
    ] {
        let path = root.join(format!("owner/u{uid}"));
        fs::write(&path, "o").unwrap();
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    }
    std::os::unix::fs::lchown(root.join("sym/rel"), Some(1001), Some(1002)).unwrap();
    std::os::unix::fs::lchown(root.join("special/sock"), Some(1001), Some(1002)).unwrap();
    xattr::set(root.join("sym/absolute"), "trusted.onlink", b"1").unwrap();
    xattr::set(root.join("special/fifo"), "trusted.onfifo", b"1").unwrap();
    let capability = root.join("xattr/capability");
    fs::write(&capability, "c").unwrap();
    std::os::unix::fs::lchown(&capability, Some(1001), Some(1002)).unwrap();
    let words = [0x0200_0001_u32, 1 << 13, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    xattr::set(&capability, "security.capability", &value).unwrap();
}

fn read(path: &Path) -> Found {
    let mut found = read_tree(path, &mut HashMap::new());
    found.node.name.clear();
    found
}

fn assert_same(left: &Found, right: &Found, at: &str) {
    let at = format!("{at}/{}", left.node.name.escape_ascii());
    assert_eq!(left.node, right.node, "{at}");
    assert!(left.data == right.data, "content or holes of {at}");
    let names =
        |found: &Found| -> Vec<_> { found.children.iter().map(|c| c.node.name.clone()).collect() };
    assert_eq!(names(left), names(right), "{at}");
    for (a, b) in left.children.iter().zip(&right.children) {
        assert_same(a, b, &at);
    }
}

#[test]
fn every_kind_of_file_comes_back_identical() {
    let scratch = TempDir::new().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir(&from).unwrap();
    build_everything(&from);
    let found = read(&from);
    assert!(restore(&found, &to, options()).is_empty());
    assert_same(&found, &read(&to), "");
    make_removable([&from, &to]);
}

#[test]
fn a_restore_over_itself_changes_nothing_with_or_without_nameless_files() {
    let scratch = TempDir::new().unwrap();
    let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
    fs::create_dir(&from).unwrap();
    build_everything(&from);
    let found = read(&from);
    for nameless in [true, false] {
        let target = Target::open(
            &to,
            true,
            TargetOptions {
                open_dirs: 1,
                ..options()
            },
        )
        .unwrap();
        target
            .root()
            .shared
            .nameless
            .store(nameless, Ordering::Relaxed);
        for _ in 0..2 {
            assert!(
                restore_children(&target, target.root(), &found)
                    .unwrap()
                    .is_empty()
            );
        }
        assert!(target.root().finish(&found.node.meta).unwrap().is_empty());
        assert!(target.finish().is_empty());
        assert_same(&found, &read(&to), "");
    }
    make_removable([&from, &to]);
}

#[test]
fn a_restore_gives_up_what_was_inherited_or_there_before() {
    let scratch = TempDir::new().unwrap();
    let to = scratch.path().join("to");
    fs::create_dir(&to).unwrap();
    xattr::set(&to, "system.posix_acl_default", &acl()).unwrap();
    xattr::set(&to, "user.old", b"1").unwrap();
    let flagged = fs::File::open(&to).unwrap();
    ioctl_setflags(&flagged, ioctl_getflags(&flagged).unwrap() | IFlags::NODUMP).unwrap();
    let target = target(&to);
    let dir = target.root().create_dir(b"dir").unwrap();
    for dir in [&dir, target.root()] {
        assert!(put_file(dir, b"file", b"x").unwrap().is_empty());
        assert!(
            dir.create_node(b"fifo", &NodeKind::Fifo, &meta(0o644))
                .unwrap()
                .is_empty()
        );
        assert!(dir.finish(&meta(0o755)).unwrap().is_empty());
    }
    for path in ["", "dir", "file", "fifo", "dir/file", "dir/fifo"].map(|path| to.join(path)) {
        assert_eq!(read_xattrs(&path), [], "{path:?}");
        if !path.ends_with("fifo") {
            assert_eq!(read_flags(&path), 0, "{path:?}");
        }
    }
    assert_eq!(
        fs::metadata(to.join("dir/file")).unwrap().mode() & 0o7777,
        0o644
    );
}

#[test]
fn protected_files_and_directories_come_back_and_can_be_replaced() {
    assert!(is_root(), "only root protects files: run this test as root");
    let scratch = TempDir::new().unwrap();
    let protected = |flags: IFlags| Metadata {
        flags: flags.bits(),
        ..meta(0o444)
    };
    let link = LinkId {
        device: 1,
        inode: 9,
    };
    for _ in 0..2 {
        let target = target(scratch.path());
        let dir = target.root().create_dir(b"dir").unwrap();
        let once = dir.create_file(b"once", 1, 0o444).unwrap();
        once.write_at(0, b"1").unwrap();
        assert!(
            once.finish(&protected(IFlags::IMMUTABLE))
                .unwrap()
                .is_empty()
        );
        let twice = dir.create_file(b"twice", 0, 0o444).unwrap();
        let linked = Metadata {
            link: Some(link),
            ..protected(IFlags::APPEND)
        };
        assert!(twice.finish(&linked).unwrap().is_empty());
        assert!(target.root().link(b"twice_too", link).unwrap());
        assert!(
            dir.finish(&protected(IFlags::IMMUTABLE))
                .unwrap()
                .is_empty()
        );
        assert!(target.finish().is_empty());
        for (name, flags) in [
            ("dir", IFlags::IMMUTABLE),
            ("dir/once", IFlags::IMMUTABLE),
            ("twice_too", IFlags::APPEND),
        ] {
            assert_eq!(
                read_flags(&scratch.path().join(name)),
                flags.bits(),
                "{name}"
            );
        }
        assert_eq!(
            fs::metadata(scratch.path().join("dir/twice"))
                .unwrap()
                .nlink(),
            2
        );
    }
    let target = target(scratch.path());
    let dir = target.root().open_dir(b"dir").unwrap();
    for name in [b"once".as_slice(), b"twice"] {
        dir.remove(name).unwrap();
    }
    target.root().remove(b"twice_too").unwrap();
    target.root().remove(b"dir").unwrap();
    assert_eq!(target.root().names().unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn symlinks_in_the_way_are_replaced_and_never_followed() {
    let scratch = TempDir::new().unwrap();
    let (outside, to) = (scratch.path().join("outside"), scratch.path().join("to"));
    fs::create_dir_all(outside.join("dir")).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let before = read(&outside);
    fs::create_dir(&to).unwrap();
    for (name, to_what) in [
        ("dir", "dir"),
        ("file", "file"),
        ("missing", "new"),
        ("node", "file"),
        ("link", "file"),
        ("pipe", "dir"),
    ] {
        symlink(outside.join(to_what), to.join(name)).unwrap();
    }
    let target = target(&to);
    let root = target.root();
    assert!(matches!(root.open_dir(b"dir"), Err(Error::Restore { .. })));
    let dir = root.create_dir(b"dir").unwrap();
    put_file(&dir, b"inside", b"x").unwrap();
    dir.finish(&meta(0o755)).unwrap();
    put_file(root, b"file", b"new").unwrap();
    put_file(root, b"missing", b"new").unwrap();
    let linked = Metadata {
        link: Some(LinkId {
            device: 0,
            inode: 1,
        }),
        ..meta(0o600)
    };
    let kind = NodeKind::Symlink {
        target: b"elsewhere".to_vec(),
    };
    root.create_node(b"node", &kind, &linked).unwrap();
    root.create_node(b"pipe", &NodeKind::Fifo, &meta(0o600))
        .unwrap();
    assert!(
        root.link(
            b"link",
            LinkId {
                device: 0,
                inode: 1
            }
        )
        .unwrap()
    );
    assert_eq!(read(&outside), before);
    assert!(fs::symlink_metadata(to.join("dir")).unwrap().is_dir());
    assert!(fs::symlink_metadata(to.join("file")).unwrap().is_file());
    assert_eq!(
        fs::read_link(to.join("link")).unwrap(),
        Path::new("elsewhere")
    );
    assert_eq!(root.names().unwrap().len(), 6);
}

#[test]
fn a_directory_exchanged_for_a_symlink_while_closed_is_noticed() {
    let scratch = TempDir::new().unwrap();
    let (outside, to) = (scratch.path().join("outside"), scratch.path().join("to"));
    fs::create_dir(&outside).unwrap();
    let options = TargetOptions {
        open_dirs: 1,
        ..options()
    };
    let target = Target::open(&to, true, options).unwrap();
    let victim = target.root().create_dir(b"victim").unwrap();
    let other = target.root().create_dir(b"other").unwrap();
    fs::rename(to.join("victim"), to.join("moved")).unwrap();
    symlink(&outside, to.join("victim")).unwrap();
    assert!(matches!(
        put_file(&victim, b"file", b"x"),
        Err(Error::Restore { .. })
    ));
    put_file(&other, b"file", b"x").unwrap();
    fs::remove_file(to.join("victim")).unwrap();
    fs::create_dir(to.join("victim")).unwrap();
    let replaced = put_file(&victim, b"file", b"x");
    assert!(
        matches!(replaced, Err(Error::DirectoryReplaced { path }) if path == to.join("victim"))
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(to.join("victim")).unwrap().count(), 0);
}

#[test]
fn nothing_leaves_the_root_while_another_process_keeps_swapping_symlinks_in() {
    let scratch = TempDir::new().unwrap();
    let (outside, to) = (scratch.path().join("outside"), scratch.path().join("to"));
    fs::create_dir_all(outside.join("dir")).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let before = read(&outside);
    fs::create_dir_all(to.join("swap")).unwrap();
    symlink(outside.join("dir"), to.join("decoy")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (a, b) = (to.join("swap"), to.join("decoy"));
                let _gone = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
                let _there = symlink(outside.join("file"), to.join("node"));
            }
        });
        let options = TargetOptions {
            open_dirs: 1,
            ..options()
        };
        let target = Target::open(&to, true, options).unwrap();
        for _ in 0..300 {
            // Any of these may fail; none may reach what is outside.
            if let Ok(dir) = target.root().create_dir(b"swap") {
                let _refused = put_file(&dir, b"file", b"x");
                let _refused = dir.create_node(b"node", &NodeKind::Fifo, &meta(0o600));
                let _refused = dir.finish(&meta(0o777));
            }
            let _refused = put_file(target.root(), b"node", b"x");
            let _refused = target.root().remove(b"node");
            let _refused = target
                .root()
                .create_node(b"node", &NodeKind::Fifo, &meta(0o666));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(read(&outside), before);
}

#[test]
fn names_that_are_no_names_are_refused_everywhere() {
    let scratch = TempDir::new().unwrap();
    let target = target(&scratch.path().join("to"));
    let root = target.root();
    for name in [
        b"".as_slice(),
        b".",
        b"..",
        b"/",
        b"a/b",
        b"/etc/passwd",
        b"../x",
        b"nul\0",
        b"a/",
    ] {
        let refused = |error: Error| matches!(error, Error::UnsafeName { .. });
        assert!(root.create_dir(name).err().is_some_and(refused), "{name:?}");
        assert!(root.open_dir(name).err().is_some_and(refused), "{name:?}");
        assert!(
            put_file(root, name, b"x").err().is_some_and(refused),
            "{name:?}"
        );
        assert!(
            root.create_node(name, &NodeKind::Fifo, &meta(0))
                .err()
                .is_some_and(refused)
        );
        assert!(
            root.link(
                name,
                LinkId {
                    device: 0,
                    inode: 0
                }
            )
            .err()
            .is_some_and(refused)
        );
        assert!(root.remove(name).err().is_some_and(refused), "{name:?}");
        assert!(root.existing(name).err().is_some_and(refused), "{name:?}");
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    assert_eq!(root.names().unwrap().len(), 0);
}

#[test]
fn a_hostile_node_is_refused_or_reported_and_not_misread() {
    let scratch = TempDir::new().unwrap();
    let target = target(scratch.path());
    let root = target.root();
    for (major, minor) in [(1 << 12, 0), (0, 1 << 20), (u32::MAX, u32::MAX)] {
        let kind = NodeKind::CharDevice(DeviceNumber { major, minor });
        assert!(matches!(
            root.create_node(b"dev", &kind, &meta(0o600)),
            Err(Error::Restore { .. })
        ));
    }
    for kind in [NodeKind::Dir, NodeKind::File { size: 1 }] {
        assert!(matches!(
            root.create_node(b"x", &kind, &meta(0)),
            Err(Error::NotABareNode { .. })
        ));
    }
    let nul = NodeKind::Symlink {
        target: b"a\0b".to_vec(),
    };
    assert!(matches!(
        root.create_node(b"x", &nul, &meta(0)),
        Err(Error::Restore { .. })
    ));
    let hostile = Metadata {
        uid: u32::MAX,
        mode: 0o6755,
        mtime: time(0, 0x3fff_ffff),
        xattrs: vec![Xattr {
            name: b"user.a\0b".to_vec(),
            value: vec![],
        }],
        ..meta(0)
    };
    let problems = root
        .create_file(b"file", 0, 0o6755)
        .unwrap()
        .finish(&hostile)
        .unwrap();
    let what: Vec<_> = problems.iter().map(|problem| &problem.what).collect();
    assert!(
        matches!(
            what.as_slice(),
            [
                Attribute::Owner { .. },
                Attribute::Xattr(_),
                Attribute::SetId,
                Attribute::Times
            ]
        ),
        "{what:?}"
    );
    assert!(
        problems
            .iter()
            .all(|problem| problem.path == scratch.path().join("file"))
    );
    assert_eq!(
        fs::metadata(scratch.path().join("file")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn content_beyond_the_end_of_a_file_is_refused() {
    let scratch = TempDir::new().unwrap();
    let target = target(scratch.path());
    let writer = target.root().create_file(b"short", 10, 0o644).unwrap();
    for (offset, len) in [(0, 11), (10, 1), (u64::MAX, 2)] {
        assert!(matches!(
            writer.write_at(offset, &vec![1; len]),
            Err(Error::WriteOutside { .. })
        ));
        assert!(matches!(
            writer.write_zeros(offset, len as u64),
            Err(Error::WriteOutside { .. })
        ));
    }
}

#[test]
fn a_file_never_takes_the_place_of_a_directory_with_content() {
    let scratch = TempDir::new().unwrap();
    fs::create_dir_all(scratch.path().join("full/inside")).unwrap();
    let target = target(scratch.path());
    let root = target.root();
    let link = LinkId {
        device: 0,
        inode: 3,
    };
    let linked = Metadata {
        link: Some(link),
        ..meta(0o600)
    };
    root.create_node(b"first", &NodeKind::Fifo, &linked)
        .unwrap();
    let full = scratch.path().join("full");
    let in_the_way =
        |error: Error| matches!(error, Error::DirectoryInTheWay { path } if path == full);
    assert!(
        root.create_file(b"full", 1, 0o644)
            .err()
            .is_some_and(in_the_way)
    );
    assert!(
        root.create_node(b"full", &NodeKind::Fifo, &meta(0))
            .err()
            .is_some_and(in_the_way)
    );
    assert!(root.link(b"full", link).err().is_some_and(in_the_way));
    // It appears only while the file is written.
    let late = root.create_file(b"late", 1, 0o644).unwrap();
    fs::create_dir_all(scratch.path().join("late/inside")).unwrap();
    assert!(matches!(
        late.finish(&meta(0o644)),
        Err(Error::DirectoryInTheWay { .. })
    ));
    assert_eq!(root.names().unwrap().len(), 3, "no temporary name is left");
    for name in [b"e1".as_slice(), b"e2", b"e3"] {
        fs::create_dir(scratch.path().join(OsStr::from_bytes(name))).unwrap();
    }
    put_file(root, b"e1", b"x").unwrap();
    root.create_node(b"e2", &NodeKind::Fifo, &meta(0)).unwrap();
    assert!(root.link(b"e3", link).unwrap());
    assert!(root.names().unwrap().iter().all(|name| name.len() < 6));
}

#[test]
fn an_unfinished_file_leaves_the_old_one_and_nothing_else() {
    let scratch = TempDir::new().unwrap();
    fs::write(scratch.path().join("file"), "old").unwrap();
    let target = target(scratch.path());
    for nameless in [true, false] {
        target
            .root()
            .shared
            .nameless
            .store(nameless, Ordering::Relaxed);
        let writer = target.root().create_file(b"file", 1 << 20, 0o644).unwrap();
        writer.write_at(4096, b"new").unwrap();
        assert_eq!(fs::read(scratch.path().join("file")).unwrap(), b"old");
        drop(writer);
        assert_eq!(fs::read(scratch.path().join("file")).unwrap(), b"old");
        assert_eq!(target.root().names().unwrap(), [b"file"]);
    }
}

#[test]
fn edges_of_large_pieces_are_in_the_file_in_the_end_however_many_there_are() {
    let scratch = TempDir::new().unwrap();
    let content: Vec<u8> = (0..=250).cycle().take(400_000).collect();
    for count in [1, 100, 400] {
        let target = target(scratch.path());
        let end = 1000 * count;
        let writer = target.root().create_file(b"file", end, 0o644).unwrap();
        // The last ones first: they lie where they belong, whatever the order.
        for start in (0..count).rev().map(|number| number * 1000) {
            let at = usize::try_from(start).unwrap();
            writer.write_pages(start, &content[at..at + 1000]).unwrap();
        }
        writer.finish(&meta(0o644)).unwrap();
        let restored = fs::read(scratch.path().join("file")).unwrap();
        assert!(
            restored == content[..usize::try_from(end).unwrap()],
            "{count}"
        );
    }
}

#[test]
fn zeros_become_holes_only_in_a_sparse_restore_and_holes_always_stay_holes() {
    let scratch = TempDir::new().unwrap();
    let mib: u64 = 1 << 20;
    let mut content = vec![0; 1 << 20];
    content[300_000] = 1;
    for sparse in [false, true] {
        let target = Target::open(
            scratch.path(),
            true,
            TargetOptions {
                sparse,
                ..options()
            },
        )
        .unwrap();
        let writer = target.root().create_file(b"file", 4 * mib, 0o644).unwrap();
        writer.write_at(0, &content).unwrap();
        writer.write_zeros(2 * mib, mib).unwrap();
        writer.finish(&meta(0o644)).unwrap();
        let stat = fs::metadata(scratch.path().join("file")).unwrap();
        assert_eq!(stat.len(), 4 * mib);
        let allocated = stat.blocks() * 512;
        if sparse {
            assert!(allocated <= 64 << 10, "{allocated}");
        } else {
            assert!(
                (2 * mib..2 * mib + (64 << 10)).contains(&allocated),
                "{allocated}"
            );
        }
        let mut expected = content.clone();
        expected.resize(4 << 20, 0);
        assert!(fs::read(scratch.path().join("file")).unwrap() == expected);
    }
}

#[test]
fn several_threads_write_one_file_and_one_directory() {
    let scratch = TempDir::new().unwrap();
    let target = target(scratch.path());
    let dir = target.root().create_dir(b"dir").unwrap();
    let writer = dir.create_file(b"big", 64 << 12, 0o644).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (dir, writer) = (&dir, &writer);
            scope.spawn(move || {
                for block in (0..64_u8).filter(|block| block % 4 == thread) {
                    writer
                        .write_at(u64::from(block) << 12, &[block; 4096])
                        .unwrap();
                    put_file(dir, format!("f{block}").as_bytes(), &[block]).unwrap();
                }
            });
        }
    });
    assert!(writer.finish(&meta(0o644)).unwrap().is_empty());
    let content = fs::read(scratch.path().join("dir/big")).unwrap();
    assert!(
        content
            .chunks(4096)
            .zip(0..64)
            .all(|(block, i)| block == [i; 4096])
    );
    assert_eq!(dir.names().unwrap().len(), 65);
}

/// A user cannot clear a directory that its mode forbids to write to.
fn make_removable(trees: [&Path; 2]) {
    for tree in trees {
        let path = tree.join("mode/d_0500");
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// Removes what is below `dir`, which may be deeper than any path and than any stack.
pub(super) fn remove_chain(dir: &Dir) {
    let mut chain = vec![(dir.clone(), Vec::new())];
    while let Some((dir, name)) = chain.last().cloned() {
        let mut below = None;
        for name in dir.names().unwrap() {
            if dir.remove(&name).is_err() {
                below = Some((dir.open_dir(&name).unwrap(), name));
            }
        }
        if let Some(below) = below {
            chain.push(below);
            continue;
        }
        chain.pop();
        if let Some((parent, _)) = chain.last() {
            parent.remove(&name).unwrap();
        }
    }
}

#[test]
fn a_tree_deeper_than_any_path_needs_few_descriptors_and_keeps_its_metadata() {
    let scratch = TempDir::new().unwrap();
    let options = TargetOptions {
        open_dirs: 16,
        ..options()
    };
    let target = Target::open(scratch.path(), true, options).unwrap();
    let name = [b'd'; 100];
    let mut chain = vec![target.root().clone()];
    for _ in 0..300 {
        chain.push(chain.last().unwrap().create_dir(&name).unwrap());
    }
    let bottom = chain.last().unwrap();
    assert!(bottom.path().as_os_str().len() > 30_000);
    put_file(bottom, b"bottom.txt", b"at the bottom").unwrap();
    // The ones at the top were closed long ago.
    put_file(&chain[150], b"middle.txt", b"x").unwrap();
    while let Some(dir) = chain.pop() {
        assert!(dir.finish(&meta(0o750)).unwrap().is_empty());
    }
    let mut at = target.root().clone();
    for depth in 0..300 {
        let stat = at.existing(&name).unwrap().unwrap();
        assert_eq!(
            (stat.st_mode & 0o7777, stat.st_mtime, stat.st_mtime_nsec),
            (0o750, 1_600_000_000, 5),
            "{depth}"
        );
        at = at.open_dir(&name).unwrap();
    }
    assert_eq!(at.existing(b"bottom.txt").unwrap().unwrap().st_size, 13);
    drop(at);
    remove_chain(target.root());
}

#[test]
fn a_link_whose_first_name_was_exchanged_is_refused() {
    let scratch = TempDir::new().unwrap();
    let target = target(scratch.path());
    let link = LinkId {
        device: 0,
        inode: 3,
    };
    assert!(!target.root().link(b"early", link).unwrap());
    let writer = target.root().create_file(b"first", 0, 0o644).unwrap();
    writer
        .finish(&Metadata {
            link: Some(link),
            ..meta(0o644)
        })
        .unwrap();
    fs::write(scratch.path().join("other"), "x").unwrap();
    fs::rename(scratch.path().join("other"), scratch.path().join("first")).unwrap();
    let refused = target.root().link(b"second", link);
    assert!(matches!(refused, Err(Error::LinkSourceReplaced { .. })));
    assert_eq!(target.root().names().unwrap(), [b"first"]);
}

/// Runs `body` as a user: as it is if the tests run as one, else as nobody, in a thread.
fn as_user(dir: &Path, body: impl FnOnce() + Send) {
    use rustix::{
        fs::{Gid, Uid},
        thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
    };
    if !is_root() {
        return body();
    }
    let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
    std::os::unix::fs::chown(dir, Some(65_534), Some(65_534)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            body();
        });
    });
}

#[test]
fn a_user_gets_all_but_what_only_root_may_and_is_told_of_each() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path();
    as_user(path, || {
        let xattr = |name: &[u8]| Xattr {
            name: name.to_vec(),
            value: b"1".to_vec(),
        };
        for _ in 0..2 {
            let target = target(path);
            let dir = target.root().create_dir(b"dir").unwrap();
            let file = dir.create_file(b"mine", 1, 0o444).unwrap();
            file.write_at(0, b"1").unwrap();
            let mine = Metadata {
                xattrs: vec![xattr(b"user.a")],
                ..meta(0o444)
            };
            assert!(file.finish(&mine).unwrap().is_empty());
            let file = dir.create_file(b"roots", 0, 0o4755).unwrap();
            let roots = Metadata {
                uid: 0,
                gid: 0,
                xattrs: vec![
                    xattr(b"security.capability"),
                    xattr(b"trusted.a"),
                    xattr(b"user.a"),
                ],
                flags: IFlags::IMMUTABLE.bits(),
                ..meta(0o4755)
            };
            let what: Vec<_> = file
                .finish(&roots)
                .unwrap()
                .into_iter()
                .map(|p| p.what)
                .collect();
            let lost = |name: &str| Attribute::Xattr(name.into());
            let expected = [
                Attribute::Owner { uid: 0, gid: 0 },
                lost("security.capability"),
                lost("trusted.a"),
                Attribute::SetId,
                Attribute::Flags(IFlags::IMMUTABLE.bits()),
            ];
            assert_eq!(what, expected);
            let device = NodeKind::CharDevice(DeviceNumber { major: 1, minor: 3 });
            assert!(matches!(
                dir.create_node(b"dev", &device, &meta(0o666)),
                Err(Error::Restore { .. })
            ));
            // Neither readable nor writable, and yet the next round restores into it.
            assert!(dir.finish(&meta(0o000)).unwrap().is_empty());
            assert_eq!(fs::metadata(path.join("dir")).unwrap().mode() & 0o7777, 0);
        }
        let dir = target(path).root().open_dir(b"dir").unwrap();
        dir.finish(&meta(0o755)).unwrap();
        assert_eq!(
            fs::metadata(path.join("dir/roots")).unwrap().mode() & 0o7777,
            0o755
        );
        assert_eq!(
            fs::metadata(path.join("dir/mine")).unwrap().mode() & 0o7777,
            0o444
        );
        assert_eq!(read_xattrs(&path.join("dir/mine")), [xattr(b"user.a")]);
    });
}
