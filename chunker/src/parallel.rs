//! One content cut by many workers, with the cuts that one worker would find.
//!
//! Lives here: the scan of one segment ([`Chunker::scan`]) and the cheap pass that turns candidates
//! into cuts ([`Selector`]). Does not live here: threads; the caller has them.
//!
//! Must stay true: joining the candidates of any split into segments gives the same cuts as
//! [`Chunker::cut_all`], because a candidate depends on its own 64 bytes only. Candidates cost
//! memory by their runs, not by their number: content that repeats cannot blow them up.

use crate::chunker::Chunker;
use crate::gear::WINDOW;
use crate::params::ChunkerParams;
use crate::scan::Scanner;

/// Bytes before a segment that its first windows reach into.
pub const LEAD: usize = WINDOW - 1;

/// Candidates further apart than this are never one run with others.
const MAX_STRIDE: u64 = 4096;

/// `count` candidate end offsets: `first`, `first + stride`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    stride: u64,
    count: u64,
}

impl Run {
    fn last(&self) -> u64 {
        self.first + self.stride * (self.count - 1)
    }

    /// The least member that is `least` or more.
    fn at_or_after(&self, least: u64) -> Option<u64> {
        if least <= self.first {
            return Some(self.first);
        }
        if least > self.last() {
            return None;
        }
        let steps = (least - self.first).div_ceil(self.stride);
        Some(self.first + steps * self.stride)
    }
}

/// Where chunks may end within one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    runs: Vec<Run>,
}

impl Candidates {
    /// All candidate end offsets, ascending, counted from the start of the content.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.runs
            .iter()
            .flat_map(|run| (0..run.count).map(|i| run.first + i * run.stride))
    }

    fn push(&mut self, end: u64) {
        match self.runs.last_mut() {
            Some(run) if run.count == 1 && end - run.first <= MAX_STRIDE => {
                (run.stride, run.count) = (end - run.first, 2);
            }
            Some(run) if run.count > 1 && end - run.last() == run.stride => run.count += 1,
            _ => self.runs.push(Run {
                first: end,
                stride: 1,
                count: 1,
            }),
        }
    }
}

impl Chunker {
    /// Finds the candidates of one segment of a content; segments may be scanned in any order and
    /// at the same time. No candidates come from a chunker that is not [`Chunker::segmentable`].
    ///
    /// `base` is the offset of `segment` in the content; `lead` holds the [`LEAD`] bytes before it,
    /// or all there are if the content begins less than that before (a longer lead does no harm).
    #[must_use]
    pub fn scan(&self, lead: &[u8], segment: &[u8], base: u64) -> Candidates {
        debug_assert!(
            lead.len() as u64 >= base.min(LEAD as u64),
            "the lead is cut short"
        );
        let mut candidates = Candidates::default();
        let Some(gear) = self.gear() else {
            return candidates;
        };
        let mut scanner = Scanner::default();
        // The windows that reach into the lead are met in a copy of both sides of the seam.
        let lead = lead
            .last_chunk::<LEAD>()
            .map_or(lead, |last| last.as_slice());
        let head = segment.get(..LEAD).unwrap_or(segment);
        let seam = [lead, head].concat();
        scanner.scan(gear, &seam, lead.len() + 1..usize::MAX, |end| {
            candidates.push(base + (end - lead.len()) as u64);
            true
        });
        scanner.scan(gear, segment, 0..usize::MAX, |end| {
            candidates.push(base + end as u64);
            true
        });
        candidates
    }
}

/// Turns candidates into cuts, segment after segment.
#[derive(Clone, Debug)]
pub struct Selector {
    min: u64,
    max: u64,
    /// End of the last chunk.
    cut: u64,
    /// End of the last segment.
    fed: u64,
}

impl Selector {
    /// Begins at offset 0 of a content.
    #[must_use]
    pub const fn new(params: &ChunkerParams) -> Self {
        Self {
            min: params.min() as u64,
            max: params.max() as u64,
            cut: 0,
            fed: 0,
        }
    }

    /// Takes the candidates of the next segment, which ends at offset `segment_end`, and appends
    /// the end offsets of all chunks that are decided by now. With `eof` the content ends there too
    /// and every byte is in a chunk afterwards.
    ///
    /// Segments come in order and without gap.
    pub fn feed(
        &mut self,
        candidates: &Candidates,
        segment_end: u64,
        eof: bool,
        cuts: &mut Vec<u64>,
    ) {
        debug_assert!(segment_end >= self.fed, "segments come in order");
        let mut runs = candidates.runs.iter().peekable();
        loop {
            let (least, most) = (self.cut + self.min, self.cut + self.max);
            while runs.next_if(|run| run.last() < least).is_some() {}
            let next = runs.peek().and_then(|run| run.at_or_after(least));
            self.cut = match next {
                Some(end) if end <= most => end,
                _ if segment_end >= most => most,
                _ if eof && segment_end > self.cut => segment_end,
                _ => break,
            };
            cuts.push(self.cut);
        }
        self.fed = segment_end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ChunkerKind, fuzz, oracle};

    proptest! {
        #[test]
        fn any_split_into_segments_gives_the_cuts_of_the_whole(
            data in oracle::content(),
            steps in prop::collection::vec(1..2000usize, 1..10),
        ) {
            let chunker = oracle::small(ChunkerKind::Gear);
            let mut cuts = Vec::new();
            chunker.cut_all(&data, &mut cuts);
            let mut step = steps.iter().copied().cycle();
            prop_assert_eq!(fuzz::segmented(&chunker, &data, || step.next().unwrap()), cuts);
        }

        #[test]
        fn runs_hold_what_was_pushed_and_find_as_a_list_would(
            gaps in prop::collection::vec(prop_oneof![Just(1u64), Just(7), 1..9000u64], 1..60),
            least in 0..100_000u64,
        ) {
            let mut end = 5;
            let step = |gap: &u64| { end += gap; end };
            let ends: Vec<u64> = gaps.iter().map(step).collect();
            let mut candidates = Candidates::default();
            ends.iter().for_each(|&end| candidates.push(end));
            prop_assert!(candidates.iter().eq(ends.iter().copied()));
            let found = candidates.runs.iter().find_map(|run| run.at_or_after(least));
            prop_assert_eq!(found, ends.into_iter().find(|&end| end >= least));
        }
    }

    #[test]
    fn one_two_and_seven_segments_give_the_same_cuts() {
        let data = fuzz::random(70_001, 5);
        let chunker = oracle::small(ChunkerKind::Gear);
        let mut cuts = Vec::new();
        chunker.cut_all(&data, &mut cuts);
        for count in [1, 2, 7, 1000] {
            let step = data.len().div_ceil(count);
            assert_eq!(
                fuzz::segmented(&chunker, &data, || step),
                cuts,
                "{count} segments"
            );
        }
    }

    #[test]
    fn segments_shorter_than_a_window_miss_no_candidate() {
        let data = fuzz::random(3000, 6);
        let chunker = oracle::small(ChunkerKind::Gear);
        let expected = oracle::candidates(chunker.gear().unwrap(), &data);
        for len in [1, 5, 62, 63, 64, 65, 127] {
            let mut found = Vec::new();
            for base in (0..data.len()).step_by(len) {
                let segment = &data[base..data.len().min(base + len)];
                let lead = &data[base.saturating_sub(LEAD)..base];
                found.extend(chunker.scan(lead, segment, base as u64).iter());
            }
            assert_eq!(
                found,
                expected.iter().map(|&end| end as u64).collect::<Vec<_>>(),
                "{len}"
            );
        }
    }

    #[test]
    fn candidates_at_every_byte_take_one_run() {
        let params = ChunkerParams::new(64, 1024, 4096).unwrap();
        let lucky = (0..)
            .map(|seed| Chunker::new(ChunkerKind::Gear, params, &oracle::key(seed)))
            .find(|chunker| chunker.scan(&[], &[0; WINDOW], 0).iter().count() == 1)
            .unwrap();
        let data = vec![0; 1 << 20];
        let candidates = lucky.scan(&[], &data, 0);
        assert_eq!(
            candidates.runs,
            [Run {
                first: 64,
                stride: 1,
                count: (1 << 20) - 63
            }]
        );
        assert_eq!(
            fuzz::segmented(&lucky, &data, || 10_000)[..3],
            [64, 128, 192]
        );
    }

    #[test]
    fn a_selector_waits_until_a_chunk_is_decided() {
        let params = ChunkerParams::new(64, 256, 1024).unwrap();
        let mut selector = Selector::new(&params);
        let mut cuts = Vec::new();
        let mut candidates = Candidates::default();
        [10, 63, 1500]
            .into_iter()
            .for_each(|end| candidates.push(end));
        selector.feed(&Candidates::default(), 0, false, &mut cuts);
        selector.feed(&Candidates::default(), 1023, false, &mut cuts);
        assert_eq!(cuts, [0; 0]);
        selector.feed(&candidates, 1600, false, &mut cuts);
        assert_eq!(cuts, [1024, 1500]);
        selector.feed(&Candidates::default(), 1600, true, &mut cuts);
        assert_eq!(cuts, [1024, 1500, 1600]);
        selector.feed(&Candidates::default(), 1600, true, &mut cuts);
        assert_eq!(cuts, [1024, 1500, 1600]);
    }
}
