//! Large objects past the page cache: whatever the file system answers, the bytes are the same.

use std::ops::Range;

use super::*;
use crate::aligned::{AlignedBuf, PAGE};

/// Bytes on page boundaries, three MiB and a bit, no two pages alike.
fn large() -> AlignedBuf {
    let mut buffer = AlignedBuf::new();
    for number in 0..(3 << 17) + 77_u64 {
        buffer.extend_from_slice(&number.to_le_bytes());
    }
    buffer
}

/// On a disk, and so where the build lies: the folder for what is temporary may be in memory, which
/// has its own idea of direct I/O.
fn fresh_on_disk(plan: &[(Call, u64, Act)]) -> (TempDir, LocalBackend, Arc<FaultySys>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tests");
    fs::create_dir_all(&folder).unwrap();
    let (dir, store) = fresh_in(tempfile::tempdir_in(folder).unwrap());
    drop(store);
    let sys = Arc::new(FaultySys::new(plan));
    let path = dir.path().join("repo");
    let store = LocalBackend::open_with(&path, options(RUN), Arc::clone(&sys) as _).unwrap();
    (dir, store, sys)
}

#[rstest]
#[case::nothing_fails(&[])]
#[case::no_direct_io_here(&[(Call::SetDirect, 1, Act::Fail(Errno::INVAL))])]
#[case::a_transfer_is_refused(&[(Call::Write, 1, Act::Fail(Errno::INVAL))])]
#[case::a_second_transfer_is_refused(
    &[(Call::Write, 1, Act::Short(4096)), (Call::Write, 2, Act::Fail(Errno::INVAL))]
)]
#[case::it_is_interrupted(&[(Call::Write, 1, Act::Fail(Errno::INTR))])]
#[case::it_stops_on_a_page(&[(Call::Write, 1, Act::Short(8192))])]
#[case::it_stops_within_a_page(&[(Call::Write, 1, Act::Short(5000))])]
fn a_large_object_is_written_whole(#[case] plan: &[(Call, u64, Act)]) {
    let (_dir, store, sys) = fresh_on_disk(plan);
    let bytes = large();
    assert_eq!(put(&store, PACK, &bytes), PutOutcome::Created);
    assert!(sys.all_struck());
    assert!(*store.read_all(&PACK, 1 << 30).unwrap() == *bytes);
}

#[test]
fn a_failed_direct_write_is_told_and_leaves_nothing() {
    for errno in [Errno::NOSPC, Errno::IO] {
        let (_dir, store, _) = fresh_on_disk(&[(Call::Write, 1, Act::Fail(errno))]);
        let result = store.put_if_absent(&PACK, &[&large()]);
        assert!(result.is_err(), "{errno}");
        assert_eq!(temps(&store), [""; 0]);
        assert_eq!(kind_of(store.len(&PACK)), Some(BackendErrorKind::NotFound));
    }
}

#[rstest]
#[case::nothing_fails(&[])]
#[case::no_direct_io_here(&[(Call::Open, 3, Act::Fail(Errno::INVAL))])]
#[case::no_file_left_to_open(&[(Call::Open, 3, Act::Fail(Errno::MFILE))])]
#[case::none_left_to_ask(&[(Call::Open, 2, Act::Fail(Errno::MFILE))])]
#[case::no_advice_is_taken(&[(Call::ExpectRandom, 1, Act::Fail(Errno::INVAL))])]
#[case::no_answer_from_the_cache(&[(Call::IsCached, 1, Act::Fail(Errno::OPNOTSUPP))])]
#[case::a_transfer_is_refused(&[(Call::Read, 1, Act::Fail(Errno::INVAL))])]
#[case::it_is_interrupted(&[(Call::Read, 1, Act::Fail(Errno::INTR))])]
#[case::it_stops_on_a_page(&[(Call::Read, 1, Act::Short(8192))])]
#[case::it_stops_within_a_page(&[(Call::Read, 1, Act::Short(5000))])]
fn a_large_range_is_read_whole(#[case] plan: &[(Call, u64, Act)]) {
    let (_dir, store, _) = fresh_on_disk(&[]);
    let bytes = large();
    assert_eq!(put(&store, PACK, &bytes), PutOutcome::Created);
    // What lies behind the last whole page went through the cache, where it would be looked for.
    let file = fs::File::open(store.path.join(PACK.path())).unwrap();
    let (start, all) = whole_folios(0, bytes.len());
    let len = bytes.len() - 4096;
    let mut out = AlignedBuf::new();
    let mut attempt = || {
        Linux.drop_cached(file.as_fd(), start, all);
        let sys = Arc::new(FaultySys::new(plan));
        let faulty = Arc::clone(&sys) as _;
        let store = LocalBackend::open_with(&store.path, options(RUN), faulty).unwrap();
        let read = store.read_at(&PACK, 4096, out.room(len));
        read.map(|()| assert!(sys.all_struck()))
    };
    // The system may keep a page that it was told to drop; then there is no other way left for the
    // read that fails.
    let mut result = attempt();
    for _ in 0..9 {
        if result.is_ok() {
            break;
        }
        result = attempt();
    }
    result.unwrap();
    assert!(out[..len] == bytes[4096..]);
}

/// How many of these pages of the pack are in memory. Each is named once: to ask brings it there.
fn cached(path: &Path, pages: Range<u64>) -> u64 {
    let file = fs::File::open(path).unwrap();
    Linux.expect_random(file.as_fd()).unwrap();
    let is_cached = |page: &u64| Linux.is_cached(file.as_fd(), page * PAGE as u64).unwrap();
    pages.filter(is_cached).count() as u64
}

#[test]
fn no_page_of_what_is_read_from_the_medium_is_taken_from_memory() {
    let (_dir, store, _) = fresh_on_disk(&[]);
    let bytes: Vec<u8> = (0..=250).cycle().take(12_345).collect();
    assert_eq!(put(&store, PACK, &bytes), PutOutcome::Created);
    let path = store.path.join(PACK.path());
    let page = PAGE as u64;
    let (start, all) = whole_folios(0, bytes.len());
    Linux.drop_cached(fs::File::open(&path).unwrap().as_fd(), start, all);
    let forgotten = cached(&path, 0..4) == 0;
    assert!(
        forgotten,
        "target/ lies in memory or on an overlay of it: build on a disk"
    );
    // On pages, within pages, within one, and to the end.
    for (offset, end) in [
        (4096_u64, 12_288_u64),
        (5000, 12_000),
        (8200, 8300),
        (8000, 12_345),
    ] {
        // At first nothing is read, so that what was forgotten for it stays forgotten.
        let refuses = &[(Call::Read, 1, Act::Fail(Errno::IO))];
        let sys = Arc::new(FaultySys::new(refuses));
        let store = LocalBackend::open_with(&store.path, options(OTHER_RUN), sys as _).unwrap();
        let pages = offset / page..end.div_ceil(page);
        assert!(fs::read(&path).unwrap() == bytes);
        assert_eq!(cached(&path, pages.clone()), pages.end - pages.start);
        let range = usize::try_from(offset).unwrap()..usize::try_from(end).unwrap();
        let mut out = vec![0; range.len()];
        let refused = store.read_stored(&PACK, offset, &mut out);
        assert_eq!(kind_of(refused), Some(BackendErrorKind::Io));
        assert_eq!(cached(&path, pages), 0, "{range:?}");
        store.read_stored(&PACK, offset, &mut out).unwrap();
        assert!(out == bytes[range]);
    }
}

#[test]
fn a_range_beyond_the_end_is_too_short_as_ever() {
    let (_dir, store, _) = fresh_on_disk(&[]);
    let bytes = large();
    assert_eq!(put(&store, PACK, &bytes), PutOutcome::Created);
    let mut out = AlignedBuf::new();
    for len in [bytes.len() + 1, bytes.len() + (4 << 20)] {
        let result = store.read_at(&PACK, 0, out.room(len));
        assert_eq!(kind_of(result), Some(BackendErrorKind::TooShort));
    }
}
