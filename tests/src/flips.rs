//! Damage to every place of a small repository: each bit flipped, each object cut, extended,
//! exchanged with another of its kind, removed. Whatever it is, a check names the object, and a
//! restore gives what was saved or an error.
//!
//! What may be lost without a word is named here, in [`is_spare`]: signs of life, log segments and
//! keyrings that the log no longer names. Damage to the latter two is noticed all the same.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use strongroom_core::{
    archive::{BackupOptions, backup},
    check::{CheckReport, What, check},
    format::{
        extents::Extent,
        tree::{Body, TreeEntry},
    },
    observer::Silent,
    prune::prune,
    reachable::load_record,
    view::{Event, View},
};
use strongroom_repo::{
    backend::{Backend as _, MemBackend, ObjectKind, ObjectName, testing::Damage},
    check::{CheckOptions, Problem, ReadData},
    codec::Hint,
    crypto::{BlobKind, Identity, KdfParams},
    env::testing::seeded,
    format::{
        frame::{self, FrameKind},
        slot::Role,
    },
    id::{SlotObjectId, SnapshotId},
    keys::{OpenedSlot, SlotLabel, make_slot},
    prune::PruneOptions,
    repository::{OpenOptions, Repository, Secret, testing},
    writer::WriterOptions,
};

use crate::golden::{noise, text};

/// What a snapshot holds: entries by path, with the bytes of files.
pub type Tree = BTreeMap<Vec<u8>, (TreeEntry, Vec<u8>)>;

/// A repository to be damaged.
pub struct Sample {
    /// Its objects, as they should be.
    pub objects: MemBackend,
    me: OpenedSlot,
    trees: BTreeMap<SnapshotId, Tree>,
}

/// Why damage is not acceptable as it was met.
pub type Complaint = String;

/// Any failure while the sample is made.
type Failure = Box<dyn std::error::Error>;

impl Sample {
    /// A repository of one snapshot, for what is done to every byte.
    ///
    /// # Errors
    /// It could not be made.
    pub fn tiny() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let (store, repo, me) = create()?;
        std::fs::write(root.join("noise"), noise("noise", 300))?;
        std::fs::write(root.join("text"), text(400))?;
        save(&repo, root)?;
        leave_over(&repo)?;
        Self::of(store, &repo, me)
    }

    /// A repository of every kind of object and of entry, in less than 64 KiB.
    ///
    /// # Errors
    /// It could not be made.
    pub fn small() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let (store, repo, me) = create()?;
        std::fs::create_dir(root.join("dir"))?;
        std::fs::write(root.join("noise"), noise("noise", 900))?;
        std::fs::write(root.join("dir/text"), text(1200))?;
        std::fs::write(root.join("dir/empty"), "")?;
        std::os::unix::fs::symlink("dir/text", root.join("link"))?;
        let first = save(&repo, root)?;
        std::fs::write(root.join("more"), noise("more", 500))?;
        save(&repo, root)?;
        repo.remove_snapshots(&[first])?;
        prune(
            &repo,
            PruneOptions::default(),
            1,
            &(),
            &AtomicBool::new(false),
        )?;
        leave_over(&repo)?;
        std::fs::write(root.join("dir/text"), text(1500))?;
        save(&repo, root)?;
        repo.add_identity(Role::Reader, &Identity::generate(&seeded(9))?)?;
        Self::of(store, &repo, me)
    }

    fn of(store: MemBackend, repo: &Repository, me: OpenedSlot) -> Result<Self, Failure> {
        let mut trees = BTreeMap::new();
        for id in repo.snapshots().into_keys() {
            trees.insert(id, read(repo, id)?);
        }
        Ok(Self {
            objects: store,
            me,
            trees,
        })
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
            let found = read(&repo, *id).map_err(|error| said(&error))?;
            if found != *tree {
                return Err(format!("snapshot {id} restores something else"));
            }
        }
        Ok(())
    }

    /// Looks at a store in which `damaged` are not as they should be: each is named, and no
    /// snapshot restores anything else than what was saved.
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
        for id in repo.snapshots().into_keys() {
            let Ok(found) = read(&repo, id) else { continue };
            if self.trees.get(&id) != Some(&found) {
                return Err(format!("snapshot {id} restores something else"));
            }
        }
        let options = CheckOptions {
            read_data: ReadData::All,
            workers: 1,
        };
        let report = match check(&repo, options, &(), &AtomicBool::new(false)) {
            Ok(report) => report,
            Err(error) => return Err(format!("check fails: {}", said(&error))),
        };
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

    /// As [`Sample::judge`] for one object that is damaged.
    ///
    /// # Errors
    /// Likewise, with the damage.
    pub fn judge_one(&self, name: ObjectName, damage: Damage) -> Result<(), Complaint> {
        let store = self.copy();
        if !strongroom_repo::backend::testing::damage(&store, &name, damage) {
            return Ok(());
        }
        let missing = damage == Damage::Remove && is_spare(&name, self);
        let damaged: &[ObjectName] = if missing { &[] } else { &[name] };
        let judged = self.judge(&store, damaged);
        judged.map_err(|why| format!("{name} {damage}: {why}"))
    }

    /// As [`Sample::judge`] for two objects that are exchanged.
    ///
    /// # Errors
    /// Likewise.
    pub fn judge_swap(&self, one: ObjectName, other: ObjectName) -> Result<(), Complaint> {
        let store = self.copy();
        if !strongroom_repo::backend::testing::swap(&store, &one, &other) {
            return Ok(());
        }
        // Where the first of two log entries stops the check, the second is not met.
        let both = [one, other];
        let damaged = if one.kind() == ObjectKind::Log {
            &both[..1]
        } else {
            &both[..]
        };
        let judged = self.judge(&store, damaged);
        judged.map_err(|why| format!("{one} and {other} exchanged: {why}"))
    }

    /// Whether a check tells of an object.
    fn is_told(&self, report: &CheckReport, name: &ObjectName) -> bool {
        let mine = self.me.identity.public().slot_id();
        report.findings.iter().any(|finding| {
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

    /// The objects that were not damaged give no finding but notes, and all snapshots.
    ///
    /// # Errors
    /// What is found.
    pub fn sound(&self) -> Result<usize, Complaint> {
        self.judge(&self.objects, &[])?;
        let repo = self.open(&self.objects).map_err(|error| said(&error))?;
        let options = CheckOptions {
            read_data: ReadData::All,
            workers: 1,
        };
        let report = check(&repo, options, &(), &AtomicBool::new(false));
        let report = report.map_err(|error| said(&error))?;
        match report.findings.iter().find(|finding| {
            !finding
                .what
                .to_string()
                .contains("its password opens nothing")
        }) {
            Some(finding) => Err(finding.what.to_string()),
            None => Ok(repo.snapshots().len()),
        }
    }
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

/// Everything that a snapshot restores.
fn read(repo: &Repository, id: SnapshotId) -> Result<Tree, strongroom_core::Error> {
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
                    bytes.extend(view.blob(&id)?);
                }
            }
        }
        tree.insert(walk.path().as_bytes().to_vec(), (entry, bytes));
    }
    Ok(tree)
}

fn create() -> Result<(MemBackend, Repository, OpenedSlot), Failure> {
    let store = MemBackend::new();
    let env = seeded(1);
    let backend = Arc::new(store.clone());
    let (repo, me) = testing::create(backend, env.clone(), testing::config())?;
    let label = SlotLabel {
        role: Role::Owner,
        label: "a@b".to_owned(),
    };
    let (key, kdf) = (&me.identity, KdfParams::DEFAULT);
    let inner = make_slot(&env, key, label, key, me.anchor, b"password", kdf)?.encode()?;
    let name = ObjectName::Key(SlotObjectId::new(*blake3::hash(&inner).as_bytes()));
    store.replace(name, frame::encode(FrameKind::Slot, &inner, &[])?);
    Ok((store, repo, me))
}

/// What an interrupted run leaves: packs in an index object of their own.
fn leave_over(repo: &Repository) -> Result<(), Failure> {
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench()?;
    writer.put(&mut bench, BlobKind::Data, Hint::Plain, b"left over")?;
    repo.keep(&writer, &mut bench)?;
    Ok(())
}

fn save(repo: &Repository, root: &Path) -> Result<SnapshotId, Failure> {
    let options = BackupOptions::new(root.to_path_buf());
    let report = backup(repo, &options, &Silent, &AtomicBool::new(false))?;
    report.snapshot.ok_or_else(|| "no snapshot".into())
}

/// Judges many cases on all cores; returns how many there were, and every complaint.
pub fn judge_all<T: Sync>(
    cases: &[T],
    judge: &(dyn Fn(&T) -> Result<(), Complaint> + Sync),
) -> (usize, Vec<Complaint>) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let complaints = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(complaint) = judge(case) {
                        let mut all = complaints.lock().unwrap_or_else(PoisonError::into_inner);
                        all.push(complaint);
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner();
    (
        cases.len(),
        complaints.unwrap_or_else(PoisonError::into_inner),
    )
}
