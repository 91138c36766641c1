//! Directories as the walk reads them: the names in one, held compactly and sorted, and how one is
//! opened. Only descriptors and single names reach the system here, never whole paths.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat},
    io::Errno,
};

use super::filter::Marker;

/// Most bytes of names in one directory: 32-bit offsets reach no further.
pub(super) const MAX_NAME_BYTES: u64 = u32::MAX as u64;

/// Names of a directory in one piece of memory, with a cursor: a million names take about their
/// own length and five bytes each.
#[derive(Debug)]
pub(super) struct NameList {
    /// The names, each closed by a NUL.
    arena: Vec<u8>,
    /// Where each name begins.
    begins: Vec<u32>,
    next: usize,
    /// Where the last name may begin.
    pub(super) limit: u64,
}

impl Default for NameList {
    fn default() -> Self {
        Self {
            arena: Vec::new(),
            begins: Vec::new(),
            next: 0,
            limit: MAX_NAME_BYTES,
        }
    }
}

/// The list would outgrow [`MAX_NAME_BYTES`].
#[derive(Debug)]
pub(super) struct TooWide;

impl NameList {
    pub(super) fn push(&mut self, name: &[u8]) -> Result<(), TooWide> {
        let begin = u32::try_from(self.arena.len()).map_err(|_| TooWide)?;
        if u64::from(begin) > self.limit {
            return Err(TooWide);
        }
        self.begins.push(begin);
        self.arena.extend_from_slice(name);
        self.arena.push(0);
        Ok(())
    }

    /// Sorts by bytes and drops repeated names.
    pub(super) fn sort(&mut self) {
        let Self { arena, begins, .. } = self;
        begins.sort_unstable_by(|&a, &b| name_at(arena, a).cmp(name_at(arena, b)));
        begins.dedup_by(|a, b| name_at(arena, *a) == name_at(arena, *b));
        self.arena.shrink_to_fit();
        self.begins.shrink_to_fit();
    }

    /// True if the sorted list holds `name`.
    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.begins
            .binary_search_by(|&begin| name_at(&self.arena, begin).cmp(name))
            .is_ok()
    }

    /// Takes the next name.
    pub(super) fn take_next(&mut self) -> Option<&[u8]> {
        let begin = *self.begins.get(self.next)?;
        self.next += 1;
        Some(name_at(&self.arena, begin))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.begins.iter().map(|&begin| name_at(&self.arena, begin))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.next >= self.begins.len()
    }
}

fn name_at(arena: &[u8], begin: u32) -> &[u8] {
    let rest = usize::try_from(begin)
        .ok()
        .and_then(|begin| arena.get(begin..));
    rest.and_then(|rest| rest.split(|&b| b == 0).next())
        .unwrap_or_default()
}

/// Why a directory could not be listed.
#[derive(Debug)]
pub(super) enum ListFailure {
    Io(io::Error),
    TooWide,
}

/// Reads all names of an open directory, unsorted, into `names`.
pub(super) fn list(
    dir: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    names: &mut NameList,
) -> Result<(), ListFailure> {
    const BUFFER_LEN: usize = 64 << 10;
    buffer.clear();
    buffer.reserve(BUFFER_LEN);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| ListFailure::Io(errno.into()))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name).map_err(|TooWide| ListFailure::TooWide)?;
        }
    }
    Ok(())
}

/// Opens the directory `name` for listing, without marking it as read where that is allowed.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &[u8], follow: bool) -> io::Result<OwnedFd> {
    open_quietly(dir, name, OFlags::DIRECTORY | nofollow(follow))
}

/// Opens the directory `name` only to reach what is in it: needs no permission to list.
pub(super) fn open_passage(dir: BorrowedFd<'_>, name: &[u8], follow: bool) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | nofollow(follow);
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Opens for reading with `flags` and, where the system lets us, without touching the access time.
pub(super) fn open_quietly(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may ask for that.
        Err(Errno::PERM) => Ok(openat(dir, name, flags, Mode::empty())?),
        opened => Ok(opened?),
    }
}

/// What a marker file says about its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkerState {
    Absent,
    Excludes,
    /// There, but it does not start as demanded.
    Mismatch,
}

/// Looks at a marker file that the listing of `dir` names.
pub(super) fn look_at_marker(dir: BorrowedFd<'_>, marker: &Marker) -> io::Result<MarkerState> {
    if marker.header.is_empty() {
        return Ok(MarkerState::Excludes);
    }
    let stat = match statat(dir, marker.name.as_slice(), AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(MarkerState::Absent),
        stat => stat?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(MarkerState::Mismatch);
    }
    let file = open_quietly(dir, &marker.name, OFlags::empty())?;
    let mut head = vec![0; marker.header.len()];
    let read = read_fully(file.as_fd(), &mut head, 0)?;
    head.truncate(read);
    Ok(if head == marker.header {
        MarkerState::Excludes
    } else {
        MarkerState::Mismatch
    })
}

/// Reads at `offset` until `buffer` is full or the file ends; returns how much was read.
pub(super) fn read_fully(
    file: BorrowedFd<'_>,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(filled)
}

fn nofollow(follow: bool) -> OFlags {
    if follow {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn names_come_sorted_by_bytes_and_once() {
        let mut names = NameList::default();
        for name in [&b"b"[..], b"a", b"\xff", b"B", b"a", b"ab"] {
            names.push(name).unwrap();
        }
        names.sort();
        assert!(names.contains(b"ab") && !names.contains(b"abc"));
        let mut taken = Vec::new();
        while let Some(name) = names.take_next() {
            taken.push(name.to_vec());
        }
        assert_eq!(taken, [&b"B"[..], b"a", b"ab", b"b", b"\xff"]);
        assert!(names.is_finished());
    }

    #[test]
    fn listing_leaves_out_the_dots_and_spans_several_reads() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..1500 {
            File::create(dir.path().join(format!("a-rather-long-name-{number:05}"))).unwrap();
        }
        let open = File::open(dir.path()).unwrap();
        let mut names = NameList::default();
        list(open.as_fd(), &mut Vec::new(), &mut names).unwrap();
        names.sort();
        assert_eq!(names.iter().count(), 1500);
        assert_eq!(names.take_next(), Some(&b"a-rather-long-name-00000"[..]));
    }

    #[test]
    fn a_marker_counts_only_with_its_header() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tag"), b"head and more").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let open = File::open(dir.path()).unwrap();
        let state = |name: &str, header: &str| {
            let marker = Marker {
                name: name.as_bytes().to_vec(),
                header: header.as_bytes().to_vec(),
            };
            look_at_marker(open.as_fd(), &marker).unwrap()
        };
        assert_eq!(state("tag", "head"), MarkerState::Excludes);
        assert_eq!(state("tag", ""), MarkerState::Excludes);
        assert_eq!(state("tag", "heal"), MarkerState::Mismatch);
        assert_eq!(
            state("tag", "head and more than that"),
            MarkerState::Mismatch
        );
        assert_eq!(state("folder", "head"), MarkerState::Mismatch);
        assert_eq!(state("gone", "head"), MarkerState::Absent);
    }
}
