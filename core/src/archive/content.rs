//! From bytes at hand to extents: cutting, leaving out zeros, storing chunks.

use std::ops::Range;

use strongroom_chunker::layout::{self, Dtype, Layout, Probe, SegmentKind, tensor_pieces};
use strongroom_repo::{
    codec::{FloatKind, Hint},
    crypto::BlobKind,
    format::cursor::to_u32,
    id::BlobId,
    writer::WorkBench,
};

use super::Run;
use crate::{
    error::Result,
    format::extents::{Content, ContentBuilder, Extent, Page},
};

/// What a worker keeps from file to file.
pub(super) struct Tools {
    pub(super) bench: WorkBench,
    pub(super) buffer: Vec<u8>,
    cuts: Vec<usize>,
}

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
            cuts: Vec::new(),
        })
    }

    /// Stores one chunk; a chunk of zeros takes nothing.
    pub(super) fn store(
        &mut self,
        run: &Run<'_>,
        hint: Hint,
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
        let stored = run
            .writer
            .put(&mut self.bench, BlobKind::Data, hint, chunk)?;
        Ok((
            Extent::Data { len, id: stored.id },
            u64::from(stored.added.unwrap_or(0)),
        ))
    }

    /// Cuts and stores bytes that lie in one piece: `data` is all of the file from 0 where
    /// `layout` has tensors, any run of it otherwise.
    pub(super) fn store_run(
        &mut self,
        run: &Run<'_>,
        data: &[u8],
        layout: Option<&Layout>,
        into: &mut Collected,
    ) -> Result<()> {
        let Some(layout) = layout else {
            return self.store_plain(run, data, into);
        };
        for segment in layout.segments() {
            let bytes = slice(data, &segment.range);
            match segment.kind {
                SegmentKind::Plain => self.store_plain(run, bytes, into)?,
                SegmentKind::Tensor { dtype, .. } => {
                    let mut start = segment.range.start;
                    for end in tensor_pieces(segment.range.clone()) {
                        let piece = slice(data, &(start..end));
                        let stored = self.store(run, hint(dtype, 0), piece)?;
                        into.push(run, self, stored)?;
                        start = end;
                    }
                }
            }
        }
        Ok(())
    }

    fn store_plain(&mut self, run: &Run<'_>, data: &[u8], into: &mut Collected) -> Result<()> {
        let mut cuts = std::mem::take(&mut self.cuts);
        cuts.clear();
        run.chunker.cut_all(data, &mut cuts);
        let mut start = 0;
        for end in &cuts {
            let chunk = data.get(start..*end).unwrap_or_default();
            let stored = self.store(run, Hint::Plain, chunk)?;
            into.push(run, self, stored)?;
            start = *end;
        }
        self.cuts = cuts;
        Ok(())
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

/// What is in a file, from its front; `read` fills a buffer from a place of the file and says how
/// much it got.
pub(super) fn recognise(
    file_len: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<usize>,
) -> Result<Option<Layout>> {
    let mut head = vec![0; layout::PROBE_LEN];
    let got = read(0, &mut head)?;
    head.truncate(got);
    let Probe::NeedHeader { len } = layout::probe(&head, file_len) else {
        return Ok(None);
    };
    let Ok(len) = usize::try_from(len) else {
        return Ok(None);
    };
    head.resize(len, 0);
    let got = read(0, &mut head)?;
    head.truncate(got);
    let layout = layout::recognise(&head, file_len);
    Ok((!layout.is_plain()).then_some(layout))
}

/// What the codec is told of a tensor's bytes that begin `offset` bytes after its start.
pub(super) fn hint(dtype: Dtype, offset: u64) -> Hint {
    let dtype = match dtype {
        Dtype::Bf16 => FloatKind::Bf16,
        Dtype::F16 => FloatKind::F16,
        Dtype::F32 => FloatKind::F32,
        _ => return Hint::Plain,
    };
    let width = u64::try_from(dtype.width()).unwrap_or(1);
    let phase = u8::try_from(offset % width).unwrap_or(0);
    Hint::Float { dtype, phase }
}

fn slice<'a>(data: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let at = |offset: u64| {
        usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len())
    };
    data.get(at(range.start)..at(range.end)).unwrap_or_default()
}

/// Whether all bytes are zero; quick to say no.
fn is_zero(bytes: &[u8]) -> bool {
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
