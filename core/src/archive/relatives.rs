//! Which older file a new one descends from: what the parent snapshot has at its path; else, for a
//! file of tensors, the one that shares most of them, wherever it lies. A fine-tune saved under
//! another name so finds the model that it was made from.
//!
//! What is looked through is found out once a run, and only if a file of a MiB of tensors and more
//! without a predecessor comes up: the trees and files that were given, else the newest snapshot of
//! each machine and set of paths. All bounds are on effort alone: beyond them a file has no
//! ancestor.

use std::sync::{Arc, OnceLock};

use strongroom_chunker::layout::LayoutSegment;
use strongroom_repo::id::BlobId;

use super::{BaseTree, Run, ancestor::Ancestor};
use crate::{
    format::{
        extents::Content,
        snapshot::Snapshot,
        tree::{Body, TreeEntry},
    },
    node::NodeKind,
    reachable::load_record,
    view::View,
};

/// Smaller files are not looked through for tensors.
const MIN_FILE: u64 = 1 << 20;
/// Most snapshots, entries of their trees, and files that are looked through.
const MAX_SNAPSHOTS: usize = 16;
const MAX_ENTRIES: usize = 200_000;
const MAX_FILES: usize = 1024;
/// Files that differ more in size than by this factor are no relatives.
const MAX_RATIO: u64 = 3;
/// Least share of the new file's tensors, in parts of them.
const LEAST_SHARE: u64 = 4;

/// Files that others may descend from.
pub(super) struct Relatives<'a> {
    given: &'a [BaseTree],
    found: OnceLock<Vec<Relative>>,
}

struct Relative {
    content: Content,
    size: u64,
    ancestor: OnceLock<Option<Arc<Ancestor>>>,
}

impl<'a> Relatives<'a> {
    /// None are known yet; `given` are looked through instead of snapshots.
    pub(super) const fn new(given: &'a [BaseTree]) -> Self {
        Self {
            given,
            found: OnceLock::new(),
        }
    }
}

impl Run<'_> {
    /// The older file that one of these segments descends from.
    pub(super) fn ancestor(
        &self,
        before: Option<&TreeEntry>,
        segments: &[LayoutSegment],
    ) -> Option<Arc<Ancestor>> {
        if !self.deltas {
            return None;
        }
        if let Some((content, size)) = before.and_then(file) {
            return self.open_ancestor(content, size);
        }
        if let [only] = self.relatives.given
            && let Some((content, size)) = file(&only.entry)
        {
            return self.open_ancestor(content, size);
        }
        self.relative(segments)
    }

    fn open_ancestor(&self, content: &Content, size: u64) -> Option<Arc<Ancestor>> {
        match Ancestor::open(self.repo, content, size) {
            Ok(ancestor) => Some(Arc::new(ancestor)),
            Err(error) => {
                tracing::debug!(%error, "what stood in a file before cannot be told");
                None
            }
        }
    }

    /// The file that shares most tensors.
    fn relative(&self, segments: &[LayoutSegment]) -> Option<Arc<Ancestor>> {
        let is_tensor = |segment: &&LayoutSegment| segment.is_named_tensor();
        let len = |segment: &LayoutSegment| segment.range.end - segment.range.start;
        let tensors: u64 = segments.iter().filter(is_tensor).map(len).sum();
        if tensors < MIN_FILE {
            return None;
        }
        let size = segments.last()?.range.end;
        let relatives = self.relatives.found.get_or_init(|| self.look_around());
        let alike = relatives.iter().filter(|relative| {
            relative.size.saturating_mul(MAX_RATIO) >= size
                && size.saturating_mul(MAX_RATIO) >= relative.size
        });
        let shares = alike.filter_map(|relative| {
            let open = || self.open_ancestor(&relative.content, relative.size);
            let ancestor = relative.ancestor.get_or_init(open).as_ref()?;
            Some((ancestor.shared(self.repo, segments), ancestor))
        });
        // Of several that share as much the first: it is of the newest snapshot.
        let best = shares.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.filter(|(shared, _)| shared * LEAST_SHARE >= tensors)
            .map(|(_, ancestor)| Arc::clone(ancestor))
    }

    fn look_around(&self) -> Vec<Relative> {
        let mut found = Vec::new();
        let mut trees = Vec::new();
        for base in self.relatives.given {
            match base.entry.body {
                Body::Dir(tree) => trees.push(tree),
                _ => found.extend(Relative::of(&base.entry)),
            }
        }
        if self.relatives.given.is_empty() {
            trees = self.newest_trees();
        }
        if let Err(error) = self.look_through(trees, &mut found) {
            tracing::debug!(%error, "not all older files could be looked through");
        }
        found
    }

    /// The tree of the newest snapshot of each machine and set of paths, the newest first.
    fn newest_trees(&self) -> Vec<BlobId> {
        let ids = self.repo.snapshots().into_keys();
        let loaded = ids.filter_map(|id| load_record(self.repo, id).ok());
        let mut records: Vec<Snapshot> = loaded.map(|loaded| loaded.snapshot).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.time));
        let mut trees = Vec::new();
        let mut met = Vec::new();
        for record in records {
            let group = (record.host, record.paths);
            if !met.contains(&group) && trees.len() < MAX_SNAPSHOTS {
                met.push(group);
                trees.push(record.tree);
            }
        }
        trees
    }

    fn look_through(
        &self,
        trees: Vec<BlobId>,
        found: &mut Vec<Relative>,
    ) -> crate::error::Result<()> {
        let mut entries = 0;
        for tree in trees {
            let view = View::of_tree(self.repo, tree)?;
            let mut open = vec![tree];
            while let Some(dir) = open.pop() {
                for entry in view.entries(dir) {
                    let entry = entry?;
                    entries += 1;
                    if entries > MAX_ENTRIES || found.len() >= MAX_FILES || self.is_over() {
                        return Ok(());
                    }
                    match entry.body {
                        Body::Dir(below) => open.push(below),
                        _ => found.extend(Relative::of(&entry)),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Relative {
    /// A file that is large enough.
    fn of(entry: &TreeEntry) -> Option<Self> {
        let (content, size) = file(entry)?;
        (size >= MIN_FILE).then(|| Self {
            content: content.clone(),
            size,
            ancestor: OnceLock::new(),
        })
    }
}

fn file(entry: &TreeEntry) -> Option<(&Content, u64)> {
    match (&entry.body, &entry.node.kind) {
        (Body::File(content), NodeKind::File { size }) => Some((content, *size)),
        _ => None,
    }
}
