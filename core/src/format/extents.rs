//! What a file holds: a list of [`Extent`]s, inline in the file's node while it is short, as a
//! tree of pages cut by content when it is long. The root of that tree is the identity of the
//! file's content, and a small change of a huge file changes few pages.
//!
//! ```text
//! page   = record of Page
//! Leaf   = extents;  Inner = (bytes below, page id), in order
//! ```
//!
//! A leaf ends behind a data extent whose blob id begins with a zero byte, or at
//! [`MAX_PAGE`] extents; an inner page of level `n` behind a child whose id does.

use serde::{Deserialize, Serialize};
use strongroom_repo::{
    format::{
        DecodeError,
        record::{self, Ext},
    },
    id::BlobId,
};

use super::levels::Levels;

/// Longest list that stands in a node itself.
pub const MAX_INLINE: usize = 32;
/// Most extents or children of a page.
pub const MAX_PAGE: usize = 1024;
/// Most levels above the leaves: far beyond what any file needs.
pub const MAX_LEVEL: u8 = 8;

const WHAT: &str = "extent list";

/// A run of bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// The bytes of a blob.
    Data {
        /// Length in bytes.
        len: u32,
        /// The blob.
        id: BlobId,
    },
    /// A hole, as the file system said.
    Hole {
        /// Length in bytes.
        len: u64,
    },
    /// Zeros that were stored as such.
    Zero {
        /// Length in bytes.
        len: u64,
    },
}

impl Extent {
    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Data { len, .. } => *len as u64,
            Self::Hole { len } | Self::Zero { len } => *len,
        }
    }

    /// Whether the extent is of no length; none such is stored.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A page of a long list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Page {
    /// Extents themselves.
    Leaf(Vec<Extent>),
    /// Pages one level down.
    Inner(Vec<Child>),
}

/// A page as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Bytes of the file that the page covers.
    pub len: u64,
    /// The page.
    pub id: BlobId,
}

impl Page {
    /// The plain bytes of the page's blob.
    ///
    /// # Errors
    /// As [`record::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        record::encode(self, &Ext::default(), WHAT)
    }

    /// Reads a page. No extent or child is empty, and there are no more than [`MAX_PAGE`].
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (page, _): (Self, Ext) = record::decode(bytes, WHAT)?;
        let (count, empty) = match &page {
            Self::Leaf(extents) => (extents.len(), extents.iter().any(Extent::is_empty)),
            Self::Inner(children) => (children.len(), children.iter().any(|child| child.len == 0)),
        };
        if count == 0 || count > MAX_PAGE || empty {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        Ok(page)
    }
}

/// What a node says of its file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// The extents themselves; none for an empty file.
    Inline(Vec<Extent>),
    /// The root page of a longer list, and how many levels lie below it.
    List {
        /// The root page.
        root: BlobId,
        /// 0 where the root is a leaf.
        level: u8,
    },
}

/// Turns a stream of extents into a [`Content`], handing finished pages to the caller.
#[derive(Debug, Default)]
pub struct ContentBuilder {
    extents: Vec<Extent>,
    pages: Levels<Child>,
}

impl ContentBuilder {
    /// Appends an extent, joining it with the one before where both are holes or both zeros.
    ///
    /// # Errors
    /// What `store` returns.
    pub fn push<E>(
        &mut self,
        extent: Extent,
        store: &mut dyn FnMut(&Page) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        if extent.is_empty() {
            return Ok(());
        }
        match (self.extents.last_mut(), extent) {
            (Some(Extent::Hole { len }), Extent::Hole { len: more })
            | (Some(Extent::Zero { len }), Extent::Zero { len: more }) => {
                *len = len.saturating_add(more);
                return Ok(());
            }
            _ => self.extents.push(extent),
        }
        let cut = matches!(extent, Extent::Data { id, .. } if ends_page(&id));
        let long = !self.pages.is_empty() || self.extents.len() > MAX_INLINE;
        if (cut && long) || self.extents.len() >= MAX_PAGE {
            self.close_leaf(store)?;
        }
        Ok(())
    }

    /// Ends the list.
    ///
    /// # Errors
    /// What `store` returns.
    pub fn finish<E>(
        mut self,
        store: &mut dyn FnMut(&Page) -> Result<BlobId, E>,
    ) -> Result<Content, E> {
        if self.pages.is_empty() && self.extents.len() <= MAX_INLINE {
            return Ok(Content::Inline(self.extents));
        }
        if !self.extents.is_empty() {
            self.close_leaf(store)?;
        }
        let root = self
            .pages
            .finish(&mut |children| store_inner(children, store))?;
        Ok(match root {
            Some((root, level)) => Content::List {
                root: root.id,
                level,
            },
            None => Content::Inline(Vec::new()),
        })
    }

    fn close_leaf<E>(
        &mut self,
        store: &mut dyn FnMut(&Page) -> Result<BlobId, E>,
    ) -> Result<(), E> {
        let extents = std::mem::take(&mut self.extents);
        let len = extents.iter().map(Extent::len).fold(0, u64::saturating_add);
        let leaf = Child {
            len,
            id: store(&Page::Leaf(extents))?,
        };
        let is_full = |_, children: &[Child]| {
            let ends = children.last().is_some_and(|last| ends_page(&last.id));
            ends || children.len() >= MAX_PAGE
        };
        self.pages
            .push(leaf, &is_full, &mut |children| store_inner(children, store))
    }
}

fn store_inner<E>(
    children: Vec<Child>,
    store: &mut dyn FnMut(&Page) -> Result<BlobId, E>,
) -> Result<Child, E> {
    let len = children
        .iter()
        .map(|child| child.len)
        .fold(0, u64::saturating_add);
    Ok(Child {
        len,
        id: store(&Page::Inner(children))?,
    })
}

/// A keyed id is random: one in 256 ends a page.
fn ends_page(id: &BlobId) -> bool {
    let [first, ..] = id.as_bytes();
    *first == 0
}

/// Walks a content's extents in order, loading pages as they are needed; at most one page a level
/// is held.
pub struct Extents<'a, E> {
    load: Load<'a, E>,
    stack: Vec<Position>,
    root: Option<(BlobId, u8)>,
}

type Load<'a, E> = Box<dyn FnMut(&BlobId) -> Result<Page, E> + 'a>;

enum Position {
    Leaf(std::vec::IntoIter<Extent>),
    Inner(std::vec::IntoIter<Child>, u8),
}

impl<'a, E: From<DecodeError>> Extents<'a, E> {
    /// Starts at the front of `content`; `load` reads a page.
    pub fn new(content: &Content, load: impl FnMut(&BlobId) -> Result<Page, E> + 'a) -> Self {
        let (stack, root) = match content {
            Content::Inline(extents) => (vec![Position::Leaf(extents.clone().into_iter())], None),
            Content::List { root, level } => (Vec::new(), Some((*root, *level))),
        };
        Self {
            load: Box::new(load),
            stack,
            root,
        }
    }

    fn enter(&mut self, id: &BlobId, level: u8) -> Result<(), E> {
        let position = match (self.load)(id)? {
            Page::Leaf(extents) if level == 0 => Position::Leaf(extents.into_iter()),
            Page::Inner(children) if level > 0 && level <= MAX_LEVEL => {
                Position::Inner(children.into_iter(), level - 1)
            }
            _ => return Err(DecodeError::Malformed { what: WHAT }.into()),
        };
        self.stack.push(position);
        Ok(())
    }
}

impl<E: From<DecodeError>> Iterator for Extents<'_, E> {
    type Item = Result<Extent, E>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((root, level)) = self.root.take()
            && let Err(error) = self.enter(&root, level)
        {
            return Some(Err(error));
        }
        loop {
            let next = match self.stack.last_mut()? {
                Position::Leaf(extents) => match extents.next() {
                    Some(extent) => return Some(Ok(extent)),
                    None => None,
                },
                Position::Inner(children, below) => children.next().map(|child| (child, *below)),
            };
            match next {
                None => {
                    self.stack.pop();
                }
                Some((child, below)) => {
                    if let Err(error) = self.enter(&child.id, below) {
                        self.stack.clear();
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

/// Body of the fuzz target: no bytes panic, and a page that decodes encodes to the same bytes.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_extents(data: &[u8]) {
    if let Ok(page) = Page::decode(data) {
        let _ = page.encode();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A store in memory that names pages by a hash, as a repository does.
    #[derive(Default)]
    struct Pages(HashMap<BlobId, Page>);

    impl Pages {
        fn store(&mut self, page: &Page) -> BlobId {
            let id = BlobId::new(blake3::hash(&page.encode().unwrap()).into());
            self.0.insert(id, page.clone());
            id
        }

        fn build(&mut self, extents: &[Extent]) -> Content {
            let mut builder = ContentBuilder::default();
            let mut store = |page: &Page| Ok::<_, DecodeError>(self.store(page));
            for extent in extents {
                builder.push(*extent, &mut store).unwrap();
            }
            builder.finish(&mut store).unwrap()
        }

        fn read(&self, content: &Content) -> Vec<Extent> {
            let load = |id: &BlobId| Ok::<_, DecodeError>(self.0[id].clone());
            Extents::new(content, load)
                .collect::<Result<_, _>>()
                .unwrap()
        }
    }

    fn data(n: u64) -> Extent {
        Extent::Data {
            len: 1000,
            id: BlobId::new(blake3::hash(&n.to_le_bytes()).into()),
        }
    }

    #[test]
    fn lists_of_every_length_come_back() {
        for count in [0, 1, 31, 32, 33, 300, 1023, 1024, 1025, 5000, 300_000] {
            let mut pages = Pages::default();
            let extents: Vec<_> = (0..count).map(data).collect();
            let content = pages.build(&extents);
            assert_eq!(
                matches!(content, Content::Inline(_)),
                count <= 32,
                "{count}"
            );
            assert_eq!(pages.read(&content), extents, "{count}");
        }
    }

    #[test]
    fn ids_that_never_end_a_page_still_make_bounded_pages() {
        let mut pages = Pages::default();
        let extents = vec![
            Extent::Data {
                len: 1,
                id: BlobId::new([9; 32])
            };
            10_000
        ];
        let content = pages.build(&extents);
        assert_eq!(pages.read(&content), extents);
    }

    #[test]
    fn a_change_in_the_middle_of_a_long_list_changes_few_pages() {
        let mut pages = Pages::default();
        let mut extents: Vec<_> = (0..100_000).map(data).collect();
        pages.build(&extents);
        let before = pages.0.len();
        extents.insert(50_000, data(u64::MAX));
        pages.build(&extents);
        assert!(
            pages.0.len() - before <= 4,
            "{} new pages",
            pages.0.len() - before
        );
    }

    #[test]
    fn neighbouring_holes_are_one() {
        let mut pages = Pages::default();
        let extents = [
            Extent::Hole { len: 1 },
            Extent::Hole { len: 2 },
            Extent::Zero { len: 0 },
        ];
        assert_eq!(
            pages.build(&extents),
            Content::Inline(vec![Extent::Hole { len: 3 }])
        );
    }

    #[test]
    fn golden_bytes() {
        let page = Page::Leaf(vec![
            Extent::Data {
                len: 300,
                id: BlobId::new([7; 32]),
            },
            Extent::Hole { len: 1 },
            Extent::Zero { len: 2 },
        ]);
        let mut expected = vec![1, 0, 3, 0, 251, 44, 1];
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&[1, 1, 2, 2, 0]);
        assert_eq!(page.encode().unwrap(), expected);
        assert_eq!(Page::decode(&expected).unwrap(), page);
        let inner = Page::Inner(vec![Child {
            len: 5,
            id: BlobId::new([8; 32]),
        }]);
        let mut expected = vec![1, 1, 1, 5];
        expected.extend_from_slice(&[8; 32]);
        expected.push(0);
        assert_eq!(inner.encode().unwrap(), expected);
    }

    #[test]
    fn a_list_that_claims_the_wrong_depth_is_refused() {
        let mut pages = Pages::default();
        let root = pages.store(&Page::Leaf(vec![data(1)]));
        let content = Content::List { root, level: 1 };
        let load = |id: &BlobId| Ok::<_, DecodeError>(pages.0[id].clone());
        assert!(Extents::new(&content, load).next().unwrap().is_err());
    }
}
