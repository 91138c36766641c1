//! The root that a restore writes into, and what all its directories share.
//!
//! Everything below the root is reached by descriptors and single names (`dir`), so neither a
//! hostile snapshot nor a symlink put in the way leads out of it. Hard links are joined here: the
//! first name restored of a file is the source of the others.

use std::{
    collections::{HashMap, VecDeque},
    ffi::CString,
    fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::geteuid,
};

use strongroom_repo::ways::Ways;

use super::{
    apply::{self, Attribute, Problem},
    at::{FileId, open_pinned, reopen},
    dir::{Dir, Inner},
};
use crate::{
    error::{Error, RestoreAction},
    node::LinkId,
};

/// How a restore writes.
#[derive(Clone, Copy, Debug)]
pub struct TargetOptions {
    /// Leave out blocks of zeros, so that they become holes. Holes stay holes in any case.
    pub sparse: bool,
    /// Restore owner and group.
    pub owner: bool,
    /// How many directories may be open at once; others are closed and opened again when needed.
    pub open_dirs: usize,
    /// Random; part of temporary names, so that no snapshot can contain one of them.
    pub temporary_tag: u64,
}

impl TargetOptions {
    /// Owners restored, zeros written, 256 open directories.
    #[must_use]
    pub const fn new(temporary_tag: u64) -> Self {
        Self {
            sparse: false,
            owner: true,
            open_dirs: 256,
            temporary_tag,
        }
    }
}

/// An open restore target. Its directories may be used from several threads.
pub struct Target {
    root: Dir,
}

impl Target {
    /// Opens the directory at `path` and, if `create`, makes it and its parents where missing.
    /// Symlinks in `path` itself are followed: it is the user's word, not the snapshot's.
    ///
    /// # Errors
    /// It cannot be made or opened, or is not a directory.
    pub fn open(path: &Path, create: bool, options: TargetOptions) -> Result<Self, Error> {
        let failed = |action, source| Error::Restore {
            action,
            path: path.to_path_buf(),
            source,
        };
        if create {
            fs::create_dir_all(path).map_err(|e| failed(RestoreAction::Create, e))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            open(path, flags, Mode::empty()).map_err(|e| failed(RestoreAction::Open, e.into()))?;
        let shared = Arc::new(Shared {
            root_path: path.to_path_buf(),
            options,
            is_root: geteuid().is_root(),
            nameless: AtomicBool::new(true),
            ways: Ways::default(),
            temporaries: AtomicU64::new(0),
            open: Mutex::new(VecDeque::new()),
            links: Mutex::new(HashMap::new()),
            deferred: Mutex::new(Vec::new()),
        });
        Ok(Self {
            root: Dir::root(shared, fd)?,
        })
    }

    /// The root itself.
    #[must_use]
    pub const fn root(&self) -> &Dir {
        &self.root
    }

    /// Whether some name of this file was restored, so that [`Dir::link`] will find it.
    #[must_use]
    pub fn has_link(&self, id: LinkId) -> bool {
        lock(&self.root.shared.links).contains_key(&id)
    }

    /// Sets the flags that had to wait until all names of a file existed (no name can be added to
    /// an immutable file). Answers what could not be set.
    pub fn finish(self) -> Vec<Problem> {
        let deferred = std::mem::take(&mut *lock(&self.root.shared.deferred));
        deferred
            .into_iter()
            .filter_map(|(place, flags)| self.set_deferred_flags(place, flags))
            .collect()
    }

    fn set_deferred_flags(&self, place: Place, flags: u32) -> Option<Problem> {
        let dir = self.root.sibling(place.dir);
        let open = || {
            let parent = dir.fd()?;
            let failed = |errno| dir.failed(RestoreAction::Open, &place.name, errno);
            let (pinned, stat) = open_pinned(&parent, &place.name).map_err(failed)?;
            if FileId::of(&stat) != place.id {
                let path = dir.path_of(&place.name);
                return Err(Error::LinkSourceReplaced { path });
            }
            reopen(&pinned).map_err(failed)
        };
        let path = || dir.path_of(&place.name);
        match open() {
            Ok(fd) => apply::apply_flags(fd.as_fd(), flags, &path),
            Err(error) => Some(Problem {
                path: path(),
                what: Attribute::Flags(flags),
                source: std::io::Error::other(error),
            }),
        }
    }
}

/// Where a restored file is.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) dir: Arc<Inner>,
    pub(super) name: CString,
    pub(super) id: FileId,
}

/// What all directories of a target share.
pub(super) struct Shared {
    pub(super) root_path: PathBuf,
    pub(super) options: TargetOptions,
    pub(super) is_root: bool,
    /// Whether the file system has files without a name.
    pub(super) nameless: AtomicBool,
    /// How large files are written.
    pub(super) ways: Ways,
    temporaries: AtomicU64,
    /// Directories with an open descriptor, the longest open first.
    open: Mutex<VecDeque<Weak<Inner>>>,
    pub(super) links: Mutex<HashMap<LinkId, Place>>,
    pub(super) deferred: Mutex<Vec<(Place, u32)>>,
}

impl Shared {
    pub(super) fn next_temporary(&self) -> CString {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let name = format!(".strongroom-{:016x}-{number:x}", self.options.temporary_tag);
        // Digits, letters and dashes: there is no NUL to refuse.
        CString::new(name).unwrap_or_default()
    }

    /// Gives `dir` its descriptor and closes those of others beyond the limit. No lock is held
    /// while another is taken.
    pub(super) fn keep_open(&self, dir: &Arc<Inner>, fd: Arc<OwnedFd>) {
        dir.set(Some(fd));
        let limit = self.options.open_dirs.max(1);
        let mut closing = Vec::new();
        {
            let mut open = lock(&self.open);
            open.push_back(Arc::downgrade(dir));
            while open.len() > limit {
                closing.extend(open.pop_front());
            }
        }
        for inner in closing.iter().filter_map(Weak::upgrade) {
            inner.set(None);
        }
    }
}

/// The maps are whole after every statement, so a panic elsewhere does not spoil them.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
