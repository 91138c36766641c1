//! Taking a block device or a file for oneself, so that nobody else uses what is about to be
//! written. The kernel lends a block device to one at a time: mounts, swap, RAID and LVM hold it
//! that way, and so do we while we write, also against each other. A file has no such thing; one
//! that a loop device rests on is in use.

use std::{
    fs,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, open, openat},
    io::Errno,
};

use crate::{
    error::{Error, InUse, RestoreAction, Result},
    mounts,
    node::DeviceNumber,
    raw::Raw,
    source::meta::{FileType, Stat},
};

/// A device or file that is ours.
pub(super) struct Claim {
    pub(super) raw: Raw,
    /// As it was named.
    pub(super) path: PathBuf,
    /// Its length in bytes.
    pub(super) size: u64,
}

impl Claim {
    /// Opens a device or file, for writing or only to compare. Somebody else's is taken only by
    /// `force`.
    pub(super) fn take(path: &Path, writes: bool, force: bool) -> Result<Self> {
        let failed = |action, source| Error::Restore {
            action,
            path: path.to_owned(),
            source,
        };
        // Looked at before it is opened: opening other devices does things.
        let pinned = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(RestoreAction::Open, errno.into()))?;
        let stat = Stat::of(pinned.as_fd()).map_err(|error| failed(RestoreAction::Stat, error))?;
        let is_block = match stat.file_type {
            FileType::BlockDevice => true,
            FileType::Regular => false,
            _ => return Err(Error::NotADevice { path: path.into() }),
        };
        let used = |by| Error::DeviceInUse {
            path: path.to_owned(),
            by,
        };
        if !force && let Some(device) = loop_device_on(path, is_block.then_some(stat.special)) {
            return Err(used(InUse::Loop(device)));
        }
        // The kernel lets it be opened and refuses the first write.
        if is_block && writes && is_read_only(stat.special) {
            return Err(failed(RestoreAction::Open, Errno::ROFS.into()));
        }
        let file = match open_pinned(&pinned, writes, is_block && !force) {
            Err(Errno::BUSY) => {
                let mount = mounts::of(stat.special);
                return Err(used(mount.map_or(InUse::Held, |mount| {
                    InUse::Mounted(PathBuf::from(std::ffi::OsStr::from_bytes(&mount.at)))
                })));
            }
            file => file.map_err(|errno| failed(RestoreAction::Open, errno.into()))?,
        };
        let raw = if writes {
            Raw::writable(file).map_err(|errno| failed(RestoreAction::Open, errno.into()))?
        } else {
            Raw::new(file)
        };
        let size = raw
            .size()
            .map_err(|errno| failed(RestoreAction::Stat, errno.into()))?;
        Ok(Self {
            raw,
            path: path.to_owned(),
            size,
        })
    }

    /// Waits until what was written is on the disk.
    pub(super) fn sync(&self) -> Result<()> {
        self.raw.sync().map_err(|errno| Error::Restore {
            action: RestoreAction::Sync,
            path: self.path.clone(),
            source: errno.into(),
        })
    }
}

fn open_pinned(pinned: &OwnedFd, writes: bool, alone: bool) -> rustix::io::Result<OwnedFd> {
    let access = if writes { OFlags::RDWR } else { OFlags::RDONLY };
    let exclusive = if alone { OFlags::EXCL } else { OFlags::empty() };
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    open(path, access | exclusive | OFlags::CLOEXEC, Mode::empty())
}

/// Whether the system takes a block device for one that is not to be written.
fn is_read_only(DeviceNumber { major, minor }: DeviceNumber) -> bool {
    let answer = fs::read(format!("/sys/dev/block/{major}:{minor}/ro"));
    answer.is_ok_and(|answer| answer.starts_with(b"1"))
}

/// The loop device that rests on a file, as far as the system tells.
fn loop_device_on(path: &Path, special: Option<DeviceNumber>) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    let devices = fs::read_dir("/sys/block").ok()?;
    devices.flatten().find_map(|device| {
        let file = fs::read(device.path().join("loop/backing_file")).ok()?;
        let file = file.strip_suffix(b"\n").unwrap_or(&file);
        let is_it = match special {
            // It does not hold the device for itself, and may know it by another name.
            Some(special) => mounts::number_of(file) == Some(special),
            None => file == path.as_os_str().as_bytes(),
        };
        is_it.then(|| Path::new("/dev").join(device.file_name()))
    })
}
