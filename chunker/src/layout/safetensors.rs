//! The safetensors header: an 8-byte little-endian length, JSON of that length, then the tensors.
//!
//! Lives here: reading that header without trusting it. Does not live here: anything that reads the
//! tensors' bytes. The format: `huggingface/safetensors`, `README.md`.
//!
//! Must stay true: every refusal is `None`, which makes the file plain; what is kept of a header is
//! a small multiple of its length; no depth of nesting reaches the stack.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Dtype,
    source::Source,
    tensors::{Tensor, elements, has_duplicates, has_len},
};

/// Longest JSON that is read; models of ten thousand tensors have about one MiB.
const MAX_JSON: u64 = 16 << 20;
const PREFIX: u64 = 8;
/// Most sides of a tensor.
const MAX_SIDES: usize = 16;
const METADATA: &str = "__metadata__";

/// Whether the first 16 bytes can be those of such a file.
pub(super) fn is_likely(head: &[u8], file_len: u64) -> bool {
    header_len(head, file_len).is_some()
}

/// Length of prefix and JSON together.
fn header_len(head: &[u8], file_len: u64) -> Option<u64> {
    let (prefix, json) = head.split_first_chunk()?;
    let json_len = u64::from_le_bytes(*prefix);
    let plausible = (2..=MAX_JSON).contains(&json_len)
        && json.first() == Some(&b'{')
        && PREFIX + json_len <= file_len;
    plausible.then(|| PREFIX + json_len)
}

/// The tensors of the file, if the whole header holds together.
pub(super) fn tensors(head: &[u8], source: &mut Source<'_>) -> Option<Vec<Tensor>> {
    let header_len = header_len(head, source.len())?;
    let json = source.bytes(PREFIX..header_len)?;
    let Header(mut tensors) = serde_json::from_slice(&json).ok()?;
    if has_duplicates(&tensors) {
        return None;
    }
    for tensor in &mut tensors {
        tensor.range.start = tensor.range.start.checked_add(header_len)?;
        tensor.range.end = tensor.range.end.checked_add(header_len)?;
    }
    Some(tensors)
}

/// All tensors in the order of the JSON, their places counted from the end of the header.
struct Header(Vec<Tensor>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Header, A::Error> {
                let mut tensors = Vec::new();
                let mut metadata = false;
                while let Some(key) = members.next_key()? {
                    match key {
                        Key::Metadata if metadata => {
                            return Err(A::Error::custom("metadata twice"));
                        }
                        Key::Metadata => {
                            members.next_value::<IgnoredAny>()?;
                            metadata = true;
                        }
                        Key::Tensor { name } => {
                            let entry: Entry = members.next_value()?;
                            tensors.push(entry.named(name).map_err(A::Error::custom)?);
                        }
                    }
                }
                Ok(Header(tensors))
            }
        }
        from.deserialize_map(Members)
    }
}

enum Key {
    Metadata,
    Tensor { name: String },
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a tensor")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                if name == METADATA {
                    return Ok(Key::Metadata);
                }
                Ok(Key::Tensor {
                    name: name.to_owned(),
                })
            }
        }
        from.deserialize_str(Name)
    }
}

#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

impl Entry {
    fn named(self, name: String) -> Result<Tensor, &'static str> {
        let (begin, end) = self.data_offsets;
        let Shape(shape) = self.shape;
        let len = end.checked_sub(begin).ok_or("offsets descend")?;
        if !has_len(self.dtype, &shape, len) {
            return Err("shape and offsets disagree");
        }
        Ok(Tensor {
            name,
            dtype: self.dtype,
            big_endian: false,
            shape: Some(shape),
            range: begin..end,
        })
    }
}

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Dtype;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an element type")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Dtype, E> {
                Ok(dtype(name))
            }
        }
        from.deserialize_str(Name)
    }
}

fn dtype(name: &str) -> Dtype {
    match name {
        "F64" => Dtype::F64,
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::Bf16,
        "F8_E4M3" => Dtype::F8E4m3,
        "F8_E5M2" => Dtype::F8E5m2,
        "F8_E8M0" => Dtype::F8E8m0,
        "F6_E2M3" => Dtype::F6E2m3,
        "F6_E3M2" => Dtype::F6E3m2,
        "F4" => Dtype::F4,
        "C64" => Dtype::C64,
        "I64" => Dtype::I64,
        "I32" => Dtype::I32,
        "I16" => Dtype::I16,
        "I8" => Dtype::I8,
        "U64" => Dtype::U64,
        "U32" => Dtype::U32,
        "U16" => Dtype::U16,
        "U8" => Dtype::U8,
        "BOOL" => Dtype::Bool,
        _ => Dtype::Unknown,
    }
}

/// The sides of a tensor.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Sides;
        impl<'de> Visitor<'de> for Sides {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a shape")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sides: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(side) = sides.next_element()? {
                    if shape.len() == MAX_SIDES {
                        return Err(A::Error::custom("more sides than any tensor has"));
                    }
                    shape.push(side);
                }
                if elements(&shape).is_none() {
                    return Err(A::Error::custom("more elements than fit in 64 bits"));
                }
                Ok(Shape(shape))
            }
        }
        from.deserialize_seq(Sides)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::{
        Layout, SegmentKind, at_hand as recognise, fuzz_layout,
        tensors::{GROUP_CONTEXT, NAME_CONTEXT},
    };
    use super::*;
    use crate::{Chunker, ChunkerKind, ChunkerParams, fuzz};

    fn file(json: &str, data_len: usize) -> Vec<u8> {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend(json.as_bytes());
        file.extend(fuzz::random(data_len, 1));
        file
    }

    fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
        format!(
            r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#
        )
    }

    fn layout(json: &str, data_len: usize) -> Layout {
        let file = file(json, data_len);
        recognise(&file, file.len() as u64)
    }

    fn name_hash(name: &str) -> [u8; 32] {
        blake3::derive_key(NAME_CONTEXT, name.as_bytes())
    }

    fn tensor(dtype: Dtype, name: &str) -> SegmentKind {
        SegmentKind::Tensor {
            dtype,
            big_endian: false,
            name_hash: name_hash(name),
        }
    }

    #[test]
    fn tensors_get_segments_in_file_order_and_the_rest_is_plain() {
        let json = format!(
            r#"{{"__metadata__":{{"format":"pt"}},{},{}}}   "#,
            entry("b", "F32", "2,1024", 10_000, 18_192),
            entry("a", "BF16", "5000", 0, 10_000),
        );
        let header = 8 + json.len() as u64;
        let found = layout(&json, 20_000);
        let kinds: Vec<_> = found
            .segments()
            .iter()
            .map(|s| (s.range.clone(), s.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                (0..header, SegmentKind::Plain),
                (header..header + 10_000, tensor(Dtype::Bf16, "a")),
                (header + 10_000..header + 18_192, tensor(Dtype::F32, "b")),
                (header + 18_192..header + 20_000, SegmentKind::Plain),
            ]
        );
        assert!(!found.is_plain());
    }

    #[test]
    fn no_more_than_the_header_is_needed_and_no_less() {
        let json = format!("{{{}}}", entry("a", "U8", "9000", 0, 9000));
        let file = file(&json, 9000);
        let len = file.len() as u64;
        let header = 8 + json.len();
        assert!(!recognise(&file[..header], len).is_plain());
        assert!(recognise(&file[..header - 1], len).is_plain());
        assert!(is_likely(&file[..16], len));
        assert!(!is_likely(&file[..8], len));
        assert!(!is_likely(&file[..16], header as u64 - 1));
        assert!(!is_likely(b"", 0));
        assert!(!is_likely(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", 5000));
        let huge = [&(MAX_JSON + 1).to_le_bytes()[..], b"{\"a\": {}"].concat();
        assert!(!is_likely(&huge, u64::MAX));
    }

    #[test]
    fn a_length_beyond_all_numbers_makes_the_file_plain() {
        assert_eq!(header_len(&[0xff; 64], 64), None);
        let mut head = [b'{'; 64];
        head[..8].copy_from_slice(&(u64::MAX - 7).to_le_bytes());
        assert_eq!(header_len(&head, u64::MAX), None);
    }

    #[test]
    fn a_header_that_does_not_add_up_makes_the_file_plain() {
        let good = entry("a", "F32", "2048", 0, 8192);
        assert!(!layout(&format!("{{{good}}}"), 8192).is_plain());
        let wrong = [
            String::new(),
            "{".into(),
            "[]".into(),
            format!("[{good}]"),
            format!("{{{good}}} x"),
            format!(" {{{good}}}"),
            format!("{{{good},{good}}}"),
            format!(r#"{{"__metadata__":{{}},"__metadata__":{{}},{good}}}"#),
            format!("{{{good},{}}}", entry("b", "F32", "1", 8188, 8192)),
            format!("{{{good},{}}}", entry("b", "F32", "1", 4, 8)),
            format!("{{{}}}", entry("a", "F32", "2049", 0, 8196)),
            format!("{{{}}}", entry("a", "F32", "2048", 0, 8188)),
            format!("{{{}}}", entry("a", "F32", "2048", 8192, 0)),
            format!("{{{}}}", entry("a", "F32", "-1", 0, 8192)),
            format!("{{{}}}", entry("a", "F32", "2048.0", 0, 8192)),
            format!(
                "{{{}}}",
                entry("a", "F32", "4294967296,4294967296", 0, 8192)
            ),
            format!("{{{}}}", entry("a", "F32", "[2048]", 0, 8192)),
            r#"{"a":{"dtype":"F32","shape":[2048]}}"#.into(),
            r#"{"a":{"dtype":"F32","shape":[2048],"data_offsets":[0]}}"#.into(),
            r#"{"a":{"dtype":"F32","shape":[2048],"data_offsets":[0,8192,1]}}"#.into(),
            r#"{"a":{"dtype":7,"shape":[2048],"data_offsets":[0,8192]}}"#.into(),
            r#"{"a":{"dtype":"F32","dtype":"F32","shape":[2048],"data_offsets":[0,8192]}}"#.into(),
            "{\"\u{0}".into(),
        ];
        for json in wrong {
            assert!(layout(&json, 8192).is_plain(), "{json}");
        }
        let not_text = [&[b'{', b'"', 0xff, b'"', b':'][..], good.as_bytes(), b"}"].concat();
        let head = [&(not_text.len() as u64).to_le_bytes()[..], &not_text].concat();
        assert!(recognise(&head, 1 << 20).is_plain());
    }

    #[test]
    fn names_that_differ_only_in_escapes_are_duplicates() {
        let json = format!(
            "{{{},{}}}",
            entry("ab", "U8", "5000", 0, 5000),
            entry("a\\u0062", "U8", "5000", 5000, 10_000)
        );
        assert!(layout(&json, 10_000).is_plain());
    }

    #[test]
    fn nesting_reaches_neither_the_stack_nor_the_result() {
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(1 << 20);
            for json in [
                format!("{{\"__metadata__\":{deep}"),
                format!("{{\"a\":{{\"more\":{deep}"),
                format!("{{\"a\":{deep}"),
            ] {
                assert!(layout(&json, 100).is_plain());
            }
        }
    }

    #[test]
    fn empty_tensors_and_unknown_types_are_welcome() {
        let json = format!(
            "{{{},{},{}}}",
            entry("none", "F32", "0,7", 0, 0),
            entry("scalar", "I64", "", 0, 8),
            entry("new", "F12_X", "3", 8, 9008),
        );
        let found = layout(&json, 9008);
        let kinds: Vec<_> = found.segments().iter().map(|s| s.kind).collect();
        let expected = [
            SegmentKind::Plain,
            tensor(Dtype::I64, "scalar"),
            tensor(Dtype::Unknown, "new"),
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn elements_smaller_than_a_byte_have_to_fill_bytes() {
        assert!(!layout(&format!("{{{}}}", entry("a", "F4", "10000", 0, 5000)), 5000).is_plain());
        assert!(layout(&format!("{{{}}}", entry("a", "F4", "9999", 0, 5000)), 5000).is_plain());
    }

    #[test]
    fn tiny_neighbours_share_a_segment_typed_if_they_agree() {
        // None of these names ends a group; "c" and "d" differ in type.
        let names: Vec<String> = (0..)
            .map(|i| format!("t{i}"))
            .filter(|n| !name_hash(n)[0].is_multiple_of(8))
            .take(5)
            .collect();
        let [a, b, big, c, d] = names.as_slice() else {
            panic!("five names")
        };
        let json = format!(
            "{{{},{},{},{},{}}}",
            entry(a, "F16", "50", 0, 100),
            entry(b, "F16", "50", 100, 200),
            entry(big, "F16", "2048", 200, 4296),
            entry(c, "F32", "10", 4296, 4336),
            entry(d, "U8", "10", 4336, 4346),
        );
        let header = 8 + json.len() as u64;
        let found = layout(&json, 4346);
        let group = [name_hash(a), name_hash(b)];
        let name_hash = blake3::derive_key(GROUP_CONTEXT, group.as_flattened());
        let kinds: Vec<_> = found
            .segments()
            .iter()
            .skip(1)
            .map(|s| (s.range.clone(), s.kind))
            .collect();
        let f16 = Dtype::F16;
        let expected = [
            (
                header..header + 200,
                SegmentKind::Tensor {
                    dtype: f16,
                    big_endian: false,
                    name_hash,
                },
            ),
            (header + 200..header + 4296, tensor(f16, big)),
            (header + 4296..header + 4346, SegmentKind::Plain),
        ];
        assert_eq!(kinds, expected);
    }

    /// Cuts a file as its layout says and gives the chunks.
    fn chunks(file: &[u8]) -> Vec<&[u8]> {
        let params = ChunkerParams::default();
        let chunker = Chunker::new(ChunkerKind::Gear, params, &[3; 32]);
        let mut chunks = Vec::new();
        for segment in recognise(file, file.len() as u64).segments() {
            let (from, to) = (segment.range.start, segment.range.end);
            let bytes = &file[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
            let mut cuts = Vec::new();
            match segment.kind {
                SegmentKind::Plain => chunker.cut_all(bytes, &mut cuts),
                SegmentKind::Tensor { .. } => cuts.extend(
                    segment
                        .pieces()
                        .map(|cut| usize::try_from(cut - from).unwrap()),
                ),
                _ => panic!("no blocks here"),
            }
            let mut start = 0;
            for cut in cuts {
                chunks.push(&bytes[start..cut]);
                start = cut;
            }
        }
        chunks
    }

    #[test]
    fn the_same_tensors_in_another_order_behind_another_header_are_mostly_the_same_chunks() {
        let model = |order: &[u64], note: &str| {
            let (mut members, mut data) = (Vec::new(), Vec::new());
            for &i in order {
                let elements = [70, 400, 3000, 600_000][usize::try_from(i % 4).unwrap()];
                let begin = data.len() as u64;
                data.extend(fuzz::random(2 * elements, i));
                let shape = elements.to_string();
                members.push(entry(
                    &format!("layer.{i}"),
                    "BF16",
                    &shape,
                    begin,
                    data.len() as u64,
                ));
            }
            let json = format!(
                r#"{{"__metadata__":{{"n":"{note}"}},{}}}"#,
                members.join(",")
            );
            let mut file = (json.len() as u64).to_le_bytes().to_vec();
            file.extend(json.as_bytes());
            file.extend(data);
            file
        };
        let order: Vec<u64> = (0..24).collect();
        let turned: Vec<u64> = (0..24).map(|i| (i * 7 + 5) % 24).collect();
        let (old, new) = (model(&order, ""), model(&turned, "x"));
        assert_eq!(chunks(&old).concat(), old);
        assert_eq!(chunks(&new).concat(), new);
        let known: BTreeSet<&[u8]> = chunks(&old).into_iter().collect();
        let fresh: usize = chunks(&new)
            .iter()
            .filter(|c| !known.contains(*c))
            .map(|c| c.len())
            .sum();
        assert!(
            fresh < 20_000,
            "{fresh} of {} bytes are not found again",
            new.len()
        );
    }

    #[rustfmt::skip]
    const HEADERS: &str = concat!(
        r#"\{("(a|b|__metadata__)":(\{("dtype":"(F32|BF16|X)"|"shape":\[[0-9,]{0,6}\]"#,
        r#"|"data_offsets":\[[0-9]{1,3},[0-9]{1,4}\]|,){0,6}\}|[0-9\[{]*),?){0,4}\}?"#,
    );

    proptest! {
        #[test]
        fn any_header_gives_segments_that_cover_the_file(
            json in HEADERS,
            data_len in 0..3000usize,
        ) {
            fuzz_layout(&file(&json, data_len));
        }

        #[test]
        fn any_honest_header_is_recognised(sizes in prop::collection::vec(0..9000u64, 1..40)) {
            let (mut members, mut at) = (Vec::new(), 0);
            for (i, size) in sizes.iter().enumerate() {
                members.push(entry(&i.to_string(), "I8", &size.to_string(), at, at + size));
                at += size;
            }
            let file = file(&format!("{{{}}}", members.join(",")), usize::try_from(at).unwrap());
            fuzz_layout(&file);
            let all_empty = at == 0;
            prop_assert_eq!(recognise(&file, file.len() as u64).is_plain(), all_empty);
        }

        #[test]
        fn one_changed_byte_never_breaks_the_cover(at in 0..400usize, to in any::<u8>()) {
            let members = [entry("a", "F32", "2,600", 0, 4800), entry("b", "U8", "9", 4800, 4809)];
            let mut file = file(&format!("{{{}}}", members.join(",")), 4809);
            file[at] = to;
            fuzz_layout(&file);
        }

        #[test]
        fn any_bytes_pass_the_fuzz_body(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_layout(&data);
        }
    }
}
