//! What a walk meets, and where.

use std::{collections::VecDeque, sync::Arc};

use strongroom_repo::id::{BlobId, SnapshotId};

use crate::error::Error;

/// Something that a walk meets and can live with.
#[derive(Debug)]
pub struct TreeProblem {
    /// The first snapshot that led there; others may share it.
    pub snapshot: SnapshotId,
    /// The path in it.
    pub path: Vec<u8>,
    /// What is wrong.
    pub what: TreeFault,
}

/// What can be wrong with a tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeFault {
    /// A page of a directory or of a list of extents cannot be read.
    #[error("a page of its tree cannot be read")]
    Page {
        /// The page.
        blob: BlobId,
        /// Why.
        #[source]
        source: Error,
    },
    /// A data blob is in no pack.
    #[error("blob {blob} of it is in no pack")]
    Missing {
        /// The blob.
        blob: BlobId,
    },
    /// The extents of a file are not as long as the file.
    #[error("it has {size} bytes, but its content has {found}")]
    Length {
        /// What the node says.
        size: u64,
        /// What the extents come to.
        found: u64,
    },
    /// A blob is not as long as the tree says.
    #[error("blob {blob} of it has {found} bytes, its tree says {expected}")]
    BlobLength {
        /// The blob.
        blob: BlobId,
        /// What the tree says.
        expected: u32,
        /// What the index or another tree says.
        found: u32,
    },
    /// Directories are nested beyond all reason.
    #[error("its directories are nested too deeply")]
    TooDeep,
}

impl TreeFault {
    /// The blob concerned, if one is.
    #[must_use]
    pub const fn blob(&self) -> Option<BlobId> {
        match self {
            Self::Page { blob, .. } | Self::Missing { blob } | Self::BlobLength { blob, .. } => {
                Some(*blob)
            }
            Self::Length { .. } | Self::TooDeep => None,
        }
    }
}

/// Where something was met: a name in a place, up to a snapshot.
#[derive(Debug)]
pub struct Place {
    parent: Option<Arc<Self>>,
    name: Vec<u8>,
    snapshot: SnapshotId,
    pub(super) depth: u32,
}

impl Place {
    pub(super) fn root(snapshot: SnapshotId) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            name: Vec::new(),
            snapshot,
            depth: 0,
        })
    }

    pub(super) fn below(self: &Arc<Self>, name: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(Arc::clone(self)),
            name: name.to_vec(),
            snapshot: self.snapshot,
            depth: self.depth + 1,
        })
    }

    /// The snapshot.
    #[must_use]
    pub const fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }

    /// The path, from `/`.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        let mut names: VecDeque<&[u8]> = VecDeque::new();
        let mut at = Some(self);
        while let Some(place) = at {
            if place.parent.is_some() {
                names.push_front(&place.name);
            }
            at = place.parent.as_deref();
        }
        let mut path = vec![b'/'];
        path.extend(Vec::from(names).join(&b'/'));
        path
    }
}

impl Drop for Place {
    /// Places hang on each other as deep as directories do: no recursion.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut place) = next.and_then(Arc::into_inner) {
            next = place.parent.take();
        }
    }
}
