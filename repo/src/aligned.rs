//! A byte buffer that begins on a page boundary, so that a file system can move it to and from the
//! disk without a copy through its page cache (direct I/O).
//!
//! A large one lies in huge pages where the system has them: what is one piece of memory for the
//! disk is one entry in its list then, and not one for each 4 KiB. On a virtual machine its disk
//! gave three times as much (decision 0018). Nothing here is unsafe, and a buffer for which there
//! are none is only slower.

use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};

/// What begins, ends and lies at multiples of this, in memory and in the file, can bypass the page
/// cache on every common disk, in bytes.
pub const PAGE: usize = 4096;

/// A huge page in bytes, on most machines. Shorter buffers are not worth one.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes, the first of them at an address that is a multiple of [`PAGE`].
#[derive(Debug, Default)]
pub struct AlignedBuf {
    memory: Memory,
    len: usize,
    /// So many bytes from the front may be other than zero.
    touched: usize,
}

/// Zeros at first, of which what is never touched takes no memory.
#[derive(Debug, Default)]
enum Memory {
    #[default]
    None,
    Small {
        bytes: Vec<u8>,
        start: usize,
    },
    Large {
        map: MmapMut,
        start: usize,
    },
}

impl Memory {
    fn new(len: usize) -> Self {
        if len >= HUGE_PAGE
            && let Ok(map) = MmapMut::map_anon(len.next_multiple_of(HUGE_PAGE) + HUGE_PAGE)
        {
            let start = map.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
            // Advice: where there are no huge pages it is ordinary memory.
            let _advised = map.advise(Advice::HugePage);
            return Self::Large { map, start };
        }
        let bytes = vec![0; len + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        Self::Small { bytes, start }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let (bytes, start) = match self {
            Self::None => return &[],
            Self::Small { bytes, start } => (bytes.as_slice(), *start),
            Self::Large { map, start } => (&**map, *start),
        };
        bytes.get(start..).unwrap_or_default()
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (bytes, start) = match self {
            Self::None => return &mut [],
            Self::Small { bytes, start } => (bytes.as_mut_slice(), *start),
            Self::Large { map, start } => (&mut **map, *start),
        };
        bytes.get_mut(start..).unwrap_or_default()
    }
}

impl AlignedBuf {
    /// An empty buffer without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: Memory::None,
            len: 0,
            touched: 0,
        }
    }

    /// Takes the bytes out; the memory stays.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let end = self.len + bytes.len();
        if let Some(room) = self.memory.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
        }
        self.len = end;
        self.touched = self.touched.max(end);
    }

    /// Makes the buffer `len` bytes long; new ones are zero.
    pub fn resize(&mut self, len: usize) {
        self.reserve(len.saturating_sub(self.len));
        let stale = self.len..self.touched.min(len);
        if let Some(stale) = self.memory.get_mut(stale) {
            stale.fill(0);
        }
        self.len = len;
        self.touched = self.touched.max(len);
    }

    /// The first `len` bytes, whatever they are; the buffer grows where it is shorter, and is not
    /// cut where it is longer, so that using it again costs no clearing.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        if self.len < len {
            self.resize(len);
        }
        self.get_mut(..len).unwrap_or_default()
    }

    /// Makes room for `more` bytes behind those that are there. Memory beyond what is written to
    /// it costs nothing, so whoever knows the final length asks for all of it at once.
    pub fn reserve(&mut self, more: usize) {
        let needed = self.len + more;
        if self.memory.len() >= needed && !self.memory.is_empty() {
            return;
        }
        let mut memory = Memory::new(needed.max(self.len + self.len / 2));
        if let Some(room) = memory.get_mut(..self.len) {
            room.copy_from_slice(self);
        }
        self.memory = memory;
        self.touched = self.len;
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(..self.len).unwrap_or_default()
    }
}

/// Whether `bytes` begin on a page.
#[must_use]
pub fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(PAGE) == 0
}

/// What the kernel keeps together in its page cache is at most this long, in bytes, and begins at a
/// multiple of its length.
const MAX_FOLIO: usize = 2 << 20;

/// All that the kernel may keep together with bytes of a range, as offset and length: it forgets
/// such a thing whole or not at all.
#[must_use]
pub fn whole_folios(offset: u64, len: usize) -> (u64, usize) {
    let lead = usize::try_from(offset % MAX_FOLIO as u64).unwrap_or(0);
    let len = lead.saturating_add(len);
    let len = len.checked_next_multiple_of(MAX_FOLIO).unwrap_or(len);
    (offset.saturating_sub(lead as u64), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_covers_the_range_and_begins_and_ends_on_folios() {
        let folio = MAX_FOLIO as u64;
        for offset in [0, 1, folio - 1, folio, 5 * folio + 77] {
            for len in [1, PAGE, MAX_FOLIO, MAX_FOLIO + 1] {
                let (start, forgotten) = whole_folios(offset, len);
                let (end, all) = (offset + len as u64, start + forgotten as u64);
                assert!(start <= offset && end <= all, "{offset}+{len}");
                assert!(
                    offset - start < folio && all - end < folio,
                    "{offset}+{len}"
                );
                assert!(start.is_multiple_of(folio) && all.is_multiple_of(folio));
            }
        }
    }

    #[test]
    fn a_buffer_stays_aligned_and_whole_however_it_grows() {
        let mut buffer = AlignedBuf::new();
        let mut expected = Vec::new();
        for round in 0..200_usize {
            let part: Vec<u8> = (0..round * 37 % 9000)
                .map(|i| u8::try_from((i ^ round) % 251).unwrap())
                .collect();
            buffer.extend_from_slice(&part);
            expected.extend_from_slice(&part);
            assert!(is_aligned(&buffer));
            assert_eq!(*buffer, *expected);
        }
        buffer.resize(10);
        assert_eq!(*buffer, expected[..10]);
        buffer.resize(20);
        assert_eq!(buffer[10..], [0; 10]);
        buffer.clear();
        assert!(buffer.is_empty() && is_aligned(&buffer));
    }

    /// Grows, is cut and filled around the length from which on pages are huge.
    #[test]
    fn what_is_new_is_zero_whatever_was_there_before() {
        let mut buffer = AlignedBuf::new();
        for len in [
            HUGE_PAGE - 1,
            HUGE_PAGE,
            3 * HUGE_PAGE + 5,
            100,
            5 * HUGE_PAGE,
        ] {
            for keep in [0, 7, len / 2] {
                let kept = keep.min(buffer.len());
                buffer.resize(kept);
                let before = buffer.to_vec();
                buffer.resize(len);
                assert!(is_aligned(&buffer));
                let (old, new) = buffer.split_at_mut(before.len().min(len));
                assert!(*old == before[..old.len()], "{len}, {keep}");
                assert!(new.iter().all(|byte| *byte == 0), "{len}, {keep}");
                buffer.fill(0xA5);
                buffer.clear();
                assert!(buffer.room(len / 3).iter().all(|byte| *byte == 0));
                buffer.room(len).fill(0x5A);
            }
        }
    }

    #[test]
    fn room_grows_and_does_not_cut() {
        let mut buffer = AlignedBuf::new();
        buffer.room(8).copy_from_slice(b"abcdefgh");
        assert_eq!(buffer.room(3), b"abc");
        assert_eq!(buffer.room(8), b"abcdefgh");
        assert_eq!(buffer.room(9000).len(), 9000);
        assert!(is_aligned(&buffer));
    }

    #[test]
    fn an_empty_buffer_needs_no_memory() {
        let mut buffer = AlignedBuf::new();
        buffer.clear();
        assert!(buffer.is_empty());
        assert!(buffer.memory.is_empty());
    }
}
