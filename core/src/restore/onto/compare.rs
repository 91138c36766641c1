//! One batch: what stands in its place is read into a window of whole pages, compared piece by
//! piece, patched where it differs, and written from there.

use std::{cell::RefCell, ops::Range, sync::atomic::Ordering};

use strongroom_repo::{
    aligned::{AlignedBuf, PAGE},
    crypto::BlobKind,
    error::Error as RepoError,
    format::DecodeError,
    repository::{BlobReader, Wanted},
};

use super::{Batch, Piece, Run, Task};
use crate::{
    archive::is_zero,
    error::{Error, RestoreAction, Result},
    raw::{Refused, in_page},
};

impl Run<'_> {
    /// Compares a batch and writes what differs.
    pub(super) fn batch(
        &self,
        reader: &mut BlobReader<'_>,
        batch: &Batch,
        memory: &mut AlignedBuf,
    ) -> Result<()> {
        let range = batch.range();
        let window = RefCell::new(self.read(&range, memory)?);
        let mut wanted = Vec::new();
        for (tag, piece) in (0_u32..).zip(&batch.pieces) {
            let mut window = window.borrow_mut();
            match piece.blob {
                None => window.clear(piece.range()),
                Some(id) => {
                    let there = window.bytes(&piece.range());
                    if self.repo.blob_id(BlobKind::Data, there) != id {
                        wanted.push(Wanted { id, tag });
                    }
                }
            }
        }
        if self.task == Task::Verify {
            self.tell_wrong(batch, &wanted, &window.borrow());
        } else {
            self.load(reader, batch, &wanted, &window)?;
            self.write(&window.into_inner())?;
        }
        let len = range.end - range.start;
        self.compared.fetch_add(len, Ordering::Relaxed);
        self.observer.advanced(len);
        Ok(())
    }

    /// Reads what is there.
    fn read<'m>(&self, range: &Range<u64>, memory: &'m mut AlignedBuf) -> Result<Window<'m>> {
        let lead = in_page(range.start);
        let first = range.start - to_u64(lead);
        let len = to_usize(range.end.next_multiple_of(PAGE as u64) - first);
        let memory = memory.room(len);
        let raw = &self.claim.raw;
        let got = raw
            .read_pages(first, memory)
            .map_err(|refused| self.refused(RestoreAction::Read, refused))?;
        let end = first + to_u64(got);
        if end < range.end {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            let refused = Refused {
                offset: end,
                source,
            };
            return Err(self.refused(RestoreAction::Read, refused));
        }
        Ok(Window {
            first,
            range: range.clone(),
            memory,
            dirty: Vec::new(),
        })
    }

    fn load(
        &self,
        reader: &mut BlobReader<'_>,
        batch: &Batch,
        wanted: &[Wanted],
        window: &RefCell<Window<'_>>,
    ) -> Result<()> {
        let piece = |tag: u32| batch.pieces.get(usize::try_from(tag).ok()?);
        let mut take = |tag: u32, plain: &[u8]| {
            if let Some(piece) = piece(tag) {
                match check_len(piece, plain) {
                    Ok(()) => window.borrow_mut().patch(piece.range(), plain),
                    Err(error) => self.lost(piece.range(), error),
                }
            }
            if self.is_over() {
                return Err(Error::Cancelled);
            }
            Ok(())
        };
        let mut failed = |tag: u32, error: RepoError| {
            if let Some(piece) = piece(tag) {
                self.lost(piece.range(), error.into());
            }
        };
        reader.load_many(wanted, &mut take, &mut failed)
    }

    fn write(&self, window: &Window<'_>) -> Result<()> {
        for range in window.changes() {
            if self.task == Task::Write {
                let bytes = window.bytes(&range);
                let written = self.claim.raw.write(range.start, bytes);
                written.map_err(|refused| self.refused(RestoreAction::Write, refused))?;
            }
            let len = range.end - range.start;
            self.written.fetch_add(len, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What was read back other than it should be.
    fn tell_wrong(&self, batch: &Batch, wanted: &[Wanted], window: &Window<'_>) {
        let pieces = (0_u32..).zip(&batch.pieces).filter(|(tag, piece)| {
            let of_blob = wanted.iter().any(|want| want.tag == *tag);
            let piece = piece.range();
            let is_dirty = |dirty: &Range<u64>| piece.start < dirty.end && dirty.start < piece.end;
            of_blob || window.dirty.iter().any(is_dirty)
        });
        for (_, piece) in pieces {
            self.wrong.fetch_add(piece.len, Ordering::Relaxed);
            self.problem(&Error::Differs {
                path: self.image.path.to_vec(),
                offset: piece.offset,
            });
        }
    }
}

/// What a batch has in the target, in memory that lies as the target's pages do.
struct Window<'m> {
    /// Where the memory begins, on a page.
    first: u64,
    /// What of it belongs to the batch.
    range: Range<u64>,
    memory: &'m mut [u8],
    /// What was changed, within `range`.
    dirty: Vec<Range<u64>>,
}

impl Window<'_> {
    fn place(&self, range: &Range<u64>) -> Range<usize> {
        let at = |offset: u64| to_usize(offset.saturating_sub(self.first));
        at(range.start)..at(range.end)
    }

    fn bytes(&self, range: &Range<u64>) -> &[u8] {
        self.memory.get(self.place(range)).unwrap_or_default()
    }

    /// Makes a range what it is to be.
    fn patch(&mut self, range: Range<u64>, plain: &[u8]) {
        let mut plain = plain;
        for part in pages(range) {
            let place = self.place(&part);
            let (new, rest) = plain.split_at(place.len().min(plain.len()));
            plain = rest;
            if let Some(old) = self.memory.get_mut(place).filter(|old| **old != *new) {
                old.copy_from_slice(new);
                self.dirty.push(part);
            }
        }
    }

    /// Makes a range zeros.
    fn clear(&mut self, range: Range<u64>) {
        for part in pages(range) {
            let place = self.place(&part);
            if let Some(old) = self.memory.get_mut(place).filter(|old| !is_zero(old)) {
                old.fill(0);
                self.dirty.push(part);
            }
        }
    }

    /// What is to be written, in order: whole pages where all of them belong to the batch.
    fn changes(&self) -> Vec<Range<u64>> {
        let page = PAGE as u64;
        let mut changes: Vec<_> = self
            .dirty
            .iter()
            .map(|dirty| {
                let start = (dirty.start / page * page).max(self.range.start);
                start..dirty.end.next_multiple_of(page).min(self.range.end)
            })
            .collect();
        changes.sort_unstable_by_key(|change| change.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for change in changes {
            match joined.last_mut() {
                Some(last) if change.start <= last.end => last.end = last.end.max(change.end),
                _ => joined.push(change),
            }
        }
        joined
    }
}

/// Divides a range at the ends of pages.
fn pages(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = (start / PAGE as u64 + 1) * PAGE as u64;
        let part = start..end.min(range.end);
        start = part.end;
        (!part.is_empty()).then_some(part)
    })
}

/// A blob is as long as its extent, or the list is not of this file.
fn check_len(piece: &Piece, plain: &[u8]) -> Result<()> {
    match piece.blob {
        Some(blob) if to_u64(plain.len()) != piece.len => Err(Error::DamagedBlob {
            blob,
            source: DecodeError::Malformed {
                what: "length of an extent",
            },
        }),
        _ => Ok(()),
    }
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_differ_are_written_and_none_beyond_the_batch() {
        let mut memory = AlignedBuf::new();
        memory.resize(5 * PAGE);
        memory.fill(7);
        let mut window = Window {
            first: 8192,
            range: 8200..8192 + 20_000,
            memory: &mut memory,
            dirty: Vec::new(),
        };
        window.patch(8200..8300, &[7; 100]);
        assert_eq!(window.changes(), []);
        // At the end of the batch first, as blobs come in any order.
        window.clear(28_190..28_192);
        window.patch(12_287..12_289, &[7, 8]);
        window.patch(8200..8201, &[9]);
        assert_eq!(window.bytes(&(12_287..12_290)), [7, 8, 7]);
        assert_eq!(window.changes(), [8200..16_384, 24_576..28_192]);
    }

    #[test]
    fn pages_cover_a_range_without_gaps() {
        let parts: Vec<_> = pages(4000..9000).collect();
        assert_eq!(parts, [4000..4096, 4096..8192, 8192..9000]);
        assert_eq!(pages(5..5).count(), 0);
    }
}
