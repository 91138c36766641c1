//! The walking side of a restore, in the caller's thread: follows the tree, decides what becomes
//! of each entry, and makes directories, bare nodes and hard links. The contents of files go
//! through `feed` to the workers.
//!
//! A directory is made when the first wanted thing in it is met. A later name of a hard-linked file
//! waits until the first is there; if that fails, another name takes its place.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    thread,
};

use crossbeam_channel::{bounded, unbounded};
use strongroom_repo::id::BlobId;

use super::{
    Run, add,
    existing::{Verdict, judge, make_dir, update},
    feed::Feeder,
    pending::{Item, PendingDir, release},
    select::Progress,
    write::work,
};
use crate::{
    error::{Error, Result},
    format::{
        extents::{Content, Extent},
        tree::{Body, TreeEntry},
    },
    node::{LinkId, Metadata},
    view::{Event, View, Walk},
};

/// Names of hard-linked files that wait before it is tried whether the first is there.
const MIN_WAITING: usize = 1024;
/// Least length of a file for which room is asked for ahead, in bytes.
const MIN_RESERVED: u64 = 32 << 20;
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
                    let _guard = StopGuard(run);
                    work(run, reader, &batches, &done);
                })
            })
            .collect();
        drop((batches, done_sender));
        let result = Planner::new(run, view, Feeder::new(run, jobs, done)).run();
        if result.is_err() {
            run.stop.store(true, Ordering::Relaxed);
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
        if thread::panicking() {
            self.0.stop.store(true, Ordering::Relaxed);
        }
    }
}

struct Planner<'r, 'a> {
    run: &'r Run<'a>,
    view: View<'r>,
    feeder: Feeder<'r, 'a>,
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
    /// Length of its path: what is below begins with it.
    path_len: usize,
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

impl<'r, 'a> Planner<'r, 'a> {
    fn new(run: &'r Run<'a>, view: View<'r>, feeder: Feeder<'r, 'a>) -> Self {
        let root = PendingDir::root(run.target.as_ref().map(|target| target.root().clone()));
        let level = Level {
            name: Vec::new(),
            meta: Metadata::default(),
            path_len: 0,
            progress: run.selection.start(),
            dir: LevelDir::Made(root),
        };
        Self {
            run,
            view,
            feeder,
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
        let counts = &self.run.counts;
        let (files, bytes) = (add(&counts.total_files, 0), add(&counts.total_bytes, 0));
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
        let path = walk.path().as_bytes();
        if matches!(entry.body, Body::Dir(_)) {
            if !choice.wanted && !choice.descend {
                walk.skip();
                return Ok(());
            }
            self.levels.push(Level {
                name: entry.node.name,
                meta: entry.node.meta,
                path_len: path.len(),
                progress,
                dir: LevelDir::NotYet,
            });
            if choice.wanted && self.dir(path)?.is_none() {
                walk.skip();
                self.levels.pop();
            }
            return Ok(());
        }
        self.number += 1;
        if choice.wanted
            && let Some(dir) = self.dir(path)?
        {
            self.file(dir, entry, path.to_vec())?;
        }
        Ok(())
    }

    /// The directory at which the walk stands, made now if need be with those above it. `path` is
    /// its own or that of something in it.
    fn dir(&mut self, path: &[u8]) -> Result<Option<Arc<PendingDir>>> {
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
            match make_dir(
                self.run,
                &at,
                &level.name,
                &level.meta,
                path.get(..level.path_len).unwrap_or(path),
            ) {
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
        let size = entry.node.size();
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
        let is_solid = self.is_solid(item.entry.node.size(), content);
        let extents = self.view.extents(content);
        self.feeder.file(item, extents, is_solid)
    }

    /// Whether it is worth knowing that all of a file will be written, and so.
    fn is_solid(&self, size: u64, content: &Content) -> bool {
        if size < MIN_RESERVED || self.run.options.sparse {
            return false;
        }
        let written = self
            .view
            .extents(content)
            .take_while(|_| !self.run.is_over())
            .try_fold(0_u64, |end, extent| match extent {
                Ok(Extent::Hole { .. }) | Err(_) => None,
                Ok(extent) => end.checked_add(extent.len()).filter(|end| *end <= size),
            });
        written == Some(size)
    }

    /// Whether the entry is done with: linked, or impossible to link.
    fn try_link(&self, item: &Item, link: LinkId) -> bool {
        let Some(dir) = item.dir.dir() else {
            return true;
        };
        match dir.link(&item.entry.node.name, link) {
            Ok(false) => return false,
            Ok(true) => {
                let size = item.entry.node.size();
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
            self.feeder.wait()?;
            self.claimed.clear();
            for item in std::mem::take(&mut self.waiting) {
                self.place(item)?;
            }
        }
        self.feeder.wait()?;
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
}
