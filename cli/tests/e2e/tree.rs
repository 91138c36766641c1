//! Files of every kind that a file system can hold, and reading them back for comparison:
//! content and holes, type, mode, owner, time to the nanosecond, attributes, flags, links.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_OMIT,
    ioctl_getflags, ioctl_setflags, makedev, mkdirat, mknodat, openat, seek, utimensat,
};

use crate::runs::is_root;

/// A file as it is on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    name: Vec<u8>,
    /// Type and permissions.
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Length of a file, number of a device.
    extent: u64,
    target: Vec<u8>,
    flags: u32,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which of the files with several names it is, in the order of their first names.
    link: Option<usize>,
    /// Pieces that are not holes.
    data: Vec<(u64, Vec<u8>)>,
    children: Vec<Self>,
}

/// Reads a tree; the name of its root does not count.
pub(crate) fn read(path: &Path) -> Found {
    let mut found = read_below(path, &mut HashMap::new());
    found.name.clear();
    found
}

fn read_below(path: &Path, links: &mut HashMap<u64, usize>) -> Found {
    let stat = fs::symlink_metadata(path).unwrap();
    let mut found = Found {
        name: path.file_name().unwrap().as_bytes().to_vec(),
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        mtime: (stat.mtime(), stat.mtime_nsec()),
        extent: stat.rdev(),
        target: Vec::new(),
        flags: 0,
        xattrs: xattrs(path),
        link: None,
        data: Vec::new(),
        children: Vec::new(),
    };
    let next = links.len();
    if stat.nlink() > 1 && !stat.is_dir() {
        found.link = Some(*links.entry(stat.ino()).or_insert(next));
    }
    if stat.is_file() {
        found.extent = stat.len();
        found.data = pieces(path, stat.len());
        found.flags = flags(path);
    } else if stat.is_dir() {
        found.flags = flags(path);
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        names.sort();
        found.children = names.iter().map(|path| read_below(path, links)).collect();
    } else if stat.is_symlink() {
        found.target = fs::read_link(path).unwrap().into_os_string().into_vec();
    }
    found
}

/// Fails at the first difference, and names the file.
pub(crate) fn assert_same(left: &Found, right: &Found) {
    compare(left, right, "");
}

fn compare(left: &Found, right: &Found, above: &str) {
    let at = format!("{above}/{}", left.name.escape_ascii());
    let plain = |found: &Found| {
        let Found {
            mode,
            owner,
            mtime,
            extent,
            target,
            flags,
            xattrs,
            link,
            ..
        } = found;
        format!("{mode:o} {owner:?} {mtime:?} {extent} {target:?} {flags:x} {xattrs:?} {link:?}")
    };
    assert_eq!(plain(left), plain(right), "{at}");
    assert!(left.data == right.data, "content or holes of {at}");
    let names =
        |found: &Found| -> Vec<_> { found.children.iter().map(|c| c.name.clone()).collect() };
    assert_eq!(names(left), names(right), "{at}");
    for (left, right) in left.children.iter().zip(&right.children) {
        compare(left, right, &at);
    }
}

fn flags(path: &Path) -> u32 {
    let kept = IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NODUMP | IFlags::NOATIME;
    let file = fs::File::open(path).unwrap();
    (ioctl_getflags(file).unwrap() & kept).bits()
}

fn set_flags(path: &Path, flags: IFlags) {
    let file = fs::File::open(path).unwrap();
    let kept = ioctl_getflags(&file).unwrap() - IFlags::IMMUTABLE - IFlags::APPEND;
    ioctl_setflags(&file, kept | flags).unwrap();
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut xattrs: Vec<_> = xattr::list(path)
        .unwrap()
        .map(|name| {
            let value = xattr::get(path, &name).unwrap().unwrap();
            (name.into_vec(), value)
        })
        .filter(|(name, _)| name != b"security.selinux")
        .collect();
    xattrs.sort();
    xattrs
}

fn pieces(path: &Path, size: u64) -> Vec<(u64, Vec<u8>)> {
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

fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: secs,
            tv_nsec: nanos,
        },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes protected files removable again, whatever becomes of the test.
pub(crate) struct Thaw(pub(crate) Vec<PathBuf>);

impl Drop for Thaw {
    fn drop(&mut self) {
        for path in self.0.iter().filter(|path| path.exists()) {
            set_flags(path, IFlags::empty());
        }
    }
}

/// Names below a tree of everything that [`Thaw`] must hear of.
pub(crate) const FROZEN: [&str; 3] = ["frozen/file", "frozen/log", "frozen/dir"];

/// One of every kind of thing that a file system can hold and a user may make; root makes more.
pub(crate) fn build_everything(root: &Path) {
    for dir in [
        "plain/empty",
        "hard/sub",
        "sym",
        "special",
        "mode",
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
    fs::write(root.join("plain/units"), crate::runs::noise(18 << 20, 1)).unwrap();
    fs::write(root.join("hard/a"), "shared inode").unwrap();
    fs::hard_link(root.join("hard/a"), root.join("hard/sub/c")).unwrap();
    for i in 0..20 {
        fs::hard_link(root.join("hard/a"), root.join(format!("hard/many_{i:04}"))).unwrap();
    }
    let long = [vec![b'x'; 250], vec![b'/'], vec![b'y'; 3800]].concat();
    for (name, to) in [
        ("rel", b"dir/target".as_slice()),
        ("absolute", b"/etc/hostname"),
        ("long", &long),
        ("nonutf8", b"\xff\xfe\x80"),
        ("newline", b"a\nb"),
    ] {
        symlink(OsStr::from_bytes(to), root.join("sym").join(name)).unwrap();
        set_mtime(&root.join("sym").join(name), 1_500_000_000, 123_456_789);
    }
    for (name, kind) in [("fifo", FileType::Fifo), ("sock", FileType::Socket)] {
        let mode = Mode::from_raw_mode(0o640);
        mknodat(CWD, root.join("special").join(name), kind, mode, 0).unwrap();
    }
    fs::hard_link(root.join("special/fifo"), root.join("special/fifo_too")).unwrap();
    build_modes(root);
    build_attributes(root);
    build_layouts(root);
    build_names_and_times(root);
    if is_root() {
        build_what_only_root_may(root);
    } else {
        eprintln!("not root: devices, owners, capabilities and protected files are not tested");
    }
    set_mtime(&root.join("times/dir"), 987_654_321, 987_654_321);
    set_mtime(root, 7_654_321, 1);
}

fn build_modes(root: &Path) {
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
    for mode in [0o700, 0o1777, 0o2775, 0o3777] {
        let path = root.join(format!("mode/d_{mode:04o}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
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

fn build_attributes(root: &Path) {
    fs::create_dir_all(root.join("xattr/acl")).unwrap();
    let user = root.join("xattr/user");
    fs::write(&user, "x").unwrap();
    let binary: Vec<u8> = (0..=255).collect();
    for (name, value) in [
        (b"user.empty".as_slice(), b"".as_slice()),
        (b"user.binary", &binary),
        (b"user.\xff\xfe", b"name"),
        (b"user.big", &[7; 2500]),
    ] {
        xattr::set(&user, OsStr::from_bytes(name), value).unwrap();
    }
    xattr::set(root.join("xattr"), "user.ondir", b"1").unwrap();
    fs::write(root.join("xattr/acl/file"), "a").unwrap();
    xattr::set(
        root.join("xattr/acl/file"),
        "system.posix_acl_access",
        &acl(),
    )
    .unwrap();
    fs::write(root.join("xattr/acl/without"), "a").unwrap();
    xattr::set(root.join("xattr/acl"), "system.posix_acl_default", &acl()).unwrap();
    fs::write(root.join("xattr/acl/inherits"), "a").unwrap();
    let unsaved = root.join("xattr/nodump");
    fs::write(&unsaved, "x").unwrap();
    set_flags(&unsaved, IFlags::NODUMP);
}

fn build_layouts(root: &Path) {
    let mib = 1_u64 << 20;
    type Data = (u64, usize);
    let layouts: [(&str, u64, &[Data]); 5] = [
        ("all_hole", 8 * mib, &[]),
        ("islands", 40 * mib, &[(mib, 9000), (35 * mib + 17, 70_000)]),
        ("tail_hole", 2 * mib, &[(0, 100_000)]),
        ("real_zeros", mib, &[]),
        ("odd_end", mib + 7, &[(0, 1)]),
    ];
    for (name, size, parts) in layouts {
        let file = fs::File::create(root.join("sparse").join(name)).unwrap();
        for (offset, len) in parts {
            file.write_all_at(&vec![b'd'; *len], *offset).unwrap();
        }
        if name == "real_zeros" {
            file.write_all_at(&vec![0; 1 << 20], 0).unwrap();
        }
        file.set_len(size).unwrap();
    }
}

fn build_names_and_times(root: &Path) {
    for name in [
        vec![b'n'; 255],
        b"\xff\xfe\x80bytes".to_vec(),
        b"new\nline".to_vec(),
        b"\x1b[31mred".to_vec(),
        b"-rf".to_vec(),
        b" lead".to_vec(),
        b"back\\slash".to_vec(),
        b"..x".to_vec(),
        b"a:b".to_vec(),
        b"*?[".to_vec(),
    ] {
        fs::write(root.join("names").join(OsStr::from_bytes(&name)), "n").unwrap();
    }
    for (name, secs, nanos) in [
        ("ns", 1_234_567_890, 123_456_789),
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
        let mode = Mode::from_raw_mode(0o660);
        mknodat(CWD, root.join("special").join(name), kind, mode, device).unwrap();
    }
    fs::create_dir(root.join("owner")).unwrap();
    for (uid, gid) in [(1000, 1000), (4_000_000_000, 4_100_000_000)] {
        let path = root.join(format!("owner/u{uid}"));
        fs::write(&path, "o").unwrap();
        lchown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    }
    lchown(root.join("sym/rel"), Some(1001), Some(1002)).unwrap();
    xattr::set(root.join("special/fifo"), "trusted.onfifo", b"1").unwrap();
    let capability = root.join("xattr/capability");
    fs::write(&capability, "c").unwrap();
    let words = [0x0200_0001_u32, 1 << 13, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    xattr::set(&capability, "security.capability", &value).unwrap();
    fs::create_dir_all(root.join("frozen/dir")).unwrap();
    fs::write(root.join("frozen/dir/inside"), "i").unwrap();
    for (name, flag) in
        FROZEN
            .into_iter()
            .zip([IFlags::IMMUTABLE, IFlags::APPEND, IFlags::IMMUTABLE])
    {
        let path = root.join(name);
        if !path.exists() {
            fs::write(&path, "f").unwrap();
        }
        set_flags(&path, flag);
    }
}

/// A chain of folders whose path is longer than the system takes, with a file at its end.
pub(crate) fn build_deep(root: &Path) {
    fs::create_dir(root).unwrap();
    let mut dir: OwnedFd = fs::File::open(root).unwrap().into();
    for level in 0..DEEP {
        mkdirat(&dir, deep_name(level), Mode::RWXU).unwrap();
        dir = open_dir(&dir, level);
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = openat(&dir, "bottom", flags, Mode::from_raw_mode(0o600)).unwrap();
    fs::File::from(file).write_all(b"down here").unwrap();
}

/// Levels of a deep chain: 25 * 250 bytes are more than the 4096 of a path.
const DEEP: usize = 25;

fn deep_name(level: usize) -> String {
    format!("{level:0250}")
}

fn open_dir(dir: &OwnedFd, level: usize) -> OwnedFd {
    openat(dir, deep_name(level), OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// What the file at the end of a deep chain holds.
pub(crate) fn read_deep(root: &Path) -> String {
    let mut dir: OwnedFd = fs::File::open(root).unwrap().into();
    for level in 0..DEEP {
        dir = open_dir(&dir, level);
    }
    let file = openat(&dir, "bottom", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut content = String::new();
    fs::File::from(file).read_to_string(&mut content).unwrap();
    content
}
