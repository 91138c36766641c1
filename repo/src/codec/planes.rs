//! Float planes: arrays of floats stored byte position by byte position, exponents entropy-coded.
//!
//! Weights have exponents from a handful of values and mantissas that are noise. Each element, a
//! little-endian integer of `w` = 2 (bf16, fp16) or 4 (fp32) bytes, is rotated left by one bit, which
//! brings the sign to the lowest bit and the exponent to the top, then cut into bytes; byte `i` of
//! all elements in order is plane `i`. A plane is stored raw or as one zstd frame.
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
//! Must stay true: `len` comes from outside the encoding and bounds every allocation; a reader refuses
//! unknown flags, a raw plane that is not `n` long, and any byte left over. bf16 and fp16 differ in
//! their codec byte only.

use super::zstd::{Compressor, Decompressor};
use super::{CodecError, FloatKind, SEAL_ROOM, kernels::Kernels, probe};

/// A frame must save one part in this many of its plane, or the plane stays raw and needs no decoding.
const MIN_SAVING: usize = 100;

/// Below one part in this many, frequencies alone are far from the truth: try matches, too.
const SPARSE: usize = 5;

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

    /// Cuts plain bytes into head, elements and tail. `plain` has the length the shape was made for.
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
    frame: Vec<u8>,
    rival: Vec<u8>,
}

impl PlaneEncoder {
    pub(super) fn new(kernels: &'static Kernels) -> Result<Self, CodecError> {
        Ok(Self {
            kernels,
            literals: Compressor::literals_only()?,
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
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let shape = Shape::of(kind, phase, plain.len())?;
        // Everything is overwritten below, so what `out` held need not be zeroed first.
        out.reserve((shape.raw_len() + SEAL_ROOM).saturating_sub(out.len()));
        out.resize(shape.raw_len(), 0);
        self.lay_out(kind, &shape, plain, out);

        let first_plane = shape.header_len() + shape.head + shape.tail;
        let mut written = first_plane;
        let mut flags = 0_u8;
        let mut lengths = [0_u32; 4];
        for (i, length) in (0..shape.width).zip(&mut lengths) {
            let start = first_plane + i * shape.count;
            let raw = start..start + shape.count;
            let is_exponent = i + 1 == shape.width;
            let stored = if (is_exponent || probe::is_skewed(&out[raw.clone()]))
                && self.shrinks(general, &out[raw.clone()])?
            {
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
    fn lay_out(&self, kind: FloatKind, shape: &Shape, plain: &[u8], out: &mut [u8]) {
        let (head, elements, tail) = shape.cut(plain);
        let (_, rest) = out.split_at_mut(shape.header_len());
        let (head_out, rest) = rest.split_at_mut(shape.head);
        let (tail_out, planes) = rest.split_at_mut(shape.tail);
        head_out.copy_from_slice(head);
        tail_out.copy_from_slice(tail);
        match kind {
            FloatKind::Bf16 | FloatKind::F16 => {
                let (low, high) = planes.split_at_mut(shape.count);
                (self.kernels.split16)(elements.as_chunks().0, [low, high]);
            }
            FloatKind::F32 => {
                let (lower, upper) = planes.split_at_mut(2 * shape.count);
                let (a, b) = lower.split_at_mut(shape.count);
                let (c, d) = upper.split_at_mut(shape.count);
                (self.kernels.split32)(elements.as_chunks().0, [a, b, c, d]);
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
        let [a, b, c, d] = planes;
        match kind {
            FloatKind::Bf16 | FloatKind::F16 => {
                (self.kernels.merge16)([a, b], elements.as_chunks_mut().0);
            }
            FloatKind::F32 => (self.kernels.merge32)([a, b, c, d], elements.as_chunks_mut().0),
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
