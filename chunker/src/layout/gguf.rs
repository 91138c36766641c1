//! The header of GGUF, versions 2 and 3, in either byte order: counts, key-value pairs, one entry a
//! tensor, then the tensors at a multiple of the alignment.
//!
//! Lives here: reading that header without trusting it, and the table of its types. Does not live
//! here: anything that reads the tensors' bytes. The format: `ggml-org/ggml`, `docs/gguf.md`.
//!
//! Must stay true: every refusal is `None`; values are walked over, never kept, except the
//! alignment; nesting is bounded; a type that is not in the table reaches to the next tensor.

use super::{
    Dtype,
    source::{Cursor, Source},
    tensors::{Tensor, elements, has_duplicates},
};

pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Where counts begin: after the magic and the version.
const COUNTS: u64 = 8;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;
const ALIGNMENT_KEY: &[u8] = b"general.alignment";
/// Longest key or name that is looked at.
const MAX_NAME: u64 = 4 << 10;
const MAX_SIDES: u32 = 8;
/// Arrays within arrays.
const MAX_DEPTH: u8 = 4;
/// Least bytes of a tensor's entry: its name's length, count of sides, type and offset.
const LEAST_ENTRY: u64 = 24;

/// Type of a value, as the file numbers them.
mod value {
    pub(super) const U32: u32 = 4;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;

    /// Bytes of a value of fixed size.
    pub(super) const fn size(kind: u32) -> Option<u64> {
        match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        }
    }
}

/// A type: its number, its name, elements in a block, bytes of a block.
struct Kind(u8, &'static str, u64, u64);

const KINDS: [Kind; 26] = [
    Kind(2, "q4_0", 32, 18),
    Kind(3, "q4_1", 32, 20),
    Kind(6, "q5_0", 32, 22),
    Kind(7, "q5_1", 32, 24),
    Kind(8, "q8_0", 32, 34),
    Kind(9, "q8_1", 32, 40),
    Kind(10, "q2_k", 256, 84),
    Kind(11, "q3_k", 256, 110),
    Kind(12, "q4_k", 256, 144),
    Kind(13, "q5_k", 256, 176),
    Kind(14, "q6_k", 256, 210),
    Kind(15, "q8_k", 256, 292),
    Kind(16, "iq2_xxs", 256, 66),
    Kind(17, "iq2_xs", 256, 74),
    Kind(18, "iq3_xxs", 256, 98),
    Kind(19, "iq1_s", 256, 50),
    Kind(20, "iq4_nl", 32, 18),
    Kind(21, "iq3_s", 256, 110),
    Kind(22, "iq2_s", 256, 82),
    Kind(23, "iq4_xs", 256, 136),
    Kind(29, "iq1_m", 256, 56),
    Kind(34, "tq1_0", 256, 54),
    Kind(35, "tq2_0", 256, 66),
    Kind(39, "mxfp4", 32, 17),
    Kind(40, "nvfp4", 64, 36),
    Kind(41, "q1_0", 128, 18),
];

/// The name of a quantised type.
pub(super) const fn type_name(kind: u8) -> &'static str {
    let mut rest: &[Kind] = &KINDS;
    while let [Kind(number, name, ..), after @ ..] = rest {
        if *number == kind {
            return name;
        }
        rest = after;
    }
    "quantised"
}

/// The tensors of a file that begins with [`MAGIC`], if the whole header holds together.
pub(super) fn tensors(source: &mut Source<'_>) -> Option<Vec<Tensor>> {
    let version: [u8; 4] = source.array(4)?;
    let big_endian = match version {
        [2 | 3, 0, 0, 0] => false,
        [0, 0, 0, 2 | 3] => true,
        _ => return None,
    };
    let file_len = source.len();
    let mut cursor = Cursor::new(source, COUNTS, big_endian);
    let (tensor_count, pair_count) = (cursor.u64()?, cursor.u64()?);
    let mut alignment = DEFAULT_ALIGNMENT;
    for _ in 0..pair_count {
        let is_alignment = name(&mut cursor)? == ALIGNMENT_KEY;
        let kind = cursor.u32()?;
        if is_alignment && kind == value::U32 {
            alignment = u64::from(cursor.u32()?);
        } else {
            skip_value(&mut cursor, kind, 0)?;
        }
    }
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return None;
    }
    if tensor_count > cursor.left() / LEAST_ENTRY {
        return None;
    }
    let mut entries = Vec::new();
    for _ in 0..tensor_count {
        entries.push(entry(&mut cursor, alignment)?);
    }
    let data_start = cursor.at().checked_next_multiple_of(alignment)?;
    let tensors = placed(entries, data_start, file_len, big_endian)?;
    (!has_duplicates(&tensors)).then_some(tensors)
}

fn name<'c>(cursor: &'c mut Cursor<'_, '_>) -> Option<&'c [u8]> {
    let len = cursor.u64().filter(|len| *len <= MAX_NAME)?;
    cursor.take(usize::try_from(len).ok()?)
}

fn skip_value(cursor: &mut Cursor<'_, '_>, kind: u32, depth: u8) -> Option<()> {
    match kind {
        value::STRING => {
            let len = cursor.u64()?;
            cursor.skip(len)
        }
        value::ARRAY if depth < MAX_DEPTH => {
            let (kind, count) = (cursor.u32()?, cursor.u64()?);
            if let Some(size) = value::size(kind) {
                return cursor.skip(count.checked_mul(size)?);
            }
            // Each element has a length of its own, so that the file bounds their number.
            for _ in 0..count {
                skip_value(cursor, kind, depth + 1)?;
            }
            Some(())
        }
        other => cursor.skip(value::size(other)?),
    }
}

/// What the header says of a tensor; `len` is `None` for a type that is not in the table.
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    offset: u64,
    len: Option<u64>,
}

fn entry(cursor: &mut Cursor<'_, '_>, alignment: u64) -> Option<Entry> {
    let name = String::from_utf8(name(cursor)?.to_vec()).ok()?;
    let sides = cursor.u32().filter(|sides| *sides <= MAX_SIDES)?;
    let mut shape = Vec::new();
    for _ in 0..sides {
        shape.push(cursor.u64()?);
    }
    let (dtype, block, bytes) = size_of(cursor.u32()?);
    let offset = cursor.u64()?;
    let count = elements(&shape)?;
    let row = shape.first().copied().unwrap_or(1);
    if !offset.is_multiple_of(alignment) || !row.is_multiple_of(block) {
        return None;
    }
    let len = match bytes {
        Some(bytes) => Some((count / block).checked_mul(bytes)?),
        None => None,
    };
    Some(Entry {
        name,
        dtype,
        shape,
        offset,
        len,
    })
}

/// A type, the elements in one of its blocks and, where known, the bytes of a block.
fn size_of(kind: u32) -> (Dtype, u64, Option<u64>) {
    let dtype = match kind {
        0 => Dtype::F32,
        1 => Dtype::F16,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::Bf16,
        other => {
            let mut kinds = KINDS.iter();
            return match kinds.find(|Kind(number, ..)| u32::from(*number) == other) {
                Some(Kind(number, _, block, bytes)) => {
                    (Dtype::Quantised(*number), *block, Some(*bytes))
                }
                None => (Dtype::Unknown, 1, None),
            };
        }
    };
    (dtype, 1, Some(u64::from(dtype.element_size())))
}

/// Offsets in the file; a tensor of unknown size reaches to the next one, or to the file's end.
fn placed(
    mut entries: Vec<Entry>,
    data_start: u64,
    file_len: u64,
    big_endian: bool,
) -> Option<Vec<Tensor>> {
    entries.sort_by_key(|entry| entry.offset);
    let mut next = file_len;
    let mut tensors = Vec::new();
    for entry in entries.into_iter().rev() {
        let start = data_start.checked_add(entry.offset)?;
        let end = match entry.len {
            Some(len) => start.checked_add(len)?,
            None => next.max(start),
        };
        next = start;
        tensors.push(Tensor {
            name: entry.name,
            dtype: entry.dtype,
            big_endian,
            shape: Some(entry.shape),
            range: start..end,
        });
    }
    Some(tensors)
}

#[cfg(test)]
mod tests {
    use super::super::{Layout, SegmentKind, at_hand};
    use super::*;
    use crate::fuzz;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn info(name: &str, sides: &[u64], kind: u32, offset: u64) -> Vec<u8> {
        let count = u32::try_from(sides.len()).unwrap().to_le_bytes();
        let sides: Vec<u8> = sides.iter().flat_map(|side| side.to_le_bytes()).collect();
        let tail = [&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat();
        [text(name), count.to_vec(), sides, tail].concat()
    }

    fn file(pairs: &[Vec<u8>], infos: &[Vec<u8>], data_len: usize) -> Vec<u8> {
        let counts = [infos.len() as u64, pairs.len() as u64];
        let mut file = [&MAGIC[..], &[3, 0, 0, 0]].concat();
        file.extend(counts.into_iter().flat_map(u64::to_le_bytes));
        file.extend([pairs.concat(), infos.concat()].concat());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(fuzz::random(data_len, 1));
        file
    }

    fn layout(pairs: &[Vec<u8>], infos: &[Vec<u8>], data_len: usize) -> Layout {
        let file = file(pairs, infos, data_len);
        at_hand(&file, file.len() as u64)
    }

    #[test]
    fn a_tensor_of_an_unknown_type_reaches_to_the_next() {
        let infos = [
            info("b", &[5000], 999, 8192),
            info("a", &[2048], 0, 0),
            info("c", &[5000], 999, 16_384),
        ];
        let found = layout(&[], &infos, 20_000);
        let tensors = found.segments().iter().skip(1).map(|segment| {
            let SegmentKind::Tensor { dtype, .. } = segment.kind else {
                panic!("{segment:?}")
            };
            (dtype, segment.range.end - segment.range.start)
        });
        let unknown = Dtype::Unknown;
        let wanted = [
            (Dtype::F32, 8192),
            (unknown, 8192),
            (unknown, 20_000 - 16_384),
        ];
        assert!(tensors.eq(wanted));
    }

    #[test]
    fn a_header_that_does_not_add_up_makes_the_file_plain() {
        let good = || info("a", &[32, 256], 8, 0);
        let nested = |depth: usize| {
            let open = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
            [
                text("deep"),
                9u32.to_le_bytes().to_vec(),
                open.repeat(depth),
            ]
            .concat()
        };
        let pair = |kind: u32, value: &[u8]| [&text("k")[..], &kind.to_le_bytes(), value].concat();
        let alignment = |value: u32| {
            [
                text("general.alignment"),
                [4u32, value].map(u32::to_le_bytes).concat(),
            ]
            .concat()
        };
        assert!(!layout(&[], &[good()], 8704).is_plain());
        assert!(!layout(&[pair(8, &text("v"))], &[good()], 8704).is_plain());
        assert!(!layout(&[alignment(16)], &[good()], 8704).is_plain());
        let wrong_pairs = [
            pair(8, &u64::MAX.to_le_bytes()),
            pair(13, &[0; 8]),
            pair(9, &[0xff; 12]),
            pair(
                9,
                &[&4u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat(),
            ),
            nested(5),
            nested(100_000),
            alignment(0),
            alignment(33),
            alignment(1 << 30),
        ];
        for (number, wrong) in wrong_pairs.into_iter().enumerate() {
            assert!(
                layout(&[wrong], &[good()], 8704).is_plain(),
                "pair {number}"
            );
        }
        let wrong_tensors = [
            vec![good(), good()],
            vec![good(), info("b", &[32], 8, 32)],
            vec![info("a", &[32, 256], 8, 16)],
            vec![info("a", &[16, 512], 8, 0)],
            vec![info("a", &[32, 257], 8, 0)],
            vec![info("a", &[u64::MAX, 2], 0, 0)],
            vec![info("a", &[32, 1 << 62], 0, 0)],
            vec![info("a", &[2048], 0, u64::MAX - 31)],
            vec![info("a", &[1; 9], 0, 0)],
            vec![
                info("\u{80}", &[2048], 0, 0)
                    .into_iter()
                    .filter(|b| *b != 0xc2)
                    .collect(),
            ],
            vec![],
        ];
        for (number, wrong) in wrong_tensors.into_iter().enumerate() {
            assert!(layout(&[], &wrong, 8704).is_plain(), "tensors {number}");
        }
        let mut many = file(&[], &[good()], 8704);
        many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(at_hand(&many, many.len() as u64).is_plain());
        let mut first = file(&[], &[good()], 8704);
        first[4] = 1;
        assert!(at_hand(&first, first.len() as u64).is_plain());
    }
}
