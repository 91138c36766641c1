//! Codec speed per core, in plain bytes, on one blob of seeded synthetic data at a time.
//!
//! Run with `cargo bench -p strongroom-benches --bench codecs`. Sizes are asserted by tests, not
//! here.

use divan::{Bencher, counter::BytesCount};
use strongroom_repo::codec::{Codec, Decoder, Encoder, FloatKind, Hint, Level, kernel_name};

const BLOB: usize = 1 << 20;

#[expect(
    clippy::print_stderr,
    reason = "which loops were measured stands above their figures"
)]
fn main() {
    eprintln!("float planes are split with {}", kernel_name());
    divan::main();
}

/// A kind of content and the level it is encoded at.
#[derive(Clone, Copy, Debug)]
enum Content {
    Bf16,
    Bf16Unhinted,
    F16,
    F32,
    Noise,
    Zeros,
    Text,
    TextFastest,
    TextBetter,
}

const ALL: [Content; 9] = [
    Content::Bf16,
    Content::Bf16Unhinted,
    Content::F16,
    Content::F32,
    Content::Noise,
    Content::Zeros,
    Content::Text,
    Content::TextFastest,
    Content::TextBetter,
];

impl Content {
    fn hint(self) -> Hint {
        let float = |dtype| Hint::Float { dtype, phase: 0 };
        match self {
            Self::Bf16 => float(FloatKind::Bf16),
            Self::F16 => float(FloatKind::F16),
            Self::F32 => float(FloatKind::F32),
            _ => Hint::Plain,
        }
    }

    fn level(self) -> Level {
        match self {
            Self::TextFastest => Level::Fastest,
            Self::TextBetter => Level::Better,
            _ => Level::Auto,
        }
    }

    fn plain(self) -> Vec<u8> {
        let mut random = Random(7);
        match self {
            Self::Bf16 | Self::Bf16Unhinted => (0..BLOB / 2)
                .flat_map(|_| {
                    (random.normal().to_bits() >> 16)
                        .to_le_bytes()
                        .into_iter()
                        .take(2)
                })
                .collect(),
            // Normal values scaled into the range where fp16 is not subnormal, rounded down.
            Self::F16 => (0..BLOB / 2)
                .flat_map(|_| half(random.normal()).to_le_bytes())
                .collect(),
            Self::F32 => (0..BLOB / 4)
                .flat_map(|_| random.normal().to_le_bytes())
                .collect(),
            Self::Noise => (0..BLOB / 8)
                .flat_map(|_| random.next().to_le_bytes())
                .collect(),
            Self::Zeros => vec![0; BLOB],
            Self::Text | Self::TextFastest | Self::TextBetter => text(&mut random),
        }
    }
}

/// Rows of inserts over a vocabulary in which the n-th word has a weight of about 1/n.
fn text(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::with_capacity(BLOB + 200);
    let mut row = 0_u32;
    while text.len() < BLOB {
        row += 1;
        let mut words = String::new();
        for _ in 0..12 {
            let word = (random.unit() * 4000_f64.ln()).exp();
            words.push_str(&format!("w{:x} ", (word * 2_654_435.0).to_bits() >> 40));
        }
        text.extend_from_slice(format!("INSERT INTO notes VALUES ({row},'{words}');\n").as_bytes());
    }
    text.truncate(BLOB);
    text
}

/// The fp16 below a normal float of moderate size.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = ((bits & 0x7FFF_FFFF) >> 13).saturating_sub(112 << 10);
    u16::try_from(sign | magnitude).unwrap_or_default()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        b ^ (b >> 31)
    }

    fn unit(&mut self) -> f64 {
        f64::from_bits((self.next() >> 12) | 1.0_f64.to_bits()) - 1.0
    }

    /// Normal with a standard deviation of 0.02, as weights are.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding is what is wanted"
    )]
    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (0.02 * radius * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }
}

#[divan::bench(args = ALL)]
fn encode(bencher: Bencher, content: Content) {
    let plain = content.plain();
    let Ok(mut encoder) = Encoder::new(content.level()) else {
        return;
    };
    let mut out = Vec::new();
    bencher
        .counter(BytesCount::of_slice(&plain))
        .bench_local(|| encoder.encode(content.hint(), divan::black_box(&plain), &mut out));
}

#[divan::bench(args = ALL)]
fn decode(bencher: Bencher, content: Content) {
    let plain = content.plain();
    let (mut encoded, mut out) = (Vec::new(), Vec::new());
    let (Ok(mut encoder), Ok(mut decoder)) = (Encoder::new(content.level()), Decoder::new()) else {
        return;
    };
    let codec = encoder
        .encode(content.hint(), &plain, &mut encoded)
        .unwrap_or(Codec::Stored);
    bencher
        .counter(BytesCount::of_slice(&plain))
        .bench_local(|| {
            decoder.decode(
                codec,
                divan::black_box(&encoded),
                None,
                plain.len(),
                &mut out,
            )
        });
}
