//! What a file is: [`Stat`] is what one cheap system call tells and enough to see that nothing
//! changed; [`MetadataReader`] adds the rest (attributes, ACLs, flags, names of owners) where
//! something did.
//!
//! Everything is read through a descriptor, so that all parts describe the same file. What a file
//! system does not support is silence; what it refuses is reported and the rest is kept.
//! User and group names come from files in the form of `/etc/passwd` and `/etc/group`; accounts of
//! network directories have their number only.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{self, AtFlags, Mode, OFlags, Statx, StatxFlags, StatxTimestamp},
    io::Errno,
};
use strongroom_repo::env::Timestamp;

use super::{read::SourceFile, walk::Entry};
use crate::{
    error::{Error, Result, SourceAction},
    node::{DeviceNumber, LinkId, Metadata, Node, NodeKind, RESTORED_FLAGS, Xattr},
};

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// What one system call tells about a file. The kernel updates `ctime` with every change of
/// content or metadata (attributes and flags among it), so that equal times, size and inode mean
/// that a node saved earlier still describes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Type of the file.
    pub file_type: FileType,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u16,
    /// Length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes; less than `size` tells of holes or compression.
    pub blocks: u64,
    /// How many names the file has.
    pub link_count: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of content or metadata.
    pub ctime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// The device that holds the file, as the system numbers it today.
    pub device: DeviceNumber,
    /// Inode number on that device.
    pub inode: u64,
    /// What a device file stands for.
    pub special: DeviceNumber,
    /// Inode flags as far as this call tells them: all of [`RESTORED_FLAGS`] but no-atime.
    flags: u32,
}

impl Stat {
    /// The file with this name in an open directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn at(dir: BorrowedFd<'_>, name: &[u8], follow: bool) -> io::Result<Self> {
        let flags = if follow {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        Self::read(dir, name, flags | AtFlags::NO_AUTOMOUNT)
    }

    /// The open file.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        Self::read(file, b"", AtFlags::EMPTY_PATH)
    }

    /// True if both describe the same inode.
    #[must_use]
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }

    fn read(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> io::Result<Self> {
        let stat = fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)?;
        let file_type = match fs::FileType::from_raw_mode(stat.stx_mode.into()) {
            fs::FileType::RegularFile => FileType::Regular,
            fs::FileType::Directory => FileType::Dir,
            fs::FileType::Symlink => FileType::Symlink,
            fs::FileType::BlockDevice => FileType::BlockDevice,
            fs::FileType::CharacterDevice => FileType::CharDevice,
            fs::FileType::Fifo => FileType::Fifo,
            fs::FileType::Socket => FileType::Socket,
            _ => return Err(io::Error::from(Errno::INVAL)),
        };
        Ok(Self::from_statx(file_type, &stat))
    }

    fn from_statx(file_type: FileType, stat: &Statx) -> Self {
        Self {
            file_type,
            mode: stat.stx_mode & 0o7777,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            link_count: stat.stx_nlink.into(),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mtime: timestamp(stat.stx_mtime),
            ctime: timestamp(stat.stx_ctime),
            atime: timestamp(stat.stx_atime),
            device: DeviceNumber {
                major: stat.stx_dev_major,
                minor: stat.stx_dev_minor,
            },
            inode: stat.stx_ino,
            special: DeviceNumber {
                major: stat.stx_rdev_major,
                minor: stat.stx_rdev_minor,
            },
            flags: restored_flags(stat),
        }
    }
}

/// The attributes of the system call that are also inode flags; their bits agree by its design.
fn restored_flags(stat: &Statx) -> u32 {
    let known = (stat.stx_attributes & stat.stx_attributes_mask).bits();
    u32::try_from(known & u64::from(RESTORED_FLAGS)).unwrap_or_default()
}

fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp {
        secs: time.tv_sec,
        nanos: time.tv_nsec,
    }
}

/// Names of users and groups by number.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl Accounts {
    /// Loads a passwd and a group file; one that does not exist or cannot be read knows no names.
    #[must_use]
    pub fn load(passwd: &Path, group: &Path) -> Self {
        let read = |path| std::fs::read(path).unwrap_or_default();
        Self::parse(&read(passwd), &read(group))
    }

    /// Parses both files; lines without a name and a number are skipped. As in the system's own
    /// lookup, the first line for a number wins.
    #[must_use]
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: parse_accounts(passwd),
            groups: parse_accounts(group),
        }
    }

    /// The user's name; empty if unknown.
    #[must_use]
    pub fn user(&self, uid: u32) -> &[u8] {
        self.users.get(&uid).map(Vec::as_slice).unwrap_or_default()
    }

    /// The group's name; empty if unknown.
    #[must_use]
    pub fn group(&self, gid: u32) -> &[u8] {
        self.groups.get(&gid).map(Vec::as_slice).unwrap_or_default()
    }
}

/// `name:password:number:...` a line, in both files.
fn parse_accounts(file: &[u8]) -> HashMap<u32, Vec<u8>> {
    let mut names = HashMap::new();
    for line in file.split(|&b| b == b'\n') {
        let mut fields = line.split(|&b| b == b':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let number = std::str::from_utf8(number)
            .ok()
            .and_then(|text| text.parse().ok());
        if let (false, Some(number)) = (name.is_empty() || name.starts_with(b"#"), number) {
            names.entry(number).or_insert_with(|| name.to_vec());
        }
    }
    names
}

/// Reads all metadata of entries. Shared by threads as it is.
#[derive(Clone, Debug)]
pub struct MetadataReader {
    accounts: Accounts,
    with_atime: bool,
}

impl MetadataReader {
    /// A reader that knows these accounts and keeps access times only if asked to.
    #[must_use]
    pub fn new(accounts: Accounts, with_atime: bool) -> Self {
        Self {
            accounts,
            with_atime,
        }
    }

    /// The accounts it knows.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The whole node of an entry that the walk found; `path` is for messages. What is missing from
    /// the node goes to `problems`. For a file whose content is read as well, open it first and use
    /// [`Self::file_node`].
    ///
    /// # Errors
    /// The entry cannot be reached any more, or its link target not read.
    pub fn node(&self, entry: &Entry, path: &[u8], problems: &mut Vec<Error>) -> Result<Node> {
        if entry.stat.file_type == FileType::Regular
            && let Ok(file) = SourceFile::open(entry, path)
        {
            return Ok(self.file_node(entry, &file, path, problems));
        }
        let fail = |action| {
            move |error: io::Error| match error.kind() {
                io::ErrorKind::NotFound => Error::SourceVanished {
                    path: path.to_vec(),
                },
                _ => source_error(action, path, error),
            }
        };
        let pinned;
        let (fd, readable) = match &entry.opened {
            Some(opened) => (opened.as_fd(), !entry.passage),
            None => {
                pinned = pin(entry).map_err(fail(SourceAction::Open))?;
                (pinned.as_fd(), false)
            }
        };
        let stat = Stat::of(fd).map_err(fail(SourceAction::Stat))?;
        let target = match stat.file_type {
            FileType::Symlink => {
                let target = fs::readlinkat(fd, "", Vec::new());
                target
                    .map_err(|errno| fail(SourceAction::ReadLink)(errno.into()))?
                    .into_bytes()
            }
            _ => Vec::new(),
        };
        let meta = self.metadata(
            &Subject {
                entry,
                stat: &stat,
                fd,
                readable,
                path,
            },
            problems,
        );
        Ok(Node {
            name: entry.name.clone(),
            kind: node_kind(&stat, target),
            meta,
        })
    }

    /// The whole node of an open regular file.
    pub fn file_node(
        &self,
        entry: &Entry,
        file: &SourceFile,
        path: &[u8],
        problems: &mut Vec<Error>,
    ) -> Node {
        let stat = file.stat();
        let subject = Subject {
            entry,
            stat,
            fd: file.as_fd(),
            readable: true,
            path,
        };
        let mut meta = self.metadata(&subject, problems);
        meta.copied = file.copied().copied();
        Node {
            name: entry.name.clone(),
            kind: node_kind(stat, Vec::new()),
            meta,
        }
    }

    fn metadata(&self, subject: &Subject<'_>, problems: &mut Vec<Error>) -> Metadata {
        let stat = subject.stat;
        Metadata {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            user: self.accounts.user(stat.uid).to_vec(),
            group: self.accounts.group(stat.gid).to_vec(),
            mtime: stat.mtime,
            ctime: stat.ctime,
            atime: self.with_atime.then_some(stat.atime),
            flags: subject.flags(problems),
            xattrs: subject.xattrs(problems),
            link: link_id(stat, subject.entry.device_ordinal),
            copied: None,
        }
    }
}

/// Identity among the names of a file: none for directories and files with one name.
pub(super) fn link_id(stat: &Stat, device: u32) -> Option<LinkId> {
    let has_more_names = stat.link_count > 1 && stat.file_type != FileType::Dir;
    has_more_names.then_some(LinkId {
        device,
        inode: stat.inode,
    })
}

pub(super) fn source_error(action: SourceAction, path: &[u8], source: io::Error) -> Error {
    Error::Source {
        action,
        path: path.to_vec(),
        source,
    }
}

/// Holds on to whatever has the entry's name, without opening it for reading.
pub(super) fn pin(entry: &Entry) -> io::Result<OwnedFd> {
    let follow = if entry.followed {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC | follow;
    Ok(fs::openat(
        &entry.dir,
        entry.source_name(),
        flags,
        Mode::empty(),
    )?)
}

fn node_kind(stat: &Stat, target: Vec<u8>) -> NodeKind {
    match stat.file_type {
        FileType::Regular => NodeKind::File { size: stat.size },
        FileType::Dir => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink { target },
        FileType::BlockDevice => NodeKind::BlockDevice(stat.special),
        FileType::CharDevice => NodeKind::CharDevice(stat.special),
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
    }
}

/// An open file whose metadata is being read.
struct Subject<'a> {
    entry: &'a Entry,
    stat: &'a Stat,
    fd: BorrowedFd<'a>,
    /// False if `fd` only holds the place: then calls go by `/proc/self/fd`.
    readable: bool,
    path: &'a [u8],
}

impl Subject<'_> {
    fn flags(&self, problems: &mut Vec<Error>) -> u32 {
        if !matches!(self.stat.file_type, FileType::Regular | FileType::Dir) {
            return 0;
        }
        if !self.readable {
            return self.stat.flags;
        }
        match fs::ioctl_getflags(self.fd) {
            Ok(flags) => flags.bits() & RESTORED_FLAGS,
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => self.stat.flags,
            Err(errno) => {
                problems.push(source_error(
                    SourceAction::ReadFlags,
                    self.path,
                    errno.into(),
                ));
                self.stat.flags
            }
        }
    }

    fn xattrs(&self, problems: &mut Vec<Error>) -> Vec<Xattr> {
        let names = match grow(|buffer| self.list_xattrs(buffer)) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Vec::new(),
            Err(errno) => {
                problems.push(source_error(
                    SourceAction::ListXattrs,
                    self.path,
                    errno.into(),
                ));
                return Vec::new();
            }
        };
        let mut xattrs = Vec::new();
        for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
            match grow(|buffer| self.read_xattr(name, buffer)) {
                Ok(value) => xattrs.push(Xattr {
                    name: name.to_vec(),
                    value,
                }),
                // Removed since it was listed, or listed by a file system that cannot give it.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => problems.push(Error::SourceXattr {
                    name: name.to_vec(),
                    path: self.path.to_vec(),
                    source: errno.into(),
                }),
            }
        }
        xattrs.sort_unstable();
        xattrs
    }

    fn list_xattrs(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        if self.readable {
            fs::flistxattr(self.fd, buffer)
        } else {
            fs::listxattr(self.by_descriptor(), buffer)
        }
    }

    fn read_xattr(&self, name: &[u8], buffer: &mut [u8]) -> rustix::io::Result<usize> {
        if self.readable {
            fs::fgetxattr(self.fd, name, buffer)
        } else {
            fs::getxattr(self.by_descriptor(), name, buffer)
        }
    }

    /// A path that leads to the very file behind the descriptor, even if that is a link.
    fn by_descriptor(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

/// Calls with a small buffer and, if the answer is longer, with the largest the system knows.
fn grow(
    mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    const SMALL: usize = 512;
    /// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX`.
    const LARGEST: usize = 64 << 10;
    let mut small = [0; SMALL];
    match call(&mut small) {
        Err(Errno::RANGE) => {
            let mut large = vec![0; LARGEST];
            let len = call(&mut large)?;
            large.truncate(len);
            Ok(large)
        }
        answer => Ok(small.get(..answer?).unwrap_or_default().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::{PermissionsExt, symlink},
        path::PathBuf,
    };

    use rustix::fs::{FileType as Kind, IFlags, Timespec, Timestamps, XattrFlags, mknodat};

    use super::*;
    use crate::source::{Event, Filter, FilterRules, Targets, Walk};

    struct Sandbox {
        _dir: tempfile::TempDir,
        base: PathBuf,
    }

    fn sandbox() -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("d");
        fs::create_dir(&base).unwrap();
        Sandbox { _dir: dir, base }
    }

    impl Sandbox {
        fn file(&self, name: &str) -> PathBuf {
            let path = self.base.join(name);
            fs::write(&path, name).unwrap();
            path
        }

        /// The full node of each entry, the directory itself first; no problems are expected.
        fn nodes(&self) -> Vec<Node> {
            let accounts = Accounts::parse(b"root:x:0:0:::\n", b"wheel:x:0:\n");
            let reader = MetadataReader::new(accounts, false);
            let mut problems = Vec::new();
            let mut nodes = Vec::new();
            let filter = Filter::compile(&FilterRules::default()).unwrap();
            let targets = Targets::resolve(self.base.parent().unwrap(), &["d"]);
            for event in Walk::new(targets, filter) {
                if let Event::Enter(entry) | Event::Entry(entry) = event {
                    nodes.push(reader.node(&entry, b"path", &mut problems).unwrap());
                }
            }
            assert!(problems.is_empty(), "{problems:?}");
            nodes
        }
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    fn xattr(name: &str, value: &[u8]) -> Xattr {
        Xattr {
            name: name.as_bytes().to_vec(),
            value: value.to_vec(),
        }
    }

    #[test]
    fn every_type_is_told_with_what_only_it_has() {
        let sandbox = sandbox();
        sandbox.file("file");
        symlink("not/there\u{e9}", sandbox.base.join("link")).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(
            fs::File::open(&sandbox.base).unwrap(),
            "pipe",
            Kind::Fifo,
            mode,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(sandbox.base.join("socket")).unwrap();
        let nodes = sandbox.nodes();
        let kinds: Vec<_> = nodes
            .iter()
            .map(|node| (node.name.as_slice(), &node.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (&b"d"[..], &NodeKind::Dir),
                (b"file", &NodeKind::File { size: 4 }),
                (
                    b"link",
                    &NodeKind::Symlink {
                        target: "not/there\u{e9}".into()
                    }
                ),
                (b"pipe", &NodeKind::Fifo),
                (b"socket", &NodeKind::Socket),
            ]
        );
        let link = rustix::fs::readlinkat(rustix::fs::CWD, sandbox.base.join("link"), Vec::new());
        assert_eq!(link.unwrap().as_bytes(), "not/there\u{e9}".as_bytes());
    }

    #[test]
    fn device_numbers_are_kept_of_new_nodes_as_root_and_of_dev_null_otherwise() {
        let reader = MetadataReader::new(Accounts::default(), false);
        let node = |base: &Path, name: &str| {
            let filter = Filter::compile(&FilterRules::default()).unwrap();
            let walk = Walk::new(Targets::resolve(base, &[name]), filter);
            let entries = walk.filter_map(|event| match event {
                Event::Entry(entry) => Some(entry),
                _ => None,
            });
            let entry = entries.last().unwrap();
            reader
                .node(&entry, name.as_bytes(), &mut Vec::new())
                .unwrap()
        };
        if is_root() {
            let sandbox = sandbox();
            let number = rustix::fs::makedev(259, 70_000);
            let path = sandbox.base.join("disk");
            mknodat(
                rustix::fs::CWD,
                &path,
                Kind::BlockDevice,
                Mode::RUSR,
                number,
            )
            .unwrap();
            let expected = NodeKind::BlockDevice(DeviceNumber {
                major: 259,
                minor: 70_000,
            });
            assert_eq!(node(&sandbox.base, "disk").kind, expected);
        }
        let expected = NodeKind::CharDevice(DeviceNumber { major: 1, minor: 3 });
        assert_eq!(node(Path::new("/"), "/dev/null").kind, expected);
    }

    #[test]
    fn times_before_1970_and_after_2262_keep_their_nanoseconds() {
        let sandbox = sandbox();
        let times = [
            ("early", -1_000_000_000, 5),
            ("late", 10_000_000_000, 999_999_999),
        ];
        for (name, tv_sec, tv_nsec) in times {
            let time = Timespec { tv_sec, tv_nsec };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            let file = File::options()
                .write(true)
                .open(sandbox.file(name))
                .unwrap();
            rustix::fs::futimens(file, &times).unwrap();
        }
        let nodes = sandbox.nodes();
        assert_eq!(
            nodes[1].meta.mtime,
            Timestamp {
                secs: -1_000_000_000,
                nanos: 5
            }
        );
        assert_eq!(
            nodes[2].meta.mtime,
            Timestamp {
                secs: 10_000_000_000,
                nanos: 999_999_999
            }
        );
        assert_eq!(nodes[1].meta.atime, None);
    }

    #[test]
    fn mode_owner_names_and_special_bits_are_kept() {
        let sandbox = sandbox();
        let path = sandbox.file("tool");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6751)).unwrap();
        let meta = &sandbox.nodes()[1].meta;
        assert_eq!(meta.mode, 0o6751);
        assert_eq!(meta.uid, rustix::process::geteuid().as_raw());
        if is_root() {
            assert_eq!(
                (meta.user.as_slice(), meta.group.as_slice()),
                (&b"root"[..], &b"wheel"[..])
            );
        } else {
            assert!(meta.user.is_empty());
        }
    }

    #[test]
    fn attributes_of_files_and_directories_come_sorted_and_whole() {
        let sandbox = sandbox();
        let path = sandbox.file("f");
        let long = vec![7; 3000];
        for (name, value) in [("user.z", &b""[..]), ("user.a", &long)] {
            fs::File::open(&path)
                .map(|file| rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()).unwrap())
                .unwrap();
        }
        let dir = File::open(&sandbox.base).unwrap();
        rustix::fs::fsetxattr(dir, "user.dir", b"1", XattrFlags::empty()).unwrap();
        let nodes = sandbox.nodes();
        assert_eq!(nodes[0].meta.xattrs, [xattr("user.dir", b"1")]);
        assert_eq!(
            nodes[1].meta.xattrs,
            [xattr("user.a", &long), xattr("user.z", b"")]
        );
    }

    #[test]
    fn acls_are_kept_and_as_root_trusted_attributes_of_links_and_capabilities_too() {
        // u::rw-, u:1:r--, g::r--, m::r--, o::---
        let mut acl = vec![2, 0, 0, 0];
        for (tag, perm, id) in [
            (1_u16, 6_u16, -1_i32),
            (2, 4, 1),
            (4, 4, -1),
            (16, 4, -1),
            (32, 0, -1),
        ] {
            acl.extend(tag.to_le_bytes());
            acl.extend(perm.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        let sandbox = sandbox();
        let path = sandbox.file("f");
        let link = sandbox.base.join("link");
        symlink("f", &link).unwrap();
        let flags = XattrFlags::empty();
        rustix::fs::setxattr(&path, "system.posix_acl_access", &acl, flags).unwrap();
        let mut expected = vec![xattr("system.posix_acl_access", &acl)];
        if is_root() {
            let mut capability = vec![0; 20];
            capability[3] = 2;
            rustix::fs::setxattr(&path, "security.capability", &capability, flags).unwrap();
            expected.insert(0, xattr("security.capability", &capability));
            rustix::fs::lsetxattr(&link, "trusted.note", b"of the link", flags).unwrap();
        }
        let nodes = sandbox.nodes();
        assert_eq!(nodes[1].meta.xattrs, expected);
        let of_link = if is_root() {
            vec![xattr("trusted.note", b"of the link")]
        } else {
            vec![]
        };
        assert_eq!(nodes[2].meta.xattrs, of_link);
    }

    #[test]
    fn inode_flags_are_kept_where_supported_and_as_root_immutable_too() {
        let sandbox = sandbox();
        let file = File::open(sandbox.file("f")).unwrap();
        let Ok(before) = rustix::fs::ioctl_getflags(&file) else {
            assert_eq!(sandbox.nodes()[1].meta.flags, 0);
            return;
        };
        let mut wanted = IFlags::NODUMP | IFlags::NOATIME;
        if is_root() {
            wanted |= IFlags::IMMUTABLE;
        }
        rustix::fs::ioctl_setflags(&file, before | wanted).unwrap();
        let nodes = sandbox.nodes();
        rustix::fs::ioctl_setflags(&file, before).unwrap();
        assert_eq!(nodes[1].meta.flags, wanted.bits());
        assert_eq!(nodes[0].meta.flags, 0);
    }

    #[test]
    fn an_attribute_that_may_not_be_read_is_reported_and_the_rest_kept_unless_root_reads_all() {
        let sandbox = sandbox();
        let path = sandbox.file("f");
        rustix::fs::setxattr(&path, "user.secret", b"1", XattrFlags::empty()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let filter = Filter::compile(&FilterRules::default()).unwrap();
        let mut walk = Walk::new(Targets::resolve(&sandbox.base, &["f"]), filter);
        let Some(Event::Entry(entry)) = walk.next() else {
            panic!("an entry is expected");
        };
        let reader = MetadataReader::new(Accounts::default(), false);
        let mut problems = Vec::new();
        let node = reader.node(&entry, b"f", &mut problems).unwrap();
        assert_eq!(node.kind, NodeKind::File { size: 1 });
        if is_root() {
            assert_eq!(node.meta.xattrs, [xattr("user.secret", b"1")]);
            assert!(problems.is_empty());
        } else {
            assert!(node.meta.xattrs.is_empty());
            assert!(
                matches!(problems.as_slice(), [Error::SourceXattr { name, .. }]
                    if name == b"user.secret"),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn account_files_are_read_leniently_and_the_first_name_wins() {
        let accounts = Accounts::parse(
            b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0\n#no:x:5:5\nbroken\n\
              bad:x:one:\n:x:7:7\n\xff:x:8:8\n",
            b"staff:x:50:root\n",
        );
        assert_eq!(accounts.user(0), b"root");
        assert_eq!(accounts.user(8), b"\xff");
        for unknown in [1, 5, 7] {
            assert_eq!(accounts.user(unknown), b"");
        }
        assert_eq!(accounts.group(50), b"staff");
        assert_eq!(accounts.group(0), b"");
    }

    #[test]
    fn account_files_that_do_not_exist_know_no_names() {
        let accounts = Accounts::load(Path::new("/nonexistent/p"), Path::new("/nonexistent/g"));
        assert_eq!(accounts.user(0), b"");
    }

    #[test]
    fn an_entry_gone_since_the_walk_is_an_error_of_its_own() {
        let sandbox = sandbox();
        let link = sandbox.base.join("link");
        symlink("f", &link).unwrap();
        let filter = Filter::compile(&FilterRules::default()).unwrap();
        let mut walk = Walk::new(Targets::resolve(&sandbox.base, &["link"]), filter);
        let Some(Event::Entry(entry)) = walk.next() else {
            panic!("an entry is expected");
        };
        fs::remove_file(link).unwrap();
        let reader = MetadataReader::new(Accounts::default(), false);
        let error = reader.node(&entry, b"link", &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::SourceVanished { .. }), "{error:?}");
    }
}
