//! Fuzz bodies: what must hold for any input, callable from fuzz targets and from tests.

use super::{Codec, Decoder, Encoder, FloatKind, Hint, Level};

/// Fuzz body: the first four bytes are a codec and a plain length of 24 bits, the rest an encoding.
/// Whatever they are, decoding ends without a panic and gives the right length or nothing.
///
/// # Panics
///
/// If it does not.
#[doc(hidden)]
pub fn fuzz_decode(data: &[u8]) {
    let Some(([codec, a, b, c], encoded)) = data.split_first_chunk() else {
        return;
    };
    let (Ok(codec), Ok(mut decoder)) = (Codec::try_from(*codec), Decoder::new()) else {
        return;
    };
    let Ok(plain_len) = usize::try_from(u32::from_le_bytes([*a, *b, *c, 0])) else {
        return;
    };
    let mut out = Vec::new();
    let result = decoder.decode(codec, encoded, None, plain_len, &mut out);
    let expected = if result.is_ok() { plain_len } else { 0 };
    assert_eq!(out.len(), expected, "{codec:?}");
}

/// Fuzz body: the first byte chooses level and hint, the rest is encoded and must come back.
///
/// # Panics
///
/// If it does not.
#[doc(hidden)]
pub fn fuzz_round_trip(data: &[u8]) {
    let Some((&choice, plain)) = data.split_first() else {
        return;
    };
    let levels = [Level::Off, Level::Fastest, Level::Auto, Level::Better];
    let kinds = [FloatKind::Bf16, FloatKind::F16, FloatKind::F32];
    let level = levels.into_iter().cycle().nth(usize::from(choice & 3));
    let dtype = kinds.into_iter().nth(usize::from((choice >> 2) & 3));
    let phase = choice >> 4;
    let hint = dtype.map_or(Hint::Plain, |dtype| Hint::Float { dtype, phase });
    let (Ok(mut encoder), Ok(mut decoder)) =
        (Encoder::new(level.unwrap_or_default()), Decoder::new())
    else {
        return;
    };
    let (mut encoded, mut back) = (Vec::new(), Vec::new());
    let Ok(codec) = encoder.encode(hint, plain, &mut encoded) else {
        assert!(dtype.is_some_and(|dtype| usize::from(phase) >= dtype.width()));
        return;
    };
    assert!(encoded.len() <= plain.len());
    let result = decoder.decode(codec, &encoded, None, plain.len(), &mut back);
    assert_eq!((result, &back[..]), (Ok(()), plain), "{codec:?}");
}

/// Fuzz body: a codec, a plain length of 24 bits and the length of the base that follows, of 16;
/// the rest is a delta. Whatever they are, decoding ends without a panic and gives the right length
/// or nothing.
///
/// # Panics
///
/// If it does not.
#[doc(hidden)]
pub fn fuzz_delta(data: &[u8]) {
    let Some(([codec, a, b, c, low, high], rest)) = data.split_first_chunk() else {
        return;
    };
    let codecs = [Codec::Delta16, Codec::Delta32, Codec::DeltaBytes];
    let codec = codecs.into_iter().cycle().nth(usize::from(*codec));
    let (Some(codec), Ok(mut decoder)) = (codec, Decoder::new()) else {
        return;
    };
    let Ok(plain_len) = usize::try_from(u32::from_le_bytes([*a, *b, *c, 0])) else {
        return;
    };
    let base_len = usize::from(u16::from_le_bytes([*low, *high]));
    let (base, encoded) = rest.split_at(base_len.min(rest.len()));
    let mut out = Vec::new();
    let result = decoder.decode(codec, encoded, Some(base), plain_len, &mut out);
    let expected = if result.is_ok() { plain_len } else { 0 };
    assert_eq!(out.len(), expected, "{codec:?}");
}

/// Fuzz body: the first byte chooses the hint, the next two where the base ends and the plain bytes
/// begin; what is encoded must come back.
///
/// # Panics
///
/// If it does not.
#[doc(hidden)]
pub fn fuzz_delta_round_trip(data: &[u8]) {
    let Some(([choice, low, high], rest)) = data.split_first_chunk() else {
        return;
    };
    let (base, plain) =
        rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    let kinds = [FloatKind::Bf16, FloatKind::F16, FloatKind::F32];
    let phase = choice >> 4;
    let hint = match kinds.into_iter().nth(usize::from(choice & 3)) {
        Some(dtype) if usize::from(phase) < dtype.width() => Hint::Float { dtype, phase },
        _ => Hint::Plain,
    };
    let (Ok(mut encoder), Ok(mut decoder)) = (Encoder::new(Level::Auto), Decoder::new()) else {
        return;
    };
    let (mut encoded, mut back) = (Vec::new(), Vec::new());
    let codec = encoder.encode_delta(hint, plain, base, usize::MAX, &mut encoded);
    assert!(matches!(codec, Ok(Some(_))), "{hint:?}: {codec:?}");
    let Ok(Some(codec)) = codec else {
        return;
    };
    let result = decoder.decode(codec, &encoded, Some(base), plain.len(), &mut back);
    assert_eq!((result, &back[..]), (Ok(()), plain), "{codec:?}");
}
