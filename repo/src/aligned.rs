//! A byte buffer that begins on a page boundary, so that a file system can move it to and from the
//! disk without a copy through its page cache (direct I/O). No more than a `Vec<u8>` with its first
//! bytes left unused: nothing here is unsafe, and a buffer that happens not to be aligned is only
//! slower.

use std::ops::{Deref, DerefMut};

/// What begins, ends and lies at multiples of this, in memory and in the file, can bypass the page
/// cache on every common disk, in bytes.
pub const PAGE: usize = 4096;

/// Bytes, the first of them at an address that is a multiple of [`PAGE`].
#[derive(Debug, Default)]
pub struct AlignedBuf {
    memory: Vec<u8>,
    /// Where the first byte is, in `memory`.
    start: usize,
}

impl AlignedBuf {
    /// An empty buffer without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            memory: Vec::new(),
            start: 0,
        }
    }

    /// Takes the bytes out; the memory stays.
    pub fn clear(&mut self) {
        self.memory.truncate(self.start);
    }

    /// Appends `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.memory.extend_from_slice(bytes);
    }

    /// Makes the buffer `len` bytes long; new ones are zero.
    pub fn resize(&mut self, len: usize) {
        self.reserve(len.saturating_sub(self.len()));
        self.memory.resize(self.start + len, 0);
    }

    /// The first `len` bytes, whatever they are; the buffer grows where it is shorter, and is not
    /// cut where it is longer, so that using it again costs no clearing.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        if self.len() < len {
            self.resize(len);
        }
        self.get_mut(..len).unwrap_or_default()
    }

    /// Makes room for `more` bytes behind those that are there. Memory beyond what is written to
    /// it costs nothing, so whoever knows the final length asks for all of it at once.
    pub fn reserve(&mut self, more: usize) {
        if self.memory.capacity() - self.memory.len() >= more && self.memory.capacity() > 0 {
            return;
        }
        let len = self.len();
        let capacity = (len + more).max(len + len / 2);
        let mut memory: Vec<u8> = Vec::with_capacity(capacity + PAGE);
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        memory.resize(start, 0);
        memory.extend_from_slice(self);
        self.memory = memory;
        self.start = start;
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..).unwrap_or_default()
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
        assert_eq!(buffer.memory.capacity(), 0);
    }
}
