//! Whose temporary files are whose: each run holds a lock on `tmp/<run>.lock` for as long as it
//! lives, so that others can tell its files from those of a run that died. Temporary files are
//! never referenced: removing one too early fails a put, it never loses an object.
//!
//! On a file system that other machines may have mounted, locks are not always shared with them.
//! There the lock file says which start of which machine holds it, and a free lock counts as the
//! end of that run on that machine only.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{super::BackendError, LocalBackend, folders::join, sys::LockMode};
use crate::id::RunId;

/// The folder of temporary files, on the file system of the objects.
pub(super) const TEMP_FOLDER: &str = "tmp";
const LOCK_SUFFIX: &str = ".lock";

/// The lock of this run, taken with its first write.
#[derive(Debug, Default)]
pub(super) struct RunLock(Mutex<Held>);

#[derive(Debug, Default)]
enum Held {
    #[default]
    NotYet,
    /// Locked; several handles of one run share the lock.
    Lock(OwnedFd),
    /// The file system has no locks: others cannot tell us dead, and leave our files alone.
    NoLocks,
}

/// What stands in the folder of temporary files.
enum TempName {
    Lock(RunId),
    File(RunId),
}

impl LocalBackend {
    /// Takes the lock of this run, unless it is held.
    pub(super) fn hold_run(&self) -> rustix::io::Result<()> {
        let mut held = self
            .run_lock
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !matches!(*held, Held::NotYet) {
            return Ok(());
        }
        let path = lock_path(self.options.run);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
        loop {
            let file = self
                .sys
                .open(self.root(), path.as_ref(), flags, Mode::RUSR | Mode::WUSR)?;
            match self.sys.lock(file.as_fd(), LockMode::Shared) {
                // Between open and lock a cleaner may have removed the file: then nobody sees it.
                Ok(_) if self.sys.stat(file.as_fd())?.links == 0 => {}
                Ok(_) => {
                    self.note_boot(&file);
                    *held = Held::Lock(file);
                    return Ok(());
                }
                Err(errno) if has_no_locks(errno) => {
                    *held = Held::NoLocks;
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Notes in the lock file where the run goes on, if that matters. Without the note nobody
    /// takes the run for dead, which costs them a day.
    fn note_boot(&self, lock: &OwnedFd) {
        if self.is_local() {
            return;
        }
        let noted = self
            .sys
            .boot_id()
            .and_then(|boot| self.write_parts(lock.as_fd(), &[&boot], 0));
        if let Err(errno) = noted {
            tracing::debug!(%errno, "a lock file does not say whose it is");
        }
    }

    fn is_local(&self) -> bool {
        self.sys.is_local(self.root()).unwrap_or(false)
    }

    /// Whether a run is known to have ended without removing its lock file.
    pub(super) fn is_dead(&self, run: RunId) -> Result<bool, BackendError> {
        let lock_path = lock_path(run);
        let failed = |errno| self.error("lock", &lock_path, errno);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW;
        let lock = match self
            .sys
            .open(self.root(), lock_path.as_ref(), flags, Mode::empty())
        {
            Ok(lock) => lock,
            // Without a lock file nothing is known; one of somebody else's cannot be locked.
            Err(Errno::NOENT | Errno::ACCESS) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        };
        match self.sys.lock(lock.as_fd(), LockMode::TryExclusive) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(errno) if has_no_locks(errno) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        }
        if self.is_local() {
            return Ok(true);
        }
        let boot = self.sys.boot_id().map_err(failed)?;
        let mut noted = vec![0; boot.len()];
        let whole = self.read_exact(lock.as_fd(), 0, &mut noted);
        Ok(whole.map_err(failed)? && noted == boot)
    }

    /// Removes the lock file, if no other handle of this run holds it. One that stays is removed
    /// with the leftovers.
    pub(super) fn let_go_of_run(&mut self) {
        let held = self
            .run_lock
            .0
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Held::Lock(file) = std::mem::take(held)
            && self.sys.lock(file.as_fd(), LockMode::TryExclusive) == Ok(true)
        {
            let path = lock_path(self.options.run);
            if let Err(errno) = self.sys.unlink(self.root(), &path) {
                tracing::debug!(path, %errno, "a lock file stays behind");
            }
        }
    }

    /// Removes the temporary files of runs that are gone.
    pub(super) fn remove_dead_runs(&self) -> Result<u64, BackendError> {
        let names = match self.sys.names(self.root(), TEMP_FOLDER) {
            Ok(names) => names,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(self.error("list", TEMP_FOLDER, errno)),
        };
        let mut runs: BTreeMap<RunId, Vec<String>> = BTreeMap::new();
        for name in names {
            match parse_temp_name(&name) {
                Some(TempName::File(run)) => runs.entry(run).or_default().push(name),
                Some(TempName::Lock(run)) => {
                    runs.entry(run).or_default();
                }
                None => {}
            }
        }
        runs.remove(&self.options.run);
        let mut removed = 0;
        for (run, files) in runs {
            removed += self.remove_if_dead(run, files)?;
        }
        Ok(removed)
    }

    /// The files were listed before the lock is looked at, and a run has its lock before its
    /// first file: where there are files and no lock, there is no run.
    fn remove_if_dead(&self, run: RunId, files: Vec<String>) -> Result<u64, BackendError> {
        let lock_path = lock_path(run);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW;
        let lock = match self
            .sys
            .open(self.root(), lock_path.as_ref(), flags, Mode::empty())
        {
            Ok(lock) => match self.sys.lock(lock.as_fd(), LockMode::TryExclusive) {
                Ok(true) => Some(lock),
                Ok(false) => return Ok(0),
                Err(errno) if has_no_locks(errno) => return Ok(0),
                Err(errno) => return Err(self.error("lock", &lock_path, errno)),
            },
            Err(Errno::NOENT) => None,
            // Somebody else's run: not ours to judge.
            Err(Errno::ACCESS) => return Ok(0),
            Err(errno) => return Err(self.error("open", &lock_path, errno)),
        };
        let mut removed = 0;
        for file in files {
            removed += u64::from(self.remove_temp(&join(TEMP_FOLDER, &file))?);
        }
        if lock.is_some() {
            self.remove_temp(&lock_path)?;
        }
        Ok(removed)
    }

    fn remove_temp(&self, path: &str) -> Result<bool, BackendError> {
        match self.sys.unlink(self.root(), path) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.error("delete", path, errno)),
        }
    }
}

/// The path of a temporary file.
pub(super) fn temp_path(run: RunId, number: u64) -> String {
    format!("{TEMP_FOLDER}/{run}-{number}")
}

fn lock_path(run: RunId) -> String {
    format!("{TEMP_FOLDER}/{run}{LOCK_SUFFIX}")
}

fn parse_temp_name(name: &str) -> Option<TempName> {
    if let Some(run) = name.strip_suffix(LOCK_SUFFIX) {
        return RunId::parse_hex(run).map(TempName::Lock);
    }
    let (run, number) = name.split_once('-')?;
    number.parse::<u64>().ok()?;
    RunId::parse_hex(run).map(TempName::File)
}

fn has_no_locks(errno: Errno) -> bool {
    matches!(errno, Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS)
}
