//! Backup: the walk goes ahead and finds out what changed, workers read, cut, seal and pack, and
//! the caller's thread puts the tree together in the order of the walk. Everything between them
//! is bounded.
//!
//! ```text
//! walk (one thread) --items, in order--> assemble (the caller) --> tree blobs, snapshot
//!       \--jobs--> workers (one a core) --contents--/
//! ```

mod ancestor;
mod assemble;
mod change;
mod content;
mod databases;
mod plan;
mod promise;
mod region;
mod relatives;
mod scan;
mod stream;
mod visit;
mod work;

use std::{
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub(crate) use content::{hint, is_zero};
use relatives::Relatives;
pub use stream::{OpenStream, StreamSource, Streams, backup_streams};
use strongroom_chunker::{Chunker, ChunkerKind, ChunkerParams};
use strongroom_repo::{
    env::Timestamp,
    error::Error as RepoError,
    id::{BlobId, SnapshotId},
    repository::{NewSnapshot, Repository},
    writer::{DeltaMode, Writer, WriterOptions},
};

use crate::{
    error::{Error, Result},
    format::{
        snapshot::{Snapshot, Summary},
        tree::TreeEntry,
    },
    observer::Observer,
    source::{
        filter::{Filter, FilterRules},
        meta::{Accounts, MetadataReader},
        sqlite::DatabaseOptions,
        targets::Targets,
        walk::Walk,
    },
};

/// What to back up, and how.
pub struct BackupOptions {
    /// Files and directories as typed; relative ones are below `base`.
    pub targets: Vec<Vec<u8>>,
    /// An absolute path.
    pub base: PathBuf,
    /// What is left out.
    pub filter: FilterRules,
    /// The snapshot to compare with: its unchanged files are not read again.
    pub parent: Option<(SnapshotId, Snapshot)>,
    /// What files of tensors without a predecessor may descend from; where there is none, the
    /// newest snapshots are looked through. A single file here is what every file without a
    /// predecessor descends from.
    pub bases: Vec<BaseTree>,
    /// What the snapshot says of itself.
    pub about: About,
    /// How blobs are stored.
    pub writer: WriterOptions,
    /// Threads that read, cut and seal.
    pub workers: usize,
    /// Names of users and groups.
    pub accounts: Accounts,
    /// Save the content of targets that are block devices, each as a file.
    pub read_devices: bool,
    /// Keep access times.
    pub with_atime: bool,
    /// Trust size and mtime although ctime differs.
    pub ignore_ctime: bool,
    /// Make no snapshot where nothing differs from the parent.
    pub skip_if_unchanged: bool,
    /// Walk everything once more at the same time, so that progress knows its end.
    pub count_first: bool,
    /// Stored bytes after which the first checkpoint is made, usually [`FIRST_CHECKPOINT`]; the
    /// distance doubles from then on.
    pub checkpoint: u64,
    /// Which files are saved as consistent copies of the databases that they are.
    pub databases: DatabaseOptions,
}

impl BackupOptions {
    /// All that is below `base`, an absolute path, on one thread and with what is usual otherwise.
    #[must_use]
    pub fn new(base: PathBuf) -> Self {
        Self {
            targets: vec![b".".to_vec()],
            base,
            filter: FilterRules::default(),
            parent: None,
            bases: Vec::new(),
            about: About::default(),
            writer: WriterOptions::default(),
            workers: 1,
            accounts: Accounts::default(),
            read_devices: false,
            with_atime: false,
            ignore_ctime: false,
            skip_if_unchanged: false,
            count_first: false,
            checkpoint: FIRST_CHECKPOINT,
            databases: DatabaseOptions::default(),
        }
    }

    fn resolve(&self) -> Targets {
        Targets::resolve(&self.base, &self.targets)
            .reading_devices(self.read_devices)
            .without_copies(&self.databases)
    }
}

/// A folder or file of a snapshot that others may descend from.
#[derive(Clone, Debug)]
pub struct BaseTree {
    /// Its entry, as [`View::lookup`](crate::view::View::lookup) gives it.
    pub entry: TreeEntry,
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// When; the start of the run where none is given.
    pub time: Option<Timestamp>,
    /// Host name.
    pub host: String,
    /// User name.
    pub user: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// Tags.
    pub tags: Vec<String>,
    /// Exclude patterns as typed.
    pub excludes: Vec<String>,
    /// The program and its version.
    pub program: String,
}

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The snapshot; none on a dry run or where it was skipped as unchanged.
    pub snapshot: Option<SnapshotId>,
    /// The root of its tree.
    pub tree: BlobId,
    /// Counts and bytes.
    pub summary: Summary,
    /// Entries that could not be read: the snapshot lacks them.
    pub errors: u64,
    /// Entries that were excluded.
    pub excluded: u64,
}

/// What all threads of a backup share.
struct Run<'a> {
    repo: &'a Repository,
    writer: &'a Writer,
    chunker: Chunker,
    metadata: MetadataReader,
    observer: &'a dyn Observer,
    cancel: &'a AtomicBool,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// What kept a worker from beginning.
    failure: Mutex<Option<Error>>,
    ignore_ctime: bool,
    databases: &'a DatabaseOptions,
    /// Whether anything may be stored as a delta.
    deltas: bool,
    relatives: Relatives<'a>,
    /// The snapshot compared with, while it is there.
    parent: Option<&'a (SnapshotId, Snapshot)>,
    errors: AtomicU64,
    excluded: AtomicU64,
    checkpoint: Mutex<u64>,
}

/// Stored bytes after which the first checkpoint is made, where nobody says otherwise.
pub const FIRST_CHECKPOINT: u64 = 256 << 20;
/// Largest distance between checkpoints, in stored bytes.
const MAX_CHECKPOINT: u64 = 4 << 30;

/// Attempts at a backup whose ground others pull away: each reads the source again where it must.
const ATTEMPTS: u32 = 4;

/// Makes a backup. Where others swept what it relied on before it could commit, it begins again
/// with what is there now.
///
/// # Errors
/// [`Error::Cancelled`] where `cancel` was set: what was stored is kept for the next run. Any
/// failure of the repository. Files that cannot be read are no error of the whole: they are told
/// to `observer` and counted.
pub fn backup(
    repo: &Repository,
    options: &BackupOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<BackupReport> {
    for _ in 1..ATTEMPTS {
        match attempt(repo, options, observer, cancel) {
            Err(error) if is_conflict(&error) => {
                tracing::warn!(%error, "the repository changed meanwhile: starting anew");
                repo.refresh()?;
            }
            result => return result,
        }
    }
    attempt(repo, options, observer, cancel)
}

fn attempt(
    repo: &Repository,
    options: &BackupOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<BackupReport> {
    let start = repo.env().now();
    let base = repo.tail();
    let targets = options.resolve();
    let paths = targets.absolute_paths().to_vec();
    let writer = repo.writer(options.writer.clone());
    let run = Run::new(repo, &writer, options, observer, cancel)?;
    let walk = Walk::new(targets, Filter::compile(&options.filter)?);
    let stored = run.walk_and_store(walk, options);
    run.conclude(options, paths, stored, Begin { start, base })
}

/// Where a backup began.
#[derive(Clone, Copy)]
struct Begin {
    /// When.
    start: Timestamp,
    /// The end of the log then.
    base: u64,
}

impl<'a> Run<'a> {
    fn new(
        repo: &'a Repository,
        writer: &'a Writer,
        options: &'a BackupOptions,
        observer: &'a dyn Observer,
        cancel: &'a AtomicBool,
    ) -> Result<Self> {
        let live = repo.snapshots();
        let parent = options
            .parent
            .as_ref()
            .filter(|(id, _)| live.contains_key(id));
        Ok(Self {
            repo,
            writer,
            chunker: chunker(repo)?,
            metadata: MetadataReader::new(options.accounts.clone(), options.with_atime),
            observer,
            cancel,
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            failure: Mutex::default(),
            ignore_ctime: options.ignore_ctime,
            databases: &options.databases,
            deltas: options.writer.delta != DeltaMode::Never,
            relatives: Relatives::new(&options.bases),
            parent,
            errors: AtomicU64::new(0),
            excluded: AtomicU64::new(0),
            checkpoint: Mutex::new(options.checkpoint),
        })
    }

    /// Whether the threads should end.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancel.load(Ordering::Relaxed)
    }

    /// What ended the run, behind what a thread saw of it.
    fn cause(&self, error: Error) -> Error {
        if self.cancel.load(Ordering::Relaxed) {
            return Error::Cancelled;
        }
        match error {
            Error::Repo(error) => Error::Repo(self.writer.cause(error)),
            Error::WorkerLost => self.failure().take().unwrap_or(error),
            error => error,
        }
    }

    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why a worker cannot begin. The run goes on with the others while there are any.
    fn lost_worker(&self, error: Error) {
        tracing::warn!(%error, "a worker could not start");
        self.failure().get_or_insert(error);
    }

    /// A thread's life: a panic in it ends the run, which then has no result.
    fn live(&self, life: impl FnOnce()) {
        if panic::catch_unwind(AssertUnwindSafe(life)).is_err() {
            self.panicked.store(true, Ordering::Relaxed);
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Fails where a thread panicked: whatever the others made of it is not the whole.
    fn see_that_all_lived<T>(&self, result: Result<T>) -> Result<T> {
        if self.panicked.load(Ordering::Relaxed) {
            return Err(Error::WorkerLost);
        }
        result
    }

    /// Tells of a problem that the run can live with.
    fn report(&self, error: &Error) {
        if !error.is_warning() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.observer.problem(error);
    }

    /// Indexes what is stored so far, once enough is.
    fn checkpoint_if_due(&self) -> Result<()> {
        let Ok(mut distance) = self.checkpoint.try_lock() else {
            return Ok(());
        };
        self.writer.show_life();
        if self.writer.unindexed_bytes() >= *distance {
            self.repo.checkpoint(self.writer)?;
            *distance = (*distance * 2).min(MAX_CHECKPOINT);
        }
        Ok(())
    }

    fn keep_what_is_stored(&self) {
        let kept = self
            .writer
            .bench()
            .and_then(|mut bench| self.repo.keep(self.writer, &mut bench));
        if let Err(error) = kept {
            tracing::debug!(%error, "what was stored could not be indexed");
        }
    }

    /// Ends a backup: writes the snapshot where its tree is stored, and keeps what is stored where
    /// it is not, for the next run finds that again.
    fn conclude(
        &self,
        options: &BackupOptions,
        paths: Vec<Vec<u8>>,
        stored: Result<(BlobId, Summary)>,
        begin: Begin,
    ) -> Result<BackupReport> {
        let (tree, mut summary) = stored.map_err(|error| {
            let error = self.cause(error);
            self.keep_what_is_stored();
            error
        })?;
        summary.start = begin.start;
        let snapshot = self.finish(options, paths, tree, &mut summary, begin.base)?;
        Ok(BackupReport {
            snapshot,
            tree,
            summary,
            errors: self.errors.load(Ordering::Relaxed),
            excluded: self.excluded.load(Ordering::Relaxed),
        })
    }

    /// Writes the snapshot of a tree that is stored.
    fn finish(
        &self,
        options: &BackupOptions,
        paths: Vec<Vec<u8>>,
        tree: BlobId,
        summary: &mut Summary,
        base: u64,
    ) -> Result<Option<SnapshotId>> {
        let stats = self.writer.stats();
        summary.end = self.repo.env().now();
        summary.data_blobs = stats.data_blobs;
        summary.tree_blobs = stats.tree_blobs;
        summary.data_added = stats.plain_bytes;
        summary.data_added_packed = stats.stored_bytes;
        let parent = self.parent;
        let unchanged = parent.is_some_and(|(_, parent)| parent.tree == tree);
        if options.writer.dry_run {
            return Ok(None);
        }
        if options.skip_if_unchanged && unchanged {
            // Copies in place of damaged ones count without a snapshot.
            let mut bench = self.writer.bench()?;
            self.repo.keep(self.writer, &mut bench)?;
            return Ok(None);
        }
        let about = &options.about;
        let mut tags = about.tags.clone();
        tags.sort();
        tags.dedup();
        let snapshot = Snapshot {
            time: about.time.unwrap_or(summary.start),
            tree,
            paths,
            host: about.host.clone(),
            user: about.user.clone(),
            uid: about.uid,
            gid: about.gid,
            tags,
            excludes: about.excludes.clone(),
            parent: parent.map(|(id, _)| *id),
            program: about.program.clone(),
            summary: *summary,
            origin: None,
        };
        let record = snapshot.encode()?;
        let new = NewSnapshot {
            record: &record,
            parent: snapshot.parent,
            base,
        };
        let mut bench = self.writer.bench()?;
        Ok(Some(self.repo.commit(self.writer, &mut bench, &new)?))
    }
}

/// The chunker that the repository asks for.
fn chunker(repo: &Repository) -> Result<Chunker> {
    let config = repo.config();
    let unusable = |reason: String| Error::Chunker { reason };
    let kind = ChunkerKind::try_from(config.chunker).map_err(|e| unusable(e.to_string()))?;
    let size = |len: u32| usize::try_from(len).unwrap_or(usize::MAX);
    let params = ChunkerParams::new(
        size(config.chunk_min),
        size(config.chunk_avg),
        size(config.chunk_max),
    )
    .map_err(|e| unusable(e.to_string()))?;
    Ok(Chunker::new(kind, params, repo.chunker_key()))
}

/// Whether an error ends the run, rather than one file.
fn is_fatal(error: &Error) -> bool {
    matches!(
        error,
        Error::Repo(_) | Error::Cancelled | Error::WorkerLost | Error::Decode(_)
    )
}

/// Whether a commit failed because of what others did meanwhile, so that a new attempt may do.
fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Repo(RepoError::Conflict(_)))
}

#[cfg(test)]
mod tests;
