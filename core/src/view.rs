//! A snapshot as a tree to be read: one entry by its path, everything below a path in order, a
//! file's content piece by piece. Nothing is written anywhere; what lists, inspects, restores or
//! loads a snapshot, or compares a backup with one, reads through it.
//!
//! Memory does not depend on the size of a tree: one page of each directory on the way down is
//! held, and depth is bounded by [`MAX_DEPTH`] levels, without recursion.

use std::{cell::RefCell, rc::Rc};

use strongroom_repo::{
    id::BlobId,
    repository::{BlobReader, Repository},
};

use crate::{
    error::{Error, Result},
    format::{
        extents::{self, Content, Extent, Extents},
        snapshot::Snapshot,
        tree::{Body, Entries, TreeEntry, TreePage},
    },
    node::{Metadata, Node, NodeKind},
    path::{ArchivePath, InvalidName},
};

/// Most levels of directories: as many as a backup walks.
pub const MAX_DEPTH: usize = crate::source::walk::MAX_DEPTH;

/// A tree of a repository, open for reading by one thread.
pub struct View<'r> {
    reader: Rc<RefCell<BlobReader<'r>>>,
    root: BlobId,
}

/// The entries of one directory, in the order of their names.
pub type DirEntries<'r> = Entries<'r, Error>;

/// The extents of one file, in order.
pub type FileExtents<'r> = Extents<'r, Error>;

impl<'r> View<'r> {
    /// The tree of a snapshot.
    ///
    /// # Errors
    /// No memory to decode with. Nothing is read yet.
    pub fn open(repo: &'r Repository, snapshot: &Snapshot) -> Result<Self> {
        Self::of_tree(repo, snapshot.tree)
    }

    /// The tree with this root page, such as a folder of a snapshot.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn of_tree(repo: &'r Repository, root: BlobId) -> Result<Self> {
        Ok(Self {
            reader: Rc::new(RefCell::new(repo.reader()?)),
            root,
        })
    }

    /// The root page of the whole tree.
    #[must_use]
    pub const fn root(&self) -> BlobId {
        self.root
    }

    /// The entry at a path. The root has no entry in any directory: it comes as a nameless
    /// directory.
    ///
    /// # Errors
    /// [`Error::NoPath`], or a page on the way cannot be read.
    pub fn lookup(&self, path: &ArchivePath) -> Result<TreeEntry> {
        let mut at = TreeEntry {
            node: Node {
                name: Vec::new(),
                kind: NodeKind::Dir,
                meta: Metadata::default(),
            },
            body: Body::Dir(self.root),
        };
        for name in path.components() {
            let below = match at.body {
                Body::Dir(tree) => self.find(tree, name)?,
                _ => None,
            };
            at = below.ok_or_else(|| Error::NoPath {
                path: path.as_bytes().to_vec(),
            })?;
        }
        Ok(at)
    }

    /// As [`View::lookup`], for a path as typed.
    ///
    /// # Errors
    /// Likewise, and where it is no path.
    pub fn lookup_typed(&self, path: &[u8]) -> Result<TreeEntry> {
        let parsed =
            ArchivePath::parse(path).map_err(|source: InvalidName| Error::InvalidName {
                name: path.to_vec(),
                source,
            })?;
        self.lookup(&parsed)
    }

    /// The entry `name` of a directory: only pages that can hold it are read.
    fn find(&self, tree: BlobId, name: &[u8]) -> Result<Option<TreeEntry>> {
        let mut page = load_page(&self.reader, &tree)?;
        for _ in 0..=crate::format::tree::MAX_LEVEL {
            match page {
                TreePage::Leaf(entries) => {
                    return Ok(entries.into_iter().find(|entry| entry.node.name == name));
                }
                TreePage::Inner(children) => {
                    let at = children.partition_point(|child| child.last.as_slice() < name);
                    let Some(child) = children.get(at) else {
                        return Ok(None);
                    };
                    page = load_page(&self.reader, &child.id)?;
                }
            }
        }
        Ok(None)
    }

    /// The entries of a directory.
    #[must_use]
    pub fn entries(&self, tree: BlobId) -> DirEntries<'r> {
        entries(&self.reader, tree)
    }

    /// The extents of a file.
    #[must_use]
    pub fn extents(&self, content: &Content) -> FileExtents<'r> {
        let reader = Rc::clone(&self.reader);
        Extents::new(content, move |id: &BlobId| {
            let bytes = reader.borrow_mut().load(id)?;
            extents::Page::decode(&bytes).map_err(|source| Error::DamagedBlob { blob: *id, source })
        })
    }

    /// The plain bytes of one blob.
    ///
    /// # Errors
    /// No copy of it can be read.
    pub fn blob(&self, id: &BlobId) -> Result<Vec<u8>> {
        Ok(self.reader.borrow_mut().load(id)?)
    }

    /// Hands the content of a file on, piece by piece, and returns its length in bytes.
    ///
    /// # Errors
    /// It cannot be read, or what `take` returns.
    pub fn feed<E: From<Error>>(
        &self,
        content: &Content,
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut len = 0;
        for extent in self.extents(content) {
            let extent = extent?;
            len += extent.len();
            match extent {
                Extent::Data { id, .. } => take(&self.blob(&id)?)?,
                Extent::Hole { mut len } | Extent::Zero { mut len } => {
                    while len > 0 {
                        let step = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
                        take(ZEROS.get(..step).unwrap_or_default())?;
                        len -= u64::try_from(step).unwrap_or(len);
                    }
                }
            }
        }
        Ok(len)
    }

    /// Everything below the directory whose root page is `tree`, which is at `path`: depth first,
    /// by name, a directory before what is in it.
    #[must_use]
    pub fn walk(&self, path: &ArchivePath, tree: BlobId) -> Walk<'r> {
        Walk {
            reader: Rc::clone(&self.reader),
            path: path.clone(),
            stack: vec![Level {
                entries: Some(self.entries(tree)),
                is_named: false,
            }],
            below: None,
            leaving: false,
            max_depth: MAX_DEPTH,
        }
    }

    /// Everything below the root.
    #[must_use]
    pub fn walk_all(&self) -> Walk<'r> {
        self.walk(&ArchivePath::root(), self.root)
    }
}

fn entries<'r>(reader: &Rc<RefCell<BlobReader<'r>>>, tree: BlobId) -> DirEntries<'r> {
    let reader = Rc::clone(reader);
    Entries::new(tree, move |id: &BlobId| load_page(&reader, id))
}

fn load_page(reader: &RefCell<BlobReader<'_>>, id: &BlobId) -> Result<TreePage> {
    let bytes = reader.borrow_mut().load(id)?;
    TreePage::decode(&bytes).map_err(|source| Error::DamagedBlob { blob: *id, source })
}

/// What a [`Walk`] meets.
#[derive(Debug)]
pub enum Event {
    /// An entry; its path is [`Walk::path`]. A directory's entries follow, unless
    /// [`Walk::skip`] is called.
    Entry(TreeEntry),
    /// A directory that was entered has no more entries; its path is [`Walk::path`].
    Leave,
    /// A page of the directory at [`Walk::path`] cannot be read: the rest of it is not known.
    /// [`Event::Leave`] follows where the directory is not the one at which the walk began.
    Damaged(Error),
}

/// A walk down a tree.
pub struct Walk<'r> {
    reader: Rc<RefCell<BlobReader<'r>>>,
    path: ArchivePath,
    stack: Vec<Level<'r>>,
    /// The directory that was given out last and is yet to be entered.
    below: Option<BlobId>,
    /// The last component of `path` is of something that is done with.
    leaving: bool,
    max_depth: usize,
}

struct Level<'r> {
    /// None where nothing of it is read.
    entries: Option<DirEntries<'r>>,
    /// Whether it added a component to the path.
    is_named: bool,
}

impl<'r> Walk<'r> {
    /// Where the walk stands: the path of the last event.
    #[must_use]
    pub const fn path(&self) -> &ArchivePath {
        &self.path
    }

    /// Does not go into the directory that was met last; no [`Event::Leave`] comes for it.
    pub fn skip(&mut self) {
        if self.below.take().is_some() {
            self.leaving = true;
        }
    }

    /// The next event; nothing at the end.
    pub fn next_event(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.leaving) {
            self.path.pop();
        }
        if let Some(tree) = self.below.take() {
            let limit = self.max_depth;
            if self.stack.len() >= limit {
                self.stack.push(self.level(None));
                let path = self.path.as_bytes().to_vec();
                return Some(Event::Damaged(Error::TreeTooDeep { path, limit }));
            }
            self.stack.push(self.level(Some(tree)));
        }
        let level = self.stack.last_mut()?;
        match level.entries.as_mut().and_then(Iterator::next) {
            Some(Ok(entry)) => {
                if let Err(source) = self.path.push(&entry.node.name) {
                    let name = entry.node.name;
                    return Some(Event::Damaged(Error::InvalidName { name, source }));
                }
                match entry.body {
                    Body::Dir(tree) => self.below = Some(tree),
                    _ => self.leaving = true,
                }
                Some(Event::Entry(entry))
            }
            Some(Err(error)) => Some(Event::Damaged(error)),
            None => {
                let named = self.stack.pop().is_some_and(|level| level.is_named);
                self.leaving = named;
                named.then_some(Event::Leave)
            }
        }
    }

    /// A directory to go through, or one in the place of what is not gone into.
    fn level(&self, tree: Option<BlobId>) -> Level<'r> {
        Level {
            entries: tree.map(|tree| entries(&self.reader, tree)),
            is_named: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use strongroom_repo::backend::MemBackend;
    use tempfile::TempDir;

    use super::*;
    use crate::fixture::{back_up, create};

    fn text(path: &ArchivePath) -> String {
        String::from_utf8(path.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_walk_goes_depth_first_by_name_and_skips_on_request() {
        let from = TempDir::new().unwrap();
        for path in ["a/b/1", "a/b/2", "a/c/3", "d", "e/4"] {
            let path = from.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let repo = create(&MemBackend::new());
        let view = View::of_tree(&repo, back_up(&repo, from.path()).tree).unwrap();
        let walked = |skipped: &str| {
            let mut walk = view.walk_all();
            let mut seen = Vec::new();
            while let Some(event) = walk.next_event() {
                let path = text(walk.path());
                match event {
                    Event::Entry(_) if path == skipped => {
                        walk.skip();
                        seen.push(format!("{path} skipped"));
                    }
                    Event::Entry(_) => seen.push(path),
                    Event::Leave => seen.push(format!("{path} left")),
                    Event::Damaged(error) => panic!("{error}"),
                }
            }
            assert!(walk.next_event().is_none());
            seen.join(", ")
        };
        assert_eq!(
            walked("a/b"),
            "a, a/b skipped, a/c, a/c/3, a/c left, a left, d, e, e/4, e left"
        );
        assert_eq!(walked("a"), "a skipped, d, e, e/4, e left");
        assert_eq!(
            walked(""),
            "a, a/b, a/b/1, a/b/2, a/b left, a/c, a/c/3, a/c left, a left, d, e, e/4, e left"
        );
    }

    #[test]
    fn every_entry_of_a_huge_directory_is_found_by_its_path() {
        let from = TempDir::new().unwrap();
        fs::create_dir(from.path().join("d")).unwrap();
        for n in 0..2000 {
            fs::write(from.path().join(format!("d/{n}")), format!("{n}")).unwrap();
        }
        let repo = create(&MemBackend::new());
        let view = View::of_tree(&repo, back_up(&repo, from.path()).tree).unwrap();
        for n in (0..2000).step_by(7) {
            let entry = view.lookup_typed(format!("/d//{n}/").as_bytes()).unwrap();
            let Body::File(content) = &entry.body else {
                panic!("{n} is no file");
            };
            let mut read = Vec::new();
            for extent in view.extents(content) {
                if let crate::format::extents::Extent::Data { id, .. } = extent.unwrap() {
                    read.extend(view.blob(&id).unwrap());
                }
            }
            assert_eq!(read, format!("{n}").as_bytes());
        }
        for missing in ["x", "d/2000", "d/1/x", "d/!", "d/~"] {
            let found = view.lookup_typed(missing.as_bytes());
            assert!(matches!(found, Err(Error::NoPath { .. })), "{missing}");
        }
        assert!(matches!(
            view.lookup_typed(b"d/../d"),
            Err(Error::InvalidName { .. })
        ));
        let root = view.lookup_typed(b"/").unwrap();
        assert_eq!(root.body, Body::Dir(view.root()));
    }

    #[test]
    fn a_walk_goes_no_deeper_than_any_tree_is_saved_and_says_where() {
        let from = TempDir::new().unwrap();
        fs::create_dir_all(from.path().join("a/b/c/d")).unwrap();
        fs::write(from.path().join("a/b/e"), "x").unwrap();
        let repo = create(&MemBackend::new());
        let view = View::of_tree(&repo, back_up(&repo, from.path()).tree).unwrap();
        let mut walk = view.walk_all();
        walk.max_depth = 3;
        let mut seen = Vec::new();
        let mut refused = Vec::new();
        while let Some(event) = walk.next_event() {
            match event {
                Event::Entry(_) => seen.push(text(walk.path())),
                Event::Leave => seen.push(format!("-{}", text(walk.path()))),
                Event::Damaged(error) => refused.push(error),
            }
        }
        assert_eq!(seen, ["a", "a/b", "a/b/c", "-a/b/c", "a/b/e", "-a/b", "-a"]);
        assert!(
            matches!(refused.as_slice(), [Error::TreeTooDeep { path, limit: 3 }]
                if path == b"a/b/c"),
            "{refused:?}"
        );
    }
}
