//! Names in a directory: nodes without content, hard links, replacing and removing.
//!
//! A new thing is made under its final name where that is free, else under a temporary one that is
//! renamed onto it: what was there is whole until what replaces it is. A file never takes the
//! place of a directory that has something in it.

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, linkat, makedev, mknodat, renameat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    apply::{self, Attribute, Handle, Problem, Subject},
    at::{FileId, PROTECTING, open_pinned, unprotect},
    dir::{ATTEMPTS, Dir},
    target::{Place, lock},
};
use crate::{
    error::{Error, RestoreAction},
    node::{LinkId, Metadata, NodeKind, RESTORED_FLAGS},
};

impl Dir {
    /// Makes a symlink, device, pipe or socket and applies its metadata. Replaces what is there.
    /// Answers what could not be restored.
    ///
    /// # Errors
    /// The kind has content, a directory with content has the name, or the file system refused.
    pub fn create_node(
        &self,
        name: &[u8],
        kind: &NodeKind,
        meta: &Metadata,
    ) -> Result<Vec<Problem>, Error> {
        let name = self.component(name)?;
        if matches!(kind, NodeKind::File { .. } | NodeKind::Dir) {
            let path = self.path_of(&name);
            return Err(Error::NotABareNode { path });
        }
        let parent = self.fd()?;
        let make = |at: &CStr| make_node(&parent, at, kind, meta.mode);
        let temporary = match make(&name) {
            Ok(()) => None,
            Err(Errno::EXIST) => {
                let temporary = self.shared.next_temporary();
                make(&temporary).map_err(|e| self.failed(RestoreAction::Create, &name, e))?;
                Some(temporary)
            }
            Err(errno) => return Err(self.failed(RestoreAction::Create, &name, errno)),
        };
        let at = temporary.as_ref().unwrap_or(&name);
        let applied = self.finish_node(&parent, at, &name, kind, meta);
        let Some(temporary) = &temporary else {
            return applied;
        };
        let placed = applied.and_then(|problems| {
            self.replace(&parent, temporary, &name)?;
            Ok(problems)
        });
        if placed.is_err() {
            let _left_behind = unlinkat(&*parent, temporary, AtFlags::empty());
        }
        placed
    }

    fn finish_node(
        &self,
        parent: &OwnedFd,
        at: &CStr,
        name: &CStr,
        kind: &NodeKind,
        meta: &Metadata,
    ) -> Result<Vec<Problem>, Error> {
        let failed = |errno| self.failed(RestoreAction::Open, name, errno);
        let (pinned, stat) = open_pinned(parent, at).map_err(failed)?;
        // Exchanged for a file of another type, or for another name of someone's file.
        if FileType::from_raw_mode(stat.st_mode) != file_type(kind) || stat.st_nlink != 1 {
            let path = self.path_of(name);
            return Err(Error::Unsettled { path });
        }
        let path = || self.path_of(name);
        let subject = Subject {
            handle: Handle::Pinned(pinned.as_fd()),
            stat: &stat,
            stale_xattrs: self.passes_on_acls(),
            path: &path,
        };
        let mut problems = apply::apply(&subject, meta, self.shared.options.owner);
        let flags = meta.flags & RESTORED_FLAGS;
        if flags != 0 {
            // They can only be set on an opened file, and these must not be opened.
            problems.push(Problem {
                path: path(),
                what: Attribute::Flags(flags),
                source: Errno::OPNOTSUPP.into(),
            });
        }
        let unflagged = Metadata {
            link: meta.link,
            ..Metadata::default()
        };
        self.remember_link(name, FileId::of(&stat), &unflagged);
        Ok(problems)
    }

    /// Makes `name` another name of the file whose first name was restored before; answers
    /// `false` if none was.
    ///
    /// # Errors
    /// The name is none, a directory with content has it, the first name is not that file any
    /// more, or the file system refused (it has a limit to the names of a file).
    pub fn link(&self, name: &[u8], id: LinkId) -> Result<bool, Error> {
        let name = self.component(name)?;
        let Some(source) = lock(&self.shared.links).get(&id).cloned() else {
            return Ok(false);
        };
        let source_dir = self.sibling(source.dir);
        let from = source_dir.fd()?;
        let parent = self.fd()?;
        let link = |to: &CStr| linkat(&*from, &source.name, &*parent, to, AtFlags::empty());
        let is_source = |at: &CStr| {
            statat(&*parent, at, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| FileId::of(&stat) == source.id)
        };
        let mut at = name.clone();
        let mut linked = link(&at);
        if linked == Err(Errno::EXIST) {
            if is_source(&name) {
                return Ok(true);
            }
            at = self.shared.next_temporary();
            linked = link(&at);
        }
        linked.map_err(|errno| self.failed(RestoreAction::Link, &name, errno))?;
        let placed = if !is_source(&at) {
            let path = source_dir.path_of(&source.name);
            Err(Error::LinkSourceReplaced { path })
        } else if at == name {
            return Ok(true);
        } else {
            self.replace(&parent, &at, &name)
        };
        if placed.is_err() {
            let _left_behind = unlinkat(&*parent, &at, AtFlags::empty());
        }
        placed.map(|()| true)
    }

    /// Notes the first name of a file with several, and answers the flags to set now: those that
    /// forbid further names wait for the end.
    pub(super) fn remember_link(&self, name: &CStr, id: FileId, meta: &Metadata) -> u32 {
        let flags = meta.flags & RESTORED_FLAGS;
        let Some(link) = meta.link else {
            return flags;
        };
        let place = Place {
            dir: Arc::clone(&self.inner),
            name: name.to_owned(),
            id,
        };
        let waits = flags & PROTECTING.bits() != 0;
        if waits {
            lock(&self.shared.deferred).push((place.clone(), flags));
        }
        lock(&self.shared.links).entry(link).or_insert(place);
        if waits { 0 } else { flags }
    }

    /// Puts what is called `temporary` under its final name, in one step.
    pub(super) fn replace(
        &self,
        parent: &OwnedFd,
        temporary: &CStr,
        name: &CStr,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            match renameat(parent, temporary, parent, name) {
                Ok(()) => return Ok(()),
                Err(Errno::ISDIR) => self.remove_any(parent, name)?,
                Err(Errno::PERM) if unprotect(parent, name) => {}
                Err(errno) => return Err(self.failed(RestoreAction::Name, name, errno)),
            }
        }
        let path = self.path_of(name);
        Err(Error::Unsettled { path })
    }

    pub(super) fn remove_any(&self, parent: &OwnedFd, name: &CStr) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let removed = match unlinkat(parent, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => unlinkat(parent, name, AtFlags::REMOVEDIR),
                other => other,
            };
            match removed {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let path = self.path_of(name);
                    return Err(Error::DirectoryInTheWay { path });
                }
                Err(Errno::NOTDIR) => {}
                Err(Errno::PERM) if unprotect(parent, name) => {}
                Err(errno) => return Err(self.failed(RestoreAction::Remove, name, errno)),
            }
        }
        let path = self.path_of(name);
        Err(Error::Unsettled { path })
    }
}

const fn file_type(kind: &NodeKind) -> FileType {
    match kind {
        NodeKind::File { .. } => FileType::RegularFile,
        NodeKind::Dir => FileType::Directory,
        NodeKind::Symlink { .. } => FileType::Symlink,
        NodeKind::BlockDevice(_) => FileType::BlockDevice,
        NodeKind::CharDevice(_) => FileType::CharacterDevice,
        NodeKind::Fifo => FileType::Fifo,
        NodeKind::Socket => FileType::Socket,
    }
}

fn make_node(parent: &OwnedFd, at: &CStr, kind: &NodeKind, mode: u16) -> rustix::io::Result<()> {
    // It has its owner only later: until then nobody else may use a device or pipe.
    let mode = Mode::from_raw_mode(u32::from(mode & 0o700));
    match kind {
        NodeKind::Symlink { target } => symlinkat(target.as_slice(), parent, at),
        NodeKind::BlockDevice(number) | NodeKind::CharDevice(number) => {
            // What the kernel's 12 and 20 bits cannot hold would become another device.
            if number.major >= 1 << 12 || number.minor >= 1 << 20 {
                return Err(Errno::INVAL);
            }
            let device = makedev(number.major, number.minor);
            mknodat(parent, at, file_type(kind), mode, device)
        }
        _ => mknodat(parent, at, file_type(kind), mode, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::restore::target::{Target, TargetOptions};

    #[test]
    fn what_was_exchanged_before_it_is_finished_is_left_as_it_is() {
        let to = tempfile::TempDir::new().unwrap();
        let target = Target::open(to.path(), true, TargetOptions::new(1)).unwrap();
        let root = target.root();
        let pipe = |name: &CStr| {
            let parent = root.fd().unwrap();
            let meta = Metadata::default();
            root.finish_node(&parent, name, name, &NodeKind::Fifo, &meta)
        };
        // In the place of the pipe that was just made: a file, and another name of a pipe.
        fs::write(to.path().join("file"), "theirs").unwrap();
        make_node(&root.fd().unwrap(), c"pipe", &NodeKind::Fifo, 0o600).unwrap();
        fs::hard_link(to.path().join("pipe"), to.path().join("linked")).unwrap();
        for name in [c"file", c"linked"] {
            let finished = pipe(name);
            let expected = to.path().join(name.to_str().unwrap());
            assert!(
                matches!(&finished, Err(Error::Unsettled { path }) if *path == expected),
                "{finished:?}"
            );
        }
        assert_eq!(fs::read(to.path().join("file")).unwrap(), b"theirs");
    }
}
