//! Putting the tree together, in the order of the walk, on the caller's thread; and the threads
//! around it.

use std::sync::atomic::Ordering;

use crossbeam_channel::Receiver;
use strongroom_repo::{codec::Hint, crypto::BlobKind, id::BlobId, writer::WorkBench};

use super::{
    BackupOptions, Run, is_fatal,
    promise::Stored,
    scan::count,
    visit::{Item, Visitor},
    work::work,
};
use crate::{
    error::{Error, Result},
    format::{
        snapshot::Summary,
        tree::{Body, TreeBuilder, TreeEntry},
    },
    node::{Node, NodeKind},
    observer::{Action, Done},
    source::{filter::Filter, walk::Walk},
};

/// Entries on their way to the assembler.
const ITEMS: usize = 4096;
/// Files and units on their way to the workers; each keeps its directory open.
const JOBS: usize = 256;

/// A directory being put together.
struct Frame {
    node: Node,
    builder: TreeBuilder,
    before: Option<BlobId>,
    changed: bool,
    path: Vec<u8>,
}

/// Puts entries together, in the order in which they come.
pub(super) struct Assembler<'r, 'a> {
    run: &'r Run<'a>,
    bench: WorkBench,
    frames: Vec<Frame>,
    root: TreeBuilder,
    summary: Summary,
}

impl Run<'_> {
    /// Walks, stores, and returns the root of the tree.
    pub(super) fn walk_and_store(
        &self,
        walk: Walk,
        options: &BackupOptions,
    ) -> Result<(BlobId, Summary)> {
        let (items_out, items_in) = crossbeam_channel::bounded(ITEMS);
        let (jobs_out, jobs_in) = crossbeam_channel::bounded(JOBS);
        let parent = self.parent.map(|(_, snapshot)| snapshot.tree);
        let result = std::thread::scope(|scope| {
            for _ in 0..options.workers.max(1) {
                let jobs = jobs_in.clone();
                scope.spawn(move || self.live(|| work(self, &jobs)));
            }
            drop(jobs_in);
            scope.spawn(move || {
                self.live(|| {
                    match Visitor::new(self, parent, items_out.clone(), jobs_out) {
                        Ok(visitor) => visitor.run(walk),
                        // The assembler ends the run, or has ended it.
                        Err(error) => drop(items_out.send(Item::Problem(error))),
                    }
                });
            });
            if options.count_first {
                let targets = options.resolve();
                let filter = Filter::compile(&options.filter)?;
                scope.spawn(move || self.live(|| count(self, Walk::new(targets, filter))));
            }
            let result = self.assemble(items_in);
            self.stop.store(true, Ordering::Relaxed);
            result
        });
        self.see_that_all_lived(result)
    }

    fn assemble(&self, items: Receiver<Item>) -> Result<(BlobId, Summary)> {
        let mut assembler = Assembler::new(self)?;
        for item in items {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            assembler.take(item)?;
        }
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        assembler.finish()
    }
}

impl<'r, 'a> Assembler<'r, 'a> {
    pub(super) fn new(run: &'r Run<'a>) -> Result<Self> {
        Ok(Self {
            run,
            bench: run.writer.bench()?,
            frames: Vec::new(),
            root: TreeBuilder::default(),
            summary: Summary::default(),
        })
    }

    /// Ends the tree, all of whose directories have been left, and returns its root.
    pub(super) fn finish(self) -> Result<(BlobId, Summary)> {
        let Self {
            run,
            mut bench,
            frames,
            root,
            summary,
        } = self;
        if !frames.is_empty() {
            return Err(Error::WorkerLost);
        }
        let tree = root.finish(&mut |bytes| store_page(run, &mut bench, bytes))?;
        Ok((tree, summary))
    }

    pub(super) fn take(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Enter {
                node,
                before,
                path,
                changed,
            } => {
                let builder = TreeBuilder::default();
                self.frames.push(Frame {
                    node,
                    builder,
                    before,
                    changed,
                    path,
                });
                Ok(())
            }
            Item::Leave => self.leave(),
            Item::Ready {
                entry,
                action,
                path,
                added,
            } => {
                if action == Action::Unchanged {
                    self.run.observer.advanced(entry.node.size());
                }
                self.add(&entry, action, &path, added)
            }
            Item::Pending { awaited, path } => match awaited.wait() {
                Ok(Stored {
                    entry,
                    action,
                    added,
                }) => self.add(&entry, action, &path, added),
                Err(error) if is_fatal(&error) => Err(error),
                Err(error) => {
                    self.run.report(&error);
                    Ok(())
                }
            },
            Item::Problem(error) if is_fatal(&error) => Err(error),
            Item::Problem(error) => {
                self.run.report(&error);
                Ok(())
            }
        }
    }

    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else {
            return Err(Error::WorkerLost);
        };
        let (run, bench) = (self.run, &mut self.bench);
        let tree = frame
            .builder
            .finish(&mut |bytes| store_page(run, bench, bytes))?;
        let action = match frame.before {
            None => Action::New,
            Some(before) if before == tree && !frame.changed => Action::Unchanged,
            Some(_) => Action::Changed,
        };
        let entry = TreeEntry {
            node: frame.node,
            body: Body::Dir(tree),
        };
        self.add(&entry, action, &frame.path, 0)
    }

    fn add(&mut self, entry: &TreeEntry, action: Action, path: &[u8], added: u64) -> Result<()> {
        let is_dir = matches!(entry.node.kind, NodeKind::Dir);
        let size = match entry.node.kind {
            NodeKind::File { size } => size,
            _ => 0,
        };
        self.count(action, is_dir, size);
        self.run.observer.finished(&Done {
            path,
            action,
            is_dir,
            size,
            added,
        });
        let (run, bench) = (self.run, &mut self.bench);
        let builder = self
            .frames
            .last_mut()
            .map_or(&mut self.root, |frame| &mut frame.builder);
        builder.push(entry, &mut |bytes| store_page(run, bench, bytes))
    }

    const fn count(&mut self, action: Action, is_dir: bool, size: u64) {
        let summary = &mut self.summary;
        let counter = match (is_dir, action) {
            (false, Action::New) => &mut summary.files_new,
            (false, Action::Changed) => &mut summary.files_changed,
            (false, Action::Unchanged) => &mut summary.files_unmodified,
            (true, Action::New) => &mut summary.dirs_new,
            (true, Action::Changed) => &mut summary.dirs_changed,
            (true, Action::Unchanged) => &mut summary.dirs_unmodified,
        };
        *counter += 1;
        if !is_dir {
            summary.total_files += 1;
            summary.total_bytes = summary.total_bytes.saturating_add(size);
        }
    }
}

fn store_page(run: &Run<'_>, bench: &mut WorkBench, bytes: &[u8]) -> Result<BlobId> {
    Ok(run
        .writer
        .put(bench, BlobKind::Tree, Hint::Plain, bytes)?
        .id)
}
