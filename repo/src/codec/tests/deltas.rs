//! What deltas promise: round trips against any base, sizes, and calm in the face of damage.

use super::*;

/// Weights as bf16, and the same after a step of training that touched each by about a thousandth
/// of itself: both rounded from what the training keeps in more bits.
fn trained_bf16(seed: u64, len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random(seed);
    let rounded = |value: f32| {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
        u16::try_from(rounded).unwrap().to_le_bytes()
    };
    let pairs = (0..len / 2).map(|_| {
        let before = random.normal();
        let after = before * (1.0 + random.normal() / 20.0);
        (rounded(before), rounded(after))
    });
    let (before, after): (Vec<_>, Vec<_>) = pairs.unzip();
    (before.concat(), after.concat())
}

fn encode_delta(hint: Hint, plain: &[u8], base: &[u8], limit: usize) -> Option<(Codec, Vec<u8>)> {
    let mut encoded = vec![0xEE; 33];
    let codec = Encoder::new(Level::Auto)
        .unwrap()
        .encode_delta(hint, plain, base, limit, &mut encoded)
        .unwrap()?;
    assert!(encoded.len() <= limit);
    assert!(encoded.capacity() - encoded.len() >= SEAL_ROOM);
    let back = decode_delta(codec, &encoded, base, plain.len()).unwrap();
    assert!(back == plain, "{codec:?} {hint:?} {}", plain.len());
    Some((codec, encoded))
}

fn decode_delta(
    codec: Codec,
    encoded: &[u8],
    base: &[u8],
    plain_len: usize,
) -> Result<Vec<u8>, CodecError> {
    let mut out = vec![0xEE; 77];
    let mut decoder = Decoder::new().unwrap();
    let result = decoder.decode(codec, encoded, Some(base), plain_len, &mut out);
    assert!(result.is_ok() || out.is_empty());
    result.map(|()| out)
}

/// One delta by each codec, with the base.
fn one_of_each() -> Vec<(Codec, Vec<u8>, Vec<u8>, usize)> {
    let mut all = Vec::new();
    for (hint, codec) in [
        (float(FloatKind::Bf16, 1), Codec::Delta16),
        (float(FloatKind::F32, 3), Codec::Delta32),
        (Hint::Plain, Codec::DeltaBytes),
    ] {
        let base = content(1, 8, 4001);
        let mut plain = base.clone();
        for at in (0..plain.len()).step_by(37) {
            plain[at] ^= 1;
        }
        let (found, encoded) = encode_delta(hint, &plain, &base, usize::MAX).unwrap();
        assert_eq!(found, codec);
        all.push((codec, encoded, base, plain.len()));
    }
    all
}

proptest! {
    #[test]
    fn a_delta_against_whatever_base_comes_back(
        style in 0_u8..7,
        base_style in 0_u8..7,
        seed: u64,
        len in 0_usize..4100,
        base_len in 0_usize..4100,
        is_related: bool,
        hint in prop::sample::select(all_hints().collect::<Vec<_>>()),
    ) {
        let plain = content(style, seed, len);
        let unrelated = content(base_style, !seed, base_len);
        let mut base = if is_related { plain.clone() } else { unrelated };
        base.resize(base_len, 7);
        encode_delta(hint, &plain, &base, usize::MAX).unwrap();
    }

    #[test]
    fn arbitrary_deltas_are_decoded_to_the_right_length_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        base in prop::collection::vec(any::<u8>(), 0..300),
        plain_len in 0_usize..1000,
    ) {
        for codec in Codec::ALL.into_iter().filter(|codec| codec.has_base()) {
            if let Ok(out) = decode_delta(codec, &bytes, &base, plain_len) {
                prop_assert_eq!(out.len(), plain_len);
            }
        }
        fuzz_delta(&bytes);
        fuzz_delta_round_trip(&bytes);
    }

    #[test]
    fn a_flipped_bit_of_delta_or_base_is_refused_or_gives_the_right_length(seed: u64) {
        let mut random = Random(seed);
        for (codec, mut encoded, mut base, plain_len) in one_of_each() {
            for _ in 0..20 {
                let bytes = if random.below(2) == 0 { &mut encoded } else { &mut base };
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
                if let Ok(out) = decode_delta(codec, &encoded, &base, plain_len) {
                    prop_assert_eq!(out.len(), plain_len);
                }
            }
        }
    }
}

#[test]
fn every_pair_of_special_floats_comes_back() {
    // Zeros, denormals, ones, infinities and NaNs with payloads, of both signs.
    let halves = [
        0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x3F80, 0xBF80, 0x7F7F, 0x7F80, 0xFF80,
        0x7F81, 0x7FC0, 0xFFFF, 0x7FFF, 0x7C00, 0x7C01,
    ];
    let pairs = || {
        halves
            .iter()
            .flat_map(|a| halves.iter().map(move |b| (*a, *b)))
    };
    let plain: Vec<u8> = pairs().flat_map(|(a, _)| u16::to_le_bytes(a)).collect();
    let base: Vec<u8> = pairs().flat_map(|(_, b)| u16::to_le_bytes(b)).collect();
    for kind in KINDS {
        for phase in 0..u8::try_from(kind.width()).unwrap() {
            encode_delta(float(kind, phase), &plain, &base, usize::MAX).unwrap();
        }
    }
}

#[test]
fn all_bf16_values_touched_by_a_thousandth_take_less_than_an_eighth() {
    let (base, plain) = trained_bf16(31, MIB);
    let changed = plain.as_chunks::<2>().0.iter().zip(base.as_chunks::<2>().0);
    let changed = changed.filter(|(a, b)| a != b).count();
    assert!(
        changed * 100 > MIB / 2 * 10,
        "{changed} of {} differ",
        MIB / 2
    );
    let (codec, encoded) =
        encode_delta(float(FloatKind::Bf16, 0), &plain, &base, usize::MAX).unwrap();
    assert_eq!(codec, Codec::Delta16);
    let ratio = ratio_per_mille(&encoded, &plain);
    assert!(ratio <= 120, "{ratio} per mille");
}

#[test]
fn two_mebibytes_with_one_changed_block_take_at_most_two_blocks() {
    for style in [0, 3] {
        let base = content(style, 33, 2 * MIB);
        for at in [0, MIB + 4096, 2 * MIB - 4096] {
            let mut plain = base.clone();
            plain[at..at + 4096].copy_from_slice(&Random(34).bytes(4096));
            let (codec, encoded) = encode_delta(Hint::Plain, &plain, &base, usize::MAX).unwrap();
            assert_eq!(codec, Codec::DeltaBytes);
            assert!(encoded.len() <= 8192, "{} bytes at {at}", encoded.len());
        }
    }
}

#[test]
fn inserted_bytes_cost_about_themselves() {
    let base = text(35, MIB);
    let mut plain = base.clone();
    plain.splice(300_001..300_001, Random(36).bytes(1001));
    let (_, encoded) = encode_delta(Hint::Plain, &plain, &base, usize::MAX).unwrap();
    assert!(encoded.len() <= 1500, "{} bytes", encoded.len());
}

#[test]
fn a_base_of_the_largest_length_is_in_reach_from_everywhere() {
    let mut base = Random(37).bytes(MAX_PLAIN_LEN);
    let plain = base.clone();
    base.rotate_right(4096);
    let (_, encoded) = encode_delta(Hint::Plain, &plain, &base, usize::MAX).unwrap();
    assert!(encoded.len() <= 64 << 10, "{} bytes", encoded.len());
}

#[test]
fn a_delta_longer_than_its_limit_is_none() {
    let (plain, base) = (content(0, 1, 9000), content(0, 2, 9000));
    for hint in all_hints() {
        assert_eq!(encode_delta(hint, &plain, &base, 8000), None);
    }
    let mut out = Vec::new();
    let mut off = Encoder::new(Level::Off).unwrap();
    let found = off.encode_delta(Hint::Plain, &base, &base, usize::MAX, &mut out);
    assert_eq!(found, Ok(None));
}

#[test]
fn a_delta_without_a_base_and_a_base_without_a_delta_are_refused() {
    let mut decoder = Decoder::new().unwrap();
    for codec in Codec::ALL {
        let needs_base = codec.has_base();
        let base = (!needs_base).then_some(&[1, 2, 3][..]);
        let found = decoder.decode(codec, &[0; 30], base, 30, &mut Vec::new());
        assert_eq!(found, Err(CodecError::Base { codec, needs_base }));
    }
}

#[test]
fn every_shorter_and_every_longer_delta_is_refused() {
    for (codec, encoded, base, plain_len) in one_of_each() {
        for len in 0..encoded.len() {
            decode_delta(codec, &encoded[..len], &base, plain_len).unwrap_err();
        }
        for extra in [1, 4, 100] {
            let mut longer = encoded.clone();
            longer.resize(encoded.len() + extra, 0);
            decode_delta(codec, &longer, &base, plain_len).unwrap_err();
        }
        for wrong in [
            0,
            1,
            plain_len - 1,
            plain_len + 1,
            2 * plain_len,
            MAX_PLAIN_LEN,
        ] {
            decode_delta(codec, &encoded, &base, wrong).unwrap_err();
        }
    }
}

#[test]
fn all_kernels_write_and_read_the_same_deltas() {
    for kind in KINDS {
        let base = Random(14).weights(kind, 100_001);
        let mut plain = base.clone();
        plain.iter_mut().step_by(5).for_each(|byte| *byte ^= 3);
        let (codec, expected) = encode_delta(float(kind, 1), &plain, &base, usize::MAX).unwrap();
        for kernels in Kernels::all() {
            let mut out = Vec::new();
            let mut encoder = Encoder::with_kernels(Level::Auto, kernels).unwrap();
            encoder
                .encode_delta(float(kind, 1), &plain, &base, usize::MAX, &mut out)
                .unwrap();
            assert!(out == expected, "{}", kernels.name);
            let mut decoder = Decoder::with_kernels(kernels).unwrap();
            decoder
                .decode(codec, &expected, Some(&base), plain.len(), &mut out)
                .unwrap();
            assert!(out == plain, "{}", kernels.name);
        }
    }
}

/// 1.0, then -1.0078125 against -1.0, as bf16 after half an element: steps of nothing and of one.
#[test]
fn deltas_of_floats_have_the_documented_layout() {
    let base = [0xAA, 0x80, 0x3F, 0x80, 0xBF, 0x55];
    let plain = [0xAB, 0x80, 0x3F, 0x81, 0xBF, 0x56];
    let encoded = [
        1, 0, // phase, flags
        2, 0, 0, 0, 2, 0, 0, 0, // lengths
        0xAB, 0x56, // head, tail
        0x00, 0x01, // lower bytes of the zig-zags 0 and 1
        0x00, 0x00,
    ];
    let found = encode_delta(float(FloatKind::Bf16, 1), &plain, &base, usize::MAX);
    assert_eq!(found, Some((Codec::Delta16, encoded.to_vec())));
}
