//! A block device, or a file that is used like one, read and written past the page cache.
//!
//! For a device this is more than speed. A file system that is mounted on it writes the content of
//! files past the cache of the device, so what a read through that cache once found there would be
//! found again, however old; a direct read is what the disk has. Where direct I/O is refused, the
//! cache is used and emptied around every read.

use std::{
    io,
    num::NonZeroU64,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{Advice, CWD, Mode, OFlags, SeekFrom, fadvise, fcntl_getfl, fcntl_setfl, openat, seek},
    io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2},
};
use strongroom_repo::aligned::{AlignedBuf, PAGE, is_aligned, whole_folios};

/// An open device or file. Threads share it as it is.
#[derive(Debug)]
pub(crate) struct Raw {
    file: OwnedFd,
    /// The same once more for what is no whole page, where it is written to.
    pages: Option<OwnedFd>,
    direct: AtomicBool,
    /// Memory of reads that are done: as many as there are readers at once.
    spare: Mutex<Vec<AlignedBuf>>,
}

/// What the system refused, and at which byte.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) offset: u64,
    pub(crate) source: io::Error,
}

impl Refused {
    fn at(offset: u64, errno: Errno) -> Self {
        let source = errno.into();
        Self { offset, source }
    }
}

impl Raw {
    /// Takes an open file over for reading.
    pub(crate) fn new(file: OwnedFd) -> Self {
        let direct = fcntl_getfl(&file)
            .and_then(|flags| fcntl_setfl(&file, flags | OFlags::DIRECT))
            .is_ok();
        Self {
            file,
            pages: None,
            direct: AtomicBool::new(direct),
            spare: Mutex::default(),
        }
    }

    /// Takes an open file over for reading and writing.
    pub(crate) fn writable(file: OwnedFd) -> rustix::io::Result<Self> {
        let path = crate::restore::apply::proc_path(&file);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let pages = openat(CWD, path.as_c_str(), flags, Mode::empty())?;
        Ok(Self {
            pages: Some(pages),
            ..Self::new(file)
        })
    }

    /// Its length in bytes, now.
    pub(crate) fn size(&self) -> rustix::io::Result<u64> {
        seek(&self.file, SeekFrom::End(0))
    }

    /// Reads at `offset` until `out` is full or the file ends; returns how much was read.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<usize, Refused> {
        let lead = in_page(offset);
        let mut memory = self.spare().pop().unwrap_or_default();
        let room = memory.room((lead + out.len()).next_multiple_of(PAGE));
        let got = self.read_pages(offset - to_u64(lead), room);
        let read = got.map(|got| {
            let got = got.saturating_sub(lead).min(out.len());
            let (from, to) = (room.get(lead..lead + got), out.get_mut(..got));
            if let (Some(from), Some(to)) = (from, to) {
                to.copy_from_slice(from);
            }
            got
        });
        self.spare().push(memory);
        read
    }

    /// The same for whole pages, into memory that begins on a page.
    pub(crate) fn read_pages(&self, offset: u64, out: &mut [u8]) -> Result<usize, Refused> {
        self.leave_cache(offset, out.len());
        let read = self.fill(offset, out);
        self.leave_cache(offset, out.len());
        read.map_err(|errno| Refused::at(self.first_refused(offset, out), errno))
    }

    fn fill(&self, offset: u64, out: &mut [u8]) -> rustix::io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let direct = self.direct.load(Ordering::Relaxed);
            match pread(&self.file, rest, offset + to_u64(filled)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if direct => self.give_up_direct(),
                Err(errno) => return Err(errno),
            }
        }
        Ok(filled)
    }

    /// Where in a range that could not be read the first page is that cannot.
    fn first_refused(&self, offset: u64, memory: &mut [u8]) -> u64 {
        let (mut start, mut len) = (offset, memory.len());
        while len > PAGE {
            let half = (len / 2).next_multiple_of(PAGE);
            let front = memory.get_mut(..half).unwrap_or_default();
            if self.fill(start, front).is_ok() {
                start += to_u64(half);
                len -= half;
            } else {
                len = half;
            }
        }
        start
    }

    /// Writes `bytes` at `offset`; they lie as far from a page boundary in memory as they will in
    /// the file. What the disk refuses is told here and not only by [`Self::sync`], as long as
    /// writes go past the cache.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let head = (PAGE - in_page(offset)) % PAGE;
        let (head, rest) = bytes.split_at(head.min(bytes.len()));
        let (middle, tail) = rest.split_at(rest.len() / PAGE * PAGE);
        let behind = |part: &[u8], offset: u64| offset + to_u64(part.len());
        let from = behind(head, offset);
        self.write_part(offset, head)?;
        if self.direct.load(Ordering::Relaxed) && is_aligned(middle) {
            self.write_direct(from, middle)?;
        } else {
            self.write_part(from, middle)?;
        }
        self.write_part(behind(middle, from), tail)
    }

    fn write_direct(&self, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        write_all(offset, bytes, |rest, at| {
            let direct = self.direct.load(Ordering::Relaxed);
            match pwrite(&self.file, rest, at) {
                Err(Errno::INVAL) if direct => {
                    self.give_up_direct();
                    pwrite(&self.file, rest, at)
                }
                written => written,
            }
        })
    }

    /// Through the cache, and on to the disk at once where everything else is on it. The kernel
    /// fills the rest of a page from the cache if it has the page, and that may be old where
    /// somebody else has kept the device open: the rest would be written back as it once was. So
    /// the cache forgets the page first. Not read and written again past the cache by us, since two
    /// threads may write parts of one page, which the kernel keeps apart and we would not.
    fn write_part(&self, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let Some(pages) = &self.pages else {
            return write_all(offset, bytes, |_, _| Err(Errno::BADF));
        };
        if !bytes.is_empty() {
            forget_pages(pages, offset, bytes.len());
        }
        write_all(offset, bytes, |rest, at| {
            if self.direct.load(Ordering::Relaxed) {
                let slice = [io::IoSlice::new(rest)];
                match pwritev2(pages, &slice, at, ReadWriteFlags::DSYNC) {
                    Err(Errno::NOSYS | Errno::OPNOTSUPP) => {}
                    written => return written,
                }
            }
            pwrite(pages, rest, at)
        })
    }

    /// Waits until everything is on the disk.
    pub(crate) fn sync(&self) -> rustix::io::Result<()> {
        rustix::fs::fsync(&self.file)
    }

    /// Goes through the cache from now on. Several threads may find out at once: each sees to it
    /// before it goes on.
    fn give_up_direct(&self) {
        let flags = fcntl_getfl(&self.file);
        let _still_direct = flags.and_then(|flags| fcntl_setfl(&self.file, flags - OFlags::DIRECT));
        self.direct.store(false, Ordering::Relaxed);
    }

    /// Lets the cache forget a range, where the cache is used.
    fn leave_cache(&self, offset: u64, len: usize) {
        if !self.direct.load(Ordering::Relaxed) {
            forget_pages(&self.file, offset, len);
        }
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<AlignedBuf>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Lets the cache forget all pages of which a range has a part, as far as they are on the disk: of
/// what the kernel keeps together no part is forgotten.
fn forget_pages(file: &OwnedFd, offset: u64, len: usize) {
    let (start, len) = whole_folios(offset, len);
    if let Some(len) = NonZeroU64::new(to_u64(len)) {
        // Advice: other programs lose some of what they had in memory.
        let _kept = fadvise(file, start, Some(len), Advice::DontNeed);
    }
}

fn write_all(
    mut offset: u64,
    mut bytes: &[u8],
    write: impl Fn(&[u8], u64) -> rustix::io::Result<usize>,
) -> Result<(), Refused> {
    while !bytes.is_empty() {
        match write(bytes, offset) {
            Ok(0) => return Err(Refused::at(offset, Errno::IO)),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += to_u64(written);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Refused::at(offset, errno)),
        }
    }
    Ok(())
}

/// How far into its page a byte lies.
pub(crate) fn in_page(offset: u64) -> usize {
    usize::try_from(offset % PAGE as u64).unwrap_or(0)
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len)
            .map(|at| u8::try_from(at * 7 % 251).unwrap())
            .collect()
    }

    fn open(content: &[u8]) -> (tempfile::NamedTempFile, Raw) {
        let temp = tempfile::NamedTempFile::new().unwrap();
        fs::write(temp.path(), content).unwrap();
        let file = fs::File::options().read(true).write(true).open(temp.path());
        let raw = Raw::writable(file.unwrap().into()).unwrap();
        (temp, raw)
    }

    #[test]
    fn any_range_is_read_up_to_the_end_with_and_without_the_cache() {
        let content = pattern(100_001);
        let (_temp, raw) = open(&content);
        for direct in [true, false] {
            if !direct {
                raw.give_up_direct();
            }
            for (offset, len) in [(0, 1), (1, 4096), (4095, 2), (5000, 50_000), (96_000, 9000)] {
                let mut out = vec![0; len];
                let got = raw.read(offset, &mut out).unwrap();
                let from = usize::try_from(offset).unwrap();
                let end = (from + len).min(content.len());
                assert_eq!(got, end - from);
                assert!(out[..got] == content[from..end], "{offset} {len} {direct}");
            }
            assert_eq!(raw.read(100_001, &mut [0; 10]).unwrap(), 0);
        }
        assert_eq!(raw.size().unwrap(), 100_001);
    }

    #[test]
    fn any_range_is_written_and_nothing_beside_it() {
        let mut content = pattern(100_001);
        let (temp, raw) = open(&content);
        for direct in [true, false] {
            if !direct {
                raw.give_up_direct();
            }
            for (offset, len) in [
                (0, 4096),
                (1, 1),
                (4000, 10_000),
                (8192, 0),
                (90_000, 10_001),
            ] {
                let lead = in_page(offset);
                let mut memory = AlignedBuf::new();
                memory.resize(lead);
                let bytes: Vec<u8> = (0..len)
                    .map(|at| u8::try_from((at + usize::from(direct)) % 13).unwrap())
                    .collect();
                memory.extend_from_slice(&bytes);
                raw.write(offset, memory.get(lead..).unwrap()).unwrap();
                let from = usize::try_from(offset).unwrap();
                content[from..from + len].copy_from_slice(&bytes);
                raw.sync().unwrap();
                assert!(
                    fs::read(temp.path()).unwrap() == content,
                    "{offset} {len} {direct}"
                );
            }
        }
    }

    #[test]
    fn what_is_open_for_reading_is_not_written() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let raw = Raw::new(fs::File::open(temp.path()).unwrap().into());
        let refused = raw.write(7, &[1; 3]).unwrap_err();
        assert_eq!(refused.offset, 7);
        assert_eq!(fs::read(temp.path()).unwrap(), b"");
    }
}
