//! Float planes: arrays of floats stored byte position by byte position, exponents entropy-coded.
//!
//! Weights have exponents from a handful of values and mantissas that are noise. Each element, a
//! little-endian integer of `w` = 2 (bf16, fp16) or 4 (fp32) bytes, is rotated left by one bit,
//! which brings the sign to the lowest bit and the exponent to the top, then cut into bytes; byte
//! `i` of all elements in order is plane `i`. A plane is stored raw or as one zstd frame.
//!
//! The encoding of `len` plain bytes, integers little-endian, nothing between or after the fields:
//!
//! | field | bytes | content |
//! |---|---|---|
//! | phase | 1 | `p`: position of the first plain byte within its element, `p < w` |
//! | flags | 1 | bit `i` set: plane `i` is a zstd frame; clear: raw; bits `w..8` are zero |
//! | lengths | 4 × `w` | stored length of planes 0 to `w - 1` |
//! | head | `h` | first `h = min(len, (w - p) mod w)` plain bytes: the rest of a cut element |
//! | tail | `t` | last `t = (len - h) mod w` plain bytes: the start of a cut element |
//! | planes | lengths | planes 0 (lowest byte) to `w - 1` (exponents), of `n = (len - h) / w` bytes each |
//!
//! Differences to a base are the same, but that instead of being rotated each element becomes the
//! zig-zag of its distance from the base's element at the same place, both taken as numbers that
//! grow with the float; cut elements are stored as they are.
//!
//! Must stay true: `len` comes from outside the encoding and bounds every allocation; a reader
//! refuses unknown flags, a raw plane that is not `n` long, and any byte left over. bf16 and fp16
//! differ in their codec byte only.

use super::zstd::{Compressor, Decompressor};
use super::{CodecError, FloatKind, SEAL_ROOM, kernels::Kernels, probe};

/// A frame must save one part in this many of its plane, or the plane stays raw and needs no
/// decoding.
const MIN_SAVING: usize = 100;

/// Below one part in this many, frequencies alone are far from the truth: try matches, too.
const SPARSE: usize = 5;

/// zstd level for planes of differences: on them it beats level 3 at half the time.
const SPARSE_LEVEL: i32 = 1;

/// What becomes of elements in planes.
#[derive(Clone, Copy)]
pub(super) enum Against<'a> {
    /// Their bits, rotated.
    Nothing,
    /// Their differences to the elements of a base, which has bytes for each of theirs.
    Base(&'a [u8]),
}

/// How plain bytes fall into elements.
struct Shape {
    width: usize,
    head: usize,
    count: usize,
    tail: usize,
}

impl Shape {
    fn of(kind: FloatKind, phase: u8, len: usize) -> Result<Self, CodecError> {
        let width = kind.width();
        let offset = usize::from(phase);
        if offset >= width {
            return Err(CodecError::BadPhase { phase, width });
        }
        let head = len.min((width - offset) % width);
        Ok(Self {
            width,
            head,
            count: (len - head) / width,
            tail: (len - head) % width,
        })
    }

    fn header_len(&self) -> usize {
        2 + 4 * self.width
    }

    /// Length of the encoding if every plane is raw.
    fn raw_len(&self) -> usize {
        self.header_len() + self.head + self.tail + self.count * self.width
    }

    /// Cuts plain bytes into head, elements and tail. `plain` has the length the shape was made
    /// for.
    fn cut<'a>(&self, plain: &'a [u8]) -> (&'a [u8], &'a [u8], &'a [u8]) {
        let (head, rest) = plain.split_at(self.head);
        let (elements, tail) = rest.split_at(self.count * self.width);
        (head, elements, tail)
    }

    /// The same for writing.
    fn cut_mut<'a>(&self, plain: &'a mut [u8]) -> (&'a mut [u8], &'a mut [u8], &'a mut [u8]) {
        let (head, rest) = plain.split_at_mut(self.head);
        let (elements, tail) = rest.split_at_mut(self.count * self.width);
        (head, elements, tail)
    }
}

/// Writes plane encodings; keeps its context and scratch between calls.
pub(super) struct PlaneEncoder {
    kernels: &'static Kernels,
    literals: Compressor,
    /// For differences, most of which are zero.
    sparse: Compressor,
    frame: Vec<u8>,
    rival: Vec<u8>,
}

impl PlaneEncoder {
    pub(super) fn new(kernels: &'static Kernels) -> Result<Self, CodecError> {
        Ok(Self {
            kernels,
            literals: Compressor::literals_only()?,
            sparse: Compressor::at_level(SPARSE_LEVEL)?,
            frame: Vec::new(),
            rival: Vec::new(),
        })
    }

    /// Replaces the content of `out` by the encoding of `plain`, which begins `phase` bytes into an
    /// element. The result may be longer than `plain` by the header. `general` is for planes that
    /// are more than skewed.
    #[expect(
        clippy::indexing_slicing,
        reason = "`out` is resized to hold all planes raw, and \
        the write position never overtakes the read position: no stored plane is longer than raw"
    )]
    pub(super) fn encode(
        &mut self,
        general: &mut Compressor,
        kind: FloatKind,
        phase: u8,
        against: Against<'_>,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let shape = Shape::of(kind, phase, plain.len())?;
        // Everything is overwritten below, so what `out` held need not be zeroed first.
        out.reserve((shape.raw_len() + SEAL_ROOM).saturating_sub(out.len()));
        out.resize(shape.raw_len(), 0);
        self.lay_out(kind, &shape, against, plain, out);

        let first_plane = shape.header_len() + shape.head + shape.tail;
        let mut written = first_plane;
        let mut flags = 0_u8;
        let mut lengths = [0_u32; 4];
        for (i, length) in (0..shape.width).zip(&mut lengths) {
            let start = first_plane + i * shape.count;
            let raw = start..start + shape.count;
            let is_exponent = i + 1 == shape.width;
            let shrinks = match against {
                _ if !is_exponent && !probe::is_skewed(&out[raw.clone()]) => false,
                Against::Nothing => self.shrinks(general, &out[raw.clone()])?,
                Against::Base(_) => self.difference_shrinks(&out[raw.clone()])?,
            };
            let stored = if shrinks {
                flags |= 1 << i;
                out[written..written + self.frame.len()].copy_from_slice(&self.frame);
                self.frame.len()
            } else {
                if written != start {
                    out.copy_within(raw, written);
                }
                shape.count
            };
            written += stored;
            *length = u32::try_from(stored).map_err(|_| CodecError::TooLong { len: stored })?;
        }
        out.truncate(written);
        let fields = [phase, flags]
            .into_iter()
            .chain(lengths.into_iter().flat_map(u32::to_le_bytes));
        for (slot, field) in out.iter_mut().zip(fields.take(shape.header_len())) {
            *slot = field;
        }
        Ok(())
    }

    /// Writes head, tail and all planes raw behind the room for the header.
    fn lay_out(
        &self,
        kind: FloatKind,
        shape: &Shape,
        against: Against<'_>,
        plain: &[u8],
        out: &mut [u8],
    ) {
        let (head, elements, tail) = shape.cut(plain);
        let (_, rest) = out.split_at_mut(shape.header_len());
        let (head_out, rest) = rest.split_at_mut(shape.head);
        let (tail_out, planes) = rest.split_at_mut(shape.tail);
        head_out.copy_from_slice(head);
        tail_out.copy_from_slice(tail);
        match kind {
            FloatKind::Bf16 | FloatKind::F16 => {
                let (low, high) = planes.split_at_mut(shape.count);
                let (elements, planes) = (elements.as_chunks().0, [low, high]);
                match against {
                    Against::Nothing => (self.kernels.split16)(elements, planes),
                    Against::Base(base) => {
                        let base = shape.cut(base).1.as_chunks().0;
                        (self.kernels.delta16)(elements, base, planes);
                    }
                }
            }
            FloatKind::F32 => {
                let (lower, upper) = planes.split_at_mut(2 * shape.count);
                let (a, b) = lower.split_at_mut(shape.count);
                let (c, d) = upper.split_at_mut(shape.count);
                let (elements, planes) = (elements.as_chunks().0, [a, b, c, d]);
                match against {
                    Against::Nothing => (self.kernels.split32)(elements, planes),
                    Against::Base(base) => {
                        let base = shape.cut(base).1.as_chunks().0;
                        (self.kernels.delta32)(elements, base, planes);
                    }
                }
            }
        }
    }

    /// Codes a plane into `self.frame`; true if that is worth storing.
    fn shrinks(&mut self, general: &mut Compressor, plane: &[u8]) -> Result<bool, CodecError> {
        self.literals.compress(plane, 0, &mut self.frame)?;
        if self.frame.len() * SPARSE < plane.len() {
            general.compress(plane, 0, &mut self.rival)?;
            if self.rival.len() < self.frame.len() {
                std::mem::swap(&mut self.rival, &mut self.frame);
            }
        }
        Ok(self.frame.len() + plane.len() / MIN_SAVING < plane.len())
    }

    /// The same for a plane of differences. Frequencies alone take a bit for every zero: where that
    /// is most of what they take, runs are tried, too.
    fn difference_shrinks(&mut self, plane: &[u8]) -> Result<bool, CodecError> {
        self.literals.compress(plane, 0, &mut self.frame)?;
        if self.frame.len() * SPARSE < plane.len() {
            self.sparse.compress(plane, 0, &mut self.rival)?;
            if self.rival.len() < self.frame.len() {
                std::mem::swap(&mut self.rival, &mut self.frame);
            }
        }
        Ok(self.frame.len() + plane.len() / MIN_SAVING < plane.len())
    }
}

/// Reads plane encodings; keeps its scratch between calls.
pub(super) struct PlaneDecoder {
    kernels: &'static Kernels,
    /// One buffer for each plane that may be a frame.
    scratch: [Vec<u8>; 4],
}

impl PlaneDecoder {
    pub(super) fn new(kernels: &'static Kernels) -> Self {
        Self {
            kernels,
            scratch: Default::default(),
        }
    }

    /// Replaces the content of `out` by the `plain_len` bytes that `encoded` stands for. After an
    /// error `out` holds nothing of meaning.
    pub(super) fn decode(
        &mut self,
        frames: &mut Decompressor,
        kind: FloatKind,
        against: Against<'_>,
        encoded: &[u8],
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let parsed = Parsed::from_bytes(kind, encoded, plain_len)?;
        let shape = &parsed.shape;
        let mut planes: [&[u8]; 4] = [&[]; 4];
        for ((plane, stored), scratch) in
            planes.iter_mut().zip(&parsed.planes).zip(&mut self.scratch)
        {
            *plane = match *stored {
                StoredPlane::Raw(bytes) => bytes,
                StoredPlane::Frame(frame) => {
                    frames.decompress(frame, shape.count, scratch)?;
                    scratch
                }
            };
        }
        // Everything is overwritten below, so what `out` held need not be zeroed first.
        out.resize(plain_len, 0);
        let (head, elements, tail) = shape.cut_mut(out);
        head.copy_from_slice(parsed.head);
        tail.copy_from_slice(parsed.tail);
        match kind {
            FloatKind::Bf16 | FloatKind::F16 => {
                let [low, high, ..] = planes;
                let (planes, elements) = ([low, high], elements.as_chunks_mut().0);
                match against {
                    Against::Nothing => (self.kernels.merge16)(planes, elements),
                    Against::Base(base) => {
                        let base = shape.cut(base).1.as_chunks().0;
                        (self.kernels.undelta16)(planes, base, elements);
                    }
                }
            }
            FloatKind::F32 => {
                let elements = elements.as_chunks_mut().0;
                match against {
                    Against::Nothing => (self.kernels.merge32)(planes, elements),
                    Against::Base(base) => {
                        let base = shape.cut(base).1.as_chunks().0;
                        (self.kernels.undelta32)(planes, base, elements);
                    }
                }
            }
        }
        Ok(())
    }
}

/// An encoding whose fields have been found and whose lengths agree.
struct Parsed<'a> {
    shape: Shape,
    head: &'a [u8],
    tail: &'a [u8],
    /// Beyond the width of an element: empty and raw.
    planes: [StoredPlane<'a>; 4],
}

#[derive(Clone, Copy)]
enum StoredPlane<'a> {
    Raw(&'a [u8]),
    Frame(&'a [u8]),
}

impl<'a> Parsed<'a> {
    fn from_bytes(kind: FloatKind, encoded: &'a [u8], len: usize) -> Result<Self, CodecError> {
        let ([phase, flags], mut rest) = take_array(encoded)?;
        let shape = Shape::of(kind, phase, len)?;
        if u32::from(flags) >> shape.width != 0 {
            return Err(CodecError::PlaneFlags { flags });
        }
        let mut lengths = [0_usize; 4];
        for length in lengths.iter_mut().take(shape.width) {
            let (field, after) = take_array(rest)?;
            *length = usize::try_from(u32::from_le_bytes(field)).unwrap_or(usize::MAX);
            rest = after;
        }
        let (head, rest) = take(rest, shape.head)?;
        let (tail, mut rest) = take(rest, shape.tail)?;
        let mut planes = [StoredPlane::Raw(&[]); 4];
        for (i, (plane, length)) in planes.iter_mut().zip(lengths).enumerate().take(shape.width) {
            let (bytes, after) = take(rest, length)?;
            rest = after;
            *plane = if flags & (1 << i) != 0 {
                StoredPlane::Frame(bytes)
            } else if length == shape.count {
                StoredPlane::Raw(bytes)
            } else {
                return Err(CodecError::PlaneLength {
                    expected: shape.count,
                    found: length,
                });
            };
        }
        if !rest.is_empty() {
            return Err(CodecError::TrailingBytes { extra: rest.len() });
        }
        Ok(Self {
            shape,
            head,
            tail,
            planes,
        })
    }
}

fn take(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), CodecError> {
    bytes
        .split_at_checked(len)
        .ok_or_else(|| CodecError::Truncated {
            missing: len.saturating_sub(bytes.len()),
        })
}

fn take_array<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), CodecError> {
    let (array, rest) = bytes
        .split_first_chunk()
        .ok_or_else(|| CodecError::Truncated {
            missing: N.saturating_sub(bytes.len()),
        })?;
    Ok((*array, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(kind: FloatKind, phase: u8, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0xEE; 99];
        let mut general = Compressor::at_level(3).unwrap();
        let mut encoder = PlaneEncoder::new(Kernels::best()).unwrap();
        encoder
            .encode(&mut general, kind, phase, Against::Nothing, plain, &mut out)
            .unwrap();
        out
    }

    fn decode(kind: FloatKind, encoded: &[u8], plain_len: usize) -> Result<Vec<u8>, CodecError> {
        let mut out = vec![0xEE; 99];
        let mut frames = Decompressor::new().unwrap();
        PlaneDecoder::new(Kernels::best())
            .decode(
                &mut frames,
                kind,
                Against::Nothing,
                encoded,
                plain_len,
                &mut out,
            )
            .map(|()| out)
    }

    /// -1.5 and 1.0 as bf16, with half an element before and after.
    const BF16_PLAIN: [u8; 6] = [0xAA, 0xC0, 0xBF, 0x80, 0x3F, 0x55];
    const BF16_ENCODED: [u8; 16] = [
        1, 0, // phase, flags
        2, 0, 0, 0, 2, 0, 0, 0, // lengths
        0xAA, 0x55, // head, tail
        0x81, 0x00, // mantissas and signs
        0x7F, 0x7F, // exponents
    ];

    #[test]
    fn bf16_planes_have_the_documented_layout() {
        for kind in [FloatKind::Bf16, FloatKind::F16] {
            assert_eq!(encode(kind, 1, &BF16_PLAIN), BF16_ENCODED);
            assert_eq!(decode(kind, &BF16_ENCODED, 6).unwrap(), BF16_PLAIN);
        }
    }

    #[test]
    fn fp32_planes_have_the_documented_layout() {
        let plain = [0xAA, 0, 0, 0xC0, 0xBF, 0, 0, 0x80, 0x3F, 0x55, 0x66];
        let encoded = [
            3, 0, // phase, flags
            2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, // lengths
            0xAA, 0x55, 0x66, // head, tail
            0x01, 0x00, 0x00, 0x00, 0x80, 0x00, 0x7F, 0x7F, // planes
        ];
        assert_eq!(encode(FloatKind::F32, 3, &plain), encoded);
        assert_eq!(decode(FloatKind::F32, &encoded, 11).unwrap(), plain);
    }

    #[test]
    fn a_plane_may_be_a_frame() {
        let run = [0x28, 0xB5, 0x2F, 0xFD, 0x60, 44, 0, 0x63, 0x09, 0, 0x7F];
        let head = [0, 0b10, 44, 1, 0, 0, 11, 0, 0, 0];
        let encoded = [&head[..], &[0x01; 300], &run].concat();
        let plain: Vec<u8> = [0x80, 0xBF].into_iter().cycle().take(600).collect();
        assert_eq!(decode(FloatKind::Bf16, &encoded, 600).unwrap(), plain);
    }

    #[test]
    fn the_parts_of_an_element_are_all_there_may_be() {
        for kind in [FloatKind::Bf16, FloatKind::F32] {
            for (len, phase) in (0..9).flat_map(|len| (0..2).map(move |phase| (len, phase))) {
                let plain: Vec<u8> = (1..).take(len).collect();
                let encoded = encode(kind, phase, &plain);
                assert_eq!(encoded.len(), 2 + 4 * kind.width() + len);
                assert_eq!(decode(kind, &encoded, len).unwrap(), plain);
            }
        }
    }

    #[test]
    fn a_phase_beyond_the_element_is_refused() {
        let mut encoded = BF16_ENCODED;
        encoded[0] = 2;
        let found = decode(FloatKind::Bf16, &encoded, 6);
        assert_eq!(found, Err(CodecError::BadPhase { phase: 2, width: 2 }));
    }

    #[test]
    fn flags_of_planes_that_do_not_exist_are_refused() {
        for bit in 2..8 {
            let mut encoded = BF16_ENCODED;
            encoded[1] = 1 << bit;
            let flags = encoded[1];
            let found = decode(FloatKind::Bf16, &encoded, 6);
            assert_eq!(found, Err(CodecError::PlaneFlags { flags }));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_without_allocating_what_they_claim() {
        for (at, value) in [(2, 0), (2, 1), (2, 3), (5, 0xFF), (6, 1), (6, 3), (9, 0xFF)] {
            let mut encoded = BF16_ENCODED;
            encoded[at] = value;
            let found = decode(FloatKind::Bf16, &encoded, 6).unwrap_err();
            assert!(
                matches!(
                    found,
                    CodecError::PlaneLength { .. } | CodecError::Truncated { .. }
                ),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_frame_of_another_length_than_the_plane_is_refused() {
        let run = [0x28, 0xB5, 0x2F, 0xFD, 0x60, 44, 0, 0x63, 0x09, 0, 0x7F];
        let head = [0, 0b10, 45, 1, 0, 0, 11, 0, 0, 0];
        let encoded = [&head[..], &[0x01; 301], &run].concat();
        let error = CodecError::WrongLength {
            expected: 301,
            found: 300,
        };
        assert_eq!(decode(FloatKind::Bf16, &encoded, 602), Err(error));
    }

    /// A frame as written by zstd 1.5.7: 256 exponents with a Huffman table and no matches.
    #[rustfmt::skip]
    const EXPONENTS: [u8; 102] = [
        0x28, 0xB5, 0x2F, 0xFD, 0x60, 0x00, 0x00, 0xE5, 0x02, 0x00, 0x06, 0x10,
        0x16, 0x0F, 0xB0, 0x15, 0x24, 0x1D, 0x49, 0x6E, 0xD2, 0xAC, 0xE5, 0x61,
        0x18, 0x86, 0x61, 0xA1, 0x02, 0x11, 0x00, 0x10, 0x00, 0x11, 0x00, 0xD7,
        0x84, 0x75, 0xAE, 0x91, 0x75, 0x70, 0x27, 0xD6, 0xB9, 0x43, 0xD6, 0x71,
        0x67, 0x60, 0x05, 0x08, 0x6B, 0xC8, 0x1D, 0xD7, 0x04, 0x77, 0xAE, 0x91,
        0x3B, 0x5C, 0x13, 0xEB, 0x5C, 0x05, 0xB2, 0x8E, 0x75, 0xDC, 0x09, 0xD6,
        0xB9, 0x23, 0x6B, 0xC2, 0x9D, 0x58, 0x23, 0x77, 0x40, 0xD6, 0xC4, 0x9D,
        0x01, 0x9D, 0x6B, 0x90, 0x75, 0x5C, 0x13, 0xD6, 0xB9, 0x46, 0xD6, 0x02,
        0x77, 0x62, 0x9D, 0x3B, 0x64, 0x00,
    ];

    fn exponent(i: u32) -> u8 {
        let zeros = (i.wrapping_mul(0x9E37_79B1) >> 7).trailing_zeros();
        0x7E - u8::try_from(zeros.min(9)).unwrap()
    }

    #[test]
    fn exponents_coded_by_an_earlier_zstd_are_read() {
        let mantissas: Vec<u8> = (0..=u8::MAX).collect();
        let head = [0, 0b10, 0, 1, 0, 0, 102, 0, 0, 0];
        let encoded = [&head[..], &mantissas, &EXPONENTS].concat();
        let plain: Vec<u8> = (0..=u8::MAX)
            .flat_map(|low| {
                let sign = low << 7;
                let exponent = exponent(u32::from(low));
                [exponent << 7 | low >> 1, sign | exponent >> 1]
            })
            .collect();
        assert_eq!(decode(FloatKind::Bf16, &encoded, 512).unwrap(), plain);
    }
}
