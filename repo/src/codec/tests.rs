//! What the codecs promise together: round trips, sizes, and calm in the face of damage.

mod deltas;

use proptest::prelude::*;

use super::*;

const KINDS: [FloatKind; 3] = [FloatKind::Bf16, FloatKind::F16, FloatKind::F32];
const MIB: usize = 1 << 20;

/// A seeded generator (splitmix64), so that sizes can be asserted.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        b ^ (b >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap() % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(len).collect()
    }

    /// Normal with a standard deviation of 0.02, as weights are, by summing twelve uniform values
    /// twice: enough of the bell for its entropy.
    fn normal(&mut self) -> f32 {
        let unit =
            |word: u64| f32::from_bits(u32::try_from(word >> 41).unwrap() | 0x3F80_0000) - 1.5;
        let sum: f32 = (0..24).map(|_| unit(self.next())).sum();
        sum * 0.02 / 2_f32.sqrt()
    }

    fn weights(&mut self, kind: FloatKind, len: usize) -> Vec<u8> {
        let elements = std::iter::repeat_with(|| match kind {
            FloatKind::F32 => self.normal().to_le_bytes().to_vec(),
            FloatKind::Bf16 => self.normal().to_le_bytes()[2..].to_vec(),
            FloatKind::F16 => half(self.normal()).to_le_bytes().to_vec(),
        });
        elements.flatten().take(len).collect()
    }
}

/// The fp16 below a normal float of moderate size.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = ((bits & 0x7FFF_FFFF) >> 13).saturating_sub(112 << 10);
    u16::try_from(((bits >> 16) & 0x8000) | magnitude).unwrap()
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    let words = [
        "pack", "index", "tree", "snapshot", "slot", "chunk", "extent", "blob",
    ];
    let mut text = String::new();
    while text.len() < len {
        let number = random.below(100_000);
        text += &format!(
            "{} {number} {}\n",
            words[random.below(8)],
            words[random.below(8)]
        );
    }
    text.truncate(len);
    text.into_bytes()
}

fn float(dtype: FloatKind, phase: u8) -> Hint {
    Hint::Float { dtype, phase }
}

fn all_hints() -> impl Iterator<Item = Hint> {
    let phases = |kind: FloatKind| 0..u8::try_from(kind.width()).unwrap();
    let floats = KINDS
        .into_iter()
        .flat_map(move |kind| phases(kind).map(move |p| float(kind, p)));
    floats.chain([Hint::Plain])
}

/// Encodes, checks what every encoding must satisfy, and returns codec and encoding.
fn encode(level: Level, hint: Hint, plain: &[u8]) -> (Codec, Vec<u8>) {
    let mut encoded = Vec::new();
    let codec = Encoder::new(level)
        .unwrap()
        .encode(hint, plain, &mut encoded)
        .unwrap();
    assert!(encoded.capacity() - encoded.len() >= SEAL_ROOM);
    match codec {
        Codec::Stored => assert_eq!(encoded, plain),
        _ => assert!(encoded.len() < plain.len()),
    }
    let mut back = vec![0xEE; 77];
    Decoder::new()
        .unwrap()
        .decode(codec, &encoded, None, plain.len(), &mut back)
        .unwrap();
    assert!(
        back == plain,
        "{codec:?} {hint:?} {level:?} {}",
        plain.len()
    );
    (codec, encoded)
}

fn decode(codec: Codec, encoded: &[u8], plain_len: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![0xEE; 77];
    let result = Decoder::new()
        .unwrap()
        .decode(codec, encoded, None, plain_len, &mut out);
    assert!(result.is_ok() || out.is_empty());
    result.map(|()| out)
}

fn ratio_per_mille(encoded: &[u8], plain: &[u8]) -> usize {
    encoded.len() * 1000 / plain.len()
}

/// One encoding by each codec, of a few thousand bytes.
fn one_of_each() -> Vec<(Codec, Vec<u8>, usize)> {
    let mut random = Random(5);
    let mut all = Vec::new();
    let plain = random.bytes(3000);
    all.push((encode(Level::Auto, Hint::Plain, &plain), plain.len()));
    let plain = text(5, 3000);
    all.push((encode(Level::Auto, Hint::Plain, &plain), plain.len()));
    for (kind, phase) in KINDS.into_iter().zip([1, 1, 3]) {
        let mut plain = random.bytes(kind.width() - usize::from(phase));
        plain.extend(random.weights(kind, 8000 + 1));
        all.push((encode(Level::Auto, float(kind, phase), &plain), plain.len()));
    }
    let all: Vec<_> = all
        .into_iter()
        .map(|((codec, bytes), len)| (codec, bytes, len))
        .collect();
    assert!(
        Codec::ALL
            .iter()
            .filter(|codec| !codec.has_base())
            .all(|codec| all.iter().any(|(found, ..)| found == codec))
    );
    all
}

/// Content of several kinds, so that all branches of the encoder are taken.
fn content(style: u8, seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    match style {
        0 => random.bytes(len),
        1 => random.weights(FloatKind::Bf16, len),
        2 => random.weights(FloatKind::F32, len),
        3 => text(seed, len),
        4 => vec![u8::from(seed & 1 == 1); len],
        5 => random.bytes(40).into_iter().cycle().take(len).collect(),
        // Mostly zero.
        _ => random
            .weights(FloatKind::F32, len)
            .chunks(4)
            .flat_map(|element| {
                let keep = element[0] < 40;
                element.iter().map(move |byte| if keep { *byte } else { 0 })
            })
            .collect(),
    }
}

proptest! {
    #[test]
    fn whatever_is_encoded_comes_back(
        style in 0_u8..7,
        seed: u64,
        len in 0_usize..4100,
        hint in prop::sample::select(all_hints().collect::<Vec<_>>()),
        level in prop::sample::select(vec![Level::Off, Level::Fastest, Level::Auto, Level::Better]),
    ) {
        let plain = content(style, seed, len);
        let (codec, _) = encode(level, hint, &plain);
        prop_assert!(level != Level::Off || codec == Codec::Stored);
    }

    #[test]
    fn arbitrary_bytes_are_decoded_to_the_right_length_or_refused(
        codec in prop::sample::select(Codec::ALL.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        plain_len in 0_usize..1000,
    ) {
        if let Ok(out) = decode(codec, &bytes, plain_len) {
            prop_assert_eq!(out.len(), plain_len);
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_or_gives_the_right_length(seed: u64) {
        let mut random = Random(seed);
        for (codec, mut encoded, plain_len) in one_of_each() {
            for _ in 0..20 {
                let at = random.below(encoded.len());
                let bit = 1 << random.below(8);
                encoded[at] ^= bit;
                if let Ok(out) = decode(codec, &encoded, plain_len) {
                    prop_assert_eq!(out.len(), plain_len);
                }
                encoded[at] ^= bit;
            }
        }
    }

    #[test]
    fn the_fuzz_bodies_hold_for_random_input(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_decode(&bytes);
        fuzz_round_trip(&bytes);
    }
}

#[test]
fn megabytes_come_back_whatever_the_hint() {
    for hint in all_hints() {
        for style in 0..7 {
            encode(Level::Auto, hint, &content(style, 11, 2 * MIB + 3));
        }
    }
}

#[test]
fn the_longest_blob_comes_back_and_a_longer_one_is_refused() {
    let mut plain = text(3, MAX_PLAIN_LEN);
    for level in [Level::Off, Level::Fastest] {
        encode(level, Hint::Plain, &plain);
        encode(level, float(FloatKind::F32, 0), &plain);
    }
    plain.push(0);
    let too_long = CodecError::TooLong { len: plain.len() };
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Level::Off).unwrap();
    assert_eq!(
        encoder.encode(Hint::Plain, &plain, &mut out),
        Err(too_long.clone())
    );
    for codec in Codec::ALL {
        assert_eq!(decode(codec, &plain, plain.len()), Err(too_long.clone()));
    }
}

#[test]
fn every_bit_pattern_of_a_float_comes_back() {
    let all16: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    encode(Level::Auto, float(FloatKind::Bf16, 0), &all16);
    encode(Level::Auto, float(FloatKind::F16, 1), &all16);
    // Quiet and signalling NaNs with payloads, infinities, zeros of both signs, denormals.
    let odd = [
        0x7FC0_0001_u32,
        0xFFC1_2345,
        0x7F80_0001,
        0xFFBF_FFFF,
        0x7F80_0000,
        0xFF80_0000,
        0,
        0x8000_0000,
        1,
        0x8000_0001,
        0x007F_FFFF,
    ];
    let odd: Vec<u8> = odd
        .into_iter()
        .cycle()
        .take(5000)
        .flat_map(u32::to_le_bytes)
        .collect();
    let mut mixed = Random(2).weights(FloatKind::F32, MIB);
    mixed[4000..4000 + odd.len()].copy_from_slice(&odd);
    for plain in [odd, mixed] {
        encode(Level::Auto, float(FloatKind::F32, 0), &plain);
    }
}

#[test]
fn bf16_weights_shrink_to_two_thirds() {
    let plain = Random(1).weights(FloatKind::Bf16, 4 * MIB);
    for piece in [MIB, 4 * MIB] {
        for blob in plain.chunks(piece) {
            let (codec, encoded) = encode(Level::Auto, float(FloatKind::Bf16, 0), blob);
            assert_eq!(codec, Codec::Planes16);
            assert!(ratio_per_mille(&encoded, blob) <= 667, "{}", encoded.len());
        }
    }
}

#[test]
fn fp32_and_fp16_weights_shrink_to_five_sixths() {
    for (kind, codec) in [
        (FloatKind::F32, Codec::Planes32),
        (FloatKind::F16, Codec::PlanesF16),
    ] {
        let plain = Random(1).weights(kind, 2 * MIB);
        let (found, encoded) = encode(Level::Auto, float(kind, 0), &plain);
        assert_eq!(found, codec);
        let limit = if kind == FloatKind::F32 { 837 } else { 850 };
        assert!(
            ratio_per_mille(&encoded, &plain) <= limit,
            "{kind:?} {}",
            encoded.len()
        );
    }
}

#[test]
fn a_cut_within_an_element_costs_next_to_nothing() {
    for kind in KINDS {
        let plain = Random(4).weights(kind, MIB);
        let (_, whole) = encode(Level::Auto, float(kind, 0), &plain);
        for phase in 1..kind.width() {
            let hint = float(kind, u8::try_from(phase).unwrap());
            let (_, cut) = encode(Level::Auto, hint, &plain[phase..]);
            assert!(cut.len() <= whole.len() + 200, "{kind:?} {phase}");
        }
    }
}

#[test]
fn weights_are_found_without_a_hint_at_any_phase() {
    for kind in [FloatKind::Bf16, FloatKind::F32] {
        let plain = Random(6).weights(kind, MIB + 8);
        for phase in 0..kind.width() {
            let blob = &plain[phase..];
            let hint = float(kind, u8::try_from(phase).unwrap());
            let (codec, guessed) = encode(Level::Auto, Hint::Plain, blob);
            assert_eq!(codec, kind.codec(), "phase {phase}");
            assert_eq!(guessed, encode(Level::Auto, hint, blob).1, "phase {phase}");
        }
    }
}

#[test]
fn counters_that_look_like_floats_take_the_smaller_codec() {
    // Every number from one on, as 32-bit integers, and slow 16-bit waves.
    let counters: Vec<u8> = (1..=250_000_u32)
        .flat_map(|n| (n * 97).to_le_bytes())
        .collect();
    let waves: Vec<u8> = (0..500_000_u32)
        .flat_map(|n| {
            (n % 1000 * 7)
                .abs_diff(3500)
                .to_le_bytes()
                .into_iter()
                .take(2)
        })
        .collect();
    for plain in [counters, waves] {
        let (_, encoded) = encode(Level::Auto, Hint::Plain, &plain);
        let mut frame = Vec::new();
        Compressor::at_level(3)
            .unwrap()
            .compress(&plain, 0, &mut frame)
            .unwrap();
        assert!(
            encoded.len() <= frame.len(),
            "{} {}",
            encoded.len(),
            frame.len()
        );
    }
}

#[test]
fn text_and_noise_are_not_taken_for_weights() {
    assert_eq!(
        encode(Level::Auto, Hint::Plain, &text(1, MIB)).0,
        Codec::Zstd
    );
    assert_eq!(
        encode(Level::Auto, Hint::Plain, &Random(1).bytes(MIB)).0,
        Codec::Stored
    );
    assert_eq!(
        encode(Level::Auto, float(FloatKind::F32, 0), &text(1, MIB)).0,
        Codec::Zstd
    );
    assert_eq!(
        encode(Level::Auto, float(FloatKind::F32, 0), &Random(1).bytes(MIB)).0,
        Codec::Stored
    );
}

#[test]
fn weights_that_repeat_are_no_larger_than_a_plain_frame() {
    for kind in KINDS {
        let row = Random(8).weights(kind, 4096);
        let rows: Vec<u8> = row.iter().copied().cycle().take(MIB).collect();
        // Every second row anew, so that no more than half can be saved by matches.
        let mut mixed = Random(9).weights(kind, MIB);
        mixed
            .chunks_mut(2 * row.len())
            .for_each(|pair| pair[..row.len()].copy_from_slice(&row));
        for plain in [vec![0; MIB], vec![0x3F; MIB], rows, mixed] {
            let (_, planes) = encode(Level::Auto, float(kind, 0), &plain);
            let (_, frame) = encode(Level::Auto, Hint::Plain, &plain);
            let mut raw_frame = Vec::new();
            let mut general = Compressor::at_level(3).unwrap();
            general.compress(&plain, 0, &mut raw_frame).unwrap();
            assert!(planes.len() <= raw_frame.len(), "{kind:?} {}", planes.len());
            assert!(frame.len() <= raw_frame.len(), "{kind:?} {}", frame.len());
        }
    }
}

#[test]
fn sparse_weights_shrink_to_little_more_than_what_is_not_zero() {
    let plain = content(6, 21, MIB);
    let zeros = plain.chunks(4).filter(|element| *element == [0; 4]).count() * 4;
    assert!(zeros > plain.len() * 4 / 5);
    let (_, encoded) = encode(Level::Auto, float(FloatKind::F32, 0), &plain);
    assert!(
        encoded.len() < (plain.len() - zeros) * 4 / 3,
        "{}",
        encoded.len()
    );
}

#[test]
fn low_planes_without_content_cost_nothing() {
    // bf16 values kept as fp32.
    let plain: Vec<u8> = Random(12)
        .weights(FloatKind::Bf16, MIB / 2)
        .chunks(2)
        .flat_map(|element| [0, 0, element[0], element[1]])
        .collect();
    let (codec, encoded) = encode(Level::Auto, float(FloatKind::F32, 0), &plain);
    assert_eq!(codec, Codec::Planes32);
    // A third of a half, and one plane that holds nothing but signs.
    assert!(
        ratio_per_mille(&encoded, &plain) <= 370,
        "{}",
        encoded.len()
    );
}

#[test]
fn a_higher_level_is_never_larger_on_text() {
    let plain = text(9, MIB);
    let sizes = [
        Level::Off,
        Level::Fastest,
        Level::Auto,
        Level::Better,
        Level::Max,
    ]
    .map(|level| encode(level, Hint::Plain, &plain).1.len());
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
}

#[test]
fn an_encoder_writes_the_same_whatever_it_wrote_before() {
    let mut encoder = Encoder::new(Level::Auto).unwrap();
    let mut out = Vec::new();
    for (style, hint) in (0..7).flat_map(|style| all_hints().map(move |hint| (style, hint))) {
        let plain = content(style, 13, 40_000 + 1);
        let codec = encoder.encode(hint, &plain, &mut out).unwrap();
        let (expected_codec, expected) = encode(Level::Auto, hint, &plain);
        assert_eq!(codec, expected_codec);
        assert!(out == expected, "{hint:?} {style}");
    }
}

#[test]
fn all_kernels_write_and_read_the_same() {
    for kind in KINDS {
        let plain = Random(14).weights(kind, 100_001);
        let (codec, expected) = encode(Level::Auto, float(kind, 1), &plain);
        for kernels in Kernels::all() {
            let mut out = Vec::new();
            let mut encoder = Encoder::with_kernels(Level::Auto, kernels).unwrap();
            encoder.encode(float(kind, 1), &plain, &mut out).unwrap();
            assert!(out == expected, "{}", kernels.name);
            let mut decoder = Decoder::with_kernels(kernels).unwrap();
            decoder
                .decode(codec, &expected, None, plain.len(), &mut out)
                .unwrap();
            assert!(out == plain, "{}", kernels.name);
        }
    }
}

#[test]
fn sealing_room_is_there_without_a_move_of_the_buffer() {
    let mut encoder = Encoder::new(Level::Auto).unwrap();
    let mut out = Vec::new();
    for style in 0..7 {
        for hint in all_hints() {
            for len in [0, 1, 600, 70_000] {
                encoder
                    .encode(hint, &content(style, 15, len), &mut out)
                    .unwrap();
                assert!(out.capacity() - out.len() >= SEAL_ROOM);
            }
        }
    }
}

#[test]
fn every_shorter_and_every_longer_encoding_is_refused() {
    for (codec, encoded, plain_len) in one_of_each() {
        for len in 0..encoded.len() {
            decode(codec, &encoded[..len], plain_len).unwrap_err();
        }
        for extra in [1, 4, 100] {
            let mut longer = encoded.clone();
            longer.resize(encoded.len() + extra, 0);
            decode(codec, &longer, plain_len).unwrap_err();
        }
        let doubled = [&encoded[..], &encoded].concat();
        decode(codec, &doubled, plain_len).unwrap_err();
    }
}

#[test]
fn another_plain_length_is_refused() {
    for (codec, encoded, plain_len) in one_of_each() {
        for wrong in [
            0,
            1,
            plain_len - 1,
            plain_len + 1,
            2 * plain_len,
            MAX_PLAIN_LEN,
        ] {
            decode(codec, &encoded, wrong).unwrap_err();
        }
    }
}

#[test]
fn a_phase_outside_the_element_is_an_error_and_not_a_guess() {
    let mut out = Vec::new();
    for level in [Level::Off, Level::Auto] {
        let mut encoder = Encoder::new(level).unwrap();
        let found = encoder.encode(float(FloatKind::Bf16, 2), &[0; 5000], &mut out);
        assert_eq!(found, Err(CodecError::BadPhase { phase: 2, width: 2 }));
    }
}

#[test]
fn codec_bytes_are_fixed_and_all_others_unknown() {
    for byte in 0..=u8::MAX {
        let expected = match byte {
            1 => Ok(Codec::Stored),
            2 => Ok(Codec::Zstd),
            3 => Ok(Codec::Planes16),
            4 => Ok(Codec::Planes32),
            5 => Ok(Codec::PlanesF16),
            6 => Ok(Codec::Delta16),
            7 => Ok(Codec::Delta32),
            8 => Ok(Codec::DeltaBytes),
            _ => Err(CodecError::UnknownCodec { byte }),
        };
        assert_eq!(Codec::try_from(byte), expected);
    }
}
