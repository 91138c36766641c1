//! Check as people mean it: what the repository finds of its objects, then all trees of all live
//! snapshots, and for everything that is lost which snapshots and paths that concerns. Changes
//! nothing.

mod excuse;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use strongroom_repo::{
    backend::ObjectName,
    check::{
        CheckOptions, CheckProgress, CheckReport as ObjectReport, Finding as ObjectFinding,
        Severity,
    },
    error::Error as RepoError,
    id::{BlobId, PackId, SnapshotId},
    repository::{BlobReader, Repository},
};

use crate::{
    error::{Error, Result},
    format::{
        extents::{self, Content, Extent},
        tree::{Body, TreeEntry, TreePage},
    },
    reachable::{Reachable, Root, TreeFault, TreeProblem, Visitor, load_record, walk},
};

/// Most problems of trees that are told one by one.
const MAX_TOLD: usize = 10_000;
/// Most paths named for one finding.
const MAX_PATHS: usize = 100;

/// Snapshots and paths that something concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// The snapshots, all of them.
    pub snapshots: BTreeSet<SnapshotId>,
    /// Paths, the first hundred.
    pub paths: BTreeSet<(SnapshotId, Vec<u8>)>,
    /// How many more paths there are.
    pub more: u64,
}

impl Affected {
    fn add(&mut self, snapshot: SnapshotId, path: &[u8]) {
        self.snapshots.insert(snapshot);
        let path = (snapshot, path.to_vec());
        if self.paths.len() < MAX_PATHS {
            self.paths.insert(path);
        } else if !self.paths.contains(&path) {
            self.more += 1;
        }
    }

    /// Forgets the snapshots that are gone; true where these were all.
    fn retain(&mut self, live: impl Fn(&SnapshotId) -> bool) -> bool {
        let before = self.snapshots.len();
        self.snapshots.retain(&live);
        self.paths.retain(|(snapshot, _)| live(snapshot));
        before > 0 && self.snapshots.is_empty()
    }

    fn merge(&mut self, other: &Self) {
        self.more += other.more;
        for (snapshot, path) in &other.paths {
            self.add(*snapshot, path);
        }
        self.snapshots.extend(&other.snapshots);
    }
}

/// Something that a check found.
#[derive(Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub what: What,
    /// Whom it concerns; nobody where another copy is good.
    pub affected: Affected,
}

/// What a check can find.
#[derive(Debug)]
pub enum What {
    /// Something about an object.
    Object(ObjectFinding),
    /// Something about a tree.
    Tree(TreeFault),
    /// A snapshot's record cannot be read.
    Snapshot(Error),
    /// A blob that has copies, all of them bad.
    Lost(BlobId),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(finding) => finding.fmt(f),
            Self::Tree(fault) => fault.fmt(f),
            Self::Snapshot(error) => error.fmt(f),
            Self::Lost(blob) => write!(f, "blob {blob} lies in damaged packs only"),
        }
    }
}

/// What a check found, and how much it looked at.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Everything found.
    pub findings: Vec<Finding>,
    /// Problems of trees beyond those told one by one.
    pub untold: u64,
    /// What was looked at below the trees; its findings have moved into `findings`.
    pub objects: ObjectReport,
    /// Live snapshots.
    pub snapshots: u64,
    /// Blobs that they reach.
    pub reachable: u64,
}

impl CheckReport {
    /// Number of findings of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let same = |finding: &&Finding| finding.severity == severity;
        self.findings.iter().filter(same).count()
    }

    /// Whether something is lost or cannot be read.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.untold > 0 || self.count(Severity::Error) > 0
    }
}

/// Collects what the walk meets.
#[derive(Default)]
struct Problems(Mutex<(Vec<TreeProblem>, u64)>);

impl Visitor for Problems {
    fn problem(&self, problem: TreeProblem) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0.len() < MAX_TOLD {
            held.0.push(problem);
        } else {
            held.1 += 1;
        }
    }

    fn checks(&self) -> bool {
        true
    }
}

/// Checks the repository and all trees.
///
/// # Errors
/// The store or the local index failed, or [`Error::Cancelled`]; damage is a finding.
pub fn check(
    repo: &Repository,
    options: CheckOptions,
    progress: &dyn CheckProgress,
    cancel: &AtomicBool,
) -> Result<CheckReport> {
    let mut report = CheckReport {
        objects: repo.check(options, progress, cancel)?,
        ..CheckReport::default()
    };
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    let roots = roots(repo, &mut report);
    let reachable = Reachable::new();
    let problems = Problems::default();
    walk(repo, &roots, options.workers, &reachable, &problems, cancel)?;
    report.reachable = u64::try_from(reachable.len()).unwrap_or(u64::MAX);
    let (problems, untold) = problems
        .0
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    report.untold = untold;
    let mut lost = lost_blobs(repo, &report.objects, &reachable)?;
    let undecodable: Vec<BlobId> = lost.iter().copied().collect();
    lost.extend(problems.iter().filter_map(|problem| match problem.what {
        TreeFault::Page { blob, .. } | TreeFault::Missing { blob } => Some(blob),
        _ => None,
    }));
    let affected = Tracer::new(repo, &lost)?.trace(&roots, cancel)?;
    report.tell(repo, &affected, problems, undecodable)?;
    report.excuse(repo);
    Ok(report)
}

/// The trees of all live snapshots whose records can be read.
fn roots(repo: &Repository, report: &mut CheckReport) -> Vec<Root> {
    let mut roots = Vec::new();
    for id in repo.snapshots().into_keys() {
        report.snapshots += 1;
        match load_record(repo, id) {
            Ok(loaded) => roots.push(loaded.root()),
            // The repository has told of those that cannot be read at all.
            Err(Error::Repo(_)) => {}
            Err(error) => report.findings.push(Finding {
                severity: Severity::Error,
                what: What::Snapshot(error),
                affected: Affected {
                    snapshots: BTreeSet::from([id]),
                    ..Affected::default()
                },
            }),
        }
    }
    roots
}

/// The reachable blobs that have copies, but only bad ones.
fn lost_blobs(
    repo: &Repository,
    objects: &ObjectReport,
    reachable: &Reachable,
) -> Result<HashSet<BlobId>> {
    let attested = repo.state().bad;
    let mut lost = HashSet::new();
    if !objects.has_bad_copies() && attested.is_empty() {
        return Ok(lost);
    }
    let index = repo.index();
    let mut failure = None;
    reachable.for_each(&mut |blob, _| {
        let has_copies = index.contains(blob).map_err(RepoError::from);
        let bad = has_copies.and_then(|has_copies| {
            Ok(has_copies && !objects.is_decodable(&index, &attested, blob)?)
        });
        match bad {
            Ok(true) => {
                lost.insert(*blob);
            }
            Ok(false) => {}
            Err(error) => failure = Some(error),
        }
    });
    failure.map_or(Ok(lost), |error| Err(error.into()))
}

impl CheckReport {
    /// Puts the findings together with whom they concern.
    fn tell(
        &mut self,
        repo: &Repository,
        affected: &BTreeMap<BlobId, Affected>,
        problems: Vec<TreeProblem>,
        undecodable: Vec<BlobId>,
    ) -> Result<()> {
        let index = repo.index();
        let mut by_pack: HashMap<PackId, Affected> = HashMap::new();
        let mut explained = HashSet::new();
        for (blob, concerned) in affected {
            for copy in index.copies(blob).map_err(RepoError::from)? {
                let Some(pack) = index.pack(copy.pack) else {
                    continue;
                };
                if self.objects.is_bad(&pack.id, blob) {
                    by_pack.entry(pack.id).or_default().merge(concerned);
                    explained.insert(*blob);
                }
            }
        }
        let mut findings = Vec::new();
        for finding in std::mem::take(&mut self.objects.findings) {
            let affected = match finding.object {
                Some(ObjectName::Pack(pack)) => by_pack.get(&pack).cloned().unwrap_or_default(),
                Some(ObjectName::Snapshot(id)) => Affected {
                    snapshots: BTreeSet::from([id]),
                    ..Affected::default()
                },
                _ => Affected::default(),
            };
            findings.push(Finding {
                severity: finding.severity,
                what: What::Object(finding),
                affected,
            });
        }
        for TreeProblem {
            snapshot,
            path,
            what,
        } in problems
        {
            let mut concerned = what
                .blob()
                .and_then(|blob| affected.get(&blob).cloned())
                .unwrap_or_default();
            concerned.add(snapshot, &path);
            findings.push(Finding {
                severity: Severity::Error,
                what: What::Tree(what),
                affected: concerned,
            });
        }
        for blob in undecodable {
            if !explained.contains(&blob) {
                findings.push(Finding {
                    severity: Severity::Error,
                    what: What::Lost(blob),
                    affected: affected.get(&blob).cloned().unwrap_or_default(),
                });
            }
        }
        findings.append(&mut self.findings);
        self.findings = findings;
        Ok(())
    }
}

/// Finds out which snapshots and paths need lost blobs. A directory under which nothing is lost is
/// read once; one under which something is, once for each snapshot and path that has it.
struct Tracer<'a> {
    reader: BlobReader<'a>,
    lost: &'a HashSet<BlobId>,
    clean: HashSet<BlobId>,
    affected: BTreeMap<BlobId, Affected>,
}

/// A directory on the way.
struct Frame {
    tree: BlobId,
    entries: std::vec::IntoIter<TreeEntry>,
    path: Vec<u8>,
    dirty: bool,
}

impl<'a> Tracer<'a> {
    fn new(repo: &'a Repository, lost: &'a HashSet<BlobId>) -> Result<Self> {
        Ok(Self {
            reader: repo.reader()?,
            lost,
            clean: HashSet::new(),
            affected: BTreeMap::new(),
        })
    }

    fn trace(mut self, roots: &[Root], cancel: &AtomicBool) -> Result<BTreeMap<BlobId, Affected>> {
        if self.lost.is_empty() {
            return Ok(self.affected);
        }
        for root in roots {
            let mut stack = Vec::new();
            stack.extend(self.enter(*root, root.tree, Vec::new()));
            while let Some(frame) = stack.last_mut() {
                if cancel.load(Ordering::Relaxed) {
                    return Err(Error::Cancelled);
                }
                let Some(entry) = frame.entries.next() else {
                    let done = stack.pop();
                    if let Some(done) = done {
                        if !done.dirty {
                            self.clean.insert(done.tree);
                        } else if let Some(above) = stack.last_mut() {
                            above.dirty = true;
                        }
                    }
                    continue;
                };
                let mut path = frame.path.clone();
                path.push(b'/');
                path.extend_from_slice(&entry.node.name);
                match &entry.body {
                    Body::Dir(tree) => stack.extend(self.enter(*root, *tree, path)),
                    Body::File(content) => {
                        frame.dirty |= self.file(*root, content, &path);
                    }
                    Body::None => {}
                }
            }
        }
        Ok(self.affected)
    }

    /// Reads a directory, unless nothing is lost below it.
    fn enter(&mut self, root: Root, tree: BlobId, path: Vec<u8>) -> Option<Frame> {
        if self.clean.contains(&tree) {
            return None;
        }
        let mut pages = vec![tree];
        let (mut entries, mut dirty) = (Vec::new(), false);
        while let Some(page) = pages.pop() {
            if self.hit(root, &page, if path.is_empty() { b"/" } else { &path }) {
                dirty = true;
                continue;
            }
            let plain = self.reader.load(&page);
            match plain.ok().and_then(|plain| TreePage::decode(&plain).ok()) {
                Some(TreePage::Leaf(more)) => entries.extend(more),
                Some(TreePage::Inner(children)) => {
                    pages.extend(children.iter().map(|child| child.id));
                }
                // Told by the walk; whatever is below cannot be known.
                None => dirty = true,
            }
        }
        Some(Frame {
            tree,
            entries: entries.into_iter(),
            path,
            dirty,
        })
    }

    /// Whether a file needs something that is lost.
    fn file(&mut self, root: Root, content: &Content, path: &[u8]) -> bool {
        let (mut pages, top) = match content {
            Content::Inline(list) => return self.data(root, list, path),
            Content::List { root: top, .. } if self.clean.contains(top) => return false,
            Content::List { root: top, .. } => (vec![*top], *top),
        };
        let mut dirty = false;
        while let Some(page) = pages.pop() {
            if self.hit(root, &page, path) {
                dirty = true;
                continue;
            }
            let plain = self.reader.load(&page);
            match plain
                .ok()
                .and_then(|plain| extents::Page::decode(&plain).ok())
            {
                Some(extents::Page::Leaf(list)) => dirty |= self.data(root, &list, path),
                Some(extents::Page::Inner(children)) => {
                    pages.extend(children.iter().map(|child| child.id));
                }
                None => dirty = true,
            }
        }
        if !dirty {
            self.clean.insert(top);
        }
        dirty
    }

    fn data(&mut self, root: Root, list: &[Extent], path: &[u8]) -> bool {
        let mut dirty = false;
        for extent in list {
            if let Extent::Data { id, .. } = extent {
                dirty |= self.hit(root, id, path);
            }
        }
        dirty
    }

    fn hit(&mut self, root: Root, blob: &BlobId, path: &[u8]) -> bool {
        let lost = self.lost.contains(blob);
        if lost {
            let affected = self.affected.entry(*blob).or_default();
            affected.add(root.snapshot, path);
        }
        lost
    }
}

#[cfg(test)]
mod tests;
