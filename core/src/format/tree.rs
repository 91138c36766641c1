//! A directory: its entries sorted by name, in pages whose borders follow from the names alone,
//! so that one change in a directory of ten million entries rewrites a few pages.
//!
//! A page is the record of a [`Page`]: a leaf holds entries, an inner one the last name below and
//! the id of each page; both by name.
//!
//! A leaf ends behind a name whose BLAKE3 hash, as a little-endian number of its first eight
//! bytes, has its low 8 bits zero; an inner page of level `n` (leaves have level 0) behind a name
//! whose hash has the next `8 n` bits zero as well. No page takes more than [`MAX_PAGE_LEN`]
//! bytes.

use serde::{Deserialize, Serialize};
use strongroom_repo::{
    env::Timestamp,
    format::{
        DecodeError,
        record::{self, Ext},
    },
    id::BlobId,
};

use super::{copied, extents::Content, levels::Levels};
use crate::node::{DeviceNumber, LinkId, Metadata, Node, NodeKind, Xattr};

const WHAT: &str = "tree";

/// Bytes at which a page is closed whatever its names say.
pub const MAX_PAGE_LEN: usize = 1 << 20;
/// Most levels above the leaves.
pub const MAX_LEVEL: usize = 16;
/// Longest name, in bytes: what file systems allow, and some more.
pub const MAX_NAME_LEN: usize = 1024;

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Page {
    /// Entries themselves.
    Leaf(Vec<Entry>),
    /// Pages one level down.
    Inner(Vec<Child>),
}

/// A page as its parent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The last name in it.
    pub last: Vec<u8>,
    /// The page.
    pub id: BlobId,
}

/// An entry as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    name: Vec<u8>,
    kind: Kind,
    mode: u16,
    uid: u32,
    gid: u32,
    user: Vec<u8>,
    group: Vec<u8>,
    mtime: Timestamp,
    ctime: Timestamp,
    atime: Option<Timestamp>,
    flags: u32,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    link: Option<(u32, u64)>,
    ext: Ext,
}

/// What an entry is, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    File { size: u64, content: Content },
    Dir { tree: BlobId },
    Symlink { target: Vec<u8> },
    BlockDevice { major: u32, minor: u32 },
    CharDevice { major: u32, minor: u32 },
    Fifo,
    Socket,
}

/// An entry with what it points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// The node.
    pub node: Node,
    /// Its content in the repository.
    pub body: Body,
}

/// What an entry points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A file's content.
    File(Content),
    /// The root page of a directory.
    Dir(BlobId),
    /// Nothing beside the node.
    None,
}

impl TreeEntry {
    /// The stored form.
    #[must_use]
    pub fn to_stored(&self) -> Entry {
        let Node { name, kind, meta } = &self.node;
        let kind = match (kind, &self.body) {
            (NodeKind::File { size }, Body::File(content)) => Kind::File {
                size: *size,
                content: content.clone(),
            },
            (NodeKind::File { size }, _) => Kind::File {
                size: *size,
                content: Content::Inline(Vec::new()),
            },
            (NodeKind::Dir, Body::Dir(tree)) => Kind::Dir { tree: *tree },
            (NodeKind::Dir, _) => Kind::Dir {
                tree: BlobId::new([0; 32]),
            },
            (NodeKind::Symlink { target }, _) => Kind::Symlink {
                target: target.clone(),
            },
            (NodeKind::BlockDevice(number), _) => Kind::BlockDevice {
                major: number.major,
                minor: number.minor,
            },
            (NodeKind::CharDevice(number), _) => Kind::CharDevice {
                major: number.major,
                minor: number.minor,
            },
            (NodeKind::Fifo, _) => Kind::Fifo,
            (NodeKind::Socket, _) => Kind::Socket,
        };
        let mut ext = Ext::default();
        if let Some(copied) = &meta.copied {
            ext.set(copied::TAG, copied::encode(copied));
        }
        Entry {
            name: name.clone(),
            kind,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            user: meta.user.clone(),
            group: meta.group.clone(),
            mtime: meta.mtime,
            ctime: meta.ctime,
            atime: meta.atime,
            flags: meta.flags,
            xattrs: meta
                .xattrs
                .iter()
                .map(|x| (x.name.clone(), x.value.clone()))
                .collect(),
            link: meta.link.map(|link| (link.device, link.inode)),
            ext,
        }
    }

    fn from_stored(entry: Entry) -> Result<Self, DecodeError> {
        entry.ext.check(&[], "tree entry")?;
        check_name(&entry.name)?;
        let times = [Some(entry.mtime), Some(entry.ctime), entry.atime];
        let is_time = |time: &Timestamp| time.nanos < 1_000_000_000;
        if !times.iter().flatten().all(is_time) || entry.mode > 0o7777 {
            return Err(DecodeError::Malformed { what: "tree entry" });
        }
        let copied = entry.ext.find(copied::TAG).map(copied::decode);
        let (kind, body) = match entry.kind {
            Kind::File { size, content } => (NodeKind::File { size }, Body::File(content)),
            Kind::Dir { tree } => (NodeKind::Dir, Body::Dir(tree)),
            Kind::Symlink { target } => (NodeKind::Symlink { target }, Body::None),
            Kind::BlockDevice { major, minor } => (
                NodeKind::BlockDevice(DeviceNumber { major, minor }),
                Body::None,
            ),
            Kind::CharDevice { major, minor } => (
                NodeKind::CharDevice(DeviceNumber { major, minor }),
                Body::None,
            ),
            Kind::Fifo => (NodeKind::Fifo, Body::None),
            Kind::Socket => (NodeKind::Socket, Body::None),
        };
        let meta = Metadata {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            user: entry.user,
            group: entry.group,
            mtime: entry.mtime,
            ctime: entry.ctime,
            atime: entry.atime,
            flags: entry.flags,
            xattrs: entry
                .xattrs
                .into_iter()
                .map(|(name, value)| Xattr { name, value })
                .collect(),
            link: entry.link.map(|(device, inode)| LinkId { device, inode }),
            copied: copied.transpose()?,
        };
        Ok(Self {
            node: Node {
                name: entry.name,
                kind,
                meta,
            },
            body,
        })
    }
}

/// A name that a directory can have: not empty, `.` or `..`, without `/` and NUL.
fn check_name(name: &[u8]) -> Result<(), DecodeError> {
    let reserved = matches!(name, b"" | b"." | b"..");
    if reserved || name.len() > MAX_NAME_LEN || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(DecodeError::Malformed {
            what: "name in a tree",
        });
    }
    Ok(())
}

/// A page, decoded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreePage {
    /// Entries, names ascending.
    Leaf(Vec<TreeEntry>),
    /// Pages, last names ascending.
    Inner(Vec<Child>),
}

impl TreePage {
    /// Reads a page: names are valid and strictly ascending.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (page, _): (Page, Ext) = record::decode(bytes, WHAT)?;
        match page {
            Page::Leaf(entries) => {
                let entries = entries
                    .into_iter()
                    .map(TreeEntry::from_stored)
                    .collect::<Result<Vec<_>, _>>()?;
                if !entries.is_sorted_by(|a, b| a.node.name < b.node.name) {
                    return Err(DecodeError::Malformed { what: WHAT });
                }
                Ok(Self::Leaf(entries))
            }
            Page::Inner(children) => {
                if children.is_empty() || !children.is_sorted_by(|a, b| a.last < b.last) {
                    return Err(DecodeError::Malformed { what: WHAT });
                }
                Ok(Self::Inner(children))
            }
        }
    }
}

/// Turns a stream of entries, sorted by name, into a directory, handing finished pages to the
/// caller as plain bytes.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    entries: Vec<Entry>,
    len: usize,
    pages: Levels<Child>,
}

impl TreeBuilder {
    /// Appends an entry; its name comes after all before it.
    ///
    /// # Errors
    /// What `store` returns.
    pub fn push<E: From<DecodeError>>(
        &mut self,
        entry: &TreeEntry,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        let stored = entry.to_stored();
        self.len += estimate(&stored);
        let zeros = name_hash(&stored.name).trailing_zeros() as usize;
        self.entries.push(stored);
        if zeros < 8 && self.len < MAX_PAGE_LEN {
            return Ok(());
        }
        let is_full = |level: usize, children: &[Child]| {
            let ends = zeros >= 8 * (level + 2);
            ends || children.len() * (32 + 64) >= MAX_PAGE_LEN
        };
        let leaf = self.close_leaf(store)?;
        self.pages
            .push(leaf, &is_full, &mut |children| store_inner(children, store))
    }

    /// Ends the directory and returns its root page.
    ///
    /// # Errors
    /// What `store` returns.
    pub fn finish<E: From<DecodeError>>(
        mut self,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<BlobId, E> {
        if !self.entries.is_empty() {
            let leaf = self.close_leaf(store)?;
            self.pages.add(leaf);
        }
        let pages = std::mem::take(&mut self.pages);
        let root = pages.finish(&mut |children| store_inner(children, store))?;
        Ok(match root {
            Some((root, _)) => root.id,
            None => self.close_leaf(store)?.id,
        })
    }

    fn close_leaf<E: From<DecodeError>>(
        &mut self,
        store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
    ) -> Result<Child, E> {
        self.len = 0;
        let entries = std::mem::take(&mut self.entries);
        let last = entries
            .last()
            .map(|entry| entry.name.clone())
            .unwrap_or_default();
        let bytes = record::encode(&Page::Leaf(entries), &Ext::default(), WHAT)?;
        Ok(Child {
            last,
            id: store(&bytes)?,
        })
    }
}

fn store_inner<E: From<DecodeError>>(
    children: Vec<Child>,
    store: &mut dyn FnMut(&[u8]) -> Result<BlobId, E>,
) -> Result<Child, E> {
    let last = children
        .last()
        .map(|child| child.last.clone())
        .unwrap_or_default();
    let bytes = record::encode(&Page::Inner(children), &Ext::default(), WHAT)?;
    Ok(Child {
        last,
        id: store(&bytes)?,
    })
}

fn name_hash(name: &[u8]) -> u64 {
    let hash = blake3::hash(name);
    hash.as_bytes()
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// About the bytes that an entry will take, never far below.
fn estimate(entry: &Entry) -> usize {
    let xattrs: usize = entry
        .xattrs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum();
    let body = match &entry.kind {
        Kind::File {
            content: Content::Inline(extents),
            ..
        } => extents.len() * 40,
        Kind::Symlink { target } => target.len(),
        _ => 40,
    };
    64 + entry.name.len() + entry.user.len() + entry.group.len() + xattrs + body
}

/// Walks a directory's entries in order, loading pages as they are needed; at most one page a
/// level is held.
pub struct Entries<'a, E> {
    load: Load<'a, E>,
    stack: Vec<Position>,
    root: Option<BlobId>,
    last: Option<Vec<u8>>,
}

type Load<'a, E> = Box<dyn FnMut(&BlobId) -> Result<TreePage, E> + 'a>;

enum Position {
    Leaf(std::vec::IntoIter<TreeEntry>),
    Inner(std::vec::IntoIter<Child>),
}

impl<'a, E: From<DecodeError>> Entries<'a, E> {
    /// Starts at the front of the directory whose root page is `root`; `load` reads a page.
    pub fn new(root: BlobId, load: impl FnMut(&BlobId) -> Result<TreePage, E> + 'a) -> Self {
        Self {
            load: Box::new(load),
            stack: Vec::new(),
            root: Some(root),
            last: None,
        }
    }

    fn enter(&mut self, id: &BlobId) -> Result<(), E> {
        if self.stack.len() > MAX_LEVEL {
            return Err(DecodeError::Malformed { what: WHAT }.into());
        }
        let position = match (self.load)(id)? {
            TreePage::Leaf(entries) => Position::Leaf(entries.into_iter()),
            TreePage::Inner(children) => Position::Inner(children.into_iter()),
        };
        self.stack.push(position);
        Ok(())
    }
}

impl<E: From<DecodeError>> Entries<'_, E> {
    /// Names ascend across pages as they do in one: no name occurs twice.
    fn in_order(&mut self, entry: TreeEntry) -> Result<TreeEntry, E> {
        if self
            .last
            .as_ref()
            .is_some_and(|last| *last >= entry.node.name)
        {
            self.stack.clear();
            return Err(DecodeError::Malformed { what: WHAT }.into());
        }
        self.last = Some(entry.node.name.clone());
        Ok(entry)
    }
}

impl<E: From<DecodeError>> Iterator for Entries<'_, E> {
    type Item = Result<TreeEntry, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next = self.root.take();
        loop {
            if let Some(id) = next.take()
                && let Err(error) = self.enter(&id)
            {
                self.stack.clear();
                return Some(Err(error));
            }
            match self.stack.last_mut()? {
                Position::Leaf(entries) => {
                    if let Some(entry) = entries.next() {
                        return Some(self.in_order(entry));
                    }
                }
                Position::Inner(children) => next = children.next().map(|child| child.id),
            }
            if next.is_none() {
                self.stack.pop();
            }
        }
    }
}

/// Body of the fuzz target: no bytes panic, and entries that decode are what they encode to.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_tree(data: &[u8]) {
    if let Ok(TreePage::Leaf(entries)) = TreePage::decode(data) {
        let stored = entries.iter().map(TreeEntry::to_stored).collect();
        if let Ok(bytes) = record::encode(&Page::Leaf(stored), &Ext::default(), WHAT) {
            assert_eq!(TreePage::decode(&bytes), Ok(TreePage::Leaf(entries)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::format::extents::Extent;

    #[derive(Default)]
    struct Pages(HashMap<BlobId, Vec<u8>>);

    impl Pages {
        fn build(&mut self, entries: &[TreeEntry]) -> BlobId {
            let mut builder = TreeBuilder::default();
            let mut store = |bytes: &[u8]| {
                let id = BlobId::new(blake3::hash(bytes).into());
                self.0.insert(id, bytes.to_vec());
                Ok::<_, DecodeError>(id)
            };
            for entry in entries {
                builder.push(entry, &mut store).unwrap();
            }
            builder.finish(&mut store).unwrap()
        }

        fn read(&self, root: BlobId) -> Vec<TreeEntry> {
            Entries::new(root, |id| TreePage::decode(&self.0[id]))
                .collect::<Result<_, _>>()
                .unwrap()
        }
    }

    fn fifo(name: &str) -> TreeEntry {
        let node = Node {
            name: name.as_bytes().to_vec(),
            kind: NodeKind::Fifo,
            meta: Metadata::default(),
        };
        TreeEntry {
            node,
            body: Body::None,
        }
    }

    fn many(count: usize) -> Vec<TreeEntry> {
        (0..count).map(|n| fifo(&format!("{n:07}"))).collect()
    }

    #[test]
    fn directories_of_every_size_come_back() {
        for count in [0, 1, 255, 256, 257, 3000, 200_000] {
            let mut pages = Pages::default();
            let entries = many(count);
            let root = pages.build(&entries);
            assert_eq!(pages.read(root), entries, "{count}");
        }
    }

    #[test]
    fn one_change_in_a_huge_directory_rewrites_few_pages() {
        let mut pages = Pages::default();
        let mut entries = many(200_000);
        pages.build(&entries);
        let before: usize = pages.0.values().map(Vec::len).sum();
        entries.insert(100_000, fifo("0099999a"));
        pages.build(&entries);
        let after: usize = pages.0.values().map(Vec::len).sum();
        assert!(after - before < 300_000, "{} bytes", after - before);
    }

    fn full_entry() -> TreeEntry {
        let meta = Metadata {
            mode: 0o4755,
            uid: 1000,
            gid: 7,
            user: b"u".to_vec(),
            group: b"g".to_vec(),
            mtime: Timestamp { secs: -1, nanos: 5 },
            ctime: Timestamp { secs: 2, nanos: 3 },
            atime: None,
            flags: 0x40,
            xattrs: vec![Xattr {
                name: b"user.a".to_vec(),
                value: vec![0, 255],
            }],
            link: Some(LinkId {
                device: 1,
                inode: 9,
            }),
            copied: None,
        };
        let extents = vec![Extent::Data {
            len: 4,
            id: BlobId::new([7; 32]),
        }];
        TreeEntry {
            node: Node {
                name: b"n\xff".to_vec(),
                kind: NodeKind::File { size: 4 },
                meta,
            },
            body: Body::File(Content::Inline(extents)),
        }
    }

    #[test]
    fn golden_bytes() {
        let page = Page::Leaf(vec![full_entry().to_stored()]);
        let bytes = record::encode(&page, &Ext::default(), WHAT).unwrap();
        let mut expected = vec![1, 0, 1, 2, b'n', 0xff, 0, 4, 0, 1, 0, 4];
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&[251, 0xed, 0x09, 251, 0xe8, 3, 7, 1, b'u', 1, b'g']);
        expected.extend_from_slice(&[1, 5, 4, 3, 0, 64, 1, 6]);
        expected.extend_from_slice(b"user.a");
        expected.extend_from_slice(&[2, 0, 255, 1, 1, 9, 0, 0]);
        assert_eq!(bytes, expected);
        assert_eq!(
            TreePage::decode(&bytes),
            Ok(TreePage::Leaf(vec![full_entry()]))
        );
    }

    #[test]
    fn hostile_names_and_wrong_orders_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b"] {
            let bytes = record::encode(
                &Page::Leaf(vec![fifo(name).to_stored()]),
                &Ext::default(),
                WHAT,
            );
            assert!(TreePage::decode(&bytes.unwrap()).is_err(), "{name:?}");
        }
        for names in [["b", "a"], ["a", "a"]] {
            let entries = names.map(|name| fifo(name).to_stored()).to_vec();
            let bytes = record::encode(&Page::Leaf(entries), &Ext::default(), WHAT).unwrap();
            assert!(TreePage::decode(&bytes).is_err(), "{names:?}");
        }
    }

    #[test]
    fn pages_that_repeat_a_name_are_refused() {
        let mut pages = Pages::default();
        let leaf = pages.build(&many(3));
        let child = |last: &[u8]| Child {
            last: last.to_vec(),
            id: leaf,
        };
        let inner = Page::Inner(vec![child(b"0000002"), child(b"z")]);
        let bytes = record::encode(&inner, &Ext::default(), WHAT).unwrap();
        let root = BlobId::new([1; 32]);
        pages.0.insert(root, bytes);
        let read: Vec<_> = Entries::new(root, |id| TreePage::decode(&pages.0[id])).collect();
        assert_eq!(read.iter().filter(|entry| entry.is_ok()).count(), 3);
        assert!(read.last().unwrap().is_err());
    }

    #[test]
    fn a_page_that_contains_itself_ends_in_an_error() {
        let child = Child {
            last: b"z".to_vec(),
            id: BlobId::new([1; 32]),
        };
        let page = TreePage::Inner(vec![child]);
        let mut entries =
            Entries::new(BlobId::new([1; 32]), |_| Ok::<_, DecodeError>(page.clone()));
        assert!(entries.next().unwrap().is_err());
    }
}
