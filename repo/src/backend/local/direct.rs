//! Packs past the page cache: what is large and lies on page boundaries goes straight between the
//! caller's buffer and the disk. A backup writes each byte once and nobody reads it soon, so a copy
//! in the page cache costs its making (a third and more of a backup's processor time) and drives
//! out what others use. Where a file system knows no direct I/O, or refuses a transfer, the same
//! bytes go the usual way; nothing here may change what is stored or read.

use std::{
    io::IoSlice,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{
    super::{ObjectKind, ObjectName},
    LocalBackend,
    handles::Way,
};
use crate::aligned::{PAGE, is_aligned};

/// Least length that is worth it, in bytes: below, the disk's latency costs more than the copy.
const MIN_DIRECT: usize = 1 << 20;

impl LocalBackend {
    /// Writes `parts` to a file that is new and empty.
    pub(super) fn write_new(
        &self,
        file: BorrowedFd<'_>,
        parts: &[&[u8]],
    ) -> rustix::io::Result<()> {
        let [whole] = parts else {
            return self.write_parts(file, parts, 0);
        };
        let len = direct_len(whole);
        let (large, tail) = whole.split_at_checked(len).unwrap_or((&[], whole));
        if large.is_empty() || !self.direct.load(Ordering::Relaxed) {
            return self.write_parts(file, parts, 0);
        }
        if self.sys.set_direct(file, true).is_err() {
            self.direct.store(false, Ordering::Relaxed);
            return self.write_parts(file, parts, 0);
        }
        let written = self.write_pages(file, large)?;
        self.sys.set_direct(file, false)?;
        let rest = large.get(written..).unwrap_or_default();
        let offset = u64::try_from(written).map_err(|_| Errno::IO)?;
        self.write_parts(file, &[rest, tail], offset)
    }

    /// Writes whole pages as far as they go directly; returns how many bytes that were.
    fn write_pages(&self, file: BorrowedFd<'_>, pages: &[u8]) -> rustix::io::Result<usize> {
        let mut done = 0;
        // After a short transfer the rest may lie off the boundaries: it goes the usual way.
        while done < pages.len() && done.is_multiple_of(PAGE) {
            let rest = pages.get(done..).unwrap_or_default();
            let offset = u64::try_from(done).map_err(|_| Errno::IO)?;
            match self.sys.write(file, &[IoSlice::new(rest)], offset) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => {
                    self.direct.store(false, Ordering::Relaxed);
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Fills the front of `out` from `offset` as far as that goes directly: returns how many bytes
    /// that were, and what is left of `out`.
    pub(super) fn read_direct<'a>(
        &self,
        name: &ObjectName,
        offset: u64,
        out: &'a mut [u8],
    ) -> rustix::io::Result<(u64, &'a mut [u8])> {
        let len = direct_len(out);
        if len == 0 || !offset.is_multiple_of(PAGE as u64) {
            return Ok((0, out));
        }
        let Some(file) = self.open_direct(name) else {
            return Ok((0, out));
        };
        let mut done = 0;
        while done < len && done.is_multiple_of(PAGE) {
            let rest = out.get_mut(done..len).unwrap_or_default();
            let at = offset.saturating_add(u64::try_from(done).map_err(|_| Errno::IO)?);
            match self.sys.read(file.as_fd(), rest, at) {
                // The end of the file, or beyond: the usual way says so.
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => {
                    self.direct.store(false, Ordering::Relaxed);
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        let rest = out.get_mut(done..).unwrap_or_default();
        Ok((u64::try_from(done).map_err(|_| Errno::IO)?, rest))
    }

    /// A pack opened for direct reads; `None` where that is not to be had, for whatever reason: the
    /// usual way meets the same reason and names it.
    fn open_direct(&self, name: &ObjectName) -> Option<Arc<OwnedFd>> {
        if name.kind() != ObjectKind::Pack || !self.direct.load(Ordering::Relaxed) {
            return None;
        }
        if let Some(file) = self.handles.find(name, Way::Direct) {
            return Some(file);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::DIRECT;
        let file = self
            .sys
            .open(self.root(), &name.path(), flags, Mode::empty());
        if file.as_ref().is_err_and(|errno| *errno == Errno::INVAL) {
            self.direct.store(false, Ordering::Relaxed);
        }
        let file = Arc::new(file.ok()?);
        self.handles.keep(*name, Way::Direct, &file);
        Some(file)
    }
}

/// How many bytes from the front of `bytes` can go directly: whole pages, and enough of them.
fn direct_len(bytes: &[u8]) -> usize {
    let len = bytes.len() - bytes.len() % PAGE;
    if len >= MIN_DIRECT && is_aligned(bytes) {
        len
    } else {
        0
    }
}
