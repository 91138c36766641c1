//! Where a copy is made: a folder of its own in the scratch folder, which goes when the copy is
//! open or has failed.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::{io::Errno, process::geteuid};

use super::{error::DatabaseError, is_in_reach};
use crate::source::meta::{FileType, Stat};

/// A folder with a copy in it.
pub(super) struct Scratch<'a> {
    /// Where it is.
    within: &'a Path,
    dir: PathBuf,
    need: u64,
}

/// Whether folders in which copies are made are called so.
pub(in crate::source) fn is_name_of_copy(name: &[u8]) -> bool {
    let numbers = name.strip_prefix(b"strongroom-");
    let is_number = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    let mut words = numbers.unwrap_or_default().split(|byte| *byte == b'-');
    words.next().is_some_and(is_number)
        && words.next().is_some_and(is_number)
        && words.next().is_none()
}

/// Whether it is a folder of this user that nobody else can look into, as those for copies are.
pub(in crate::source) fn is_folder_of_copy(stat: &Stat) -> bool {
    stat.file_type == FileType::Dir && stat.mode & 0o7777 == 0o700 && stat.uid == geteuid().as_raw()
}

impl<'a> Scratch<'a> {
    /// Makes a folder that nobody else can look into.
    pub(super) fn create(within: &'a Path) -> Result<Self, DatabaseError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let process = std::process::id();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = within.join(format!("strongroom-{process}-{number}"));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => {
                    let made = Self {
                        within,
                        dir,
                        need: 0,
                    };
                    if !is_in_reach(&made.path("")) {
                        return Err(made.failed(Errno::NAMETOOLONG.into()));
                    }
                    return Ok(made);
                }
                // What a process of the same number left behind.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    let dir = within.to_path_buf();
                    return Err(DatabaseError::Scratch { dir, source });
                }
            }
        }
    }

    /// See that there is room for so many bytes.
    pub(super) fn make_room(&mut self, need: u64) -> Result<(), DatabaseError> {
        self.need = need;
        if self.free()? < need {
            return Err(self.no_room());
        }
        Ok(())
    }

    fn free(&self) -> Result<u64, DatabaseError> {
        let stat = rustix::fs::statvfs(&self.dir).map_err(|errno| self.failed(errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn no_room(&self) -> DatabaseError {
        DatabaseError::NoRoom {
            dir: self.within.to_path_buf(),
            need: self.need,
            free: self.free().unwrap_or_default(),
        }
    }

    fn failed(&self, source: io::Error) -> DatabaseError {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.no_room(),
            _ => DatabaseError::Scratch {
                dir: self.within.to_path_buf(),
                source,
            },
        }
    }

    /// The copy, or with a suffix what belongs to it.
    fn path(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("copy{suffix}"))
    }

    /// A new file for what `suffix` says.
    pub(super) fn file(&self, suffix: &str) -> Result<File, DatabaseError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let opened = options.open(self.path(suffix));
        opened.map_err(|error| self.failed(error))
    }

    /// Writes into one of the files.
    pub(super) fn write(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), DatabaseError> {
        file.write_all_at(bytes, at)
            .map_err(|error| self.failed(error))
    }

    /// Forgets what an earlier attempt left.
    pub(super) fn clear(&self) -> Result<(), DatabaseError> {
        for suffix in ["", "-wal", "-journal", "-shm"] {
            match fs::remove_file(self.path(suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The copy as a database of which this connection is the only user. What is written need not
    /// outlive the machine.
    pub(super) fn connect(&self) -> Result<Connection, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connect = || {
            let copy = Connection::open_with_flags(self.path(""), flags)?;
            copy.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF;")?;
            Ok(copy)
        };
        connect().map_err(|error| self.sqlite(&error))
    }

    /// What SQLite says of the copy.
    pub(super) fn sqlite(&self, error: &rusqlite::Error) -> DatabaseError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => self.no_room(),
            Some(ErrorCode::NotADatabase) => DatabaseError::NotADatabase,
            _ => DatabaseError::of_sqlite(error),
        }
    }

    /// Opens the finished copy, which then has no name any more.
    pub(super) fn finish(self) -> Result<File, DatabaseError> {
        // SQLite removes them when it has put the copy in order.
        for suffix in ["-wal", "-journal"] {
            if fs::metadata(self.path(suffix)).is_ok_and(|left| left.len() > 0) {
                let message = format!("a copy still has its {suffix}");
                let code = rusqlite::ffi::SQLITE_INTERNAL;
                return Err(DatabaseError::Sqlite { code, message });
            }
        }
        File::open(self.path("")).map_err(|error| self.failed(error))
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, dir = %self.dir.display(), "a scratch folder is left over");
        }
    }
}
