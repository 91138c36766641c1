//! Made-up content, the same every time: noise that nothing compresses, rows of a dump, and
//! weights as models have them.

/// Bytes of a blob: what a chunk has on average.
pub(super) const BLOB: usize = 1 << 20;

/// Seeded numbers.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Four numbers of 16 bits.
    fn quarters(&mut self) -> [u16; 4] {
        let [a, b, c, d, e, f, g, h] = self.roll().to_le_bytes();
        [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes)
    }
}

/// Bytes without a pattern.
pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut out: Vec<u8> = (0..len.div_ceil(8))
        .flat_map(|_| dice.roll().to_le_bytes())
        .collect();
    out.truncate(len);
    out
}

/// Rows of a dump: running numbers, and words of which some are frequent and most are rare.
pub(super) fn text(len: usize, seed: u64) -> Vec<u8> {
    const WORDS_IN_ROW: u32 = 12;
    let mut dice = Dice::new(seed);
    let mut out = Vec::with_capacity(len + 256);
    let mut row = 0_u32;
    while out.len() < len {
        row += 1;
        out.extend_from_slice(format!("({row},'").as_bytes());
        for _ in 0..WORDS_IN_ROW {
            let rarity = dice.roll() % 13;
            word(dice.roll() % (1 << rarity), &mut out);
            out.push(b' ');
        }
        out.extend_from_slice(b"'),\n");
    }
    out.truncate(len);
    out
}

/// The n-th word of a made-up language: two to nine letters.
fn word(number: u64, out: &mut Vec<u8>) {
    let letters = Dice::new(number).roll().to_le_bytes();
    let [first, rest @ ..] = letters;
    for letter in [first, first.rotate_left(3)]
        .into_iter()
        .chain(rest.into_iter().take(usize::from(first % 8)))
    {
        out.push(b'a' + letter % 26);
    }
}

/// Little-endian bf16, spread around zero like the weights of a layer.
pub(super) fn weights(len: usize, seed: u64) -> Vec<u8> {
    /// Sums of eight numbers of 16 bits, brought to a standard deviation of 0.02.
    const SCALE: f32 = 0.02 / 53_509.0;
    const MIDDLE: f32 = 8.0 * 32_767.5;
    let mut dice = Dice::new(seed);
    let mut out = Vec::with_capacity(len + 2);
    while out.len() < len {
        let parts = [dice.quarters(), dice.quarters()];
        let sum: f32 = parts.into_iter().flatten().map(f32::from).sum();
        let [_, _, low, high] = ((sum - MIDDLE) * SCALE).to_bits().to_le_bytes();
        out.extend_from_slice(&[low, high]);
    }
    out.truncate(len);
    out
}

/// The same with a row put in here and there: a hundredth is new.
pub(super) fn edit(rows: &[u8], seed: u64) -> Vec<u8> {
    const EVERY: usize = 20_000;
    let mut out = Vec::with_capacity(rows.len() + rows.len() / 90);
    for (part, number) in rows.chunks(EVERY).zip(seed << 32..) {
        out.extend_from_slice(part);
        out.extend(text(EVERY / 100, number));
    }
    out.truncate(rows.len());
    out
}

/// The same after some more training: a third of the values is one step further.
pub(super) fn train(weights: &[u8], seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let step = |value: &[u8; 2]| {
        let up = u16::from(dice.roll().is_multiple_of(3));
        u16::from_le_bytes(*value).wrapping_add(up).to_le_bytes()
    };
    weights.as_chunks().0.iter().flat_map(step).collect()
}

#[cfg(test)]
mod tests {
    use strongroom_repo::codec::{Codec, Encoder, FloatKind, Hint, Level};

    use super::*;

    #[test]
    fn samples_compress_as_what_they_stand_for() {
        let bf16 = Hint::Float {
            dtype: FloatKind::Bf16,
            phase: 0,
        };
        let cases = [
            (noise(BLOB, 1), Hint::Plain, Codec::Stored, 100..=100),
            (text(BLOB, 1), Hint::Plain, Codec::Zstd, 15..=50),
            (weights(BLOB, 1), bf16, Codec::Planes16, 60..=75),
        ];
        let mut encoder = Encoder::new(Level::Auto).unwrap();
        let mut out = Vec::new();
        for (plain, hint, codec, percent) in cases {
            assert_eq!(plain.len(), BLOB);
            assert_eq!(encoder.encode(hint, &plain, &mut out).unwrap(), codec);
            let found = out.len() * 100 / plain.len();
            assert!(percent.contains(&found), "{codec:?}: {found} %");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_content_and_another_seed_another() {
        for make in [noise, text, weights] {
            assert_eq!(make(999, 5), make(999, 5));
            assert_ne!(make(999, 5), make(999, 6));
            assert_eq!(make(999, 5).len(), 999);
        }
    }
}
