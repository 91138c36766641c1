//! Divides the contents of files into pieces and these into batches, and hands full batches to the
//! workers. A long file is part of many batches, small files share one. What is handed over and not
//! yet done is bounded by the channel.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::{
    Run,
    pending::{Item, PendingFile},
    write::{Batch, PieceContent},
};
use crate::{
    error::{Error, Result},
    format::extents::Extent,
    view::FileExtents,
};

/// Plain bytes of a batch. More would not stay in the processor's cache; with less, blobs that lie
/// together in a pack are read in more parts.
const BATCH_BYTES: u64 = 8 << 20;
/// Files of a batch.
const BATCH_FILES: usize = 512;
/// Files of a batch that stay open over several pieces.
const BATCH_LONG: usize = 48;
/// Zeros written in one go.
const MAX_ZEROS: u64 = 8 << 20;
/// The planner's end of the channel to the workers.
pub(super) struct Feeder<'r, 'a> {
    run: &'r Run<'a>,
    jobs: Sender<Batch>,
    done: Receiver<()>,
    /// Batches that were sent and not yet done.
    in_flight: usize,
    batch: Batch,
}

impl<'r, 'a> Feeder<'r, 'a> {
    pub(super) fn new(run: &'r Run<'a>, jobs: Sender<Batch>, done: Receiver<()>) -> Self {
        Self {
            run,
            jobs,
            done,
            in_flight: 0,
            batch: Batch::default(),
        }
    }

    /// Divides a file's content into pieces for the workers. `is_solid` says that they make up all
    /// of it.
    pub(super) fn file(
        &mut self,
        item: Item,
        extents: FileExtents<'_>,
        is_solid: bool,
    ) -> Result<()> {
        let size = item.entry.node.size();
        let file = PendingFile::new(item, is_solid);
        if self.is_full() {
            self.flush()?;
        }
        self.batch.add_file(&file);
        let mut offset = 0_u64;
        for extent in extents {
            if self.run.is_over() || file.has_failed() {
                break;
            }
            let extent = match extent {
                Ok(extent) => extent,
                Err(error) => {
                    file.fail(self.run, error);
                    break;
                }
            };
            let start = offset;
            offset = offset.saturating_add(extent.len());
            if offset > size {
                break;
            }
            self.pieces(&file, start, extent)?;
        }
        if offset != size && !file.has_failed() && !self.run.is_over() {
            file.fail(
                self.run,
                Error::WrongLength {
                    path: file.path().to_vec(),
                    size,
                    found: offset,
                },
            );
        }
        file.let_go(self.run);
        Ok(())
    }

    fn pieces(&mut self, file: &Arc<PendingFile>, start: u64, extent: Extent) -> Result<()> {
        match extent {
            Extent::Data { len, id } => {
                self.piece(file, start, u64::from(len), PieceContent::Blob(id))
            }
            Extent::Zero { len } if !self.run.options.sparse => {
                let mut done = 0;
                while done < len && !file.has_failed() && !self.run.is_over() {
                    let part = (len - done).min(MAX_ZEROS);
                    self.piece(file, start + done, part, PieceContent::Zeros)?;
                    done += part;
                }
                Ok(())
            }
            Extent::Hole { len } | Extent::Zero { len } => {
                self.run.observer.advanced(len);
                Ok(())
            }
        }
    }

    fn piece(
        &mut self,
        file: &Arc<PendingFile>,
        offset: u64,
        len: u64,
        content: PieceContent,
    ) -> Result<()> {
        if self.is_full() {
            let mut next = Batch::default();
            next.add_file(file);
            let full = std::mem::replace(&mut self.batch, next);
            self.send(full)?;
        }
        self.batch.add_piece(offset, len, content);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.batch.bytes >= BATCH_BYTES
            || self.batch.files() >= BATCH_FILES
            || self.batch.long >= BATCH_LONG
    }

    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.send(batch)
    }

    fn send(&mut self, batch: Batch) -> Result<()> {
        self.in_flight += 1;
        self.jobs.send(batch).map_err(|_| Error::WorkerLost)?;
        while self.done.try_recv().is_ok() {
            self.in_flight -= 1;
        }
        Ok(())
    }

    /// Waits until the workers are idle.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or the workers are gone.
    pub(super) fn wait(&mut self) -> Result<()> {
        self.flush()?;
        while self.in_flight > 0 {
            self.done.recv().map_err(|_| Error::WorkerLost)?;
            self.in_flight -= 1;
        }
        if self.run.is_over() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}
