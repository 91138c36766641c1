//! From the tensors that a header tells of to the segments of the file.
//!
//! Lives here: [`Tensor`], what all formats have in common, the check that tensors lie in the file
//! and do not overlap, and grouping tiny tensors. Does not live here: any header.
//!
//! Tensors below [`TINY`] share a segment with their neighbours, across gaps of up to
//! [`MAX_GAP`] bytes (the headers between the members of an archive). Where a group ends is decided
//! by the name of its last tensor (one name in eight ends a group), so that tensors in another
//! order or behind another header mostly meet in the same groups again.

use std::ops::Range;

use super::{Dtype, LayoutSegment, SegmentKind};

/// Tensors of this size and more have a segment of their own.
const TINY: u64 = 4 << 10;
/// A group that has reached this size ends.
const MAX_GROUP: u64 = 64 << 10;
/// Longest stretch between two tiny tensors that does not part them.
const MAX_GAP: u64 = 256;
pub(super) const NAME_CONTEXT: &str = "strongroom v1 tensor name";
pub(super) const GROUP_CONTEXT: &str = "strongroom v1 tensor group";

/// A tensor as a header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The name in the file.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Whether each element's bytes come highest first.
    pub big_endian: bool,
    /// Sides, in the order of the file's format; `None` where the header does not say.
    pub shape: Option<Vec<u64>>,
    /// Where its bytes are in the file.
    pub range: Range<u64>,
}

impl Tensor {
    fn name_hash(&self) -> [u8; 32] {
        blake3::derive_key(NAME_CONTEXT, self.name.as_bytes())
    }
}

/// Whether two tensors have one name.
pub(super) fn has_duplicates(tensors: &[Tensor]) -> bool {
    let mut names: Vec<_> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a == b))
}

/// Product of the sides, if it fits in 64 bits.
pub(super) fn elements(shape: &[u64]) -> Option<u64> {
    shape
        .iter()
        .try_fold(1u64, |product, side| product.checked_mul(*side))
}

/// Whether `len` bytes are what a shape of elements of this type takes; true if its size is not
/// known.
pub(super) fn has_len(dtype: Dtype, shape: &[u64], len: u64) -> bool {
    let Some(bits) = dtype.bits() else {
        return true;
    };
    elements(shape).is_some_and(|count| u128::from(count) * u128::from(bits) == u128::from(len) * 8)
}

/// Sorts tensors by their place and drops those without a byte; `None` where one reaches over the
/// end of the file or into another.
pub(super) fn in_order(mut tensors: Vec<Tensor>, file_len: u64) -> Option<Vec<Tensor>> {
    tensors.sort_unstable_by_key(|tensor| (tensor.range.start, tensor.range.end));
    let mut covered = 0;
    for tensor in &tensors {
        let Range { start, end } = tensor.range;
        if start < covered || end < start || end > file_len {
            return None;
        }
        covered = end;
    }
    tensors.retain(|tensor| !tensor.range.is_empty());
    Some(tensors)
}

/// Segments of a file with these tensors, which are [`in_order`]; what lies between is plain.
pub(super) fn arrange(tensors: &[Tensor], file_len: u64) -> Vec<LayoutSegment> {
    let mut segments = Vec::new();
    let mut at = 0;
    let mut group = Group::default();
    for tensor in tensors {
        let tiny = tensor.range.end - tensor.range.start < TINY;
        let gap = tensor.range.start - at;
        if !tiny || gap > MAX_GAP || (gap > 0 && group.is_empty()) {
            group.close(&mut segments);
            push_plain(&mut segments, at..tensor.range.start);
        }
        group.add(tensor);
        if !tiny || group.is_full() {
            group.close(&mut segments);
        }
        at = tensor.range.end;
    }
    group.close(&mut segments);
    push_plain(&mut segments, at..file_len);
    segments
}

fn push_plain(segments: &mut Vec<LayoutSegment>, range: Range<u64>) {
    if !range.is_empty() {
        segments.push(LayoutSegment {
            range,
            kind: SegmentKind::Plain,
        });
    }
}

/// Neighbouring tensors that share a segment; empty between two segments.
#[derive(Default)]
struct Group {
    range: Range<u64>,
    /// One type and byte order, or `None` for a mixture.
    elements: Option<(Dtype, bool)>,
    name_hashes: Vec<[u8; 32]>,
}

impl Group {
    const fn is_empty(&self) -> bool {
        self.name_hashes.is_empty()
    }

    fn add(&mut self, tensor: &Tensor) {
        let elements = Some((tensor.dtype, tensor.big_endian));
        if self.is_empty() {
            self.range.start = tensor.range.start;
            self.elements = elements;
        } else if self.elements != elements || self.range.end != tensor.range.start {
            self.elements = None;
        }
        self.range.end = tensor.range.end;
        self.name_hashes.push(tensor.name_hash());
    }

    fn is_full(&self) -> bool {
        let ends_a_group = |name: &[u8; 32]| matches!(name, [first, ..] if first % 8 == 0);
        self.range.end - self.range.start >= MAX_GROUP
            || self.name_hashes.last().is_some_and(ends_a_group)
    }

    fn close(&mut self, segments: &mut Vec<LayoutSegment>) {
        let Self {
            range,
            elements,
            name_hashes,
        } = std::mem::take(self);
        let name_hash = match name_hashes.as_slice() {
            [] => return,
            [only] => *only,
            several => blake3::derive_key(GROUP_CONTEXT, several.as_flattened()),
        };
        let kind = elements.map_or(SegmentKind::Plain, |(dtype, big_endian)| {
            SegmentKind::Tensor {
                dtype,
                big_endian,
                name_hash,
            }
        });
        segments.push(LayoutSegment { range, kind });
    }
}
