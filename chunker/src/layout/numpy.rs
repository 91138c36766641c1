//! The header of NumPy's `.npy`, versions 1 to 3: a magic, a length, and a Python dictionary of
//! three entries as text.
//!
//! Lives here: reading that header, for a file and for a member of an `.npz`. Does not live here:
//! the archive. The format: `numpy/numpy`, `numpy/lib/_format_impl.py`.
//!
//! Must stay true: the dictionary is scanned as text and never evaluated; a structured type, or
//! anything that does not add up, is `None`.

use std::ops::Range;

use super::{
    Dtype,
    source::Source,
    tensors::{Tensor, elements},
};

pub(super) const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest dictionary that is read.
const MAX_TEXT: u64 = 64 << 10;
const MAX_SIDES: usize = 64;

/// The array that fills `range`; `name` is what to call it.
pub(super) fn array(source: &mut Source<'_>, range: &Range<u64>, name: &str) -> Option<Tensor> {
    let start = range.start;
    let head: [u8; 10] = source.array(start)?;
    let (magic, rest) = head.split_first_chunk()?;
    if magic != MAGIC {
        return None;
    }
    let (prefix, len) = match *rest {
        [1, 0, low, high] => (10, u64::from(u16::from_le_bytes([low, high]))),
        [2 | 3, 0, ..] => {
            let len = source.array(start.checked_add(8)?)?;
            (12, u64::from(u32::from_le_bytes(len)))
        }
        _ => return None,
    };
    if len > MAX_TEXT {
        return None;
    }
    let text_start = start.checked_add(prefix)?;
    let data_start = text_start.checked_add(len)?;
    if data_start > range.end {
        return None;
    }
    let text = source.bytes(text_start..data_start)?;
    let header = Header::parse(std::str::from_utf8(&text).ok()?)?;
    let bytes = elements(&header.shape)?.checked_mul(header.size)?;
    if data_start.checked_add(bytes)? != range.end {
        return None;
    }
    Some(Tensor {
        name: name.to_owned(),
        dtype: header.dtype,
        big_endian: header.big_endian,
        shape: Some(header.shape),
        range: data_start..range.end,
    })
}

struct Header {
    dtype: Dtype,
    /// Bytes of an element.
    size: u64,
    big_endian: bool,
    shape: Vec<u64>,
}

impl Header {
    fn parse(text: &str) -> Option<Self> {
        let (mut descr, mut shape, mut order) = (None, None, false);
        let mut rest = text.trim_start().strip_prefix('{')?;
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if let Some(end) = rest.strip_prefix('}') {
                if !end.trim_end().is_empty() || !order {
                    return None;
                }
                let (dtype, size, big_endian) = element(descr?)?;
                return Some(Self {
                    dtype,
                    size,
                    big_endian,
                    shape: shape?,
                });
            }
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            rest = match key {
                "descr" if descr.is_none() => {
                    let (text, after) = quoted(value)?;
                    descr = Some(text);
                    after
                }
                "shape" if shape.is_none() => {
                    let (text, after) = value.strip_prefix('(')?.split_once(')')?;
                    shape = Some(sides(text)?);
                    after
                }
                "fortran_order" if !order => {
                    order = true;
                    let is_true = value.strip_prefix("True");
                    is_true.or_else(|| value.strip_prefix("False"))?
                }
                _ => return None,
            };
        }
    }
}

/// A text between quotes of either kind, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut chars = text.chars();
    let quote = chars.next().filter(|c| matches!(c, '\'' | '"'))?;
    chars.as_str().split_once(quote)
}

fn sides(text: &str) -> Option<Vec<u64>> {
    let mut shape = Vec::new();
    for side in text.trim().trim_end_matches(',').split(',') {
        let side = side.trim().trim_end_matches('L');
        if side.is_empty() && shape.is_empty() {
            continue;
        }
        if shape.len() == MAX_SIDES {
            return None;
        }
        shape.push(side.parse().ok()?);
    }
    Some(shape)
}

/// Type, size in bytes and byte order of what NumPy writes as `<f4`.
fn element(descr: &str) -> Option<(Dtype, u64, bool)> {
    let mut chars = descr.chars();
    let big_endian = match chars.next()? {
        '<' | '|' | '=' => false,
        '>' => true,
        _ => return None,
    };
    let kind = chars.next()?;
    let (size, scale): (u64, u64) = (
        chars.as_str().parse().ok()?,
        if kind == 'U' { 4 } else { 1 },
    );
    let dtype = match (kind, size) {
        ('f', 8) => Dtype::F64,
        ('f', 4) => Dtype::F32,
        ('f', 2) => Dtype::F16,
        ('c', 8) => Dtype::C64,
        ('c', 16) => Dtype::C128,
        ('i', 8) => Dtype::I64,
        ('i', 4) => Dtype::I32,
        ('i', 2) => Dtype::I16,
        ('i', 1) => Dtype::I8,
        ('u', 8) => Dtype::U64,
        ('u', 4) => Dtype::U32,
        ('u', 2) => Dtype::U16,
        ('u', 1) => Dtype::U8,
        ('b', 1) => Dtype::Bool,
        // Other sizes, times, texts, and the raw elements that types of other packages become.
        ('f' | 'i' | 'u' | 'm' | 'M' | 'S' | 'U' | 'V', _) => Dtype::Unknown,
        _ => return None,
    };
    Some((dtype, size.checked_mul(scale)?, big_endian))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data_len: usize) -> Vec<u8> {
        let len = u16::try_from(header.len()).unwrap().to_le_bytes();
        [
            &MAGIC[..],
            &[1, 0],
            &len,
            header.as_bytes(),
            &vec![7; data_len],
        ]
        .concat()
    }

    fn parsed(header: &str, data_len: usize) -> Option<(Dtype, bool, Vec<u64>)> {
        let file = file(header, data_len);
        let mut reader = crate::fuzz::reader(&file);
        let mut read = |offset: u64, buffer: &mut [u8]| {
            let Ok(got) = reader(offset, buffer);
            got
        };
        let len = file.len() as u64;
        let array = array(&mut Source::new(len, &mut read), &(0..len), "")?;
        assert_eq!(array.range, len - data_len as u64..len);
        Some((array.dtype, array.big_endian, array.shape?))
    }

    #[test]
    fn types_and_shapes_are_read_as_numpy_writes_them() {
        let header = |descr: &str, shape: &str| {
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}  \n")
        };
        let cases = [
            ("<f4", "(3, 2)", 24, Dtype::F32, false, vec![3, 2]),
            (">f8", "(3,)", 24, Dtype::F64, true, vec![3]),
            ("|u1", "()", 1, Dtype::U8, false, vec![]),
            ("<c16", "(0, 5)", 0, Dtype::C128, false, vec![0, 5]),
            ("<U3", "(2,)", 24, Dtype::Unknown, false, vec![2]),
            ("|V2", "(7L, 1L)", 14, Dtype::Unknown, false, vec![7, 1]),
            ("<M8[s]", "(1,)", 8, Dtype::Unknown, false, vec![]),
        ];
        for (descr, shape, len, dtype, big_endian, sides) in cases {
            let found = parsed(&header(descr, shape), len);
            let wanted = (dtype, big_endian, sides);
            let is_time = descr.contains('[');
            assert_eq!(found, (!is_time).then_some(wanted), "{descr} {shape}");
        }
    }

    #[test]
    fn a_header_that_does_not_add_up_is_no_array() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        assert!(parsed(good, 8).is_some());
        assert!(parsed(&good.replace('\'', "\""), 8).is_some());
        for len in [0, 7, 9, 800] {
            assert_eq!(parsed(good, len), None, "{len}");
        }
        for (from, to) in [
            ("(2,)", "(2"),
            ("(2,)", "(-2,)"),
            ("(2,)", "(4294967296, 4294967296)"),
            ("(2,)", "(9223372036854775807,)"),
            ("(2,)", "[2]"),
            ("'<f4'", "[('x', '<f4')]"),
            ("<f4", "^f4"),
            ("<f4", "|O"),
            ("<f4", ""),
            ("<f4", "<f99999999999999999999"),
            ("False", "Maybe"),
            ("'shape'", "'shape': (2,), 'shape'"),
            ("'shape'", "'other'"),
            (", }", ", } x"),
            ("{", ""),
            ("}", ""),
        ] {
            assert_eq!(parsed(&good.replacen(from, to, 1), 8), None, "{from} {to}");
        }
    }
}
