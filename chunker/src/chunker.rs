//! Cuts: minimum and maximum applied to candidates.
//!
//! Lives here: [`Chunker`], the immutable rule of a repository, and [`Stream`], its use on content
//! of unknown length. Does not live here: what a candidate is (`gear`), how many workers share one
//! file (`parallel`). Nothing here keeps or copies content.
//!
//! Must stay true: one content has one list of cuts, whichever way it is fed.
//!
//! # From candidates to cuts, kind 1 (gear)
//!
//! A chunk starts at offset `s` (0, or the end of the chunk before). Let `n` be the length of the
//! content. The chunk ends at the least candidate end offset `e` with `s + min <= e <= min(s + max,
//! n)`; if there is none, at `min(s + max, n)`. Since `min >= 64`, the window of a cut lies within
//! its chunk.
//!
//! With `span = avg - min` the mean size on random data is
//! `min + span * (1 - exp(-(max - min) / span))`: 0.995 of `avg` for 256 KiB, 1 MiB, 4 MiB.
//!
//! One threshold, not the two of normalised chunking: sizes between `min` and `max` are geometric,
//! the mean is met on random data and on text alike, and nothing but the window decides.
//!
//! # Kind 2 (FastCDC)
//!
//! The cuts of `fastcdc` 5.0.0, `v2020`, normalisation level 1, with the seed `DK("strongroom v1
//! fastcdc", K)[0..8]` as a little-endian integer; each chunk is cut from a slice that starts at
//! the end of the chunk before and reaches to `s + max` or the end of the content. Its mean on
//! random data is above `avg` (1.2 of it with the default sizes).

use std::fmt;

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};
use zeroize::Zeroizing;

use crate::blocks::BlockRule;
use crate::gear::Gear;
use crate::params::{ChunkerKind, ChunkerParams};
use crate::scan::Scanner;

const FASTCDC_CONTEXT: &str = "strongroom v1 fastcdc";

/// The chunking rule of one repository; immutable, shared by reference between workers.
///
/// ```
/// use strongroom_chunker::{Chunker, ChunkerKind, ChunkerParams};
///
/// let chunker = Chunker::new(ChunkerKind::Gear, ChunkerParams::default(), &[7; 32]);
/// let mut cuts = Vec::new();
/// chunker.cut_all(&[0; 1000], &mut cuts);
/// assert_eq!(cuts, [1000]);
/// ```
pub struct Chunker {
    params: ChunkerParams,
    rule: Rule,
    blocks: BlockRule,
}

enum Rule {
    Gear(Box<Gear>),
    FastCdc(FastCdc),
}

struct FastCdc {
    mask_s: u64,
    mask_l: u64,
    gear: Zeroizing<Vec<u64>>,
    gear_ls: Zeroizing<Vec<u64>>,
}

impl Chunker {
    /// Derives the secrets of the rule from the chunking key.
    #[must_use]
    pub fn new(kind: ChunkerKind, params: ChunkerParams, key: &[u8; 32]) -> Self {
        let rule = match kind {
            ChunkerKind::Gear => Rule::Gear(Box::new(Gear::new(&params, key))),
            ChunkerKind::FastCdc => Rule::FastCdc(FastCdc::new(&params, key)),
        };
        let blocks = BlockRule::new(key);
        Self {
            params,
            rule,
            blocks,
        }
    }

    /// The sizes that this rule keeps to.
    #[must_use]
    pub const fn params(&self) -> &ChunkerParams {
        &self.params
    }

    /// The algorithm.
    #[must_use]
    pub const fn kind(&self) -> ChunkerKind {
        match self.rule {
            Rule::Gear(_) => ChunkerKind::Gear,
            Rule::FastCdc(_) => ChunkerKind::FastCdc,
        }
    }

    /// Whether one content can be scanned in segments ([`Chunker::scan`]): a candidate must not
    /// depend on the cut before it.
    #[must_use]
    pub const fn segmentable(&self) -> bool {
        matches!(self.rule, Rule::Gear(_))
    }

    /// Cuts a buffer that is the complete content: appends the end offset of every chunk to `cuts`,
    /// the last being `data.len()`. Empty content has no chunk.
    pub fn cut_all(&self, data: &[u8], cuts: &mut Vec<usize>) {
        let mut stream = self.stream();
        let mut start = 0;
        while let Some(len) = stream.push(data.get(start..).unwrap_or_default(), true) {
            start += len;
            cuts.push(start);
        }
    }

    /// Starts on content that arrives piece by piece.
    #[must_use]
    pub fn stream(&self) -> Stream<'_> {
        Stream {
            chunker: self,
            scanner: Scanner::default(),
            judged: 0,
        }
    }

    pub(crate) const fn blocks(&self) -> &BlockRule {
        &self.blocks
    }

    pub(crate) const fn gear(&self) -> Option<&Gear> {
        match &self.rule {
            Rule::Gear(gear) => Some(gear),
            Rule::FastCdc(_) => None,
        }
    }
}

impl fmt::Debug for Chunker {
    /// Shows kind and sizes, never what the key made.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunker")
            .field("kind", &self.kind())
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl FastCdc {
    fn new(params: &ChunkerParams, key: &[u8; 32]) -> Self {
        let derived = Zeroizing::new(blake3::derive_key(FASTCDC_CONTEXT, key));
        let seed = derived
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (mask_s, mask_l) = select_masks(params.avg(), Normalization::Level1);
        let (gear, gear_ls) = get_gear_with_seed(seed);
        Self {
            mask_s,
            mask_l,
            gear: Zeroizing::new(gear.into_owned()),
            gear_ls: Zeroizing::new(gear_ls.into_owned()),
        }
    }

    fn chunk_len(&self, params: &ChunkerParams, rest: &[u8]) -> usize {
        let (_, len) = cut_gear(
            rest,
            params.min(),
            params.avg(),
            params.max(),
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
            &self.gear,
            &self.gear_ls,
        );
        len
    }
}

/// Cuts of content that arrives piece by piece; the caller keeps the bytes, this keeps a position.
///
/// ```
/// use strongroom_chunker::{Chunker, ChunkerKind, ChunkerParams};
///
/// let chunker = Chunker::new(ChunkerKind::Gear, ChunkerParams::default(), &[7; 32]);
/// let mut stream = chunker.stream();
/// let mut pending = vec![0; 3 << 20];
/// assert_eq!(stream.push(&pending, false), None);
/// pending.resize(5 << 20, 0);
/// assert_eq!(stream.push(&pending, false), Some(4 << 20));
/// pending.drain(..4 << 20);
/// assert_eq!(stream.push(&pending, false), None);
/// assert_eq!(stream.push(&pending, true), Some(1 << 20));
/// assert_eq!(stream.push(&[], true), None);
/// ```
pub struct Stream<'a> {
    chunker: &'a Chunker,
    scanner: Scanner,
    /// Of the current chunk: all end offsets up to here are known to be no cut.
    judged: usize,
}

impl Stream<'_> {
    /// Takes all bytes since the last cut and says how long the next chunk is, or `None` when that
    /// is not decided yet (or, at the end, when nothing is left).
    ///
    /// `buf` must begin at the last cut and must not be shorter than at the call before, unless
    /// that call gave a cut; bytes once shown must not change. With `eof` the buffer ends the
    /// content. A decision is always reached with [`ChunkerParams::max`] bytes.
    pub fn push(&mut self, buf: &[u8], eof: bool) -> Option<usize> {
        let max = self.chunker.params.max();
        let known = buf.get(..max).unwrap_or(buf);
        let full = known.len() == max;
        let len = match &self.chunker.rule {
            Rule::Gear(gear) => {
                let from = self.chunker.params.min().max(self.judged + 1);
                let first = self.scanner.first(gear, known, from..known.len() + 1);
                first.or_else(|| (full || eof).then_some(known.len()))
            }
            // Two bytes a step and masks by distance: no position to resume at, so it waits for all
            // that a chunk could need.
            Rule::FastCdc(rule) => {
                (full || eof).then(|| rule.chunk_len(&self.chunker.params, known))
            }
        };
        self.judged = if len.is_some() { 0 } else { known.len() };
        len.filter(|&len| len > 0)
    }
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("chunker", self.chunker)
            .field("judged", &self.judged)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{fuzz, oracle};

    fn cuts(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
        let mut cuts = Vec::new();
        chunker.cut_all(data, &mut cuts);
        cuts
    }

    proptest! {
        #[test]
        fn the_oracle_finds_the_same_cuts(data in oracle::content()) {
            let chunker = oracle::small(ChunkerKind::Gear);
            prop_assert_eq!(cuts(&chunker, &data), oracle::cuts(&chunker, &data));
        }

        #[test]
        fn a_stream_finds_the_cuts_of_the_whole_however_it_arrives(
            data in oracle::content(),
            steps in prop::collection::vec(0..900usize, 1..20),
        ) {
            for kind in [ChunkerKind::Gear, ChunkerKind::FastCdc] {
                let chunker = oracle::small(kind);
                let mut step = steps.iter().copied().cycle();
                let streamed = fuzz::streamed(&chunker, &data, || step.next().unwrap());
                prop_assert_eq!(streamed, cuts(&chunker, &data));
            }
        }

        #[test]
        fn chunks_cover_the_content_and_keep_to_the_sizes(data in oracle::content()) {
            for kind in [ChunkerKind::Gear, ChunkerKind::FastCdc] {
                let chunker = oracle::small(kind);
                fuzz::check_sizes(chunker.params(), data.len(), &cuts(&chunker, &data));
            }
        }

        #[test]
        fn any_bytes_pass_the_fuzz_body(data in prop::collection::vec(any::<u8>(), 0..3000)) {
            fuzz::fuzz_cuts(&data);
        }
    }

    /// One line per case of `testdata/cuts-v1.txt`: how the content is made, then its cuts.
    fn golden_lines() -> String {
        let sizes = [
            (64, 256, 1024),
            (1024, 4096, 16_384),
            (256 << 10, 1 << 20, 4 << 20),
        ];
        let mut lines = String::new();
        for kind in [ChunkerKind::Gear, ChunkerKind::FastCdc] {
            for (seed, (min, avg, max)) in (1..).zip(sizes) {
                let params = ChunkerParams::new(min, avg, max).unwrap();
                let chunker = Chunker::new(kind, params, &oracle::key(seed));
                let len = 20 * avg + 7;
                let random = fuzz::random(len, 100 + seed);
                let periodic: Vec<u8> = fuzz::random(97, seed)
                    .into_iter()
                    .cycle()
                    .take(len)
                    .collect();
                let holed = [
                    &random[..len / 3],
                    &vec![0; len / 3][..],
                    &random[..len / 3],
                ]
                .concat();
                for (name, data) in [("random", random), ("periodic", periodic), ("holed", holed)] {
                    let cuts: Vec<_> = cuts(&chunker, &data).iter().map(usize::to_string).collect();
                    let head = format!("{kind:?} {min} {avg} {max} seed={seed} {name} {len}:");
                    lines += &format!("{head} {}\n", cuts.join(" "));
                }
            }
        }
        lines
    }

    #[test]
    fn cuts_are_those_of_the_first_release_of_the_format() {
        let golden = include_str!("../testdata/cuts-v1.txt");
        let lines = golden_lines();
        for (ours, theirs) in lines
            .lines()
            .zip(golden.lines().filter(|l| !l.starts_with('#')))
        {
            assert_eq!(ours, theirs);
        }
        let count = golden.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(
            lines.lines().count(),
            count,
            "every golden line is used:\n{lines}"
        );
    }

    #[test]
    fn the_reference_crate_finds_the_same_cuts_for_kind_two() {
        let data = fuzz::random(300_000, 8);
        let chunker = oracle::small(ChunkerKind::FastCdc);
        let derived = blake3::derive_key(FASTCDC_CONTEXT, &oracle::key(1));
        let seed = u64::from_le_bytes(derived[..8].try_into().unwrap());
        let reference = fastcdc::v2020::FastCDC::with_level_and_seed(
            &data,
            64,
            256,
            1024,
            Normalization::Level1,
            seed,
        );
        let expected: Vec<usize> = reference.map(|chunk| chunk.offset + chunk.length).collect();
        assert_eq!(cuts(&chunker, &data), expected);
    }

    #[test]
    fn the_mean_size_on_random_data_is_the_average() {
        let data = fuzz::random(64 << 20, 9);
        let default = ChunkerParams::default();
        for (min, avg, max, keys) in [
            (64, 256, 1024, 1),
            (512, 1024, 2048, 1),
            (64, 1024, 65_536, 1),
            (1024, 4096, 16_384, 2),
            (default.min(), default.avg(), default.max(), 24),
        ] {
            let params = ChunkerParams::new(min, avg, max).unwrap();
            let (mut chunks, mut bytes) = (0, 0);
            for seed in 0..keys {
                let chunker = Chunker::new(ChunkerKind::Gear, params, &oracle::key(seed));
                let cuts = cuts(&chunker, &data);
                // The end of the data cuts the last one.
                chunks += cuts.len() - 1;
                bytes += cuts[cuts.len() - 2];
            }
            let ratio = bytes as f64 / chunks as f64 / avg as f64;
            assert!(
                (0.95..1.05).contains(&ratio),
                "{min} {avg} {max}: {ratio} of the average over {chunks} chunks"
            );
        }
    }

    #[test]
    fn bytes_put_in_front_change_the_first_chunks_only() {
        let data = fuzz::random(200_000, 10);
        for kind in [ChunkerKind::Gear, ChunkerKind::FastCdc] {
            let chunker = oracle::small(kind);
            let before = cuts(&chunker, &data);
            for added in [1, 63, 64, 777, 5000] {
                let moved = [fuzz::random(added, 11), data.clone()].concat();
                let after: Vec<usize> = cuts(&chunker, &moved)
                    .into_iter()
                    .filter_map(|cut| cut.checked_sub(added))
                    .collect();
                let lost = before.iter().filter(|cut| !after.contains(cut)).count();
                assert!(lost < 40, "{kind:?}: {lost} of {} cuts moved", before.len());
                assert_eq!(
                    before[60..],
                    after[after.len() - (before.len() - 60)..],
                    "{kind:?}"
                );
            }
        }
    }

    #[test]
    fn another_key_gives_other_cuts() {
        let data = fuzz::random(100_000, 12);
        for kind in [ChunkerKind::Gear, ChunkerKind::FastCdc] {
            let params = ChunkerParams::new(64, 256, 1024).unwrap();
            let a = cuts(&Chunker::new(kind, params, &oracle::key(1)), &data);
            let b = cuts(&Chunker::new(kind, params, &oracle::key(2)), &data);
            let common = a.iter().filter(|cut| b.contains(cut)).count();
            assert!(common < a.len() / 20, "{kind:?}: {common} of {}", a.len());
        }
    }

    #[test]
    fn constant_content_is_cut_at_the_maximum_unless_its_window_is_a_candidate() {
        let chunker = oracle::small(ChunkerKind::Gear);
        let data = vec![0; 2500];
        assert_eq!(oracle::candidates(chunker.gear().unwrap(), &data), [0; 0]);
        assert_eq!(cuts(&chunker, &data), [1024, 2048, 2500]);
    }

    #[test]
    fn empty_content_has_no_chunk_and_short_content_has_one() {
        for kind in [ChunkerKind::Gear, ChunkerKind::FastCdc] {
            let chunker = oracle::small(kind);
            assert_eq!(cuts(&chunker, &[]), [0; 0]);
            assert_eq!(cuts(&chunker, &[1]), [1]);
            assert_eq!(cuts(&chunker, &[1; 64]), [64]);
            assert_eq!(chunker.stream().push(&[], true), None);
        }
    }

    #[test]
    fn what_is_printed_of_a_chunker_holds_no_secret() {
        let chunker = oracle::small(ChunkerKind::Gear);
        let shown =
            "Chunker { kind: Gear, params: ChunkerParams { min: 64, avg: 256, max: 1024 }, .. }";
        assert_eq!(format!("{chunker:?}"), shown);
    }
}
