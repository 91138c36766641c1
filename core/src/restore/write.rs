//! The workers: each takes a batch, loads its blobs in the order in which they lie in the packs,
//! and writes each where it belongs. Files may be part of several batches and of several workers'
//! work at once.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    sync::Arc,
};

use crossbeam_channel::{Receiver, Sender};
use strongroom_repo::{
    aligned::AlignedBuf,
    format::DecodeError,
    id::BlobId,
    repository::{BlobReader, Wanted},
};

use super::{
    Run,
    pending::PendingFile,
    window::{Layout, Window, joined},
};
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
    /// Pieces that are not done.
    pieces: Cell<u32>,
    /// Its number in the batch.
    number: u32,
    /// Its first piece in the batch; the others follow, in the order of the file.
    first: usize,
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
        let number = u32::try_from(self.shares.len()).unwrap_or(u32::MAX);
        self.shares.push(Share {
            number,
            file: PendingFile::hold(file),
            pieces: Cell::new(0),
            first: self.pieces.len(),
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
    let mut memory = AlignedBuf::new();
    for batch in batches {
        if run.is_over() {
            batch.give_up(run);
        } else {
            restore_batch(run, &mut reader, &batch, &mut memory);
        }
        if done.send(()).is_err() {
            return;
        }
    }
}

fn restore_batch(
    run: &Run<'_>,
    reader: &mut BlobReader<'_>,
    batch: &Batch,
    memory: &mut AlignedBuf,
) {
    for share in batch.shares.iter().filter(|share| share.pieces.get() == 0) {
        share.file.let_go(run);
    }
    let work = Work::new(run, batch, memory);
    let mut wanted = Vec::with_capacity(batch.pieces.len());
    for (tag, piece) in (0_u32..).zip(&batch.pieces) {
        match piece.content {
            PieceContent::Blob(id) => wanted.push(Wanted { id, tag }),
            PieceContent::Zeros => work.zeros(piece),
        }
    }
    let mut take = |tag: u32, plain: &[u8]| {
        work.blob(tag, plain);
        if run.is_over() {
            return Err(Error::Cancelled);
        }
        Ok(())
    };
    let mut failed = |tag: u32, error: strongroom_repo::error::Error| work.failed(tag, error);
    if reader.load_many(&wanted, &mut take, &mut failed).is_err() {
        // Cancelled: whatever is unfinished is let go unfinished.
        for share in batch.shares.iter().filter(|share| share.pieces.get() > 0) {
            share.pieces.set(0);
            share.file.let_go(run);
        }
    }
}

/// A batch at work.
struct Work<'b> {
    run: &'b Run<'b>,
    batch: &'b Batch,
    /// By share: where its content is put together before it is written.
    windows: Vec<Option<Window>>,
    memory: RefCell<&'b mut AlignedBuf>,
}

impl<'b> Work<'b> {
    fn new(run: &'b Run<'b>, batch: &'b Batch, memory: &'b mut AlignedBuf) -> Self {
        let mut layout = Layout::default();
        let window = |share| {
            let range = batch.blobs(share).map(|piece| piece.range());
            let bounds = range.reduce(|all, next| all.start..next.end)?;
            let bytes = batch.blobs(share).map(|piece| piece.len).sum();
            layout.window(bounds, bytes)
        };
        let windows = batch.shares.iter().map(window).collect();
        layout.make_room(memory);
        Self {
            run,
            batch,
            windows,
            memory: RefCell::new(memory),
        }
    }

    fn zeros(&self, piece: &Piece) {
        if let Some(share) = self.batch.share(piece) {
            share
                .file
                .write(self.run, |file| file.write_zeros(piece.offset, piece.len));
            self.piece_done(share, piece);
        }
    }

    fn blob(&self, tag: u32, plain: &[u8]) {
        if let Some((piece, share)) = self.batch.piece(tag) {
            if let Err(error) = check_len(piece, plain) {
                share.file.fail(self.run, error);
            } else if !self.keep(piece, plain) {
                share
                    .file
                    .write(self.run, |file| file.write_at(piece.offset, plain));
            }
            self.piece_done(share, piece);
        }
    }

    fn failed(&self, tag: u32, error: strongroom_repo::error::Error) {
        if let Some((piece, share)) = self.batch.piece(tag) {
            share.file.fail(self.run, error.into());
            self.piece_done(share, piece);
        }
    }

    /// Puts a blob into its file's window; false where there is none.
    fn keep(&self, piece: &Piece, plain: &[u8]) -> bool {
        let Some(place) = self.place(piece.share, piece.range()) else {
            return false;
        };
        let mut memory = self.memory.borrow_mut();
        let Some(room) = memory.get_mut(place) else {
            return false;
        };
        room.copy_from_slice(plain);
        true
    }

    fn place(&self, share: u32, range: Range<u64>) -> Option<Range<usize>> {
        let window = self.windows.get(usize::try_from(share).ok()?)?.as_ref()?;
        window.place(range.start, range.end - range.start)
    }

    fn piece_done(&self, share: &Share, piece: &Piece) {
        self.run.observer.advanced(piece.len);
        let left = share.pieces.get().saturating_sub(1);
        share.pieces.set(left);
        if left == 0 {
            self.write_window(share);
            share.file.let_go(self.run);
        }
    }

    /// Writes what was kept of a file.
    fn write_window(&self, share: &Share) {
        let memory = self.memory.borrow();
        for range in joined(self.batch.blobs(share).map(Piece::range)) {
            let start = range.start;
            let place = self.place(share.number, range);
            if let Some(bytes) = place.and_then(|place| memory.get(place)) {
                share
                    .file
                    .write(self.run, |file| file.write_pages(start, bytes));
            }
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

    /// The pieces of a file that are blobs, in order.
    fn blobs(&self, share: &Share) -> impl Iterator<Item = &Piece> {
        let pieces = self.pieces.get(share.first..).unwrap_or_default();
        let number = share.number;
        pieces
            .iter()
            .take_while(move |piece| piece.share == number)
            .filter(|piece| matches!(piece.content, PieceContent::Blob(_)))
    }
}

impl Piece {
    const fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.len)
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
