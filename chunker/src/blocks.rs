//! Cuts of content that changes in blocks: disk images.
//!
//! Lives here: what a block is marked as ([`Chunker::mark_blocks`], any part of the content, in any
//! order), and the cheap pass that turns marks into cuts ([`BlockSelector`]). Does not live here:
//! which files are cut so (`layout`).
//!
//! Must stay true: a mark depends on the block's own bytes and the key; the cuts depend on the
//! marks alone, not on how they arrive. Part of the repository format.
//!
//! # Blocks, version 1
//!
//! `g` is the grid: a power of two, 4096 to 65,536. Block ends are the multiples of `g`, counted
//! from the start of the file, and the end of the content; the first and the last block may be
//! shorter. `K`, `DK`, integers as in `gear`. The sizes are 64, 256 and 1024 KiB, whatever those of
//! plain content.
//!
//! ```text
//! N[0..512]  = the first 4096 bytes of DK("strongroom v1 block hash", K) read as integers
//! P          = the first 16 bytes of DK("strongroom v1 block prf", K), an AES-128 key
//!
//! for 4096 bytes, read as integers b[0..512]:
//!   n(b)     = sum over i < 256 of (b[2i] + N[2i]) * (b[2i+1] + N[2i+1])   mod 2^128,
//!              the sums in brackets mod 2^64
//! for a whole block of g bytes, j = 1 ..= g / 4096:
//!   x0       = 0^128,  xj = AES-128(P, x(j-1) XOR n(the j-th 4096 bytes)), integers as 16 bytes
//!   r        = the first 8 bytes of the last x
//! mark       = zero, if all its bytes are; else candidate, if it is whole and
//!              r < floor(2^64 * g / (avg - min + g)); else data
//! ```
//!
//! A *long zero run* is a run of zero blocks that cannot be longer, of 64 KiB or more. A chunk that
//! starts at `s` ends at the least of: the start of a long zero run, if greater than `s`; the end
//! of a long zero run; the end of a candidate at `s + min` or later; the last block end that is not
//! beyond `s + max`; the end of the content.
//!
//! So a file that lies on block borders in two images gives mostly the same chunks in both, and
//! zeros that were written need no blob. `n` is NH (Black et al., CRYPTO '99) with words of 64
//! bits, 2^-64-almost-universal; behind it the PRF decides, as in `gear`.

use aes::Aes128;
use aes::cipher::{Array, Block, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, Zeroizing};

use crate::chunker::Chunker;

/// No chunk is shorter than this in bytes, but at a long zero run or the end of the content.
pub const BLOCK_MIN: u64 = 64 << 10;
/// Aimed mean size of a chunk.
pub const BLOCK_AVG: u64 = 256 << 10;
/// No chunk is longer than this.
pub const BLOCK_MAX: u64 = 1 << 20;
/// Zero blocks of so many bytes in a run are chunks of their own.
const ZERO_RUN: u64 = 64 << 10;
const UNIT: usize = 4096;
const WORDS: usize = UNIT / 8;
const HASH_CONTEXT: &str = "strongroom v1 block hash";
const PRF_CONTEXT: &str = "strongroom v1 block prf";

/// The keyed rule that marks blocks.
pub(crate) struct BlockRule {
    key: Box<Zeroizing<[u64; WORDS]>>,
    prf: Aes128,
}

impl BlockRule {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let mut bytes = Zeroizing::new([0; UNIT]);
        let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
        hasher.update(key);
        hasher.finalize_xof().fill(bytes.as_mut_slice());
        hasher.zeroize();
        let mut words = Box::new(Zeroizing::new([0; WORDS]));
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let derived = Zeroizing::new(blake3::derive_key(PRF_CONTEXT, key));
        let mut prf_key = Array::default();
        for (to, from) in prf_key.iter_mut().zip(derived.iter()) {
            *to = *from;
        }
        let prf = Aes128::new(&prf_key);
        prf_key.zeroize();
        Self { key: words, prf }
    }

    /// The mark of a block; `whole` says that it is no shorter than the grid.
    fn mark(&self, block: &[u8], whole: bool, threshold: u64) -> Mark {
        if is_zero(block) {
            return Mark::Zero;
        }
        if whole && self.verdict(block) < threshold {
            Mark::Candidate
        } else {
            Mark::Data
        }
    }

    fn verdict(&self, block: &[u8]) -> u64 {
        let mut mac = Block::<Aes128>::default();
        for unit in block.as_chunks::<UNIT>().0 {
            let mixed = u128::from_le_bytes(mac.into()) ^ self.hash(unit);
            mac = mixed.to_le_bytes().into();
            self.prf.encrypt_block(&mut mac);
        }
        let [low @ .., _, _, _, _, _, _, _, _] = <[u8; 16]>::from(mac);
        u64::from_le_bytes(low)
    }

    fn hash(&self, unit: &[u8; UNIT]) -> u128 {
        let (pairs, _) = unit.as_chunks::<8>().0.as_chunks::<2>();
        let keys = self.key.as_chunks::<2>().0;
        pairs.iter().zip(keys).fold(0, |sum, ([b0, b1], [n0, n1])| {
            let left = u64::from_le_bytes(*b0).wrapping_add(*n0);
            let right = u64::from_le_bytes(*b1).wrapping_add(*n1);
            let product = u128::from(left) * u128::from(right);
            sum.wrapping_add(product)
        })
    }
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Zero,
    Data,
    Candidate,
}

/// The marks of neighbouring blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockMarks(Vec<Mark>);

impl Chunker {
    /// Marks the blocks of a part of a file that begins at `offset`. Parts may be marked in any
    /// order and at the same time; all but the last of a content have to end on the grid.
    #[must_use]
    pub fn mark_blocks(&self, grid: u32, offset: u64, part: &[u8]) -> BlockMarks {
        let grid = u64::from(grid);
        let threshold = threshold(grid);
        let to_grid = grid - offset % grid;
        let first = usize::try_from(to_grid).unwrap_or(usize::MAX);
        let whole = usize::try_from(grid).unwrap_or(usize::MAX);
        let (first, rest) = part.split_at(first.min(part.len()));
        let blocks = std::iter::once(first).chain(rest.chunks(whole));
        let blocks = blocks.filter(|block| !block.is_empty());
        let rule = self.blocks();
        BlockMarks(
            blocks
                .map(|block| rule.mark(block, block.len() == whole, threshold))
                .collect(),
        )
    }
}

/// Turns marks into cuts, part after part.
#[derive(Clone, Debug)]
pub struct BlockSelector {
    grid: u64,
    /// Offset of the end of the last chunk.
    cut: u64,
    /// Offset of the end of the last block.
    fed: u64,
    /// Start of the run of zero blocks that ends at `fed`.
    zeros: Option<u64>,
}

impl BlockSelector {
    /// Begins at offset `start` of a file.
    #[must_use]
    pub const fn new(grid: u32, start: u64) -> Self {
        Self {
            grid: grid as u64,
            cut: start,
            fed: start,
            zeros: None,
        }
    }

    /// Takes the marks of the next part, which ends at offset `end` of the file, and appends the
    /// end offsets of all chunks that are decided by now: within a run of zeros the last cuts may
    /// wait for more of it. With `eof` the content ends there and every byte is in a chunk
    /// afterwards.
    pub fn feed(&mut self, marks: &BlockMarks, end: u64, eof: bool, cuts: &mut Vec<u64>) {
        for mark in &marks.0 {
            let start = self.fed;
            self.fed = self.block_end(start).min(end);
            if *mark == Mark::Zero {
                let from = *self.zeros.get_or_insert(start);
                if self.is_long(from) {
                    self.cut_at(from, cuts);
                    self.cut_if_full(self.fed, cuts);
                }
                continue;
            }
            self.leave_zeros(start, cuts);
            if *mark == Mark::Candidate && self.fed - self.cut >= BLOCK_MIN {
                self.cut_at(self.fed, cuts);
            }
            self.cut_if_full(self.fed, cuts);
        }
        if eof {
            self.leave_zeros(self.fed, cuts);
            self.cut_at(self.fed, cuts);
        }
    }

    /// Ends the run of zeros before `end`, if there is one.
    fn leave_zeros(&mut self, end: u64, cuts: &mut Vec<u64>) {
        let Some(from) = self.zeros.take() else {
            return;
        };
        if end - from >= ZERO_RUN {
            self.cut_at(end, cuts);
            return;
        }
        let mut at = from;
        while at < end {
            at = self.block_end(at).min(end);
            self.cut_if_full(at, cuts);
        }
    }

    const fn is_long(&self, zeros_from: u64) -> bool {
        self.fed - zeros_from >= ZERO_RUN
    }

    const fn block_end(&self, at: u64) -> u64 {
        (at / self.grid + 1).saturating_mul(self.grid)
    }

    fn cut_at(&mut self, at: u64, cuts: &mut Vec<u64>) {
        if at > self.cut {
            self.cut = at;
            cuts.push(at);
        }
    }

    /// Ends a chunk at a block end behind which no other block finds room.
    fn cut_if_full(&mut self, at: u64, cuts: &mut Vec<u64>) {
        if at + self.grid > self.cut + BLOCK_MAX {
            self.cut_at(at, cuts);
        }
    }
}

/// So many of all verdicts are below this that chunks have their mean size: the first block end
/// that counts is that at the minimum.
fn threshold(grid: u64) -> u64 {
    let wide = (u128::from(grid) << 64) / u128::from(BLOCK_AVG - BLOCK_MIN + grid);
    u64::try_from(wide).unwrap_or(u64::MAX)
}

/// Whether all bytes are zero; quick to say no.
fn is_zero(block: &[u8]) -> bool {
    let front = block.get(..64).unwrap_or(block);
    front.iter().all(|byte| *byte == 0) && block.iter().fold(0, |all, byte| all | byte) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{fuzz, oracle};

    fn marks(text: &str) -> BlockMarks {
        let mark = |c| match c {
            '0' => Mark::Zero,
            '|' => Mark::Candidate,
            _ => Mark::Data,
        };
        BlockMarks(text.chars().map(mark).collect())
    }

    /// The cuts, in blocks of 4 KiB, of blocks that begin at block 3 of the file.
    fn cuts(text: &str) -> Vec<u64> {
        let mut cuts = Vec::new();
        let end = (3 + text.len() as u64) * 4096;
        let mut selector = BlockSelector::new(4096, 3 * 4096);
        selector.feed(&marks(text), end, true, &mut cuts);
        cuts.iter().map(|cut| cut / 4096 - 3).collect()
    }

    #[test]
    fn a_chunk_ends_at_a_candidate_from_the_minimum_on_and_at_the_maximum() {
        assert_eq!(cuts(""), [0; 0]);
        assert_eq!(cuts("."), [1]);
        let early = format!("{}|{}", ".".repeat(14), ".".repeat(9));
        assert_eq!(cuts(&early), [24], "before the minimum");
        let on_time = format!("{}|{}", ".".repeat(15), ".".repeat(9));
        assert_eq!(cuts(&on_time), [16, 25]);
        assert_eq!(cuts(&".".repeat(600)), [256, 512, 600]);
    }

    #[test]
    fn a_long_run_of_zeros_is_a_chunk_of_its_own_and_a_short_one_is_not() {
        let run = |len| format!("..{}...", "0".repeat(len));
        assert_eq!(cuts(&run(15)), [20]);
        assert_eq!(cuts(&run(16)), [2, 18, 21]);
        assert_eq!(cuts(&run(300)), [2, 258, 302, 305]);
        assert_eq!(cuts(&"0".repeat(15)), [15]);
        assert_eq!(cuts(&"0".repeat(600)), [256, 512, 600]);
    }

    #[test]
    fn a_maximum_within_zeros_is_seen_only_when_they_turn_out_to_be_few() {
        let few = format!("{}{}..", ".".repeat(250), "0".repeat(15));
        assert_eq!(cuts(&few), [256, 267]);
        let many = format!("{}{}..", ".".repeat(250), "0".repeat(16));
        assert_eq!(cuts(&many), [250, 266, 268]);
    }

    #[test]
    fn a_content_that_begins_off_the_grid_is_cut_on_it() {
        let chunker = oracle::small(crate::ChunkerKind::Gear);
        let data = fuzz::random(3 << 20, 5);
        let mut found = Vec::new();
        let mut selector = BlockSelector::new(4096, 5000);
        let end = 5000 + data.len() as u64;
        let marks = chunker.mark_blocks(4096, 5000, &data);
        selector.feed(&marks, end, true, &mut found);
        let (last, inner) = found.split_last().unwrap();
        assert_eq!(*last, end);
        assert!(inner.len() > 5);
        assert!(inner.iter().all(|cut| cut.is_multiple_of(4096)));
    }

    /// The rule as the head of this file has it, block by block and with all of the content at
    /// hand.
    fn by_the_book(key: &[u8; 32], grid: usize, data: &[u8]) -> Vec<u64> {
        let rule = BlockRule::new(key);
        let is_candidate = |block: &[u8]| {
            let mut mac = [0; 16];
            for unit in block.chunks(4096) {
                let word = |at: usize| u64::from_le_bytes(unit[at..at + 8].try_into().unwrap());
                let mut sum = 0u128;
                for i in 0..256 {
                    let left = word(16 * i).wrapping_add(rule.key[2 * i]);
                    let right = word(16 * i + 8).wrapping_add(rule.key[2 * i + 1]);
                    sum = sum.wrapping_add(u128::from(left) * u128::from(right));
                }
                let mut x = Block::<Aes128>::from((u128::from_le_bytes(mac) ^ sum).to_le_bytes());
                rule.prf.encrypt_block(&mut x);
                mac = x.into();
            }
            let verdict = u64::from_le_bytes(mac[..8].try_into().unwrap());
            let grid = grid as u64;
            let bound = (u128::from(grid) << 64) / u128::from(BLOCK_AVG - BLOCK_MIN + grid);
            block.len() as u64 == grid && u128::from(verdict) < bound
        };
        let blocks: Vec<&[u8]> = data.chunks(grid).collect();
        let zero: Vec<bool> = blocks.iter().map(|b| b.iter().all(|x| *x == 0)).collect();
        let run_end = |at: usize| at + zero[at..].iter().take_while(|zero| **zero).count();
        let long = |at: usize| {
            let is_start = zero[at] && (at == 0 || !zero[at - 1]);
            let bytes: usize = blocks[at..run_end(at)].iter().map(|b| b.len()).sum();
            (is_start && bytes >= 64 << 10).then(|| run_end(at))
        };
        let (mut cuts, mut start, mut at, mut zeros_end) = (Vec::new(), 0, 0, None);
        let offset = |block: usize| (block * grid).min(data.len()) as u64;
        while start < blocks.len() {
            if let Some(end) = long(start) {
                zeros_end = Some(end);
            }
            at += 1;
            let len = offset(at) - offset(start);
            let full = offset(at) + grid as u64 > offset(start) + BLOCK_MAX;
            let ends = at == blocks.len()
                || full
                || zeros_end == Some(at)
                || long(at).is_some()
                || (!zero[at - 1] && is_candidate(blocks[at - 1]) && len >= BLOCK_MIN);
            if ends {
                cuts.push(offset(at));
                start = at;
            }
        }
        cuts
    }

    /// Content of blocks: noise and runs of zeros around the lengths that matter.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        let run = (any::<bool>(), 1..40usize, any::<u64>());
        (prop::collection::vec(run, 1..24), 0..4096usize).prop_map(|(runs, rest)| {
            let mut data = Vec::new();
            for (is_zero, blocks, seed) in runs {
                let len = 4096 * blocks;
                data.extend(if is_zero {
                    vec![0; len]
                } else {
                    fuzz::random(len, seed)
                });
            }
            data.extend(fuzz::random(rest, 7));
            data
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_rule_by_the_book_gives_the_same_cuts_in_any_parts(
            data in content(),
            big_grid in any::<bool>(),
            steps in prop::collection::vec(1..50usize, 1..8),
        ) {
            let key = oracle::key(1);
            let chunker = oracle::small(crate::ChunkerKind::Gear);
            let grid = if big_grid { 16_384 } else { 4096 };
            let expected = by_the_book(&key, grid, &data);
            let mut step = steps.iter().map(|blocks| blocks * grid).cycle();
            let found = fuzz::blocks(&chunker, &data, grid, || step.next().unwrap());
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_pass_the_fuzz_body(data in prop::collection::vec(any::<u8>(), 0..3000)) {
            fuzz::fuzz_blocks(&data);
        }
    }

    #[test]
    fn the_mean_size_on_random_data_is_the_average() {
        let data = fuzz::random(64 << 20, 3);
        let params = crate::ChunkerParams::default();
        for grid in [4096, 16_384, 65_536] {
            let (mut chunks, mut bytes) = (0, 0);
            for seed in 0..8 {
                let key = oracle::key(seed);
                let chunker = Chunker::new(crate::ChunkerKind::Gear, params, &key);
                let cuts = fuzz::blocks(&chunker, &data, grid, || 1 << 20);
                // The end of the data cuts the last one.
                chunks += cuts.len() - 1;
                bytes += cuts[cuts.len() - 2];
            }
            let ratio = bytes as f64 / chunks as f64 / BLOCK_AVG as f64;
            assert!(
                (0.95..1.05).contains(&ratio),
                "grid {grid}: {ratio} of the average over {chunks} chunks"
            );
        }
    }

    #[test]
    fn another_key_gives_other_cuts() {
        let data = fuzz::random(8 << 20, 4);
        let cuts = |seed| {
            let params = crate::ChunkerParams::default();
            let key = oracle::key(seed);
            let chunker = Chunker::new(crate::ChunkerKind::Gear, params, &key);
            fuzz::blocks(&chunker, &data, 4096, || 1 << 20)
        };
        let (a, b) = (cuts(1), cuts(2));
        let common = a.iter().filter(|cut| b.contains(cut)).count();
        assert!(common < a.len() / 4, "{common} of {}", a.len());
    }

    #[test]
    fn cuts_are_those_of_the_first_release_of_the_format() {
        let mut lines = String::new();
        for (seed, grid) in [(1, 4096), (2, 4096), (3, 8192), (4, 65_536)] {
            let params = crate::ChunkerParams::default();
            let key = oracle::key(seed);
            let chunker = Chunker::new(crate::ChunkerKind::Gear, params, &key);
            let mut data = fuzz::random((3 << 20) + 5, 100 + seed);
            for (at, len) in [(30, 15), (100, 16), (200, 300), (600, 3)] {
                data[at << 12..(at + len) << 12].fill(0);
            }
            let cuts = fuzz::blocks(&chunker, &data, grid, || 1 << 20);
            let cuts: Vec<_> = cuts.iter().map(u64::to_string).collect();
            lines += &format!("seed={seed} grid={grid}: {}\n", cuts.join(" "));
        }
        let golden = include_str!("../testdata/blocks-v1.txt");
        assert_eq!(golden, lines, "cuts:\n{lines}");
    }
}
