//! The walking side of a restore, in the caller's thread: follows the tree, decides what becomes
//! of each entry, makes directories, bare nodes and hard links, and divides the contents of files
//! into batches for the workers.
//!
//! A directory is made when the first wanted thing in it is met. A later name of a hard-linked file
//! waits until the first is there; if that fails, another name takes its place.

use std::{collections::HashSet, sync::Arc, thread};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use strongroom_repo::id::BlobId;

use super::{
    Run, add,
    existing::{Verdict, judge, make_dir, update},
    pending::{About, PendingDir, PendingFile, release},
    select::Progress,
    write::{Batch, PieceContent, work},
};
use crate::{
    error::{Error, Result},
    format::{
        extents::{Content, Extent},
        tree::{Body, TreeEntry},
    },
    node::{LinkId, Metadata, NodeKind},
    view::{Event, View, Walk},
};

/// Plain bytes of a batch.
const BATCH_BYTES: u64 = 16 << 20;
/// Files of a batch.
const BATCH_FILES: usize = 512;
/// Files of a batch that stay open over several pieces.
const BATCH_LONG: usize = 48;
/// Zeros written in one go.
const MAX_ZEROS: u64 = 8 << 20;
/// Names of hard-linked files that wait before it is tried whether the first is there.
const MIN_WAITING: usize = 1024;
/// How many names of a file are tried as the first.
const LINK_ROUNDS: usize = 4;

/// Restores everything below the page `tree`.
pub(super) fn restore_tree(run: &Run<'_>, tree: BlobId) -> Result<()> {
    let workers = run.options.workers.max(1);
    let mut readers = Vec::with_capacity(workers);
    if run.target.is_some() {
        for _ in 0..workers {
            readers.push(run.repo.reader()?);
        }
    }
    let view = View::of_tree(run.repo, tree)?;
    let (jobs, batches) = bounded(workers);
    let (done_sender, done) = unbounded();
    thread::scope(|scope| {
        let threads: Vec<_> = readers
            .into_iter()
            .map(|reader| {
                let (batches, done) = (batches.clone(), done_sender.clone());
                scope.spawn(move || {
                    let guard = StopGuard(run);
                    work(run, reader, &batches, &done);
                    std::mem::forget(guard);
                })
            })
            .collect();
        drop((batches, done_sender));
        let result = Planner::new(run, view, jobs, done).run();
        if result.is_err() {
            run.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        let mut lost = false;
        for thread in threads {
            lost |= thread.join().is_err();
        }
        if lost { Err(Error::WorkerLost) } else { result }
    })
}

/// Stops everybody if its thread panics.
struct StopGuard<'s, 'a>(&'s Run<'a>);

impl Drop for StopGuard<'_, '_> {
    fn drop(&mut self) {
        self.0
            .stop
            .store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

struct Planner<'r, 'a> {
    run: &'r Run<'a>,
    view: View<'r>,
    jobs: Sender<Batch>,
    done: Receiver<()>,
    /// Batches that were sent and not yet done.
    in_flight: usize,
    batch: Batch,
    /// The directories along the current path.
    levels: Vec<Level>,
    /// Files with several names of which one is being restored.
    claimed: HashSet<LinkId>,
    waiting: Vec<Item>,
    /// How many may wait before it is tried again.
    patience: usize,
    /// Files so far.
    number: u64,
}

struct Level {
    name: Vec<u8>,
    meta: Metadata,
    path: Vec<u8>,
    progress: Progress,
    dir: LevelDir,
}

enum LevelDir {
    /// Nothing wanted was met in it yet.
    NotYet,
    Made(Arc<PendingDir>),
    /// It could not be made, which was told: nothing below it is restored.
    Broken,
}

/// An entry on its way.
struct Item {
    dir: Arc<PendingDir>,
    entry: TreeEntry,
    path: Vec<u8>,
    number: u64,
    existed: bool,
}

impl<'r, 'a> Planner<'r, 'a> {
    fn new(run: &'r Run<'a>, view: View<'r>, jobs: Sender<Batch>, done: Receiver<()>) -> Self {
        let root = PendingDir::root(run.target.as_ref().map(|target| target.root().clone()));
        let level = Level {
            name: Vec::new(),
            meta: Metadata::default(),
            path: Vec::new(),
            progress: run.selection.start(),
            dir: LevelDir::Made(root),
        };
        Self {
            run,
            view,
            jobs,
            done,
            in_flight: 0,
            batch: Batch::default(),
            levels: vec![level],
            claimed: HashSet::new(),
            waiting: Vec::new(),
            patience: MIN_WAITING,
            number: 0,
        }
    }

    fn run(mut self) -> Result<()> {
        let mut walk = self.view.walk_all();
        while let Some(event) = walk.next_event() {
            if self.run.is_over() {
                return Err(Error::Cancelled);
            }
            match event {
                Event::Entry(entry) => self.entry(entry, &mut walk)?,
                Event::Leave => self.leave(),
                Event::Damaged(error) => self.run.report(&Error::DamagedDir {
                    path: walk.path().as_bytes().to_vec(),
                    source: Box::new(error),
                }),
            }
        }
        self.finish_links()?;
        self.leave();
        let total = |count: &std::sync::atomic::AtomicU64| add(count, 0);
        let counts = &self.run.counts;
        let (files, bytes) = (total(&counts.total_files), total(&counts.total_bytes));
        self.run.observer.total(files, bytes);
        if self.run.is_over() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Goes up one directory.
    fn leave(&mut self) {
        if let Some(Level {
            dir: LevelDir::Made(dir),
            ..
        }) = self.levels.pop()
        {
            release(self.run, dir);
        }
    }

    fn entry(&mut self, entry: TreeEntry, walk: &mut Walk<'_>) -> Result<()> {
        let Some(level) = self.levels.last() else {
            return Err(Error::WorkerLost);
        };
        let progress = self.run.selection.step(&level.progress, &entry.node.name);
        let choice = self.run.selection.choose(&progress);
        let path = walk.path().as_bytes().to_vec();
        if matches!(entry.body, Body::Dir(_)) {
            if !choice.wanted && !choice.descend {
                walk.skip();
                return Ok(());
            }
            self.levels.push(Level {
                name: entry.node.name,
                meta: entry.node.meta,
                path,
                progress,
                dir: LevelDir::NotYet,
            });
            if choice.wanted && self.dir()?.is_none() {
                walk.skip();
                self.levels.pop();
            }
            return Ok(());
        }
        self.number += 1;
        if choice.wanted
            && let Some(dir) = self.dir()?
        {
            self.file(dir, entry, path)?;
        }
        Ok(())
    }

    /// The directory at which the walk stands, made now if need be with those above it.
    fn dir(&mut self) -> Result<Option<Arc<PendingDir>>> {
        let made = |level: &Level| !matches!(level.dir, LevelDir::NotYet);
        let first = self.levels.iter().rposition(made).unwrap_or(0);
        let (above, below) = self
            .levels
            .split_at_mut_checked(first + 1)
            .ok_or(Error::WorkerLost)?;
        let mut at = match above.last() {
            Some(Level {
                dir: LevelDir::Made(dir),
                ..
            }) => Arc::clone(dir),
            _ => return Ok(None),
        };
        for level in below {
            match make_dir(self.run, &at, &level.name, &level.meta, &level.path) {
                Some(dir) => {
                    level.dir = LevelDir::Made(Arc::clone(&dir));
                    at = dir;
                }
                None => {
                    level.dir = LevelDir::Broken;
                    return Ok(None);
                }
            }
        }
        Ok(Some(at))
    }

    /// Anything that is no directory.
    fn file(&mut self, dir: Arc<PendingDir>, entry: TreeEntry, path: Vec<u8>) -> Result<()> {
        let size = size_of(&entry);
        self.run.found(size);
        let existed = match judge(self.run, &dir, &entry, &path) {
            Ok(Verdict::Write { existed }) => existed,
            Ok(Verdict::Update) => {
                update(self.run, &dir, &entry, &path);
                self.run.skipped(&path, size);
                return Ok(());
            }
            Ok(Verdict::Leave) => {
                self.run.skipped(&path, size);
                return Ok(());
            }
            Err(error) => {
                self.run.report_file(&path, error);
                return Ok(());
            }
        };
        if dir.dir().is_none() {
            self.run.observer.advanced(size);
            self.run.restored(&path, size, existed);
            return Ok(());
        }
        self.place(Item {
            dir,
            entry,
            path,
            number: self.number,
            existed,
        })
    }

    /// Links an entry to a name of the same file, restores it, or lets it wait for such a name.
    fn place(&mut self, item: Item) -> Result<()> {
        if let Some(link) = item.entry.node.meta.link {
            if self.try_link(&item, link) {
                release(self.run, item.dir);
                return Ok(());
            }
            if !self.claimed.insert(link) {
                self.waiting.push(item);
                self.link_waiting();
                return Ok(());
            }
        }
        let Body::File(content) = &item.entry.body else {
            self.node(item);
            return Ok(());
        };
        let content = content.clone();
        self.content(item, &content)
    }

    /// Whether the entry is done with: linked, or impossible to link.
    fn try_link(&self, item: &Item, link: LinkId) -> bool {
        let Some(dir) = item.dir.dir() else {
            return true;
        };
        match dir.link(&item.entry.node.name, link) {
            Ok(false) => return false,
            Ok(true) => {
                let size = size_of(&item.entry);
                self.run.observer.advanced(size);
                self.run.mark_written(item.number);
                self.run.restored(&item.path, size, item.existed);
            }
            Err(error) => self.run.report_file(&item.path, error),
        }
        true
    }

    /// Links what waits and can be linked, now and then.
    fn link_waiting(&mut self) {
        if self.waiting.len() < self.patience {
            return;
        }
        for item in std::mem::take(&mut self.waiting) {
            match item.entry.node.meta.link {
                Some(link) if !self.try_link(&item, link) => self.waiting.push(item),
                _ => release(self.run, item.dir),
            }
        }
        self.patience = MIN_WAITING.max(self.waiting.len() * 2);
    }

    /// Waits for all files, and links what waits for them. Where the first name of a file could not
    /// be restored, the next one is.
    fn finish_links(&mut self) -> Result<()> {
        for _ in 0..LINK_ROUNDS {
            self.wait()?;
            self.claimed.clear();
            for item in std::mem::take(&mut self.waiting) {
                self.place(item)?;
            }
        }
        self.wait()?;
        for item in std::mem::take(&mut self.waiting) {
            if let Some(link) = item.entry.node.meta.link
                && !self.try_link(&item, link)
            {
                let path = item.path;
                self.run.report(&Error::NoLinkSource { path });
            }
            release(self.run, item.dir);
        }
        Ok(())
    }

    /// A symlink, device, pipe or socket.
    fn node(&self, item: Item) {
        let Item { dir, entry, .. } = &item;
        let node = &entry.node;
        let made = dir
            .dir()
            .map(|dir| dir.create_node(&node.name, &node.kind, &node.meta));
        match made {
            Some(Ok(problems)) => {
                for problem in problems {
                    self.run.report(&Error::Metadata(problem));
                }
                self.run.restored(&item.path, 0, item.existed);
            }
            Some(Err(error)) => self.run.report_file(&item.path, error),
            None => {}
        }
        release(self.run, item.dir);
    }

    /// Divides a file's content into pieces for the workers.
    fn content(&mut self, item: Item, content: &Content) -> Result<()> {
        let size = size_of(&item.entry);
        let path = item.path.clone();
        let file = PendingFile::new(
            item.dir,
            About {
                node: item.entry.node,
                path: item.path,
                size,
                number: item.number,
                existed: item.existed,
            },
        );
        if self.is_full() {
            self.flush()?;
        }
        self.batch.add_file(&file);
        let mut offset = 0_u64;
        for extent in self.view.extents(content) {
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
            let found = offset;
            file.fail(self.run, Error::WrongLength { path, size, found });
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
    fn wait(&mut self) -> Result<()> {
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

/// Length of a file in bytes; nothing else has one.
const fn size_of(entry: &TreeEntry) -> u64 {
    match entry.node.kind {
        NodeKind::File { size } => size,
        _ => 0,
    }
}
