//! Metadata onto a file that is already there: owner, attributes, mode, ACLs, times, flags.
//!
//! Always by descriptor, never by path, so that nothing swapped in under the name is touched. The
//! order is the point: a change of owner clears set-id bits and capabilities, `user.` attributes
//! need a writable file, an ACL rewrites the group bits, everything changes times, and an
//! immutable file takes nothing more. What cannot be applied is a [`Problem`], not an error.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    fmt, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
};

use rustix::{
    fs::{
        AtFlags, Gid, IFlags, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
        chmodat, chownat, fchmod, flistxattr, fremovexattr, fsetxattr, fstat, ioctl_getflags,
        ioctl_setflags, listxattr, removexattr, setxattr, utimensat,
    },
    io::Errno,
};
use strongroom_repo::env::Timestamp;

use crate::node::{Metadata, RESTORED_FLAGS};

/// Something about a restored file that is not as it was; its content is.
#[derive(Debug, thiserror::Error)]
#[error("cannot restore {what} of {path:?}")]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// What is missing.
    pub what: Attribute,
    /// What the system answered.
    pub source: io::Error,
}

/// A part of a file's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Owner and group.
    Owner {
        /// Wanted owner.
        uid: u32,
        /// Wanted group.
        gid: u32,
    },
    /// Set-uid and set-gid, left out because the owner could not be restored.
    SetId,
    /// Permission bits.
    Mode,
    /// An extended attribute, ACLs among them.
    Xattr(OsString),
    /// An extended attribute of the file that was there before, or inherited, still present.
    ExtraXattr(OsString),
    /// Time of last change and access.
    Times,
    /// Inode flags.
    Flags(u32),
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { uid, gid } => write!(f, "the owner {uid}:{gid}"),
            Self::SetId => f.write_str("the set-id bits (the owner differs)"),
            Self::Mode => f.write_str("the mode"),
            Self::Xattr(name) => write!(f, "the attribute {name:?}"),
            Self::ExtraXattr(name) => write!(f, "the absence of attribute {name:?}"),
            Self::Times => f.write_str("the times"),
            Self::Flags(flags) => write!(f, "the inode flags {flags:#x}"),
        }
    }
}

/// How a file is held.
#[derive(Clone, Copy)]
pub(super) enum Handle<'a> {
    /// Opened: regular files and directories.
    Open(BorrowedFd<'a>),
    /// Pinned by an `O_PATH` descriptor: what must not be opened (symlinks, pipes, devices).
    Pinned(BorrowedFd<'a>),
}

/// A file about to get its metadata.
pub(super) struct Subject<'a> {
    pub(super) handle: Handle<'a>,
    /// Its present state.
    pub(super) stat: &'a Stat,
    /// Whether it may have attributes that nobody asked for.
    pub(super) stale_xattrs: bool,
    /// Its path, for messages.
    pub(super) path: &'a dyn Fn() -> PathBuf,
}

/// Applies everything but the inode flags, which must wait until the file has its name.
pub(super) fn apply(subject: &Subject<'_>, meta: &Metadata, owner: bool) -> Vec<Problem> {
    let mut applier = Applier {
        subject,
        meta,
        problems: Vec::new(),
    };
    let (set_id, owner_changed) = if owner {
        applier.owner()
    } else {
        (true, false)
    };
    if subject.stale_xattrs {
        applier.remove_stale_xattrs();
    }
    let loosened = applier.loosen_for_xattrs();
    applier.xattrs(|name| !is_acl(name));
    applier.mode(set_id, owner_changed || loosened);
    applier.xattrs(is_acl);
    applier.times();
    applier.problems
}

/// Sets the inode flags that a snapshot keeps, `wanted` among them and all others cleared.
pub(super) fn apply_flags(
    fd: BorrowedFd<'_>,
    wanted: u32,
    path: &dyn Fn() -> PathBuf,
) -> Option<Problem> {
    let wanted = wanted & RESTORED_FLAGS;
    let set = || {
        let now = ioctl_getflags(fd)?;
        let next = IFlags::from_bits_retain((now.bits() & !RESTORED_FLAGS) | wanted);
        if next == now {
            return Ok(());
        }
        ioctl_setflags(fd, next)
    };
    match set() {
        Ok(()) => None,
        Err(Errno::NOTTY | Errno::OPNOTSUPP) if wanted == 0 => None,
        Err(errno) => Some(Problem {
            path: path(),
            what: Attribute::Flags(wanted),
            source: errno.into(),
        }),
    }
}

struct Applier<'a> {
    subject: &'a Subject<'a>,
    meta: &'a Metadata,
    problems: Vec<Problem>,
}

impl Applier<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self.subject.handle {
            Handle::Open(fd) | Handle::Pinned(fd) => fd,
        }
    }

    fn problem(&mut self, what: Attribute, source: impl Into<io::Error>) {
        self.problems.push(Problem {
            path: (self.subject.path)(),
            what,
            source: source.into(),
        });
    }

    fn is_symlink(&self) -> bool {
        is_symlink(self.subject.stat)
    }

    /// Answers whether set-id bits may be restored, and whether the owner was changed.
    fn owner(&mut self) -> (bool, bool) {
        let (uid, gid) = (self.meta.uid, self.meta.gid);
        let (new_uid, new_gid) = (
            (uid != self.subject.stat.st_uid).then_some(uid),
            (gid != self.subject.stat.st_gid).then_some(gid),
        );
        if new_uid.is_none() && new_gid.is_none() {
            return (true, false);
        }
        // The kernel takes u32::MAX for "leave as it is"; no file belongs to it.
        let chown = |uid: Option<u32>, gid: Option<u32>| {
            if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
                return Err(Errno::INVAL);
            }
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            chownat(self.fd(), c"", uid, gid, AtFlags::EMPTY_PATH)
        };
        match chown(new_uid, new_gid) {
            Ok(()) => (true, true),
            Err(errno) => {
                // A user may still give a file to one of their groups.
                if new_uid.is_some() && new_gid.is_some() {
                    let _group_only = chown(None, new_gid);
                }
                self.problem(Attribute::Owner { uid, gid }, errno);
                (false, true)
            }
        }
    }

    /// Makes a read-only file writable while it gets attributes: a user needs that, not only the
    /// descriptor. Its mode is set afterwards.
    fn loosen_for_xattrs(&self) -> bool {
        let Handle::Open(fd) = self.subject.handle else {
            return false;
        };
        let needs_write = self.meta.xattrs.iter().any(|x| !is_acl(&x.name));
        if !needs_write || self.subject.stat.st_mode & 0o200 != 0 {
            return false;
        }
        // Where this fails, setting the attributes does too, and that is reported.
        fchmod(
            fd,
            Mode::from_raw_mode(0o600 | (self.subject.stat.st_mode & 0o100)),
        )
        .is_ok()
    }

    fn mode(&mut self, set_id: bool, changed: bool) {
        if self.is_symlink() {
            return;
        }
        let mut mode = self.meta.mode & 0o7777;
        if !set_id && mode & 0o6000 != 0 {
            mode &= 0o1777;
            self.problem(Attribute::SetId, Errno::PERM);
        }
        let wanted = u32::from(mode);
        // A change of owner clears the set-id bits, so they cannot be right already.
        if self.subject.stat.st_mode & 0o7777 == wanted && !(changed && set_or_loosened(wanted)) {
            return;
        }
        let bits = Mode::from_raw_mode(wanted);
        let done = match self.subject.handle {
            Handle::Open(fd) => fchmod(fd, bits),
            Handle::Pinned(fd) => chmodat(
                rustix::fs::CWD,
                proc_path(fd).as_c_str(),
                bits,
                AtFlags::empty(),
            ),
        };
        if let Err(errno) = done {
            self.problem(Attribute::Mode, errno);
            return;
        }
        // The kernel drops set-gid without a word for a group that is not the caller's.
        if wanted & 0o2000 != 0 && fstat(self.fd()).is_ok_and(|stat| stat.st_mode & 0o2000 == 0) {
            self.problem(Attribute::SetId, Errno::PERM);
        }
    }

    fn xattrs(&mut self, which: impl Fn(&[u8]) -> bool) {
        for xattr in &self.meta.xattrs {
            if !which(&xattr.name) {
                continue;
            }
            let set = CString::new(xattr.name.as_slice())
                .map_err(|_| Errno::INVAL)
                .and_then(|name| set_xattr(self.subject.handle, &name, &xattr.value));
            if let Err(errno) = set {
                self.problem(
                    Attribute::Xattr(OsString::from_vec(xattr.name.clone())),
                    errno,
                );
            }
        }
    }

    fn remove_stale_xattrs(&mut self) {
        let names = match xattr_names(self.subject.handle) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP) => return,
            Err(errno) => return self.problem(Attribute::ExtraXattr(OsString::new()), errno),
        };
        for name in names {
            let bytes = name.as_bytes();
            let wanted = self.meta.xattrs.iter().any(|x| x.name == bytes);
            if wanted || !is_ours_to_remove(bytes) {
                continue;
            }
            if let Err(errno) = remove_xattr(self.subject.handle, &name) {
                let name = OsStr::from_bytes(bytes).to_os_string();
                self.problem(Attribute::ExtraXattr(name), errno);
            }
        }
    }

    fn times(&mut self) {
        let mtime = self.meta.mtime;
        let (Some(modified), Some(accessed)) = (
            timespec(mtime),
            self.meta.atime.map_or(Some(UNCHANGED), timespec),
        ) else {
            return self.problem(Attribute::Times, Errno::INVAL);
        };
        let times = Timestamps {
            last_access: accessed,
            last_modification: modified,
        };
        if let Err(errno) = utimensat(self.fd(), c"", &times, AtFlags::EMPTY_PATH) {
            return self.problem(Attribute::Times, errno);
        }
        // File systems clamp what they cannot store, without a word.
        let common = 0..=i64::from(i32::MAX);
        if !common.contains(&mtime.secs)
            && !fstat(self.fd()).is_ok_and(|stat| stat.st_mtime == mtime.secs)
        {
            self.problem(Attribute::Times, Errno::RANGE);
        }
    }
}

/// Whether a file with such a mode must be given it again after its owner or mode was touched.
const fn set_or_loosened(wanted: u32) -> bool {
    wanted & 0o6000 != 0 || wanted & 0o200 == 0
}

pub(super) const fn is_symlink(stat: &Stat) -> bool {
    stat.st_mode & 0o170_000 == 0o120_000
}

fn is_acl(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

/// What users, backups and inheritance put there; labels of security modules and properties of
/// file systems stay.
fn is_ours_to_remove(name: &[u8]) -> bool {
    is_acl(name)
        || name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name == b"security.capability"
}

const UNCHANGED: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_OMIT,
};

/// Nothing for nanoseconds that the kernel would take for a command.
fn timespec(time: Timestamp) -> Option<Timespec> {
    (time.nanos < 1_000_000_000).then(|| Timespec {
        tv_sec: time.secs,
        tv_nsec: time.nanos.into(),
    })
}

/// The path by which a pinned file can be reached without its name.
pub(crate) fn proc_path(fd: impl AsFd) -> CString {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    // Digits and letters only, so there is no NUL to refuse.
    CString::new(path).unwrap_or_default()
}

fn set_xattr(handle: Handle<'_>, name: &CStr, value: &[u8]) -> rustix::io::Result<()> {
    match handle {
        Handle::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
        Handle::Pinned(fd) => setxattr(proc_path(fd).as_c_str(), name, value, XattrFlags::empty()),
    }
}

fn remove_xattr(handle: Handle<'_>, name: &CStr) -> rustix::io::Result<()> {
    let removed = match handle {
        Handle::Open(fd) => fremovexattr(fd, name),
        Handle::Pinned(fd) => removexattr(proc_path(fd).as_c_str(), name),
    };
    match removed {
        Err(Errno::NODATA) => Ok(()),
        other => other,
    }
}

fn xattr_names(handle: Handle<'_>) -> rustix::io::Result<Vec<CString>> {
    // The kernel's own limit for a list of names.
    let mut list = vec![0_u8; 64 << 10];
    let len = match handle {
        Handle::Open(fd) => flistxattr(fd, list.as_mut_slice())?,
        Handle::Pinned(fd) => listxattr(proc_path(fd).as_c_str(), list.as_mut_slice())?,
    };
    list.truncate(len);
    Ok(list
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect())
}
