//! Codecs: how the plain bytes of a blob become fewer before they are sealed, and come back.
//!
//! Here: the codec byte, the encoder that picks the smallest codec, the decoder. One of each per
//! worker thread; both keep their contexts and scratch. Encryption, padding, ids and where the
//! codec byte is stored are not here. The plain length is never stored in an encoding: it is known,
//! and authenticated, outside.
//!
//! Must stay true: decoding gives exactly the expected number of bytes or an error, never panics
//! and never allocates more than a small multiple of the expected length; what was encoded decodes
//! to the same bytes whatever hint and level it was encoded with.

mod delta;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fuzz;
mod kernels;
mod planes;
mod probe;
/// The `plain_len` bytes of one zstd frame, under the rules that blobs are held to. The caller
/// bounds `plain_len`.
///
/// # Errors
/// As [`Decoder::decode`] with [`Codec::Zstd`].
pub(crate) fn decompress_frame(frame: &[u8], plain_len: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    Decompressor::new()?.decompress(frame, plain_len, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
mod zstd;

pub use delta::MIN_DELTA;
pub use error::CodecError;
#[cfg(any(test, feature = "testing"))]
pub use fuzz::{fuzz_decode, fuzz_delta, fuzz_delta_round_trip, fuzz_round_trip};
use kernels::Kernels;
use planes::{Against, PlaneDecoder, PlaneEncoder};
use zstd::{Compressor, Decompressor};

/// Longest plain length, in bytes, that is encoded or decoded.
pub const MAX_PLAIN_LEN: usize = 16 << 20;

/// Bytes of capacity left behind an encoding, so that sealing it in place appends its tag without a
/// move.
pub const SEAL_ROOM: usize = 16;

/// Shorter floats are not worth a header and a Huffman table.
const MIN_FLOATS: usize = 512;

/// Shorter untyped blobs are not searched for floats: the sample would be most of them.
const MIN_GUESS: usize = 16 << 10;

/// Up to here planes are always compared with a plain frame, which is cheap for so few bytes and
/// where a plane's Huffman table weighs most.
const ALWAYS_COMPARE: usize = 16 << 10;

/// How much of a blob of guessed floats is tried as a plain frame.
const TRIAL: usize = 16 << 10;

/// How a blob is encoded, as one byte in the index and in the authenticated data of a blob. Zero is
/// no codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The plain bytes themselves.
    Stored = 1,
    /// One zstd frame.
    Zstd = 2,
    /// Float planes of bf16 elements.
    Planes16 = 3,
    /// Float planes of fp32 elements.
    Planes32 = 4,
    /// Float planes of fp16 elements.
    PlanesF16 = 5,
    /// Planes of the differences of two-byte floats, bf16 or fp16, to those of a base.
    Delta16 = 6,
    /// Planes of the differences of fp32 elements to those of a base.
    Delta32 = 7,
    /// One zstd frame whose matches may begin in a base.
    DeltaBytes = 8,
}

impl Codec {
    /// All of them, in the order of their bytes.
    pub const ALL: [Self; 8] = [
        Self::Stored,
        Self::Zstd,
        Self::Planes16,
        Self::Planes32,
        Self::PlanesF16,
        Self::Delta16,
        Self::Delta32,
        Self::DeltaBytes,
    ];

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Zstd => "zstd",
            Self::Planes16 => "planes-bf16",
            Self::PlanesF16 => "planes-f16",
            Self::Planes32 => "planes-f32",
            Self::Delta16 => "delta-16",
            Self::Delta32 => "delta-32",
            Self::DeltaBytes => "delta-bytes",
        }
    }

    /// The byte that stands for this codec in the repository.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Stored => 1,
            Self::Zstd => 2,
            Self::Planes16 => 3,
            Self::Planes32 => 4,
            Self::PlanesF16 => 5,
            Self::Delta16 => 6,
            Self::Delta32 => 7,
            Self::DeltaBytes => 8,
        }
    }

    /// Whether blobs of this codec need another blob, their base, to be decoded.
    #[must_use]
    pub const fn has_base(self) -> bool {
        matches!(self, Self::Delta16 | Self::Delta32 | Self::DeltaBytes)
    }
}

impl TryFrom<u8> for Codec {
    type Error = CodecError;

    fn try_from(byte: u8) -> Result<Self, CodecError> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.to_byte() == byte)
            .ok_or(CodecError::UnknownCodec { byte })
    }
}

/// What the caller knows about the bytes to encode. A wrong hint costs space, not correctness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing.
    Plain,
    /// Little-endian floats.
    Float {
        /// Their format.
        dtype: FloatKind,
        /// Position of the first byte within its element, in bytes, less than the element's width.
        phase: u8,
    },
}

/// A float format with planes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatKind {
    /// One sign, eight exponent and seven mantissa bits.
    Bf16,
    /// IEEE 754 binary16: one sign, five exponent and ten mantissa bits.
    F16,
    /// IEEE 754 binary32: one sign, eight exponent and 23 mantissa bits.
    F32,
}

impl FloatKind {
    /// Bytes in an element.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    const fn codec(self) -> Codec {
        match self {
            Self::Bf16 => Codec::Planes16,
            Self::F16 => Codec::PlanesF16,
            Self::F32 => Codec::Planes32,
        }
    }
}

/// How much time encoding may take. Decoding takes about the same at all levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Level {
    /// Everything is stored as it is, floats too.
    Off,
    /// zstd level 1.
    Fastest,
    /// zstd level 3.
    #[default]
    Auto,
    /// zstd level 9.
    Better,
    /// zstd level 19.
    Max,
}

impl Level {
    const fn zstd_level(self) -> Option<i32> {
        match self {
            Self::Off => None,
            Self::Fastest => Some(1),
            Self::Auto => Some(3),
            Self::Better => Some(9),
            Self::Max => Some(19),
        }
    }
}

/// The instruction set that splits and merges float planes here, for reports.
#[must_use]
pub fn kernel_name() -> &'static str {
    Kernels::best().name
}

/// Makes blobs smaller.
pub struct Encoder {
    /// None: everything is stored.
    coders: Option<Coders>,
}

struct Coders {
    general: Compressor,
    planes: PlaneEncoder,
    rival: Vec<u8>,
}

impl Encoder {
    /// An encoder with contexts of its own.
    ///
    /// # Errors
    ///
    /// [`CodecError::Compress`] if there is no memory for them.
    pub fn new(level: Level) -> Result<Self, CodecError> {
        Self::with_kernels(level, Kernels::best())
    }

    fn with_kernels(level: Level, kernels: &'static Kernels) -> Result<Self, CodecError> {
        let coders = match level.zstd_level() {
            None => None,
            Some(zstd_level) => Some(Coders {
                general: Compressor::at_level(zstd_level)?,
                planes: PlaneEncoder::new(kernels)?,
                rival: Vec::new(),
            }),
        };
        Ok(Self { coders })
    }

    /// Replaces the content of `out` by the smallest encoding of `plain`, with [`SEAL_ROOM`] bytes
    /// of capacity behind it. A codec is used only where its output is smaller than that of the
    /// next simpler one. The choice and the bytes depend on `plain`, `hint` and the level alone.
    ///
    /// # Errors
    ///
    /// [`CodecError::TooLong`], [`CodecError::BadPhase`], or [`CodecError::Compress`] if memory ran
    /// out; `out` then holds nothing of meaning.
    pub fn encode(
        &mut self,
        hint: Hint,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Codec, CodecError> {
        if plain.len() > MAX_PLAIN_LEN {
            return Err(CodecError::TooLong { len: plain.len() });
        }
        let floats = match hint {
            Hint::Float { dtype, phase } if usize::from(phase) >= dtype.width() => {
                let width = dtype.width();
                return Err(CodecError::BadPhase { phase, width });
            }
            Hint::Float { dtype, phase } => Some((dtype, phase)),
            Hint::Plain if self.coders.is_some() && plain.len() >= MIN_GUESS => {
                probe::guess_floats(plain)
            }
            Hint::Plain => None,
        };
        let codec = match (&mut self.coders, floats) {
            (None, _) => Codec::Stored,
            (Some(coders), Some((kind, phase))) if plain.len() >= MIN_FLOATS => {
                coders.encode_floats(kind, phase, hint == Hint::Plain, plain, out)?
            }
            (Some(coders), _) => {
                coders.general.compress(plain, SEAL_ROOM, out)?;
                Codec::Zstd
            }
        };
        if codec != Codec::Stored && out.len() < plain.len() {
            return Ok(codec);
        }
        out.clear();
        out.reserve(plain.len() + SEAL_ROOM);
        out.extend_from_slice(plain);
        Ok(Codec::Stored)
    }
}

impl Coders {
    /// Planes, or a plain frame where that is smaller. The frame is made only where it has a
    /// chance: on ordinary weights it costs more than the planes and never wins.
    fn encode_floats(
        &mut self,
        kind: FloatKind,
        phase: u8,
        is_guess: bool,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Codec, CodecError> {
        self.planes
            .encode(&mut self.general, kind, phase, Against::Nothing, plain, out)?;
        if self.is_out_of_reach(plain, is_guess, out.len())? {
            return Ok(kind.codec());
        }
        self.general.compress(plain, SEAL_ROOM, &mut self.rival)?;
        if self.rival.len() > out.len() {
            return Ok(kind.codec());
        }
        std::mem::swap(&mut self.rival, out);
        Ok(Codec::Zstd)
    }

    /// Whether a plain frame of `plain` is sure enough to be longer than planes of `planes_len`.
    fn is_out_of_reach(
        &mut self,
        plain: &[u8],
        is_guess: bool,
        planes_len: usize,
    ) -> Result<bool, CodecError> {
        let len = plain.len();
        let is_typical = planes_len > len / 2 && planes_len < len / 16 * 15;
        if !is_typical || len <= ALWAYS_COMPARE || probe::is_repetitive(plain) {
            return Ok(false);
        }
        if !is_guess {
            return Ok(true);
        }
        // Sound, pictures and counters look like floats, too, but may be better off as they are.
        let (_, second_half) = plain.split_at(len / 2);
        let (trial, _) = second_half.split_at(second_half.len().min(TRIAL));
        self.general.compress(trial, 0, &mut self.rival)?;
        let planes_of_trial = planes_len / 1024 * trial.len() / (len / 1024);
        Ok(self.rival.len() * 20 > planes_of_trial * 21)
    }
}

/// Gives blobs back.
pub struct Decoder {
    frames: Decompressor,
    planes: PlaneDecoder,
    /// A base as long as what is decoded with it.
    fitted: Vec<u8>,
}

impl Decoder {
    /// A decoder with a context of its own.
    ///
    /// # Errors
    ///
    /// [`CodecError::Decompress`] if there is no memory for it.
    pub fn new() -> Result<Self, CodecError> {
        Self::with_kernels(Kernels::best())
    }

    fn with_kernels(kernels: &'static Kernels) -> Result<Self, CodecError> {
        Ok(Self {
            frames: Decompressor::new()?,
            planes: PlaneDecoder::new(kernels),
            fitted: Vec::new(),
        })
    }

    /// The `plain_len` bytes that `encoded` stands for, where they lie: in `encoded` itself, or
    /// decoded into `scratch`. As [`decode`](Self::decode), without a copy of what is stored as it
    /// is.
    ///
    /// # Errors
    ///
    /// Any [`CodecError`] but [`CodecError::Compress`].
    pub fn plain<'a>(
        &mut self,
        codec: Codec,
        encoded: &'a [u8],
        base: Option<&[u8]>,
        plain_len: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], CodecError> {
        if codec == Codec::Stored && base.is_none() && plain_len <= MAX_PLAIN_LEN {
            return stored(encoded, plain_len);
        }
        self.decode(codec, encoded, base, plain_len, scratch)?;
        Ok(scratch)
    }

    /// Replaces the content of `out` by the `plain_len` bytes that `encoded` stands for, with the
    /// bytes of its base where the codec has one and only there. `encoded` may be hostile; memory
    /// is bounded by `plain_len` and the length of the base.
    ///
    /// # Errors
    ///
    /// Any [`CodecError`] but [`CodecError::Compress`]; `out` is then empty.
    pub fn decode(
        &mut self,
        codec: Codec,
        encoded: &[u8],
        base: Option<&[u8]>,
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        if plain_len > MAX_PLAIN_LEN {
            out.clear();
            return Err(CodecError::TooLong { len: plain_len });
        }
        let result = match (codec.has_base(), base) {
            (true, Some(base)) => self.decode_delta(codec, encoded, base, plain_len, out),
            (false, None) => self.decode_whole(codec, encoded, plain_len, out),
            (needs_base, _) => Err(CodecError::Base { codec, needs_base }),
        };
        result.inspect_err(|_| out.clear())
    }

    fn decode_whole(
        &mut self,
        codec: Codec,
        encoded: &[u8],
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let kind = match codec {
            Codec::Zstd => return self.frames.decompress(encoded, plain_len, out),
            Codec::Planes16 => FloatKind::Bf16,
            Codec::Planes32 => FloatKind::F32,
            Codec::PlanesF16 => FloatKind::F16,
            _ => return copy_stored(encoded, plain_len, out),
        };
        let (frames, planes) = (&mut self.frames, &mut self.planes);
        planes.decode(frames, kind, Against::Nothing, encoded, plain_len, out)
    }
}

fn copy_stored(encoded: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let plain = stored(encoded, plain_len)?;
    out.clear();
    out.extend_from_slice(plain);
    Ok(())
}

fn stored(encoded: &[u8], plain_len: usize) -> Result<&[u8], CodecError> {
    if encoded.len() != plain_len {
        return Err(CodecError::WrongLength {
            expected: plain_len,
            found: u64::try_from(encoded.len()).unwrap_or(u64::MAX),
        });
    }
    Ok(encoded)
}
