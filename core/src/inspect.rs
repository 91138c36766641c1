//! What a layout sees in a file, and what its chunks take: of a file on disk, cut and encoded for
//! trial, or of a file in a snapshot, as its blobs were stored.
//!
//! Lives here: the sums. Does not live here: recognition and cuts (`chunker`), codecs (`repo`), how
//! it is shown. Nothing is written anywhere.

use std::{
    collections::{BTreeMap, VecDeque},
    iter::Peekable,
    ops::Range,
};

use strongroom_chunker::{
    BlockSelector, Chunker, ChunkerKind, ChunkerParams, Stream,
    layout::{Description, Layout, LayoutSegment, ReadAt, SegmentKind, describe, recognise},
};
use strongroom_repo::{
    codec::{Codec, Encoder, Level, SEAL_ROOM},
    repository::Repository,
};

use crate::{
    archive::{hint, is_zero},
    error::{Error, Result},
    format::extents::{Content, Extent},
    view::View,
};

/// Bytes read at a time of a file on disk; blocks end on it.
const STEP: u64 = 4 << 20;

/// What is known of a file.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Length in bytes.
    pub len: u64,
    /// The file's format, and its tensors.
    pub description: Description,
    /// Its segments in order, as they are cut.
    pub parts: Vec<Part>,
    /// Chunks that overlap no single segment: of a file that was cut otherwise.
    pub elsewhere: Usage,
}

/// A segment and what its chunks take.
#[derive(Clone, Debug)]
pub struct Part {
    /// The segment.
    pub segment: LayoutSegment,
    /// What its chunks take.
    pub usage: Usage,
}

/// What chunks take.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Bytes of zeros and holes: they take nothing.
    pub zeros: u64,
    /// By the byte that stands for the codec.
    pub codecs: BTreeMap<u8, CodecUsage>,
}

/// What the chunks of one codec take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodecUsage {
    /// Chunks.
    pub chunks: u64,
    /// Their bytes in the file.
    pub plain: u64,
    /// Their bytes in a repository, sealed; each time they occur.
    pub stored: u64,
}

impl Usage {
    fn add(&mut self, codec: u8, plain: u64, stored: u64) {
        let usage = self.codecs.entry(codec).or_default();
        usage.chunks += 1;
        usage.plain += plain;
        usage.stored += stored;
    }

    /// Adds what other chunks take.
    pub fn merge(&mut self, other: &Self) {
        self.zeros += other.zeros;
        for (codec, more) in &other.codecs {
            let usage = self.codecs.entry(*codec).or_default();
            usage.chunks += more.chunks;
            usage.plain += more.plain;
            usage.stored += more.stored;
        }
    }

    /// Bytes in a repository.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.codecs.values().map(|usage| usage.stored).sum()
    }

    /// Chunks that have a blob.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.codecs.values().map(|usage| usage.chunks).sum()
    }
}

/// The name of a codec by its byte.
#[must_use]
pub fn codec_name(codec: u8) -> &'static str {
    Codec::try_from(codec).map_or("unknown", Codec::name)
}

impl Inspection {
    fn new(len: u64, description: Description, layout: &Layout) -> Self {
        let parts = layout.segments().iter().map(|segment| Part {
            segment: segment.clone(),
            usage: Usage::default(),
        });
        Self {
            len,
            description,
            parts: parts.collect(),
            elsewhere: Usage::default(),
        }
    }

    /// What all chunks take.
    #[must_use]
    pub fn total(&self) -> Usage {
        let mut total = self.elsewhere.clone();
        for part in &self.parts {
            total.merge(&part.usage);
        }
        total
    }

    /// The usage of the segment that a range lies in.
    fn usage(&mut self, range: &Range<u64>) -> &mut Usage {
        let at = self
            .parts
            .partition_point(|part| part.segment.range.end <= range.start);
        match self.parts.get_mut(at) {
            Some(part) if range.end <= part.segment.range.end => &mut part.usage,
            _ => &mut self.elsewhere,
        }
    }
}

/// Inspects a file of `len` bytes on disk: cuts it with the default sizes and a key of zeros, and
/// encodes every chunk.
///
/// # Errors
/// What `read` returns, or no memory to encode with.
pub fn inspect_file(len: u64, level: Level, read: &mut ReadAt<'_, Error>) -> Result<Inspection> {
    let description = describe(len, read)?;
    let layout = recognise(len, read)?;
    let mut inspection = Inspection::new(len, description, &layout);
    let chunker = Chunker::new(ChunkerKind::Gear, ChunkerParams::default(), &[0; 32]);
    let encoder = Encoder::new(level).map_err(strongroom_repo::error::Error::from)?;
    let mut trial = Trial {
        encoder,
        out: Vec::new(),
    };
    for part in &mut inspection.parts {
        let Part { segment, usage } = part;
        let mut cutter = Cutter::new(&chunker, segment);
        let (mut held, mut at) = (Vec::new(), segment.range.start);
        let mut start = at;
        loop {
            let end = ((at / STEP + 1) * STEP).min(segment.range.end);
            let want = usize::try_from(end - at).unwrap_or(usize::MAX);
            let before = held.len();
            held.resize(before + want, 0);
            let got = read(at, held.get_mut(before..).unwrap_or_default())?;
            held.truncate(before + got);
            let eof = got < want || end == segment.range.end;
            let shown = held.get(before..).unwrap_or_default();
            cutter.show(at, shown, eof);
            at += u64::try_from(got).unwrap_or(0);
            let mut used = 0;
            while let Some(len) = cutter.next(start, held.get(used..).unwrap_or_default(), eof) {
                let chunk = held.get(used..used + len).unwrap_or_default();
                trial.add(segment, start, chunk, usage)?;
                used += len;
                start += u64::try_from(len).unwrap_or(0);
            }
            held.drain(..used.min(held.len()));
            if eof {
                break;
            }
        }
    }
    Ok(inspection)
}

/// Encodes chunks and throws the result away.
struct Trial {
    encoder: Encoder,
    out: Vec<u8>,
}

impl Trial {
    fn add(
        &mut self,
        segment: &LayoutSegment,
        start: u64,
        chunk: &[u8],
        usage: &mut Usage,
    ) -> Result<()> {
        let len = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if is_zero(chunk) {
            usage.zeros += len;
            return Ok(());
        }
        let codec = self
            .encoder
            .encode(hint(segment, start), chunk, &mut self.out)
            .map_err(strongroom_repo::error::Error::from)?;
        let stored = u64::try_from(self.out.len() + SEAL_ROOM).unwrap_or(u64::MAX);
        usage.add(codec.to_byte(), len, stored);
        Ok(())
    }
}

/// Ends of chunks in one segment.
enum Cutter<'c> {
    Plain(Box<Stream<'c>>),
    /// Those that are known already; a database may have millions.
    Pieces(Peekable<Box<dyn Iterator<Item = u64>>>),
    Blocks {
        chunker: &'c Chunker,
        grid: u32,
        selector: BlockSelector,
        ends: VecDeque<u64>,
    },
}

impl<'c> Cutter<'c> {
    fn new(chunker: &'c Chunker, segment: &LayoutSegment) -> Self {
        match segment.kind {
            SegmentKind::Plain => Self::Plain(Box::new(chunker.stream())),
            SegmentKind::Tensor { .. } | SegmentKind::Pages { .. } => {
                let pieces: Box<dyn Iterator<Item = u64>> = Box::new(segment.pieces());
                Self::Pieces(pieces.peekable())
            }
            SegmentKind::Blocks { grid } => Self::Blocks {
                chunker,
                grid,
                selector: BlockSelector::new(grid, segment.range.start),
                ends: VecDeque::new(),
            },
        }
    }

    /// Shows bytes that were read at `at`, each once.
    fn show(&mut self, at: u64, bytes: &[u8], eof: bool) {
        if let Self::Blocks {
            chunker,
            grid,
            selector,
            ends,
        } = self
        {
            let marks = chunker.mark_blocks(*grid, at, bytes);
            let end = at + u64::try_from(bytes.len()).unwrap_or(0);
            let mut cuts = Vec::new();
            selector.feed(&marks, end, eof, &mut cuts);
            ends.extend(cuts);
        }
    }

    /// Length of the chunk that starts at `start` with these bytes, once it is decided.
    fn next(&mut self, start: u64, held: &[u8], eof: bool) -> Option<usize> {
        let end = match self {
            Self::Plain(stream) => return stream.push(held, eof),
            Self::Pieces(ends) => *ends.peek()?,
            Self::Blocks { ends, .. } => *ends.front()?,
        };
        let len = usize::try_from(end.checked_sub(start)?).ok()?;
        if len <= held.len() {
            match self {
                Self::Plain(_) => {}
                Self::Pieces(ends) => drop(ends.next()),
                Self::Blocks { ends, .. } => drop(ends.pop_front()),
            }
            return Some(len);
        }
        // A file that became shorter.
        (eof && !held.is_empty()).then_some(held.len())
    }
}

/// Inspects a file of a snapshot: its layout is read from the repository, and its blobs are looked
/// up in the index.
///
/// # Errors
/// A blob that is needed for the layout cannot be read, or one is not in the index.
pub fn inspect_content(
    repo: &Repository,
    view: &View<'_>,
    content: &Content,
) -> Result<Inspection> {
    let mut extents = Vec::new();
    let mut len = 0;
    for extent in view.extents(content) {
        let extent = extent?;
        extents.push((len, extent));
        len += extent.len();
    }
    let mut stored = StoredFile {
        view,
        extents: &extents,
        last: None,
    };
    let read = &mut |offset: u64, buffer: &mut [u8]| stored.read(offset, buffer);
    let description = describe(len, read)?;
    let layout = recognise(len, read)?;
    let mut inspection = Inspection::new(len, description, &layout);
    let index = repo.index();
    for (start, extent) in &extents {
        let range = *start..start + extent.len();
        match extent {
            Extent::Data { len, id } => {
                let found = index
                    .find(id)
                    .map_err(strongroom_repo::error::Error::from)?;
                let missing = strongroom_repo::error::Error::MissingBlob { blob: *id };
                let entry = found.ok_or(missing)?.entry;
                let usage = inspection.usage(&range);
                usage.add(entry.codec, u64::from(*len), u64::from(entry.sealed_len));
            }
            // Zeros of neighbouring segments are one extent.
            Extent::Hole { .. } | Extent::Zero { .. } => inspection.add_zeros(range),
        }
    }
    Ok(inspection)
}

impl Inspection {
    fn add_zeros(&mut self, range: Range<u64>) {
        let first = self
            .parts
            .partition_point(|part| part.segment.range.end <= range.start);
        for part in self.parts.iter_mut().skip(first) {
            let start = part.segment.range.start.max(range.start);
            let end = part.segment.range.end.min(range.end);
            if start >= end {
                break;
            }
            part.usage.zeros += end - start;
        }
    }
}

/// A file of a snapshot, read at places.
struct StoredFile<'v, 'r> {
    view: &'v View<'r>,
    /// With their offsets, without gaps.
    extents: &'v [(u64, Extent)],
    /// The chunk that was read last, and its offset.
    last: Option<(u64, Vec<u8>)>,
}

impl StoredFile<'_, '_> {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + u64::try_from(filled).unwrap_or(0);
            let index = self.extents.partition_point(|(start, _)| *start <= at);
            let Some((start, extent)) = index.checked_sub(1).and_then(|i| self.extents.get(i))
            else {
                break;
            };
            let inside = usize::try_from(at - start).unwrap_or(usize::MAX);
            let rest = buffer.get_mut(filled..).unwrap_or_default();
            let got = match extent {
                Extent::Data { id, .. } => {
                    if self.last.as_ref().is_none_or(|(at, _)| at != start) {
                        self.last = Some((*start, self.view.blob(id)?));
                    }
                    let chunk = self.last.as_ref().map(|(_, bytes)| bytes.as_slice());
                    let chunk = chunk.and_then(|chunk| chunk.get(inside..));
                    copy(rest, chunk.unwrap_or_default())
                }
                Extent::Hole { len } | Extent::Zero { len } => {
                    let left = usize::try_from(*len).unwrap_or(usize::MAX);
                    let left = left.saturating_sub(inside).min(rest.len());
                    rest.iter_mut().take(left).for_each(|byte| *byte = 0);
                    left
                }
            };
            if got == 0 {
                break;
            }
            filled += got;
        }
        Ok(filled)
    }
}

fn copy(to: &mut [u8], from: &[u8]) -> usize {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    to.len().min(from.len())
}
