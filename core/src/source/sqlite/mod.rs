//! SQLite databases among the files: which are copied as they are at one moment (`copy`), how they
//! are recognised, and what stands beside one and belongs to it.
//!
//! What must stay true: nothing beside a database is created, changed or removed, and a copy holds
//! every transaction that was finished when it began, and no half of one.

mod copy;
mod error;
mod lock;
mod scratch;
#[cfg(test)]
mod tests;

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

pub use error::DatabaseError;
use rustix::fs::{CWD, OFlags};
pub(super) use scratch::{is_folder_of_copy, is_name_of_copy};

use super::{
    dir::{open_quietly, read_fully},
    meta::{FileType, Stat},
    read::SourceFile,
    walk::{Entry, Walk},
};
use crate::{
    error::Result,
    node::{Copied, Wal},
};

/// What every database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What belongs to a database and is not saved beside a copy of it.
const COMPANIONS: [&[u8]; 3] = [WAL, SHM, JOURNAL];
pub(crate) const WAL: &[u8] = b"-wal";
const SHM: &[u8] = b"-shm";
pub(crate) const JOURNAL: &[u8] = b"-journal";

/// Bytes of the longest path at which SQLite opens a database: it has room for 512, and wants to
/// append the name of a journal.
const LONGEST: usize = 504;

/// Whether SQLite can open a database at this path, which it takes with all links followed.
fn is_in_reach(path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    let followed = folder
        .zip(path.file_name())
        .map(|(folder, name)| folder.join(name));
    followed.as_deref().unwrap_or(path).as_os_str().len() <= LONGEST
}

/// Which databases are copied, and how.
#[derive(Clone, Debug, Default)]
pub struct DatabaseOptions {
    /// All that are recognised.
    pub all: bool,
    /// These files, which must be databases; absolute paths as the walk has them.
    pub listed: Vec<Vec<u8>>,
    /// Where copies are made.
    pub scratch: PathBuf,
    /// How long to wait for programs that lock a database.
    pub patience: Duration,
}

/// How long is usually waited for programs that lock a database.
pub const PATIENCE: Duration = Duration::from_secs(10);

impl DatabaseOptions {
    /// Whether a file at this path is copied if it is a database.
    pub(crate) fn covers(&self, path: &[u8]) -> bool {
        self.all || self.is_listed(path)
    }

    /// Whether any file may be copied.
    pub(super) const fn is_used(&self) -> bool {
        self.all || !self.listed.is_empty()
    }

    fn is_listed(&self, path: &[u8]) -> bool {
        self.listed.iter().any(|listed| listed == path)
    }
}

/// What stands beside a database and says that the file is not all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beside {
    /// Its write-ahead log, unless that is empty.
    pub(crate) wal: Option<Wal>,
    /// A rollback journal that is in use, or was when its program died.
    pub(crate) has_journal: bool,
}

impl Beside {
    /// What belongs to the regular file that the walk found last; nothing if that is no database.
    /// What is known to be one is asked for even where nothing stood beside it when its directory
    /// was listed, which may be long ago.
    pub(crate) fn find(entry: &Entry, walk: &Walk, is_known: bool) -> Self {
        let stat = |suffix| {
            let name = [entry.source_name(), suffix].concat();
            (is_known || walk.may_hold(&name)).then(|| stat_of(entry, &name))?
        };
        let (wal, journal) = (stat(WAL), stat(JOURNAL));
        if (wal.is_none() && journal.is_none()) || !starts_with_magic(entry, entry.source_name()) {
            return Self::default();
        }
        let name = [entry.source_name(), JOURNAL].concat();
        Self {
            wal: wal.map(|stat| wal_of(&stat)),
            // A journal that is kept for the next transaction begins with zeros.
            has_journal: journal.is_some()
                && head(entry.dir.as_fd(), &name).is_some_and(|[first, ..]| first != 0),
        }
    }
}

/// The name of the database that a file of this name belongs to, if it can be one.
pub(crate) fn owner(name: &[u8]) -> Option<&[u8]> {
    COMPANIONS
        .iter()
        .find_map(|suffix| name.strip_suffix(*suffix))
        .filter(|owner| !owner.is_empty())
}

/// Whether the file `name` in the directory of an entry is a database, as far as its start tells.
pub(crate) fn starts_with_magic(entry: &Entry, name: &[u8]) -> bool {
    head(entry.dir.as_fd(), name).as_ref() == Some(MAGIC)
}

/// Whether the file at `path` is a database, as far as its start tells.
pub(crate) fn is_database_at(path: &[u8]) -> bool {
    head(CWD, path).as_ref() == Some(MAGIC)
}

fn head(dir: BorrowedFd<'_>, name: &[u8]) -> Option<[u8; 16]> {
    let file = open_quietly(dir, name, OFlags::NOFOLLOW).ok()?;
    let mut head = [0; 16];
    let is_regular = Stat::of(file.as_fd()).ok()?.file_type == FileType::Regular;
    let got = if is_regular {
        read_fully(file.as_fd(), &mut head, 0).ok()?
    } else {
        0
    };
    (got > 0).then_some(head)
}

/// The file `name` in the directory of an entry, if it is a regular one that is not empty.
fn stat_of(entry: &Entry, name: &[u8]) -> Option<Stat> {
    let stat = Stat::at(entry.dir.as_fd(), name, false).ok()?;
    (stat.file_type == FileType::Regular && stat.size > 0).then_some(stat)
}

const fn wal_of(stat: &Stat) -> Wal {
    Wal {
        size: stat.size,
        mtime: stat.mtime,
    }
}

/// Puts a copy in the place of an open file's content, if the file is a database and covered by
/// the options.
///
/// # Errors
/// [`Error::Database`] where it is one that cannot be copied, or should be one and is not.
pub(crate) fn copy_if_database(
    file: SourceFile,
    entry: &Entry,
    path: &[u8],
    options: &DatabaseOptions,
    is_over: &dyn Fn() -> bool,
) -> Result<SourceFile> {
    if !options.covers(path) || file.stat().size == 0 {
        return Ok(file);
    }
    let failed = |error: DatabaseError| error.of(path);
    let mut head = [0; 16];
    file.read_at(0, &mut head)?;
    if head != *MAGIC {
        return match options.is_listed(path) {
            true => Err(failed(DatabaseError::NotADatabase)),
            false => Ok(file),
        };
    }
    let wal = stat_of(entry, &[entry.source_name(), WAL].concat());
    let job = copy::Job {
        file: &file,
        entry,
        path,
        options,
        is_over,
    };
    let copy = job.run().map_err(failed)?;
    let stat = Stat::of(copy.as_fd()).map_err(|source| {
        let dir = options.scratch.clone();
        failed(DatabaseError::Scratch { dir, source })
    })?;
    let copied = Copied {
        size: file.stat().size,
        wal: wal.map(|stat| wal_of(&stat)),
    };
    Ok(file.with_copy(copy.into(), stat, copied))
}
