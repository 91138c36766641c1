//! One database, as it is at one moment, into a scratch file.
//!
//! Under a reader's lock on the file there are three cases:
//!
//! * **Programs have it open in WAL mode** (its log and the index of it are there): SQLite's backup
//!   copies it, all in one read transaction, while they go on.
//! * **It has a rollback journal, or none:** the same; transactions wait until the copy is made.
//! * **It is left alone:** in WAL mode with its log or the index of it missing, or with a
//!   transaction that a dead program has left half done. SQLite would have to write beside it to
//!   read it. Instead the file and what belongs to it are copied; SQLite puts the copy in order.
//!   A program that comes meanwhile in WAL mode makes the missing file, and cannot remove it before
//!   the lock is gone: where both are there afterwards, all is done anew.
//!
//! SQLite reaches a database by its path, and takes no long ones. Where the path is long, the file
//! and what belongs to it are copied in all cases but the first, which is an error: a transaction
//! that is under way while we have the lock has changed nothing in the file yet, and what its
//! journal puts back is what is there.
//!
//! The connection to the source is read-only, neither takes over the log nor makes its index, and
//! does not carry the log over into the database when it is the last to close.

use std::{
    ffi::OsStr,
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
    config::DbConfig,
};
use rustix::fs::{CWD, OFlags};

use super::{
    DatabaseOptions, JOURNAL, LONGEST, SHM, WAL, error::DatabaseError, is_in_reach, lock::ReadLock,
    scratch::Scratch,
};
use crate::{
    error::Error,
    source::{
        dir::{open_quietly, read_fully},
        meta::Stat,
        read::SourceFile,
        walk::Entry,
    },
};

/// Fills a buffer from an offset as far as there is something.
type ReadAt<'a> = dyn FnMut(&mut [u8], u64) -> Result<usize, DatabaseError> + 'a;

/// How often it is begun anew where programs come and go.
const ATTEMPTS: u32 = 16;
/// Between two looks at a lock.
const PAUSE: Duration = Duration::from_millis(20);
/// Pages between two looks at whether the run is over.
const PAGES: i32 = 1024;
/// Bytes copied at a time.
const STEP: usize = 1 << 20;

/// A database to be copied.
pub(super) struct Job<'a> {
    pub(super) file: &'a SourceFile,
    pub(super) entry: &'a Entry,
    /// Where the source has it; absolute.
    pub(super) path: &'a [u8],
    pub(super) options: &'a DatabaseOptions,
    pub(super) is_over: &'a dyn Fn() -> bool,
}

impl Job<'_> {
    /// Makes the copy.
    pub(super) fn run(&self) -> Result<File, DatabaseError> {
        let mut scratch = Scratch::create(&self.options.scratch)?;
        let (mut left, mut attempts) = (self.options.patience, 0);
        while attempts < ATTEMPTS {
            match self.attempt(&mut scratch) {
                Ok(true) => return scratch.finish(),
                Ok(false) => attempts += 1,
                // All locks are gone meanwhile: whoever waits for them gets on.
                Err(DatabaseError::Locked { .. }) if !left.is_zero() => {
                    self.pause(PAUSE.min(left))?;
                    left = left.saturating_sub(PAUSE);
                }
                Err(error) => return Err(error),
            }
            scratch.clear()?;
        }
        Err(DatabaseError::Restless)
    }

    /// Makes the copy, or says that the database was opened meanwhile. Waits for no lock: while the
    /// reader's lock is held, a program that wants to write may keep SQLite from taking its own.
    fn attempt(&self, scratch: &mut Scratch<'_>) -> Result<bool, DatabaseError> {
        let lock = ReadLock::take(self.file);
        let Some(_lock) = lock? else {
            return Err(self.locked());
        };
        let is_in_reach = is_in_reach(Path::new(OsStr::from_bytes(self.path)));
        if self.is_open_in_wal_mode() {
            if !is_in_reach {
                return Err(DatabaseError::LongPath { limit: LONGEST });
            }
            return match self.back_up(scratch) {
                Err(error) if error.is_passing() => self.pause(PAUSE).map(|()| false),
                done => done.map(|()| true),
            };
        }
        if is_in_reach && !self.exists(WAL) && self.has_rollback_journal()? {
            match self.back_up(scratch) {
                Err(error) if error.wants_rollback() => scratch.clear()?,
                done => return done.map(|()| true),
            }
        }
        let copied = self.copy_files(scratch);
        if !self.has_its_name() {
            return Err(DatabaseError::Moved);
        }
        copied?;
        Ok(!self.is_open_in_wal_mode())
    }

    fn pause(&self, time: Duration) -> Result<(), DatabaseError> {
        self.go_on()?;
        thread::sleep(time);
        Ok(())
    }

    fn locked(&self) -> DatabaseError {
        DatabaseError::Locked {
            seconds: self.options.patience.as_secs(),
        }
    }

    /// Whether programs may have it open in WAL mode: each makes the log first, then the index.
    fn is_open_in_wal_mode(&self) -> bool {
        self.exists(WAL) && self.exists(SHM)
    }

    fn exists(&self, suffix: &[u8]) -> bool {
        Stat::at(self.entry.dir.as_fd(), &self.beside(suffix), false).is_ok()
    }

    /// Whether its name still leads to it: where another file has taken the name, what lies beside
    /// it by now belongs to that one.
    fn has_its_name(&self) -> bool {
        let named = Stat::at(self.entry.dir.as_fd(), self.entry.source_name(), false);
        named.is_ok_and(|stat| stat.is_same_file(self.file.stat()))
    }

    /// The name of what belongs to it.
    fn beside(&self, suffix: &[u8]) -> Vec<u8> {
        [self.entry.source_name(), suffix].concat()
    }

    /// Whether its header says that transactions go by a rollback journal.
    fn has_rollback_journal(&self) -> Result<bool, DatabaseError> {
        let mut versions = [0; 2];
        self.read(&mut versions, 18)?;
        Ok(versions == [1, 1])
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<usize, DatabaseError> {
        self.file.read_at(at, buffer).map_err(|error| match error {
            Error::Source { source, .. } => self.unreadable(b"", source),
            _ => DatabaseError::Moved,
        })
    }

    fn unreadable(&self, suffix: &[u8], source: std::io::Error) -> DatabaseError {
        let file = PathBuf::from(OsStr::from_bytes(&[self.path, suffix].concat()));
        DatabaseError::Read { file, source }
    }

    fn go_on(&self) -> Result<(), DatabaseError> {
        if (self.is_over)() {
            return Err(DatabaseError::Cancelled);
        }
        Ok(())
    }

    /// Copies it through SQLite, in one read transaction.
    fn back_up(&self, scratch: &mut Scratch<'_>) -> Result<(), DatabaseError> {
        let of_source = |error| DatabaseError::of_source(&error, self.options.patience.as_secs());
        let source = self.connect().map_err(of_source)?;
        let number = |pragma: &str| source.pragma_query_value(None, pragma, |row| row.get(0));
        source.execute_batch("BEGIN").map_err(of_source)?;
        // The first read begins the transaction, in which all else is done.
        let _: i64 = number("schema_version").map_err(of_source)?;
        let named = Stat::at(CWD, self.path, true);
        if !named.is_ok_and(|stat| stat.is_same_file(self.file.stat())) {
            return Err(DatabaseError::Moved);
        }
        let (pages, page): (u64, u64) = (
            number("page_count")
                .map_err(of_source)?
                .try_into()
                .unwrap_or(0),
            number("page_size")
                .map_err(of_source)?
                .try_into()
                .unwrap_or(0),
        );
        scratch.make_room(pages.saturating_mul(page))?;
        let mut copy = scratch.connect()?;
        let of_copy = |error| scratch.sqlite(&error);
        copy.execute_batch("PRAGMA journal_mode = OFF")
            .map_err(of_copy)?;
        {
            let backup = Backup::new(&source, &mut copy).map_err(of_copy)?;
            loop {
                self.go_on()?;
                match backup.step(PAGES).map_err(of_copy)? {
                    StepResult::Done => break,
                    StepResult::More => {}
                    _ => return Err(self.locked()),
                }
            }
        }
        copy.close().map_err(|(_, error)| of_copy(error))
    }

    /// A connection that reads and leaves no trace.
    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(self.address(), flags)?;
        source.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        source.busy_timeout(Duration::ZERO)?;
        Ok(source)
    }

    /// The path as SQLite takes it with options: with these it writes no byte beside the database,
    /// not even that there is a reader.
    fn address(&self) -> String {
        let mut address = String::from("file:");
        for byte in self.path {
            match byte {
                b'/' | b'-' | b'.' | b'_' => address.push(char::from(*byte)),
                byte if byte.is_ascii_alphanumeric() => address.push(char::from(*byte)),
                byte => address.push_str(&format!("%{byte:02x}")),
            }
        }
        address.push_str("?mode=ro&readonly_shm=1");
        address
    }

    /// Copies it and what belongs to it as they are, and lets SQLite put the copy in order.
    fn copy_files(&self, scratch: &mut Scratch<'_>) -> Result<(), DatabaseError> {
        let wal = self.open(WAL)?;
        let journal = self.open_journal()?;
        let size = |file: &Option<OwnedFd>, suffix| match file {
            Some(file) => match Stat::of(file.as_fd()) {
                Ok(stat) => Ok(stat.size),
                Err(source) => Err(self.unreadable(suffix, source)),
            },
            None => Ok(0),
        };
        let database = Stat::of(self.file.as_fd());
        let database = database.map_err(|source| self.unreadable(b"", source))?;
        let log = size(&wal, WAL)?.saturating_mul(2);
        let journal_size = size(&journal, JOURNAL)?;
        let need = database.size.saturating_add(log);
        scratch.make_room(need.saturating_add(journal_size))?;
        self.copy_file(scratch, "", &mut |buffer, at| self.read(buffer, at))?;
        for (name, suffix, file) in [("-wal", WAL, wal), ("-journal", JOURNAL, journal)] {
            if let Some(file) = file {
                self.copy_file(scratch, name, &mut |buffer, at| {
                    let read = read_fully(file.as_fd(), buffer, at);
                    read.map_err(|source| self.unreadable(suffix, source))
                })?;
            }
        }
        let copy = scratch.connect()?;
        let order = || -> rusqlite::Result<()> {
            let _: i64 = copy.pragma_query_value(None, "schema_version", |row| row.get(0))?;
            copy.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        };
        order().map_err(|error| scratch.sqlite(&error))?;
        copy.close().map_err(|(_, error)| scratch.sqlite(&error))
    }

    /// Opens what belongs to it; none where there is no such file.
    fn open(&self, suffix: &[u8]) -> Result<Option<OwnedFd>, DatabaseError> {
        let name = self.beside(suffix);
        match open_quietly(self.entry.dir.as_fd(), &name, OFlags::NOFOLLOW) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.unreadable(suffix, source)),
        }
    }

    /// Opens its rollback journal, where there is something to take back: one that waits for its
    /// transaction to be written, or for the next one, begins with zeros.
    fn open_journal(&self) -> Result<Option<OwnedFd>, DatabaseError> {
        let Some(file) = self.open(JOURNAL)? else {
            return Ok(None);
        };
        let mut head = [0];
        match read_fully(file.as_fd(), &mut head, 0) {
            Ok(_) => Ok((head != [0]).then_some(file)),
            Err(source) => Err(self.unreadable(JOURNAL, source)),
        }
    }

    fn copy_file(
        &self,
        scratch: &Scratch<'_>,
        name: &str,
        read: &mut ReadAt<'_>,
    ) -> Result<(), DatabaseError> {
        let to = scratch.file(name)?;
        let (mut buffer, mut at) = (vec![0; STEP], 0_u64);
        loop {
            self.go_on()?;
            let got = read(&mut buffer, at)?;
            scratch.write(&to, buffer.get(..got).unwrap_or_default(), at)?;
            at = at.saturating_add(u64::try_from(got).unwrap_or(0));
            if got < STEP {
                return Ok(());
            }
        }
    }
}
