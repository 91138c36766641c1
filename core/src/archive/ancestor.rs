//! What stood in a file before: from a place in a file being stored to the blob of an older file
//! that probably differs little from what is there now. The older file is the one of the same path
//! in the parent snapshot, or one that `relatives` found.
//!
//! A place in a tensor is looked for in the tensor of that name, wherever it lay; a page of a
//! database at its offset; any other at the same offset, moved by as much as what both files had
//! last had moved: a chunk, or some bytes of a chunk and the one it was compared with.
//!
//! Must stay true: this is advice. What cannot be read or found is no ancestor, and no wrong answer
//! costs more than space. At most a few pages of the older file's extents are held.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use strongroom_chunker::layout::{Dtype, LayoutSegment, SegmentKind, recognise};
use strongroom_repo::{
    id::BlobId,
    repository::{BlobReader, Repository},
};

use crate::{
    error::{Error, Result},
    format::extents::{Content, Extent, MAX_LEVEL, Page},
};

/// Pages of extents that are held of one file.
const PAGES: usize = 4;
/// Most pages of extents that are known of one file: beyond, nothing has an ancestor.
const MAX_PAGES: usize = 1 << 16;
/// Least overlap of a chunk with what stood there, in parts of the chunk.
const LEAST_OVERLAP: u64 = 4;

/// An older file.
pub(super) struct Ancestor {
    size: u64,
    /// Pages of extents, in order.
    pages: Vec<PageAt>,
    loaded: Mutex<Vec<(usize, Arc<Run>)>>,
    /// Tensors by name and type, once they are asked for.
    tensors: OnceLock<Tensors>,
    /// How far content was moved, where that was seen last; wraps around.
    shift: AtomicU64,
}

type Tensors = HashMap<([u8; 32], Dtype), Range<u64>>;

/// Extents in order, with their places.
type Run = Vec<(Range<u64>, Option<BlobId>)>;

struct PageAt {
    range: Range<u64>,
    source: PageSource,
}

enum PageSource {
    Here(Arc<Run>),
    Blob(BlobId),
}

impl Ancestor {
    /// The file of this content. Pages of extents are read as they are needed.
    ///
    /// # Errors
    /// The upper pages cannot be read.
    pub(super) fn open(repo: &Repository, content: &Content, size: u64) -> Result<Self> {
        let mut pages = Vec::new();
        match content {
            Content::Inline(extents) => {
                let source = PageSource::Here(Arc::new(run_of(extents, 0)));
                let range = 0..size;
                pages.push(PageAt { range, source });
            }
            Content::List { root, level } => {
                let mut reader = repo.reader()?;
                find_pages(&mut reader, *root, *level, size, &mut pages)?;
            }
        }
        Ok(Self {
            size,
            pages,
            loaded: Mutex::default(),
            tensors: OnceLock::new(),
            shift: AtomicU64::new(0),
        })
    }

    /// The blob that a chunk of `len` bytes at `offset` probably descends from, and where that
    /// begins in the older file.
    pub(super) fn of_chunk(
        &self,
        repo: &Repository,
        segment: Option<&LayoutSegment>,
        offset: u64,
        len: u64,
    ) -> Option<(u64, BlobId)> {
        let old = match segment.map(|segment| (segment, segment.kind)) {
            Some((segment, SegmentKind::Tensor { .. })) => {
                let range = self.tensor(repo, segment)?;
                range.start + offset.checked_sub(segment.range.start)?
            }
            Some((_, SegmentKind::Pages { .. })) => offset,
            _ => offset.wrapping_add(self.shift.load(Ordering::Relaxed)),
        };
        let wanted = old..old.checked_add(len)?;
        let overlap = |range: &Range<u64>| {
            let end = range.end.min(wanted.end);
            end.saturating_sub(range.start.max(wanted.start))
        };
        let first = self.pages.partition_point(|page| page.range.end <= old);
        let mut best: Option<(u64, (u64, BlobId))> = None;
        for number in first..self.pages.len() {
            if self.pages.get(number)?.range.start >= wanted.end {
                break;
            }
            let page = self.page(repo, number)?;
            let from = page.partition_point(|(range, _)| range.end <= old);
            let near = page.iter().skip(from);
            for (range, blob) in near.take_while(|(range, _)| range.start < wanted.end) {
                let overlap = overlap(range);
                if let Some(blob) = blob
                    && best.is_none_or(|(most, _)| overlap > most)
                {
                    best = Some((overlap, (range.start, *blob)));
                }
            }
        }
        best.filter(|(overlap, _)| overlap * LEAST_OVERLAP >= len)
            .map(|(_, found)| found)
    }

    /// Learns that what is at `new` stood at `old` before.
    pub(super) fn moved(&self, old: u64, new: u64) {
        self.shift.store(old.wrapping_sub(new), Ordering::Relaxed);
    }

    /// Learns from a chunk that the repository has: where it stood before, if it did near by.
    pub(super) fn met(&self, repo: &Repository, blob: &BlobId, offset: u64) {
        let old = offset.wrapping_add(self.shift.load(Ordering::Relaxed));
        let number = self.pages.partition_point(|page| page.range.end <= old);
        let Some(page) = self.page(repo, number) else {
            return;
        };
        let at = page.partition_point(|(range, _)| range.end <= old);
        let same = |(_, found): &&(Range<u64>, Option<BlobId>)| found.as_ref() == Some(blob);
        let here = page.get(at).filter(same);
        let ahead = || page.iter().skip(at).find(same);
        let behind = || page.iter().take(at).rev().find(same);
        if let Some((range, _)) = here.or_else(ahead).or_else(behind) {
            let shift = range.start.wrapping_sub(offset);
            self.shift.store(shift, Ordering::Relaxed);
        }
    }

    /// Bytes of those of `segments` that are tensors of the same name, type and length here.
    pub(super) fn shared(&self, repo: &Repository, segments: &[LayoutSegment]) -> u64 {
        let known = self.tensors(repo);
        let len = |range: &Range<u64>| range.end.saturating_sub(range.start);
        let shared = segments.iter().filter(|segment| {
            key(segment)
                .and_then(|key| known.get(&key))
                .is_some_and(|old| len(old) == len(&segment.range))
        });
        shared.map(|segment| len(&segment.range)).sum()
    }

    fn tensor(&self, repo: &Repository, segment: &LayoutSegment) -> Option<&Range<u64>> {
        self.tensors(repo).get(&key(segment)?)
    }

    fn tensors(&self, repo: &Repository) -> &Tensors {
        self.tensors.get_or_init(|| {
            self.read_tensors(repo).unwrap_or_else(|error| {
                tracing::debug!(%error, "the tensors of an older file cannot be told");
                Tensors::new()
            })
        })
    }

    fn read_tensors(&self, repo: &Repository) -> Result<Tensors> {
        let mut reader = repo.reader()?;
        let mut held: Option<(BlobId, Vec<u8>)> = None;
        let mut read = |offset: u64, out: &mut [u8]| -> Result<usize> {
            let mut done = 0;
            while done < out.len() {
                let at = offset + u64::try_from(done).unwrap_or(0);
                let rest = out.get_mut(done..).unwrap_or_default();
                let got = self.read_some(repo, &mut reader, &mut held, at, rest)?;
                if got == 0 {
                    break;
                }
                done += got;
            }
            Ok(done)
        };
        let layout = recognise(self.size, &mut read)?;
        let segments = layout.segments().iter();
        Ok(segments
            .filter_map(|segment| Some((key(segment)?, segment.range.clone())))
            .collect())
    }

    /// Reads on from `offset`, no further than to the end of an extent.
    fn read_some(
        &self,
        repo: &Repository,
        reader: &mut BlobReader<'_>,
        held: &mut Option<(BlobId, Vec<u8>)>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize> {
        let number = self.pages.partition_point(|page| page.range.end <= offset);
        let Some(page) = self.page(repo, number) else {
            return Ok(0);
        };
        let at = page.partition_point(|(range, _)| range.end <= offset);
        let Some((range, blob)) = page.get(at) else {
            return Ok(0);
        };
        let left = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
        let len = left.min(out.len());
        let out = out.get_mut(..len).unwrap_or_default();
        let Some(blob) = blob else {
            out.fill(0);
            return Ok(len);
        };
        if held.as_ref().is_none_or(|(id, _)| id != blob) {
            *held = Some((*blob, reader.load(blob)?));
        }
        let from = usize::try_from(offset - range.start).unwrap_or(usize::MAX);
        let bytes = held
            .as_ref()
            .and_then(|(_, bytes)| bytes.get(from..from + len));
        let Some(bytes) = bytes else {
            return Ok(0);
        };
        out.copy_from_slice(bytes);
        Ok(len)
    }

    /// A page of extents; none where it cannot be read.
    fn page(&self, repo: &Repository, number: usize) -> Option<Arc<Run>> {
        let page = self.pages.get(number)?;
        let blob = match &page.source {
            PageSource::Here(run) => return Some(Arc::clone(run)),
            PageSource::Blob(blob) => blob,
        };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, run)) = loaded.iter().find(|(known, _)| *known == number) {
            return Some(Arc::clone(run));
        }
        let run = match load_page(&mut repo.reader().ok()?, blob) {
            Ok(Page::Leaf(extents)) => Arc::new(run_of(&extents, page.range.start)),
            Ok(Page::Inner(_)) => return None,
            Err(error) => {
                tracing::debug!(%error, "what stood in a file before cannot be told");
                return None;
            }
        };
        if loaded.len() >= PAGES {
            loaded.remove(0);
        }
        loaded.push((number, Arc::clone(&run)));
        Some(run)
    }
}

/// By what a tensor is found again.
const fn key(segment: &LayoutSegment) -> Option<([u8; 32], Dtype)> {
    match segment.kind {
        SegmentKind::Tensor {
            dtype, name_hash, ..
        } => Some((name_hash, dtype)),
        _ => None,
    }
}

fn run_of(extents: &[Extent], start: u64) -> Run {
    let mut at = start;
    let places = extents.iter().map(|extent| {
        let range = at..at.saturating_add(extent.len());
        at = range.end;
        let blob = match extent {
            Extent::Data { id, .. } => Some(*id),
            Extent::Hole { .. } | Extent::Zero { .. } => None,
        };
        (range, blob)
    });
    places.collect()
}

/// Finds the pages of the lowest level.
fn find_pages(
    reader: &mut BlobReader<'_>,
    root: BlobId,
    level: u8,
    size: u64,
    pages: &mut Vec<PageAt>,
) -> Result<()> {
    let mut open = vec![(root, level.min(MAX_LEVEL), 0..size)];
    while let Some((blob, level, range)) = open.pop() {
        if pages.len() >= MAX_PAGES {
            return Ok(());
        }
        if level == 0 {
            let source = PageSource::Blob(blob);
            pages.push(PageAt { range, source });
            continue;
        }
        let Page::Inner(children) = load_page(reader, &blob)? else {
            return Ok(());
        };
        let mut end = range.end;
        // From behind, so that the first is on top.
        for child in children.iter().rev() {
            let start = end.saturating_sub(child.len);
            open.push((child.id, level - 1, start..end));
            end = start;
        }
    }
    Ok(())
}

fn load_page(reader: &mut BlobReader<'_>, blob: &BlobId) -> Result<Page> {
    let bytes = reader.load(blob)?;
    Page::decode(&bytes).map_err(|source| Error::DamagedBlob {
        blob: *blob,
        source,
    })
}
