//! How objects get to disk, call by call, and every way in which that fails.

use super::*;

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
