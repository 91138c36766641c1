//! From bytes at hand to extents: cutting, leaving out zeros, storing chunks.

use std::{cell::Cell, ops::Range, sync::Arc};

use strongroom_chunker::{
    BlockSelector,
    layout::{self, Dtype, Layout, LayoutSegment, ReadAt, SegmentKind},
};
use strongroom_repo::{
    codec::{FloatKind, Hint},
    crypto::BlobKind,
    format::cursor::to_u32,
    id::BlobId,
    writer::WorkBench,
};

use super::{Run, ancestor::Ancestor};
use crate::{
    error::{Error, Result},
    format::extents::{Content, ContentBuilder, Extent, Page},
};

/// Bytes read at a time of what is cut as a stream.
const STEP: usize = 4 << 20;

/// What a worker keeps from file to file.
pub(super) struct Tools {
    pub(super) bench: WorkBench,
    pub(super) buffer: Vec<u8>,
    /// What stood before in the file at hand.
    pub(super) ancestor: Option<Arc<Ancestor>>,
    cuts: Vec<usize>,
}

/// Takes a stored chunk, with the sealed bytes that it added.
pub(super) type Store<'a> = dyn FnMut(&mut Tools, (Extent, u64)) -> Result<()> + 'a;

/// Content being put together, and what it added to the repository.
#[derive(Default)]
pub(super) struct Collected {
    builder: ContentBuilder,
    /// Bytes of the file so far.
    pub(super) len: u64,
    /// Sealed bytes that were new.
    pub(super) added: u64,
}

impl Tools {
    pub(super) fn new(run: &Run<'_>) -> Result<Self> {
        Ok(Self {
            bench: run.writer.bench()?,
            buffer: Vec::new(),
            ancestor: None,
            cuts: Vec::new(),
        })
    }

    /// Finds an older file for one without a predecessor, now that its layout is known.
    pub(super) fn look_around(&mut self, run: &Run<'_>, layout: &Layout) {
        if self.ancestor.is_none() && !layout.is_plain() {
            self.ancestor = run.ancestor(None, layout.segments());
        }
    }

    /// Stores one chunk, which lies at `offset` of the file, in a segment if that matters; a chunk
    /// of zeros takes nothing.
    pub(super) fn store(
        &mut self,
        run: &Run<'_>,
        segment: Option<&LayoutSegment>,
        offset: u64,
        chunk: &[u8],
    ) -> Result<(Extent, u64)> {
        let len = to_u32(chunk.len(), "chunk")?;
        run.observer.advanced(u64::from(len));
        if is_zero(chunk) {
            return Ok((
                Extent::Zero {
                    len: u64::from(len),
                },
                0,
            ));
        }
        let hint = segment.map_or(Hint::Plain, |segment| hint(segment, offset));
        let ancestor = self.ancestor.as_deref();
        // Blocks and pages do not move by a few bytes, and tensors are found by their names.
        let is_plain = segment.is_none_or(|segment| segment.kind == SegmentKind::Plain);
        let stood = Cell::new(None);
        let find = || {
            let (at, blob) = ancestor?.of_chunk(run.repo, segment, offset, u64::from(len))?;
            stood.set(Some(at));
            Some(blob)
        };
        let (bench, kind) = (&mut self.bench, BlobKind::Data);
        let stored = run.writer.put_like(bench, kind, hint, chunk, &find)?;
        match (ancestor, stored.added, stood.get(), stored.common) {
            (Some(ancestor), None, ..) => ancestor.met(run.repo, &stored.id, offset),
            (Some(ancestor), _, Some(stood), Some(common)) if is_plain => {
                ancestor.moved(
                    stood + u64::from(common.old),
                    offset + u64::from(common.new),
                );
            }
            _ => {}
        }
        Ok((
            Extent::Data { len, id: stored.id },
            u64::from(stored.added.unwrap_or(0)),
        ))
    }

    /// Cuts and stores a part of a segment that begins at `offset` of the file.
    pub(super) fn store_part(
        &mut self,
        run: &Run<'_>,
        segment: &LayoutSegment,
        offset: u64,
        data: &[u8],
        into: &mut Collected,
    ) -> Result<()> {
        let mut cuts = std::mem::take(&mut self.cuts);
        cuts.clear();
        let end = offset + u64::try_from(data.len()).unwrap_or(0);
        let relative = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
        match segment.kind {
            SegmentKind::Plain => run.chunker.cut_all(data, &mut cuts),
            SegmentKind::Tensor { .. } | SegmentKind::Pages { .. } => {
                let inner = segment
                    .pieces()
                    .filter(|piece| (offset + 1..end).contains(piece));
                cuts.extend(inner.map(relative));
                cuts.push(data.len());
            }
            SegmentKind::Blocks { grid } => {
                let marks = run.chunker.mark_blocks(grid, offset, data);
                let mut ends = Vec::new();
                BlockSelector::new(grid, offset).feed(&marks, end, true, &mut ends);
                cuts.extend(ends.into_iter().map(relative));
            }
        }
        let mut start = 0;
        for end in &cuts {
            let chunk = data.get(start..*end).unwrap_or_default();
            let at = offset + u64::try_from(start).unwrap_or(0);
            let stored = self.store(run, Some(segment), at, chunk)?;
            into.push(run, self, stored)?;
            start = *end;
        }
        self.cuts = cuts;
        Ok(())
    }

    /// Cuts and stores what `read` gives of a range as plain content, or up to the end of the file;
    /// false where it ended early.
    pub(super) fn store_streamed(
        &mut self,
        run: &Run<'_>,
        read: &mut ReadAt<'_, Error>,
        (start, end): (u64, Option<u64>),
        store: &mut Store<'_>,
    ) -> Result<bool> {
        let mut stream = run.chunker.stream();
        let mut held: Vec<u8> = Vec::new();
        let mut at = start;
        loop {
            if run.is_over() {
                return Err(Error::Cancelled);
            }
            let left = end.map_or(u64::MAX, |end| end.saturating_sub(at));
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(STEP);
            let before = held.len();
            held.resize(before + want, 0);
            let got = read(at, held.get_mut(before..).unwrap_or_default())?;
            held.truncate(before + got);
            let mut place = at.saturating_sub(u64::try_from(before).unwrap_or(0));
            at = at.saturating_add(u64::try_from(got).unwrap_or(0));
            let eof = got < want || end.is_some_and(|end| at >= end);
            let mut used = 0;
            while let Some(len) = stream.push(held.get(used..).unwrap_or_default(), eof) {
                let chunk = held.get(used..used + len).unwrap_or_default();
                let stored = self.store(run, None, place, chunk)?;
                store(self, stored)?;
                used += len;
                place = place.saturating_add(u64::try_from(len).unwrap_or(0));
            }
            held.drain(..used.min(held.len()));
            if eof {
                return Ok(end.is_none_or(|end| at >= end));
            }
        }
    }

    fn store_page(&mut self, run: &Run<'_>, page: &Page) -> Result<BlobId> {
        let bytes = page.encode()?;
        Ok(run
            .writer
            .put(&mut self.bench, BlobKind::ExtentList, Hint::Plain, &bytes)?
            .id)
    }
}

impl Collected {
    /// Appends an extent, with the sealed bytes that it added.
    pub(super) fn push(
        &mut self,
        run: &Run<'_>,
        tools: &mut Tools,
        (extent, added): (Extent, u64),
    ) -> Result<()> {
        self.len += extent.len();
        self.added += added;
        self.builder
            .push(extent, &mut |page| tools.store_page(run, page))
    }

    /// Ends the content.
    pub(super) fn finish(self, run: &Run<'_>, tools: &mut Tools) -> Result<Content> {
        self.builder.finish(&mut |page| tools.store_page(run, page))
    }
}

/// The segments of a file.
pub(super) fn recognise(file_len: u64, read: &mut ReadAt<'_, Error>) -> Result<Layout> {
    layout::recognise(file_len, read)
}

/// The segments of a file that is at hand.
pub(super) fn recognise_bytes(data: &[u8]) -> Result<Layout> {
    let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
    recognise(len, &mut |offset, buffer| {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| data.get(at..))
            .unwrap_or_default();
        let len = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(len)
    })
}

/// What the codec is told of a chunk that begins at `offset` of the file.
pub(crate) fn hint(segment: &LayoutSegment, offset: u64) -> Hint {
    let SegmentKind::Tensor {
        dtype, big_endian, ..
    } = segment.kind
    else {
        return Hint::Plain;
    };
    let dtype = match dtype {
        Dtype::Bf16 => FloatKind::Bf16,
        Dtype::F16 => FloatKind::F16,
        Dtype::F32 => FloatKind::F32,
        _ => return Hint::Plain,
    };
    let width = u64::try_from(dtype.width()).unwrap_or(1);
    // The planes want the byte with the exponent last in its element. Where it is the first, the
    // elements are taken to begin one byte later.
    let shift = if big_endian { width - 1 } else { 0 };
    let phase = (offset - segment.range.start + shift) % width;
    let phase = u8::try_from(phase).unwrap_or(0);
    Hint::Float { dtype, phase }
}

/// The part of `data`, all of a file, that a range of the file is.
pub(super) fn slice<'a>(data: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let at = |offset: u64| {
        usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len())
    };
    data.get(at(range.start)..at(range.end)).unwrap_or_default()
}

/// Whether all bytes are zero; quick to say no.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let front = bytes.get(..64).unwrap_or(bytes);
    front.iter().all(|byte| *byte == 0)
        && bytes
            .chunks(4096)
            .all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zeros_and_one_bit_anywhere_is_not() {
        for len in [0, 1, 63, 64, 65, 4096, 4097, 10_000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes), "{len}");
            for at in [0, 1, len / 2, len.saturating_sub(1)] {
                if at < len {
                    bytes[at] = 1;
                    assert!(!is_zero(&bytes), "{len} {at}");
                    bytes[at] = 0;
                }
            }
        }
    }
}
