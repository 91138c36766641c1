//! Why a database could not be copied.

use std::{io, path::PathBuf};

use rusqlite::{ErrorCode, ffi};

use crate::error::Error;

/// Why a database could not be copied as it was at one moment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// It does not begin as one.
    #[error("it is no SQLite database, or an encrypted one")]
    NotADatabase,
    /// Another program holds it alone, or is changing it all the time.
    #[error("another program kept it locked for {seconds} seconds")]
    Locked {
        /// How long was waited.
        seconds: u64,
    },
    /// Its file system does not lock files.
    #[error("its file system refuses locks, without which it may change under the copy")]
    NoLocks {
        /// What the system said.
        source: io::Error,
    },
    /// SQLite cannot open it where it is, and it cannot be copied without.
    #[error(
        "its path is longer than the {limit} bytes that SQLite takes, and its log may be in use"
    )]
    LongPath {
        /// Bytes of the longest path.
        limit: usize,
    },
    /// Another file has taken its name.
    #[error("it was moved or replaced meanwhile")]
    Moved,
    /// Programs opened and closed it each time that it was looked at.
    #[error("other programs opened and closed it again and again")]
    Restless,
    /// It, or what belongs to it, cannot be read.
    #[error("cannot read {}", .file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite cannot make sense of it.
    #[error("SQLite says: {message} (code {code})")]
    Sqlite {
        /// SQLite's extended result code.
        code: i32,
        /// Its words.
        message: String,
    },
    /// There is not enough room for the copy.
    #[error(
        "the copy takes {need} bytes, and {} has room for {free}",
        .dir.display()
    )]
    NoRoom {
        /// Where the copy was to be made.
        dir: PathBuf,
        /// Bytes that it takes, at most.
        need: u64,
        /// Bytes that there is room for.
        free: u64,
    },
    /// The copy could not be made.
    #[error("cannot make a copy in {}", .dir.display())]
    Scratch {
        /// Where the copy was to be made.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The run is over.
    #[error("interrupted")]
    Cancelled,
}

impl DatabaseError {
    /// The error of the engine, for the database at `path`.
    pub(super) fn of(self, path: &[u8]) -> Error {
        match self {
            Self::Cancelled => Error::Cancelled,
            source => Error::Database {
                path: path.to_vec(),
                source,
            },
        }
    }

    /// What SQLite says of the source, after so many seconds of patience.
    pub(super) fn of_source(error: &rusqlite::Error, seconds: u64) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { seconds },
            Some(ErrorCode::NotADatabase) => Self::NotADatabase,
            _ => Self::of_sqlite(error),
        }
    }

    /// What SQLite says.
    pub(super) fn of_sqlite(error: &rusqlite::Error) -> Self {
        let (code, message) = match error {
            rusqlite::Error::SqliteFailure(failure, words) => {
                let words = words.clone();
                let of_code = || ffi::code_to_str(failure.extended_code).to_owned();
                (failure.extended_code, words.unwrap_or_else(of_code))
            }
            error => (ffi::SQLITE_ERROR, error.to_string()),
        };
        Self::Sqlite { code, message }
    }

    /// Whether SQLite would have to write beside the database to read it: what it answers where a
    /// dead program's transaction has to be taken back.
    pub(super) const fn wants_rollback(&self) -> bool {
        matches!(self, Self::Sqlite { code, .. } if *code == ffi::SQLITE_READONLY_ROLLBACK)
    }

    /// Whether the index of the log is being put in order, or waits for a program that may.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Sqlite { code, .. }
                if *code == ffi::SQLITE_READONLY_CANTINIT || *code == ffi::SQLITE_READONLY_RECOVERY
        )
    }
}
