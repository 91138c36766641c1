//! The lock that every reader of an SQLite database holds: while somebody has it, no transaction
//! of a rollback journal is written into the file, and no write-ahead log is removed.
//!
//! SQLite itself takes it too, but its locks belong to the process and end as soon as any
//! descriptor of the file is closed anywhere in it. This one belongs to the open file.

use std::{io, os::fd::AsFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

use super::error::DatabaseError;

/// Who wants to be alone soon holds this byte, so that no new readers come.
const PENDING: i64 = 0x4000_0000;
/// Readers hold all of these.
pub(super) const SHARED: i64 = PENDING + 2;
pub(super) const SHARED_LEN: i64 = 510;

/// A reader's lock, until it is dropped.
#[derive(Debug)]
pub(super) struct ReadLock<F: AsFd>(F);

impl<F: AsFd> ReadLock<F> {
    /// Takes the lock on an open database; none where another program wants or has it for itself.
    pub(super) fn take(file: F) -> Result<Option<Self>, DatabaseError> {
        let set = |kind, start, len| {
            set(&file, kind, start, len).map_err(|source| DatabaseError::NoLocks { source })
        };
        if !set(libc::F_RDLCK, PENDING, 1)? {
            return Ok(None);
        }
        let taken = set(libc::F_RDLCK, SHARED, SHARED_LEN);
        set(libc::F_UNLCK, PENDING, 1)?;
        Ok(taken?.then_some(Self(file)))
    }
}

impl<F: AsFd> Drop for ReadLock<F> {
    fn drop(&mut self) {
        if let Err(error) = set(&self.0, libc::F_UNLCK, SHARED, SHARED_LEN) {
            tracing::debug!(%error, "a lock is kept until its file is closed");
        }
    }
}

/// Sets or releases a lock; false where it would have to wait.
pub(super) fn set(file: impl AsFd, kind: libc::c_int, start: i64, len: i64) -> io::Result<bool> {
    let narrow = |value: libc::c_int| {
        let value = libc::c_short::try_from(value);
        value.map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    let lock = libc::flock {
        l_type: narrow(kind)?,
        l_whence: narrow(libc::SEEK_SET)?,
        l_start: start,
        l_len: len,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
