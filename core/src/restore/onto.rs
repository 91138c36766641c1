//! One file of a snapshot onto a block device, or into a file that is there already: what is there
//! is read and compared, and only what differs is written.
//!
//! ```text
//! plan (the caller reads the extents) --batches--> workers: read, compare, load, write
//! ```
//!
//! What stands there is hashed piece by piece: a piece with the right id is not even fetched from
//! the repository. Of the others only the pages that differ are written. The target keeps its size.
//! This is the stated exception to I24: while it runs, and after a crash, the target is a mixture
//! of old and new. The same command makes it whole then.

mod claim;
mod compare;

use std::{
    ops::Range,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use claim::Claim;
use crossbeam_channel::{Receiver, Sender, bounded};
use strongroom_repo::{
    aligned::AlignedBuf,
    id::BlobId,
    repository::{BlobReader, Repository},
};

use crate::{
    error::{Error, RestoreAction, Result},
    format::extents::{Content, Extent, Extents, Page},
    observer::{Action, Done, Observer},
};

/// Where to write, and how.
#[derive(Clone, Debug)]
pub struct OntoOptions {
    /// A block device, or a regular file that exists.
    pub device: PathBuf,
    /// Compare and count only.
    pub dry_run: bool,
    /// Write although somebody else uses the device.
    pub force: bool,
    /// Read everything back and compare it.
    pub verify: bool,
    /// Threads that read and write.
    pub workers: usize,
}

/// What became of it. All figures are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OntoReport {
    /// The size of the file in the snapshot.
    pub size: u64,
    /// The size of the device or file: what is beyond `size` was left alone.
    pub device_size: u64,
    /// What was read and compared.
    pub compared: u64,
    /// What was written; on a dry run, would be.
    pub written: u64,
    /// What was read back and found right.
    pub verified: u64,
    /// Pieces that could not be restored, or were not right when they were read back; each was told
    /// to the observer.
    pub problems: u64,
}

/// The file that is restored.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Its path in the snapshot.
    pub path: &'a [u8],
    /// Its content.
    pub content: &'a Content,
    /// Its length in bytes.
    pub size: u64,
}

/// Bytes of a batch, and of zeros that are one piece.
const BATCH: u64 = 8 << 20;

/// Writes a file of a snapshot over a device or file.
///
/// # Errors
/// The target is no device or file, too small, in use, or fails; [`Error::Cancelled`]. Once it has
/// begun to write, the target is neither old nor new after an error. A blob that cannot be read is
/// no error of the whole: it is told to `observer` and counted, and everything else is written.
pub fn restore_onto(
    repo: &Repository,
    image: Image<'_>,
    options: &OntoOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<OntoReport> {
    let claim = Claim::take(&options.device, !options.dry_run, options.force)?;
    if claim.size < image.size {
        return Err(Error::DeviceTooSmall {
            path: options.device.clone(),
            size: claim.size,
            wanted: image.size,
        });
    }
    let verifies = options.verify && !options.dry_run;
    let rounds = if verifies { 2 } else { 1 };
    observer.total(1, image.size.saturating_mul(rounds));
    observer.started(image.path);
    let mut run = Run {
        repo,
        image,
        claim,
        task: if options.dry_run {
            Task::Count
        } else {
            Task::Write
        },
        observer,
        cancel,
        stop: AtomicBool::new(false),
        failure: Mutex::default(),
        compared: AtomicU64::new(0),
        written: AtomicU64::new(0),
        wrong: AtomicU64::new(0),
        problems: AtomicU64::new(0),
    };
    run.go(options.workers.max(1))?;
    let mut report = OntoReport {
        size: image.size,
        device_size: run.claim.size,
        compared: run.compared.load(Ordering::Relaxed),
        written: run.written.load(Ordering::Relaxed),
        ..OntoReport::default()
    };
    if run.task == Task::Write {
        run.claim.sync()?;
    }
    if verifies {
        run.task = Task::Verify;
        run.compared = AtomicU64::new(0);
        run.go(options.workers.max(1))?;
        let wrong = run.wrong.load(Ordering::Relaxed);
        report.verified = run.compared.load(Ordering::Relaxed).saturating_sub(wrong);
    }
    report.problems = run.problems.load(Ordering::Relaxed);
    observer.finished(&Done {
        path: image.path,
        action: Action::Changed,
        is_dir: false,
        size: image.size,
        added: 0,
    });
    Ok(report)
}

/// What is done about what differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Write,
    Count,
    Verify,
}

/// What all threads share.
struct Run<'a> {
    repo: &'a Repository,
    image: Image<'a>,
    claim: Claim,
    task: Task,
    observer: &'a dyn Observer,
    cancel: &'a AtomicBool,
    stop: AtomicBool,
    /// What ended the run.
    failure: Mutex<Option<Error>>,
    compared: AtomicU64,
    written: AtomicU64,
    /// Bytes in pieces that turned out wrong.
    wrong: AtomicU64,
    problems: AtomicU64,
}

/// Neighbouring pieces of the file.
#[derive(Debug, Default)]
struct Batch {
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    offset: u64,
    len: u64,
    /// None for zeros.
    blob: Option<BlobId>,
}

impl Run<'_> {
    /// Goes through the whole file once.
    fn go(&self, workers: usize) -> Result<()> {
        let extents = self.extents()?;
        let mut readers = Vec::with_capacity(workers);
        for _ in 0..workers {
            readers.push(self.repo.reader()?);
        }
        let (sender, batches) = bounded(workers);
        let planned = thread::scope(|scope| {
            let threads: Vec<_> = readers
                .into_iter()
                .map(|reader| {
                    let batches = batches.clone();
                    scope.spawn(move || self.work(reader, &batches))
                })
                .collect();
            drop(batches);
            let planned = self.plan(extents, &sender);
            drop(sender);
            if planned.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
            let mut lost = false;
            for thread in threads {
                lost |= thread.join().is_err();
            }
            if lost {
                Err(Error::WorkerLost)
            } else {
                planned
            }
        });
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.take() {
            Some(error) => Err(error),
            None if self.cancel.load(Ordering::Relaxed) => Err(Error::Cancelled),
            None => planned,
        }
    }

    fn extents(&self) -> Result<Extents<'_, Error>> {
        let mut reader = self.repo.reader()?;
        Ok(Extents::new(self.image.content, move |id: &BlobId| {
            let bytes = reader.load(id)?;
            Page::decode(&bytes).map_err(|source| Error::DamagedBlob { blob: *id, source })
        }))
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancel.load(Ordering::Relaxed)
    }

    /// Divides the file into batches.
    fn plan(&self, extents: Extents<'_, Error>, batches: &Sender<Batch>) -> Result<()> {
        let (mut offset, mut batch) = (0_u64, Batch::default());
        for extent in extents {
            let extent = match extent {
                Ok(extent) => extent,
                Err(error) => {
                    self.lost(offset..self.image.size, error);
                    offset = self.image.size;
                    break;
                }
            };
            let end = offset.saturating_add(extent.len());
            if end > self.image.size {
                return Err(self.wrong_length(end));
            }
            while offset < end {
                if self.is_over() {
                    return Err(Error::Cancelled);
                }
                let (len, blob) = match extent {
                    Extent::Data { len, id } => (u64::from(len), Some(id)),
                    Extent::Hole { .. } | Extent::Zero { .. } => ((end - offset).min(BATCH), None),
                };
                batch.pieces.push(Piece { offset, len, blob });
                offset = offset.saturating_add(len);
                if batch.len() >= BATCH {
                    let full = std::mem::take(&mut batch);
                    batches.send(full).map_err(|_| Error::WorkerLost)?;
                }
            }
        }
        if offset != self.image.size {
            return Err(self.wrong_length(offset));
        }
        batches.send(batch).map_err(|_| Error::WorkerLost)
    }

    fn wrong_length(&self, found: u64) -> Error {
        Error::WrongLength {
            path: self.image.path.to_vec(),
            size: self.image.size,
            found,
        }
    }

    /// A worker's life.
    fn work(&self, mut reader: BlobReader<'_>, batches: &Receiver<Batch>) {
        let mut memory = AlignedBuf::new();
        for batch in batches {
            if self.is_over() {
                continue;
            }
            if let Err(error) = self.batch(&mut reader, &batch, &mut memory) {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Tells of bytes that are not restored.
    fn lost(&self, range: Range<u64>, source: Error) {
        self.problem(&Error::PieceNotRestored {
            path: self.image.path.to_vec(),
            offset: range.start,
            len: range.end.saturating_sub(range.start),
            source: Box::new(source),
        });
    }

    fn problem(&self, error: &Error) {
        self.problems.fetch_add(1, Ordering::Relaxed);
        self.observer.problem(error);
    }

    fn refused(&self, action: RestoreAction, refused: crate::raw::Refused) -> Error {
        Error::DeviceRefused {
            action,
            path: self.claim.path.clone(),
            offset: refused.offset,
            source: refused.source,
        }
    }
}

impl Batch {
    fn len(&self) -> u64 {
        let range = self.range();
        range.end - range.start
    }

    /// The bytes of the file that it covers.
    fn range(&self) -> Range<u64> {
        let start = self.pieces.first().map_or(0, |piece| piece.offset);
        let end = self.pieces.last().map_or(start, |piece| piece.range().end);
        start..end
    }
}

impl Piece {
    const fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.len)
    }
}

#[cfg(test)]
mod tests;
