//! The local backend: the contract, and what it does when system calls fail. This file has what
//! all tests use, and the tests of reading.

mod direct;
mod faulty;
mod model;
mod puts;
mod upkeep;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use faulty::{Act, Call, FaultySys};
use rstest::rstest;
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::{
    backend::{
        MemBackend,
        testing::{Subject, conformance},
    },
    id::PackId,
};

const RUN: RunId = RunId::new([0xa1; 16]);
const OTHER_RUN: RunId = RunId::new([0xb2; 16]);
const PACK: ObjectName = ObjectName::Pack(PackId::new([0xcd; 32]));
const LOG: ObjectName = ObjectName::Log(1);

const fn options(run: RunId) -> LocalOptions {
    LocalOptions {
        run,
        reserve_len: 1 << 16,
    }
}

/// A temporary folder, in memory where the system has such a place: a layout is 500 folders, each
/// made and synced.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A repository folder with its layout, and a backend of `RUN` on it.
fn fresh() -> (TempDir, LocalBackend) {
    fresh_in(scratch())
}

fn fresh_in(dir: TempDir) -> (TempDir, LocalBackend) {
    let store = LocalBackend::create(&dir.path().join("repo"), options(RUN)).unwrap();
    store.create_layout().unwrap();
    (dir, store)
}

/// The same with system calls that fail as told, once the layout is there.
fn fresh_faulty(plan: &[(Call, u64, Act)]) -> (TempDir, LocalBackend, Arc<FaultySys>) {
    let (dir, store) = fresh();
    drop(store);
    let sys = Arc::new(FaultySys::new(plan));
    let path = dir.path().join("repo");
    let store = LocalBackend::open_with(&path, options(RUN), Arc::clone(&sys) as _).unwrap();
    (dir, store, sys)
}

fn reopen(store: &LocalBackend, run: RunId) -> LocalBackend {
    LocalBackend::open(&store.path, options(run)).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Names in `tmp/` without lock files.
fn temps(store: &LocalBackend) -> Vec<String> {
    let names = fs::read_dir(store.path.join("tmp")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".lock")).collect()
}

fn put(store: &LocalBackend, name: ObjectName, bytes: &[u8]) -> PutOutcome {
    store.put_if_absent(&name, &[bytes]).unwrap()
}

fn kind_of<T>(result: Result<T, BackendError>) -> Option<BackendErrorKind> {
    result.err().map(|error| error.kind)
}

#[test]
fn a_local_folder_keeps_the_contract() {
    conformance(|| {
        let dir = scratch();
        let path = dir.path().join("repo");
        let store = LocalBackend::create(&path, options(RUN)).unwrap();
        let plant = move || plant_foreign(&path);
        Subject::new(store).with_foreign(plant).keeping(dir)
    });
}

#[test]
fn objects_on_the_disk_are_there_for_the_next_run() {
    let (_dir, store) = fresh_in(tempfile::tempdir().unwrap());
    assert_eq!(put(&store, PACK, b"pack"), PutOutcome::Created);
    assert_eq!(put(&store, LOG, b"log"), PutOutcome::Created);
    store.barrier(ObjectKind::Pack).unwrap();
    store.barrier(ObjectKind::Log).unwrap();
    let next = reopen(&store, OTHER_RUN);
    drop(store);
    assert_eq!(put(&next, LOG, b"other"), PutOutcome::Exists);
    assert_eq!(next.read_all(&LOG, 10).unwrap(), b"log");
    assert_eq!(next.read_all(&PACK, 10).unwrap(), b"pack");
}

fn plant_foreign(path: &Path) {
    let hex = "ee".repeat(32);
    let files = [
        "lost+found.txt",
        "log/.nfs0001",
        "log/1",
        "packs/README",
        "index/x",
    ];
    for file in files.map(str::to_owned) {
        fs::write(path.join(file), b"foreign").unwrap();
    }
    // A good name in the wrong place, and a folder under a good name.
    fs::write(path.join("packs/00").join(&hex), b"foreign").unwrap();
    fs::write(path.join("packs").join(&hex), b"foreign").unwrap();
    fs::create_dir(path.join("packs/ee").join(&hex)).unwrap();
    fs::create_dir(path.join("snap").join(&hex)).unwrap();
}

#[test]
fn the_contract_holds_without_hard_links() {
    conformance(|| {
        let (dir, store, _) = fresh_faulty(&[(Call::Link, 0, Act::Fail(Errno::PERM))]);
        Subject::new(store).keeping(dir)
    });
}

#[test]
fn the_contract_holds_when_every_write_is_short() {
    conformance(|| {
        let (dir, store, _) = fresh_faulty(&[(Call::Write, 0, Act::Short(1000))]);
        Subject::new(store).keeping(dir)
    });
}

#[test]
fn a_short_read_is_continued() {
    let (_dir, store, sys) = fresh_faulty(&[(Call::Read, 0, Act::Short(2))]);
    let _ = put(&store, PACK, b"0123456789");
    let mut out = [0; 7];
    store.read_at(&PACK, 2, &mut out).unwrap();
    assert_eq!(&out, b"2345678");
    assert!(sys.all_struck());
}

#[test]
fn an_object_is_missing_only_where_there_is_a_repository_to_miss_it_from() {
    let dir = scratch();
    let store = LocalBackend::create(dir.path(), options(RUN)).unwrap();
    let unavailable = Some(BackendErrorKind::Unavailable);
    // An empty folder: the mount point of a disk that is not there.
    assert_eq!(kind_of(store.len(&PACK)), unavailable);
    assert_eq!(kind_of(store.read_all(&LOG, 10)), unavailable);
    assert_eq!(kind_of(store.delete(&LOG)), unavailable);
    assert_eq!(
        kind_of(store.list(ObjectKind::Pack, &mut |_, _| ())),
        unavailable
    );
    assert_eq!(kind_of(store.put_if_absent(&PACK, &[b"x"])), unavailable);
    let config = ObjectName::Config(crate::backend::ConfigCopy::First);
    assert_eq!(
        kind_of(store.len(&config)),
        Some(BackendErrorKind::NotFound)
    );
}

#[test]
fn a_folder_that_cannot_be_looked_at_does_not_make_the_repository_missing() {
    // The object is not there, and the disk fails when it is asked for the folder.
    let (_dir, store, sys) = fresh_faulty(&[(Call::StatAt, 2, Act::Fail(Errno::IO))]);
    let error = store.len(&LOG).unwrap_err();
    assert_eq!(error.kind, BackendErrorKind::Io);
    let errno = error.source.and_then(|source| source.raw_os_error());
    assert_eq!(errno, Some(Errno::IO.raw_os_error()));
    assert!(sys.all_struck());
}

#[test]
fn a_moved_repository_is_still_the_open_one() {
    let (dir, store) = fresh();
    let _ = put(&store, LOG, b"x");
    fs::rename(&store.path, dir.path().join("moved")).unwrap();
    assert_eq!(store.read_all(&LOG, 10).unwrap(), b"x");
}

#[test]
fn a_few_packs_stay_open_and_a_removed_one_is_let_go() {
    let (_dir, store, sys) = fresh_faulty(&[]);
    let packs: Vec<_> = (0..80)
        .map(|at| ObjectName::Pack(PackId::new([at; 32])))
        .collect();
    for name in &packs {
        let _ = put(&store, *name, b"0123");
    }
    for name in &packs {
        store.read_at(name, 0, &mut [0; 4]).unwrap();
    }
    assert_eq!(store.handles.count(), 64);
    sys.forget_calls();
    store.read_at(&packs[79], 1, &mut [0; 2]).unwrap();
    assert_eq!(sys.calls(), [Call::Read]);
    store.delete(&packs[79]).unwrap();
    let read = store.read_at(&packs[79], 1, &mut [0; 2]);
    assert_eq!(kind_of(read), Some(BackendErrorKind::NotFound));
}

#[test]
fn a_stale_handle_is_opened_again() {
    let (_dir, store, sys) = fresh_faulty(&[(Call::Read, 2, Act::Fail(Errno::STALE))]);
    let _ = put(&store, PACK, b"0123");
    for _ in 0..2 {
        let mut out = [0; 4];
        store.read_at(&PACK, 0, &mut out).unwrap();
        assert_eq!(&out, b"0123");
    }
    assert!(sys.all_struck());
}

#[test]
fn what_is_no_regular_file_is_no_object_and_does_not_hang() {
    let (_dir, store) = fresh();
    let path = store.path.join(LOG.path());
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(
        kind_of(store.read_all(&LOG, 10)),
        Some(BackendErrorKind::Io)
    );
    assert_eq!(
        kind_of(store.read_at(&LOG, 0, &mut [0])),
        Some(BackendErrorKind::Io)
    );
    assert_eq!(kind_of(store.len(&LOG)), Some(BackendErrorKind::Io));
    fs::remove_file(&path).unwrap();
    let secret: PathBuf = store.path.join("secret");
    fs::write(&secret, b"not an object").unwrap();
    std::os::unix::fs::symlink(&secret, &path).unwrap();
    assert_eq!(
        kind_of(store.read_all(&LOG, 100)),
        Some(BackendErrorKind::Io)
    );
    assert_eq!(put(&store, LOG, b"x"), PutOutcome::Exists);
}

#[test]
fn a_read_only_file_system_is_told_apart_and_still_read() {
    let (_dir, store) = fresh();
    let _ = put(&store, LOG, b"x");
    let plan: Vec<_> = [Call::Unlink, Call::Rename, Call::Link, Call::MakeDir]
        .map(|call| (call, 0, Act::Fail(Errno::ROFS)))
        .into_iter()
        .chain([(Call::Open, 0, Act::FailIfWriting(Errno::ROFS))])
        .collect();
    let sys = Arc::new(FaultySys::new(&plan));
    let store = LocalBackend::open_with(&store.path, options(OTHER_RUN), sys).unwrap();
    assert_eq!(store.read_all(&LOG, 10).unwrap(), b"x");
    store.read_at(&LOG, 0, &mut [0]).unwrap();
    store.list(ObjectKind::Log, &mut |_, _| ()).unwrap();
    let read_only = Some(BackendErrorKind::ReadOnly);
    assert_eq!(kind_of(store.put_if_absent(&PACK, &[b"x"])), read_only);
    assert_eq!(kind_of(store.delete(&LOG)), read_only);
    assert_eq!(kind_of(store.replace_verified(&LOG, b"y")), read_only);
    assert_eq!(kind_of(store.release_reserve()), read_only);
}
