//! Reads from the medium itself give what any other read gives, and fail as it fails. That memory
//! does not answer in its place can be told of one backend only, by a test of that backend.

use super::{Subject, kind_of, one_of_each, pack, put};
use crate::{aligned::AlignedBuf, backend::BackendErrorKind};

pub(super) fn the_medium_has_the_bytes_that_were_put(subject: &Subject) {
    let store = subject.store();
    for (number, len) in (0_u8..).zip([0, 1, 4095, 4096, 10_000, (2 << 20) + 4096 + 77]) {
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        let name = pack(number);
        put(store, name, &bytes);
        let ranges = [
            (0, len),
            (0, 1),
            (7, 7),
            (len, len),
            (len.saturating_sub(1), len),
            (4095, 4097),
            (4096, len),
            (5000, 9999),
            (5001, len),
            (8191, (1 << 20) + 9000),
        ];
        let inside = |(start, end): &(usize, usize)| start <= end && *end <= len;
        for (start, end) in ranges.into_iter().filter(inside) {
            // A backend may take another way for memory that begins on a page.
            let mut pages = AlignedBuf::new();
            let room = pages.room(end - start);
            for out in [&mut vec![0xee; end - start][..], room] {
                store.read_stored(&name, start as u64, out).unwrap();
                assert!(bytes.get(start..end) == Some(&*out), "{start}..{end} {len}");
                out.fill(0xee);
                store.read_at(&name, start as u64, out).unwrap();
                assert!(bytes.get(start..end) == Some(&*out), "{start}..{end} {len}");
            }
        }
    }
    for name in one_of_each() {
        store.replace_verified(&name, b"the first").unwrap();
        let mut out = [0; 9];
        store.read_stored(&name, 0, &mut out).unwrap();
        assert_eq!(&out, b"the first", "{name}");
        store.replace_verified(&name, b"another").unwrap();
        let mut out = [0; 5];
        store.read_stored(&name, 2, &mut out).unwrap();
        assert_eq!(&out, b"other", "{name}");
    }
}

pub(super) fn what_the_medium_has_not_is_told_as_ever(subject: &Subject) {
    let store = subject.store();
    let len = (1 << 20) + 5000;
    let name = pack(1);
    put(store, name, &vec![5; len]);
    let mut pages = AlignedBuf::new();
    for (start, more) in [(0, 1), (1, 1), (4096, 1), (0, 1 << 20), (len as u64, 1)] {
        let wanted = len - usize::try_from(start).unwrap() + more;
        let result = store.read_stored(&name, start, pages.room(wanted));
        let too_short = Some(BackendErrorKind::TooShort);
        assert_eq!(kind_of(result), too_short, "{start}+{wanted}");
    }
    for (start, len) in [(len as u64 + 1, 0), (u64::MAX, 0), (u64::MAX, 1)] {
        let result = store.read_stored(&name, start, &mut vec![0; len]);
        let too_short = Some(BackendErrorKind::TooShort);
        assert_eq!(kind_of(result), too_short, "{start}+{len}");
    }
    store.delete(&name).unwrap();
    for name in one_of_each().into_iter().chain([name]) {
        for len in [0, 1, 1 << 20] {
            let result = store.read_stored(&name, 0, pages.room(len));
            let not_found = Some(BackendErrorKind::NotFound);
            assert_eq!(kind_of(result), not_found, "{name} {len}");
        }
    }
}
