//! The disk below a folder: how fast it takes and gives bytes in a row, past the page cache the
//! way packs are stored and fetched, and how long it needs to make a small file last.
//!
//! What must stay true: no file that is made here has a name, so that none is left behind however
//! the program ends. Where the file system has no such files, a file is created and loses its
//! name before anything is written to it.

use std::{
    fmt, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        Advice, AtFlags, CWD, Mode, OFlags, fadvise, fcntl_getfl, fcntl_setfl, fstatfs, fstatvfs,
        fsync, openat, unlinkat,
    },
    io::{Errno, pread, pwrite, retry_on_intr},
};
use strongroom_repo::aligned::{AlignedBuf, PAGE};

use super::{Pace, sample::noise};
use crate::error::{Error, Result};

/// Fewer bytes than this say nothing about a disk.
pub const LEAST_SIZE: u64 = 1 << 20;
/// Bytes of a write or read.
const PIECE: usize = 16 << 20;
/// Bytes of a small file.
const SMALL: usize = 4096;
/// Small files made, and how many are enough where they take longer than [`PATIENCE`].
const SMALL_FILES: usize = 32;
const ENOUGH: usize = 5;
const PATIENCE: Duration = Duration::from_secs(2);
/// What file systems in memory call themselves: tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// Names tried for a file that must have one for a moment.
const NAMES: u32 = 1000;

/// What a disk does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Writing in a row, with the sync at the end.
    pub write: Pace,
    /// Reading in a row.
    pub read: Pace,
    /// Median of the time to write a small file and make it last.
    pub fsync: Duration,
    /// Whether all of it went past the page cache; if not, it was written out and dropped from
    /// there before it was read.
    pub direct: bool,
    /// Whether it is no disk at all: a file system in memory.
    pub in_memory: bool,
}

/// What was tried on a disk to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BenchAction {
    /// Opening the folder.
    Open,
    /// Asking for free space.
    Stat,
    /// Making a file without a name.
    Create,
    /// Taking away the name of a file, where there must be one for a moment.
    Remove,
    /// Writing.
    Write,
    /// Making it last.
    Sync,
    /// Reading.
    Read,
}

impl fmt::Display for BenchAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open the folder",
            Self::Stat => "ask for the free space of",
            Self::Create => "create a file in",
            Self::Remove => "remove a file in",
            Self::Write => "write a file in",
            Self::Sync => "sync a file in",
            Self::Read => "read a file in",
        })
    }
}

/// Measures the disk below `dir` with a file of `size` bytes, rounded up to whole pages.
///
/// # Errors
/// [`Error::Bench`] where the folder or its file system refuses something,
/// [`Error::BenchNoRoom`], [`Error::Cancelled`].
pub fn disk(dir: &Path, size: u64, cancel: &AtomicBool) -> Result<Disk> {
    let size = size.max(LEAST_SIZE).next_multiple_of(PAGE as u64);
    let folder = Folder::open(dir)?;
    folder.check_room(size)?;
    let fsync = folder.time_of_small_file(cancel)?;
    let mut file = folder.large_file()?;
    let mut buffer = AlignedBuf::new();
    buffer.extend_from_slice(&noise(PIECE, 1));
    let write = file.write(&mut buffer, size, cancel)?;
    let read = file.read(&mut buffer, size, cancel)?;
    Ok(Disk {
        write,
        read,
        fsync,
        direct: file.direct,
        in_memory: folder.is_in_memory(),
    })
}

struct Folder<'a> {
    path: &'a Path,
    fd: OwnedFd,
}

impl<'a> Folder<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| openat(CWD, path, flags, Mode::empty()))
            .map_err(|errno| failed(path, BenchAction::Open, errno))?;
        Ok(Self { path, fd })
    }

    fn failed(&self, action: BenchAction) -> impl Fn(Errno) -> Error {
        move |errno| failed(self.path, action, errno)
    }

    fn check_room(&self, wanted: u64) -> Result<()> {
        let about = fstatvfs(&self.fd).map_err(self.failed(BenchAction::Stat))?;
        let free = about.f_bavail.saturating_mul(about.f_frsize);
        // A file system that does not know how large it is cannot know this either.
        if about.f_blocks > 0 && free < wanted {
            let dir = self.path.to_owned();
            return Err(Error::BenchNoRoom { dir, wanted, free });
        }
        Ok(())
    }

    /// Whether its file system keeps files in memory alone. One that does not say is on a disk.
    fn is_in_memory(&self) -> bool {
        let kind = fstatfs(&self.fd).map(|about| u64::try_from(about.f_type).unwrap_or_default());
        kind.is_ok_and(|kind| IN_MEMORY.contains(&kind))
    }

    /// A new file without a name.
    fn create(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        match retry_on_intr(|| openat(&self.fd, ".", flags, mode)) {
            Ok(file) => Ok(file),
            // No such files here, or none at all: the other way tells which.
            Err(_) => self.create_by_name(),
        }
    }

    /// A new file that loses its name at once.
    fn create_by_name(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let process = rustix::process::getpid().as_raw_nonzero();
        for number in 0..NAMES {
            let name = format!(".strongroom-bench-{process}-{number}");
            let made =
                retry_on_intr(|| openat(&self.fd, name.as_str(), flags | OFlags::CLOEXEC, mode));
            match made {
                Ok(file) => {
                    unlinkat(&self.fd, name.as_str(), AtFlags::empty())
                        .map_err(self.failed(BenchAction::Remove))?;
                    return Ok(file);
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(self.path, BenchAction::Create, errno)),
            }
        }
        Err(failed(self.path, BenchAction::Create, Errno::EXIST))
    }

    /// The median over some files of writing and syncing one.
    fn time_of_small_file(&self, cancel: &AtomicBool) -> Result<Duration> {
        let content = noise(SMALL, 2);
        let mut times = Vec::new();
        let begin = Instant::now();
        while times.len() < SMALL_FILES && (times.len() < ENOUGH || begin.elapsed() < PATIENCE) {
            check(cancel)?;
            let file = self.create()?;
            let start = Instant::now();
            write_all(&file, &content).map_err(self.failed(BenchAction::Write))?;
            fsync(&file).map_err(self.failed(BenchAction::Sync))?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times.get(times.len() / 2).copied().unwrap_or_default())
    }

    fn large_file(&self) -> Result<LargeFile<'_>> {
        let fd = self.create()?;
        let direct = set_direct(&fd, true).is_ok();
        Ok(LargeFile {
            folder: self,
            fd,
            direct,
        })
    }
}

struct LargeFile<'a> {
    folder: &'a Folder<'a>,
    fd: OwnedFd,
    /// Whether transfers go past the page cache, as long as they all did.
    direct: bool,
}

impl LargeFile<'_> {
    /// Writes `size` bytes that repeat nowhere, and syncs them.
    fn write(&mut self, buffer: &mut AlignedBuf, size: u64, cancel: &AtomicBool) -> Result<Pace> {
        let failed = self.folder.failed(BenchAction::Write);
        let start = Instant::now();
        let mut at = 0;
        while at < size {
            check(cancel)?;
            stamp(buffer, at);
            let piece = part(buffer, size - at);
            match pwrite(&self.fd, piece, at) {
                Ok(0) => return Err(failed(Errno::IO)),
                Ok(written) => at += self.moved(written).map_err(&failed)?,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if self.direct => self.go_usual_way().map_err(&failed)?,
                Err(errno) => return Err(failed(errno)),
            }
        }
        fsync(&self.fd).map_err(self.folder.failed(BenchAction::Sync))?;
        let time = start.elapsed();
        Ok(Pace { bytes: size, time })
    }

    /// Reads what was written.
    fn read(&mut self, buffer: &mut AlignedBuf, size: u64, cancel: &AtomicBool) -> Result<Pace> {
        let failed = self.folder.failed(BenchAction::Read);
        if !self.direct {
            forget(&self.fd);
        }
        let start = Instant::now();
        let mut at = 0;
        while at < size {
            check(cancel)?;
            let len = part(buffer, size - at).len();
            let piece = buffer.get_mut(..len).unwrap_or_default();
            match pread(&self.fd, piece, at) {
                Ok(0) => return Err(failed(Errno::IO)),
                Ok(read) => at += self.moved(read).map_err(&failed)?,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if self.direct => {
                    self.go_usual_way().map_err(&failed)?;
                    forget(&self.fd);
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        let time = start.elapsed();
        Ok(Pace { bytes: size, time })
    }

    /// After a short transfer the rest may lie off the boundaries that direct transfers need.
    fn moved(&mut self, bytes: usize) -> rustix::io::Result<u64> {
        if self.direct && !bytes.is_multiple_of(PAGE) {
            self.go_usual_way()?;
        }
        u64::try_from(bytes).map_err(|_| Errno::IO)
    }

    fn go_usual_way(&mut self) -> rustix::io::Result<()> {
        self.direct = false;
        set_direct(&self.fd, false)
    }
}

fn failed(dir: &Path, action: BenchAction, errno: Errno) -> Error {
    Error::Bench {
        action,
        dir: dir.to_owned(),
        source: io::Error::from(errno),
    }
}

fn check(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    Ok(())
}

fn set_direct(file: &OwnedFd, direct: bool) -> rustix::io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    fcntl_setfl(file, flags)
}

/// Asks that the pages of a file which is on disk be dropped; a file system that keeps them in
/// memory anyway is as fast as memory.
fn forget(file: &OwnedFd) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

/// Makes each page differ from all others: some disks store equal ones once.
fn stamp(buffer: &mut [u8], at: u64) {
    for (page, number) in buffer.chunks_mut(PAGE).zip(at / PAGE as u64..) {
        if let Some((front, _)) = page.split_first_chunk_mut() {
            *front = number.to_le_bytes();
        }
    }
}

/// As much from the front of a buffer as is still to be moved.
fn part(buffer: &[u8], left: u64) -> &[u8] {
    let len = usize::try_from(left).unwrap_or(usize::MAX);
    buffer.get(..len).unwrap_or(buffer)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        let written = retry_on_intr(|| rustix::io::write(file.as_fd(), bytes))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_disk_is_measured_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let disk = disk(dir.path(), LEAST_SIZE + 1, &AtomicBool::new(false)).unwrap();
        let whole_pages = LEAST_SIZE + PAGE as u64;
        assert_eq!(
            (disk.write.bytes, disk.read.bytes),
            (whole_pages, whole_pages)
        );
        assert_eq!(names(dir.path()), 0);
    }

    #[test]
    fn a_file_that_needs_a_name_has_lost_it_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let file = folder.create_by_name().unwrap();
        assert_eq!(names(dir.path()), 0);
        write_all(&file, b"still a file").unwrap();
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let go_on = AtomicBool::new(false);
        for direct in [true, false] {
            let mut file = folder.large_file().unwrap();
            if !direct {
                file.go_usual_way().unwrap();
            }
            let size = LEAST_SIZE * 3;
            let mut buffer = AlignedBuf::new();
            buffer.extend_from_slice(&noise(2 << 20, 3));
            file.write(&mut buffer, size, &go_on).unwrap();
            let mut back = AlignedBuf::new();
            back.resize(1 << 20);
            file.read(&mut back, size, &go_on).unwrap();
            // The last megabyte, and the first of the second piece.
            assert!(*back == buffer[..1 << 20]);
        }
    }

    #[test]
    fn a_file_system_in_memory_is_told_from_a_disk() {
        let is_in_memory = |dir: &str| Folder::open(Path::new(dir)).unwrap().is_in_memory();
        assert!(is_in_memory("/dev/shm"));
        assert!(!is_in_memory("/proc"));
    }

    #[test]
    fn a_folder_that_is_none_and_too_little_room_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let go_on = AtomicBool::new(false);
        let missing = disk(&dir.path().join("missing"), LEAST_SIZE, &go_on);
        let open = BenchAction::Open;
        assert!(
            matches!(missing, Err(Error::Bench { action, .. }) if action == open),
            "{missing:?}"
        );
        let large = disk(dir.path(), 1 << 60, &go_on);
        assert!(
            matches!(large, Err(Error::BenchNoRoom { wanted, .. }) if wanted == 1 << 60),
            "{large:?}"
        );
        let stopped = disk(dir.path(), LEAST_SIZE, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    }
}
