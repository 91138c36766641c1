//! The files that are saved, generation by generation, and the acts of a user: open, save,
//! restore, check, prune. Keys, salts and clocks follow from a number, which is never the same
//! for two processes: that two runs draw the same salt is not what is tested here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use strongroom_core::{
    archive::{About, BackupOptions, backup},
    check::{CheckReport, What, check},
    error::Error,
    observer::{Observer, Recorder},
    prune::prune,
    restore::{RestoreOptions, restore},
    snapshots::{LoadedSnapshot, load_all},
};
use strongroom_repo::{
    backend::Backend,
    check::{CheckOptions, ReadData, Severity, Verdict},
    crypto::KdfParams,
    env::{Env, Timestamp, testing},
    error::Error as RepoError,
    format::config::ConfigBody,
    id::SnapshotId,
    keys::OpenedSlot,
    prune::{PruneOptions, PruneReport},
    repository::{CreateOptions, OpenOptions, Repository, Secret},
    writer::WriterOptions,
};
use tempfile::TempDir;

use super::files::{Tree, files, read};
use crate::golden::noise;

/// The first password.
pub const PASSWORD: &[u8] = b"first";

/// How a repository is opened.
#[derive(Clone)]
pub enum Door {
    /// By a key that was opened before, since deriving one costs time on purpose.
    Opened(Box<OpenedSlot>),
    /// By the password.
    Password(&'static [u8]),
}

impl Door {
    fn secret(&self) -> Secret {
        match self {
            Self::Opened(slot) => Secret::Opened(slot.clone()),
            Self::Password(password) => Secret::Password(password.to_vec()),
        }
    }
}

/// Which files are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// The first.
    One,
    /// Some of it changed.
    Two,
    /// Large enough that index and snapshot stand in objects of their own.
    Wide,
    /// What is saved after a crash: parts of the others, and something new.
    Next,
}

impl Generation {
    const ALL: [Self; 4] = [Self::One, Self::Two, Self::Wide, Self::Next];

    const fn tag(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Wide => "wide",
            Self::Next => "next",
        }
    }

    fn of(snapshot: &LoadedSnapshot) -> Option<Self> {
        let is = |generation: &Self| {
            snapshot
                .record
                .tags
                .iter()
                .any(|tag| tag == generation.tag())
        };
        Self::ALL.into_iter().find(is)
    }
}

/// The files, and a place for what is restored.
pub struct World {
    folder: TempDir,
    trees: BTreeMap<Generation, Tree>,
    processes: AtomicU64,
    /// Whether chunks are so large that some are stored as differences.
    large: bool,
    /// Which passwords open which sets of keys.
    passwords: Mutex<BTreeMap<(KeySet, Vec<u8>), bool>>,
}

/// Stands for the keys of a store and what the log says of them.
pub(super) type KeySet = [u8; 32];

impl World {
    /// Writes the files of all generations; `seed` tells worlds apart.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::of_chunks(seed, false)
    }

    /// The same with chunks so large that of one file each generation is stored as a difference
    /// from the first.
    #[must_use]
    pub fn with_differences(seed: u64) -> Self {
        Self::of_chunks(seed, true)
    }

    fn of_chunks(seed: u64, large: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut trees = BTreeMap::new();
        for (nth, generation) in Generation::ALL.into_iter().enumerate() {
            let dir = folder.path().join(generation.tag());
            fs::create_dir_all(dir.join("deep/er")).unwrap();
            for (name, bytes) in files(generation) {
                fs::write(dir.join(name), bytes).unwrap();
            }
            if large {
                // Of another length each time: they are written in the same tick of the clock, and
                // the times alone would not tell one from the other.
                let mut family = noise("family", 40_000);
                family.truncate(39_000 + nth);
                family[..60].copy_from_slice(&noise(generation.tag(), 60));
                fs::write(dir.join("family"), family).unwrap();
            }
            std::os::unix::fs::symlink("deep/er", dir.join("link")).unwrap();
            trees.insert(generation, read(&dir));
        }
        Self {
            folder,
            trees,
            processes: AtomicU64::new(seed << 32),
            large,
            passwords: Mutex::default(),
        }
    }

    fn dir(&self, generation: Generation) -> PathBuf {
        self.folder.path().join(generation.tag())
    }

    /// A process of its own; `days` after the beginning.
    fn env(&self, days: i64) -> Env {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let clock = testing::FixedClock::new(1_700_000_000 + days * 86_400);
        Env::new(clock, testing::SeededRandom::new(number), [7; 32]).unwrap()
    }

    /// Makes a repository.
    ///
    /// # Errors
    /// As [`Repository::create`].
    pub fn create(&self, store: Arc<dyn Backend>, door: &Door) -> Result<Repository, RepoError> {
        let scale = if self.large { 1024 } else { 1 };
        let options = CreateOptions {
            config: ConfigBody {
                created: Timestamp::default(),
                program: "test".to_owned(),
                chunker: 1,
                chunk_min: 64 * scale,
                chunk_avg: 256 * scale,
                chunk_max: 1024 * scale,
                pack_target: 4 << 20,
            },
            label: "owner@test".to_owned(),
            kdf: KdfParams::DEFAULT,
            open: OpenOptions::default(),
        };
        Repository::create(store, self.env(0), door.secret(), options)
    }

    /// Opens a repository, so many days after the beginning.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn open(
        &self,
        store: Arc<dyn Backend>,
        door: &Door,
        days: i64,
    ) -> Result<Repository, RepoError> {
        Repository::open(store, self.env(days), door.secret(), OpenOptions::default())
    }

    /// Saves a generation.
    ///
    /// # Errors
    /// As [`backup`].
    pub fn save(&self, repo: &Repository, generation: Generation) -> Result<SnapshotId, Error> {
        let heard = Recorder::default();
        let never = AtomicBool::new(false);
        let report = backup(repo, &self.options(repo, generation), &heard, &never)?;
        assert_eq!(heard.problems(), Vec::<String>::new());
        Ok(report.snapshot.unwrap())
    }

    /// Begins to save a generation and is stopped after so many files.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or as [`backup`].
    pub fn save_stopped(
        &self,
        repo: &Repository,
        generation: Generation,
        files: u64,
    ) -> Result<(), Error> {
        let stop = Stop {
            left: AtomicU64::new(files),
            cancel: AtomicBool::new(false),
        };
        let options = self.options(repo, generation);
        backup(repo, &options, &stop, &stop.cancel).map(|_| ())
    }

    fn options(&self, repo: &Repository, generation: Generation) -> BackupOptions {
        let parent = load_all(repo).snapshots.pop();
        let wide = generation == Generation::Wide;
        // Excludes that make the snapshot's record too large to stand in a log entry.
        let excludes = (0..if wide { 2200 } else { 0 })
            .map(|n| crate::golden::hash(format!("{n}").as_bytes()))
            .collect();
        BackupOptions {
            parent: parent.map(|loaded| (loaded.id, loaded.record)),
            about: About {
                tags: vec![generation.tag().to_owned()],
                excludes,
                ..About::default()
            },
            writer: WriterOptions {
                pack_target: if wide { 128 << 10 } else { 8 << 10 },
                ..WriterOptions::default()
            },
            workers: 2,
            checkpoint: if wide { u64::MAX } else { 8 << 10 },
            ..BackupOptions::new(self.dir(generation))
        }
    }

    /// Restores a snapshot and compares every byte.
    ///
    /// # Errors
    /// What differs, or what failed.
    pub fn compare(&self, repo: &Repository, snapshot: &LoadedSnapshot) -> Result<(), String> {
        let target = self.target();
        let heard = Recorder::default();
        let never = AtomicBool::new(false);
        let mut options = RestoreOptions::new(target.path().to_owned());
        options.owner = false;
        restore(repo, snapshot.record.tree, &options, &heard, &never)
            .map_err(|error| format!("restore: {}", story(&error)))?;
        let problems = heard.problems();
        if !problems.is_empty() {
            return Err(format!("restore: {problems:?}"));
        }
        self.compare_with(snapshot, target.path())
    }

    /// A folder to restore into.
    pub(super) fn target(&self) -> TempDir {
        tempfile::tempdir_in(self.folder.path()).unwrap()
    }

    /// Compares what was restored.
    pub(super) fn compare_with(
        &self,
        snapshot: &LoadedSnapshot,
        target: &Path,
    ) -> Result<(), String> {
        let id = snapshot.id.short();
        let generation =
            Generation::of(snapshot).ok_or_else(|| format!("nobody has saved snapshot {id}"))?;
        let restored = read(target);
        let wanted = &self.trees[&generation];
        if restored == *wanted {
            return Ok(());
        }
        let differ = |path: &&PathBuf| restored.get(*path) != wanted.get(*path);
        let paths: Vec<_> = wanted
            .keys()
            .chain(restored.keys())
            .filter(differ)
            .collect();
        Err(format!(
            "{generation:?} is restored with other bytes in {paths:?}"
        ))
    }

    /// Compares all live snapshots.
    ///
    /// # Errors
    /// As [`World::compare`].
    pub fn compare_all(&self, repo: &Repository) -> Result<(), String> {
        let loaded = load_all(repo);
        if let Some((id, error)) = loaded.damaged.first() {
            return Err(format!("snapshot {}: {}", id.short(), story(error)));
        }
        loaded
            .snapshots
            .iter()
            .try_for_each(|snapshot| self.compare(repo, snapshot))
    }

    /// Checks the repository, with all its data: findings that are less than errors are in the
    /// report.
    ///
    /// # Errors
    /// What was found, or what failed.
    pub fn check(&self, repo: &Repository) -> Result<CheckReport, String> {
        self.check_for(repo, Severity::Error)
    }

    /// The same, and there may be no warnings either.
    ///
    /// # Errors
    /// Likewise.
    pub fn check_well(&self, repo: &Repository) -> Result<CheckReport, String> {
        self.check_for(repo, Severity::Warning)
    }

    fn check_for(&self, repo: &Repository, severity: Severity) -> Result<CheckReport, String> {
        let options = CheckOptions {
            read_data: ReadData::All,
            workers: 1,
        };
        let never = AtomicBool::new(false);
        let report = check(repo, options, &(), &never)
            .map_err(|error| format!("check: {}", story(&error)))?;
        let errors: Vec<String> = report
            .findings
            .iter()
            .filter(|finding| finding.severity >= severity)
            .map(|finding| match &finding.what {
                What::Object(found) => format!("{found} ({})", story(&found.what)),
                what => what.to_string(),
            })
            .collect();
        if errors.is_empty() {
            Ok(report)
        } else {
            Err(format!("check: {errors:?}"))
        }
    }

    /// Records of all packs with several blobs that the first is damaged, whatever it is; then
    /// saves anew what lies there and still exists, and prunes, which copies the rest out of packs
    /// of which that was all.
    ///
    /// # Errors
    /// What failed.
    pub fn mend(
        &self,
        repo: &Repository,
        saved: Generation,
    ) -> Result<(SnapshotId, PruneReport), Error> {
        let verdict = Verdict::Segments {
            bad: BTreeSet::from([0]),
            unproved: BTreeSet::new(),
        };
        let index = repo.index();
        let packs = index.packs().filter(|pack| pack.blobs > 1);
        let verdicts = packs.map(|pack| (pack.id, verdict.clone())).collect();
        repo.record_verdicts(&verdicts)?;
        let id = self.save(repo, saved)?;
        Ok((id, self.prune(repo)?))
    }

    /// How many copies of blobs are stored as differences.
    #[must_use]
    pub fn differences(&self, repo: &Repository) -> usize {
        let index = repo.index();
        let packs = index.packs();
        let blobs = packs.flat_map(|pack| index.entries_of(pack.number).unwrap());
        blobs.filter(|entry| entry.base.is_some()).count()
    }

    /// Prunes.
    ///
    /// # Errors
    /// As [`prune`].
    pub fn prune(&self, repo: &Repository) -> Result<PruneReport, Error> {
        let never = AtomicBool::new(false);
        prune(repo, PruneOptions::default(), 1, &(), &never)
    }

    pub(super) fn remembered(&self, keys: KeySet, password: &[u8]) -> Option<bool> {
        let known = self
            .passwords
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.get(&(keys, password.to_vec())).copied()
    }

    pub(super) fn remember(&self, keys: KeySet, password: &[u8], opens: bool) {
        let mut known = self
            .passwords
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.insert((keys, password.to_vec()), opens);
    }
}

/// Stops a run after some files.
struct Stop {
    left: AtomicU64,
    cancel: AtomicBool,
}

impl Observer for Stop {
    fn started(&self, _path: &[u8]) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

/// An error and its causes.
pub fn story(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<_> = chain.map(ToString::to_string).collect();
    words.join(": ")
}
