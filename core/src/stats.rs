//! How much snapshots hold, counted in four ways. Each tree page is read once however many
//! snapshots share it; what is held is a few numbers a page.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use strongroom_repo::{
    error::Error as RepoError,
    format::pack::BlobEntry,
    id::{BlobId, SnapshotId},
    index::Found,
    repository::{BlobReader, Repository},
};

use crate::{
    error::{Error, Result},
    format::{
        extents::{self, Content, Extent, Extents},
        tree::{Body, TreeEntry, TreePage},
    },
    node::{LinkId, NodeKind},
    reachable::{Place, Reachable, Root, TreeProblem, Visitor, add_record, load_record, walk},
};

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatsMode {
    /// What restoring each snapshot would write, added up.
    #[default]
    RestoreSize,
    /// Files that differ in content, each once.
    FilesByContents,
    /// Blobs of files that differ in content, once for each path.
    BlobsPerFile,
    /// Blobs in packs, each once, as they are stored.
    RawData,
}

/// What was counted; what a mode does not count is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Bytes: of files, or with [`StatsMode::RawData`] sealed bytes of blobs.
    pub size: u64,
    /// Entries, or files.
    pub files: u64,
    /// Blobs.
    pub blobs: u64,
    /// Plain bytes of the blobs, with [`StatsMode::RawData`].
    pub plain: u64,
    /// The same blobs by the byte of their codec, with [`StatsMode::RawData`].
    pub codecs: [CodecSum; CODECS],
    /// What the deltas among them would take besides if they were stored as their bases are.
    pub saved_by_deltas: u64,
    /// Blobs that are there only because deltas rest on them; they count in nothing else.
    pub pinned: CodecSum,
    /// Pages that could not be read, and blobs that are in no pack: the numbers lack them.
    pub problems: u64,
}

/// Bytes that stand for codecs: one more than the largest.
const CODECS: usize = 9;

/// Blobs of one sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodecSum {
    /// How many.
    pub blobs: u64,
    /// Sealed bytes.
    pub size: u64,
    /// Plain bytes.
    pub plain: u64,
}

impl CodecSum {
    fn add(&mut self, entry: &BlobEntry) {
        self.blobs += 1;
        self.size += u64::from(entry.sealed_len);
        self.plain += u64::from(entry.plain_len);
    }
}

impl Stats {
    /// How many plain bytes a stored one stands for.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn compression_ratio(&self) -> f64 {
        if self.size == 0 {
            return 1.0;
        }
        self.plain as f64 / self.size as f64
    }

    /// How much of the plain bytes is saved, in per cent.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn space_saving(&self) -> f64 {
        if self.plain == 0 {
            return 0.0;
        }
        (1.0 - self.size as f64 / self.plain as f64) * 100.0
    }
}

/// Counts.
///
/// # Errors
/// A snapshot cannot be read, the store failed, or [`Error::Cancelled`].
pub fn stats(
    repo: &Repository,
    snapshots: &BTreeSet<SnapshotId>,
    mode: StatsMode,
    workers: usize,
    cancel: &AtomicBool,
) -> Result<Stats> {
    let reachable = Reachable::new();
    let mut roots = Vec::new();
    for id in snapshots {
        let loaded = load_record(repo, *id)?;
        roots.push(loaded.root());
        if mode == StatsMode::RawData {
            add_record(&reachable, &loaded);
        }
    }
    let counter = Counter {
        mode,
        held: Mutex::default(),
    };
    walk(repo, &roots, workers, &reachable, &counter, cancel)?;
    let mut held = counter
        .held
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    held.stats.snapshots = u64::try_from(roots.len()).unwrap_or(u64::MAX);
    match mode {
        StatsMode::RestoreSize => held.add_up(&roots),
        StatsMode::RawData => held.raw_data(repo, &reachable)?,
        StatsMode::FilesByContents | StatsMode::BlobsPerFile => {}
    }
    Ok(held.stats)
}

/// What is kept of a page.
#[derive(Clone, Debug, Default)]
struct PageSum {
    size: u64,
    files: u64,
    below: Vec<BlobId>,
    links: Vec<(LinkId, u64)>,
}

/// What a directory comes to, all that is below included.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    size: u64,
    files: u64,
    has_links: bool,
}

#[derive(Default)]
struct Held {
    stats: Stats,
    pages: HashMap<BlobId, PageSum>,
    contents: HashSet<[u8; 32]>,
    /// Pairs of path and blob, hashed.
    per_path: HashSet<[u8; 16]>,
}

struct Counter {
    mode: StatsMode,
    held: Mutex<Held>,
}

impl Counter {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitor for Counter {
    fn problem(&self, _problem: TreeProblem) {
        self.held().stats.problems += 1;
    }

    fn page(&self, id: &BlobId, page: &TreePage) {
        if self.mode != StatsMode::RestoreSize {
            return;
        }
        let mut sum = PageSum::default();
        match page {
            TreePage::Inner(children) => sum.below = children.iter().map(|c| c.id).collect(),
            TreePage::Leaf(entries) => {
                for entry in entries {
                    sum.files += 1;
                    match (&entry.node.kind, &entry.body, entry.node.meta.link) {
                        (NodeKind::File { size }, _, Some(link)) => sum.links.push((link, *size)),
                        (NodeKind::File { size }, _, None) => {
                            sum.size = sum.size.saturating_add(*size);
                        }
                        (_, Body::Dir(tree), _) => sum.below.push(*tree),
                        _ => {}
                    }
                }
            }
        }
        self.held().pages.insert(*id, sum);
    }

    fn entry(&self, place: &Place, entry: &TreeEntry, reader: &mut BlobReader<'_>) -> Result<()> {
        let by_content = matches!(
            self.mode,
            StatsMode::FilesByContents | StatsMode::BlobsPerFile
        );
        let (true, Body::File(content), NodeKind::File { size }) =
            (by_content, &entry.body, &entry.node.kind)
        else {
            return Ok(());
        };
        if !self.held().contents.insert(identity(content)) {
            return Ok(());
        }
        if self.mode == StatsMode::FilesByContents {
            let stats = &mut self.held().stats;
            stats.files += 1;
            stats.size = stats.size.saturating_add(*size);
            return Ok(());
        }
        self.blobs_of(&place.path(), content, reader);
        Ok(())
    }
}

impl Counter {
    /// Counts each blob of a file once for its path.
    fn blobs_of(&self, path: &[u8], content: &Content, reader: &mut BlobReader<'_>) {
        let load = |id: &BlobId| -> Result<extents::Page> {
            let plain = reader.load(id)?;
            Ok(extents::Page::decode(&plain)?)
        };
        self.held().stats.files += 1;
        for extent in Extents::new(content, load) {
            match extent {
                Ok(Extent::Data { len, id }) => {
                    let mut hasher = blake3::Hasher::new();
                    hasher.update(id.as_bytes()).update(path);
                    let mut pair = [0; 16];
                    hasher.finalize_xof().fill(&mut pair);
                    let mut held = self.held();
                    if held.per_path.insert(pair) {
                        held.stats.blobs += 1;
                        held.stats.size = held.stats.size.saturating_add(u64::from(len));
                    }
                }
                Ok(Extent::Hole { .. } | Extent::Zero { .. }) => {}
                Err(_) => {
                    // The walk comes by the same page and counts it as a problem.
                    return;
                }
            }
        }
    }
}

/// Files of the same extents have the same content.
fn identity(content: &Content) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    match content {
        Content::List { root, .. } => {
            hasher.update(&[0]).update(root.as_bytes());
        }
        Content::Inline(extents) => {
            for extent in extents {
                match extent {
                    Extent::Data { id, .. } => hasher.update(&[1]).update(id.as_bytes()),
                    Extent::Hole { len } | Extent::Zero { len } => {
                        hasher.update(&[2]).update(&len.to_le_bytes())
                    }
                };
            }
        }
    }
    hasher.finalize().into()
}

/// What a delta takes less than a blob of its length stored as its base is.
fn saved(delta: &BlobEntry, base: &BlobEntry) -> u64 {
    let whole = u64::from(delta.plain_len) * u64::from(base.sealed_len);
    (whole / u64::from(base.plain_len.max(1))).saturating_sub(u64::from(delta.sealed_len))
}

impl Held {
    /// Adds up what each snapshot restores; names of one file within a snapshot count once.
    fn add_up(&mut self, roots: &[Root]) {
        let mut sums: HashMap<BlobId, Sum> = HashMap::new();
        for root in roots {
            let sum = self.sum_of(root.tree, &mut sums);
            self.stats.files = self.stats.files.saturating_add(sum.files);
            self.stats.size = self.stats.size.saturating_add(sum.size);
            if sum.has_links {
                let linked = self.linked_below(root.tree, &sums);
                self.stats.size = self.stats.size.saturating_add(linked);
            }
        }
    }

    /// The sum of a page, from those of the pages below it, which are made first.
    fn sum_of(&self, root: BlobId, sums: &mut HashMap<BlobId, Sum>) -> Sum {
        let mut stack = vec![(root, false)];
        while let Some((id, ready)) = stack.pop() {
            if sums.contains_key(&id) {
                continue;
            }
            // A page that could not be read counts as nothing.
            let Some(page) = self.pages.get(&id) else {
                sums.insert(id, Sum::default());
                continue;
            };
            if !ready {
                stack.push((id, true));
                stack.extend(page.below.iter().map(|below| (*below, false)));
                continue;
            }
            let mut sum = Sum {
                size: page.size,
                files: page.files,
                has_links: !page.links.is_empty(),
            };
            for below in page.below.iter().filter_map(|below| sums.get(below)) {
                sum.size = sum.size.saturating_add(below.size);
                sum.files = sum.files.saturating_add(below.files);
                sum.has_links |= below.has_links;
            }
            sums.insert(id, sum);
        }
        sums.get(&root).copied().unwrap_or_default()
    }

    /// Bytes of the files with several names below a page, each once.
    fn linked_below(&self, root: BlobId, sums: &HashMap<BlobId, Sum>) -> u64 {
        let (mut total, mut seen, mut met) = (0_u64, HashSet::new(), HashSet::new());
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            let links = sums.get(&id).is_some_and(|sum| sum.has_links);
            let Some(page) = self.pages.get(&id).filter(|_| links && met.insert(id)) else {
                continue;
            };
            for (link, size) in &page.links {
                if seen.insert((link.device, link.inode)) {
                    total = total.saturating_add(*size);
                }
            }
            stack.extend(&page.below);
        }
        total
    }

    fn raw_data(&mut self, repo: &Repository, reachable: &Reachable) -> Result<()> {
        let index = repo.index();
        let mut failure: Option<Error> = None;
        let stats = &mut self.stats;
        let mut bases = HashSet::new();
        reachable.for_each(&mut |blob, _| match index.find(blob) {
            Ok(Some(Found { entry, .. })) => {
                stats.blobs += 1;
                stats.size += u64::from(entry.sealed_len);
                stats.plain += u64::from(entry.plain_len);
                if let Some(sum) = stats.codecs.get_mut(usize::from(entry.codec)) {
                    sum.add(&entry);
                }
                let Some(base) = entry.base else { return };
                if let Ok(Some(whole)) = index.find(&base) {
                    stats.saved_by_deltas += saved(&entry, &whole.entry);
                    if !reachable.contains(&base) && bases.insert(base) {
                        stats.pinned.add(&whole.entry);
                    }
                }
            }
            Ok(None) => stats.problems += 1,
            Err(error) => failure = Some(RepoError::from(error).into()),
        });
        failure.map_or(Ok(()), Err)
    }
}
