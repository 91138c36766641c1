//! Restore: from a snapshot back into a file system.
//!
//! ```text
//! plan (the caller walks the tree) --batches--> write (workers: load, decode, write, name)
//! ```
//!
//! `plan` makes directories, `feed` divides the contents of files into batches, `write` fills these
//! in the order of the packs, `pending` is a file or directory while somebody is at work on it,
//! `select` says what is wanted, `existing` what is done
//! about what is there, `verify` reads everything back. These know the repository; the
//! file system's side does not: `target` is a root that nothing can leave, `dir` the handles inside
//! it, `place` puts things under names there, `file` writes one file's content, `apply` gives files
//! their metadata.
//!
//! `onto` writes one file over a device or file that is there, and shares nothing with the others.
//!
//! Under a final name there is always what was there before or a whole file.

pub mod apply;
mod at;
pub mod dir;
mod direct;
mod existing;
mod feed;
pub mod file;
pub mod onto;
mod pending;
mod place;
mod plan;
mod select;
pub mod target;
mod verify;
mod window;
mod write;

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use strongroom_repo::{id::BlobId, repository::Repository};

use self::{
    select::Selection,
    target::{Target, TargetOptions},
};
use crate::{
    error::{Error, Result},
    observer::{Action, Done, Observer},
};

/// What is done about files that are there already. Directories are always joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// They are replaced.
    #[default]
    Always,
    /// They are replaced where size or time of last change differ; else they keep their content
    /// and get their metadata.
    IfChanged,
    /// They are replaced where the snapshot's are younger.
    IfNewer,
    /// They are left alone.
    Never,
}

/// What to restore, and how.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The directory that gets what is in the tree; made where missing.
    pub target: PathBuf,
    /// Patterns of paths in the tree to restore, with all that is below them; everything where
    /// these and `iinclude` are empty.
    pub include: Vec<Vec<u8>>,
    /// As `include`, ignoring case.
    pub iinclude: Vec<Vec<u8>>,
    /// Patterns of paths in the tree to leave out.
    pub exclude: Vec<Vec<u8>>,
    /// As `exclude`, ignoring case.
    pub iexclude: Vec<Vec<u8>>,
    /// What is done about files that are there already.
    pub overwrite: Overwrite,
    /// Turn blocks of zeros into holes. Holes stay holes in any case.
    pub sparse: bool,
    /// Read every restored file back and compare it.
    pub verify: bool,
    /// Change nothing, count only.
    pub dry_run: bool,
    /// Restore owner and group.
    pub owner: bool,
    /// Threads that read and write.
    pub workers: usize,
}

impl RestoreOptions {
    /// Everything into `target`, by one worker, owners included.
    #[must_use]
    pub const fn new(target: PathBuf) -> Self {
        Self {
            target,
            include: Vec::new(),
            iinclude: Vec::new(),
            exclude: Vec::new(),
            iexclude: Vec::new(),
            overwrite: Overwrite::Always,
            sparse: false,
            verify: false,
            dry_run: false,
            owner: true,
            workers: 1,
        }
    }
}

/// What a restore did. Files are all that is no directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Files that were wanted.
    pub total_files: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Directories that were made or joined.
    pub dirs: u64,
    /// Files that are as in the snapshot now.
    pub files_restored: u64,
    /// Their bytes.
    pub bytes_restored: u64,
    /// Files that were left alone because of [`Overwrite`].
    pub files_skipped: u64,
    /// Their bytes.
    pub bytes_skipped: u64,
    /// What went wrong with single entries; each was told to the observer.
    pub problems: u64,
    /// Files that were read back and found right.
    pub files_verified: u64,
}

/// What all threads of a restore share.
struct Run<'a> {
    repo: &'a Repository,
    options: &'a RestoreOptions,
    selection: Selection,
    /// None on a dry run.
    target: Option<Target>,
    observer: &'a dyn Observer,
    cancel: &'a AtomicBool,
    /// Some thread cannot go on.
    stop: AtomicBool,
    counts: Counts,
    /// Which files were written, by their numbers in the order of the walk.
    written: Mutex<Bits>,
}

#[derive(Default)]
struct Counts {
    total_files: AtomicU64,
    total_bytes: AtomicU64,
    dirs: AtomicU64,
    files_restored: AtomicU64,
    bytes_restored: AtomicU64,
    files_skipped: AtomicU64,
    bytes_skipped: AtomicU64,
    problems: AtomicU64,
    files_verified: AtomicU64,
}

/// Restores the directory whose root page is `tree`: the root of a snapshot or a folder in it.
///
/// # Errors
/// The target cannot be opened, a pattern is invalid, or [`Error::Cancelled`]: then some files are
/// restored and the others untouched, and directories may lack their metadata. What goes wrong with
/// single entries is no error of the whole: it is told to `observer` and counted.
pub fn restore(
    repo: &Repository,
    tree: BlobId,
    options: &RestoreOptions,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<RestoreReport> {
    let target = if options.dry_run {
        None
    } else {
        Some(open_target(repo, options)?)
    };
    let run = Run {
        repo,
        options,
        selection: Selection::compile(options)?,
        target,
        observer,
        cancel,
        stop: AtomicBool::new(false),
        counts: Counts::default(),
        written: Mutex::new(Bits::default()),
    };
    plan::restore_tree(&run, tree)?;
    if options.verify && !options.dry_run {
        verify::verify_tree(&run, tree)?;
    }
    let mut run = run;
    if let Some(target) = run.target.take() {
        for problem in target.finish() {
            run.report(&Error::Metadata(problem));
        }
    }
    Ok(run.counts.report())
}

fn open_target(repo: &Repository, options: &RestoreOptions) -> Result<Target> {
    let tag = repo
        .env()
        .random()
        .map_err(strongroom_repo::error::Error::from)?;
    let how = TargetOptions {
        sparse: options.sparse,
        owner: options.owner,
        open_dirs: OPEN_DIRS,
        temporary_tag: u64::from_le_bytes(tag),
    };
    Target::open(&options.target, true, how)
}

/// Directories open at once: with the files of all workers well below the usual limit of 1024.
const OPEN_DIRS: usize = 192;

impl Run<'_> {
    /// Whether the threads should end.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.cancel.load(Ordering::Relaxed)
    }

    /// Tells of a problem that the run can live with.
    fn report(&self, error: &Error) {
        add(&self.counts.problems, 1);
        self.observer.problem(error);
    }

    /// Tells of a file that is not restored.
    fn report_file(&self, path: &[u8], source: Error) {
        self.report(&Error::NotRestored {
            path: path.to_vec(),
            source: Box::new(source),
        });
    }

    fn found(&self, size: u64) {
        let files = add(&self.counts.total_files, 1);
        let bytes = add(&self.counts.total_bytes, size);
        // Not for each: somebody draws it.
        if files.is_multiple_of(256) {
            self.observer.total(files, bytes);
        }
    }

    fn restored(&self, path: &[u8], size: u64, existed: bool) {
        add(&self.counts.files_restored, 1);
        add(&self.counts.bytes_restored, size);
        let action = if existed {
            Action::Changed
        } else {
            Action::New
        };
        self.done(path, action, size, false);
    }

    fn skipped(&self, path: &[u8], size: u64) {
        add(&self.counts.files_skipped, 1);
        add(&self.counts.bytes_skipped, size);
        self.observer.advanced(size);
        self.done(path, Action::Unchanged, size, false);
    }

    fn done(&self, path: &[u8], action: Action, size: u64, is_dir: bool) {
        self.observer.finished(&Done {
            path,
            action,
            is_dir,
            size,
            added: 0,
        });
    }

    fn mark_written(&self, number: u64) {
        if self.options.verify {
            self.written
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .set(number);
        }
    }

    fn was_written(&self, number: u64) -> bool {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(number)
    }
}

impl Counts {
    fn report(&self) -> RestoreReport {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RestoreReport {
            total_files: value(&self.total_files),
            total_bytes: value(&self.total_bytes),
            dirs: value(&self.dirs),
            files_restored: value(&self.files_restored),
            bytes_restored: value(&self.bytes_restored),
            files_skipped: value(&self.files_skipped),
            bytes_skipped: value(&self.bytes_skipped),
            problems: value(&self.problems),
            files_verified: value(&self.files_verified),
        }
    }
}

/// Adds and answers the new sum. Sizes are what a snapshot says and may be absurd: sums wrap.
fn add(count: &AtomicU64, more: u64) -> u64 {
    count.fetch_add(more, Ordering::Relaxed).wrapping_add(more)
}

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn place(number: u64) -> (usize, u64) {
        (
            usize::try_from(number / 64).unwrap_or(usize::MAX),
            1 << (number % 64),
        )
    }

    fn set(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn contains(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

#[cfg(test)]
mod tests;
