//! The folders of a repository and the reserve file: made once, durable before anything is put.
//! Folders that are lost later because they were empty (some copying tools drop those) are made
//! again when something is put there, provided that the configuration shows a repository.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
};

use super::{
    super::{BackendError, ObjectKind, ObjectName},
    LocalBackend,
    folders::{fan_path, folder_path},
    runs::TEMP_FOLDER,
    sys::{Sys, Taken},
};

/// Nobody but the owner looks into a repository.
const FOLDER_MODE: Mode = Mode::RWXU;
/// The file whose space a prune gets on a full disk.
const RESERVE: &str = "reserve";
/// A reserve is made only where this many times its size is free.
const RESERVE_SHARE: u64 = 4;
/// Bytes written at once where space cannot be allocated otherwise.
const FILL_LEN: usize = 1 << 20;

/// Makes the folder `path` and those above it that are missing, each synced into its parent before
/// the next. The first that is there is synced as well: an attempt may have been cut off between.
pub(super) fn make_root(sys: &dyn Sys, path: &Path) -> rustix::io::Result<()> {
    let mut missing = Vec::new();
    for folder in path.ancestors().filter(|at| !at.as_os_str().is_empty()) {
        match sys.stat_at(CWD, folder) {
            Ok(_) => {
                match sync_into_parent(sys, folder) {
                    Err(errno @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) => return Err(errno),
                    // A folder of others that we may not read, or one that is not on a disk, has
                    // nothing of ours; a file is told of when it is opened.
                    _ => break,
                }
            }
            Err(Errno::NOENT) => missing.push(folder),
            Err(errno) => return Err(errno),
        }
    }
    for folder in missing.into_iter().rev() {
        match sys.make_dir(CWD, folder, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        sync_into_parent(sys, folder)?;
    }
    Ok(())
}

/// Makes the name of a folder durable.
fn sync_into_parent(sys: &dyn Sys, folder: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let parent = sys.open(CWD, &folder.join(".."), flags, Mode::empty())?;
    sys.sync(parent.as_fd())
}

impl LocalBackend {
    /// Makes every folder, then syncs every folder: the first sync carries most of the work.
    pub(super) fn make_layout(&self) -> Result<(), BackendError> {
        let mut paths = vec![TEMP_FOLDER.to_owned()];
        for kind in ObjectKind::ALL {
            if kind != ObjectKind::Config {
                paths.push(folder_path(kind));
            }
            if kind.is_fanned_out() {
                paths.extend((0..=u8::MAX).map(|fan| fan_path(kind, fan)));
            }
        }
        for path in &paths {
            self.make_folder(path)
                .map_err(|errno| self.error("create", path, errno))?;
        }
        for path in paths.iter().map(String::as_str).chain(["."]) {
            self.sync_path(path)
                .map_err(|errno| self.error("sync", path, errno))?;
        }
        Ok(())
    }

    /// Makes sure that the folder of `name` and the one for temporary files are there.
    pub(super) fn ensure_folder(&self, name: &ObjectName) -> Result<(), BackendError> {
        let path = name.path();
        self.ensure_path(name.kind(), TEMP_FOLDER)?;
        for (at, _) in path.match_indices('/') {
            if let Some(folder) = path.get(..at) {
                self.ensure_path(name.kind(), folder)?;
            }
        }
        Ok(())
    }

    fn ensure_path(&self, kind: ObjectKind, path: &str) -> Result<(), BackendError> {
        match self.sys.stat_at(self.root(), path.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => self.judge_missing("write", path, kind)?,
            Err(errno) => return Err(self.error("write", path, errno)),
        }
        let above = path.rsplit_once('/').map_or(".", |(above, _)| above);
        self.make_folder(path)
            .and_then(|()| self.sync_path(path))
            .and_then(|()| self.sync_path(above))
            .map_err(|errno| self.error("create", path, errno))
    }

    fn make_folder(&self, path: &str) -> rustix::io::Result<()> {
        match self.sys.make_dir(self.root(), path.as_ref(), FOLDER_MODE) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Makes the reserve file, where none is there and the disk has room enough.
    pub(super) fn make_reserve(&self) -> Result<bool, BackendError> {
        let wrong = |errno| self.error("create", RESERVE, errno);
        let len = self.options.reserve_len;
        match self.sys.stat_at(self.root(), RESERVE.as_ref()) {
            Ok(_) => return Ok(true),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(wrong(errno)),
        }
        let free = self.sys.free_bytes(self.root()).map_err(wrong)?;
        if len == 0 || free < len.saturating_mul(RESERVE_SHARE) {
            return Ok(false);
        }
        self.ensure_path(ObjectKind::Config, TEMP_FOLDER)?;
        let made = self
            .make_temp(&|file| self.fill(file, len))
            .and_then(|temp| self.place(&temp, RESERVE, Taken::Replace));
        match made {
            Ok(()) => {}
            // Somebody else was faster than our look at the free space.
            Err(Errno::NOSPC | Errno::DQUOT) => return Ok(false),
            Err(errno) => return Err(wrong(errno)),
        }
        self.sync_folders(ObjectKind::Config)?;
        Ok(true)
    }

    /// Removes the reserve file; the space is free once the folder is synced.
    pub(super) fn remove_reserve(&self) -> Result<bool, BackendError> {
        match self.sys.unlink(self.root(), RESERVE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(self.error("delete", RESERVE, errno)),
        }
        self.sync_folders(ObjectKind::Config)?;
        Ok(true)
    }

    /// Really takes `len` bytes of the disk.
    fn fill(&self, file: BorrowedFd<'_>, len: u64) -> rustix::io::Result<()> {
        match self.sys.allocate(file, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            other => return other,
        }
        // Bytes that a compressing file system cannot shrink.
        let mut noise = blake3::Hasher::new()
            .update(self.options.run.as_bytes())
            .finalize_xof();
        let mut buffer = vec![0; FILL_LEN];
        let mut left = len;
        while left > 0 {
            noise.fill(&mut buffer);
            let part = usize::try_from(left).map_or(FILL_LEN, |left| left.min(FILL_LEN));
            let part = buffer.get(..part).unwrap_or(&buffer);
            self.write_parts(file, &[part], len - left)?;
            left = left.saturating_sub(u64::try_from(part.len()).map_err(|_| Errno::IO)?);
        }
        Ok(())
    }
}
