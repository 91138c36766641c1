//! Directories inside a restore target.
//!
//! A [`Dir`] is reached from its parent by one name, never through a symlink, and everything in it
//! is made by one name, too. So depth is not limited by the length of a path. Descriptors of
//! directories are few: a closed one is opened again by walking down from an open ancestor, and
//! must then be the very directory that it was.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{
        AtFlags, IFlags, Mode, Stat, fchmod, fgetxattr_query, fremovexattr, fstat, ioctl_getflags,
        ioctl_setflags, mkdirat, openat, statat,
    },
    io::Errno,
};

use super::{
    apply::{self, Handle, Problem, Subject},
    at::{
        DIR_FLAGS, FileId, PROTECTING, is_dir, jump, open_dir, open_pinned, reopen, unprotect_open,
    },
    file::FileWriter,
    target::{Shared, lock},
};
use crate::{
    error::{Error, RestoreAction},
    node::{Metadata, RESTORED_FLAGS},
};

/// How often to try again when what was made is exchanged before it can be opened.
pub(super) const ATTEMPTS: u32 = 8;

/// Longest path given to one call: below the kernel's 4096 by any one name.
const JUMP_LEN: usize = 3800;

const DEFAULT_ACL: &CStr = c"system.posix_acl_default";

/// A directory of a restore target. Cheap to clone; may be used from several threads.
#[derive(Clone)]
pub struct Dir {
    pub(super) shared: Arc<Shared>,
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// Nothing for the root, which is never closed.
    parent: Option<Arc<Self>>,
    name: CString,
    id: FileId,
    /// Made by this restore, as opposed to found.
    fresh: bool,
    /// New files in it get an ACL.
    passes_on_acls: bool,
    /// New files in it get inode flags.
    passes_on_flags: bool,
    /// It may have attributes that nobody asked for.
    stale_xattrs: bool,
    fd: Mutex<Option<Arc<OwnedFd>>>,
}

impl Inner {
    pub(super) fn set(&self, fd: Option<Arc<OwnedFd>>) {
        *lock(&self.fd) = fd;
    }

    fn current(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.fd).clone()
    }
}

impl Drop for Inner {
    /// Drops a long chain of parents one by one: recursion would use up the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut inner| inner.parent.take());
        }
    }
}

impl Dir {
    /// The target itself. It keeps its mode and flags, also those that keep it from being filled:
    /// who guards a mount point that way wants to hear of it.
    pub(super) fn root(shared: Arc<Shared>, fd: OwnedFd) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::Restore {
            action: RestoreAction::Open,
            path: shared.root_path.clone(),
            source: errno.into(),
        };
        let found = Found::look(&fd).map_err(failed)?;
        let inner = Inner {
            parent: None,
            name: CString::default(),
            id: found.id,
            fresh: false,
            passes_on_acls: found.passes_on_acls,
            passes_on_flags: found.passes_on_flags,
            stale_xattrs: true,
            fd: Mutex::new(Some(Arc::new(fd))),
        };
        Ok(Self {
            shared,
            inner: Arc::new(inner),
        })
    }

    pub(super) fn sibling(&self, inner: Arc<Inner>) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            inner,
        }
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut at = &self.inner;
        while let Some(parent) = &at.parent {
            names.push(at.name.as_bytes());
            at = parent;
        }
        let mut path = self.shared.root_path.clone().into_os_string().into_vec();
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        OsString::from_vec(path).into()
    }

    /// Whether this restore made it: then nothing was in it.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.inner.fresh
    }

    /// What is there under `name`, symlinks not followed; nothing if nothing is.
    ///
    /// # Errors
    /// The name is none, or the file system refused.
    pub fn existing(&self, name: &[u8]) -> Result<Option<Stat>, Error> {
        let name = self.component(name)?;
        match statat(&*self.fd()?, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(RestoreAction::Stat, &name, errno)),
        }
    }

    /// The names in it, in no order.
    ///
    /// # Errors
    /// The file system refused.
    pub fn names(&self) -> Result<Vec<Vec<u8>>, Error> {
        let failed = |errno| self.failed(RestoreAction::List, c"", errno);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&*self.fd()?).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Removes what is under `name`, be it protected by flags; a directory must be empty.
    ///
    /// # Errors
    /// It is a directory with content, or the file system refused.
    pub fn remove(&self, name: &[u8]) -> Result<(), Error> {
        let name = self.component(name)?;
        self.remove_any(&*self.fd()?, &name)
    }

    /// The directory `name`: made, or found. What is there and is no directory is removed.
    ///
    /// # Errors
    /// The name is none, or the file system refused.
    pub fn create_dir(&self, name: &[u8]) -> Result<Self, Error> {
        let name = self.component(name)?;
        let parent = self.fd()?;
        let failed = |action, errno| self.failed(action, &name, errno);
        for _ in 0..ATTEMPTS {
            let fresh = match mkdirat(&*parent, &name, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(failed(RestoreAction::Create, errno)),
            };
            match open_dir(&parent, &name) {
                Ok(fd) if fresh => return self.fresh_child(name, fd),
                Ok(fd) => return self.found_child(name, fd),
                Err(Errno::NOTDIR | Errno::LOOP) => self.remove_any(&parent, &name)?,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(RestoreAction::Open, errno)),
            }
        }
        Err(Error::Unsettled {
            path: self.path_of(&name),
        })
    }

    /// The directory `name` if there is one.
    ///
    /// # Errors
    /// There is none, or the file system refused.
    pub fn open_dir(&self, name: &[u8]) -> Result<Self, Error> {
        let name = self.component(name)?;
        match open_dir(&*self.fd()?, &name) {
            Ok(fd) => self.found_child(name, fd),
            Err(errno) => Err(self.failed(RestoreAction::Open, &name, errno)),
        }
    }

    /// Starts a regular file of `size` bytes. `mode` is what the file is to have in the end: it
    /// saves a call if it is right from the start.
    ///
    /// # Errors
    /// The name is none, a directory with content has it, or the file system refused.
    pub fn create_file(&self, name: &[u8], size: u64, mode: u16) -> Result<FileWriter, Error> {
        let name = self.component(name)?;
        if !self.inner.fresh {
            // Found out before the content is fetched and written.
            let parent = self.fd()?;
            let there = statat(&*parent, &name, AtFlags::SYMLINK_NOFOLLOW);
            if there.is_ok_and(|stat| is_dir(&stat)) {
                self.remove_any(&parent, &name)?;
            }
        }
        FileWriter::create(self, name, size, mode)
    }

    /// The directory `name` for reading alone: nothing about it is changed.
    ///
    /// # Errors
    /// There is none, it may not be read, or the file system refused.
    pub(super) fn look_into(&self, name: &[u8]) -> Result<Self, Error> {
        let name = self.component(name)?;
        let failed = |errno| self.failed(RestoreAction::Open, &name, errno);
        let fd = openat(&*self.fd()?, &name, DIR_FLAGS, Mode::empty()).map_err(failed)?;
        let stat = fstat(&fd).map_err(failed)?;
        let inner = Inner {
            parent: Some(Arc::clone(&self.inner)),
            name,
            id: FileId::of(&stat),
            fresh: false,
            passes_on_acls: false,
            passes_on_flags: false,
            stale_xattrs: true,
            fd: Mutex::new(None),
        };
        Ok(self.child(inner, fd))
    }

    /// The regular file `name`, for reading.
    ///
    /// # Errors
    /// There is none, it may not be read, or the file system refused.
    pub(super) fn open_file(&self, name: &[u8]) -> Result<OwnedFd, Error> {
        let name = self.component(name)?;
        let failed = |errno| self.failed(RestoreAction::Open, &name, errno);
        let (pinned, stat) = open_pinned(&*self.fd()?, &name).map_err(failed)?;
        if is_dir(&stat) {
            return Err(failed(Errno::ISDIR));
        }
        reopen(&pinned).map_err(failed)
    }

    /// Applies a file's metadata to the regular file that is there under `name` and keeps its
    /// content. Answers what could not be restored.
    ///
    /// # Errors
    /// It is no regular file, or the file system refused.
    pub(super) fn update_file(&self, name: &[u8], meta: &Metadata) -> Result<Vec<Problem>, Error> {
        let fd = self.open_file(name)?;
        // A protected file takes nothing; its flags come last.
        unprotect_open(&fd);
        let name = self.component(name)?;
        let stat = fstat(&fd).map_err(|e| self.failed(RestoreAction::Stat, &name, e))?;
        let path = || self.path_of(&name);
        let subject = Subject {
            handle: Handle::Open(fd.as_fd()),
            stat: &stat,
            stale_xattrs: true,
            path: &path,
        };
        let mut problems = apply::apply(&subject, meta, self.shared.options.owner);
        let flags = self.remember_link(&name, FileId::of(&stat), meta);
        problems.extend(apply::apply_flags(fd.as_fd(), flags, &path));
        Ok(problems)
    }

    /// Applies the directory's own metadata, flags included; to be called when everything in it
    /// is done. Answers what could not be restored.
    ///
    /// # Errors
    /// The directory is not there any more.
    pub fn finish(&self, meta: &Metadata) -> Result<Vec<Problem>, Error> {
        let fd = self.fd()?;
        let stat = fstat(&*fd).map_err(|e| self.failed(RestoreAction::Stat, c"", e))?;
        let path = || self.path();
        let subject = Subject {
            handle: Handle::Open(fd.as_fd()),
            stat: &stat,
            stale_xattrs: self.inner.stale_xattrs,
            path: &path,
        };
        let mut problems = apply::apply(&subject, meta, self.shared.options.owner);
        if meta.flags & RESTORED_FLAGS != 0 || !self.inner.fresh || self.inner.passes_on_flags {
            problems.extend(apply::apply_flags(fd.as_fd(), meta.flags, &path));
        }
        Ok(problems)
    }

    pub(super) fn passes_on_acls(&self) -> bool {
        self.inner.passes_on_acls
    }

    pub(super) fn passes_on_flags(&self) -> bool {
        self.inner.passes_on_flags
    }

    fn fresh_child(&self, name: CString, fd: OwnedFd) -> Result<Self, Error> {
        let stat = fstat(&fd).map_err(|e| self.failed(RestoreAction::Stat, &name, e))?;
        if self.inner.passes_on_acls {
            // Else everything below would inherit it, too; what stays is reported by finish.
            let _may_be_absent = fremovexattr(&fd, DEFAULT_ACL);
        }
        if !self.shared.is_root && stat.st_mode & 0o700 != 0o700 {
            // An inherited ACL or the umask took bits that are needed to fill it.
            fchmod(&fd, Mode::RWXU).map_err(|e| self.failed(RestoreAction::Create, &name, e))?;
        }
        Ok(self.child(
            Inner {
                parent: Some(Arc::clone(&self.inner)),
                name,
                id: FileId::of(&stat),
                fresh: true,
                passes_on_acls: self.inner.passes_on_acls && passes_on_acls(&fd),
                passes_on_flags: self.inner.passes_on_flags,
                stale_xattrs: self.inner.passes_on_acls,
                fd: Mutex::new(None),
            },
            fd,
        ))
    }

    fn found_child(&self, name: CString, fd: OwnedFd) -> Result<Self, Error> {
        let found = Found::prepare(&fd, self.shared.is_root)
            .map_err(|e| self.failed(RestoreAction::Open, &name, e))?;
        Ok(self.child(
            Inner {
                parent: Some(Arc::clone(&self.inner)),
                name,
                id: found.id,
                fresh: false,
                passes_on_acls: found.passes_on_acls,
                passes_on_flags: found.passes_on_flags,
                stale_xattrs: true,
                fd: Mutex::new(None),
            },
            fd,
        ))
    }

    fn child(&self, inner: Inner, fd: OwnedFd) -> Self {
        let inner = Arc::new(inner);
        self.shared.keep_open(&inner, Arc::new(fd));
        self.sibling(inner)
    }

    /// Its descriptor, opened again if it was closed.
    pub(super) fn fd(&self) -> Result<Arc<OwnedFd>, Error> {
        let mut closed = Vec::new();
        let mut at = &self.inner;
        let mut fd = loop {
            if let Some(fd) = at.current() {
                break fd;
            }
            closed.push(at);
            let Some(parent) = &at.parent else {
                let path = self.path();
                return Err(Error::DirectoryReplaced { path });
            };
            at = parent;
        };
        while let Some(next) = closed.pop() {
            let mut inner = next;
            let opened = if closed.len() > self.shared.options.open_dirs / 2 {
                let mut names = next.name.as_bytes().to_vec();
                while let Some(below) =
                    closed.pop_if(|dir| names.len() + dir.name.as_bytes().len() < JUMP_LEN)
                {
                    inner = below;
                    names.push(b'/');
                    names.extend_from_slice(below.name.as_bytes());
                }
                jump(&fd, &names)
            } else {
                openat(&*fd, &inner.name, DIR_FLAGS, Mode::empty())
            };
            let path = || self.sibling(Arc::clone(inner)).path();
            let lost = |errno: Errno| Error::Restore {
                action: RestoreAction::Open,
                path: path(),
                source: errno.into(),
            };
            let opened = opened.map_err(lost)?;
            if FileId::of(&fstat(&opened).map_err(lost)?) != inner.id {
                return Err(Error::DirectoryReplaced { path: path() });
            }
            fd = Arc::new(opened);
            self.shared.keep_open(inner, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Refuses what is not the name of one entry.
    pub(super) fn component(&self, name: &[u8]) -> Result<CString, Error> {
        let unsafe_name = || Error::UnsafeName {
            dir: self.path(),
            name: OsStr::from_bytes(name).to_os_string(),
        };
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return Err(unsafe_name());
        }
        CString::new(name).map_err(|_| unsafe_name())
    }

    pub(super) fn path_of(&self, name: &CStr) -> PathBuf {
        self.path().join(OsStr::from_bytes(name.to_bytes()))
    }

    pub(super) fn failed(&self, action: RestoreAction, name: &CStr, errno: Errno) -> Error {
        let path = if name.is_empty() {
            self.path()
        } else {
            self.path_of(name)
        };
        Error::Restore {
            action,
            path,
            source: errno.into(),
        }
    }
}

/// What must be known of a directory that was there before.
struct Found {
    id: FileId,
    passes_on_acls: bool,
    passes_on_flags: bool,
}

impl Found {
    fn look(fd: &OwnedFd) -> rustix::io::Result<Self> {
        let flags = flags_of(fd);
        Ok(Self {
            id: FileId::of(&fstat(fd)?),
            passes_on_acls: passes_on_acls(fd),
            passes_on_flags: flags.bits() & RESTORED_FLAGS & !PROTECTING.bits() != 0,
        })
    }

    /// Also makes it writable if it is the caller's: its final mode and flags come with `finish`.
    fn prepare(fd: &OwnedFd, is_root: bool) -> rustix::io::Result<Self> {
        let flags = flags_of(fd);
        if flags.intersects(PROTECTING) {
            ioctl_setflags(fd, flags.difference(PROTECTING))?;
        }
        let mode = fstat(fd)?.st_mode;
        if !is_root && mode & 0o700 != 0o700 {
            // Not the owner: then creating in it fails, if it does, with the name at hand.
            let _not_ours = fchmod(fd, Mode::from_raw_mode(mode & 0o7777 | 0o700));
        }
        Self::look(fd)
    }
}

/// A file system without flags passes none on.
fn flags_of(fd: &OwnedFd) -> IFlags {
    ioctl_getflags(fd).unwrap_or(IFlags::empty())
}

fn passes_on_acls(fd: &OwnedFd) -> bool {
    fgetxattr_query(fd, DEFAULT_ACL).is_ok()
}
