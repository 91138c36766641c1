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
        let stat = as_file(stat, size);
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

/// A device as the regular file that its content would be.
const fn as_file(mut stat: Stat, size: u64) -> Stat {
    stat.file_type = FileType::Regular;
    stat.size = size;
    stat.blocks = size.div_ceil(512);
    stat.link_count = 1;
    stat
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::node::DeviceNumber;

    /// A file in the place of a device, which a test need not be root for.
    fn device(file: std::fs::File, size: u64) -> SourceDevice {
        let stat = as_file(Stat::of(file.as_fd()).unwrap(), size);
        SourceDevice {
            raw: Raw::new(file.into()),
            stat,
            path: b"/dev/some".to_vec(),
        }
    }

    #[test]
    fn a_device_that_cannot_be_read_or_is_of_another_size_is_told() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        temp.as_file().set_len(8192).unwrap();
        let closed = std::fs::OpenOptions::new().write(true).open(temp.path());
        let read = device(closed.unwrap(), 8192).read_at(0, &mut [0; 4096]);
        assert!(
            matches!(&read, Err(Error::DeviceIo { path, .. }) if path == b"/dev/some"),
            "{read:?}"
        );
        let open = || std::fs::File::open(temp.path()).unwrap();
        device(open(), 8192).check_size().unwrap();
        let resized = device(open(), 4096).check_size();
        assert!(
            matches!(&resized, Err(Error::DeviceResized { .. })),
            "{resized:?}"
        );
    }

    #[test]
    fn a_device_that_is_mounted_for_writing_is_warned_of() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let number = temp.as_file().metadata().unwrap().dev();
        let mut device = device(temp.reopen().unwrap(), 0);
        assert!(device.mounted().is_none());
        device.stat.special = DeviceNumber {
            major: rustix::fs::major(number),
            minor: rustix::fs::minor(number),
        };
        // The file could be made, so what it lies on is mounted for writing.
        let mounted = device.mounted();
        assert!(
            matches!(&mounted, Some(Error::DeviceMounted { path, .. }) if path == b"/dev/some"),
            "{mounted:?}"
        );
    }
}
