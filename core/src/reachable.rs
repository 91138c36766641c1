//! What snapshots reach: every tree page, extent page, data blob and record. Several threads walk
//! the pages of all trees, each page once however many snapshots share it; what is held is the
//! set of blobs and the pages still to visit.
//!
//! A page that cannot be read is told with the first snapshot and path that led to it; the walk
//! goes on. What is below it is not in the set: who deletes by it must see to that.

mod place;
mod set;

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub use place::{Place, TreeFault, TreeProblem};
pub use set::Reachable;

use strongroom_repo::{
    crypto::BlobKind,
    error::Error as RepoError,
    format::DecodeError,
    id::{BlobId, SnapshotId},
    repository::{BlobReader, Repository, Wanted},
};

use crate::{
    error::{Error, Result},
    format::{
        extents::{self, Content, Extent},
        snapshot::Snapshot,
        tree::{Body, MAX_LEVEL, TreeEntry, TreePage},
    },
    node::NodeKind,
};

/// Pages that one worker takes at a time, so that neighbours in a pack are read at once.
const BATCH: usize = 32;
/// Deepest nesting of directories; beyond it a tree must be going in circles.
const MAX_DEPTH: u32 = 65_536;
/// A tree to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its root page.
    pub tree: BlobId,
}

/// Sees what a walk comes by, from several threads at once.
pub trait Visitor: Sync {
    /// Something is wrong.
    fn problem(&self, problem: TreeProblem);
    /// A page of a directory was read.
    fn page(&self, _id: &BlobId, _page: &TreePage) {}
    /// An entry of a page, once however many trees share the page. A failure ends the walk.
    ///
    /// # Errors
    /// Whatever ends the walk.
    fn entry(
        &self,
        _place: &Place,
        _entry: &TreeEntry,
        _reader: &mut BlobReader<'_>,
    ) -> Result<()> {
        Ok(())
    }
    /// Whether lengths are compared and data blobs looked up in the index.
    fn checks(&self) -> bool {
        false
    }
}

/// A page still to visit.
struct Task {
    id: BlobId,
    place: Arc<Place>,
    what: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// A page of a directory, so many levels below its root page.
    Tree { level: usize },
    /// A page of a list of extents of so many bytes.
    Extents { level: u8, len: u64 },
}

/// Pages to visit, and the workers that may yet find more.
struct Queue {
    tasks: Vec<Task>,
    busy: usize,
}

struct Walk<'a> {
    reachable: &'a Reachable,
    visitor: &'a dyn Visitor,
    cancel: &'a AtomicBool,
    queue: Mutex<Queue>,
    more: Condvar,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

/// Walks trees and adds what they reach, but for what is in `reachable` already.
///
/// # Errors
/// [`Error::Cancelled`], or what the visitor returned. Damage is no error of the whole.
pub fn walk(
    repo: &Repository,
    roots: &[Root],
    workers: usize,
    reachable: &Reachable,
    visitor: &dyn Visitor,
    cancel: &AtomicBool,
) -> Result<()> {
    let walk = Walk {
        reachable,
        visitor,
        cancel,
        queue: Mutex::new(Queue {
            tasks: Vec::new(),
            busy: 0,
        }),
        more: Condvar::new(),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let mut first = Vec::new();
    for root in roots.iter().rev() {
        let place = Place::root(root.snapshot);
        walk.page_to_visit(&mut first, root.tree, place, Kind::Tree { level: 0 });
    }
    lock(&walk.queue).tasks = first;
    std::thread::scope(|scope| {
        for _ in 1..workers.max(1) {
            scope.spawn(|| walk.work(repo));
        }
        walk.work(repo);
    });
    if let Some(error) = lock(&walk.failure).take() {
        return Err(error);
    }
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    Ok(())
}

impl Walk<'_> {
    fn work(&self, repo: &Repository) {
        let worked = panic::catch_unwind(AssertUnwindSafe(|| self.work_through(repo)));
        if let Err(error) = worked.unwrap_or(Err(Error::WorkerLost)) {
            lock(&self.failure).get_or_insert(error);
            // Under the lock, so that nobody misses it between looking and waiting.
            let _queue = lock(&self.queue);
            self.stop.store(true, Ordering::Relaxed);
        }
        self.more.notify_all();
    }

    fn work_through(&self, repo: &Repository) -> Result<()> {
        let mut reader = repo.reader()?;
        while let Some(batch) = self.take() {
            let mut found = Vec::new();
            let result = self.visit_batch(&mut reader, &batch, &mut found);
            let mut queue = lock(&self.queue);
            queue.tasks.append(&mut found);
            queue.busy -= 1;
            drop(queue);
            self.more.notify_all();
            result?;
        }
        Ok(())
    }

    /// The next pages, the last found first, so that few are waiting; `None` at the end.
    fn take(&self) -> Option<Vec<Task>> {
        let mut queue = lock(&self.queue);
        loop {
            if self.stop.load(Ordering::Relaxed) || self.cancel.load(Ordering::Relaxed) {
                return None;
            }
            if !queue.tasks.is_empty() {
                let at = queue.tasks.len().saturating_sub(BATCH);
                queue.busy += 1;
                return Some(queue.tasks.split_off(at));
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self
                .more
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn visit_batch(
        &self,
        reader: &mut BlobReader<'_>,
        batch: &[Task],
        found: &mut Vec<Task>,
    ) -> Result<()> {
        let wanted: Vec<Wanted> = (0..)
            .zip(batch)
            .map(|(tag, task)| Wanted { id: task.id, tag })
            .collect();
        let task_of = |tag: u32| batch.get(usize::try_from(tag).unwrap_or(usize::MAX));
        let mut pages = Vec::new();
        let mut take = |tag: u32, plain: &[u8]| {
            if let Some(task) = task_of(tag) {
                pages.push((task, Page::decode(task, plain)));
            }
            Ok::<_, Error>(())
        };
        let mut failed = |tag: u32, error: RepoError| {
            if let Some(task) = task_of(tag) {
                self.unreadable(task, error.into());
            }
        };
        reader.load_many(&wanted, &mut take, &mut failed)?;
        for (task, page) in pages {
            match page {
                Ok(Page::Tree(page)) => self.tree(reader, task, &page, found)?,
                Ok(Page::Extents(page)) => self.extents(reader, task, &page, found)?,
                Err(source) => {
                    let blob = task.id;
                    self.unreadable(task, Error::DamagedBlob { blob, source });
                }
            }
        }
        Ok(())
    }

    fn tree(
        &self,
        reader: &mut BlobReader<'_>,
        task: &Task,
        page: &TreePage,
        found: &mut Vec<Task>,
    ) -> Result<()> {
        self.visitor.page(&task.id, page);
        match page {
            TreePage::Inner(children) => {
                let Kind::Tree { level } = task.what else {
                    return Ok(());
                };
                if level >= MAX_LEVEL {
                    self.tell(&task.place, TreeFault::TooDeep);
                    return Ok(());
                }
                let what = Kind::Tree { level: level + 1 };
                for child in children.iter().rev() {
                    self.page_to_visit(found, child.id, Arc::clone(&task.place), what);
                }
            }
            TreePage::Leaf(entries) => {
                for entry in entries.iter().rev() {
                    self.entry(reader, &task.place, entry, found)?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        reader: &mut BlobReader<'_>,
        dir: &Arc<Place>,
        entry: &TreeEntry,
        found: &mut Vec<Task>,
    ) -> Result<()> {
        let place = dir.below(&entry.node.name);
        self.visitor.entry(&place, entry, reader)?;
        match (&entry.body, &entry.node.kind) {
            (Body::Dir(_), _) if place.depth >= MAX_DEPTH => {
                self.tell(&place, TreeFault::TooDeep);
            }
            (Body::Dir(tree), _) => {
                self.page_to_visit(found, *tree, place, Kind::Tree { level: 0 });
            }
            (Body::File(content), NodeKind::File { size }) => match content {
                Content::Inline(list) => {
                    let sum = self.data(reader, &place, list)?;
                    self.compare(&place, *size, sum);
                }
                Content::List { root, level } => {
                    let (level, len) = (*level, *size);
                    self.page_to_visit(found, *root, place, Kind::Extents { level, len });
                }
            },
            _ => {}
        }
        Ok(())
    }

    fn extents(
        &self,
        reader: &BlobReader<'_>,
        task: &Task,
        page: &extents::Page,
        found: &mut Vec<Task>,
    ) -> Result<()> {
        let Kind::Extents { level, len } = task.what else {
            return Ok(());
        };
        let sum = match page {
            extents::Page::Leaf(list) if level == 0 => self.data(reader, &task.place, list)?,
            extents::Page::Inner(children) if level > 0 && level <= extents::MAX_LEVEL => {
                for child in children.iter().rev() {
                    let what = Kind::Extents {
                        level: level - 1,
                        len: child.len,
                    };
                    self.page_to_visit(found, child.id, Arc::clone(&task.place), what);
                }
                sum(children.iter().map(|child| child.len))
            }
            _ => {
                let (blob, what) = (task.id, "extent list");
                let source = DecodeError::Malformed { what };
                self.unreadable(task, Error::DamagedBlob { blob, source });
                return Ok(());
            }
        };
        self.compare(&task.place, len, sum);
        Ok(())
    }

    /// Adds the blobs of a run of extents; returns the bytes that it covers.
    fn data(&self, reader: &BlobReader<'_>, place: &Place, list: &[Extent]) -> Result<u64> {
        for extent in list {
            let Extent::Data { len, id } = extent else {
                continue;
            };
            let known = self.reachable.add(id, *len);
            if !self.visitor.checks() {
                continue;
            }
            let (blob, expected) = (*id, *len);
            let found = match known {
                Some(found) => Some(found),
                None => reader
                    .index()
                    .find(id)
                    .map_err(RepoError::from)?
                    .map(|found| found.entry.plain_len),
            };
            match found {
                None => self.tell(place, TreeFault::Missing { blob }),
                Some(found) if found != expected => self.tell(
                    place,
                    TreeFault::BlobLength {
                        blob,
                        expected,
                        found,
                    },
                ),
                Some(_) => {}
            }
        }
        Ok(sum(list.iter().map(Extent::len)))
    }

    /// Notes a page, unless it was noted before.
    fn page_to_visit(&self, found: &mut Vec<Task>, id: BlobId, place: Arc<Place>, what: Kind) {
        if self.reachable.add(&id, 0).is_none() {
            found.push(Task { id, place, what });
        }
    }

    fn compare(&self, place: &Place, size: u64, found: u64) {
        if self.visitor.checks() && size != found {
            self.tell(place, TreeFault::Length { size, found });
        }
    }

    fn unreadable(&self, task: &Task, source: Error) {
        let blob = task.id;
        self.tell(&task.place, TreeFault::Page { blob, source });
    }

    fn tell(&self, place: &Place, what: TreeFault) {
        self.visitor.problem(TreeProblem {
            snapshot: place.snapshot(),
            path: place.path(),
            what,
        });
    }
}

/// A page of either sort.
enum Page {
    Tree(TreePage),
    Extents(extents::Page),
}

impl Page {
    fn decode(task: &Task, plain: &[u8]) -> Result<Self, DecodeError> {
        match task.what {
            Kind::Tree { .. } => TreePage::decode(plain).map(Self::Tree),
            Kind::Extents { .. } => extents::Page::decode(plain).map(Self::Extents),
        }
    }
}

/// A live snapshot and its record.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its record.
    pub snapshot: Snapshot,
    /// The blob that repeats the record in a pack.
    pub record: BlobId,
}

impl Loaded {
    /// Where its tree begins.
    #[must_use]
    pub const fn root(&self) -> Root {
        Root {
            snapshot: self.id,
            tree: self.snapshot.tree,
        }
    }
}

/// Loads the record of a live snapshot.
///
/// # Errors
/// It cannot be read or understood.
pub fn load_record(repo: &Repository, id: SnapshotId) -> Result<Loaded> {
    let bytes = repo.load_snapshot(id)?;
    let snapshot = Snapshot::decode(&bytes).map_err(|source| Error::DamagedSnapshot {
        snapshot: id,
        source,
    })?;
    let record = repo.blob_id(BlobKind::Snapshot, &bytes);
    Ok(Loaded {
        id,
        snapshot,
        record,
    })
}

/// Adds the blob that repeats a snapshot's record.
pub fn add_record(reachable: &Reachable, loaded: &Loaded) {
    let _ = reachable.add(&loaded.record, 0);
}

fn sum(lens: impl Iterator<Item = u64>) -> u64 {
    lens.fold(0, u64::saturating_add)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
