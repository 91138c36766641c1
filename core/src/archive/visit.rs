//! The walking thread: follows the walk and the parent snapshot side by side, decides what is
//! unchanged, and hands everything on in order: entries to the assembler, contents to the workers.

use std::{cell::RefCell, iter::Peekable, rc::Rc, sync::Arc};

use crossbeam_channel::Sender;
use strongroom_repo::{error::Error as RepoError, id::BlobId, repository::BlobReader};

use super::{
    Run,
    change::{Same, Span, compare, same_database},
    databases::Databases,
    plan::BigFile,
    promise::{Awaited, Promise, promise},
    work::{Job, SmallFile},
};
use crate::{
    error::{Error, Result},
    format::{
        extents::{Extent, Extents, Page},
        tree::{Body, Entries, TreeEntry, TreePage},
    },
    node::{Node, NodeKind},
    observer::Action,
    source::{
        meta::FileType,
        sqlite::Beside,
        walk::{Entry, Event, Walk},
    },
};

/// What the walk found, for the assembler.
pub(super) enum Item {
    /// A directory begins; its node, and the parent's entry of it.
    Enter {
        node: Node,
        before: Option<BlobId>,
        path: Vec<u8>,
        changed: bool,
    },
    /// It ends.
    Leave,
    /// An entry that needs no reading, or whose content is stored; with the sealed bytes that it
    /// added.
    Ready {
        entry: TreeEntry,
        action: Action,
        path: Vec<u8>,
        added: u64,
    },
    /// A file whose content is being stored.
    Pending { awaited: Awaited, path: Vec<u8> },
    /// Something is not saved.
    Problem(Error),
}

/// Files from this length on are divided among all workers.
pub(super) const BIG_FILE: u64 = 16 << 20;

type Cursor<'r> = Peekable<Entries<'r, Error>>;

/// The walking thread.
pub(super) struct Visitor<'r, 'a> {
    run: &'r Run<'a>,
    reader: Rc<RefCell<BlobReader<'r>>>,
    /// The parent's directories along the current path, each at the place of the walk.
    cursors: Vec<Option<Cursor<'r>>>,
    databases: Databases<'a>,
    items: Sender<Item>,
    jobs: Sender<Job>,
}

/// The receiver is gone: the run is over.
struct Over;

impl<'r, 'a> Visitor<'r, 'a> {
    pub(super) fn new(
        run: &'r Run<'a>,
        parent: Option<BlobId>,
        items: Sender<Item>,
        jobs: Sender<Job>,
    ) -> Result<Self> {
        let reader = Rc::new(RefCell::new(run.repo.reader()?));
        let mut visitor = Self {
            run,
            reader,
            cursors: Vec::new(),
            databases: Databases::new(run.databases),
            items,
            jobs,
        };
        let cursor = visitor.cursor(parent);
        visitor.cursors.push(cursor);
        Ok(visitor)
    }

    /// Walks to the end, or until the run is over.
    pub(super) fn run(mut self, mut walk: Walk) {
        while let Some(event) = walk.next() {
            if self.run.is_over() || self.visit(event, &walk).is_err() {
                return;
            }
        }
        for missing in self.databases.missing() {
            if self.send(Item::Problem(missing)).is_err() {
                return;
            }
        }
        self.run
            .excluded
            .store(walk.excluded(), std::sync::atomic::Ordering::Relaxed);
    }

    fn visit(&mut self, event: Event, walk: &Walk) -> Result<(), Over> {
        match event {
            Event::Enter(entry) => self.enter(&entry, walk),
            Event::Leave => {
                self.cursors.pop();
                self.databases.leave();
                self.send(Item::Leave)
            }
            Event::Entry(entry) => self.entry(entry, walk),
            Event::Problem(error) if self.databases.explains(&error) => Ok(()),
            Event::Problem(error) => self.send(Item::Problem(error)),
        }
    }

    fn enter(&mut self, entry: &Entry, walk: &Walk) -> Result<(), Over> {
        let before = self.before(&entry.name)?;
        let same = before.as_ref().zip(self.parent());
        let same = same.map(|(before, parent)| compare(entry, before, parent, false));
        let mut problems = Vec::new();
        let node = match (&before, same) {
            (Some(before), Some(Same::Everything)) => Ok(before.node.clone()),
            _ => self
                .run
                .metadata
                .node(entry, walk.source_path(), &mut problems),
        };
        for problem in problems {
            self.send(Item::Problem(problem))?;
        }
        let node = match node {
            Ok(node) => node,
            Err(error) => {
                // The directory itself vanished: what the walk still finds in it goes below what
                // its stat said.
                self.send(Item::Problem(error))?;
                bare_dir(entry)
            }
        };
        let tree = before.as_ref().and_then(|before| match before.body {
            Body::Dir(tree) => Some(tree),
            _ => None,
        });
        let cursor = self.cursor(tree);
        self.cursors.push(cursor);
        self.databases.enter();
        let path = walk.archive_path().to_vec();
        let changed = before.is_none_or(|before| before.node != node);
        self.send(Item::Enter {
            node,
            before: tree,
            path,
            changed,
        })
    }

    fn entry(&mut self, entry: Entry, walk: &Walk) -> Result<(), Over> {
        let before = self.before(&entry.name)?;
        let path = walk.archive_path().to_vec();
        let (beside, is_copied) = match entry.stat.file_type {
            FileType::Regular if self.databases.leaves_out(&entry, walk) => return Ok(()),
            FileType::Regular => {
                let is_copied = self.databases.covers(walk.source_path());
                let is_known = before
                    .as_ref()
                    .is_some_and(|before| before.node.meta.copied.is_some());
                (Beside::find(&entry, walk, is_known), is_copied)
            }
            _ => (Beside::default(), false),
        };
        if beside.wal.is_some() && !is_copied {
            let path = walk.source_path().to_vec();
            self.send(Item::Problem(Error::ActiveWal { path }))?;
        }
        let same = before.as_ref().map_or(Same::Nothing, |before| {
            self.same(&entry, before, &beside, is_copied)
        });
        let existed = before.is_some();
        if let (Some(entry), Same::Everything) = (&before, same) {
            let (entry, action) = (entry.clone(), Action::Unchanged);
            return self.send(Item::Ready {
                entry,
                action,
                path,
                added: 0,
            });
        }
        let action = if existed {
            Action::Changed
        } else {
            Action::New
        };
        if entry.stat.file_type == FileType::Regular && same != Same::Content {
            let log = beside.wal.map_or(0, |wal| wal.size);
            let size = entry.stat.size.saturating_add(log);
            let file = |promise| SmallFile {
                entry,
                source_path: walk.source_path().to_vec(),
                path: path.clone(),
                action,
                promise,
                before,
            };
            return self.file(&path, size, file);
        }
        self.without_reading(&entry, walk, before, action)
    }

    /// When the parent was made.
    fn parent(&self) -> Option<Span> {
        let parent = self.run.parent.as_ref();
        parent.map(|(_, parent)| Span::of(&parent.summary))
    }

    /// How much of the parent's entry can be relied on.
    fn same(&self, entry: &Entry, before: &TreeEntry, beside: &Beside, is_copied: bool) -> Same {
        let copied = before.node.meta.copied.as_ref();
        let Some(parent) = self.parent() else {
            return Same::Nothing;
        };
        match compare(entry, before, parent, self.run.ignore_ctime) {
            Same::Nothing => Same::Nothing,
            _ if !same_database(copied, beside, is_copied, parent) => Same::Nothing,
            // What lies in damaged packs alone is read and stored anew.
            _ if !self.is_sound(&before.body) => Same::Nothing,
            same => same,
        }
    }

    /// Hands on an entry without content, or with that of the parent's entry.
    fn without_reading(
        &self,
        entry: &Entry,
        walk: &Walk,
        before: Option<TreeEntry>,
        mut action: Action,
    ) -> Result<(), Over> {
        let mut problems = Vec::new();
        let node = self
            .run
            .metadata
            .node(entry, walk.source_path(), &mut problems);
        for problem in problems {
            self.send(Item::Problem(problem))?;
        }
        let mut node = match node {
            Ok(node) => node,
            Err(error) => return self.send(Item::Problem(error)),
        };
        let body = match (&before, &node.kind) {
            (Some(before), NodeKind::File { .. }) => {
                // The length of a copy is not that of the file.
                node.kind = before.node.kind.clone();
                node.meta.copied = before.node.meta.copied;
                before.body.clone()
            }
            _ => Body::None,
        };
        let entry = TreeEntry { node, body };
        if before.as_ref() == Some(&entry) {
            action = Action::Unchanged;
        }
        self.send(Item::Ready {
            entry,
            action,
            path: walk.archive_path().to_vec(),
            added: 0,
        })
    }

    /// Whether the content of an unchanged file can be relied on, as far as the log knows.
    fn is_sound(&self, body: &Body) -> bool {
        let writer = self.run.writer;
        let Body::File(content) = body else {
            return true;
        };
        if !writer.knows_of_damage() {
            return true;
        }
        let mut extents = Extents::new(content, |page: &BlobId| {
            if !writer.rely_on(page) {
                return Err(RepoError::MissingBlob { blob: *page }.into());
            }
            let bytes = self.reader.borrow_mut().load(page)?;
            let damaged = |source| Error::DamagedBlob {
                blob: *page,
                source,
            };
            Page::decode(&bytes).map_err(damaged)
        });
        extents.all(|extent| match extent {
            Ok(Extent::Data { id, .. }) => writer.rely_on(&id),
            Ok(Extent::Hole { .. } | Extent::Zero { .. }) => true,
            Err(_) => false,
        })
    }

    /// Hands the content of a file, of about so many bytes, to the workers.
    fn file(
        &self,
        path: &[u8],
        size: u64,
        file: impl FnOnce(Promise) -> SmallFile,
    ) -> Result<(), Over> {
        let (promise, awaited) = promise();
        // The assembler hears of it first, so that it never waits for what is not on its way.
        let path = path.to_vec();
        self.send(Item::Pending { awaited, path })?;
        let file = file(promise);
        if size < BIG_FILE {
            return self.jobs.send(Job::Small(Box::new(file))).map_err(|_| Over);
        }
        let Some(big) = BigFile::open(self.run, file) else {
            return Ok(());
        };
        let big = Arc::new(big);
        for unit in 0..big.unit_count() {
            let job = Job::Unit {
                file: Arc::clone(&big),
                unit,
            };
            self.jobs.send(job).map_err(|_| Over)?;
        }
        Ok(())
    }

    /// The parent's entry of this name, if it has one.
    fn before(&mut self, name: &[u8]) -> Result<Option<TreeEntry>, Over> {
        let Some(Some(cursor)) = self.cursors.last_mut() else {
            return Ok(None);
        };
        let mut failure = None;
        let found = loop {
            match cursor.peek() {
                Some(Ok(entry)) if entry.node.name.as_slice() < name => {
                    cursor.next();
                }
                Some(Ok(entry)) if entry.node.name == name => {
                    break cursor.next().and_then(Result::ok);
                }
                Some(Ok(_)) | None => break None,
                Some(Err(_)) => {
                    failure = cursor.next().and_then(Result::err);
                    break None;
                }
            }
        };
        if let Some(error) = failure {
            // A damaged parent costs time, nothing else: what it would have told is read anew.
            tracing::warn!(%error, "the parent snapshot cannot be read here");
            if let Some(cursor) = self.cursors.last_mut() {
                *cursor = None;
            }
        }
        Ok(found)
    }

    fn cursor(&self, tree: Option<BlobId>) -> Option<Cursor<'r>> {
        let reader = Rc::clone(&self.reader);
        let load = move |id: &BlobId| {
            let bytes = reader.borrow_mut().load(id)?;
            TreePage::decode(&bytes).map_err(|source| Error::DamagedBlob { blob: *id, source })
        };
        Some(Entries::new(tree?, load).peekable())
    }

    fn send(&self, item: Item) -> Result<(), Over> {
        self.items.send(item).map_err(|_| Over)
    }
}

/// A directory of which no more is known than what the walk saw.
fn bare_dir(entry: &Entry) -> Node {
    let stat = &entry.stat;
    let meta = crate::node::Metadata {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
        ctime: stat.ctime,
        ..crate::node::Metadata::default()
    };
    Node {
        name: entry.name.clone(),
        kind: NodeKind::Dir,
        meta,
    }
}
