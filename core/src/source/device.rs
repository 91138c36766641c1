//! Block devices whose content is saved, each as the file that a copy of it would be.
//!
//! A device says nothing of its content by its times, so it is read every time. It is opened once,
//! by the walk, and that open device is what is read: what its name stands for later is no matter.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use rustix::fs::{Mode, OFlags, open, openat};

use super::{
    meta::{FileType, Stat, source_error},
    walk::Entry,
};
use crate::{
    error::{Error, Result, SourceAction},
    mounts,
    raw::Raw,
};

/// An open block device.
#[derive(Debug)]
pub(super) struct SourceDevice {
    raw: Raw,
    /// What its node is, with the size of its content.
    stat: Stat,
    path: Vec<u8>,
}

impl SourceDevice {
    /// Opens the device that an entry is or links to, with what it would be as a file; none where
    /// it is something else.
    pub(super) fn open(entry: &Entry, path: &[u8]) -> Result<Option<(Self, Stat)>> {
        if !matches!(
            entry.stat.file_type,
            FileType::BlockDevice | FileType::Symlink
        ) {
            return Ok(None);
        }
        let failed = |action, error| source_error(action, path, error);
        // Looked at before it is opened: opening other devices does things.
        let pinned = openat(
            &entry.dir,
            entry.source_name(),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let pinned = match pinned {
            // A link that leads nowhere, or where we may not go, is saved as such.
            Err(_) if entry.stat.file_type == FileType::Symlink => {
                return Ok(None);
            }
            pinned => pinned.map_err(|errno| failed(SourceAction::Open, errno.into()))?,
        };
        let stat = Stat::of(pinned.as_fd()).map_err(|error| failed(SourceAction::Stat, error))?;
        if stat.file_type != FileType::BlockDevice {
            return Ok(None);
        }
        let by_number = format!("/proc/self/fd/{}", pinned.as_raw_fd());
        let file = open(by_number, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(SourceAction::Open, errno.into()))?;
        let raw = Raw::new(file);
        let size = raw
            .size()
            .map_err(|errno| failed(SourceAction::Stat, errno.into()))?;
        let stat = stat.as_file(size);
        let path = path.to_vec();
        Ok(Some((Self { raw, stat, path }, stat)))
    }

    /// What its node is, with the size of its content.
    pub(super) const fn stat(&self) -> &Stat {
        &self.stat
    }

    /// A warning where a file system on it may be changing it.
    pub(super) fn mounted(&self) -> Option<Error> {
        let mount = mounts::of_all(self.stat.special)?;
        mount.writable.then(|| Error::DeviceMounted {
            path: self.path.clone(),
            at: mount.at,
        })
    }

    /// Reads at `offset` until `buffer` is full or the device ends.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.raw
            .read(offset, buffer)
            .map_err(|refused| Error::DeviceIo {
                action: SourceAction::Read,
                path: self.path.clone(),
                offset: refused.offset,
                source: refused.source,
            })
    }

    /// Sees that the device is as long as it was: one that was cut short is no image.
    pub(super) fn check_size(&self) -> Result<()> {
        let now = self.raw.size().map_err(|errno| {
            source_error(SourceAction::Stat, &self.path, io::Error::from(errno))
        })?;
        if now == self.stat.size {
            return Ok(());
        }
        Err(Error::DeviceResized {
            path: self.path.clone(),
            before: self.stat.size,
            now,
        })
    }
}

impl AsFd for SourceDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}
