//! A run of plain content or of blocks in a big file, cut in parts by many workers with the cuts
//! that one would find: candidates are looked for side by side, then each part passes in its turn.
//!
//! Must stay true: a chunk goes to the worker of the part that it ends in; what lies behind the
//! last cut waits for the next part, and after the last part nothing waits.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use strongroom_chunker::{BlockMarks, BlockSelector, Candidates, Selector};

use super::Run;
use crate::error::{Error, Result};

/// A run of plain content or of blocks, cut as a whole.
pub(super) struct Region {
    pub(super) range: Range<u64>,
    /// Of blocks; `None` for plain content.
    pub(super) grid: Option<u32>,
    turn: Mutex<Turn>,
    passed: Condvar,
}

/// What goes from part to part.
pub(super) struct Turn {
    next: usize,
    selector: AnySelector,
    /// Bytes behind the last cut.
    tail: Vec<u8>,
    /// The file ended, or a part failed: nothing comes after.
    ended: bool,
}

/// Where chunks may end in a part.
pub(super) enum Found {
    Content(Candidates),
    Blocks(BlockMarks),
}

enum AnySelector {
    /// Counts from the start of its region.
    Content {
        selector: Selector,
        base: u64,
    },
    Blocks(BlockSelector),
}

impl Region {
    pub(super) const fn new(run: &Run<'_>, range: Range<u64>, grid: Option<u32>) -> Self {
        let selector = match grid {
            None => AnySelector::Content {
                selector: Selector::new(run.chunker.params()),
                base: range.start,
            },
            Some(grid) => AnySelector::Blocks(BlockSelector::new(grid, range.start)),
        };
        Self {
            range,
            grid,
            turn: Mutex::new(Turn {
                next: 0,
                selector,
                tail: Vec::new(),
                ended: false,
            }),
            passed: Condvar::new(),
        }
    }

    /// Finds where chunks may end in a part at `start` of the file, with the bytes before it.
    pub(super) fn look(&self, run: &Run<'_>, lead: &[u8], part: &[u8], start: u64) -> Found {
        match self.grid {
            None => {
                let base = start - self.range.start;
                Found::Content(run.chunker.scan(lead, part, base))
            }
            Some(grid) => Found::Blocks(run.chunker.mark_blocks(grid, start, part)),
        }
    }

    /// Waits until all segments before the `nth` have passed.
    pub(super) fn wait_for(&self, run: &Run<'_>, nth: usize) -> Result<MutexGuard<'_, Turn>> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        while turn.next != nth && !turn.ended {
            if run.is_over() {
                return Err(Error::Cancelled);
            }
            // The wait is bounded only so that the end of the run is noticed.
            let wait = self.passed.wait_timeout(turn, Duration::from_millis(50));
            turn = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(turn)
    }

    /// Lets the next part pass.
    pub(super) fn leave(&self, turn: MutexGuard<'_, Turn>) {
        drop(turn);
        self.passed.notify_all();
    }

    /// Lets nothing come after.
    pub(super) fn end(&self) {
        self.turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended = true;
        self.passed.notify_all();
    }
}

impl AnySelector {
    /// The offsets in the file of all cuts that are decided with the part that ends at `end`.
    fn feed(&mut self, found: &Found, end: u64, is_last: bool) -> Vec<u64> {
        let mut cuts = Vec::new();
        match (self, found) {
            (Self::Content { selector, base }, Found::Content(candidates)) => {
                selector.feed(candidates, end - *base, is_last, &mut cuts);
                cuts.iter_mut().for_each(|cut| *cut += *base);
            }
            (Self::Blocks(selector), Found::Blocks(marks)) => {
                selector.feed(marks, end, is_last, &mut cuts);
            }
            // A region is looked at as it is selected from.
            _ => {}
        }
        cuts
    }
}

/// Chunks that begin in what parts before left, and go on in this one.
pub(super) struct Chunks {
    before: Vec<u8>,
    /// Ends of chunks, counted from the start of `before`.
    ends: Vec<usize>,
}

impl Turn {
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes what was found in the part at `start` of the file, and keeps for the next part what
    /// lies behind the last cut. After the last part nothing comes.
    pub(super) fn pass(&mut self, found: &Found, start: u64, part: &[u8], is_last: bool) -> Chunks {
        self.next += 1;
        self.ended = is_last;
        let end = start + u64::try_from(part.len()).unwrap_or(0);
        let cuts = self.selector.feed(found, end, is_last);
        let origin = start - u64::try_from(self.tail.len()).unwrap_or(0);
        let ends: Vec<usize> = cuts.iter().map(|cut| to_usize(cut - origin)).collect();
        let Some(last) = ends.last() else {
            self.tail.extend_from_slice(part);
            let before = Vec::new();
            return Chunks { before, ends };
        };
        let tail = match last.checked_sub(self.tail.len()) {
            Some(in_part) => part.get(in_part..).unwrap_or_default().to_vec(),
            // Blocks of zeros that turned out to be of one kind with those before.
            None => [self.tail.get(*last..).unwrap_or_default(), part].concat(),
        };
        let before = std::mem::replace(&mut self.tail, tail);
        Chunks { before, ends }
    }
}

impl Chunks {
    /// Where the first chunk begins, given where the part does.
    pub(super) fn origin(&self, start: u64) -> u64 {
        start.saturating_sub(u64::try_from(self.before.len()).unwrap_or(0))
    }

    /// The bytes of each chunk.
    pub(super) fn over<'a>(&'a self, part: &'a [u8]) -> impl Iterator<Item = Cow<'a, [u8]>> {
        let seam = self.before.len();
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(move |(start, &end)| {
            let before = self.before.get(start.min(seam)..end.min(seam));
            let here = part.get(start.saturating_sub(seam)..end.saturating_sub(seam));
            match (before.unwrap_or_default(), here.unwrap_or_default()) {
                ([], here) => Cow::Borrowed(here),
                (before, []) => Cow::Borrowed(before),
                (before, here) => Cow::Owned([before, here].concat()),
            }
        })
    }
}

pub(super) fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use strongroom_chunker::{Chunker, ChunkerKind, ChunkerParams, fuzz::random};

    use super::*;

    /// The chunks of a region that arrives in parts that end at multiples of `step`.
    fn chunks(chunker: &Chunker, data: &[u8], start: u64, grid: u32, step: u64) -> Vec<Vec<u8>> {
        let mut turn = Turn {
            next: 0,
            selector: AnySelector::Blocks(BlockSelector::new(grid, start)),
            tail: Vec::new(),
            ended: false,
        };
        let end = start + data.len() as u64;
        let (mut at, mut all) = (start, Vec::new());
        while at < end {
            let next = ((at / step + 1) * step).min(end);
            let part = &data[to_usize(at - start)..to_usize(next - start)];
            let found = Found::Blocks(chunker.mark_blocks(grid, at, part));
            let chunks = turn.pass(&found, at, part, next == end);
            all.extend(chunks.over(part).map(Cow::into_owned));
            at = next;
        }
        assert!(turn.tail.is_empty());
        all
    }

    #[test]
    fn parts_of_any_size_give_the_chunks_of_the_whole() {
        let chunker = Chunker::new(ChunkerKind::Gear, ChunkerParams::default(), &[9; 32]);
        let mut data = random(6 << 20, 1);
        // Runs of zeros of many lengths, some across the ends of parts.
        for (at, len) in [
            (9, 1),
            (100, 15),
            (200, 16),
            (500, 400),
            (1017, 20),
            (1100, 3),
        ] {
            data[at << 12..(at + len) << 12].fill(0);
        }
        for start in [0, 8 << 12, 5000] {
            let whole = chunks(&chunker, &data, start, 4096, 1 << 30);
            assert_eq!(whole.concat(), data);
            assert!(whole.len() > 12, "{}", whole.len());
            for step in [4096, 5 * 4096, 64 << 10, 1 << 20] {
                let parts = chunks(&chunker, &data, start, 4096, step);
                assert_eq!(parts, whole, "{start} by {step}");
            }
        }
    }
}
