//! The system calls of the local backend, as a table with two implementors: [`Linux`] and, in the
//! tests, one that fails on demand. Nothing here decides anything: each method is one call (or
//! one call repeated after an interruption).

use std::{
    fmt,
    io::{IoSlice, IoSliceMut},
    num::NonZeroU64,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{
        Advice, AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags,
        Stat, StatVfs,
    },
    io::{Errno, ReadWriteFlags, Result},
};

/// What the backend asks about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStat {
    /// Length in bytes.
    pub len: u64,
    /// Number of names it has.
    pub links: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// How to take a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockMode {
    /// Together with others, waiting for an exclusive holder to let go.
    Shared,
    /// Alone, or not at all.
    TryExclusive,
}

/// What happens to a name that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The call fails with `EEXIST`.
    Refuse,
    /// The file of that name is replaced.
    Replace,
}

/// The system calls that the backend makes; paths are relative to `dir`.
pub(super) trait Sys: Send + Sync + fmt::Debug {
    fn open(&self, dir: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd>;
    fn write(&self, file: BorrowedFd<'_>, parts: &[IoSlice<'_>], offset: u64) -> Result<usize>;
    /// Fills `parts` one after the other.
    fn read(
        &self,
        file: BorrowedFd<'_>,
        parts: &mut [IoSliceMut<'_>],
        offset: u64,
    ) -> Result<usize>;
    /// Whether what is read and written from now on goes past the page cache.
    fn set_direct(&self, file: BorrowedFd<'_>, direct: bool) -> Result<()>;
    /// Keeps the kernel from reading ahead of what is asked for.
    fn expect_random(&self, file: BorrowedFd<'_>) -> Result<()>;
    /// Whether the byte at `offset` is in the page cache.
    fn is_cached(&self, file: BorrowedFd<'_>, offset: u64) -> Result<bool>;
    /// Lets the page cache forget a range, as far as it is on the disk.
    fn drop_cached(&self, file: BorrowedFd<'_>, offset: u64, len: usize);
    fn sync(&self, file: BorrowedFd<'_>) -> Result<()>;
    fn stat(&self, file: BorrowedFd<'_>) -> Result<FileStat>;
    fn stat_at(&self, dir: BorrowedFd<'_>, path: &Path) -> Result<FileStat>;
    fn set_mode(&self, file: BorrowedFd<'_>, mode: Mode) -> Result<()>;
    fn link(&self, dir: BorrowedFd<'_>, from: &str, to: &str) -> Result<()>;
    fn rename(&self, dir: BorrowedFd<'_>, from: &str, to: &str, taken: Taken) -> Result<()>;
    fn unlink(&self, dir: BorrowedFd<'_>, path: &str) -> Result<()>;
    /// Makes a folder with exactly `mode`, whatever the umask.
    fn make_dir(&self, dir: BorrowedFd<'_>, path: &Path, mode: Mode) -> Result<()>;
    /// The names in a folder that are valid UTF-8, without `.` and `..`.
    fn names(&self, dir: BorrowedFd<'_>, path: &str) -> Result<Vec<String>>;
    fn allocate(&self, file: BorrowedFd<'_>, len: u64) -> Result<()>;
    /// Bytes that an ordinary user may still write.
    fn free_bytes(&self, dir: BorrowedFd<'_>) -> Result<u64>;
    /// Whether the file system is one that a single machine has mounted.
    fn is_local(&self, dir: BorrowedFd<'_>) -> Result<bool>;
    /// What tells this start of this machine from any other.
    fn boot_id(&self) -> Result<Vec<u8>>;
    /// Takes a lock that ends with the file descriptor; false if somebody else holds it.
    fn lock(&self, file: BorrowedFd<'_>, mode: LockMode) -> Result<bool>;
}

/// The numbers of file systems (`statfs.f_type`) on which no other machine can hold a lock: ext,
/// XFS, Btrfs, ZFS, F2FS, bcachefs, tmpfs, overlay, FAT, exFAT, NTFS. Of any other it is not known.
const LOCAL_FILE_SYSTEMS: [u32; 11] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x2fc1_2fc1,
    0xf2f5_2010,
    0xca45_1a4e,
    0x0102_1994,
    0x794c_7630,
    0x4d44,
    0x2011_bab0,
    0x7366_746e,
];

/// The real calls.
#[derive(Debug)]
pub(super) struct Linux;

impl Sys for Linux {
    fn open(&self, dir: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        rustix::io::retry_on_intr(|| {
            rustix::fs::openat(dir, path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, mode)
        })
    }

    fn write(&self, file: BorrowedFd<'_>, parts: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        rustix::io::pwritev(file, parts, offset)
    }

    fn read(
        &self,
        file: BorrowedFd<'_>,
        parts: &mut [IoSliceMut<'_>],
        offset: u64,
    ) -> Result<usize> {
        rustix::io::preadv(file, parts, offset)
    }

    fn set_direct(&self, file: BorrowedFd<'_>, direct: bool) -> Result<()> {
        let mut flags = rustix::fs::fcntl_getfl(file)?;
        flags.set(OFlags::DIRECT, direct);
        rustix::fs::fcntl_setfl(file, flags)
    }

    fn expect_random(&self, file: BorrowedFd<'_>) -> Result<()> {
        rustix::fs::fadvise(file, 0, None, Advice::Random)
    }

    fn is_cached(&self, file: BorrowedFd<'_>, offset: u64) -> Result<bool> {
        let mut byte = [0];
        let mut out = [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, &mut out, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read > 0),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn drop_cached(&self, file: BorrowedFd<'_>, offset: u64, len: usize) {
        // Advice: a file system that does not take it has no cache of ours, or keeps it.
        let len = u64::try_from(len).ok().and_then(NonZeroU64::new);
        let _kept = rustix::fs::fadvise(file, offset, len, Advice::DontNeed);
    }

    fn sync(&self, file: BorrowedFd<'_>) -> Result<()> {
        // Not repeated after an interruption: only the first answer says what became of the data.
        rustix::fs::fsync(file)
    }

    fn stat(&self, file: BorrowedFd<'_>) -> Result<FileStat> {
        Ok(file_stat(&rustix::fs::fstat(file)?))
    }

    fn stat_at(&self, dir: BorrowedFd<'_>, path: &Path) -> Result<FileStat> {
        let stat = rustix::fs::statat(dir, path, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(file_stat(&stat))
    }

    fn set_mode(&self, file: BorrowedFd<'_>, mode: Mode) -> Result<()> {
        without_modes(rustix::fs::fchmod(file, mode))
    }

    fn link(&self, dir: BorrowedFd<'_>, from: &str, to: &str) -> Result<()> {
        rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())
    }

    fn rename(&self, dir: BorrowedFd<'_>, from: &str, to: &str, taken: Taken) -> Result<()> {
        match taken {
            Taken::Refuse => rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE),
            Taken::Replace => rustix::fs::renameat(dir, from, dir, to),
        }
    }

    fn unlink(&self, dir: BorrowedFd<'_>, path: &str) -> Result<()> {
        rustix::fs::unlinkat(dir, path, AtFlags::empty())
    }

    fn make_dir(&self, dir: BorrowedFd<'_>, path: &Path, mode: Mode) -> Result<()> {
        rustix::fs::mkdirat(dir, path, mode)?;
        without_modes(rustix::fs::chmodat(dir, path, mode, AtFlags::empty()))
    }

    fn names(&self, dir: BorrowedFd<'_>, path: &str) -> Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let folder = self.open(dir, path.as_ref(), flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::new(folder)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn allocate(&self, file: BorrowedFd<'_>, len: u64) -> Result<()> {
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len))
    }

    fn free_bytes(&self, dir: BorrowedFd<'_>) -> Result<u64> {
        let StatVfs {
            f_bavail, f_frsize, ..
        } = rustix::fs::fstatvfs(dir)?;
        Ok(f_bavail.saturating_mul(f_frsize))
    }

    fn is_local(&self, dir: BorrowedFd<'_>) -> Result<bool> {
        let kind = i128::from(rustix::fs::fstatfs(dir)?.f_type);
        Ok(LOCAL_FILE_SYSTEMS
            .iter()
            .any(|local| i128::from(*local) == kind))
    }

    fn boot_id(&self) -> Result<Vec<u8>> {
        std::fs::read("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn lock(&self, file: BorrowedFd<'_>, mode: LockMode) -> Result<bool> {
        let operation = match mode {
            LockMode::Shared => FlockOperation::LockShared,
            LockMode::TryExclusive => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::io::retry_on_intr(|| rustix::fs::flock(file, operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

/// Modes are hygiene, not safety: a file system that has none (FAT, some network shares) refuses
/// to set them, and the repository works there all the same.
fn without_modes(result: Result<()>) -> Result<()> {
    match result {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

fn file_stat(stat: &Stat) -> FileStat {
    FileStat {
        len: u64::try_from(stat.st_size).unwrap_or(0),
        links: widen(stat.st_nlink),
        is_file: FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
    }
}

/// The system's type for a count of links has 32 or 64 bits, by architecture.
fn widen(count: impl Into<u64>) -> u64 {
    count.into()
}
