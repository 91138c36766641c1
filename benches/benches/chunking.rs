//! How fast content is cut, and how fast one worker scans its segment, on content that is random,
//! constant or periodic. What is compared with what: the native chunker against `FastCDC`.
//!
//! Run: `cargo bench -p strongroom-benches --bench chunking`.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use strongroom_chunker::fuzz::random;
use strongroom_chunker::{Chunker, ChunkerKind, ChunkerParams};

const LEN: usize = 64 << 20;
const CONTENTS: [&str; 4] = ["random", "constant", "period 7", "period 4096"];

fn main() {
    divan::main();
}

fn content(name: &str) -> Vec<u8> {
    let period = match name {
        "constant" => 1,
        "period 7" => 7,
        "period 4096" => 4096,
        _ => return random(LEN, 1),
    };
    random(period, 2).into_iter().cycle().take(LEN).collect()
}

fn chunker(kind: ChunkerKind) -> Chunker {
    Chunker::new(kind, ChunkerParams::default(), &[7; 32])
}

/// A key for which constant content passes the filter at every byte.
fn dense_chunker(byte: u8) -> Option<Chunker> {
    let params = ChunkerParams::new(64, 1024, 4096).ok()?;
    (0..=u16::MAX)
        .map(|seed| {
            let mut key = [0; 32];
            key.iter_mut()
                .zip(seed.to_le_bytes())
                .for_each(|(to, from)| *to = from);
            Chunker::new(ChunkerKind::Gear, params, &key)
        })
        .find(|chunker| chunker.scan(&[], &[byte; 64], 0).iter().next().is_some())
}

#[divan::bench(args = CONTENTS)]
fn gear_cut_all(bencher: Bencher, name: &str) {
    cut_all(bencher, &chunker(ChunkerKind::Gear), &content(name));
}

#[divan::bench(args = CONTENTS)]
fn fastcdc_cut_all(bencher: Bencher, name: &str) {
    cut_all(bencher, &chunker(ChunkerKind::FastCdc), &content(name));
}

fn cut_all(bencher: Bencher, chunker: &Chunker, content: &[u8]) {
    bencher
        .counter(BytesCount::new(content.len()))
        .bench_local(|| {
            let mut cuts = Vec::new();
            chunker.cut_all(black_box(content), &mut cuts);
            cuts
        });
}

#[divan::bench(args = CONTENTS)]
fn gear_scan_segment(bencher: Bencher, name: &str) {
    scan(bencher, &chunker(ChunkerKind::Gear), &content(name));
}

/// The worst case for candidates: every byte is one.
#[divan::bench]
fn gear_scan_segment_of_candidates(bencher: Bencher) {
    let content = content("constant");
    let byte = content.first().copied().unwrap_or_default();
    if let Some(chunker) = dense_chunker(byte) {
        scan(bencher, &chunker, &content);
    }
}

fn scan(bencher: Bencher, chunker: &Chunker, content: &[u8]) {
    bencher
        .counter(BytesCount::new(content.len()))
        .bench_local(|| chunker.scan(&[], black_box(content), 0));
}
