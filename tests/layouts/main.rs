//! Layouts of files that real programs wrote: `samples/` holds them, `make_samples.py` made them,
//! and `samples/expected.json` says what those programs see in them.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test binary: to fail loudly is its job"
)]

use std::{
    convert::Infallible,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use serde_json::Value;
use strongroom_chunker::{
    fuzz::reader,
    layout::{Description, Format, SegmentKind, describe, fuzz_layout},
};

mod restored;

/// A committed sample, or the list of what is in them.
pub(crate) fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("layouts/samples")
}

pub(crate) fn sample(name: &str) -> Vec<u8> {
    fs::read(samples().join(name)).unwrap()
}

fn expected() -> Vec<(String, Value)> {
    let all: Value = serde_json::from_slice(&sample("expected.json")).unwrap();
    let Value::Object(all) = all else {
        panic!("a list of samples")
    };
    all.into_iter().collect()
}

pub(crate) fn described(data: &[u8]) -> Description {
    let Ok(found) = describe(data.len() as u64, &mut reader(data));
    found
}

/// A tensor as both sides write it.
fn line(name: &str, dtype: &str, shape: Option<Vec<u64>>, range: &Range<u64>) -> String {
    format!("{name} {dtype} {shape:?} {range:?}")
}

fn expected_lines(sample: &Value) -> Vec<String> {
    let tensors = sample["tensors"].as_array().unwrap();
    let line = |tensor: &Value| {
        let shape = tensor["shape"].as_array();
        let shape = shape.map(|sides| sides.iter().map(|side| side.as_u64().unwrap()).collect());
        let at = |key: &str| tensor[key].as_u64().unwrap();
        let text = |key: &str| tensor[key].as_str().unwrap();
        line(
            text("name"),
            text("dtype"),
            shape,
            &(at("start")..at("end")),
        )
    };
    tensors.iter().map(line).collect()
}

#[test]
fn a_sample_is_seen_as_the_program_that_wrote_it_sees_it() {
    for (name, sample) in expected() {
        let found = described(&self::sample(&name));
        assert_eq!(found.format.name(), sample["format"], "{name}");
        let lines: Vec<String> = found
            .tensors
            .iter()
            .map(|t| line(&t.name, t.dtype.name(), t.shape.clone(), &t.range))
            .collect();
        let wanted = expected_lines(&sample);
        if sample["only_some"].as_bool() == Some(true) {
            for wanted in wanted {
                assert!(
                    lines.contains(&wanted),
                    "{name}: {wanted} is not in {lines:#?}"
                );
            }
        } else {
            assert_eq!(lines, wanted, "{name}");
        }
        if let Some(page) = sample["page"].as_u64() {
            let page = u32::try_from(page).unwrap();
            let [segment] = found.layout.segments() else {
                panic!("{name} is one segment")
            };
            assert_eq!(segment.kind, SegmentKind::Pages { page }, "{name}");
        }
    }
}

#[test]
fn every_sample_is_expected() {
    let expected: Vec<String> = expected().into_iter().map(|(name, _)| name).collect();
    for entry in fs::read_dir(samples()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_part = IMAGES.iter().any(|(image, ..)| *image == name);
        assert!(
            is_part || name == "expected.json" || expected.contains(&name),
            "{name}"
        );
    }
}

/// Parts of images: where they begin, and what they make of the file.
const IMAGES: [(&str, u64, Format); 6] = [
    ("ext4.head", 0, Format::Ext),
    ("xfs.head", 0, Format::Xfs),
    ("btrfs.super", 64 << 10, Format::Btrfs),
    ("gpt.head", 0, Format::Gpt),
    ("mbr.head", 0, Format::Mbr),
    ("qcow2.head", 0, Format::Qcow2),
];
const IMAGE_LEN: u64 = 16 << 20;

/// Reads an image of which a part is at hand; all else is zero.
fn image(start: u64, part: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<usize, Infallible> {
    move |offset, buffer| {
        for (at, byte) in (offset..).zip(buffer.iter_mut()) {
            let at = at
                .checked_sub(start)
                .and_then(|at| usize::try_from(at).ok());
            *byte = at.and_then(|at| part.get(at)).copied().unwrap_or(0);
        }
        Ok(buffer.len())
    }
}

#[test]
fn an_image_is_known_by_its_mark() {
    for (name, start, format) in IMAGES {
        let part = sample(name);
        let Ok(found) = describe(IMAGE_LEN, &mut image(start, &part));
        assert_eq!(found.format, format, "{name}");
        let [segment] = found.layout.segments() else {
            panic!("{name} is one segment")
        };
        assert_eq!(segment.range, 0..IMAGE_LEN);
        assert_eq!(segment.kind, SegmentKind::Blocks { grid: 4096 }, "{name}");
        let Ok(short) = describe(1 << 19, &mut image(start, &part));
        assert!(short.layout.is_plain(), "{name} is too short for an image");
    }
}

#[test]
fn a_mark_without_what_belongs_to_it_is_chance() {
    // Each breaks one field that the mark alone does not vouch for.
    let breaks = [
        ("ext4.head", 1024 + 24, 200),
        ("ext4.head", 1024 + 79, 1),
        ("xfs.head", 7, 1),
        ("gpt.head", 512 + 14, 9),
        ("mbr.head", 446, 0x33),
        ("mbr.head", 446 + 15, 0x10),
        ("qcow2.head", 7, 9),
        ("qcow2.head", 23, 40),
    ];
    for (name, at, to) in breaks {
        let mut part = sample(name);
        // A GPT disk has a table of the old kind before it.
        part[510] = if name == "mbr.head" { 0x55 } else { 0 };
        part[at] = to;
        let Ok(found) = describe(IMAGE_LEN, &mut image(0, &part));
        assert_eq!(found.format, Format::Plain, "{name} {at}");
    }
}

#[test]
fn no_damage_to_a_sample_breaks_the_cover() {
    for (name, _) in expected() {
        let good = sample(&name);
        println!("{name}");
        for len in (0..good.len()).step_by(good.len() / 40 + 1) {
            fuzz_layout(&good[..len]);
        }
        // Headers are at the front or, in an archive, at the end.
        let bytes = (0..good.len().min(600)).chain(good.len().saturating_sub(600)..good.len());
        let mut damaged = good.clone();
        for at in bytes {
            for bits in [1, 0x80, 0xff] {
                damaged[at] ^= bits;
                fuzz_layout(&damaged);
                damaged[at] ^= bits;
            }
        }
    }
}

#[test]
fn segments_are_those_of_the_first_release_of_the_format() {
    let mut lines = String::new();
    for (name, _) in expected() {
        lines += &format!("{name}:\n");
        for segment in described(&sample(&name)).layout.segments() {
            let identity = segment.identity().map(|id| format!("{:02x?}", &id[..4]));
            let kind = match segment.kind {
                SegmentKind::Plain => "plain".to_owned(),
                SegmentKind::Pages { page } => format!("pages {page}"),
                SegmentKind::Blocks { grid } => format!("blocks {grid}"),
                SegmentKind::Tensor {
                    dtype, big_endian, ..
                } => format!("tensor {} {big_endian}", dtype.name()),
            };
            let (range, identity) = (&segment.range, identity.unwrap_or_default());
            lines += &format!("  {range:?} {kind} {identity}\n");
        }
    }
    let golden = fs::read_to_string(samples().join("../segments-v1.txt")).unwrap_or_default();
    assert_eq!(golden, lines, "segments:\n{lines}");
}
