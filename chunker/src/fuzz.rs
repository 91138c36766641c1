//! Bodies of the fuzz targets that check more than one module against another, and their input.
//!
//! Must stay true: any input is welcome; a failed assertion is a defect of the crate.

use crate::parallel::{LEAD, Selector};
use crate::{BLOCK_MAX, BlockSelector, Chunker, ChunkerKind, ChunkerParams};

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

/// Cuts the input as blocks, whole and in parts: blocks of zeros where a byte is even, of noise
/// else, and what is over as it is.
#[doc(hidden)]
pub fn fuzz_blocks(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else {
        return;
    };
    let mut content = Vec::new();
    for byte in data.iter().take(200) {
        let block = match byte % 2 {
            0 => vec![0; 4096],
            _ => random(4096, u64::from(*byte)),
        };
        content.extend(block);
    }
    content.extend(data.iter().skip(200));
    let chunker = Chunker::new(
        ChunkerKind::Gear,
        ChunkerParams::default(),
        &[first % 4; 32],
    );
    let whole = blocks(&chunker, &content, 4096, || usize::MAX / 2);
    let step = (usize::from(first) + 1) * 4096;
    assert_eq!(blocks(&chunker, &content, 4096, || step), whole);
    let mut start = 0;
    for &end in &whole {
        assert!(
            end > start && end - start <= BLOCK_MAX,
            "chunk {start}..{end}"
        );
        start = end;
    }
    assert_eq!(start, content.len() as u64, "the content is not covered");
}

/// The cuts of blocks that arrive in parts of `step()` bytes, which is a multiple of the grid.
pub(crate) fn blocks(
    chunker: &Chunker,
    data: &[u8],
    grid: usize,
    mut step: impl FnMut() -> usize,
) -> Vec<u64> {
    let grid = u32::try_from(grid).unwrap_or(4096);
    let (mut cuts, mut base) = (Vec::new(), 0);
    let mut selector = BlockSelector::new(grid, 0);
    loop {
        let end = data.len().min(base + step());
        let part = data.get(base..end).unwrap_or_default();
        let marks = chunker.mark_blocks(grid, base as u64, part);
        selector.feed(&marks, end as u64, end == data.len(), &mut cuts);
        if end == data.len() {
            return cuts;
        }
        base = end;
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

/// Reads from bytes at hand, as the layouts want it.
#[doc(hidden)]
pub fn reader(
    data: &[u8],
) -> impl FnMut(u64, &mut [u8]) -> Result<usize, std::convert::Infallible> {
    move |offset, buffer| {
        let rest = usize::try_from(offset).ok().and_then(|at| data.get(at..));
        let rest = rest.unwrap_or_default();
        let len = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(len)
    }
}
