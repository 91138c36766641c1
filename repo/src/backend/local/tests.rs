mod faulty;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use faulty::{Act, Call, FaultySys};
use proptest::prelude::*;
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
fn folders_are_private_and_objects_read_only_whatever_the_umask() {
    let (_dir, store) = fresh();
    for folder in [
        "",
        "tmp",
        "log",
        "packs",
        "packs/00",
        "packs/ff",
        "parity/7f",
        "hint",
    ] {
        assert_eq!(mode(&store.path.join(folder)), 0o700, "{folder}");
    }
    let _ = put(&store, PACK, b"x");
    let _ = put(&store, LOG, b"x");
    store.replace_verified(&LOG, b"y").unwrap();
    for name in [PACK, LOG] {
        assert_eq!(mode(&store.path.join(name.path())), 0o400);
    }
    assert_eq!(temps(&store), Vec::<String>::new());
}

#[test]
fn modes_are_set_apart_from_creation_because_a_umask_may_take_bits() {
    let (_dir, store, sys) = fresh_faulty(&[]);
    let _ = put(&store, LOG, b"x");
    let calls = sys.calls();
    let mode_set = calls.iter().position(|call| *call == Call::SetMode);
    let synced = calls.iter().position(|call| *call == Call::Sync);
    assert!(mode_set.is_some() && mode_set < synced, "{calls:?}");
}

#[test]
fn a_put_writes_syncs_links_and_drops_the_temporary_name_in_this_order() {
    let (_dir, store, sys) = fresh_faulty(&[]);
    // The lock of the run comes with the first put.
    let _ = put(&store, ObjectName::Log(9), b"x");
    sys.forget_calls();
    let parts = vec![&b"part"[..]; 2500];
    let _ = store.put_if_absent(&LOG, &parts).unwrap();
    let calls: Vec<_> = sys
        .calls()
        .into_iter()
        .filter(|call| *call != Call::StatAt)
        .collect();
    assert_eq!(
        calls,
        [
            Call::Open,
            Call::Write,
            Call::Write,
            Call::Write,
            Call::SetMode,
            Call::Sync,
            Call::Link,
            Call::Unlink
        ]
    );
}

#[test]
fn a_put_to_a_taken_name_writes_nothing() {
    let (_dir, store, sys) = fresh_faulty(&[]);
    let _ = put(&store, LOG, b"x");
    sys.forget_calls();
    assert_eq!(put(&store, LOG, b"y"), PutOutcome::Exists);
    assert_eq!(sys.calls(), [Call::StatAt]);
}

#[test]
fn a_failed_sync_is_answered_by_another_file_and_never_by_another_sync() {
    let (_dir, store, sys) = fresh_faulty(&[(Call::Sync, 1, Act::Fail(Errno::IO))]);
    assert_eq!(put(&store, PACK, b"bytes"), PutOutcome::Created);
    assert_eq!(store.read_all(&PACK, 100).unwrap(), b"bytes");
    assert_eq!(temps(&store), Vec::<String>::new());
    let synced = sys.synced();
    assert_eq!(synced.len(), 2);
    assert_ne!(synced[0], synced[1], "the same file was synced again");
    let inode = fs::metadata(store.path.join(PACK.path())).unwrap().ino();
    assert_eq!(synced[1], inode, "what was synced in vain got the name");
}

#[test]
fn a_second_failed_sync_is_an_error_and_leaves_nothing() {
    let (_dir, store, sys) = fresh_faulty(&[
        (Call::Sync, 1, Act::Fail(Errno::IO)),
        (Call::Sync, 2, Act::Fail(Errno::NOSPC)),
    ]);
    let put = store.put_if_absent(&PACK, &[b"bytes"]);
    assert_eq!(kind_of(put), Some(BackendErrorKind::NoSpace));
    assert_eq!(kind_of(store.len(&PACK)), Some(BackendErrorKind::NotFound));
    assert_eq!(temps(&store), Vec::<String>::new());
    assert_eq!(sys.synced().len(), 2);
}

#[rstest]
fn a_put_that_fails_at_any_step_leaves_nothing_and_works_the_next_time(
    #[values(Call::Open, Call::Write, Call::SetMode, Call::Link)] step: Call,
    #[values(
        (Errno::NOSPC, BackendErrorKind::NoSpace),
        (Errno::DQUOT, BackendErrorKind::NoSpace),
        (Errno::IO, BackendErrorKind::Io),
        (Errno::ROFS, BackendErrorKind::ReadOnly),
        (Errno::ACCESS, BackendErrorKind::Denied)
    )]
    (errno, kind): (Errno, BackendErrorKind),
) {
    // The second open is that of the temporary file; the first is the lock of the run.
    let nth = if step == Call::Open { 2 } else { 1 };
    let (_dir, store, sys) = fresh_faulty(&[(step, nth, Act::Fail(errno))]);
    let error = store.put_if_absent(&PACK, &[b"bytes"]).unwrap_err();
    assert_eq!((error.kind, error.action), (kind, "write"));
    assert_eq!(error.object, PACK.path());
    assert!(sys.all_struck());
    assert_eq!(kind_of(store.len(&PACK)), Some(BackendErrorKind::NotFound));
    assert_eq!(temps(&store), Vec::<String>::new());
    assert_eq!(put(&store, PACK, b"bytes"), PutOutcome::Created);
}

#[rstest]
#[case(Call::Write)]
#[case(Call::Read)]
fn an_interrupted_call_is_made_again(#[case] call: Call) {
    let (_dir, store, sys) = fresh_faulty(&[(call, 1, Act::Fail(Errno::INTR))]);
    let _ = put(&store, PACK, b"bytes");
    assert_eq!(store.read_all(&PACK, 100).unwrap(), b"bytes");
    assert!(sys.all_struck());
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

#[rstest]
#[case(Errno::IO)]
#[case(Errno::EXIST)]
fn a_link_that_was_made_but_reported_as_failed_is_ours(#[case] errno: Errno) {
    let (_dir, store, _) = fresh_faulty(&[(Call::Link, 1, Act::DoThenFail(errno))]);
    assert_eq!(put(&store, LOG, b"bytes"), PutOutcome::Created);
    assert_eq!(store.read_all(&LOG, 100).unwrap(), b"bytes");
    assert_eq!(temps(&store), Vec::<String>::new());
}

#[test]
fn a_name_taken_between_look_and_link_exists() {
    for plan in [
        // The look at the name is the first of all.
        &[(Call::StatAt, 1, Act::Fail(Errno::NOENT))][..],
        &[
            (Call::StatAt, 1, Act::Fail(Errno::NOENT)),
            (Call::Link, 1, Act::Fail(Errno::OPNOTSUPP)),
        ],
    ] {
        let (_dir, store, sys) = fresh_faulty(plan);
        assert_eq!(
            put(&reopen(&store, OTHER_RUN), LOG, b"first"),
            PutOutcome::Created
        );
        assert_eq!(put(&store, LOG, b"second"), PutOutcome::Exists);
        assert!(sys.all_struck());
        assert_eq!(store.read_all(&LOG, 100).unwrap(), b"first");
        assert_eq!(temps(&store), Vec::<String>::new());
    }
}

#[test]
fn a_link_of_which_nothing_can_be_learnt_is_unknown() {
    let (_dir, store, _) = fresh_faulty(&[
        (Call::Link, 1, Act::DoThenFail(Errno::TIMEDOUT)),
        // The first question about an open file is about the lock.
        (Call::Stat, 2, Act::Fail(Errno::STALE)),
    ]);
    assert_eq!(put(&store, LOG, b"bytes"), PutOutcome::Unknown);
}

#[test]
fn a_temporary_file_that_was_cleaned_away_is_written_anew() {
    let (_dir, store, sys) = fresh_faulty(&[(Call::Link, 1, Act::UnlinkSource)]);
    assert_eq!(put(&store, LOG, b"bytes"), PutOutcome::Created);
    assert!(sys.all_struck());
    assert_eq!(store.read_all(&LOG, 100).unwrap(), b"bytes");
}

#[test]
fn a_barrier_syncs_the_touched_folders_once_and_the_log_always() {
    let (_dir, store, sys) = fresh_faulty(&[]);
    for (fan, last) in [(1, 1), (1, 2), (7, 1)] {
        let mut id = [last; 32];
        id[0] = fan;
        let _ = put(&store, ObjectName::Pack(PackId::new(id)), b"x");
    }
    let inode = |folder: &str| fs::metadata(store.path.join(folder)).unwrap().ino();
    sys.forget_calls();
    store.barrier(ObjectKind::Pack).unwrap();
    assert_eq!(sys.synced(), [inode("packs/01"), inode("packs/07")]);
    sys.forget_calls();
    store.barrier(ObjectKind::Pack).unwrap();
    store.barrier(ObjectKind::Parity).unwrap();
    assert_eq!(sys.synced(), []);
    for _ in 0..2 {
        sys.forget_calls();
        store.barrier(ObjectKind::Log).unwrap();
        assert_eq!(sys.synced(), [inode("log")]);
    }
    sys.forget_calls();
    store.barrier(ObjectKind::Config).unwrap();
    assert_eq!(sys.synced(), [inode("")]);
}

#[test]
fn a_pack_found_taken_or_removed_is_covered_by_the_next_barrier() {
    let (_dir, store, sys) = fresh_faulty(&[]);
    let _ = put(&reopen(&store, OTHER_RUN), PACK, b"x");
    sys.forget_calls();
    assert_eq!(put(&store, PACK, b"x"), PutOutcome::Exists);
    store.barrier(ObjectKind::Pack).unwrap();
    store.delete(&PACK).unwrap();
    store.barrier(ObjectKind::Pack).unwrap();
    assert_eq!(sys.synced().len(), 2);
}

#[test]
fn a_barrier_that_failed_fails_for_the_rest_of_the_run() {
    let (_dir, store, sys) = fresh_faulty(&[(Call::Sync, 2, Act::Fail(Errno::IO))]);
    let _ = put(&store, LOG, b"x");
    for _ in 0..2 {
        let error = store.barrier(ObjectKind::Log).unwrap_err();
        assert_eq!((error.kind, error.action), (BackendErrorKind::Io, "sync"));
    }
    assert_eq!(sys.synced().len(), 2, "the folder was synced again");
    store.barrier(ObjectKind::Index).unwrap();
    reopen(&store, OTHER_RUN).barrier(ObjectKind::Log).unwrap();
}

#[test]
fn leftovers_of_a_dead_run_go_and_those_of_a_live_run_stay() {
    let (_dir, store) = fresh();
    let live = reopen(&store, OTHER_RUN);
    let _ = put(&live, LOG, b"x");
    let dead = RunId::new([0xdd; 16]);
    let tmp = store.path.join("tmp");
    fs::write(tmp.join(format!("{OTHER_RUN}-77")), b"live").unwrap();
    fs::write(tmp.join(format!("{RUN}-78")), b"own").unwrap();
    fs::write(tmp.join(format!("{dead}-1")), b"dead").unwrap();
    fs::write(tmp.join(format!("{dead}-2")), b"dead").unwrap();
    fs::write(tmp.join(format!("{dead}.lock")), b"").unwrap();
    fs::write(tmp.join("notes-1"), b"foreign").unwrap();
    assert_eq!(store.remove_leftovers().unwrap(), 2);
    let mut left = temps(&store);
    left.sort();
    assert_eq!(
        left,
        [
            format!("{RUN}-78"),
            format!("{OTHER_RUN}-77"),
            "notes-1".to_owned()
        ]
    );
    assert!(!tmp.join(format!("{dead}.lock")).exists());
    drop(live);
    assert_eq!(store.remove_leftovers().unwrap(), 1);
    assert_eq!(store.read_all(&LOG, 10).unwrap(), b"x");
}

#[test]
fn a_run_lives_as_long_as_one_of_its_handles() {
    let (_dir, store) = fresh();
    let (one, two) = (reopen(&store, OTHER_RUN), reopen(&store, OTHER_RUN));
    let _ = put(&one, ObjectName::Log(1), b"x");
    let _ = put(&two, ObjectName::Log(2), b"x");
    fs::write(store.path.join(format!("tmp/{OTHER_RUN}-9")), b"").unwrap();
    drop(one);
    assert_eq!(store.remove_leftovers().unwrap(), 0);
    drop(two);
    assert_eq!(store.remove_leftovers().unwrap(), 1);
}

#[test]
fn where_there_are_no_locks_puts_work_and_leftovers_stay() {
    let (_dir, store, _) = fresh_faulty(&[(Call::Lock, 0, Act::Fail(Errno::NOLCK))]);
    assert_eq!(put(&store, LOG, b"x"), PutOutcome::Created);
    let other = store.path.join("tmp").join(OTHER_RUN.to_hex());
    fs::write(other.with_extension("lock"), b"").unwrap();
    fs::write(format!("{}-1", other.display()), b"").unwrap();
    assert_eq!(store.remove_leftovers().unwrap(), 0);
}

#[test]
fn the_reserve_takes_real_space_and_gives_it_back() {
    let (_dir, store) = fresh();
    let reserve = store.path.join("reserve");
    let meta = fs::metadata(&reserve).unwrap();
    assert_eq!(meta.len(), 1 << 16);
    assert!(meta.blocks() * 512 >= 1 << 16);
    assert!(store.release_reserve().unwrap());
    assert!(!reserve.exists());
    assert!(store.restore_reserve().unwrap());
    assert!(reserve.exists());
}

#[test]
fn the_reserve_is_written_where_space_cannot_be_allocated() {
    let plan = [(Call::Allocate, 1, Act::Fail(Errno::OPNOTSUPP))];
    let (_dir, store, sys) = fresh_faulty(&plan);
    assert!(store.release_reserve().unwrap());
    assert!(store.restore_reserve().unwrap());
    assert!(sys.all_struck());
    let bytes = fs::read(store.path.join("reserve")).unwrap();
    assert_eq!(bytes.len(), 1 << 16);
    assert!(bytes.iter().any(|byte| *byte != 0));
}

#[rstest]
#[case(Call::FreeBytes, Act::Free((1 << 18) - 1))]
#[case(Call::Allocate, Act::Fail(Errno::NOSPC))]
fn a_disk_without_room_gets_no_reserve(#[case] call: Call, #[case] act: Act) {
    let (_dir, store, sys) = fresh_faulty(&[(call, 1, act)]);
    assert!(store.release_reserve().unwrap());
    assert!(!store.restore_reserve().unwrap());
    assert!(sys.all_struck());
    assert_eq!(temps(&store), Vec::<String>::new());
    assert!(!store.path.join("reserve").exists());
}

#[test]
fn opening_what_is_not_there_is_not_found_and_a_file_is_no_repository() {
    let dir = scratch();
    let open = |name: &str| LocalBackend::open(&dir.path().join(name), options(RUN));
    assert_eq!(kind_of(open("missing")), Some(BackendErrorKind::NotFound));
    fs::write(dir.path().join("file"), b"").unwrap();
    assert_eq!(kind_of(open("file")), Some(BackendErrorKind::Io));
}

#[test]
fn creating_makes_the_folders_above_and_takes_a_symlink_for_what_it_points_to() {
    let dir = scratch();
    let deep = dir.path().join("a/b/c");
    LocalBackend::create(&deep, options(RUN))
        .unwrap()
        .create_layout()
        .unwrap();
    assert_eq!(mode(&dir.path().join("a")), 0o700);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&deep, &link).unwrap();
    let store = LocalBackend::create(&link, options(RUN)).unwrap();
    assert_eq!(put(&store, LOG, b"x"), PutOutcome::Created);
    assert!(deep.join(LOG.path()).exists());
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
fn folders_that_a_copying_tool_dropped_are_empty_and_made_again() {
    let (_dir, store) = fresh();
    let config = ObjectName::Config(crate::backend::ConfigCopy::First);
    let _ = put(&store, config, b"x");
    for folder in ["packs", "log", "tmp"] {
        fs::remove_dir_all(store.path.join(folder)).unwrap();
    }
    let store = reopen(&store, OTHER_RUN);
    assert_eq!(kind_of(store.len(&PACK)), Some(BackendErrorKind::NotFound));
    store
        .list(ObjectKind::Pack, &mut |name, _| panic!("{name}"))
        .unwrap();
    store.delete(&LOG).unwrap();
    assert_eq!(store.remove_leftovers().unwrap(), 0);
    assert_eq!(put(&store, PACK, b"x"), PutOutcome::Created);
    assert_eq!(put(&store, LOG, b"x"), PutOutcome::Created);
    store.barrier(ObjectKind::Pack).unwrap();
    assert_eq!(mode(&store.path.join("packs/cd")), 0o700);
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

/// One step of a random sequence; the number chooses among few names, so that they collide.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, Vec<u8>),
    Replace(u8, Vec<u8>),
    Delete(u8),
    ReadAt(u8, u64, usize),
    ReadAll(u8, u64),
    Barrier(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        4 => (0..4_u8, bytes()).prop_map(|(name, bytes)| Step::Put(name, bytes)),
        1 => (0..4_u8, bytes()).prop_map(|(name, bytes)| Step::Replace(name, bytes)),
        2 => (0..4_u8).prop_map(Step::Delete),
        3 => (0..4_u8, 0..25_u64, 0..25_usize).prop_map(|(name, at, len)| Step::ReadAt(name, at, len)),
        3 => (0..4_u8, 0..25_u64).prop_map(|(name, limit)| Step::ReadAll(name, limit)),
        1 => (0..4_u8).prop_map(Step::Barrier),
        1 => Just(Step::Reopen),
    ]
}

/// What a caller sees of a step.
fn seen(store: &dyn Backend, step: &Step) -> String {
    let name = |number: &u8| match number {
        0 | 1 => ObjectName::Log(u64::from(*number) + 1),
        number => ObjectName::Pack(PackId::new([*number; 32])),
    };
    match step {
        Step::Put(at, bytes) => {
            let put = store.put_if_absent(&name(at), &[bytes]);
            format!("{:?}", put.map_err(|error| error.kind))
        }
        Step::Replace(at, bytes) => {
            format!("{:?}", kind_of(store.replace_verified(&name(at), bytes)))
        }
        Step::Delete(at) => format!("{:?}", kind_of(store.delete(&name(at)))),
        Step::ReadAt(at, offset, len) => {
            let mut out = vec![0; *len];
            let read = store.read_at(&name(at), *offset, &mut out);
            format!("{:?}", read.map(|()| out).map_err(|error| error.kind))
        }
        Step::ReadAll(at, limit) => {
            let read = store.read_all(&name(at), *limit);
            format!("{:?}", read.map_err(|error| error.kind))
        }
        Step::Barrier(at) => format!("{:?}", kind_of(store.barrier(name(at).kind()))),
        Step::Reopen => String::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_folder_and_a_map_answer_every_sequence_of_calls_alike(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (_dir, mut store) = fresh();
        let model = MemBackend::new();
        for step in &steps {
            if matches!(step, Step::Reopen) {
                store = reopen(&store, OTHER_RUN);
            }
            prop_assert_eq!(seen(&store, step), seen(&model, step), "{:?}", step);
        }
        for kind in ObjectKind::ALL {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            store.list(kind, &mut |name, len| left.push((name, len))).unwrap();
            model.list(kind, &mut |name, len| right.push((name, len))).unwrap();
            left.sort();
            right.sort();
            prop_assert_eq!(left, right);
        }
        prop_assert_eq!(temps(&store), Vec::<String>::new());
    }
}
