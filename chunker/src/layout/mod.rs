//! What is in a file: tensors, or plain bytes.
//!
//! Lives here: recognition from the first bytes (never from the name), the segments of a file, and
//! the fixed pieces that a tensor is cut into. Does not live here: the header grammars
//! (`safetensors`), nor content-defined cuts, which each plain segment gets on its own.
//!
//! Must stay true: the segments of a [`Layout`] cover the file exactly, in order, each at least one
//! byte long; and nothing a header says can fail, allocate without bound or be trusted: what does
//! not add up is plain. A layout only chooses cuts, so that a wrong guess costs space, never
//! content.

mod safetensors;

use std::ops::Range;

#[cfg(any(test, feature = "testing"))]
pub use safetensors::fuzz_layout;

/// Length of the pieces of a tensor in bytes, counted from the tensor's start: a multiple of every
/// element size, near the average of the default chunk sizes. Part of the repository format.
pub const TENSOR_PIECE: u64 = 1 << 20;

/// Bytes of the file's start that [`probe`] wants to see (or all, if there are fewer).
pub const PROBE_LEN: usize = 16;

/// What the first bytes say about the rest of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// No structure: [`Layout::plain`].
    Plain,
    /// Perhaps structured: [`recognise`] needs the first `len` bytes of the file to tell.
    NeedHeader {
        /// Bytes from the start of the file; never more than 16 MiB and 8 bytes.
        len: u64,
    },
}

/// Looks at the first [`PROBE_LEN`] bytes of a file of `file_len` bytes.
#[must_use]
pub fn probe(head: &[u8], file_len: u64) -> Probe {
    safetensors::header_len(head, file_len).map_or(Probe::Plain, |len| Probe::NeedHeader { len })
}

/// Finds the segments of a file of `file_len` bytes from its first bytes, of which there have to be
/// as many as [`probe`] asked for; with fewer, or with a header that does not add up, the file is
/// plain.
#[must_use]
pub fn recognise(head: &[u8], file_len: u64) -> Layout {
    safetensors::segments(head, file_len)
        .map_or_else(|| Layout::plain(file_len), |segments| Layout { segments })
}

/// A file as a list of segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<LayoutSegment>,
}

impl Layout {
    /// One plain segment; none if the file is empty.
    #[must_use]
    pub fn plain(file_len: u64) -> Self {
        let whole = LayoutSegment {
            range: 0..file_len,
            kind: SegmentKind::Plain,
        };
        Self {
            segments: if file_len == 0 {
                Vec::new()
            } else {
                vec![whole]
            },
        }
    }

    /// The segments in file order, without gap or overlap.
    #[must_use]
    pub fn segments(&self) -> &[LayoutSegment] {
        &self.segments
    }

    /// Whether no segment is a tensor.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.segments
            .iter()
            .all(|segment| segment.kind == SegmentKind::Plain)
    }
}

/// A stretch of a file that is cut on its own: no chunk crosses its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutSegment {
    /// Offsets in the file.
    pub range: Range<u64>,
    /// How to cut it, and what a codec may expect in it.
    pub kind: SegmentKind,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Bytes: content-defined cuts.
    Plain,
    /// A tensor, or neighbouring tiny tensors of one type: cuts by [`tensor_pieces`].
    Tensor {
        /// Type of the elements; the first begins at the start of the segment.
        dtype: Dtype,
        /// Bytes of one element, 1 where elements are smaller than a byte or of unknown type.
        element_size: u8,
        /// BLAKE3 (`derive_key`, "strongroom v1 tensor name") of the name: the same tensor of
        /// another file or generation. For a group, that of all its names in order.
        name_hash: [u8; 32],
    },
}

/// Type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// One byte, 4 exponent bits, 3 mantissa bits.
    F8E4m3,
    /// One byte, 5 exponent bits, 2 mantissa bits.
    F8E5m2,
    /// One byte, exponent only.
    F8E8m0,
    /// Six bits, 2 of them exponent.
    F6E2m3,
    /// Six bits, 3 of them exponent.
    F6E3m2,
    /// Four bits.
    F4,
    /// Two binary32.
    C64,
    /// Signed, 8 bytes.
    I64,
    /// Signed, 4 bytes.
    I32,
    /// Signed, 2 bytes.
    I16,
    /// Signed byte.
    I8,
    /// Unsigned, 8 bytes.
    U64,
    /// Unsigned, 4 bytes.
    U32,
    /// Unsigned, 2 bytes.
    U16,
    /// Unsigned byte.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// A name that this version does not know; its size is taken from the offsets alone.
    Unknown,
}

impl Dtype {
    /// Bits of one element, where known.
    #[must_use]
    pub const fn bits(self) -> Option<u8> {
        match self {
            Self::F64 | Self::C64 | Self::I64 | Self::U64 => Some(64),
            Self::F32 | Self::I32 | Self::U32 => Some(32),
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => Some(16),
            Self::F8E4m3 | Self::F8E5m2 | Self::F8E8m0 | Self::I8 | Self::U8 | Self::Bool => {
                Some(8)
            }
            Self::F6E2m3 | Self::F6E3m2 => Some(6),
            Self::F4 => Some(4),
            Self::Unknown => None,
        }
    }

    /// Bytes of one element; 1 where elements are smaller than a byte or of unknown type.
    #[must_use]
    pub const fn element_size(self) -> u8 {
        match self.bits() {
            Some(bits) if bits >= 8 => bits / 8,
            Some(_) | None => 1,
        }
    }
}

/// End offsets of the pieces of a tensor segment: every [`TENSOR_PIECE`] bytes from its start, and
/// its end. An empty range has none.
pub fn tensor_pieces(range: Range<u64>) -> impl Iterator<Item = u64> {
    let count = range.end.saturating_sub(range.start).div_ceil(TENSOR_PIECE);
    (1..=count).map(move |piece| {
        range
            .end
            .min(range.start.saturating_add(piece * TENSOR_PIECE))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_counted_from_the_start_of_the_tensor() {
        let pieces = |range| tensor_pieces(range).collect::<Vec<_>>();
        assert_eq!(pieces(5..5), [0; 0]);
        assert_eq!(pieces(5..6), [6]);
        assert_eq!(pieces(5..5 + TENSOR_PIECE), [5 + TENSOR_PIECE]);
        assert_eq!(
            pieces(5..6 + 2 * TENSOR_PIECE),
            [5 + TENSOR_PIECE, 5 + 2 * TENSOR_PIECE, 6 + 2 * TENSOR_PIECE]
        );
        assert_eq!(pieces(u64::MAX - 3..u64::MAX), [u64::MAX]);
        #[expect(clippy::reversed_empty_ranges, reason = "hostile input")]
        let backwards = pieces(9..5);
        assert_eq!(backwards, [0; 0]);
    }

    #[test]
    fn a_piece_holds_whole_elements_of_every_type() {
        assert!(TENSOR_PIECE.is_multiple_of(16));
        assert_eq!(Dtype::Bf16.element_size(), 2);
        assert_eq!(Dtype::C64.element_size(), 8);
        assert_eq!(Dtype::F4.element_size(), 1);
        assert_eq!(Dtype::Unknown.element_size(), 1);
    }

    #[test]
    fn a_plain_file_is_one_segment_and_an_empty_file_none() {
        assert_eq!(Layout::plain(0).segments(), []);
        let whole = LayoutSegment {
            range: 0..9,
            kind: SegmentKind::Plain,
        };
        assert_eq!(Layout::plain(9).segments(), [whole]);
        assert!(Layout::plain(9).is_plain());
    }
}
