//! The content of one restored file.
//!
//! A [`FileWriter`] writes into a file without a name (`O_TMPFILE`), or under a temporary one where
//! the file system has no such thing; [`FileWriter::finish`] gives it its metadata and then its
//! name, in one step. So under the final name there is always the old file or the whole new one.
//! On ext4 the nameless file is also the cheapest way: one change of the directory instead of the
//! two that create and rename make, and nothing to sweep up after a crash.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Mutex, PoisonError, atomic::Ordering},
};

use rustix::{
    fs::{
        AtFlags, CWD, FallocateFlags, Mode, OFlags, fallocate, fstat, fstatfs, ftruncate, linkat,
        openat, unlinkat,
    },
    io::{Errno, pwrite},
};

use strongroom_repo::aligned::PAGE;

use super::{
    apply::{self, Handle, Problem, Subject, proc_path},
    at::FileId,
    dir::Dir,
    direct::DirectFile,
};
use crate::{
    error::{Error, RestoreAction},
    node::Metadata,
};

/// The numbers of the file systems (`statfs.f_type`) on which room is reserved: ext2 to ext4, XFS.
const RESERVING: [i128; 2] = [0xef53, 0x5846_5342];

/// A regular file being written; several threads may write at once. Dropped without
/// [`finish`](Self::finish) it leaves nothing behind.
#[must_use = "a file gets its name only by finish"]
pub struct FileWriter {
    dir: Dir,
    name: CString,
    fd: OwnedFd,
    /// The temporary name, where the file has one.
    temporary: Option<CString>,
    size: u64,
    direct: DirectFile,
    edges: Edges,
}

/// Parts of pages, where they belong, that are to be written in the end. A file lets several
/// threads write directly at a time, but each small write has to wait for all of those, and they
/// for it.
#[derive(Debug, Default)]
struct Edges(Mutex<Vec<(u64, Vec<u8>)>>);

impl Edges {
    /// So many wait at most.
    const MAX: usize = 128;

    /// Keeps one; returns all of them once they are too many.
    fn keep(&self, offset: u64, bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !bytes.is_empty() {
            kept.push((offset, bytes.to_vec()));
        }
        if kept.len() < Self::MAX {
            return Vec::new();
        }
        std::mem::take(&mut *kept)
    }

    fn take(&self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FileWriter {
    /// Opens a nameless file in `dir`, which is to be called `name` and to have `size` bytes.
    pub(super) fn create(dir: &Dir, name: CString, size: u64, mode: u16) -> Result<Self, Error> {
        let parent = dir.fd()?;
        let (fd, temporary) = if dir.shared.nameless.load(Ordering::Relaxed) {
            let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
            // Nobody can reach the file before its owner is set, so it may have its bits at once.
            let mode = Mode::from_raw_mode(u32::from(mode & 0o777));
            match openat(&*parent, c".", flags, mode) {
                Ok(fd) => (fd, None),
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                    dir.shared.nameless.store(false, Ordering::Relaxed);
                    create_temporary(dir, &parent, &name)?
                }
                Err(errno) => return Err(dir.failed(RestoreAction::Create, &name, errno)),
            }
        } else {
            create_temporary(dir, &parent, &name)?
        };
        Ok(Self {
            dir: dir.clone(),
            name,
            fd,
            temporary,
            size,
            direct: DirectFile::default(),
            edges: Edges::default(),
        })
    }

    /// Asks for room for all of a file that has no holes. Where that is granted the file lies in
    /// one piece, and on ext4 several threads may write to it at a time. Elsewhere it may cost more
    /// than it gains: btrfs compresses no file that had room reserved, FAT writes zeros first.
    pub(super) fn reserve(&self) {
        let kind = fstatfs(&self.fd).map(|stat| i128::from(stat.f_type));
        if !kind.is_ok_and(|kind| RESERVING.contains(&kind)) {
            return;
        }
        let reserved = fallocate(&self.fd, FallocateFlags::empty(), 0, self.size);
        if let Err(error) = reserved {
            // Where there is no room the writes will say so.
            tracing::debug!(%error, path = %self.path().display(), "no room reserved");
        }
    }

    /// The path the file will have, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path_of(&self.name)
    }

    /// Writes `bytes` at `offset`. In a sparse restore whole blocks of zeros are left out: the
    /// file is new, so they read as zero anyway.
    ///
    /// # Errors
    /// The bytes lie beyond the size of the file, or the file system refused them.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.write_data(offset, bytes, |at, run| self.write_all(at, run))
    }

    /// As [`write_at`](Self::write_at), past the page cache where that is faster and `bytes` lie
    /// as far from a page boundary in memory as they will in the file. What is less than a page
    /// may wait until [`finish`](Self::finish).
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_pages(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let ways = &self.dir.shared.ways;
        self.write_data(offset, bytes, |at, run| {
            let usual = |at, bytes: &[u8]| {
                if bytes.len() < PAGE {
                    self.write_edges(self.edges.keep(at, bytes))
                } else {
                    self.write_all(at, bytes)
                }
            };
            let wrong = |errno| self.failed(RestoreAction::Write, errno);
            self.direct.write(&self.fd, (at, run), ways, usual, wrong)
        })
    }

    fn write_data(
        &self,
        offset: u64,
        bytes: &[u8],
        mut write: impl FnMut(u64, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.check_range(offset, bytes.len() as u64)?;
        if !self.dir.shared.options.sparse {
            return write(offset, bytes);
        }
        for (start, run) in DataRuns::new(offset, bytes) {
            write(start, run)?;
        }
        Ok(())
    }

    /// Writes `len` zeros at `offset`, for content that was written as zeros, as opposed to a
    /// hole, for which nothing is to be called. In a sparse restore they become a hole too.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    pub fn write_zeros(&self, offset: u64, len: u64) -> Result<(), Error> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        self.check_range(offset, len)?;
        if self.dir.shared.options.sparse {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let part = (len - done).min(ZEROS.len() as u64);
            let part_len = usize::try_from(part).unwrap_or(ZEROS.len());
            self.write_all(offset + done, ZEROS.get(..part_len).unwrap_or(&ZEROS))?;
            done += part;
        }
        Ok(())
    }

    /// Gives the file its size, its metadata and its name, in that order; inode flags last.
    /// What was there under that name is replaced. Answers what could not be restored.
    ///
    /// # Errors
    /// A directory with content has the name, or the file system refused.
    pub fn finish(mut self, meta: &Metadata) -> Result<Vec<Problem>, Error> {
        self.write_edges(self.edges.take())?;
        let stat = fstat(&self.fd).map_err(|e| self.failed(RestoreAction::Stat, e))?;
        if u64::try_from(stat.st_size) != Ok(self.size) {
            ftruncate(&self.fd, self.size).map_err(|e| self.failed(RestoreAction::Write, e))?;
        }
        let subject = Subject {
            handle: Handle::Open(self.fd.as_fd()),
            stat: &stat,
            stale_xattrs: self.dir.passes_on_acls(),
            path: &|| self.path(),
        };
        let mut problems = apply::apply(&subject, meta, self.dir.shared.options.owner);
        self.place()?;
        let id = FileId::of(&stat);
        let flags = self.dir.remember_link(&self.name, id, meta);
        if flags != 0 || self.dir.passes_on_flags() {
            let path = || self.path();
            problems.extend(apply::apply_flags(self.fd.as_fd(), flags, &path));
        }
        Ok(problems)
    }

    fn place(&mut self) -> Result<(), Error> {
        let parent = self.dir.fd()?;
        if self.temporary.is_none() {
            match self.link_to(&parent, &self.name) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed(RestoreAction::Name, errno)),
            }
            let name = self.dir.shared.next_temporary();
            self.link_to(&parent, &name)
                .map_err(|e| self.failed(RestoreAction::Name, e))?;
            self.temporary = Some(name);
        }
        if let Some(temporary) = &self.temporary {
            self.dir.replace(&parent, temporary, &self.name)?;
        }
        self.temporary = None;
        Ok(())
    }

    /// Names the nameless file. By its descriptor alone where the kernel lets us, else through
    /// `/proc`.
    fn link_to(&self, parent: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        match linkat(&self.fd, c"", parent, name, AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
                let path = proc_path(&self.fd);
                linkat(CWD, path.as_c_str(), parent, name, AtFlags::SYMLINK_FOLLOW)
            }
            other => other,
        }
    }

    fn write_edges(&self, edges: Vec<(u64, Vec<u8>)>) -> Result<(), Error> {
        edges
            .into_iter()
            .try_for_each(|(offset, bytes)| self.write_all(offset, &bytes))
    }

    fn write_all(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match pwrite(&self.fd, bytes, offset) {
                Ok(0) => return Err(self.failed(RestoreAction::Write, Errno::IO)),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(RestoreAction::Write, errno)),
            }
        }
        Ok(())
    }

    fn check_range(&self, offset: u64, len: u64) -> Result<(), Error> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::WriteOutside {
                path: self.path(),
                size: self.size,
                offset,
                len,
            }),
        }
    }

    fn failed(&self, action: RestoreAction, errno: Errno) -> Error {
        self.dir.failed(action, &self.name, errno)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && let Ok(parent) = self.dir.fd()
        {
            let _left_behind = unlinkat(&*parent, &temporary, AtFlags::empty());
        }
    }
}

/// For file systems without nameless files.
fn create_temporary(
    dir: &Dir,
    parent: &OwnedFd,
    name: &CStr,
) -> Result<(OwnedFd, Option<CString>), Error> {
    let temporary = dir.shared.next_temporary();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, &temporary, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| dir.failed(RestoreAction::Create, name, errno))?;
    Ok((fd, Some(temporary)))
}

/// Block size of holes: what common file systems allocate.
const BLOCK: u64 = 4096;

/// The parts of a piece of content that are not whole blocks of zeros, blocks counted from the
/// start of the file. Neighbouring blocks come as one run.
struct DataRuns<'a> {
    offset: u64,
    rest: &'a [u8],
}

impl<'a> DataRuns<'a> {
    const fn new(offset: u64, bytes: &'a [u8]) -> Self {
        Self {
            offset,
            rest: bytes,
        }
    }

    /// Length of the first block of `rest`, up to the next multiple of [`BLOCK`] in the file.
    fn block_len(offset: u64, rest: &[u8]) -> usize {
        let to_boundary = usize::try_from(BLOCK - offset % BLOCK).unwrap_or(usize::MAX);
        to_boundary.min(rest.len())
    }
}

impl<'a> Iterator for DataRuns<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let mut run = 0;
        let mut at = self.offset;
        let mut rest = self.rest;
        while !rest.is_empty() {
            let (block, after) = rest.split_at(Self::block_len(at, rest));
            at += block.len() as u64;
            rest = after;
            if !is_zero(block) {
                run += block.len();
            } else if run == 0 {
                (self.offset, self.rest) = (at, rest);
            } else {
                break;
            }
        }
        if run == 0 {
            return None;
        }
        let item = (self.offset, self.rest.get(..run)?);
        (self.offset, self.rest) = (at, rest);
        Some(item)
    }
}

/// Folds whole lanes before it compares, so that the compiler can use vectors.
fn is_zero(block: &[u8]) -> bool {
    block
        .chunks(64)
        .all(|lane| lane.iter().fold(0, |acc, byte| acc | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, DataRuns};

    #[test]
    fn data_runs_leave_out_exactly_the_whole_blocks_of_zeros() {
        let block = usize::try_from(BLOCK).unwrap();
        let mut state = 7_u64;
        for round in 0..300_usize {
            let mut draw = |n: usize| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                usize::try_from(state >> 33).unwrap() % n
            };
            let offset = draw(3 * block);
            let mut bytes = vec![0_u8; draw(12 * block)];
            for _ in 0..draw(4) {
                if !bytes.is_empty() {
                    let at = draw(bytes.len());
                    bytes[at] = 1;
                }
            }
            let mut rebuilt = vec![0_u8; bytes.len()];
            let mut end = 0;
            for (start, run) in DataRuns::new(offset as u64, &bytes) {
                let from = usize::try_from(start).unwrap() - offset;
                assert!(!run.is_empty() && (end == 0 || from > end), "round {round}");
                end = from + run.len();
                rebuilt[from..end].copy_from_slice(run);
                let mut at = start;
                let mut rest = run;
                while !rest.is_empty() {
                    let len = DataRuns::block_len(at, rest);
                    assert!(rest[..len].iter().any(|&b| b != 0), "round {round}");
                    rest = &rest[len..];
                    at += len as u64;
                }
            }
            assert_eq!(rebuilt, bytes, "round {round}");
        }
    }
}
