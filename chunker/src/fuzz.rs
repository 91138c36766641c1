//! Bodies of the fuzz targets that check more than one module against another, and their input.
//!
//! Must stay true: any input is welcome; a failed assertion is a defect of the crate.

use crate::parallel::{LEAD, Selector};
use crate::{Chunker, ChunkerKind, ChunkerParams};

/// Bytes that depend on the seed alone (SplitMix64); for tests and benches.
#[must_use]
pub fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Cuts the input in all ways: whole, streamed, and in segments of a size that the first byte
/// gives.
#[doc(hidden)]
pub fn fuzz_cuts(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let Ok(params) = ChunkerParams::new(64, 256, 1024) else {
        return;
    };
    for kind in [ChunkerKind::Gear, ChunkerKind::FastCdc] {
        let chunker = Chunker::new(kind, params, &[first; 32]);
        let mut cuts = Vec::new();
        chunker.cut_all(data, &mut cuts);
        check_sizes(&params, data.len(), &cuts);
        let step = usize::from(first) * 3 + 1;
        assert_eq!(
            streamed(&chunker, data, || step),
            cuts,
            "{kind:?} streamed by {step}"
        );
        if chunker.segmentable() {
            assert_eq!(
                segmented(&chunker, data, || step),
                cuts,
                "segments of {step}"
            );
        }
    }
}

/// Chunks cover the content and keep to the sizes.
pub(crate) fn check_sizes(params: &ChunkerParams, len: usize, cuts: &[usize]) {
    let mut start = 0;
    for &end in cuts {
        assert!(
            end > start && end - start <= params.max(),
            "chunk {start}..{end} of {len}"
        );
        assert!(
            end == len || end - start >= params.min(),
            "chunk {start}..{end} of {len}"
        );
        start = end;
    }
    assert_eq!(start, len, "the chunks do not cover the content");
}

/// The cuts that [`Chunker::stream`] finds when `step()` more bytes arrive at a time.
pub(crate) fn streamed(
    chunker: &Chunker,
    data: &[u8],
    mut step: impl FnMut() -> usize,
) -> Vec<usize> {
    let mut stream = chunker.stream();
    let (mut cuts, mut start, mut shown) = (Vec::new(), 0, 0);
    loop {
        let eof = shown == data.len();
        match stream.push(data.get(start..shown).unwrap_or_default(), eof) {
            Some(len) => {
                start += len;
                cuts.push(start);
            }
            None if eof => return cuts,
            None => shown = data.len().min(shown + step().max(1)),
        }
    }
}

/// The cuts that segments of `step()` bytes give.
pub(crate) fn segmented(
    chunker: &Chunker,
    data: &[u8],
    mut step: impl FnMut() -> usize,
) -> Vec<usize> {
    let mut selector = Selector::new(chunker.params());
    let (mut cuts, mut base) = (Vec::new(), 0);
    loop {
        let end = data.len().min(base + step().max(1));
        let lead = data
            .get(base.saturating_sub(LEAD)..base)
            .unwrap_or_default();
        let segment = data.get(base..end).unwrap_or_default();
        let candidates = chunker.scan(lead, segment, base as u64);
        let eof = end == data.len();
        selector.feed(&candidates, end as u64, eof, &mut cuts);
        if eof {
            return cuts
                .into_iter()
                .map(|cut| usize::try_from(cut).unwrap_or(usize::MAX))
                .collect();
        }
        base = end;
    }
}
