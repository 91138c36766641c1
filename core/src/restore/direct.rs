//! Large files past the page cache, or through it where that proves to be clearly faster. What goes
//! past it lies in memory as it will in the file, counted from a page boundary; the few bytes
//! before the first and after the last whole page go the usual way, and so does everything where
//! the file system has no direct I/O. An error of the disk is told here: the page cache would take
//! the same bytes and lose them later.

use std::{
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
    time::Instant,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, pwrite},
};
use strongroom_repo::{
    aligned::{PAGE, is_aligned},
    ways::{Way, Ways},
};

use super::apply::proc_path;
use crate::error::Error;

/// Least length of a write, in bytes: below, waiting for the disk costs more than a copy.
pub(super) const MIN_WRITE: usize = 256 << 10;

/// The way past the page cache into one file, opened when it is first wanted.
#[derive(Debug, Default)]
pub(super) struct DirectFile {
    file: OnceLock<Option<OwnedFd>>,
}

impl DirectFile {
    /// Writes `bytes`, which belong at `offset`: past the page cache or, by `usual`, through it.
    ///
    /// # Errors
    /// What `usual` says, and what `wrong` makes of a refusal of the disk.
    pub(super) fn write(
        &self,
        file: &OwnedFd,
        (offset, bytes): (u64, &[u8]),
        ways: &Ways,
        mut usual: impl FnMut(u64, &[u8]) -> Result<(), Error>,
        wrong: impl Fn(Errno) -> Error,
    ) -> Result<(), Error> {
        let Some(pages) = whole_pages(offset, bytes) else {
            return usual(offset, bytes);
        };
        let way = ways.choose();
        let start = Instant::now();
        let done = match way {
            Way::Direct => self
                .write_pages(file, (offset, bytes), pages, ways)
                .map_err(wrong)?,
            Way::Cached => 0..0,
        };
        let (head, rest) = bytes.split_at_checked(done.start).unwrap_or((bytes, &[]));
        let tail = rest.get(done.len()..).unwrap_or_default();
        usual(offset, head)?;
        usual(offset.saturating_add(done.end as u64), tail)?;
        ways.note(way, bytes.len(), start.elapsed().as_nanos());
        Ok(())
    }

    /// Writes the `pages` of `bytes` directly as far as that goes; returns which bytes those were.
    fn write_pages(
        &self,
        file: &OwnedFd,
        (offset, bytes): (u64, &[u8]),
        pages: Range<usize>,
        ways: &Ways,
    ) -> rustix::io::Result<Range<usize>> {
        let Some(direct) = self.file.get_or_init(|| reopen(file)) else {
            ways.forbid_direct();
            return Ok(0..0);
        };
        let mut end = pages.start;
        // After a short transfer the rest may lie off the boundaries: it goes the usual way.
        while end < pages.end && (end - pages.start).is_multiple_of(PAGE) {
            let rest = bytes.get(end..pages.end).unwrap_or_default();
            match pwrite(direct, rest, offset.saturating_add(end as u64)) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => end += written.min(rest.len()),
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    ways.forbid_direct();
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(pages.start..end)
    }
}

/// Which of `bytes`, that belong at `offset`, can go directly; `None` where it is not worth it.
fn whole_pages(offset: u64, bytes: &[u8]) -> Option<Range<usize>> {
    let head = (PAGE - in_page(offset)) % PAGE;
    let len = bytes.len().saturating_sub(head) / PAGE * PAGE;
    let pages = head..head + len;
    let fits = is_aligned(bytes.get(pages.clone())?);
    (len >= MIN_WRITE && fits).then_some(pages)
}

/// How far into its page a byte of a file lies.
pub(super) fn in_page(offset: u64) -> usize {
    usize::try_from(offset % PAGE as u64).unwrap_or(0)
}

/// The same open file once more, for direct writes. `None` where the file system has no such
/// thing, or `/proc` is not there.
fn reopen(file: impl AsFd) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    openat(CWD, proc_path(file).as_c_str(), flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use strongroom_repo::aligned::AlignedBuf;

    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len)
            .map(|at| u8::try_from(at * 7 % 251).unwrap())
            .collect()
    }

    /// Writes to a file; returns how many bytes went the usual way.
    fn write(
        direct: &DirectFile,
        file: &OwnedFd,
        (offset, bytes): (u64, &[u8]),
        ways: &Ways,
    ) -> usize {
        let mut count = 0;
        let usual = |at, bytes: &[u8]| {
            count += bytes.len();
            assert_eq!(pwrite(file, bytes, at).unwrap(), bytes.len());
            Ok(())
        };
        let wrong = |errno| panic!("{errno}");
        direct
            .write(file, (offset, bytes), ways, usual, wrong)
            .unwrap();
        count
    }

    #[test]
    fn a_piece_is_written_whole_whichever_way_it_goes() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let file: OwnedFd = temp.reopen().unwrap().into();
        let (direct, ways) = (DirectFile::default(), Ways::default());
        let mut gone_directly = 0;
        for offset in [0_u64, 1, 4095, 4096, 5_000_000, 7_000_001] {
            let mut memory = AlignedBuf::new();
            memory.resize(in_page(offset));
            memory.extend_from_slice(&pattern(1_000_003));
            let bytes = &memory[in_page(offset)..];
            let usual = write(&direct, &file, (offset, bytes), &ways);
            assert!(usual < 2 * PAGE || usual == bytes.len(), "{usual}");
            gone_directly += usize::from(usual < 2 * PAGE);
            let all = std::fs::read(temp.path()).unwrap();
            let at = usize::try_from(offset).unwrap();
            assert!(all[at..at + bytes.len()] == *bytes, "{offset}");
        }
        assert!(gone_directly > 0 || !ways.has_direct());
    }

    #[test]
    fn small_pieces_and_those_off_the_pages_go_the_usual_way() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let file: OwnedFd = temp.reopen().unwrap().into();
        let direct = DirectFile::default();
        let mut memory = AlignedBuf::new();
        memory.extend_from_slice(&pattern(1 << 20));
        for (offset, len) in [(0, 100_000), (1, 1 << 20), (4097, 1 << 20)] {
            let ways = Ways::default();
            assert_eq!(write(&direct, &file, (offset, &memory[..len]), &ways), len);
            assert!(ways.has_direct());
        }
    }

    #[test]
    fn where_direct_io_is_refused_everything_goes_the_usual_way_from_then_on() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let file: OwnedFd = temp.reopen().unwrap().into();
        let mut memory = AlignedBuf::new();
        memory.extend_from_slice(&pattern(1 << 20));
        let ways = Ways::default();
        let refused = DirectFile::default();
        refused.file.set(None).unwrap();
        assert_eq!(write(&refused, &file, (0, &memory), &ways), 1 << 20);
        assert!(!ways.has_direct());
    }

    #[test]
    fn what_the_disk_refuses_is_told_and_not_left_to_the_page_cache() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let file: OwnedFd = temp.reopen().unwrap().into();
        let mut memory = AlignedBuf::new();
        memory.extend_from_slice(&pattern(1 << 20));
        let full = DirectFile::default();
        let device = std::fs::OpenOptions::new().write(true).open("/dev/full");
        full.file.set(Some(device.unwrap().into())).unwrap();
        let wrong = |errno| {
            assert_eq!(errno, Errno::NOSPC);
            Error::Cancelled
        };
        let usual = |_, _: &[u8]| Ok(());
        let ways = Ways::default();
        let written = full.write(&file, (0, &memory), &ways, usual, wrong);
        assert!(matches!(written, Err(Error::Cancelled)), "{written:?}");
    }
}
