//! Deltas: blobs as what differs from another blob, their base. Floats by the distance of each
//! from the float at the same place of the base (`planes` has the layout); anything else as a zstd
//! frame whose matches may begin in the base.
//!
//! Here: which of the two, and whether it is worth it. Not here: which blob is a base, and that a
//! base is never a delta itself (docs/invariants.md, I16).
//!
//! Must stay true: a delta decodes with exactly the bytes it was encoded against, or gives an
//! error or other bytes, which their id gives away; the base's length need not be the blob's.

use super::{
    Codec, CodecError, Decoder, Encoder, FloatKind, Hint, MAX_PLAIN_LEN, SEAL_ROOM,
    planes::Against,
    zstd::{compress_from, decompress_from},
};

/// zstd level of frames with a base: what is new in them is little.
const LEVEL: i32 = 3;

/// Shorter blobs are not worth a base: it would be read for the sake of few bytes.
pub const MIN_DELTA: usize = 32 << 10;

impl Encoder {
    /// Replaces the content of `out` by `plain` as a delta against `base`, with [`SEAL_ROOM`]
    /// bytes of capacity behind it, if that takes no more than `limit` bytes; else, and where
    /// everything is stored as it is, `None`, and `out` holds nothing of meaning. The bytes depend
    /// on the arguments alone.
    ///
    /// # Errors
    ///
    /// [`CodecError::TooLong`], [`CodecError::BadPhase`], or [`CodecError::Compress`] if memory ran
    /// out.
    pub fn encode_delta(
        &mut self,
        hint: Hint,
        plain: &[u8],
        base: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Codec>, CodecError> {
        for len in [plain.len(), base.len()] {
            if len > MAX_PLAIN_LEN {
                return Err(CodecError::TooLong { len });
            }
        }
        let Some(coders) = &mut self.coders else {
            return Ok(None);
        };
        let codec = match hint {
            Hint::Float { dtype, phase } => {
                let base = Against::Base(fit(base, plain.len(), &mut coders.rival));
                let planes = &mut coders.planes;
                planes.encode(&mut coders.general, dtype, phase, base, plain, out)?;
                Codec::of_difference(dtype)
            }
            Hint::Plain => {
                compress_from(LEVEL, base, plain, SEAL_ROOM, out)?;
                Codec::DeltaBytes
            }
        };
        Ok((out.len() <= limit).then_some(codec))
    }
}

impl Decoder {
    /// As [`Decoder::decode`] for the codecs that have a base.
    pub(super) fn decode_delta(
        &mut self,
        codec: Codec,
        encoded: &[u8],
        base: &[u8],
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let kind = match codec {
            Codec::DeltaBytes => return decompress_from(base, encoded, plain_len, out),
            Codec::Delta32 => FloatKind::F32,
            _ => FloatKind::Bf16,
        };
        let base = Against::Base(fit(base, plain_len, &mut self.fitted));
        self.planes
            .decode(&mut self.frames, kind, base, encoded, plain_len, out)
    }
}

impl Codec {
    /// The codec for differences of such floats. Those of two bytes share one: what they have in
    /// common is all that differences need.
    const fn of_difference(kind: FloatKind) -> Self {
        match kind {
            FloatKind::Bf16 | FloatKind::F16 => Self::Delta16,
            FloatKind::F32 => Self::Delta32,
        }
    }
}

/// The base cut to a length, or continued to it by zeros.
fn fit<'a>(base: &'a [u8], len: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if let Some(front) = base.get(..len) {
        return front;
    }
    scratch.clear();
    scratch.extend_from_slice(base);
    scratch.resize(len, 0);
    scratch
}
