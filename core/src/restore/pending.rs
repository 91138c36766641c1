//! A file or directory while somebody is at work on it. Both are counted: the one who is done last
//! with a file gives it its name, the one who is done last with a directory its metadata.
//!
//! What must stay true: a file with a failed part never gets its name; a directory gets its
//! metadata after everything in it and once.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{Run, dir::Dir, file::FileWriter};
use crate::{
    error::{Error, Result},
    format::tree::TreeEntry,
    node::{Metadata, Node},
};

/// A directory that is being filled. Whoever holds it gives it back by [`release`].
pub(super) struct PendingDir {
    /// Nothing for the root.
    parent: Option<Arc<Self>>,
    /// None on a dry run.
    dir: Option<Dir>,
    /// Nothing where the directory keeps what it has: the root's is not in the snapshot.
    meta: Option<Metadata>,
}

impl PendingDir {
    pub(super) fn root(dir: Option<Dir>) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            dir,
            meta: None,
        })
    }

    pub(super) fn below(parent: &Arc<Self>, dir: Option<Dir>, meta: Metadata) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(Arc::clone(parent)),
            dir,
            meta: Some(meta),
        })
    }

    /// The directory itself; none on a dry run.
    pub(super) const fn dir(&self) -> Option<&Dir> {
        self.dir.as_ref()
    }

    fn finish(&self, run: &Run<'_>) {
        let (Some(dir), Some(meta)) = (&self.dir, &self.meta) else {
            return;
        };
        match dir.finish(meta) {
            Ok(problems) => {
                for problem in problems {
                    run.report(&Error::Metadata(problem));
                }
            }
            Err(error) => run.report(&error),
        }
    }
}

impl Drop for PendingDir {
    /// Drops a long chain of parents one by one: recursion would use up the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut dir| dir.parent.take());
        }
    }
}

/// Gives a directory back. The last one to do so finishes it, and then its parents likewise.
pub(super) fn release(run: &Run<'_>, dir: Arc<PendingDir>) {
    let mut next = Some(dir);
    while let Some(mut last) = next.and_then(Arc::into_inner) {
        if !run.is_over() {
            last.finish(run);
        }
        next = last.parent.take();
    }
}

/// A file that is being written, by one worker or several.
pub(super) struct PendingFile {
    node: Node,
    path: Vec<u8>,
    size: u64,
    /// Its place in the order of the walk.
    number: u64,
    /// Something had its name before.
    existed: bool,
    /// All of it will be written.
    is_solid: bool,
    place: RwLock<Place>,
    holders: AtomicUsize,
    failed: AtomicBool,
}

/// Where it goes. Both are taken out by the last holder: others may still have their pointers.
struct Place {
    dir: Option<Arc<PendingDir>>,
    writer: WriterState,
}

enum WriterState {
    NotYet,
    Open(FileWriter),
    Gone,
}

/// An entry on its way.
pub(super) struct Item {
    pub(super) dir: Arc<PendingDir>,
    pub(super) entry: TreeEntry,
    pub(super) path: Vec<u8>,
    /// Its place in the order of the walk.
    pub(super) number: u64,
    /// Something had its name before.
    pub(super) existed: bool,
}

impl PendingFile {
    /// A file with one holder.
    pub(super) fn new(item: Item, is_solid: bool) -> Arc<Self> {
        Arc::new(Self {
            size: item.entry.node.size(),
            node: item.entry.node,
            path: item.path,
            number: item.number,
            existed: item.existed,
            is_solid,
            place: RwLock::new(Place {
                dir: Some(item.dir),
                writer: WriterState::NotYet,
            }),
            holders: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
        })
    }

    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// One more holder. Only a holder may make one.
    pub(super) fn hold(file: &Arc<Self>) -> Arc<Self> {
        file.holders.fetch_add(1, Ordering::Relaxed);
        Arc::clone(file)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// The file will not be restored; the first reason is told.
    pub(super) fn fail(&self, run: &Run<'_>, error: Error) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            run.report_file(&self.path, error);
        }
    }

    /// Writes something of the content.
    pub(super) fn write(&self, run: &Run<'_>, write: impl FnOnce(&FileWriter) -> Result<()>) {
        if self.has_failed() {
            return;
        }
        if let Err(error) = self.try_write(run, write) {
            self.fail(run, error);
        }
    }

    fn try_write(
        &self,
        run: &Run<'_>,
        write: impl FnOnce(&FileWriter) -> Result<()>,
    ) -> Result<()> {
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        if let WriterState::Open(writer) = &place.writer {
            return write(writer);
        }
        drop(place);
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        self.open(run, &mut place)?;
        drop(place);
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        match &place.writer {
            WriterState::Open(writer) => write(writer),
            _ => Err(Error::WorkerLost),
        }
    }

    fn open(&self, run: &Run<'_>, place: &mut Place) -> Result<()> {
        let dir = place.dir.as_ref().and_then(|dir| dir.dir());
        if let (WriterState::NotYet, Some(dir)) = (&place.writer, dir) {
            run.observer.started(&self.path);
            let name = &self.node.name;
            let writer = dir.create_file(name, self.size, self.node.meta.mode)?;
            if self.is_solid {
                writer.reserve();
            }
            place.writer = WriterState::Open(writer);
        }
        Ok(())
    }

    /// Lets a file go. The last holder gives it its name, or removes what there is of it.
    pub(super) fn let_go(&self, run: &Run<'_>) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        match self.finish(run, &mut place) {
            Ok(true) => {
                run.mark_written(self.number);
                run.restored(&self.path, self.size, self.existed);
            }
            Ok(false) => {}
            Err(error) => self.fail(run, error),
        }
        let dir = place.dir.take();
        drop(place);
        if let Some(dir) = dir {
            release(run, dir);
        }
    }

    fn finish(&self, run: &Run<'_>, place: &mut Place) -> Result<bool> {
        if self.has_failed() || run.is_over() {
            place.writer = WriterState::Gone;
            return Ok(false);
        }
        self.open(run, place)?;
        let WriterState::Open(writer) = std::mem::replace(&mut place.writer, WriterState::Gone)
        else {
            return Err(Error::WorkerLost);
        };
        for problem in writer.finish(&self.node.meta)? {
            run.report(&Error::Metadata(problem));
        }
        Ok(true)
    }
}
