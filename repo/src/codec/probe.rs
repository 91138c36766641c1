//! Cheap looks at plain bytes that say which codec is worth its time. Guesses, all of them.
//!
//! Here: is a plane skewed, does a chunk repeat itself, is an untyped chunk made of floats. Nothing
//! here decides what is stored: the encoder still compares real sizes, so a wrong guess costs time
//! or a few per cent of space and nothing else.
//!
//! Must stay true: far below the price of one pass of a codec; the same bytes give the same answer.

use super::FloatKind;

/// Number of runs a sample is taken in, evenly spread, so that a period in the data cannot hide.
const RUNS: usize = 8;

/// The search for repeats looks at one word in this many bytes.
const STRIDE: usize = 16;

/// It remembers one in 2 to this power of them.
const SAMPLED_LOG: u32 = 6;

/// It has 2 to this power places to remember them in: enough for a blob of a few MiB.
const SLOTS_LOG: u32 = 12;

/// A sum of squared counts, in units of what evenly distributed bytes would give.
struct Skew {
    /// Sum of squares, less the part every sample has.
    pairs: u64,
    /// Bytes counted.
    total: u64,
}

impl Skew {
    fn of(counts: &[u32; 256]) -> Self {
        let total = counts.iter().map(|&n| u64::from(n)).sum();
        let squares: u64 = counts.iter().map(|&n| u64::from(n) * u64::from(n)).sum();
        Self {
            pairs: squares - total,
            total,
        }
    }

    /// Whether two bytes drawn at random are equal with a chance above `times_100 / 100 / 256`.
    fn exceeds(&self, times_100: u64) -> bool {
        self.pairs * 256 * 100 > self.total * self.total.saturating_sub(1) * times_100
    }
}

/// Whether an order-0 code could save about one per cent of this plane or more.
pub(super) fn is_skewed(plane: &[u8]) -> bool {
    let mut counts = [0_u32; 256];
    for run in sample(plane, 256) {
        count_into(run.iter(), &mut counts);
    }
    Skew::of(&counts).exceeds(108)
}

/// Whether an eighth or more of `plain` is zero or has occurred before: then a code that knows
/// matches may beat one that knows frequencies only. Looks at the word at the start of every
/// [`STRIDE`] bytes, and remembers those that a hash picks, so that both places of a repeat are
/// remembered or neither. Repeats at distances that are no multiple of the stride go unseen.
pub(super) fn is_repetitive(plain: &[u8]) -> bool {
    let mut seen = [0_u64; 1 << SLOTS_LOG];
    let (strides, _) = plain.as_chunks::<STRIDE>();
    let (mut zeros, mut sampled, mut repeats) = (0_usize, 0_usize, 0_usize);
    for stride in strides {
        let [a, b, c, d, e, f, g, h, ..] = *stride;
        let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        zeros += usize::from(word == 0);
        let hash = word.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if hash >> (64 - SAMPLED_LOG) != 0 || word == 0 {
            continue;
        }
        sampled += 1;
        let slot = usize::try_from(hash >> (64 - SAMPLED_LOG - SLOTS_LOG)).unwrap_or_default();
        if let Some(slot) = seen.get_mut(slot) {
            repeats += usize::from(*slot == word);
            *slot = word;
        }
    }
    // A few words filling the blob are all sampled or, more likely, all not.
    let expected = (strides.len() - zeros) >> SAMPLED_LOG;
    let is_lopsided = sampled < expected / 2 || sampled > expected * 2;
    is_lopsided || 8 * (zeros + (repeats << SAMPLED_LOG)) >= strides.len()
}

/// Guesses from 4 KiB whether `plain` is an array of floats, and where in an element it begins:
/// exponents make one byte of an element narrow, mantissas the others even.
pub(super) fn guess_floats(plain: &[u8]) -> Option<(FloatKind, u8)> {
    let mut counts = [[0_u32; 256]; 4];
    for run in sample(plain, 4096 / RUNS) {
        for (column, counts) in counts.iter_mut().enumerate() {
            count_into(run.iter().skip(column).step_by(4), counts);
        }
    }
    let skews = counts.map(|counts| Skew::of(&counts));
    let is_narrow = skews.each_ref().map(|skew| skew.exceeds(400));
    let is_even = skews.each_ref().map(|skew| !skew.exceeds(200));
    let is = |narrow: [bool; 4]| is_narrow == narrow && is_even == narrow.map(|narrow| !narrow);
    // The narrow byte is the last of its element.
    match () {
        () if is([false, true, false, true]) => Some((FloatKind::Bf16, 0)),
        () if is([true, false, true, false]) => Some((FloatKind::Bf16, 1)),
        () if is([false, false, false, true]) => Some((FloatKind::F32, 0)),
        () if is([false, false, true, false]) => Some((FloatKind::F32, 1)),
        () if is([false, true, false, false]) => Some((FloatKind::F32, 2)),
        () if is([true, false, false, false]) => Some((FloatKind::F32, 3)),
        () => None,
    }
}

/// `RUNS` runs of `run_len` bytes each, at multiples of four, from the whole of `data`; or all of
/// it where it is no longer than that.
fn sample(data: &[u8], run_len: usize) -> impl Iterator<Item = &[u8]> {
    let slack = data.len().saturating_sub(run_len);
    let (runs, run_len) = if slack < RUNS * run_len {
        (1, data.len())
    } else {
        (RUNS, run_len)
    };
    (0..runs).filter_map(move |i| {
        let start = (slack * i / RUNS) & !3;
        data.get(start..start + run_len)
    })
}

fn count_into<'a>(bytes: impl Iterator<Item = &'a u8>, counts: &mut [u32; 256]) {
    for &byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        })
        .take(len)
        .collect()
    }

    #[test]
    fn noise_is_neither_skewed_nor_repetitive_nor_float() {
        for (len, seed) in [(64 << 10, 1), (1 << 20, 2), (4 << 20, 3)] {
            let plain = noise(len, seed);
            assert!(!is_skewed(&plain), "{len}");
            assert!(!is_repetitive(&plain), "{len}");
            assert_eq!(guess_floats(&plain), None, "{len}");
        }
    }

    #[test]
    fn a_plane_of_few_values_is_skewed() {
        assert!(is_skewed(&[7; 5000]));
        let halved: Vec<u8> = noise(1 << 16, 4).iter().map(|byte| byte | 1).collect();
        assert!(is_skewed(&halved));
    }

    #[test]
    fn zeros_constants_and_copies_are_repetitive() {
        let fresh = noise(1 << 20, 5);
        let with = |fill: &dyn Fn(&mut [u8])| {
            let mut plain = fresh.clone();
            fill(&mut plain);
            plain
        };
        // A fifth of the blob in one stretch, or a quarter copied.
        let zeros = with(&|plain| plain[..200 << 10].fill(0));
        let copies = with(&|plain| plain.copy_within(0..256 << 10, 512 << 10));
        for plain in [vec![0; 1 << 20], vec![0x3F; 1 << 20], zeros, copies] {
            assert!(is_repetitive(&plain));
        }
    }

    #[test]
    fn no_bytes_are_too_few() {
        for len in 0..600 {
            let plain = noise(len, 6);
            is_skewed(&plain);
            is_repetitive(&plain);
            guess_floats(&plain);
        }
    }
}
