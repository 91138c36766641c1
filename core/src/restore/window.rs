//! What a batch has of a long file, laid out in memory as it will be in the file. Blobs come in the
//! order of the packs, not of the file; put together they are written in few large pieces.

use std::ops::Range;

use strongroom_repo::aligned::{AlignedBuf, PAGE};

use super::direct::{MIN_WRITE, in_page};

/// A stretch of one file in the memory of a worker. Not contiguous content is one window as long
/// as the gaps are no more than the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Where the memory of the window begins.
    at: usize,
    /// Where the window begins in the file.
    start: u64,
    len: usize,
}

/// Lays out windows one after the other.
#[derive(Debug, Default)]
pub(super) struct Layout {
    end: usize,
}

impl Layout {
    /// A window for the content that lies in `range` of a file and is `bytes` long without gaps;
    /// `None` where it is too little or too scattered.
    pub(super) fn window(&mut self, range: Range<u64>, bytes: u64) -> Option<Window> {
        let len = range.end.checked_sub(range.start)?;
        if bytes < MIN_WRITE as u64 || len > bytes.saturating_mul(2) {
            return None;
        }
        let len = usize::try_from(len).ok()?;
        let at = self.end.next_multiple_of(PAGE) + in_page(range.start);
        self.end = at.checked_add(len)?;
        Some(Window {
            at,
            start: range.start,
            len,
        })
    }

    /// Makes room for all windows.
    pub(super) fn make_room(&self, memory: &mut AlignedBuf) {
        memory.room(self.end);
    }
}

impl Window {
    /// The memory of `len` bytes of content at `offset` of the file; `None` outside the window.
    pub(super) fn place(&self, offset: u64, len: u64) -> Option<Range<usize>> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        (to <= self.len).then(|| self.at + from..self.at + to)
    }
}

/// Joins neighbours among ranges that are in order.
pub(super) fn joined(ranges: impl Iterator<Item = Range<u64>>) -> impl Iterator<Item = Range<u64>> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let mut joined = ranges.next()?;
        while let Some(next) = ranges.next_if(|next| next.start == joined.end) {
            joined.end = next.end;
        }
        Some(joined)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_keep_the_place_of_their_content_in_its_page_and_do_not_overlap() {
        let mut layout = Layout::default();
        let (mib, mut last) = (1_u64 << 20, 0);
        for start in [0_u64, 1, 4095, 4096, 123_456_789] {
            let window = layout.window(start..start + mib, mib).unwrap();
            let place = window.place(start, mib).unwrap();
            assert_eq!(place.start % PAGE, in_page(start));
            assert!(place.start >= last);
            last = place.end;
            assert_eq!(
                window.place(start + 10, 20),
                Some(place.start + 10..place.start + 30)
            );
            assert_eq!(window.place(start, mib + 1), None);
            assert_eq!(window.place(start + mib, 1), None);
            assert_eq!(
                start.checked_sub(1).and_then(|at| window.place(at, 1)),
                None
            );
        }
        let mut memory = AlignedBuf::new();
        layout.make_room(&mut memory);
        assert_eq!(memory.len(), last);
    }

    #[test]
    fn little_or_scattered_content_has_no_window() {
        let mut layout = Layout::default();
        assert_eq!(layout.window(0..1000, 1000), None);
        assert_eq!(layout.window(0..5 << 20, 1 << 20), None);
        assert!(layout.window(0..2 << 20, 1 << 20).is_some());
    }

    #[test]
    fn neighbours_are_joined() {
        let joined: Vec<_> = joined([0..5, 5..9, 10..11, 11..12, 20..21].into_iter()).collect();
        assert_eq!(joined, [0..9, 10..12, 20..21]);
    }
}
