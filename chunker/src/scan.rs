//! Candidates of a stretch of bytes, in ascending order, as fast as the bytes allow.
//!
//! Lives here: the walk over blocks, the judging of filter hits in batches, and the short cut
//! through constant and periodic bytes. Does not live here: minimum, maximum and cuts.
//!
//! Must stay true: whatever the short cuts, the result is the set of positions that the rule in
//! `gear` accepts. What is remembered is a verdict together with the 64 bytes it is about, and it
//! is used only for the same 64 bytes.

use std::ops::Range;

use crate::gear::{BATCH, Gear, WINDOW, hash, roll};
use crate::lanes::{Dense, Hits, filter};

/// Positions in a block: small enough for the first-level cache, large against the warm-up. No part
/// of the format.
const BLOCK: usize = 32 << 10;
/// Positions in a block when only the first candidate is wanted and they lie close: what is behind
/// a cut is looked at in vain.
const LEAST_BLOCK: usize = 1 << 10;
/// Bytes of a window before its last one.
const WARM: usize = WINDOW - 1;
/// Repetition shorter than this is walked through, not jumped over.
const JUMP_LEAST: usize = 2 * WINDOW;
/// Windows whose verdict is remembered.
const SLOTS: usize = 32;

/// Working memory of one scan over one content; holds no position between two calls.
#[derive(Default)]
pub(crate) struct Scanner {
    hits: Hits,
    memo: Memo,
    /// Start offsets of the accepted windows of the current block.
    found: Vec<usize>,
}

impl Scanner {
    /// Calls `found` with every candidate end offset in `ends`, ascending, until it returns
    /// `false`.
    ///
    /// An end offset `e` means the window `data[e - 64..e]`; `ends` is clipped to where windows
    /// are.
    pub(crate) fn scan(
        &mut self,
        gear: &Gear,
        data: &[u8],
        ends: Range<usize>,
        found: impl FnMut(usize) -> bool,
    ) {
        self.scan_blocks(gear, data, ends, BLOCK, found);
    }

    /// The first candidate end offset in `ends`.
    pub(crate) fn first(&mut self, gear: &Gear, data: &[u8], ends: Range<usize>) -> Option<usize> {
        let mut first = None;
        let block = (gear.span() / 16).clamp(LEAST_BLOCK, BLOCK);
        self.scan_blocks(gear, data, ends, block, |end| {
            first = Some(end);
            false
        });
        first
    }

    fn scan_blocks(
        &mut self,
        gear: &Gear,
        data: &[u8],
        ends: Range<usize>,
        block: usize,
        mut found: impl FnMut(usize) -> bool,
    ) {
        let last = ends.end.min(data.len() + 1);
        let mut from = ends.start.max(WINDOW);
        while from < last {
            let to = last.min(from + block);
            let start = from - WINDOW;
            self.block(gear, data.get(start..to - 1).unwrap_or_default());
            for &k in &self.found {
                if !found(start + k + WINDOW) {
                    return;
                }
            }
            from = to;
        }
    }

    fn block(&mut self, gear: &Gear, block: &[u8]) {
        self.found.clear();
        match filter(gear.table(), gear.top(), block, &mut self.hits) {
            Ok(()) => self.judge_hits(gear, block),
            Err(Dense) => self.walk_dense(gear, block),
        }
    }

    fn judge_hits(&mut self, gear: &Gear, block: &[u8]) {
        let mut hits = self.hits.iter();
        loop {
            let mut starts = [0; BATCH];
            let mut windows = [&[0; WINDOW]; BATCH];
            let mut count = 0;
            for ((start, window), k) in starts.iter_mut().zip(&mut windows).zip(&mut hits) {
                let Some(bytes) = block.get(k..).and_then(<[u8]>::first_chunk) else {
                    continue;
                };
                (*start, *window) = (k, bytes);
                count += 1;
            }
            let mut verdicts = [false; BATCH];
            let (windows, _) = windows.split_at(count);
            gear.judge(windows, &mut verdicts);
            let accepted = starts.iter().zip(verdicts).filter(|(_, yes)| *yes);
            self.found.extend(accepted.map(|(&k, _)| k));
            if count < BATCH {
                return;
            }
        }
    }

    /// One stream; repeated windows are judged once, and a repetition is jumped over in one step.
    fn walk_dense(&mut self, gear: &Gear, block: &[u8]) {
        self.memo.start_block();
        let positions = block.len().saturating_sub(WARM);
        let at = |k: usize| block.get(k..).unwrap_or_default();
        let mut h = hash(gear.table(), block.get(..WARM).unwrap_or_default());
        let mut k = 0;
        while k < positions {
            let Some(window) = at(k).first_chunk::<WINDOW>() else {
                return;
            };
            let [.., newest] = window;
            h = roll(gear.table(), h, *newest);
            if h <= gear.top() {
                let seen = self.memo.judge(gear, h, window, k);
                if seen.accepted {
                    self.found.push(k);
                }
                let lag = seen.last.map_or(0, |last| k - last);
                let run = if lag == 0 {
                    0
                } else {
                    common(at(k + WINDOW), at(k + WINDOW - lag))
                };
                if run >= JUMP_LEAST {
                    self.repeat(k, lag, run);
                    k += run;
                    h = hash(gear.table(), at(k).get(..WINDOW).unwrap_or_default());
                }
            }
            k += 1;
        }
    }

    /// The windows at `k + 1 ..= k + run` equal those `lag` earlier, and all up to `k` are judged.
    fn repeat(&mut self, k: usize, lag: usize, run: usize) {
        let first = self.found.partition_point(|&f| f + lag <= k);
        let mut next = first;
        while let Some(&f) = self.found.get(next) {
            if f + lag > k + run {
                return;
            }
            self.found.push(f + lag);
            next += 1;
        }
    }
}

/// What is known about a window that was judged before.
struct Seen {
    accepted: bool,
    /// Where this very window was met last in this block.
    last: Option<usize>,
}

#[derive(Clone)]
struct Entry {
    window: [u8; WINDOW],
    hash: u64,
    accepted: bool,
    block: u64,
    last: usize,
}

/// Verdicts on the windows judged last, by the low bits of their hash.
#[derive(Default)]
struct Memo {
    entries: [Option<Box<Entry>>; SLOTS],
    block: u64,
}

impl Memo {
    /// Positions count from here on anew; verdicts stay.
    fn start_block(&mut self) {
        self.block += 1;
    }

    fn judge(&mut self, gear: &Gear, hash: u64, window: &[u8; WINDOW], at: usize) -> Seen {
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or_default();
        let Some(slot) = self.entries.get_mut(slot) else {
            return Seen {
                accepted: gear.accepts(window),
                last: None,
            };
        };
        if let Some(entry) = slot
            && entry.hash == hash
            && entry.window == *window
        {
            let last = (entry.block == self.block).then_some(entry.last);
            (entry.block, entry.last) = (self.block, at);
            return Seen {
                accepted: entry.accepted,
                last,
            };
        }
        let accepted = gear.accepts(window);
        let entry = Entry {
            window: *window,
            hash,
            accepted,
            block: self.block,
            last: at,
        };
        match slot {
            Some(old) => **old = entry,
            None => *slot = Some(Box::new(entry)),
        }
        Seen {
            accepted,
            last: None,
        }
    }
}

/// Length of the common start of two slices.
fn common(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 64;
    let (a_steps, _) = a.as_chunks::<STEP>();
    let (b_steps, _) = b.as_chunks::<STEP>();
    let whole = STEP
        * a_steps
            .iter()
            .zip(b_steps)
            .take_while(|(x, y)| x == y)
            .count();
    let rest = |s| <[u8]>::get(s, whole..).unwrap_or_default();
    whole
        + rest(a)
            .iter()
            .zip(rest(b))
            .take_while(|(x, y)| x == y)
            .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChunkerParams;
    use crate::oracle::{self, DenseKey};

    #[test]
    fn common_counts_equal_bytes_at_every_length() {
        let a = oracle::random(300, 1);
        for len in 0..300 {
            let mut b = a.clone();
            b[len] ^= 1;
            assert_eq!(common(&a, &b), len);
            assert_eq!(common(&a[..len], &a), len);
        }
    }

    fn scan(gear: &Gear, data: &[u8], ends: Range<usize>) -> Vec<usize> {
        let mut got = Vec::new();
        Scanner::default().scan(gear, data, ends, |end| {
            got.push(end);
            true
        });
        got
    }

    #[test]
    fn repeated_windows_get_the_verdict_that_each_alone_would_get() {
        for period in [1, 2, 3, 7, 64, 65, 100, 130, 3000] {
            let DenseKey { gear, unit } = oracle::dense_key(period);
            let mut data = oracle::random(500, 3);
            data.extend(unit.iter().cycle().take(BLOCK + 1000));
            data.extend(oracle::random(100, 4));
            data.extend(unit.iter().cycle().take(2000));
            data.extend(unit.iter().cycle().take(130));
            let expected = oracle::candidates(&gear, &data);
            assert!(
                expected.len() >= BLOCK / period,
                "period {period} has too few candidates"
            );
            assert_eq!(
                scan(&gear, &data, 0..usize::MAX),
                expected,
                "period {period}"
            );
            // The walk for dense blocks has to be right about any block.
            let mut scanner = Scanner::default();
            scanner.walk_dense(&gear, &data);
            let walked: Vec<usize> = scanner.found.iter().map(|k| k + WINDOW).collect();
            assert_eq!(walked, expected, "period {period}");
        }
    }

    #[test]
    fn with_the_default_sizes_the_oracle_finds_the_same_candidates() {
        let mut found = 0;
        for seed in 0..3 {
            let gear = Gear::new(&ChunkerParams::default(), &oracle::key(seed));
            let data = oracle::random(1 << 20, seed);
            let got = scan(&gear, &data, 0..usize::MAX);
            assert_eq!(got, oracle::candidates(&gear, &data));
            found += got.len();
        }
        assert!(found > 0, "nothing was compared");
    }

    #[test]
    fn only_the_end_offsets_asked_for_are_found() {
        let DenseKey { gear, unit } = oracle::dense_key(1);
        let data = unit.repeat(300);
        assert_eq!(
            scan(&gear, &data, 0..usize::MAX),
            (64..=300).collect::<Vec<_>>()
        );
        assert_eq!(scan(&gear, &data, 100..103), [100, 101, 102]);
        assert_eq!(scan(&gear, &data, 299..400), [299, 300]);
        assert_eq!(scan(&gear, &data, 301..400), [0; 0]);
        assert_eq!(scan(&gear, &data[..63], 0..usize::MAX), [0; 0]);
        assert_eq!(scan(&gear, &[], 0..usize::MAX), [0; 0]);
    }
}
