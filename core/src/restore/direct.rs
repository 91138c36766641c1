//! Large files past the page cache. What goes this way lies in memory as it will in the file,
//! counted from a page boundary; the few bytes before the first and after the last whole page go
//! the usual way. Filling a fresh page costs more than the disk does where the
//! disk is fast; where it is not, the page cache takes what the disk cannot yet. Which of the two
//! it is shows after the first megabytes. Whatever goes wrong here, the caller writes the usual
//! way: nothing but speed depends on it.

use std::{
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::pwrite,
};
use strongroom_repo::aligned::{PAGE, is_aligned};

use super::apply::proc_path;

/// Least length of a write, in bytes: below, waiting for the disk costs more than a copy.
pub(super) const MIN_WRITE: usize = 256 << 10;
/// Bytes after which the disk is judged.
const TRIAL: u64 = 16 << 20;
/// What one of several threads must get through, in bytes a second.
const MIN_PACE: u64 = 200 << 20;

/// How fast the direct writes of a restore have been.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes: AtomicU64,
    nanos: AtomicU64,
    over: AtomicBool,
}

impl Pace {
    fn is_good(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn give_up(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn note(&self, bytes: u64, nanos: u64) {
        let bytes = bytes.saturating_add(self.bytes.fetch_add(bytes, Ordering::Relaxed));
        let nanos = nanos.saturating_add(self.nanos.fetch_add(nanos, Ordering::Relaxed));
        if bytes >= TRIAL && is_slow(bytes, nanos) {
            tracing::debug!(bytes, nanos, "the disk is slower than the page cache");
            self.give_up();
        }
    }
}

fn is_slow(bytes: u64, nanos: u64) -> bool {
    u128::from(bytes) * 1_000_000_000 < u128::from(nanos) * u128::from(MIN_PACE)
}

/// The way past the page cache into one file, opened when it is first wanted.
#[derive(Debug, Default)]
pub(super) struct DirectFile {
    file: OnceLock<Option<OwnedFd>>,
}

impl DirectFile {
    /// Writes what can go directly of `bytes`, which belong at `offset`. Returns which bytes those
    /// were.
    pub(super) fn write(
        &self,
        file: &OwnedFd,
        (offset, bytes): (u64, &[u8]),
        pace: &Pace,
    ) -> Range<usize> {
        let none = 0..0;
        let head = (PAGE - in_page(offset)) % PAGE;
        let len = bytes.len().saturating_sub(head) / PAGE * PAGE;
        let pages = bytes.get(head..head + len).unwrap_or_default();
        if pages.len() < MIN_WRITE || !is_aligned(pages) || !pace.is_good() {
            return none;
        }
        let Some(direct) = self.file.get_or_init(|| reopen(file)) else {
            pace.give_up();
            return none;
        };
        let start = Instant::now();
        let at = offset.saturating_add(u64::try_from(head).unwrap_or(0));
        match pwrite(direct, pages, at) {
            Ok(written) => {
                let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                pace.note(u64::try_from(written).unwrap_or(0), nanos);
                head..head + written.min(len)
            }
            // Refused, or the disk is full or broken: the usual way meets that again and tells it.
            Err(_) => {
                pace.give_up();
                none
            }
        }
    }
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

    #[test]
    fn a_piece_goes_directly_but_for_its_ends() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let file: OwnedFd = temp.reopen().unwrap().into();
        let (direct, pace) = (DirectFile::default(), Pace::default());
        for (number, offset) in [0_u64, 1, 4095, 4096, 5_000_000].into_iter().enumerate() {
            let mut memory = AlignedBuf::new();
            memory.resize(in_page(offset));
            memory.extend_from_slice(&pattern(1_000_003));
            let bytes = &memory[in_page(offset)..];
            let done = direct.write(&file, (offset, bytes), &pace);
            if !pace.is_good() {
                return; // No direct I/O where temporary files are.
            }
            assert_eq!((offset + done.start as u64) % 4096, 0, "{number}");
            assert!(done.start < 4096 && done.end > bytes.len() - 4096);
            let all = std::fs::read(temp.path()).unwrap();
            let at = usize::try_from(offset).unwrap();
            assert!(all[at + done.start..at + done.end] == bytes[done]);
        }
    }

    #[test]
    fn small_pieces_other_phases_and_slow_disks_go_the_usual_way() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let file: OwnedFd = temp.reopen().unwrap().into();
        let direct = DirectFile::default();
        let mut memory = AlignedBuf::new();
        memory.extend_from_slice(&pattern(1 << 20));
        let pace = Pace::default();
        assert_eq!(direct.write(&file, (0, &memory[..100_000]), &pace), 0..0);
        assert_eq!(direct.write(&file, (1, &memory), &pace), 0..0);
        pace.note(TRIAL, 1_000_000_000);
        assert_eq!(direct.write(&file, (0, &memory), &pace), 0..0);
        assert_eq!(temp.as_file().metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_disk_is_judged_after_a_trial_by_all_it_did() {
        let pace = Pace::default();
        pace.note(TRIAL - 1, u64::MAX / 2);
        assert!(pace.is_good(), "not yet enough to tell");
        let pace = Pace::default();
        pace.note(TRIAL, TRIAL * 1_000_000_000 / MIN_PACE);
        assert!(pace.is_good());
        pace.note(1, 1_000_000_000);
        assert!(!pace.is_good());
    }
}
