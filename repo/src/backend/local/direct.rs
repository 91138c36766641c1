//! Packs past the page cache: what is large and lies on page boundaries goes straight between the
//! caller's buffer and the disk, unless the page cache proves to be clearly faster
//! ([`crate::ways`]). A backup writes each byte once and nobody reads it soon, so a copy in the
//! page cache costs its making and drives out what others use. What is there all the same is read
//! from there. Where a file system knows no direct I/O, or refuses a transfer, the same bytes go
//! the usual way; nothing here may change what is stored or read.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    super::{ObjectKind, ObjectName},
    LocalBackend, Origin,
    handles::Opened,
};
use crate::{
    aligned::{AlignedBuf, PAGE, is_aligned},
    ways::Way,
};

/// Least length that is worth it, in bytes: below, the disk's latency costs more than the copy.
const MIN_DIRECT: usize = 1 << 20;

impl LocalBackend {
    /// How to write `parts`; `None` where they are too small for a choice.
    pub(super) fn way_for(&self, parts: &[&[u8]]) -> Option<Way> {
        match parts {
            [whole] if direct_len(whole) > 0 => Some(self.ways.choose()),
            _ => None,
        }
    }

    /// Writes `parts` to a file that is new and empty.
    pub(super) fn write_new(
        &self,
        file: BorrowedFd<'_>,
        parts: &[&[u8]],
        way: Option<Way>,
    ) -> rustix::io::Result<()> {
        let ([whole], Some(Way::Direct)) = (parts, way) else {
            return self.write_parts(file, parts, 0);
        };
        if self.sys.set_direct(file, true).is_err() {
            self.ways.forbid_direct();
            return self.write_parts(file, parts, 0);
        }
        let len = direct_len(whole);
        let (large, tail) = whole.split_at_checked(len).unwrap_or((&[], whole));
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
                    self.ways.forbid_direct();
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
        from: Origin,
    ) -> rustix::io::Result<(u64, &'a mut [u8])> {
        let len = direct_len(out);
        let is_cached = || from == Origin::Anywhere && self.is_cached(name, offset, len);
        if len == 0 || !offset.is_multiple_of(PAGE as u64) || is_cached() {
            return Ok((0, out));
        }
        let Some(file) = self.open_direct(name) else {
            return Ok((0, out));
        };
        // What lies on the last page comes with the pages before it: asked for alone, it would wait
        // behind what other threads read. A file may end within it.
        let (pages, tail) = out.split_at_mut(len);
        let mut last = AlignedBuf::new();
        let last = last.room(if tail.is_empty() { 0 } else { PAGE });
        let mut done = 0;
        while done < len && done.is_multiple_of(PAGE) {
            let rest = pages.get_mut(done..).unwrap_or_default();
            let at = offset.saturating_add(u64::try_from(done).map_err(|_| Errno::IO)?);
            let mut parts = [IoSliceMut::new(rest), IoSliceMut::new(last)];
            let (alone, _) = parts.split_at_mut(1);
            let parts = if tail.is_empty() { alone } else { &mut parts };
            match self.sys.read(file.as_fd(), parts, at) {
                // The end of the file, or beyond: the usual way says so.
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) => {
                    self.ways.forbid_direct();
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        let on_last = done.saturating_sub(len);
        match last.get(..tail.len()) {
            Some(bytes) if on_last >= bytes.len() => tail.copy_from_slice(bytes),
            _ => done = done.min(len),
        }
        done = done.min(out.len());
        let rest = out.get_mut(done..).unwrap_or_default();
        Ok((u64::try_from(done).map_err(|_| Errno::IO)?, rest))
    }

    /// A pack opened for direct reads; `None` where that is not to be had, for whatever reason: the
    /// usual way meets the same reason and names it.
    fn open_direct(&self, name: &ObjectName) -> Option<Arc<OwnedFd>> {
        if name.kind() != ObjectKind::Pack || !self.ways.has_direct() {
            return None;
        }
        if let Some(file) = self.handles.find(name, Opened::Direct) {
            return Some(file);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::DIRECT;
        let file = self
            .sys
            .open(self.root(), name.path().as_ref(), flags, Mode::empty());
        if file.as_ref().is_err_and(|errno| *errno == Errno::INVAL) {
            self.ways.forbid_direct();
        }
        let file = Arc::new(file.ok()?);
        self.handles.keep(*name, Opened::Direct, &file);
        Some(file)
    }

    /// Whether a range of a pack is in the page cache, as one page of it tells. Which page that is
    /// differs from run to run, since asking leaves it there.
    fn is_cached(&self, name: &ObjectName, offset: u64, len: usize) -> bool {
        if name.kind() != ObjectKind::Pack || !self.ways.has_direct() {
            return false;
        }
        let chance = xxh3_64_with_seed(self.options.run.as_bytes(), offset);
        let pages = u64::try_from(len / PAGE).unwrap_or(1).max(1);
        let at = offset.saturating_add(chance % pages * PAGE as u64);
        let asked = self
            .open_probe(name)
            .and_then(|file| self.sys.is_cached(file.as_fd(), at));
        matches!(asked, Ok(true))
    }

    fn open_probe(&self, name: &ObjectName) -> rustix::io::Result<Arc<OwnedFd>> {
        if let Some(file) = self.handles.find(name, Opened::Probe) {
            return Ok(file);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = self
            .sys
            .open(self.root(), name.path().as_ref(), flags, Mode::empty())?;
        // Otherwise asking would bring in what lies behind the page, too.
        self.sys.expect_random(file.as_fd())?;
        let file = Arc::new(file);
        self.handles.keep(*name, Opened::Probe, &file);
        Ok(file)
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
