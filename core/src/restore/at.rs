//! Opening files by a directory's descriptor and a name, the system calls of it: nothing here
//! follows a symlink, and nothing is opened that does something when opened.

use std::{ffi::CStr, os::fd::OwnedFd};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, IFlags, Mode, OFlags, ResolveFlags, Stat, chmodat, fstat,
        ioctl_getflags, ioctl_setflags, openat, openat2,
    },
    io::Errno,
};

use super::apply::proc_path;

pub(super) const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Immutable and append-only: with these nothing can be replaced.
pub(super) const PROTECTING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// Which file it is, as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) const fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// Opens a directory several levels down, where the levels between are not needed.
pub(super) fn jump(from: &OwnedFd, names: &[u8]) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(from, names, DIR_FLAGS, Mode::empty(), resolve) {
        // Kernels and sandboxes without the call.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
        other => return other,
    }
    let mut opened: Option<OwnedFd> = None;
    for name in names.split(|&byte| byte == b'/') {
        let at = opened.as_ref().unwrap_or(from);
        opened = Some(openat(at, name, DIR_FLAGS, Mode::empty())?);
    }
    opened.ok_or(Errno::NOENT)
}

/// Opens a directory, making it readable first where it is the caller's and not readable.
pub(super) fn open_dir(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match openat(parent, name, DIR_FLAGS, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let (pinned, stat) = open_pinned(parent, name)?;
            if !is_dir(&stat) {
                return Err(Errno::NOTDIR);
            }
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | 0o700);
            chmodat(CWD, proc_path(&pinned).as_c_str(), mode, AtFlags::empty())?;
            openat(&pinned, c".", DIR_FLAGS, Mode::empty())
        }
        other => other,
    }
}

/// Holds a file without opening it, and without following it.
pub(super) fn open_pinned(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<(OwnedFd, Stat)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = openat(parent, name, flags, Mode::empty())?;
    let stat = fstat(&pinned)?;
    Ok((pinned, stat))
}

/// Opens a pinned regular file or directory for its flags; nothing else, for opening a device
/// can do something.
pub(super) fn reopen(pinned: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let stat = fstat(pinned)?;
    if !matches!(
        FileType::from_raw_mode(stat.st_mode),
        FileType::RegularFile | FileType::Directory
    ) {
        return Err(Errno::OPNOTSUPP);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, proc_path(pinned).as_c_str(), flags, Mode::empty())
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
/// Clears immutable and append-only of what is to be replaced; answers whether they were set.
pub(super) fn unprotect(parent: &OwnedFd, name: &CStr) -> bool {
    let clear = || -> rustix::io::Result<bool> {
        let (pinned, _) = open_pinned(parent, name)?;
        Ok(unprotect_open(&reopen(&pinned)?))
    };
    // A failure leaves the caller's own error standing.
    clear().unwrap_or(false)
}

/// The same for a file that is open.
pub(super) fn unprotect_open(fd: &OwnedFd) -> bool {
    let clear = || -> rustix::io::Result<bool> {
        let flags = ioctl_getflags(fd)?;
        if !flags.intersects(PROTECTING) {
            return Ok(false);
        }
        ioctl_setflags(fd, flags.difference(PROTECTING)).map(|()| true)
    };
    clear().unwrap_or(false)
}
