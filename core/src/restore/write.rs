//! The workers: each takes a batch, loads its blobs in the order in which they lie in the packs,
//! and writes each where it belongs. Files may be part of several batches and of several workers'
//! work at once.

use std::{cell::Cell, sync::Arc};

use crossbeam_channel::{Receiver, Sender};
use strongroom_repo::{
    format::DecodeError,
    id::BlobId,
    repository::{BlobReader, Wanted},
};

use super::{Run, pending::PendingFile};
use crate::error::{Error, Result};

/// What one worker does in one go.
#[derive(Default)]
pub(super) struct Batch {
    shares: Vec<Share>,
    pieces: Vec<Piece>,
    /// Plain bytes of all pieces.
    pub(super) bytes: u64,
    /// Files that are open from their first piece to their last.
    pub(super) long: usize,
}

/// A file that the batch holds.
struct Share {
    file: Arc<PendingFile>,
    pieces: Cell<u32>,
}

/// Some bytes of a file.
struct Piece {
    share: u32,
    offset: u64,
    len: u64,
    content: PieceContent,
}

/// What they are.
#[derive(Clone, Copy)]
pub(super) enum PieceContent {
    Blob(BlobId),
    Zeros,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    pub(super) fn files(&self) -> usize {
        self.shares.len()
    }

    /// Takes a share in a file; the pieces that follow are its.
    pub(super) fn add_file(&mut self, file: &Arc<PendingFile>) {
        self.shares.push(Share {
            file: PendingFile::hold(file),
            pieces: Cell::new(0),
        });
    }

    pub(super) fn add_piece(&mut self, offset: u64, len: u64, content: PieceContent) {
        let share = u32::try_from(self.shares.len().saturating_sub(1)).unwrap_or(u32::MAX);
        if let Some(share) = self.shares.last() {
            let pieces = share.pieces.get() + 1;
            share.pieces.set(pieces);
            self.long += usize::from(pieces == 2);
        }
        self.bytes += len;
        self.pieces.push(Piece {
            share,
            offset,
            len,
            content,
        });
    }

    /// Nobody takes it: its files are let go.
    pub(super) fn give_up(self, run: &Run<'_>) {
        for share in &self.shares {
            share.file.let_go(run);
        }
    }
}

/// A worker's life. Says `done` after every batch.
pub(super) fn work(
    run: &Run<'_>,
    mut reader: BlobReader<'_>,
    batches: &Receiver<Batch>,
    done: &Sender<()>,
) {
    for batch in batches {
        if run.is_over() {
            batch.give_up(run);
        } else {
            restore_batch(run, &mut reader, &batch);
        }
        if done.send(()).is_err() {
            return;
        }
    }
}

fn restore_batch(run: &Run<'_>, reader: &mut BlobReader<'_>, batch: &Batch) {
    let mut wanted = Vec::with_capacity(batch.pieces.len());
    for share in batch.shares.iter().filter(|share| share.pieces.get() == 0) {
        share.file.let_go(run);
    }
    for (tag, piece) in (0_u32..).zip(&batch.pieces) {
        match piece.content {
            PieceContent::Blob(id) => wanted.push(Wanted { id, tag }),
            PieceContent::Zeros => {
                let Some(share) = batch.share(piece) else {
                    continue;
                };
                share
                    .file
                    .write(run, |writer| writer.write_zeros(piece.offset, piece.len));
                share.piece_done(run, piece);
            }
        }
    }
    let mut take = |tag: u32, plain: &[u8]| {
        if let Some((piece, share)) = batch.piece(tag) {
            share.file.write(run, |writer| {
                check_len(piece, plain)?;
                writer.write_at(piece.offset, plain)
            });
            share.piece_done(run, piece);
        }
        if run.is_over() {
            return Err(Error::Cancelled);
        }
        Ok(())
    };
    let mut failed = |tag: u32, error: strongroom_repo::error::Error| {
        if let Some((piece, share)) = batch.piece(tag) {
            share.file.fail(run, error.into());
            share.piece_done(run, piece);
        }
    };
    if reader.load_many(&wanted, &mut take, &mut failed).is_err() {
        // Cancelled: whatever is unfinished is let go unfinished.
        for share in batch.shares.iter().filter(|share| share.pieces.get() > 0) {
            share.pieces.set(0);
            share.file.let_go(run);
        }
    }
}

impl Batch {
    fn piece(&self, tag: u32) -> Option<(&Piece, &Share)> {
        let piece = self.pieces.get(usize::try_from(tag).ok()?)?;
        Some((piece, self.share(piece)?))
    }

    fn share(&self, piece: &Piece) -> Option<&Share> {
        self.shares.get(usize::try_from(piece.share).ok()?)
    }
}

impl Share {
    fn piece_done(&self, run: &Run<'_>, piece: &Piece) {
        run.observer.advanced(piece.len);
        let left = self.pieces.get().saturating_sub(1);
        self.pieces.set(left);
        if left == 0 {
            self.file.let_go(run);
        }
    }
}

/// A blob is as long as its extent, or the list is not of this file.
fn check_len(piece: &Piece, plain: &[u8]) -> Result<()> {
    match piece.content {
        PieceContent::Blob(blob) if plain.len() as u64 != piece.len => Err(Error::DamagedBlob {
            blob,
            source: DecodeError::Malformed {
                what: "length of an extent",
            },
        }),
        _ => Ok(()),
    }
}
