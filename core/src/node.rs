//! Files as the engine sees them: [`Node`], its [`NodeKind`] and [`Metadata`]. Plain values,
//! filled by `source` from a file system and applied by `restore`; how they are stored is
//! `format::tree`'s business.

use strongroom_repo::env::Timestamp;

/// One entry of a directory, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The last component of the path, as the file system has it: any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: NodeKind,
    /// Everything else that a backup keeps.
    pub meta: Metadata,
}

impl Node {
    /// Length of a file in bytes; nothing else has one.
    #[must_use]
    pub const fn size(&self) -> u64 {
        match self.kind {
            NodeKind::File { size } => size,
            _ => 0,
        }
    }
}

/// What a directory entry is, with what only that type has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file of so many bytes.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it points, byte for byte.
        target: Vec<u8>,
    },
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A character device.
    CharDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// A device number, in its two parts so that no system's packing is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Metadata that every type has.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits with set-uid, set-gid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name where the system knows one; empty otherwise.
    pub user: Vec<u8>,
    /// Group's name where the system knows one; empty otherwise.
    pub group: Vec<u8>,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode; kept to notice changes, cannot be restored.
    pub ctime: Timestamp,
    /// Last access, only on request.
    pub atime: Option<Timestamp>,
    /// Inode flags as of `FS_IOC_GETFLAGS`, only those in [`RESTORED_FLAGS`].
    pub flags: u32,
    /// Extended attributes, POSIX ACLs and capabilities among them, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Which file this is another name of: only where the link count is above one and the type is
    /// not a directory.
    pub link: Option<LinkId>,
    /// Of what the content is a copy, where it is not the file's bytes as they were.
    pub copied: Option<Copied>,
}

/// The database of which the content of a file is a copy, as it was at one moment; by its state
/// before that an unchanged one is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Length of the database's file in bytes.
    pub size: u64,
    /// Its write-ahead log, whose content is in the copy; none where it had none or an empty one.
    pub wal: Option<Wal>,
}

/// A write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wal {
    /// Length in bytes.
    pub size: u64,
    /// Last change.
    pub mtime: Timestamp,
}

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Full name with its namespace, such as `user.comment`.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// Identity of a file with several names, within one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Small number given to each device in the order in which a backup met it: device numbers
    /// themselves change across reboots.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
}

/// Inode flags that are saved and restored: append-only, immutable, no-dump, no-atime.
pub const RESTORED_FLAGS: u32 = 0x20 | 0x10 | 0x40 | 0x80;
