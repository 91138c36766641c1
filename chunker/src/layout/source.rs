//! The bytes that recognition may ask for, from anywhere in the file, within a budget.
//!
//! Lives here: [`Source`], which every parser reads through, and [`Cursor`], which walks it byte by
//! byte. Does not live here: I/O; the caller's closure does that and keeps its own errors.
//!
//! Must stay true: whatever a header says, no more than [`BUDGET`] bytes are read in all, none are
//! allocated before it is known that the file has them, and what is missing is `None`.

use std::ops::Range;

/// Most bytes that recognition reads of one file.
const BUDGET: u64 = 64 << 20;
/// Bytes that a cursor reads at a time.
const STEP: u64 = 64 << 10;

/// Fills a buffer from an offset and says how much of it it got.
type Read<'a> = dyn FnMut(u64, &mut [u8]) -> usize + 'a;

/// A file of known length, read at places.
pub(super) struct Source<'a> {
    len: u64,
    left: u64,
    read: &'a mut Read<'a>,
}

impl<'a> Source<'a> {
    pub(super) fn new(len: u64, read: &'a mut Read<'a>) -> Self {
        Self {
            len,
            left: BUDGET,
            read,
        }
    }

    /// Length of the file.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The `N` bytes from `at` on.
    pub(super) fn array<const N: usize>(&mut self, at: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(at, &mut bytes)?;
        Some(bytes)
    }

    /// All bytes of a range that lies in the file.
    pub(super) fn bytes(&mut self, range: Range<u64>) -> Option<Vec<u8>> {
        let len = range.end.checked_sub(range.start)?;
        if range.end > self.len || len > self.left {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        self.fill(range.start, &mut bytes)?;
        Some(bytes)
    }

    fn fill(&mut self, at: u64, buffer: &mut [u8]) -> Option<()> {
        let len = u64::try_from(buffer.len()).ok()?;
        if at.checked_add(len)? > self.len {
            return None;
        }
        self.left = self.left.checked_sub(len)?;
        ((self.read)(at, buffer) == buffer.len()).then_some(())
    }
}

/// A place in a file that moves forward.
pub(super) struct Cursor<'s, 'a> {
    source: &'s mut Source<'a>,
    at: u64,
    held: Vec<u8>,
    held_at: u64,
    big_endian: bool,
}

impl<'s, 'a> Cursor<'s, 'a> {
    pub(super) fn new(source: &'s mut Source<'a>, at: u64, big_endian: bool) -> Self {
        Self {
            source,
            at,
            held: Vec::new(),
            held_at: at,
            big_endian,
        }
    }

    /// Offset of the next byte.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    /// Bytes up to the end of the file.
    pub(super) const fn left(&self) -> u64 {
        self.source.len.saturating_sub(self.at)
    }

    pub(super) fn skip(&mut self, len: u64) -> Option<()> {
        let at = self.at.checked_add(len)?;
        self.at = (at <= self.source.len).then_some(at)?;
        Some(())
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&[u8]> {
        let wanted = u64::try_from(len).ok()?;
        let held_end = self.held_at + u64::try_from(self.held.len()).ok()?;
        if self.at < self.held_at || self.at.checked_add(wanted)? > held_end {
            let end = self.at.checked_add(wanted.max(STEP))?.min(self.source.len);
            self.held = self.source.bytes(self.at..end.max(self.at))?;
            self.held_at = self.at;
        }
        let from = usize::try_from(self.at - self.held_at).ok()?;
        let taken = self.held.get(from..from.checked_add(len)?)?;
        self.at += wanted;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        let big_endian = self.big_endian;
        let bytes = *self.take(4)?.first_chunk()?;
        Some(if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        let big_endian = self.big_endian;
        let bytes = *self.take(8)?.first_chunk()?;
        Some(if big_endian {
            u64::from_be_bytes(bytes)
        } else {
            u64::from_le_bytes(bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> impl FnMut(u64, &mut [u8]) -> usize {
        move |at, buffer| {
            let rest = data.get(usize::try_from(at).unwrap()..).unwrap_or(&[]);
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            len
        }
    }

    #[test]
    fn what_the_file_does_not_have_is_none_and_nothing_is_allocated_for_it() {
        let data = [7; 100];
        let mut read = read(&data);
        let mut source = Source::new(100, &mut read);
        assert_eq!(source.array::<4>(96), Some([7; 4]));
        assert_eq!(source.array::<4>(97), None);
        assert_eq!(source.array::<4>(u64::MAX), None);
        assert_eq!(source.bytes(0..101), None);
        assert_eq!(source.bytes(0..u64::MAX), None);
        assert_eq!(source.bytes(50..60), Some(vec![7; 10]));
        let mut cursor = Cursor::new(&mut source, 98, false);
        assert_eq!(cursor.u32(), None);
        assert_eq!(cursor.skip(3), None);
        assert_eq!((cursor.skip(2), cursor.left()), (Some(()), 0));
    }

    #[test]
    fn a_file_that_is_shorter_than_it_says_is_none() {
        let data = [7; 100];
        let mut read = read(&data);
        let mut source = Source::new(1 << 40, &mut read);
        assert_eq!(source.bytes(90..110), None);
        assert_eq!(Cursor::new(&mut source, 99, true).u32(), None);
    }

    #[test]
    fn no_more_than_the_budget_is_read() {
        let mut read = |_: u64, buffer: &mut [u8]| buffer.len();
        let mut source = Source::new(u64::MAX, &mut read);
        assert!(source.bytes(0..BUDGET + 1).is_none());
        assert!(source.bytes(0..BUDGET).is_some());
        assert!(source.array::<1>(0).is_none());
    }

    #[test]
    fn a_cursor_reads_both_byte_orders_across_its_steps() {
        let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
        let mut read = read(&data);
        let mut source = Source::new(800_000, &mut read);
        let mut cursor = Cursor::new(&mut source, 0, true);
        for n in 0..1000 {
            assert_eq!(cursor.u32(), Some(n));
        }
        cursor.skip(4 * 100_000 - 2).unwrap();
        assert_eq!(cursor.take(2), Some(&[0x8A, 0x87][..]));
        assert_eq!(cursor.u64(), Some((101_000 << 32) | 101_001));
    }
}
