//! Reading regular files, and block devices in the place of such: opening without a trap, where the
//! data and the holes are, filling buffers, and noticing that a file changed under the reader.
//!
//! A [`SourceFile`] is one inode from open to close: whatever happens to the name, its content and
//! the metadata read through it belong together. In the place of the content there may be a copy of
//! it, which does not change.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{Mode, OFlags, SeekFrom, open, seek},
    io::Errno,
};

use super::{
    device::SourceDevice,
    dir::{open_quietly, read_fully},
    meta::{FileType, Stat, pin, source_error},
    walk::Entry,
};
use crate::{
    error::{Error, Result, SourceAction},
    node::Copied,
};

/// An open regular file, or a block device that is saved as one.
#[derive(Debug)]
pub struct SourceFile {
    file: Opened,
    stat: Stat,
    is_listed_file: bool,
    path: Vec<u8>,
    copy: Option<Copy>,
}

/// What is read in the place of a file's content.
#[derive(Debug)]
struct Copy {
    file: OwnedFd,
    stat: Stat,
    copied: Copied,
}

#[derive(Debug)]
enum Opened {
    File(OwnedFd),
    Device(Arc<SourceDevice>),
}

/// A piece of a file, in bytes from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Bytes to read.
    Data(Range<u64>),
    /// Nothing is stored here: reads as zeros.
    Hole(Range<u64>),
    /// The file says it is empty but has content, as files of `/proc` do: read from 0 to the end.
    Unsized,
}

/// What happened to a file while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It became longer.
    Grew,
    /// It became shorter.
    Shrank,
    /// Same length, other content or metadata.
    Modified,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Grew => "grew",
            Self::Shrank => "shrank",
            Self::Modified => "was modified",
        })
    }
}

impl SourceFile {
    /// Opens the file of an entry; `path` is for messages. A pipe or device put in its place is
    /// noticed and not waited for.
    ///
    /// # Errors
    /// [`Error::SourceVanished`], [`Error::SourceChangedType`], or the system's refusal.
    pub fn open(entry: &Entry, path: &[u8]) -> Result<Self> {
        if let Some(device) = &entry.device {
            return Ok(Self {
                file: Opened::Device(Arc::clone(device)),
                stat: *device.stat(),
                is_listed_file: true,
                path: path.to_vec(),
                copy: None,
            });
        }
        let changed_type = || Error::SourceChangedType {
            path: path.to_vec(),
        };
        let opened = open_quietly(entry.dir.as_fd(), entry.source_name(), OFlags::NOFOLLOW);
        let opened = match opened {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => open_leased(entry),
            opened => opened,
        };
        let file = opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Error::SourceVanished {
                path: path.to_vec(),
            },
            // A link, a socket, a device without a driver.
            Some(Errno::LOOP | Errno::NXIO | Errno::NODEV) => changed_type(),
            _ => source_error(SourceAction::Open, path, error),
        })?;
        let stat = Stat::of(file.as_fd());
        let stat = stat.map_err(|error| source_error(SourceAction::Stat, path, error))?;
        if stat.file_type != FileType::Regular {
            return Err(changed_type());
        }
        Ok(Self {
            is_listed_file: stat.is_same_file(&entry.stat),
            file: Opened::File(file),
            stat,
            path: path.to_vec(),
            copy: None,
        })
    }

    /// The same file with the content of a copy, which stays as it is.
    pub(super) fn with_copy(self, file: OwnedFd, stat: Stat, copied: Copied) -> Self {
        let copy = Some(Copy { file, stat, copied });
        Self { copy, ..self }
    }

    /// Of what the content is a copy, if it is one.
    #[must_use]
    pub fn copied(&self) -> Option<&Copied> {
        self.copy.as_ref().map(|copy| &copy.copied)
    }

    /// What the file was when it was opened.
    #[must_use]
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// What that was of which the content is read: the file, or a copy of it.
    #[must_use]
    pub fn content_stat(&self) -> &Stat {
        self.copy.as_ref().map_or(&self.stat, |copy| &copy.stat)
    }

    fn content(&self) -> BorrowedFd<'_> {
        self.copy
            .as_ref()
            .map_or(self.as_fd(), |copy| copy.file.as_fd())
    }

    /// False if another regular file had taken the name since the walk saw it, as programs do that
    /// replace a file by renaming: then what the walk said of size and times holds no more, and
    /// [`Self::stat`] does.
    #[must_use]
    pub fn is_listed_file(&self) -> bool {
        self.is_listed_file
    }

    /// The pieces of the content in order, without gaps, up to the size at opening. Where the file
    /// system knows nothing of holes, all is data.
    #[must_use]
    pub fn extents(&self) -> Extents<'_> {
        Extents {
            file: self,
            position: 0,
            state: if self.content_stat().size == 0 {
                Knowledge::Empty
            } else {
                Knowledge::Holes
            },
            pending: None,
        }
    }

    /// Reads at `offset` until `buffer` is full or the file ends; returns how many bytes were read.
    /// Fewer than asked for within the size at opening means that the file shrank.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut read = |file| {
            read_fully(file, buffer, offset)
                .map_err(|error| source_error(SourceAction::Read, &self.path, error))
        };
        match (&self.copy, &self.file) {
            (Some(copy), _) => read(copy.file.as_fd()),
            (None, Opened::File(file)) => read(file.as_fd()),
            (None, Opened::Device(device)) => device.read_at(offset, buffer),
        }
    }

    /// Compares the file with what it was when opened; to be asked after the last read. What is
    /// read of a copy does not change.
    ///
    /// # Errors
    /// What the system says, and [`Error::DeviceResized`].
    pub fn change(&self) -> Result<Option<Change>> {
        if self.copy.is_some() {
            return Ok(None);
        }
        if let Opened::Device(device) = &self.file {
            return device.check_size().map(|()| None);
        }
        let now = Stat::of(self.as_fd())
            .map_err(|error| source_error(SourceAction::Stat, &self.path, error))?;
        Ok(if now.size > self.stat.size {
            Some(Change::Grew)
        } else if now.size < self.stat.size {
            Some(Change::Shrank)
        } else if (now.mtime, now.ctime) != (self.stat.mtime, self.stat.ctime) {
            Some(Change::Modified)
        } else {
            None
        })
    }
}

/// Opens a file that another program holds a lease on, as file servers do, and waits for the lease
/// to be given up. To wait is safe only for a regular file, so it is pinned and looked at first.
fn open_leased(entry: &Entry) -> io::Result<OwnedFd> {
    let pinned = pin(entry)?;
    if Stat::of(pinned.as_fd())?.file_type != FileType::Regular {
        return Err(Errno::NXIO.into());
    }
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.file {
            Opened::File(file) => file.as_fd(),
            Opened::Device(device) => device.as_fd(),
        }
    }
}

/// See [`SourceFile::extents`].
#[derive(Debug)]
pub struct Extents<'a> {
    file: &'a SourceFile,
    position: u64,
    state: Knowledge,
    pending: Option<Range<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    /// The size is zero: is it true?
    Empty,
    /// The file system tells holes.
    Holes,
    /// Nothing more to say.
    Finished,
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(data) = self.pending.take() {
            self.position = data.end;
            return Some(Ok(Extent::Data(data)));
        }
        match self.state {
            Knowledge::Finished => None,
            Knowledge::Empty => {
                self.state = Knowledge::Finished;
                match self.file.read_at(0, &mut [0]) {
                    Ok(0) => None,
                    Ok(_) => Some(Ok(Extent::Unsized)),
                    Err(error) => Some(Err(error)),
                }
            }
            Knowledge::Holes if self.position >= self.file.content_stat().size => None,
            Knowledge::Holes => Some(self.seek_next().map_err(|error| {
                self.state = Knowledge::Finished;
                source_error(SourceAction::FindHoles, &self.file.path, error)
            })),
        }
    }
}

impl Extents<'_> {
    fn seek_next(&mut self) -> io::Result<Extent> {
        let size = self.file.content_stat().size;
        let begin = self.position;
        let data = match seek(self.file.content(), SeekFrom::Data(begin)) {
            Ok(data) => data.clamp(begin, size),
            // No data behind this point.
            Err(Errno::NXIO) => size,
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY | Errno::SPIPE) => {
                self.position = size;
                return Ok(Extent::Data(begin..size));
            }
            Err(errno) => return Err(errno.into()),
        };
        if data == size {
            self.position = size;
            return Ok(Extent::Hole(begin..size));
        }
        let hole = match seek(self.file.content(), SeekFrom::Hole(data)) {
            // At least one byte further, whatever the file system claims: this loop must end.
            Ok(hole) => hole.clamp(data + 1, size),
            // The file shrank: reading will tell.
            Err(Errno::NXIO) => size,
            Err(errno) => return Err(errno.into()),
        };
        if data > begin {
            self.position = data;
            self.pending = Some(data..hole);
            return Ok(Extent::Hole(begin..data));
        }
        self.position = hole;
        Ok(Extent::Data(data..hole))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
        os::unix::fs::FileExt,
        path::Path,
    };

    use super::*;
    use crate::source::{Event, Filter, FilterRules, Targets, Walk};

    fn entry(base: &Path, name: &str) -> Entry {
        let filter = Filter::compile(&FilterRules::default()).unwrap();
        Walk::new(Targets::resolve(base, &[name]), filter)
            .find_map(|event| match event {
                Event::Entry(entry) => Some(entry),
                _ => None,
            })
            .unwrap()
    }

    fn open_source(base: &Path, name: &str) -> SourceFile {
        SourceFile::open(&entry(base, name), name.as_bytes()).unwrap()
    }

    fn extents(file: &SourceFile) -> Vec<Extent> {
        file.extents().collect::<Result<_>>().unwrap()
    }

    #[test]
    fn buffers_are_filled_up_to_the_end_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), b"0123456789").unwrap();
        let file = open_source(dir.path(), "f");
        let mut buffer = [0; 6];
        assert_eq!(file.read_at(2, &mut buffer).unwrap(), 6);
        assert_eq!(&buffer, b"234567");
        assert_eq!(file.read_at(7, &mut buffer).unwrap(), 3);
        assert_eq!(file.read_at(10, &mut buffer).unwrap(), 0);
        assert_eq!(file.change().unwrap(), None);
        assert_eq!(extents(&file), [Extent::Data(0..10)]);
    }

    #[test]
    fn extents_cover_the_file_without_gaps_and_holes_read_as_zeros() {
        const MIB: u64 = 1 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let out = File::create(&path).unwrap();
        out.write_all_at(b"begin", 0).unwrap();
        out.write_all_at(b"middle", 3 * MIB).unwrap();
        out.set_len(8 * MIB + 5).unwrap();
        out.sync_all().unwrap();
        let file = open_source(dir.path(), "sparse");
        let content = fs::read(&path).unwrap();
        let mut position = 0;
        let mut holes = 0;
        for extent in extents(&file) {
            let range = match &extent {
                Extent::Data(range) => range.clone(),
                Extent::Hole(range) => {
                    holes += range.end - range.start;
                    let bytes = &content[usize::try_from(range.start).unwrap()..];
                    let len = usize::try_from(range.end - range.start).unwrap();
                    assert!(bytes[..len].iter().all(|&b| b == 0));
                    range.clone()
                }
                Extent::Unsized => panic!("the size is known"),
            };
            assert_eq!(range.start, position);
            assert!(range.end > range.start);
            position = range.end;
        }
        assert_eq!(position, 8 * MIB + 5);
        // A file system without holes has stored them all.
        assert!(
            holes > 6 * MIB || file.stat().blocks * 512 >= 8 * MIB,
            "{holes}"
        );
    }

    #[test]
    fn an_empty_file_has_no_extents_and_a_hole_only_file_one() {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("empty")).unwrap();
        File::create(dir.path().join("hole"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        assert_eq!(extents(&open_source(dir.path(), "empty")), []);
        let hole = extents(&open_source(dir.path(), "hole"));
        assert!(
            hole == [Extent::Hole(0..1 << 30)] || hole == [Extent::Data(0..1 << 30)],
            "{hole:?}"
        );
    }

    #[test]
    fn a_file_of_proc_says_nothing_of_its_size_and_is_read_all_the_same() {
        let file = open_source(Path::new("/"), "/proc/self/status");
        assert_eq!(file.stat().size, 0);
        assert_eq!(extents(&file), [Extent::Unsized]);
        let mut buffer = [0; 5];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 5);
        assert_eq!(&buffer, b"Name:");
    }

    #[test]
    fn every_kind_of_change_during_the_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let write = || File::options().write(true).open(&path).unwrap();
        fs::write(&path, b"0123456789").unwrap();
        let old = rustix::fs::Timespec {
            tv_sec: 1_000_000,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: old,
            last_modification: old,
        };
        rustix::fs::futimens(write(), &times).unwrap();

        let file = open_source(dir.path(), "f");
        write().write_all(b"X").unwrap();
        assert_eq!(file.change().unwrap(), Some(Change::Modified));
        let file = open_source(dir.path(), "f");
        write().set_len(11).unwrap();
        assert_eq!(file.change().unwrap(), Some(Change::Grew));
        let file = open_source(dir.path(), "f");
        write().set_len(3).unwrap();
        assert_eq!(file.change().unwrap(), Some(Change::Shrank));
        assert_eq!(file.read_at(0, &mut [0; 11]).unwrap(), 3);
    }

    #[test]
    fn a_leased_file_is_waited_for_but_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"content").unwrap();
        let entry = entry(dir.path(), "f");
        let file = open_leased(&entry).unwrap();
        let mut buffer = [0; 7];
        assert_eq!(read_fully(file.as_fd(), &mut buffer, 0).unwrap(), 7);
        assert_eq!(&buffer, b"content");
        fs::remove_file(&path).unwrap();
        let (mode, kind) = (Mode::RUSR, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let error = open_leased(&entry).unwrap_err();
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NXIO));
    }

    #[test]
    fn what_took_the_place_of_a_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"old").unwrap();
        let entry = entry(dir.path(), "f");
        assert!(SourceFile::open(&entry, b"f").unwrap().is_listed_file());

        fs::write(dir.path().join("new"), b"newer").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        let replaced = SourceFile::open(&entry, b"f").unwrap();
        assert!(!replaced.is_listed_file());
        assert_eq!(replaced.stat().size, 5);

        fs::remove_file(&path).unwrap();
        let gone = SourceFile::open(&entry, b"f").unwrap_err();
        assert!(matches!(gone, Error::SourceVanished { .. }), "{gone:?}");

        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        let link = SourceFile::open(&entry, b"f").unwrap_err();
        assert!(matches!(link, Error::SourceChangedType { .. }), "{link:?}");

        fs::remove_file(&path).unwrap();
        let (mode, kind) = (Mode::RUSR, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        let pipe = SourceFile::open(&entry, b"f").unwrap_err();
        assert!(matches!(pipe, Error::SourceChangedType { .. }), "{pipe:?}");
    }
}
