//! Layout, barriers, leftovers and the reserve.

use super::*;

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
fn a_replacement_is_durable_when_it_returns() {
    let (_dir, store, sys) = fresh_faulty(&[]);
    let _ = put(&store, PACK, b"damaged");
    sys.forget_calls();
    store.replace_verified(&PACK, b"healed").unwrap();
    let inode = |path: &str| fs::metadata(store.path.join(path)).unwrap().ino();
    let folder = fs::metadata(store.path.join("packs/cd")).unwrap().ino();
    assert_eq!(sys.synced(), [inode(&PACK.path()), folder]);
    let renamed = sys.calls().iter().position(|call| *call == Call::Rename);
    let last_sync = sys.calls().iter().rposition(|call| *call == Call::Sync);
    assert!(renamed < last_sync);
}

#[test]
fn every_folder_of_a_new_repository_is_synced_and_the_repository_last() {
    let dir = scratch();
    let sys = Arc::new(FaultySys::new(&[]));
    let bare = LocalOptions {
        reserve_len: 0,
        ..options(RUN)
    };
    let store = LocalBackend::open_with(dir.path(), bare, Arc::clone(&sys) as _).unwrap();
    store.create_layout().unwrap();
    let synced = sys.synced();
    // tmp, ten kinds, two times 256 fan-out folders, the repository.
    assert_eq!(synced.len(), 1 + 10 + 512 + 1);
    let inode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().ino();
    assert_eq!(synced.last(), Some(&inode("")));
    for path in ["tmp", "log", "packs", "packs/00", "parity/ff"] {
        assert!(synced.contains(&inode(path)), "{path}");
    }
}

#[test]
fn a_folder_of_a_new_repository_that_cannot_be_synced_is_an_error() {
    let dir = scratch();
    let sys = Arc::new(FaultySys::new(&[(Call::Sync, 100, Act::Fail(Errno::IO))]));
    let store = LocalBackend::open_with(dir.path(), options(RUN), sys).unwrap();
    assert_eq!(kind_of(store.create_layout()), Some(BackendErrorKind::Io));
}

#[test]
fn a_barrier_after_a_failed_one_gives_the_same_cause() {
    let (_dir, store, sys) = fresh_faulty(&[(Call::Sync, 2, Act::Fail(Errno::NOSPC))]);
    let _ = put(&store, LOG, b"x");
    for _ in 0..2 {
        let failed = kind_of(store.barrier(ObjectKind::Log));
        assert_eq!(failed, Some(BackendErrorKind::NoSpace));
    }
    assert!(sys.all_struck());
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

/// Lets a run die: its lock file stays, unlocked.
fn dead_run(store: &LocalBackend, run: RunId) {
    let path = store.path.join(format!("tmp/{run}.lock"));
    let noted = fs::read(&path).unwrap_or_default();
    fs::write(&path, noted).unwrap();
}

#[test]
fn a_run_is_over_once_nobody_holds_its_lock_file() {
    let (_dir, store) = fresh();
    let is_over = |run| store.is_run_over(run).unwrap();
    assert!(
        !is_over(OTHER_RUN),
        "of a run without a lock nothing is known"
    );
    let live = reopen(&store, OTHER_RUN);
    let _ = put(&live, LOG, b"x");
    assert!(!is_over(OTHER_RUN));
    assert!(!live.is_run_over(OTHER_RUN).unwrap(), "nor by itself");
    drop(live);
    assert!(!is_over(OTHER_RUN), "it took its lock file along");
    dead_run(&store, OTHER_RUN);
    assert!(is_over(OTHER_RUN));
    assert_eq!(store.remove_leftovers().unwrap(), 0);
    assert!(!is_over(OTHER_RUN));
}

#[test]
fn on_a_shared_file_system_a_run_is_over_only_where_it_was_of_this_machine() {
    let (_dir, store, _) = fresh_faulty(&[(Call::IsLocal, 0, Act::Shared)]);
    dead_run(&store, OTHER_RUN);
    let is_over = |run| store.is_run_over(run).unwrap();
    assert!(!is_over(OTHER_RUN), "it may be another machine's");
    let _ = put(&store, LOG, b"x");
    let own = store.path.join(format!("tmp/{RUN}.lock"));
    let boot = fs::read(own).unwrap();
    assert!(boot.len() >= 32, "{boot:?}");
    let lock = store.path.join(format!("tmp/{OTHER_RUN}.lock"));
    fs::write(&lock, &boot).unwrap();
    assert!(is_over(OTHER_RUN));
    let mut other = boot;
    other[3] ^= 1;
    fs::write(&lock, other).unwrap();
    assert!(!is_over(OTHER_RUN));
}

#[test]
fn where_locks_do_not_work_no_run_is_over() {
    for errno in [Errno::NOLCK, Errno::OPNOTSUPP] {
        let (_dir, store, _) = fresh_faulty(&[(Call::Lock, 0, Act::Fail(errno))]);
        dead_run(&store, OTHER_RUN);
        assert!(!store.is_run_over(OTHER_RUN).unwrap());
    }
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

/// Inodes of folders, to be compared with what was synced.
fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn each_folder_that_is_made_for_a_repository_is_synced_into_the_one_above_before_the_next() {
    let dir = scratch();
    let sys = Arc::new(FaultySys::new(&[]));
    let deep = dir.path().join("a/b/c");
    LocalBackend::create_with(&deep, options(RUN), Arc::clone(&sys) as _).unwrap();
    let made = |call: &Call| matches!(call, Call::MakeDir | Call::Sync);
    let made: Vec<_> = sys.calls().into_iter().filter(made).collect();
    let (make, sync) = (Call::MakeDir, Call::Sync);
    assert_eq!(made, [sync, make, sync, make, sync, make, sync]);
    // The folder that was there may be new as well.
    let above = inode(dir.path().parent().unwrap());
    let ours = ["", "a", "a/b"].map(|folder| inode(&dir.path().join(folder)));
    assert_eq!(sys.synced(), [above, ours[0], ours[1], ours[2]]);
}

#[test]
fn the_folder_of_a_repository_that_an_attempt_left_unsynced_is_synced_by_the_next() {
    let dir = scratch();
    let path = dir.path().join("repo");
    let failing = Arc::new(FaultySys::new(&[(Call::Sync, 2, Act::Fail(Errno::IO))]));
    let failed = LocalBackend::create_with(&path, options(RUN), failing);
    assert_eq!(kind_of(failed), Some(BackendErrorKind::Io));
    assert!(path.exists());
    let sys = Arc::new(FaultySys::new(&[]));
    LocalBackend::create_with(&path, options(RUN), Arc::clone(&sys) as _).unwrap();
    assert_eq!(sys.synced(), [inode(dir.path())]);
}

/// That of the folder that is there already.
#[rstest]
#[case::may_not_be_read(Call::Open, Errno::ACCESS, None)]
#[case::is_not_on_a_disk(Call::Sync, Errno::INVAL, None)]
#[case::has_lost_something(Call::Sync, Errno::IO, Some(BackendErrorKind::Io))]
fn a_folder_above_keeps_from_making_a_repository_only_where_something_is_lost(
    #[case] call: Call,
    #[case] errno: Errno,
    #[case] wrong: Option<BackendErrorKind>,
) {
    let dir = scratch();
    let sys = Arc::new(FaultySys::new(&[(call, 1, Act::Fail(errno))]));
    let path = dir.path().join("repo");
    let made = LocalBackend::create_with(&path, options(RUN), Arc::clone(&sys) as _);
    assert_eq!(kind_of(made), wrong);
    assert!(sys.all_struck());
    assert_eq!(path.exists(), wrong.is_none());
}

#[test]
fn a_folder_that_is_made_again_is_synced_and_so_is_the_one_above_before_anything_is_in_it() {
    let (_dir, store, sys) = fresh_faulty(&[]);
    let config = ObjectName::Config(crate::backend::ConfigCopy::First);
    let _ = put(&store, config, b"x");
    for folder in ["packs", "tmp"] {
        fs::remove_dir_all(store.path.join(folder)).unwrap();
    }
    sys.forget_calls();
    let _ = put(&store, PACK, b"x");
    let at = |folder: &str| inode(&store.path.join(folder));
    let (root, packs) = (at(""), at("packs"));
    let folders = [at("tmp"), root, packs, root, at("packs/cd"), packs];
    assert_eq!(sys.synced()[..6], folders);
    let calls = sys.calls();
    let linked = calls.iter().position(|call| *call == Call::Link);
    let mut before = calls[..linked.unwrap()].iter();
    let file = Some(inode(&store.path.join(PACK.path())));
    assert_eq!(sys.synced().get(6).copied(), file);
    assert_eq!(
        before.by_ref().filter(|call| **call == Call::Sync).count(),
        7
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
fn folders_that_a_copying_tool_dropped_need_no_sync_while_the_repository_is_there() {
    let (_dir, store) = fresh();
    let config = ObjectName::Config(crate::backend::ConfigCopy::First);
    let _ = put(&store, config, b"x");
    for folder in ["index", "packs", "parity"] {
        fs::remove_dir_all(store.path.join(folder)).unwrap();
    }
    store.delete(&PACK).unwrap();
    for kind in [ObjectKind::Index, ObjectKind::Pack, ObjectKind::Parity] {
        store.barrier(kind).unwrap();
    }
    fs::remove_file(store.path.join("config")).unwrap();
    let gone = store.barrier(ObjectKind::Index);
    assert_eq!(kind_of(gone), Some(BackendErrorKind::NotFound));
}
