//! The repository as a whole, on the backend in memory.

mod errors;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use super::{CreateOptions, NewKey, NewSnapshot, OpenOptions, Repository, Secret, Wanted, testing};
use crate::{
    backend::{
        Backend, BackendErrorKind, ConfigCopy, MemBackend, ObjectKind, ObjectName,
        testing::{CallKind, Effect, FaultBackend, FaultScript, Trigger},
    },
    check::{CheckOptions, Problem, ReadData, Severity},
    codec::Hint,
    crypto::{BlobKind, Identity, KdfParams, SealKind},
    env::testing::seeded,
    error::Error,
    format::slot::{Anchor, Role},
    id::{BlobId, IndexId, RepoId, SlotObjectId, SnapshotId},
    keys::OpenedSlot,
    log::{LogError, state::Place},
    writer::WriterOptions,
};

fn options() -> CreateOptions {
    testing::options(testing::config())
}

/// A repository whose owner needs no password.
fn create(store: &MemBackend, seed: u64) -> (Repository, OpenedSlot) {
    testing::create(Arc::new(store.clone()), seeded(seed), testing::config()).unwrap()
}

fn open(store: &MemBackend, seed: u64, me: &OpenedSlot) -> Repository {
    testing::open(Arc::new(store.clone()), seeded(seed), me).unwrap()
}

fn blob(n: u32) -> Vec<u8> {
    let len = 1000 + usize::try_from(n % 7).unwrap() * 100_000;
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn back_up(repo: &Repository, blobs: &[u32]) -> (SnapshotId, Vec<BlobId>) {
    let base = repo.tail();
    let target = WriterOptions {
        pack_target: 4 << 20,
        ..WriterOptions::default()
    };
    let writer = repo.writer(target);
    let mut bench = writer.bench().unwrap();
    let ids = blobs
        .iter()
        .map(|n| {
            writer
                .put(&mut bench, BlobKind::Data, Hint::Plain, &blob(*n))
                .unwrap()
                .id
        })
        .collect();
    let new = NewSnapshot {
        record: b"record",
        parent: None,
        base,
    };
    (repo.commit(&writer, &mut bench, &new).unwrap(), ids)
}

#[test]
fn what_was_committed_is_read_back_by_another_client() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    let wanted: Vec<u32> = (0..100).collect();
    let (snapshot, ids) = back_up(&repo, &wanted);
    let other = open(&store, 2, &me);
    assert_eq!(other.load_snapshot(snapshot).unwrap(), b"record");
    let mut reader = other.reader().unwrap();
    for (n, id) in wanted.iter().zip(&ids) {
        assert_eq!(reader.load(id).unwrap(), blob(*n), "{n}");
    }
    let all: Vec<_> = ids
        .iter()
        .zip(&wanted)
        .map(|(id, tag)| Wanted { id: *id, tag: *tag })
        .collect();
    let mut seen = 0;
    let mut take = |tag: u32, plain: &[u8]| {
        assert_eq!(plain, blob(tag));
        seen += 1;
        Ok::<_, ()>(())
    };
    reader
        .load_many(&all, &mut take, &mut |_, error| panic!("{error}"))
        .unwrap();
    assert_eq!(seen, 100);
}

#[test]
fn known_blobs_are_not_stored_again() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    back_up(&repo, &[1, 2, 3, 3, 2]);
    let packs = |store: &MemBackend| {
        store
            .objects()
            .keys()
            .filter(|name| name.kind() == ObjectKind::Pack)
            .count()
    };
    let before = packs(&store);
    let again = open(&store, 2, &me);
    let writer = again.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    for n in [3, 2, 1] {
        let stored = writer
            .put(&mut bench, BlobKind::Data, Hint::Plain, &blob(n))
            .unwrap();
        assert_eq!(stored.added, None);
    }
    assert_eq!(writer.flush(&mut bench).unwrap(), []);
    assert_eq!(packs(&store), before);
    assert!(!writer.relied_packs().is_empty());
}

#[test]
fn what_lay_in_a_lost_pack_is_stored_again() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    back_up(&repo, &[1, 2, 3]);
    let names: Vec<_> = store.objects().into_keys().collect();
    let packs = names.iter().filter(|name| name.kind() == ObjectKind::Pack);
    for name in packs {
        store.delete(name).unwrap();
    }
    let again = open(&store, 2, &me);
    let (_, ids) = back_up(&again, &[1, 2, 3]);
    let third = open(&store, 3, &me);
    assert_eq!(third.reader().unwrap().load(&ids[1]).unwrap(), blob(2));
}

#[test]
fn a_checkpoint_lets_the_next_run_find_what_an_interrupted_one_stored() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    let target = WriterOptions {
        pack_target: 4 << 20,
        ..WriterOptions::default()
    };
    let writer = repo.writer(target);
    let mut bench = writer.bench().unwrap();
    for n in 0..100 {
        writer
            .put(&mut bench, BlobKind::Data, Hint::Plain, &blob(n))
            .unwrap();
    }
    while writer.unindexed_bytes() < 8 << 20 {
        std::thread::yield_now();
    }
    repo.checkpoint(&writer).unwrap();
    drop(writer);
    let next = open(&store, 2, &me);
    assert!(next.index().blob_count().unwrap() > 20);
    assert!(next.snapshots().is_empty());
}

#[test]
fn there_is_one_repository_at_a_place_and_an_unfinished_one_is_none() {
    let store = MemBackend::new();
    create(&store, 1);
    let secret = Secret::Password(b"pw".to_vec());
    let again = Repository::create(Arc::new(store.clone()), seeded(3), secret, options());
    assert!(matches!(again, Err(Error::AlreadyExists { .. })));
    for name in store.objects().into_keys() {
        if name.kind() == ObjectKind::Config {
            store.remove(&name);
        }
    }
    let secret = || Secret::Password(b"pw".to_vec());
    let backend = Arc::new(store.clone());
    let opened = Repository::open(backend, seeded(3), secret(), OpenOptions::default());
    assert!(matches!(opened, Err(Error::NoRepository { .. })));
    Repository::create(Arc::new(store.clone()), seeded(3), secret(), options()).unwrap();
    let backend = Arc::new(store);
    Repository::open(backend, seeded(4), secret(), OpenOptions::default()).unwrap();
}

#[test]
fn keys_are_added_changed_and_removed() {
    let store = MemBackend::new();
    let secret = |password: &str| Secret::Password(password.as_bytes().to_vec());
    let open = |password: &str| {
        let backend = Arc::new(store.clone());
        Repository::open(backend, seeded(9), secret(password), OpenOptions::default())
    };
    let backend = Arc::new(store.clone());
    let repo = Repository::create(backend, seeded(1), secret("one"), options()).unwrap();
    let new = |role, password: &'static [u8]| NewKey {
        label: "second".to_owned(),
        role,
        password,
        kdf: KdfParams::DEFAULT,
    };
    let second = repo.add_key(new(Role::Reader, b"two")).unwrap();
    let reader = open("two").unwrap();
    assert_eq!(reader.keys().unwrap().len(), 2);
    assert!(
        reader.add_key(new(Role::Owner, b"x")).is_err(),
        "a reader adds nobody"
    );
    assert_eq!(repo.keys().unwrap().len(), 2, "and leaves nothing behind");
    reader
        .change_password(b"three", KdfParams::DEFAULT)
        .unwrap();
    assert!(matches!(
        open("two"),
        Err(Error::WrongPassword { tried: 2, left: 0 })
    ));
    open("three").unwrap();
    let mine = repo
        .keys()
        .unwrap()
        .into_iter()
        .find(|key| key.current)
        .unwrap()
        .slot;
    assert!(matches!(repo.remove_key(mine), Err(Error::OwnKey { .. })));
    repo.remove_key(second).unwrap();
    assert!(matches!(
        open("three"),
        Err(Error::WrongPassword { tried: 1, left: 0 })
    ));
    assert!(matches!(repo.remove_key(second), Err(Error::NoKey { .. })));
    for _ in 0..20 {
        repo.add_key(new(Role::Reader, b"two")).unwrap();
    }
    assert!(matches!(
        open("four"),
        Err(Error::WrongPassword { tried: 20, left: 1 })
    ));
}

#[test]
fn a_full_store_is_named_and_leaves_what_was_there() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    let (_, ids) = back_up(&repo, &[1, 2, 3]);
    let script =
        FaultScript::new(1).lasting(Trigger::write(2), Effect::Fail(BackendErrorKind::NoSpace));
    let full = FaultBackend::new(store.clone(), script);
    let secret = Secret::Opened(Box::new(me.clone()));
    let backend = Arc::new(full);
    let repo = Repository::open(backend, seeded(5), secret, OpenOptions::default()).unwrap();
    let target = WriterOptions {
        pack_target: 4 << 20,
        ..WriterOptions::default()
    };
    let writer = repo.writer(target);
    let mut bench = writer.bench().unwrap();
    let mut result = Ok(());
    for n in 10..200 {
        let stored = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(n));
        if let Err(error) = stored {
            result = Err(writer.cause(error));
            break;
        }
    }
    let result = result.and_then(|()| writer.flush(&mut bench).map(|_| ()));
    match result {
        Err(Error::Backend(error)) => assert_eq!(error.kind, BackendErrorKind::NoSpace),
        other => panic!("{other:?}"),
    }
    assert!(matches!(writer.flush(&mut bench), Err(Error::WriterBroken)));
    let again = open(&store, 6, &me);
    let mut reader = again.reader().unwrap();
    for (n, id) in [1, 2, 3].into_iter().zip(&ids) {
        assert_eq!(reader.load(id).unwrap(), blob(n));
    }
}

#[test]
fn damage_to_the_local_index_that_is_met_late_is_mended_while_reading() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    let (_, ids) = back_up(&repo, &[1, 2, 3]);
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        cache_dir: Some(dir.path().to_path_buf()),
        ..OpenOptions::default()
    };
    let secret = Secret::Opened(Box::new(me));
    let repo = Repository::open(Arc::new(store), seeded(2), secret, options).unwrap();
    let spoil = || repo.set_index(repo.index().spoiled(repo.id()), BTreeMap::new());
    spoil();
    assert!(repo.index().find(&ids[0]).is_err());
    repo.load_index().unwrap();
    spoil();
    assert_eq!(repo.reader().unwrap().load(&ids[1]).unwrap(), blob(2));
    spoil();
    let wanted: Vec<_> = (1..)
        .zip(&ids)
        .map(|(tag, id)| Wanted { id: *id, tag })
        .collect();
    let mut seen = Vec::new();
    let mut take = |tag: u32, plain: &[u8]| {
        assert_eq!(plain, blob(tag));
        seen.push(tag);
        Ok::<_, ()>(())
    };
    let mut reader = repo.reader().unwrap();
    let mut failed = |_, error| panic!("{error}");
    reader.load_many(&wanted, &mut take, &mut failed).unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3]);
    spoil();
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    let stored = writer
        .put(&mut bench, BlobKind::Data, Hint::Plain, &blob(1))
        .unwrap();
    assert!(stored.added.is_some(), "stored again rather than relied on");
}

#[test]
fn a_damaged_index_hides_its_blobs_only_and_stops_what_would_delete() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    let (_, kept) = back_up(&repo, &[1, 2, 3]);
    let target = WriterOptions {
        pack_target: 4 << 20,
        ..WriterOptions::default()
    };
    let writer = repo.writer(target);
    let mut bench = writer.bench().unwrap();
    let lost = writer
        .put(&mut bench, BlobKind::Data, Hint::Plain, &blob(50))
        .unwrap()
        .id;
    repo.keep(&writer, &mut bench).unwrap();
    drop(writer);
    let objects = store.objects();
    let index = objects
        .keys()
        .find(|name| name.kind() == ObjectKind::Index)
        .unwrap();
    store.replace(*index, b"overwritten".to_vec());
    let again = open(&store, 2, &me);
    let mut reader = again.reader().unwrap();
    assert_eq!(reader.load(&kept[0]).unwrap(), blob(1));
    assert!(matches!(reader.load(&lost), Err(Error::MissingBlob { .. })));
    let demanded = again.demand_whole_index();
    assert!(matches!(demanded, Err(Error::IndexLost { count: 1, .. })));
    back_up(&again, &[50]);
    assert_eq!(again.reader().unwrap().load(&lost).unwrap(), blob(50));
}

/// Saves a snapshot with this record.
fn save_record(repo: &Repository, record: &[u8]) -> SnapshotId {
    let base = repo.tail();
    let writer = repo.writer(WriterOptions::default());
    let new = NewSnapshot {
        record,
        parent: None,
        base,
    };
    let mut bench = writer.bench().unwrap();
    repo.commit(&writer, &mut bench, &new).unwrap()
}

/// Turns a bit over in the record that stands at the end of the newest log entry.
fn damage_inline_record(store: &MemBackend, seq: u64) {
    let name = ObjectName::Log(seq);
    let mut object = store.objects()[&name].to_vec();
    // Behind the record there are three lengths.
    let at = object.len() - 12 - 20;
    object[at] ^= 1;
    store.replace(name, object);
}

fn findings(repo: &Repository) -> Vec<(Severity, String)> {
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 1,
    };
    let report = repo.check(options, &(), &AtomicBool::new(false)).unwrap();
    let told = report.findings.iter();
    // The keys were given: there is no slot.
    told.filter(|finding| !matches!(finding.what, Problem::KeyLost(_)))
        .map(|finding| (finding.severity, finding.to_string()))
        .collect()
}

#[test]
fn a_damaged_record_is_read_from_its_copy_in_a_pack() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    let large = blob(6);
    let inline = save_record(&repo, b"small record");
    let seq = repo.tail();
    let own = save_record(&repo, &large);
    assert_eq!(repo.snapshots()[&inline].place, Place::Inline(seq));
    assert_eq!(repo.snapshots()[&own].place, Place::Own);
    damage_inline_record(&store, seq);
    store.remove(&ObjectName::Snapshot(own));
    let other = open(&store, 2, &me);
    assert_eq!(other.load_snapshot(inline).unwrap(), b"small record");
    assert_eq!(other.load_snapshot(own).unwrap(), large);
    let told = findings(&other);
    let of_records: Vec<_> = told
        .iter()
        .filter(|(_, words)| words.starts_with("snap/"))
        .collect();
    assert_eq!(of_records.len(), 2, "{told:?}");
    for (severity, words) in &told {
        assert_eq!(*severity, Severity::Warning, "{words}");
    }
    // Where the copy is lost as well, the record's own damage is the answer.
    for name in store.objects().into_keys() {
        if name.kind() == ObjectKind::Pack {
            store.remove(&name);
        }
    }
    let lost = open(&store, 3, &me);
    let inline_lost = lost.load_snapshot(inline);
    assert!(
        matches!(inline_lost, Err(Error::Log(LogError::PartLost { .. }))),
        "{inline_lost:?}"
    );
    assert!(matches!(lost.load_snapshot(own), Err(Error::Backend(_))));
    lost.remove_snapshots(&[inline, own]).unwrap();
    assert!(lost.snapshots().is_empty());
}

#[test]
fn the_copy_of_a_record_is_not_taken_from_another_snapshot() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    let first = save_record(&repo, b"record");
    // Known already: this snapshot came without a copy of its own.
    let second = save_record(&repo, b"record");
    damage_inline_record(&store, repo.tail());
    let other = open(&store, 2, &me);
    assert_eq!(other.load_snapshot(first).unwrap(), b"record");
    assert!(other.load_snapshot(second).is_err());
}

#[test]
fn a_dry_run_leaves_nothing_behind_and_has_nothing_to_index() {
    let store = MemBackend::new();
    let (repo, _) = create(&store, 1);
    let before = store.objects();
    let writer = repo.writer(WriterOptions {
        dry_run: true,
        ..WriterOptions::default()
    });
    let mut bench = writer.bench().unwrap();
    let stored = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(1));
    assert!(stored.unwrap().added.is_some());
    assert_eq!(writer.flush(&mut bench).unwrap(), []);
    assert_eq!(writer.unindexed_bytes(), 0);
    repo.checkpoint(&writer).unwrap();
    let stored = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(2));
    stored.unwrap();
    repo.keep(&writer, &mut bench).unwrap();
    drop(writer);
    assert_eq!(store.objects(), before);
}

#[test]
fn a_store_that_cannot_read_a_pack_is_not_told_as_a_blob_in_no_pack() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    let stored = writer
        .put(&mut bench, BlobKind::Data, Hint::Plain, &blob(1))
        .unwrap();
    repo.keep(&writer, &mut bench).unwrap();
    let trigger = Trigger::call(CallKind::ReadAt, 1).of_kind(ObjectKind::Pack);
    let script = FaultScript::new(1).lasting(trigger, Effect::Fail(BackendErrorKind::Io));
    let faulty = Arc::new(FaultBackend::new(store, script));
    let secret = Secret::Opened(Box::new(me));
    let repo = Repository::open(faulty, seeded(2), secret, OpenOptions::default()).unwrap();
    let wanted = [Wanted {
        id: stored.id,
        tag: 7,
    }];
    let mut told = Vec::new();
    let mut take = |_, _: &[u8]| -> Result<(), Error> { unreachable!("nothing can be read") };
    let mut failed = |tag, error| told.push((tag, error));
    let mut reader = repo.reader().unwrap();
    reader.load_many(&wanted, &mut take, &mut failed).unwrap();
    let [(7, Error::Backend(error))] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(error.kind, BackendErrorKind::Io);
}

#[test]
fn a_key_whose_change_may_be_in_the_log_keeps_its_slot() {
    let store = MemBackend::new();
    let (_, me) = create(&store, 1);
    // The entry is stored, and whether it lasts cannot be told.
    let trigger = Trigger::call(CallKind::Barrier, 2).of_kind(ObjectKind::Log);
    let effect = Effect::Fail(BackendErrorKind::Io);
    let script = FaultScript::new(1).once(trigger, effect);
    let faulty = Arc::new(FaultBackend::new(store.clone(), script));
    let secret = Secret::Opened(Box::new(me));
    let options = OpenOptions::default();
    let repo = Repository::open(faulty.clone(), seeded(2), secret, options).unwrap();
    let new = NewKey {
        label: "second".to_owned(),
        role: Role::Owner,
        password: b"second",
        kdf: KdfParams::DEFAULT,
    };
    let added = repo.add_key(new);
    let uncertain = matches!(added, Err(Error::Log(LogError::Uncertain { .. })));
    assert!(uncertain && faulty.all_struck(), "{added:?}");
    let secret = Secret::Password(b"second".to_vec());
    let options = OpenOptions::default();
    Repository::open(Arc::new(store), seeded(3), secret, options).unwrap();
}

/// What a store may be after a power cut, while another client's newest entry was not yet made to
/// last and a client that remembers had read it; `script` plays for that client.
fn power_cut_after_reading(script: FaultScript) -> usize {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    back_up(&repo, &[1]);
    let before = MemBackend::with_objects("before", store.objects());
    back_up(&repo, &[2]);
    let faulty = FaultBackend::new(before, script);
    for (name, bytes) in store.objects() {
        let _ = faulty.put_if_absent(&name, &[&bytes]).unwrap();
    }
    faulty.barrier(ObjectKind::Pack).unwrap();
    let faulty = Arc::new(faulty);
    let folder = tempfile::tempdir().unwrap();
    let open = |backend: Arc<dyn Backend>, seed| {
        let options = OpenOptions {
            state_dir: Some(folder.path().join("state")),
            ..OpenOptions::default()
        };
        let secret = Secret::Opened(Box::new(me.clone()));
        Repository::open(backend, seeded(seed), secret, options)
    };
    let seen = open(faulty.clone(), 2).unwrap().tail();
    assert_eq!(seen, repo.tail());
    assert!(faulty.all_struck());
    let images: Vec<_> = faulty.crash_images().collect();
    // The one with the newest entry last: after it the others would be a rollback.
    for (seed, image) in (3..).zip(images.iter().rev()) {
        open(Arc::new(image.clone()), seed).unwrap();
    }
    images.len()
}

#[test]
fn a_power_cut_after_reading_is_no_rollback() {
    assert_eq!(power_cut_after_reading(FaultScript::new(1)), 1);
    let trigger = Trigger::call(CallKind::Barrier, 1).of_kind(ObjectKind::Log);
    let effect = Effect::Fail(BackendErrorKind::ReadOnly);
    let unsynced = FaultScript::new(1).lasting(trigger, effect);
    assert_eq!(power_cut_after_reading(unsynced), 2);
}

/// A repository of one snapshot, open on a store that plays `script`.
fn open_on(script: FaultScript) -> (Repository, Arc<FaultBackend>) {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    back_up(&repo, &[1]);
    drop(repo);
    let faulty = Arc::new(FaultBackend::new(store, script));
    let secret = Secret::Opened(Box::new(me));
    let backend = Arc::clone(&faulty);
    let repo = Repository::open(backend, seeded(2), secret, OpenOptions::default()).unwrap();
    (repo, faulty)
}

#[test]
fn a_panic_while_a_pack_is_stored_breaks_the_writer_and_nobody_waits_for_it() {
    let trigger = Trigger::call(CallKind::Put, 1).of_kind(ObjectKind::Pack);
    for script in [
        FaultScript::new(1).once(trigger, Effect::Panic),
        FaultScript::new(1).lasting(trigger, Effect::Panic),
    ] {
        let (repo, faulty) = open_on(script);
        let writer = repo.writer(WriterOptions {
            pack_target: 1 << 20,
            in_flight: 1 << 20,
            ..WriterOptions::default()
        });
        let mut bench = writer.bench().unwrap();
        let put = |n| writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(n));
        let broken = (10..200).map(put).find_map(Result::err);
        assert!(matches!(broken, None | Some(Error::WriterBroken)));
        let mut bench = writer.bench().unwrap();
        let flushed = writer.flush(&mut bench);
        assert!(matches!(flushed, Err(Error::ThreadLost)), "{flushed:?}");
        assert!(faulty.all_struck());
        let new = NewSnapshot {
            record: b"record of nothing",
            parent: None,
            base: repo.tail(),
        };
        let committed = repo.commit(&writer, &mut bench, &new);
        assert!(
            matches!(committed, Err(Error::WriterBroken)),
            "{committed:?}"
        );
        assert_eq!(repo.snapshots().len(), 1);
    }
}

#[test]
fn a_panic_while_a_blob_is_put_breaks_the_writer() {
    let trigger = Trigger::call(CallKind::Len, 1).of_kind(ObjectKind::Pack);
    let (repo, faulty) = open_on(FaultScript::new(1).once(trigger, Effect::Panic));
    let writer = repo.writer(WriterOptions::default());
    let put = |n| {
        let mut bench = writer.bench().unwrap();
        writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(n))
    };
    std::thread::scope(|scope| {
        // Known: the store is asked whether its pack is there.
        assert!(scope.spawn(|| put(1)).join().is_err());
    });
    assert!(faulty.all_struck());
    let next = put(2);
    assert!(matches!(next, Err(Error::WriterBroken)), "{next:?}");
    assert!(matches!(writer.failure(), Some(Error::ThreadLost)));
    let flushed = writer.flush(&mut writer.bench().unwrap());
    assert!(matches!(flushed, Err(Error::WriterBroken)), "{flushed:?}");
}

#[test]
fn a_repository_whose_configuration_is_lost_is_not_called_missing() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    back_up(&repo, &[1]);
    for copy in [ConfigCopy::First, ConfigCopy::Second] {
        store.remove(&ObjectName::Config(copy));
    }
    let secret = Secret::Opened(Box::new(me));
    let backend = Arc::new(store.clone());
    let opened = Repository::open(backend, seeded(2), secret, OpenOptions::default()).err();
    assert!(
        matches!(opened, Some(Error::ConfigLost { .. })),
        "{opened:?}"
    );
    let vacant = Repository::see_vacant(&store).err();
    assert!(
        matches!(vacant, Some(Error::ConfigLost { .. })),
        "{vacant:?}"
    );
}

#[test]
fn a_key_of_another_repository_opens_nothing_here() {
    let (one, other) = (MemBackend::new(), MemBackend::new());
    for store in [&one, &other] {
        let seed = if std::ptr::eq(store, &one) { 1 } else { 2 };
        let secret = Secret::Password(b"pw".to_vec());
        Repository::create(Arc::new(store.clone()), seeded(seed), secret, options()).unwrap();
    }
    let of = |store: &MemBackend| {
        let mut objects = store.objects().into_iter();
        objects
            .find(|(name, _)| name.kind() == ObjectKind::Key)
            .unwrap()
    };
    one.remove(&of(&one).0);
    let (name, bytes) = of(&other);
    one.replace(name, bytes.to_vec());
    let secret = Secret::Password(b"pw".to_vec());
    let opened = Repository::open(Arc::new(one), seeded(3), secret, OpenOptions::default()).err();
    assert!(
        matches!(opened, Some(Error::ForeignSlot { .. })),
        "{opened:?}"
    );
}

#[test]
fn a_keyring_that_is_damaged_or_exchanged_is_named() {
    let (store, other) = (MemBackend::new(), MemBackend::new());
    let (_, me) = create(&store, 1);
    create(&other, 2);
    let name = ObjectName::Keyring(1);
    let open_with = |bytes: Vec<u8>| {
        store.replace(name, bytes);
        let secret = Secret::Opened(Box::new(me.clone()));
        let backend = Arc::new(store.clone());
        Repository::open(backend, seeded(2), secret, OpenOptions::default()).err()
    };
    let damaged = open_with(vec![7; 500]);
    assert!(
        matches!(damaged, Some(Error::DamagedObject { object, .. }) if object == name),
        "{damaged:?}"
    );
    let exchanged = open_with(other.objects()[&name].to_vec());
    assert!(
        matches!(exchanged, Some(Error::WrongContent { object }) if object == name),
        "{exchanged:?}"
    );
}

#[test]
fn an_index_that_its_writer_made_badly_is_told_apart_from_one_that_is_not_sealed() {
    let store = MemBackend::new();
    let (repo, _) = create(&store, 1);
    let sealed = repo.seal(SealKind::Index, b"\x01o index").unwrap();
    for (object, is_sealed) in [(sealed, true), (vec![1; 200], false)] {
        let id = IndexId::new(*blake3::hash(&object).as_bytes());
        store.replace(ObjectName::Index(id), object);
        let read = repo.read_index(id, Place::Own).err();
        let expected = match read {
            Some(Error::DamagedObject { .. }) => is_sealed,
            Some(Error::SealedObject { .. }) => !is_sealed,
            _ => false,
        };
        assert!(expected, "{read:?}");
    }
}

#[test]
fn a_blob_that_cannot_be_read_is_named_with_its_pack_and_one_too_long_is_refused() {
    let store = MemBackend::new();
    let (repo, _) = create(&store, 1);
    let (_, ids) = back_up(&repo, &[1]);
    let index = repo.index();
    let found = index.find(&ids[0]).unwrap().unwrap();
    let pack = index.pack(found.pack).unwrap().id;
    let mut bytes = store.objects()[&ObjectName::Pack(pack)].to_vec();
    bytes[usize::try_from(found.entry.offset).unwrap()] ^= 1;
    store.replace(ObjectName::Pack(pack), bytes);
    let loaded = repo.reader().unwrap().load(&ids[0]).err();
    assert!(
        matches!(loaded, Some(Error::Blob { blob, pack: of, .. }) if blob == ids[0] && of == pack),
        "{loaded:?}"
    );
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    let huge = vec![1; (16 << 20) + 1];
    let put = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &huge);
    assert!(matches!(put, Err(Error::WriterBroken)));
    let cause = writer.failure();
    assert!(matches!(cause, Some(Error::Codec(_))), "{cause:?}");
}

#[test]
fn a_slot_that_cannot_be_read_hides_no_other_key() {
    let store = MemBackend::new();
    let secret = Secret::Password(b"one".to_vec());
    let repo = Repository::create(Arc::new(store.clone()), seeded(1), secret, options()).unwrap();
    store.replace(ObjectName::Key(SlotObjectId::new([7; 32])), vec![1; 100]);
    let keys = repo.keys().unwrap();
    assert_eq!(keys.len(), 1);
    assert!(keys[0].current && keys[0].live);
}
