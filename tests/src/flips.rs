//! Damage to every place of a small repository: each bit flipped, each object cut, extended,
//! exchanged with another of its kind, removed. Whatever it is, a check names the object, and a
//! restore gives what was saved or an error.
//!
//! What may be lost without a word is named here, in [`is_spare`]: signs of life, log segments and
//! keyrings that the log no longer names. Damage to the latter two is noticed all the same.

mod make;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use strongroom_core::{
    check::{CheckReport, Finding, What, check},
    format::{
        extents::Extent,
        tree::{Body, TreeEntry},
    },
    observer::Silent,
    reachable::load_record,
    restore::{RestoreOptions, restore},
    view::{Event, View},
};
use strongroom_repo::{
    backend::{Backend as _, MemBackend, ObjectKind, ObjectName, testing::Damage},
    check::{CheckOptions, Problem, ReadData, Severity},
    env::testing::seeded,
    id::{BlobId, SnapshotId},
    keys::OpenedSlot,
    repository::{OpenOptions, Repository, Secret, Wanted},
};

/// What a snapshot holds: entries by path, with the bytes of files.
pub type Tree = BTreeMap<Vec<u8>, (TreeEntry, Vec<u8>)>;

/// A repository to be damaged.
pub struct Sample {
    /// Its objects, as they should be.
    pub objects: MemBackend,
    me: OpenedSlot,
    trees: BTreeMap<SnapshotId, Tree>,
    /// What all the files consist of.
    blobs: BTreeMap<BlobId, Vec<u8>>,
}

/// Why damage is not acceptable as it was met.
pub type Complaint = String;

/// Any failure while the sample is made.
type Failure = Box<dyn std::error::Error>;

impl Sample {
    fn of(store: MemBackend, repo: &Repository, me: OpenedSlot) -> Result<Self, Failure> {
        let (mut trees, mut blobs) = (BTreeMap::new(), BTreeMap::new());
        for id in repo.snapshots().into_keys() {
            trees.insert(id, read(repo, id, &mut blobs)?);
        }
        Ok(Self {
            objects: store,
            me,
            trees,
            blobs,
        })
    }

    /// How many copies of blobs are stored as differences.
    ///
    /// # Errors
    /// The repository or its index cannot be read.
    pub fn deltas(&self) -> Result<usize, Failure> {
        let repo = self.open(&self.objects)?;
        let index = repo.index();
        let mut deltas = 0;
        for blob in self.blobs.keys() {
            let copies = index.copies(blob)?;
            deltas += copies
                .iter()
                .filter(|copy| copy.entry.base.is_some())
                .count();
        }
        Ok(deltas)
    }

    /// Bytes of all objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects
            .objects()
            .values()
            .map(|bytes| bytes.len())
            .sum()
    }

    /// Whether there are none, which there are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the objects, to be damaged.
    #[must_use]
    pub fn copy(&self) -> MemBackend {
        MemBackend::with_objects("damaged", self.objects.objects())
    }

    /// Opens a store as a client that has nothing but its key.
    fn open(&self, store: &MemBackend) -> Result<Repository, strongroom_repo::error::Error> {
        self.open_with(store, OpenOptions::default())
    }

    fn open_with(
        &self,
        store: &MemBackend,
        options: OpenOptions,
    ) -> Result<Repository, strongroom_repo::error::Error> {
        let secret = Secret::Opened(Box::new(self.me.clone()));
        Repository::open(Arc::new(store.clone()), seeded(77), secret, options)
    }

    /// Removes a snapshot, as a client that has nothing but its key.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub fn append_to(&self, store: &MemBackend) -> Result<(), Complaint> {
        let repo = self.open(store).map_err(|error| said(&error))?;
        let ids: Vec<SnapshotId> = self.trees.keys().copied().collect();
        repo.remove_snapshots(&ids).map_err(|error| said(&error))
    }

    /// Opens a store as a client that keeps its memory in a folder.
    ///
    /// # Errors
    /// What is in the way.
    pub fn look(&self, store: &MemBackend, folder: &Path) -> Result<(), Complaint> {
        let options = OpenOptions {
            state_dir: Some(folder.to_path_buf()),
            ..OpenOptions::default()
        };
        let opened = self.open_with(store, options);
        opened.map(|_| ()).map_err(|error| said(&error))
    }

    /// Restores everything as a client that keeps its caches in a folder.
    ///
    /// # Errors
    /// What is in the way.
    pub fn restore_with_cache(&self, store: &MemBackend, folder: &Path) -> Result<(), Complaint> {
        let options = OpenOptions {
            cache_dir: Some(folder.to_path_buf()),
            ..OpenOptions::default()
        };
        let repo = self.open_with(store, options);
        let repo = repo.map_err(|error| said(&error))?;
        for (id, tree) in &self.trees {
            let found = read(&repo, *id, &mut BTreeMap::new()).map_err(|error| said(&error))?;
            if found != *tree {
                return Err(format!("snapshot {id} restores something else"));
            }
        }
        Ok(())
    }

    /// Looks at a store in which `damaged` are not as they should be: each is named, and no
    /// snapshot restores anything else than what was saved. Where nothing is damaged, all of it is
    /// restored, and there is nothing to be told.
    ///
    /// # Errors
    /// What is wrong with that.
    pub fn judge(&self, store: &MemBackend, damaged: &[ObjectName]) -> Result<(), Complaint> {
        let repo = match self.open(store) {
            Ok(repo) => repo,
            Err(error) => {
                let said = said(&error);
                return if damaged.iter().any(|name| names(&said, name)) {
                    Ok(())
                } else {
                    Err(format!("opening names something else: {said}"))
                };
            }
        };
        let is_whole = damaged.is_empty();
        let live = repo.snapshots();
        if is_whole && !live.keys().eq(self.trees.keys()) {
            return Err("there are other snapshots".to_owned());
        }
        for id in live.into_keys() {
            match read(&repo, id, &mut BTreeMap::new()) {
                Ok(found) if self.trees.get(&id) == Some(&found) => {}
                Ok(_) => return Err(format!("snapshot {id} reads as something else")),
                Err(error) if is_whole => return Err(said(&error)),
                Err(_) => {}
            }
            // What else is damaged is met alike by a restore and by what has just been read.
            if is_whole || damaged.iter().any(|name| name.kind() == ObjectKind::Pack) {
                self.judge_restored(&repo, id, is_whole)?;
            }
        }
        self.judge_blobs(&repo, is_whole)?;
        let options = CheckOptions {
            read_data: ReadData::All,
            workers: 1,
        };
        let report = match check(&repo, options, &(), &AtomicBool::new(false)) {
            Ok(report) => report,
            Err(error) => return Err(format!("check fails: {}", said(&error))),
        };
        let told = report.findings.iter().find(|finding| !is_usual(finding));
        if let Some(finding) = told.filter(|_| is_whole) {
            return Err(format!("check finds something: {}", finding.what));
        }
        for name in damaged {
            if !self.is_told(&report, name) {
                let told: Vec<String> = report
                    .findings
                    .iter()
                    .map(|finding| finding.what.to_string())
                    .collect();
                return Err(format!("check does not name {name}: {told:?}"));
            }
        }
        Ok(())
    }

    /// Restores a snapshot: a file that is there then holds what was saved.
    fn judge_restored(
        &self,
        repo: &Repository,
        id: SnapshotId,
        is_whole: bool,
    ) -> Result<(), Complaint> {
        let Ok(loaded) = load_record(repo, id) else {
            return Ok(());
        };
        let target = tempfile::tempdir().map_err(|error| said(&error))?;
        let mut options = RestoreOptions::new(target.path().to_path_buf());
        options.owner = false;
        let never = AtomicBool::new(false);
        let restored = restore(repo, loaded.snapshot.tree, &options, &Silent, &never);
        let complete = restored.is_ok_and(|report| report.problems == 0);
        if is_whole && !complete {
            return Err(format!("snapshot {id} is not restored"));
        }
        let tree = self.trees.get(&id).ok_or("a snapshot of nobody")?;
        for (path, (entry, bytes)) in tree {
            let path = target.path().join(OsStr::from_bytes(path));
            match std::fs::read(path) {
                _ if !matches!(entry.body, Body::File(_)) => {}
                Ok(found) if found == *bytes => {}
                Ok(_) => return Err(format!("snapshot {id} restores something else")),
                Err(_) if complete => return Err(format!("snapshot {id} lacks a file")),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Reads all blobs at once, as a restore does.
    fn judge_blobs(&self, repo: &Repository, is_whole: bool) -> Result<(), Complaint> {
        let all: Vec<(&BlobId, &Vec<u8>)> = self.blobs.iter().collect();
        let wanted: Vec<Wanted> = (0..)
            .zip(&all)
            .map(|(tag, (id, _))| Wanted { id: **id, tag })
            .collect();
        let mut complaints = Vec::new();
        let mut failed = Vec::new();
        let mut take = |tag: u32, plain: &[u8]| {
            let saved = usize::try_from(tag).ok().and_then(|tag| all.get(tag));
            if saved.is_none_or(|(_, saved)| saved.as_slice() != plain) {
                complaints.push(format!("blob {tag} is read as something else"));
            }
            Ok::<_, strongroom_repo::error::Error>(())
        };
        let mut reader = repo.reader().map_err(|error| said(&error))?;
        let read = reader.load_many(&wanted, &mut take, &mut |_, error| {
            failed.push(said(&error));
        });
        if is_whole {
            complaints.extend(failed);
            complaints.extend(read.err().map(|error| said(&error)));
        }
        complaints.into_iter().next().map_or(Ok(()), Err)
    }

    /// As [`Sample::judge`] for one object that is damaged; false where that changes nothing.
    ///
    /// # Errors
    /// Likewise, with the damage.
    pub fn judge_one(&self, name: ObjectName, damage: Damage) -> Result<bool, Complaint> {
        let store = self.copy();
        if !strongroom_repo::backend::testing::damage(&store, &name, damage) {
            return Ok(false);
        }
        let missing = damage == Damage::Remove && is_spare(&name, self);
        let damaged: &[ObjectName] = if missing { &[] } else { &[name] };
        let judged = self.judge(&store, damaged);
        judged.map_err(|why| format!("{name} {damage}: {why}"))?;
        Ok(true)
    }

    /// As [`Sample::judge`] for two objects that are exchanged; false where they are the same.
    ///
    /// # Errors
    /// Likewise.
    pub fn judge_swap(&self, one: ObjectName, other: ObjectName) -> Result<bool, Complaint> {
        let store = self.copy();
        if !strongroom_repo::backend::testing::swap(&store, &one, &other) {
            return Ok(false);
        }
        // Where the first of two log entries stops the check, the second is not met.
        let both = [one, other];
        let damaged = if one.kind() == ObjectKind::Log {
            &both[..1]
        } else {
            &both[..]
        };
        let judged = self.judge(&store, damaged);
        judged.map_err(|why| format!("{one} and {other} exchanged: {why}"))?;
        Ok(true)
    }

    /// Whether a check tells of an object, as more than a note.
    fn is_told(&self, report: &CheckReport, name: &ObjectName) -> bool {
        let mine = self.me.identity.public().slot_id();
        let told = report.findings.iter();
        let mut told = told.filter(|finding| finding.severity > Severity::Note);
        told.any(|finding| {
            let What::Object(found) = &finding.what else {
                return false;
            };
            let said = match &found.what {
                Problem::Log(error) => said(error),
                Problem::Unreadable(error) => said(error),
                // A slot that is lost is known by its key only.
                Problem::KeyLost(slot) => return name.kind() == ObjectKind::Key && *slot == mine,
                _ => String::new(),
            };
            found.object == Some(*name) || names(&said, name)
        })
    }

    /// The objects that were not damaged give no finding, and all snapshots: how many.
    ///
    /// # Errors
    /// What is found.
    pub fn sound(&self) -> Result<usize, Complaint> {
        self.judge(&self.objects, &[])?;
        Ok(self.trees.len())
    }
}

/// Whether a finding is there without any damage: the second key was given, not stored.
fn is_usual(finding: &Finding) -> bool {
    let What::Object(found) = &finding.what else {
        return false;
    };
    matches!(found.what, Problem::KeyLost(_))
}

/// Whether an object may be lost without a word: everything it says is said elsewhere, or it says
/// nothing any more.
#[must_use]
pub fn is_spare(name: &ObjectName, sample: &Sample) -> bool {
    match name {
        ObjectName::Hint(_) | ObjectName::LogSegment(_) => true,
        // Each change of keys writes a whole new keyring.
        ObjectName::Keyring(number) => {
            let next = ObjectName::Keyring(number + 1);
            sample.objects.len(&next).is_ok()
        }
        _ => false,
    }
}

/// Whether a text names an object, by its path or, of the log, by its number.
fn names(said: &str, name: &ObjectName) -> bool {
    let number = match name {
        ObjectName::Log(seq) => format!("log entry {seq} "),
        _ => name.path(),
    };
    let path = name.path();
    format!("{said} ").contains(&number) || said.contains(&path)
}

/// An error with its causes.
fn said(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        next = cause.source();
    }
    out
}

/// Everything that a snapshot holds, and the blobs that it consists of.
fn read(
    repo: &Repository,
    id: SnapshotId,
    blobs: &mut BTreeMap<BlobId, Vec<u8>>,
) -> Result<Tree, strongroom_core::Error> {
    let loaded = load_record(repo, id)?;
    let view = View::open(repo, &loaded.snapshot)?;
    let mut tree = Tree::new();
    let mut walk = view.walk_all();
    while let Some(event) = walk.next_event() {
        let entry = match event {
            Event::Entry(entry) => entry,
            Event::Leave => continue,
            Event::Damaged(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        if let Body::File(content) = &entry.body {
            for extent in view.extents(content) {
                if let Extent::Data { id, .. } = extent? {
                    let blob = view.blob(&id)?;
                    bytes.extend_from_slice(&blob);
                    blobs.insert(id, blob.to_vec());
                }
            }
        }
        tree.insert(walk.path().as_bytes().to_vec(), (entry, bytes));
    }
    Ok(tree)
}

/// Judges many cases on all cores; returns how many of them were damage, and every complaint.
pub fn judge_all<T: Sync>(
    cases: &[T],
    judge: &(dyn Fn(&T) -> Result<bool, Complaint> + Sync),
) -> (usize, Vec<Complaint>) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let count = AtomicUsize::new(0);
    let complaints = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match judge(case) {
                        Ok(real) => count.fetch_add(usize::from(real), Ordering::Relaxed),
                        Err(complaint) => {
                            let mut all = complaints.lock().unwrap_or_else(PoisonError::into_inner);
                            all.push(complaint);
                            count.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            });
        }
    });
    let complaints = complaints.into_inner();
    (
        count.into_inner(),
        complaints.unwrap_or_else(PoisonError::into_inner),
    )
}
