//! How an object gets to disk: a temporary file, synced, then linked to its name, which fails where
//! the name is taken (invariant I3). A file whose sync failed is thrown away and written anew once
//! under another temporary name (I21): after a failed sync the kernel may hold clean pages that
//! never reached the disk, and a second sync of them succeeds.

use std::{
    io::IoSlice,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
    time::Instant,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{
    super::{BackendError, ObjectName, PutOutcome},
    LocalBackend, runs,
    sys::Taken,
};

/// Most slices that one write takes (`IOV_MAX`).
const MAX_SLICES: usize = 1024;
/// Finished objects are for reading only.
const OBJECT_MODE: Mode = Mode::RUSR;

/// A temporary file, whole and synced, on its way to a name.
#[derive(Debug)]
pub(super) struct Temp {
    file: OwnedFd,
    path: String,
}

/// Why there is no temporary file.
enum TempError {
    /// The sync failed: the bytes may be written anew.
    Sync(Errno),
    /// Anything else.
    Write(Errno),
}

/// What came of linking.
enum Linked {
    Put(PutOutcome),
    /// Somebody took the temporary file away: a cleaner that could not see our lock.
    TempGone,
}

impl LocalBackend {
    pub(super) fn put(
        &self,
        name: &ObjectName,
        parts: &[&[u8]],
    ) -> Result<PutOutcome, BackendError> {
        match self.sys.stat_at(self.root(), name.path().as_ref()) {
            Ok(_) => return Ok(PutOutcome::Exists),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.object_error("write", name, errno)),
        }
        self.ensure_folder(name)?;
        let mut last = Errno::NOENT;
        for _ in 0..2 {
            let temp = self
                .write_synced(parts)
                .map_err(|errno| self.object_error("write", name, errno))?;
            match self.link(&temp, &name.path()) {
                Ok(Linked::Put(outcome)) => return Ok(outcome),
                Ok(Linked::TempGone) => last = Errno::STALE,
                Err(errno) => return Err(self.object_error("write", name, errno)),
            }
        }
        Err(self.error("write", &name.path(), last))
    }

    /// Writes `bytes` and renames them over whatever `name` was.
    pub(super) fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), BackendError> {
        let wrong = |errno| self.object_error("replace", name, errno);
        self.ensure_folder(name)?;
        let temp = self.write_synced(&[bytes]).map_err(wrong)?;
        self.place(&temp, &name.path(), Taken::Replace)
            .map_err(wrong)
    }

    /// Renames a temporary file to `path`; on failure removes it.
    pub(super) fn place(&self, temp: &Temp, path: &str, taken: Taken) -> rustix::io::Result<()> {
        let renamed = self.sys.rename(self.root(), &temp.path, path, taken);
        if renamed.is_err() {
            self.discard(&temp.path);
        }
        renamed
    }

    /// Writes `parts` to a new temporary file and syncs it; where the sync fails, once more to
    /// another.
    fn write_synced(&self, parts: &[&[u8]]) -> rustix::io::Result<Temp> {
        let way = self.way_for(parts);
        let start = Instant::now();
        let write = |file: BorrowedFd<'_>| self.write_new(file, parts, way);
        let temp = self.make_temp(&write)?;
        if let Some(way) = way {
            let len = parts.iter().map(|part| part.len()).sum();
            self.ways.note(way, len, start.elapsed().as_nanos());
        }
        Ok(temp)
    }

    /// Makes a temporary file of what `write` writes, synced; `write` runs again for a second
    /// file if the sync of the first fails.
    pub(super) fn make_temp(
        &self,
        write: &dyn Fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<Temp> {
        self.hold_run()?;
        let made = match self.make_temp_once(write) {
            Err(TempError::Sync(errno)) => {
                let location = self.path.display();
                tracing::warn!(%errno, %location, "sync failed; writing anew");
                self.make_temp_once(write)
            }
            other => other,
        };
        made.map_err(|(TempError::Sync(errno) | TempError::Write(errno))| errno)
    }

    fn make_temp_once(
        &self,
        write: &dyn Fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> Result<Temp, TempError> {
        let temp = self.open_temp().map_err(TempError::Write)?;
        let file = temp.file.as_fd();
        let made = write(file)
            .and_then(|()| self.sys.set_mode(file, OBJECT_MODE))
            .map_err(TempError::Write)
            .and_then(|()| self.sys.sync(file).map_err(TempError::Sync));
        if let Err(error) = made {
            self.discard(&temp.path);
            return Err(error);
        }
        Ok(temp)
    }

    /// Opens a new empty file under a name of this run.
    fn open_temp(&self) -> rustix::io::Result<Temp> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        loop {
            let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
            let path = runs::temp_path(self.options.run, number);
            match self
                .sys
                .open(self.root(), path.as_ref(), flags, OBJECT_MODE)
            {
                Ok(file) => return Ok(Temp { file, path }),
                // Another handle of this run has the number: there are finitely many.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Writes the concatenation of `parts` at `offset` with as few calls as the system allows.
    pub(super) fn write_parts(
        &self,
        file: BorrowedFd<'_>,
        parts: &[&[u8]],
        mut offset: u64,
    ) -> rustix::io::Result<()> {
        let mut slices: Vec<_> = parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| IoSlice::new(part))
            .collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let group = rest.get(..MAX_SLICES).unwrap_or(rest);
            let written = match self.sys.write(file, group, offset) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => written,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            offset += u64::try_from(written).map_err(|_| Errno::IO)?;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    /// Gives a temporary file its name, if that is free, and drops the temporary one.
    fn link(&self, temp: &Temp, path: &str) -> rustix::io::Result<Linked> {
        let linked = match self.sys.link(self.root(), &temp.path, path) {
            Ok(()) => Ok(Linked::Put(PutOutcome::Created)),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => {
                return self.rename_new(temp, path);
            }
            Err(errno) => self.judge_link(temp, errno),
        };
        self.discard(&temp.path);
        linked
    }

    /// What a link that reported `errno` has really done: a network file system may do it, lose
    /// the answer, and find the name taken when it asks again. Two names mean that it was us.
    fn judge_link(&self, temp: &Temp, errno: Errno) -> rustix::io::Result<Linked> {
        match (self.sys.stat(temp.file.as_fd()), errno) {
            (Ok(stat), _) if stat.links >= 2 => Ok(Linked::Put(PutOutcome::Created)),
            (Ok(stat), Errno::NOENT) if stat.links == 0 => Ok(Linked::TempGone),
            (Ok(_), Errno::EXIST) => Ok(Linked::Put(PutOutcome::Exists)),
            (Ok(_), errno) => Err(errno),
            (Err(_), _) => Ok(Linked::Put(PutOutcome::Unknown)),
        }
    }

    /// For file systems without links: a rename that refuses a name that is taken.
    fn rename_new(&self, temp: &Temp, path: &str) -> rustix::io::Result<Linked> {
        match self.place(temp, path, Taken::Refuse) {
            Ok(()) => Ok(Linked::Put(PutOutcome::Created)),
            Err(Errno::EXIST) => Ok(Linked::Put(PutOutcome::Exists)),
            Err(errno) => Err(errno),
        }
    }

    /// Removes a temporary file. One that stays harms nobody and goes with the leftovers.
    fn discard(&self, path: &str) {
        if let Err(errno) = self.sys.unlink(self.root(), path) {
            tracing::debug!(path, %errno, "a temporary file stays behind");
        }
    }
}
