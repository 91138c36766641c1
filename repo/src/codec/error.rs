//! What can be wrong with bytes to encode or, far more often, with an encoding.
//!
//! The codecs see bytes only: which blob they belong to is added by the caller, who knows.

use super::{Codec, MAX_PLAIN_LEN};

/// Why bytes were not encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A codec byte of a later version, or of none.
    #[error("unknown codec {byte}")]
    UnknownCodec {
        /// The byte found.
        byte: u8,
    },
    /// A delta without a base, or a base without a delta.
    #[error("{codec:?} {}", if *needs_base { "needs a base" } else { "has no base" })]
    Base {
        /// The codec.
        codec: Codec,
        /// Whether it has to have one.
        needs_base: bool,
    },
    /// An encoding that was to be stored does not give back what it was made from.
    #[error("{codec:?} does not give back what was encoded: bad memory, or a bug")]
    Differs {
        /// The codec.
        codec: Codec,
    },
    /// More plain bytes than a blob may have.
    #[error("{len} bytes are more than the {MAX_PLAIN_LEN} a blob may have")]
    TooLong {
        /// The plain length asked for.
        len: usize,
    },
    /// An encoding of another plain length than expected.
    #[error("encoding holds {found} bytes where {expected} are expected")]
    WrongLength {
        /// The plain length asked for.
        expected: usize,
        /// The plain length the encoding has or claims.
        found: u64,
    },
    /// The encoding ends before its last field.
    #[error("encoding is cut short, at least {missing} bytes are missing")]
    Truncated {
        /// How many bytes the first incomplete field lacks.
        missing: usize,
    },
    /// The encoding goes on after its last field.
    #[error("{extra} bytes follow the end of the encoding")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// A position within an element that is not within the element.
    #[error("byte {phase} of an element of {width} bytes")]
    BadPhase {
        /// The position.
        phase: u8,
        /// The width of an element.
        width: usize,
    },
    /// Plane flags of a later version, or of none.
    #[error("unknown plane flags {flags:#04x}")]
    PlaneFlags {
        /// All flags found.
        flags: u8,
    },
    /// A raw plane of the wrong length.
    #[error("raw plane of {found} bytes where {expected} are expected")]
    PlaneLength {
        /// The number of elements.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// No zstd frame where there must be one.
    #[error("no zstd frame")]
    NotAFrame,
    /// A zstd frame with a dictionary, a checksum, reserved bits or no content size.
    #[error("zstd frame descriptor {descriptor:#04x} is not one this format uses")]
    FrameFeature {
        /// The frame header descriptor.
        descriptor: u8,
    },
    /// A zstd frame that refers back further than a blob can be long.
    #[error("zstd window descriptor {descriptor:#04x} is out of bounds")]
    FrameWindow {
        /// The window descriptor.
        descriptor: u8,
    },
    /// zstd could not compress.
    #[error("zstd compression failed: {reason}")]
    Compress {
        /// In zstd's words.
        reason: &'static str,
    },
    /// zstd could not decompress.
    #[error("zstd decompression failed: {reason}")]
    Decompress {
        /// In zstd's words.
        reason: &'static str,
    },
}
