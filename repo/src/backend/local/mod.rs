//! [`LocalBackend`]: a repository in a folder of this machine. This module and its parts are the
//! only place that writes repository files.
//!
//! What must stay true: an object gets its name only after its bytes are synced (`put`); a folder
//! is synced before [`Backend::barrier`] returns; a sync that failed is never repeated on the same
//! file and believed. All paths are taken relative to one open folder, so that a repository that
//! is moved or mounted over while it is in use stays the same repository.

mod direct;
mod folders;
mod handles;
mod layout;
mod put;
mod runs;
mod sys;
#[cfg(test)]
mod tests;

use std::{
    io::IoSliceMut,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
};

use self::{
    folders::Folders,
    handles::{Handles, Opened},
    runs::RunLock,
    sys::{FileStat, Linux, Sys},
};
use super::{Backend, BackendError, BackendErrorKind, ObjectKind, ObjectName, PutOutcome};
use crate::{aligned::whole_folios, id::RunId, ways::Ways};

/// Bytes that a repository keeps in reserve, so that a prune can still write its index and log
/// entries on a full disk: some hundreds of them, since a prune that packs nothing anew writes
/// little.
pub const DEFAULT_RESERVE_LEN: u64 = 2 << 20;

/// How a [`LocalBackend`] is used.
#[derive(Clone, Copy, Debug)]
pub struct LocalOptions {
    /// The run that writes: its temporary files carry this name.
    pub run: RunId,
    /// Size of the reserve in bytes; 0 for none.
    pub reserve_len: u64,
}

impl LocalOptions {
    /// The usual options for a run.
    #[must_use]
    pub const fn new(run: RunId) -> Self {
        Self {
            run,
            reserve_len: DEFAULT_RESERVE_LEN,
        }
    }
}

/// A folder that holds a repository.
#[derive(Debug)]
pub struct LocalBackend {
    path: PathBuf,
    root: OwnedFd,
    sys: Arc<dyn Sys>,
    options: LocalOptions,
    handles: Handles,
    folders: Folders,
    run_lock: RunLock,
    next_temp: AtomicU64,
    /// How packs are written.
    ways: Ways,
}

/// Where bytes may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The page cache, where they are there.
    Anywhere,
    /// The disk.
    Medium,
}

impl LocalBackend {
    /// Makes the folder `path`, and those above it that are missing, and opens it. A folder that
    /// is there is opened as it is. [`Backend::create_layout`] fills it.
    ///
    /// # Errors
    /// The folder cannot be made, synced or opened.
    pub fn create(path: &Path, options: LocalOptions) -> Result<Self, BackendError> {
        Self::create_with(path, options, Arc::new(Linux))
    }

    /// Opens the folder `path`. Writes nothing: works on a read-only file system.
    ///
    /// # Errors
    /// `path` is no folder (`NotFound` where there is nothing), or cannot be entered.
    pub fn open(path: &Path, options: LocalOptions) -> Result<Self, BackendError> {
        Self::open_with(path, options, Arc::new(Linux))
    }

    fn create_with(
        path: &Path,
        options: LocalOptions,
        sys: Arc<dyn Sys>,
    ) -> Result<Self, BackendError> {
        layout::make_root(sys.as_ref(), path)
            .map_err(|errno| failure("create", "the repository folder", path, errno))?;
        Self::open_with(path, options, sys)
    }

    fn open_with(
        path: &Path,
        options: LocalOptions,
        sys: Arc<dyn Sys>,
    ) -> Result<Self, BackendError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| failure("open", "the repository folder", path, errno))?;
        Ok(Self {
            path: path.to_owned(),
            root,
            sys,
            options,
            handles: Handles::default(),
            folders: Folders::default(),
            run_lock: RunLock::default(),
            next_temp: AtomicU64::new(0),
            ways: Ways::default(),
        })
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn error(&self, action: &'static str, object: &str, errno: Errno) -> BackendError {
        failure(action, object, &self.path, errno)
    }

    fn error_kind(
        &self,
        action: &'static str,
        object: &str,
        kind: BackendErrorKind,
    ) -> BackendError {
        BackendError {
            action,
            object: object.to_owned(),
            location: self.location(),
            kind,
            source: None,
        }
    }

    /// An error about an object; where it is missing because the whole repository is (a disk
    /// taken away, a folder moved), or where that cannot be told, it says so.
    fn object_error(&self, action: &'static str, name: &ObjectName, errno: Errno) -> BackendError {
        let path = name.path();
        if errno == Errno::NOENT
            && let Err(error) = self.judge_missing(action, &path, name.kind())
        {
            return error;
        }
        self.error(action, &path, errno)
    }

    /// Succeeds where something of `kind` that is missing is really not there.
    fn judge_missing(
        &self,
        action: &'static str,
        object: &str,
        kind: ObjectKind,
    ) -> Result<(), BackendError> {
        match self.is_there(kind) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.error_kind(action, object, BackendErrorKind::Unavailable)),
            Err(errno) => Err(self.error(action, object, errno)),
        }
    }

    /// Whether a missing object of `kind` means something: its folder is there, or only that
    /// folder is gone (copying tools drop empty ones) and the configuration is still there.
    fn is_there(&self, kind: ObjectKind) -> rustix::io::Result<bool> {
        let here = |path: &str| match self.sys.stat_at(self.root(), path.as_ref()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        };
        match kind {
            ObjectKind::Config => Ok(self.sys.stat(self.root())?.links > 0),
            kind => Ok(here(kind.folder())? || here("config")? || here("config.2")?),
        }
    }

    /// Opens an object for reading; packs stay open for a while.
    fn open_object(
        &self,
        action: &'static str,
        name: &ObjectName,
    ) -> Result<Arc<OwnedFd>, BackendError> {
        let keep = name.kind() == ObjectKind::Pack;
        if keep && let Some(file) = self.handles.find(name, Opened::Cached) {
            return Ok(file);
        }
        // Not blocking: a pipe planted under an object's name must not hang us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = self
            .sys
            .open(self.root(), name.path().as_ref(), flags, Mode::empty())
            .map_err(|errno| self.object_error(action, name, errno))?;
        let file = Arc::new(file);
        if keep {
            self.handles.keep(*name, Opened::Cached, &file);
        }
        Ok(file)
    }

    /// Fills `out` from `offset`; false if the file ends before.
    fn read_exact(
        &self,
        file: BorrowedFd<'_>,
        mut offset: u64,
        mut out: &mut [u8],
    ) -> rustix::io::Result<bool> {
        while !out.is_empty() {
            let read = match self.sys.read(file, &mut [IoSliceMut::new(out)], offset) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let (_, rest) = out.split_at_mut_checked(read).ok_or(Errno::IO)?;
            out = rest;
            offset = offset.saturating_add(u64::try_from(read).map_err(|_| Errno::IO)?);
        }
        Ok(true)
    }

    fn read_range(
        &self,
        name: &ObjectName,
        offset: u64,
        out: &mut [u8],
        from: Origin,
    ) -> Result<(), BackendError> {
        let file = self.open_object("read", name)?;
        let wrong = |errno| self.object_error("read", name, errno);
        let end = u64::try_from(out.len())
            .ok()
            .and_then(|len| offset.checked_add(len))
            .filter(|end| i64::try_from(*end).is_ok());
        let whole = match end {
            None => false,
            Some(end) if out.is_empty() => self.file_len(file.as_fd()).map_err(wrong)? >= end,
            Some(_) => {
                let (read, rest) = self.read_direct(name, offset, out, from).map_err(wrong)?;
                if from == Origin::Medium && !rest.is_empty() {
                    let (start, len) = whole_folios(offset + read, rest.len());
                    self.sys.drop_cached(file.as_fd(), start, len);
                }
                self.read_exact(file.as_fd(), offset + read, rest)
                    .map_err(wrong)?
            }
        };
        if whole {
            return Ok(());
        }
        Err(self.error_kind("read", &name.path(), BackendErrorKind::TooShort))
    }

    fn read_from(
        &self,
        name: &ObjectName,
        offset: u64,
        out: &mut [u8],
        from: Origin,
    ) -> Result<(), BackendError> {
        match self.read_range(name, offset, out, from) {
            Err(error) if is_stale(&error) => {
                // A network share replaced its file handles: open the pack again, once.
                self.handles.forget(name);
                self.read_range(name, offset, out, from)
            }
            other => other,
        }
    }

    /// The length of an open regular file.
    fn file_len(&self, file: BorrowedFd<'_>) -> rustix::io::Result<u64> {
        regular(self.sys.stat(file)?)
    }

    /// Lists one folder, which holds objects of `kind`.
    fn list_folder(
        &self,
        kind: ObjectKind,
        folder: &str,
        found: &mut dyn FnMut(ObjectName, u64),
    ) -> Result<(), BackendError> {
        let names = match self.sys.names(self.root(), folder) {
            Ok(names) => names,
            Err(Errno::NOENT) => return self.judge_missing("list", folder, kind),
            Err(errno) => return Err(self.error("list", folder, errno)),
        };
        for file_name in names {
            let Some(name) = ObjectName::parse(kind, &file_name) else {
                continue;
            };
            let path = folders::join(folder, &file_name);
            // In the wrong fan-out folder nobody looks for it: foreign.
            if path != name.path() {
                continue;
            }
            match self.sys.stat_at(self.root(), path.as_ref()) {
                Ok(stat) if stat.is_file => found(name, stat.len),
                // A folder or pipe of that name is foreign; what is gone again is not shown.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.error("list", &path, errno)),
            }
        }
        Ok(())
    }
}

impl Backend for LocalBackend {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn create_layout(&self) -> Result<(), BackendError> {
        self.make_layout()?;
        self.restore_reserve().map(|_| ())
    }

    fn put_if_absent(
        &self,
        name: &ObjectName,
        parts: &[&[u8]],
    ) -> Result<PutOutcome, BackendError> {
        let outcome = self.put(name, parts)?;
        // Noted after the link: a barrier that runs between them must not take the note away.
        self.folders.note(name);
        Ok(outcome)
    }

    fn barrier(&self, kind: ObjectKind) -> Result<(), BackendError> {
        self.sync_folders(kind)
    }

    fn read_at(&self, name: &ObjectName, offset: u64, out: &mut [u8]) -> Result<(), BackendError> {
        self.read_from(name, offset, out, Origin::Anywhere)
    }

    fn read_stored(
        &self,
        name: &ObjectName,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), BackendError> {
        self.read_from(name, offset, out, Origin::Medium)
    }

    fn read_all(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, BackendError> {
        let file = self.open_object("read", name)?;
        let wrong = |errno| self.object_error("read", name, errno);
        let too_large = || self.error_kind("read", &name.path(), BackendErrorKind::TooLarge);
        let len = self.file_len(file.as_fd()).map_err(wrong)?;
        if len > limit {
            return Err(too_large());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| too_large())?];
        if !self
            .read_exact(file.as_fd(), 0, &mut bytes)
            .map_err(wrong)?
        {
            return Err(self.error_kind("read", &name.path(), BackendErrorKind::TooShort));
        }
        Ok(bytes)
    }

    fn len(&self, name: &ObjectName) -> Result<u64, BackendError> {
        self.sys
            .stat_at(self.root(), name.path().as_ref())
            .and_then(regular)
            .map_err(|errno| self.object_error("measure", name, errno))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.handles.forget(name);
        match self.sys.unlink(self.root(), &name.path()) {
            Ok(()) => {}
            Err(Errno::NOENT) => self.judge_missing("delete", &name.path(), name.kind())?,
            Err(errno) => return Err(self.object_error("delete", name, errno)),
        }
        self.folders.note(name);
        Ok(())
    }

    fn list(
        &self,
        kind: ObjectKind,
        found: &mut dyn FnMut(ObjectName, u64),
    ) -> Result<(), BackendError> {
        match kind {
            ObjectKind::Config => self.list_folder(kind, ".", found),
            kind if kind.is_fanned_out() => {
                for fan in 0..=u8::MAX {
                    self.list_folder(kind, &folders::fan_path(kind, fan), found)?;
                }
                Ok(())
            }
            kind => self.list_folder(kind, kind.folder(), found),
        }
    }

    fn replace_verified(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), BackendError> {
        self.replace(name, bytes)?;
        self.handles.forget(name);
        self.folders.note(name);
        self.sync_folders(name.kind())
    }

    fn release_reserve(&self) -> Result<bool, BackendError> {
        self.remove_reserve()
    }

    fn restore_reserve(&self) -> Result<bool, BackendError> {
        self.make_reserve()
    }

    fn is_run_over(&self, run: RunId) -> Result<bool, BackendError> {
        self.is_dead(run)
    }

    fn remove_leftovers(&self) -> Result<u64, BackendError> {
        self.remove_dead_runs()
    }
}

impl Drop for LocalBackend {
    fn drop(&mut self) {
        self.let_go_of_run();
    }
}

fn regular(stat: FileStat) -> rustix::io::Result<u64> {
    // What is no regular file holds no bytes that were put.
    if stat.is_file {
        Ok(stat.len)
    } else {
        Err(Errno::INVAL)
    }
}

fn is_stale(error: &BackendError) -> bool {
    let errno = error.source.as_ref().and_then(std::io::Error::raw_os_error);
    errno == Some(Errno::STALE.raw_os_error())
}

fn failure(action: &'static str, object: &str, path: &Path, errno: Errno) -> BackendError {
    let kind = match errno {
        Errno::NOENT => BackendErrorKind::NotFound,
        Errno::NOSPC | Errno::DQUOT => BackendErrorKind::NoSpace,
        Errno::ROFS => BackendErrorKind::ReadOnly,
        Errno::ACCESS | Errno::PERM => BackendErrorKind::Denied,
        _ => BackendErrorKind::Io,
    };
    BackendError {
        action,
        object: object.to_owned(),
        location: path.display().to_string(),
        kind,
        source: Some(errno.into()),
    }
}
