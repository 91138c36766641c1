//! The log as its clients see it: on a store in memory, with faults where the store is at fault.

use std::{convert::Infallible, sync::Arc};

use super::{
    Anchor, Anchored, AppendError, Appended, Damage, Draft, Log, LogError, LogHeads, Memory,
    PartReader, seen,
    segment::{self, entries_of},
    state::{IgnoreReason, Place, State},
};
use crate::{
    backend::{
        Backend, BackendErrorKind, MemBackend, ObjectName,
        testing::{Call, CallKind, Effect, FaultBackend, FaultScript, Trigger},
    },
    crypto::{EpochKey, Roots, SealError, SecretKey, Signer},
    env::{
        Env,
        testing::{running_dry, seeded},
    },
    format::{
        DecodeError,
        log::{EntryHead, EntryKind, MAX_ENTRY_LEN, Part, PartKind, encode_object},
        log_body::{AddPacks, AddSnapshot, Body, KeyList, Role, SlotKeys, Snapshots, Void},
    },
    id::{DomainId, EpochId, IndexId, RepoId, RunId, SlotId, SnapshotId},
};

const REPO: RepoId = RepoId::new([1; 16]);
const DOMAIN: DomainId = DomainId::new([2; 16]);

fn secret(role: Role) -> SecretKey {
    SecretKey::new([role as u8; 32])
}

/// A slot whose keys follow from its role.
fn slot_keys(role: Role) -> SlotKeys {
    let mut slot = SlotKeys {
        slot: SlotId::new([0; 32]),
        role: role as u8,
        x25519: [0; 32],
        ed25519: Signer::new(SlotId::new([0; 32]), &secret(role)).public_key(),
    };
    slot.slot = slot.identity();
    slot
}

fn signer(role: Role) -> Signer {
    Signer::new(slot_keys(role).slot, &secret(role))
}

fn key_list() -> KeyList {
    KeyList {
        repo: REPO,
        domain: DOMAIN,
        keyring: 1,
        keyring_hash: [9; 32],
        slots: Role::ALL.map(slot_keys).to_vec(),
    }
}

fn roots_of(byte: u8) -> Roots {
    let epoch = EpochKey {
        epoch: EpochId::new([byte; 16]),
        key: SecretKey::new([byte; 32]),
    };
    let key = SecretKey::new([0; 32]);
    Roots::new(key.clone(), key, vec![epoch.clone()], vec![epoch])
}

fn roots() -> Roots {
    roots_of(7)
}

fn anchor() -> Anchor {
    Anchor {
        repo: REPO,
        domain: DOMAIN,
        owner: signer(Role::Owner).public_key(),
    }
}

fn env(seed: u64) -> Env {
    seeded(seed)
}

fn create(store: &MemBackend) -> Log {
    let backend = Arc::new(store.clone());
    Log::create(backend, env(0), roots(), signer(Role::Owner), key_list()).unwrap()
}

fn heads(backend: Arc<dyn Backend>) -> Result<LogHeads, LogError> {
    LogHeads::open(backend, anchor(), None, None)
}

fn open_on(backend: Arc<dyn Backend>, role: Role, seed: u64) -> Result<Log, LogError> {
    heads(backend)?.unlock(roots(), env(seed), Some(signer(role)))
}

fn open(store: &MemBackend) -> Result<Log, LogError> {
    open_on(Arc::new(store.clone()), Role::Owner, 1)
}

fn index(n: u8) -> IndexId {
    IndexId::new([n; 32])
}

fn snapshot(n: u8) -> SnapshotId {
    SnapshotId::new([n; 32])
}

fn add_packs(n: u8) -> Body {
    Body::AddPacks(AddPacks {
        indexes: vec![index(n)],
    })
}

fn add_snapshot(n: u8) -> Body {
    Body::AddSnapshot(AddSnapshot {
        snapshot: snapshot(n),
        indexes: vec![],
        base: 1,
    })
}

fn put(log: &mut Log, body: Body) -> Result<Appended, LogError> {
    let kind = body.kind();
    let appended = log.append::<Infallible>(kind, &mut |_| Ok(Draft::from(body.clone())));
    appended.map_err(|error| match error {
        AppendError::Log(error) => error,
        AppendError::Refused(never) => match never {},
    })
}

/// A log of `n` entries: the first and AddPacks 2, 3, ...
fn filled(n: u8) -> (MemBackend, Log) {
    let store = MemBackend::new();
    let mut log = create(&store);
    for at in 2..=n {
        put(&mut log, add_packs(at)).unwrap();
    }
    (store, log)
}

/// An object of the next entry after `log`, bent by `change` before it is signed by `signer`.
fn forge(log: &Log, signer: &Signer, body: &Body, change: &dyn Fn(&mut EntryHead)) -> Vec<u8> {
    let draft = Draft::from(body.clone());
    let (inner, _) = log.build(body.kind(), draft).unwrap();
    let (mut head, _) = EntryHead::decode(&inner).unwrap();
    head.writer = signer.slot();
    change(&mut head);
    encode_object(&head.sign(signer).unwrap(), &[]).unwrap()
}

fn raw(store: &MemBackend, seq: u64) -> Vec<u8> {
    store.objects()[&ObjectName::Log(seq)].to_vec()
}

#[test]
fn what_is_appended_is_what_another_client_replays() {
    let (store, mut log) = filled(3);
    let part = Part {
        kind: PartKind::Snapshot,
        bytes: b"a snapshot".to_vec(),
    };
    let id = SnapshotId::new(*blake3::hash(&part.bytes).as_bytes());
    let draft = Draft {
        body: Body::AddSnapshot(AddSnapshot {
            snapshot: id,
            indexes: vec![index(9)],
            base: 2,
        }),
        parts: vec![part],
    };
    let appended = log
        .append::<Infallible>(EntryKind::AddSnapshot, &mut |_| Ok(draft.clone()))
        .unwrap();
    assert_eq!(appended.seq, 4);
    let other = open(&store).unwrap();
    assert_eq!(other.state(), log.state());
    let found = &other.state().snapshots[&id];
    assert_eq!(
        (found.seq, found.place, found.base),
        (4, Place::Inline(4), 2)
    );
    assert_eq!(other.state().indexes[&index(9)], Place::Own);
    assert_eq!(other.read_part(4, id.as_bytes()).unwrap(), b"a snapshot");
    assert!(matches!(
        other.read_part(3, id.as_bytes()),
        Err(LogError::PartLost { seq: 3 })
    ));
    assert!(other.damage().is_empty());
}

#[test]
fn a_second_log_cannot_be_begun_over_the_first() {
    let (store, _) = filled(2);
    let again = Log::create(
        Arc::new(store),
        env(5),
        roots(),
        signer(Role::Owner),
        key_list(),
    );
    assert!(matches!(again, Err(LogError::AlreadyExists)));
    let nothing = open(&MemBackend::new());
    assert!(matches!(nothing, Err(LogError::NoLog)));
}

#[test]
fn every_check_sees_exactly_the_prefix_that_its_entry_follows() {
    let store = MemBackend::new();
    create(&store);
    let mut one = open_on(Arc::new(store.clone()), Role::Writer, 1).unwrap();
    let mut two = open_on(Arc::new(store), Role::Owner, 2).unwrap();
    let mut asked = Vec::new();
    let appended = one
        .append::<Infallible>(EntryKind::AddPacks, &mut |state| {
            asked.push((state.head.seq, state.indexes.len()));
            if asked.len() < 4 {
                put(&mut two, add_packs(u8::try_from(asked.len()).unwrap())).unwrap();
            }
            Ok(add_packs(100).into())
        })
        .unwrap();
    assert_eq!(asked, [(1, 0), (2, 1), (3, 2), (4, 3)]);
    assert_eq!(appended.seq, 5);
    assert_eq!(two.refresh().unwrap(), one.state());
}

#[test]
fn a_check_that_refuses_appends_nothing() {
    let (store, mut log) = filled(2);
    let refused = log.append(EntryKind::AddPacks, &mut |_| Err("no"));
    assert!(matches!(refused, Err(AppendError::Refused("no"))));
    assert_eq!(store.objects().len(), 2);
}

#[test]
fn eight_clients_at_once_lose_nothing() {
    let store = MemBackend::new();
    create(&store);
    std::thread::scope(|scope| {
        for client in 0..8_u8 {
            let store = store.clone();
            scope.spawn(move || {
                let seed = u64::from(client);
                let mut log = open_on(Arc::new(store), Role::Writer, seed).unwrap();
                for n in 0..5 {
                    put(&mut log, add_packs(client * 5 + n)).unwrap();
                }
            });
        }
    });
    let log = open(&store).unwrap();
    assert_eq!((log.state().head.seq, log.state().indexes.len()), (41, 40));
}

#[test]
fn an_entry_whose_fate_is_unknown_is_appended_exactly_once() {
    for done in [false, true] {
        for times in 1..=3 {
            let store = MemBackend::new();
            create(&store);
            let mut script = FaultScript::new(times);
            for nth in 1..=times {
                let trigger = Trigger::call(CallKind::Put, nth);
                script = script.once(trigger, Effect::Unknown { applied: done });
            }
            let faulty = Arc::new(FaultBackend::new(store.clone(), script.clone()));
            let mut log = open_on(faulty, Role::Owner, 1).unwrap();
            put(&mut log, add_packs(1)).unwrap();
            put(&mut log, add_packs(2)).unwrap();
            let log = open(&store).unwrap();
            assert_eq!(log.state().head.seq, 3, "{script}");
            assert_eq!(log.state().indexes.len(), 2, "{script}");
        }
    }
}

#[test]
fn a_store_that_never_answers_leaves_the_caller_uncertain() {
    let store = MemBackend::new();
    create(&store);
    let trigger = Trigger::call(CallKind::Put, 1);
    let script = FaultScript::new(1).lasting(trigger, Effect::Unknown { applied: false });
    let faulty = Arc::new(FaultBackend::new(store, script));
    let mut log = open_on(faulty, Role::Owner, 1).unwrap();
    assert!(matches!(
        put(&mut log, add_packs(1)),
        Err(LogError::Uncertain { seq: 2, .. })
    ));
}

#[test]
fn an_error_of_the_store_is_not_taken_for_a_failed_append() {
    // The entry is there although the answer was an error: it is recognised.
    let store = MemBackend::new();
    create(&store);
    let trigger = Trigger::call(CallKind::Put, 1);
    let effect = Effect::FailAfter(BackendErrorKind::Io);
    let script = FaultScript::new(1).once(trigger, effect);
    let faulty = Arc::new(FaultBackend::new(store.clone(), script));
    let mut log = open_on(faulty, Role::Owner, 1).unwrap();
    assert_eq!(put(&mut log, add_packs(1)).unwrap().seq, 2);
    // Nothing is there: the error is passed on, and the next append succeeds.
    let effect = Effect::Fail(BackendErrorKind::NoSpace);
    let script = FaultScript::new(1).once(trigger, effect);
    let faulty = Arc::new(FaultBackend::new(store, script));
    let mut log = open_on(faulty, Role::Owner, 2).unwrap();
    let failed = put(&mut log, add_packs(2));
    assert!(
        matches!(failed, Err(LogError::Backend(error)) if error.kind == BackendErrorKind::NoSpace)
    );
    assert_eq!(put(&mut log, add_packs(3)).unwrap().seq, 3);
}

#[test]
fn a_read_that_fails_midway_loses_no_entry() {
    let (store, log) = filled(5);
    for nth in 1..=15 {
        let effect = Effect::Fail(BackendErrorKind::Io);
        let script = FaultScript::new(nth).once(Trigger::any(nth), effect);
        let faulty = Arc::new(FaultBackend::new(store.clone(), script));
        let before = LogHeads::open(
            Arc::clone(&faulty) as Arc<dyn Backend>,
            anchor(),
            None,
            None,
        );
        assert!(before.is_err() && faulty.all_struck(), "call {nth}");
        let mut again = open_on(faulty, Role::Owner, 1).unwrap();
        assert_eq!(again.refresh().unwrap(), log.state());
    }
    // And in a refresh, after some entries were taken already.
    for nth in 1..=16 {
        let (store, mut writer) = filled(2);
        let opening = FaultBackend::new(store.clone(), FaultScript::new(0));
        let opening = Arc::new(opening);
        open_on(Arc::clone(&opening) as Arc<dyn Backend>, Role::Owner, 1).unwrap();
        let calls = u64::try_from(opening.calls().len()).unwrap();
        let effect = Effect::Fail(BackendErrorKind::Io);
        let script = FaultScript::new(nth).once(Trigger::any(calls + nth), effect);
        let faulty = Arc::new(FaultBackend::new(store, script));
        let mut reader = open_on(Arc::clone(&faulty) as Arc<dyn Backend>, Role::Owner, 1).unwrap();
        for n in 0..4 {
            put(&mut writer, add_packs(100 + n)).unwrap();
        }
        assert!(
            reader.refresh().is_err() && faulty.all_struck(),
            "call {nth}"
        );
        assert_eq!(reader.refresh().unwrap(), writer.state());
    }
}

#[test]
fn every_bit_flip_of_an_entry_is_survived_noticed_and_healed() {
    let (store, log) = filled(3);
    let expected = log.state().clone();
    let pristine = raw(&store, 2);
    for bit in 0..pristine.len() * 8 {
        let mut bent = pristine.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        store.replace(ObjectName::Log(2), bent);
        let mut log = open(&store).unwrap();
        assert_eq!(*log.state(), expected, "bit {bit}");
        assert_eq!(log.damage().len(), 1, "bit {bit}");
        assert_eq!(log.heal().unwrap(), [2], "bit {bit}");
        assert_eq!(raw(&store, 2), pristine, "bit {bit}");
        assert!(log.damage().is_empty());
    }
}

#[test]
fn an_entry_without_an_intact_copy_stops_the_client_and_is_named() {
    let (store, mut log) = filled(4);
    let pristine = raw(&store, 3);
    store.replace(ObjectName::Log(3), vec![0; pristine.len()]);
    let stopped = open(&store).err();
    assert!(matches!(stopped, Some(LogError::Damaged { seq: 3, .. })));
    // A client that has read past it goes on; what it appends is fine once the entry is back.
    put(&mut log, add_packs(77)).unwrap();
    store.replace(ObjectName::Log(3), pristine);
    assert_eq!(open(&store).unwrap().state(), log.state());
}

#[test]
fn entries_out_of_place_stop_the_client() {
    let (store, _) = filled(4);
    for (from, to) in [(2, 3), (4, 2), (1, 4)] {
        let copy = store.objects();
        let copy = MemBackend::with_objects("copy", copy);
        copy.replace(ObjectName::Log(to), raw(&store, from));
        assert!(matches!(
            open(&copy).err(),
            Some(LogError::Damaged { seq, why: Damage::Number { found } })
                if seq == to && found == from
        ));
    }
    // An entry of another branch: well formed and signed, but it does not follow.
    let (other, _) = {
        let store = MemBackend::with_objects("fork", store.objects());
        store.remove(&ObjectName::Log(4));
        store.remove(&ObjectName::Log(3));
        let mut log = open(&store).unwrap();
        put(&mut log, add_packs(50)).unwrap();
        put(&mut log, add_packs(51)).unwrap();
        (store, log)
    };
    store.replace(ObjectName::Log(4), raw(&other, 4));
    assert!(matches!(
        open(&store).err(),
        Some(LogError::Damaged {
            seq: 4,
            why: Damage::Chain
        })
    ));
}

type ForgedCase<'a> = (&'a Signer, &'a dyn Fn(&mut EntryHead), Damage);

#[test]
fn forged_entries_stop_the_client() {
    let (store, log) = filled(2);
    let owner = signer(Role::Owner);
    let stranger = Signer::new(SlotId::new([200; 32]), &secret(Role::Owner));
    let impostor = Signer::new(owner.slot(), &secret(Role::Reader));
    let nothing: &dyn Fn(&mut EntryHead) = &|_| {};
    let cases: [ForgedCase<'_>; 5] = [
        (&stranger, nothing, Damage::Writer(stranger.slot())),
        (&impostor, nothing, Damage::Signature),
        (&owner, &|head| head.seq = 9, Damage::Number { found: 9 }),
        (&owner, &|head| head.prev = [3; 32], Damage::Chain),
        (
            &owner,
            &|head| head.writer = signer(Role::Writer).slot(),
            Damage::Signature,
        ),
    ];
    for (signer, change, expected) in cases {
        store.replace(
            ObjectName::Log(3),
            forge(&log, signer, &add_packs(3), change),
        );
        match open(&store).err() {
            Some(LogError::Damaged { seq: 3, why }) => assert_eq!(why, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
    store.replace(ObjectName::Log(3), b"garbage".to_vec());
    assert!(matches!(
        open(&store).err(),
        Some(LogError::Damaged {
            seq: 3,
            why: Damage::Decode(_)
        })
    ));
}

#[test]
fn an_entry_of_a_newer_version_is_not_called_damaged() {
    let (store, log) = filled(2);
    let owner = signer(Role::Owner);
    let critical = forge(&log, &owner, &add_packs(3), &|head| {
        head.ext = vec![(0x8001, vec![])];
    });
    store.replace(ObjectName::Log(3), critical);
    assert!(matches!(
        open(&store).err(),
        Some(LogError::Newer {
            seq: 3,
            source: DecodeError::UnknownTag { tag: 0x8001, .. }
        })
    ));
}

#[test]
fn an_entry_by_the_wrong_role_keeps_its_number_and_changes_nothing() {
    let (store, mut log) = filled(2);
    put(&mut log, add_snapshot(5)).unwrap();
    let writer = signer(Role::Writer);
    let remove = Body::RemoveSnapshots(Snapshots {
        snapshots: vec![snapshot(5)],
    });
    // An honest client does not even try.
    let mut honest = open_on(Arc::new(store.clone()), Role::Writer, 3).unwrap();
    assert!(matches!(
        put(&mut honest, remove.clone()),
        Err(LogError::NotAllowed {
            role: Role::Writer,
            ..
        })
    ));
    store.replace(ObjectName::Log(4), forge(&log, &writer, &remove, &|_| {}));
    log.refresh().unwrap();
    assert!(log.state().snapshots.contains_key(&snapshot(5)));
    let ignored = log.state().ignored[0];
    assert_eq!((ignored.seq, ignored.reason), (4, IgnoreReason::Role));
    assert_eq!(ignored.writer, writer.slot());
    // The chain goes on from it.
    put(&mut log, add_packs(6)).unwrap();
    assert_eq!(open(&store).unwrap().state(), log.state());
    // A key change by anybody but an owner gives nobody anything.
    let mut mine = key_list();
    mine.keyring = 2;
    mine.slots.truncate(1);
    let seize = forge(&log, &writer, &Body::KeyChange(mine), &|_| {});
    store.replace(ObjectName::Log(6), seize);
    log.refresh().unwrap();
    assert_eq!(log.state().keys.slots.len(), 5);
    assert_eq!(log.state().last_ignored(), Some(IgnoreReason::Role));
}

#[test]
fn a_body_that_cannot_be_opened_changes_nothing_but_an_unknown_epoch_stops() {
    let (store, mut log) = filled(2);
    let owner = signer(Role::Owner);
    let bent = forge(&log, &owner, &add_packs(3), &|head| {
        if let Some(last) = head.body.last_mut() {
            *last ^= 1;
        }
    });
    store.replace(ObjectName::Log(3), bent);
    log.refresh().unwrap();
    assert_eq!(log.state().last_ignored(), Some(IgnoreReason::Body));
    let other_keyring = heads(Arc::new(store))
        .unwrap()
        .unlock(roots_of(8), env(1), None);
    assert!(matches!(
        other_keyring.err(),
        Some(LogError::NoKey { seq: 2, .. })
    ));
}

#[test]
fn a_slot_counts_from_the_key_change_that_names_it_to_the_one_that_does_not() {
    let (store, mut owner) = filled(2);
    let mut writer = open_on(Arc::new(store.clone()), Role::Writer, 2).unwrap();
    put(&mut writer, add_packs(3)).unwrap();
    let mut fewer = key_list();
    fewer.keyring = 2;
    fewer.keyring_hash = *blake3::hash(b"keyring 2").as_bytes();
    fewer.slots.retain(|slot| slot.role != Role::Writer as u8);
    put(&mut owner, Body::KeyChange(fewer.clone())).unwrap();
    assert!(matches!(
        put(&mut writer, add_packs(4)),
        Err(LogError::NotLive(slot)) if slot == signer(Role::Writer).slot()
    ));
    // Its earlier entry still verifies; a new one, forged without asking, does not.
    let keys = heads(Arc::new(store.clone())).unwrap();
    assert_eq!(keys.keys().unwrap().keyring, 2);
    assert!(keys.keys().unwrap().names_keyring(b"keyring 2"));
    let forged = forge(&owner, &signer(Role::Writer), &add_packs(4), &|_| {});
    store.replace(ObjectName::Log(5), forged);
    assert!(matches!(
        open(&store).err(),
        Some(LogError::Damaged {
            seq: 5,
            why: Damage::Writer(_)
        })
    ));
    store.remove(&ObjectName::Log(5));
    // An old keyring number does not follow.
    assert!(matches!(
        put(&mut owner, Body::KeyChange(fewer)),
        Err(LogError::DoesNotCount {
            seq: 5,
            reason: IgnoreReason::Keys
        })
    ));
}

#[test]
fn a_log_begun_for_another_anchor_is_refused() {
    let (store, _) = filled(2);
    let wrong =
        |anchor: Anchor| match LogHeads::open(Arc::new(store.clone()), anchor, None, None).err() {
            Some(LogError::WrongLog(what)) => what,
            other => panic!("{other:?}"),
        };
    let repo = RepoId::new([8; 16]);
    assert_eq!(wrong(Anchor { repo, ..anchor() }), Anchored::Repository);
    let domain = DomainId::new([8; 16]);
    assert_eq!(wrong(Anchor { domain, ..anchor() }), Anchored::Domain);
    let owner = signer(Role::Reader).public_key();
    assert_eq!(wrong(Anchor { owner, ..anchor() }), Anchored::Owner);
}

#[test]
fn a_missing_middle_entry_is_a_hole_and_nothing_is_appended() {
    for missing in 2..=5 {
        let (store, _) = filled(6);
        store.remove(&ObjectName::Log(missing));
        let objects = store.objects().len();
        // Near above: the probes find it at once, memory or not.
        assert!(matches!(
            open(&store).err(),
            Some(LogError::Hole { missing: m, found }) if m == missing && found > m
        ));
        assert_eq!(store.objects().len(), objects);
    }
    // Far above, where no probe looks: found by listing, before the first append of a client
    // without memory, and before each entry after which something is deleted.
    let (store, _) = filled(3);
    store.replace(ObjectName::Log(3 + 1000), raw(&store, 3));
    let mut log = open(&store).unwrap();
    let refused = put(&mut log, add_packs(9));
    assert!(matches!(
        refused,
        Err(LogError::Hole {
            missing: 4,
            found: 1003
        })
    ));
    let memory = log.memory();
    let heads = LogHeads::open(Arc::new(store.clone()), anchor(), None, Some(&memory));
    let mut log = heads
        .unwrap()
        .unlock(roots(), env(3), Some(signer(Role::Owner)))
        .unwrap();
    put(&mut log, add_packs(9)).unwrap();
    let remove = Body::RemoveSnapshots(Snapshots { snapshots: vec![] });
    assert!(matches!(
        put(&mut log, remove),
        Err(LogError::Hole { missing: 5, .. })
    ));
    assert!(matches!(log.look_for_holes(), Err(LogError::Hole { .. })));
    assert_eq!(store.objects().len(), 5);
}

#[test]
fn the_loss_of_the_newest_entries_is_noticed_by_a_client_with_memory_alone() {
    let (store, log) = filled(5);
    let memory = log.memory();
    let before = open(&store).unwrap().memory();
    store.remove(&ObjectName::Log(5));
    store.remove(&ObjectName::Log(4));
    assert_eq!(open(&store).unwrap().state().head.seq, 3);
    let open =
        |memory: &Memory| LogHeads::open(Arc::new(store.clone()), anchor(), None, Some(memory));
    assert!(matches!(
        open(&memory).err(),
        Some(LogError::RolledBack { at: 4, tail: 3 })
    ));
    // Others going on from the shorter log is a fork, which it finds just as well.
    let mut other = super::tests::open(&store).unwrap();
    for n in 60..64 {
        put(&mut other, add_packs(n)).unwrap();
    }
    assert!(matches!(
        open(&before).err(),
        Some(LogError::RolledBack { at: 5, tail: 7 })
    ));
    assert!(open(&other.memory()).is_ok());
}

#[test]
fn a_store_set_back_under_a_running_client_gets_no_entry_above_the_hole() {
    let (store, mut log) = filled(4);
    store.remove(&ObjectName::Log(4));
    store.remove(&ObjectName::Log(3));
    assert!(matches!(
        put(&mut log, add_packs(5)),
        Err(LogError::RolledBack { at: 4, tail: 3 })
    ));
    assert_eq!(store.objects().len(), 2);
}

#[test]
fn a_log_begun_anew_is_noticed_by_its_first_entry() {
    let (_, log) = filled(2);
    let store = MemBackend::new();
    let other = Log::create(
        Arc::new(store.clone()),
        env(99),
        roots(),
        signer(Role::Owner),
        key_list(),
    );
    put(&mut other.unwrap(), add_packs(2)).unwrap();
    let opened = LogHeads::open(Arc::new(store), anchor(), None, Some(&log.memory()));
    assert!(matches!(
        opened.err(),
        Some(LogError::RolledBack { at: 1, .. })
    ));
}

#[test]
fn an_owner_can_go_past_a_damaged_entry() {
    let (store, mut log) = filled(3);
    let before = log.state().head.hash;
    // Entries 4 and 5 are lost beyond repair before the owner writes entry 6.
    let (one, two) = (b"first".to_vec(), b"second".to_vec());
    let raw = [&one, &two].map(|bytes| *blake3::hash(bytes).as_bytes());
    let void = Body::Void(Void {
        before,
        raw: raw.to_vec(),
    });
    let to_six = |head: &mut EntryHead| {
        head.seq = 6;
        head.prev = raw[1];
    };
    let by = |role, void: &Body| forge(&log, &signer(role), void, &to_six);
    let genuine = by(Role::Owner, &void);
    let by_writer = by(Role::Writer, &void);
    let elsewhere = by(
        Role::Owner,
        &Body::Void(Void {
            before: [1; 32],
            raw: raw.to_vec(),
        }),
    );
    store.replace(ObjectName::Log(4), one);
    store.replace(ObjectName::Log(5), two);
    for refused in [by_writer, elsewhere] {
        store.replace(ObjectName::Log(6), refused);
        assert!(matches!(
            log.refresh(),
            Err(LogError::Damaged { seq: 4, .. })
        ));
    }
    store.replace(ObjectName::Log(6), genuine);
    log.refresh().unwrap();
    let passed: Vec<_> = log
        .state()
        .ignored
        .iter()
        .map(|i| (i.seq, i.reason))
        .collect();
    assert_eq!(passed, [(4, IgnoreReason::Void), (5, IgnoreReason::Void)]);
    put(&mut log, add_packs(9)).unwrap();
    assert_eq!(log.state().head.seq, 7);
    assert_eq!(open(&store).unwrap().state(), log.state());
}

#[test]
fn a_client_that_could_read_a_voided_entry_lets_it_go_too() {
    let (store, mut log) = filled(3);
    let before = log.state().head.hash;
    put(&mut log, add_packs(4)).unwrap();
    let cached = log.state().clone();
    let hash = *blake3::hash(&raw(&store, 4)).as_bytes();
    let void = |before| {
        Body::Void(Void {
            before,
            raw: vec![hash],
        })
    };
    let to_follow = |head: &mut EntryHead| head.prev = hash;
    let by = |role, before| forge(&log, &signer(role), &void(before), &to_follow);
    let (genuine, by_writer, elsewhere) = (
        by(Role::Owner, before),
        by(Role::Writer, before),
        by(Role::Owner, [0; 32]),
    );
    for refused in [by_writer, elsewhere] {
        store.replace(ObjectName::Log(5), refused);
        for _ in 0..2 {
            let why = log.refresh().err();
            let chain = Damage::Chain;
            assert!(matches!(why, Some(LogError::Damaged { seq: 5, why }) if why == chain));
        }
    }
    store.replace(ObjectName::Log(5), genuine);
    let cached = LogHeads::open(Arc::new(store.clone()), anchor(), Some(cached), None);
    let cached = cached.unwrap().unlock(roots(), env(2), None).unwrap();
    let fresh = open(&store).unwrap();
    for log in [&cached, &fresh] {
        assert!(!log.state().indexes.contains_key(&index(4)));
        assert!(log.state().indexes.contains_key(&index(3)));
        assert_eq!(log.state().ignored[0].seq, 4);
    }
    assert_eq!(cached.state(), fresh.state());
    put(&mut open(&store).unwrap(), add_packs(6)).unwrap();
    assert!(
        open(&store)
            .unwrap()
            .state()
            .indexes
            .contains_key(&index(6))
    );
}

#[test]
fn parts_are_read_by_segment_where_many_are_wanted() {
    let store = MemBackend::new();
    let mut log = create(&store);
    let mut wanted = Vec::new();
    while log.state().head.seq < 1100 {
        let seq = log.state().head.seq + 1;
        let part = Part {
            kind: PartKind::Index,
            bytes: seq.to_le_bytes().to_vec(),
        };
        wanted.push((seq, *blake3::hash(&part.bytes).as_bytes()));
        let draft = Draft {
            body: add_packs(1),
            parts: vec![part],
        };
        log.append::<Infallible>(EntryKind::AddPacks, &mut |_| Ok(draft.clone()))
            .unwrap();
    }
    // One part is lost in its entry, but not in the segment; entries 1025 to 1040 stand alone.
    store.replace(ObjectName::Log(500), raw(&store, 499));
    wanted.retain(|(seq, _)| seq % 2 == 0 && *seq <= 1040);
    wanted.reverse();
    let counting = Arc::new(FaultBackend::new(store, FaultScript::new(0)));
    let parts = PartReader::new(Arc::clone(&counting) as Arc<dyn Backend>);
    let mut found = Vec::new();
    parts
        .read_many(wanted, &mut |hash, part| {
            assert_eq!(blake3::hash(&part), *hash);
            found.push(u64::from_le_bytes(part.try_into().unwrap()));
        })
        .unwrap();
    assert_eq!(found, (1..=520).map(|n| 2 * n).collect::<Vec<u64>>());
    assert_eq!(counting.calls().len(), 1 + 8);
    assert!(matches!(
        parts.read_many(vec![(7, [0; 32])], &mut |_, _| {}),
        Err(LogError::PartLost { seq: 7 })
    ));
}

fn two_segments() -> (MemBackend, Log) {
    let store = MemBackend::new();
    let mut log = create(&store);
    while log.state().head.seq < 2050 {
        put(&mut log, add_packs(1)).unwrap();
    }
    (store, log)
}

#[test]
fn segments_are_written_read_and_done_without() {
    let (store, mut log) = two_segments();
    for k in [1, 2] {
        let entries: Vec<_> = entries_of(k).map(|seq| raw(&store, seq)).collect();
        let expected = segment::encode(k, &entries).unwrap();
        assert_eq!(*store.objects()[&ObjectName::LogSegment(k)], expected);
    }
    // A new client reads two segments and the rest one by one.
    let counting = Arc::new(FaultBackend::new(store.clone(), FaultScript::new(0)));
    let backend = Arc::clone(&counting) as Arc<dyn Backend>;
    let fresh = open_on(backend, Role::Owner, 1).unwrap();
    assert_eq!(fresh.state(), log.state());
    let reads = counting
        .calls()
        .iter()
        .filter(|call| call.kind == CallKind::ReadAll)
        .count();
    assert!(reads < 10, "{reads} reads");
    // A missing or damaged entry has a twin in its segment; both are put right.
    let pristine = raw(&store, 700);
    store.replace(ObjectName::Log(700), b"garbage".to_vec());
    store.remove(&ObjectName::Log(701));
    let mut segment = store.objects()[&ObjectName::LogSegment(2)].to_vec();
    segment[5000] ^= 1;
    store.replace(ObjectName::LogSegment(2), segment);
    assert_eq!(open(&store).unwrap().state(), log.state());
    // Reading on from before them, as a client that was away does.
    let cached = state_at(&store, 699);
    let heads = LogHeads::open(Arc::new(store.clone()), anchor(), Some(cached), None);
    let mut back = heads
        .unwrap()
        .unlock(roots(), env(1), Some(signer(Role::Owner)))
        .unwrap();
    assert_eq!(back.state(), log.state());
    let damaged: Vec<_> = back.damage().iter().map(|d| (d.seq, d.missing)).collect();
    assert_eq!(damaged, [(700, false), (701, true)]);
    assert_eq!(back.heal().unwrap(), [700, 701]);
    assert_eq!(raw(&store, 700), pristine);
    // Without any segment the history is still there.
    store.remove(&ObjectName::LogSegment(1));
    store.remove(&ObjectName::LogSegment(2));
    assert_eq!(open(&store).unwrap().state(), log.state());
    assert!(log.write_segment(1).unwrap() && !log.write_segment(3).unwrap());
    put(&mut log, add_packs(1)).unwrap();
    // The end of the log is gone, but a segment has it: it is put back before anything follows.
    log.write_segment(2).unwrap();
    for seq in 2040..=2051 {
        store.remove(&ObjectName::Log(seq));
    }
    let mut log = open(&store).unwrap();
    assert_eq!(log.state().head.seq, 2048);
    put(&mut log, add_packs(2)).unwrap();
    assert_eq!(log.state().head.seq, 2049);
    for seq in 2040..=2048 {
        assert_eq!(raw(&store, seq), segment_entry(&store, seq));
    }
}

fn segment_entry(store: &MemBackend, seq: u64) -> Vec<u8> {
    let k = segment::segment_of(seq);
    let bytes = store.objects()[&ObjectName::LogSegment(k)].to_vec();
    let segment = segment::Segment::decode(k, bytes).unwrap();
    segment.entry(seq).unwrap().to_vec()
}

/// The state as it was at entry `seq`.
fn state_at(store: &MemBackend, seq: u64) -> State {
    let objects = store.objects().into_iter();
    let prefix = objects.filter(|(name, _)| matches!(name, ObjectName::Log(n) if *n <= seq));
    let store = MemBackend::with_objects("prefix", prefix.collect());
    open(&store).unwrap().state().clone()
}

#[test]
fn a_cached_state_saves_reading_and_a_useless_one_costs_nothing_else() {
    let (store, log) = filled(40);
    let cached = state_at(&store, 30);
    let resume = |cached: State| {
        let counting = Arc::new(FaultBackend::new(store.clone(), FaultScript::new(0)));
        let backend = Arc::clone(&counting) as Arc<dyn Backend>;
        let heads = LogHeads::open(backend, anchor(), Some(cached), None).unwrap();
        let opened = heads.unlock(roots(), env(1), None).unwrap();
        assert_eq!(opened.state(), log.state());
        counting
            .calls()
            .iter()
            .filter(|call| call.kind == CallKind::ReadAll)
            .count()
    };
    assert_eq!(
        resume(cached.clone()),
        12,
        "entries 30 to 40 and the missing 41"
    );
    assert_eq!(resume(log.state().clone()), 2);
    let mut foreign = cached.clone();
    foreign.keys.repo = RepoId::new([77; 16]);
    let mut forked = cached.clone();
    forked.head.hash = [0; 32];
    let mut beyond = cached.clone();
    beyond.head.seq = 400;
    let mut usurped = cached;
    usurped.owner = [0; 32];
    for useless in [foreign, forked, beyond, usurped] {
        assert!(resume(useless) > 40);
    }
}

#[test]
fn a_cache_cannot_hide_a_rollback_from_the_memory() {
    let (store, log) = filled(6);
    let memory = log.memory();
    store.remove(&ObjectName::Log(6));
    store.remove(&ObjectName::Log(5));
    let mut other = open(&store).unwrap();
    for n in 60..64 {
        put(&mut other, add_packs(n)).unwrap();
    }
    for cached in [None, Some(other.state().clone()), Some(log.state().clone())] {
        let opened = LogHeads::open(Arc::new(store.clone()), anchor(), cached, Some(&memory));
        assert!(matches!(
            opened.err(),
            Some(LogError::RolledBack { at: 6, tail: 8 })
        ));
    }
}

#[test]
fn memory_and_cache_survive_a_round_trip_and_tell_damage_apart() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("state");
    let (_, log) = filled(4);
    let run = RunId::new([3; 16]);
    assert_eq!(Memory::load(&folder, REPO).unwrap(), None);
    assert_eq!(seen::load_state(&folder, REPO), None);
    let memory = log.memory();
    memory.save(&folder, run, false).unwrap();
    seen::save_state(&folder, run, log.state()).unwrap();
    assert_eq!(Memory::load(&folder, REPO).unwrap(), Some(memory));
    assert_eq!(seen::load_state(&folder, REPO).as_ref(), Some(log.state()));
    // A process that saw less does not make the client forget.
    let older = Memory { seq: 2, ..memory };
    older.save(&folder, run, false).unwrap();
    assert_eq!(Memory::load(&folder, REPO).unwrap(), Some(memory));
    older.save(&folder, run, true).unwrap();
    assert_eq!(Memory::load(&folder, REPO).unwrap(), Some(older));
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 2, "no temporary file is left: {files:?}");
    for path in files {
        let pristine = std::fs::read(&path).unwrap();
        for bit in (0..pristine.len() * 8).step_by(5) {
            let mut bent = pristine.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bent).unwrap();
            if path.extension().is_some_and(|end| end == "seen") {
                let loaded = Memory::load(&folder, REPO);
                assert!(
                    matches!(loaded, Err(LogError::MemoryDamaged { .. })),
                    "bit {bit}"
                );
            } else {
                assert_eq!(seen::load_state(&folder, REPO), None, "bit {bit}");
            }
        }
    }
}

#[test]
fn nothing_is_acted_upon_before_it_is_durable() {
    let (store, _) = filled(3);
    let recording = Arc::new(FaultBackend::new(store, FaultScript::new(0)));
    let backend = Arc::clone(&recording) as Arc<dyn Backend>;
    let mut log = open_on(backend, Role::Owner, 1).unwrap();
    put(&mut log, add_packs(9)).unwrap();
    let calls = recording.calls();
    let writes: Vec<_> = calls
        .iter()
        .map(|call| call.kind)
        .filter(|kind| kind.is_write())
        .collect();
    assert_eq!(
        writes,
        [CallKind::Barrier, CallKind::Put, CallKind::Barrier]
    );
    // The check runs between the first barrier and the put.
    let at = calls.len();
    let appended = log.append(EntryKind::AddPacks, &mut |_| {
        let since = recording.calls();
        assert_eq!(since.last().map(|call| call.kind), Some(CallKind::Barrier));
        assert!(since.len() > at);
        Err(())
    });
    assert!(appended.is_err());
}

#[test]
fn an_append_that_the_store_bends_is_reported_and_healed() {
    let name = ObjectName::Log(3);
    let append = |script: FaultScript| {
        let (store, _) = filled(2);
        let faulty = Arc::new(FaultBackend::new(store, script));
        let backend = Arc::clone(&faulty) as Arc<dyn Backend>;
        let mut log = open_on(backend, Role::Owner, 1).unwrap();
        put(&mut log, add_packs(9)).unwrap();
        (faulty, log)
    };
    let (dry, _) = append(FaultScript::new(0));
    let is_read = |call: &&Call| call.kind == CallKind::ReadAll && call.name == Some(name);
    let reads = dry.calls().iter().filter(is_read).count();
    let last = Trigger::call(CallKind::ReadAll, u64::try_from(reads).unwrap()).of_object(name);
    for seed in 0..20 {
        let script = FaultScript::new(seed).once(last, Effect::FlipRead);
        let (faulty, mut log) = append(script);
        assert!(faulty.all_struck());
        assert_eq!(log.damage().len(), 1);
        assert_eq!(log.heal().unwrap(), [3]);
        assert_eq!(open(faulty.store()).unwrap().state(), log.state());
    }
}

#[test]
fn an_append_that_cannot_be_says_why_and_leaves_no_entry() {
    let (store, _) = filled(2);
    let shared = || Arc::new(store.clone());
    let mut read_only = heads(shared())
        .unwrap()
        .unlock(roots(), env(3), None)
        .unwrap();
    let appended = put(&mut read_only, add_packs(9));
    assert!(matches!(appended, Err(LogError::NoSigner)), "{appended:?}");
    let mut log = open(&store).unwrap();
    let appended = log.append(EntryKind::AddSnapshot, &mut |_| {
        Ok::<_, Infallible>(Draft::from(add_packs(9)))
    });
    assert!(
        matches!(
            appended,
            Err(AppendError::Log(LogError::WrongKind {
                kind: EntryKind::AddSnapshot,
                body: EntryKind::AddPacks,
            }))
        ),
        "{appended:?}"
    );
    // A keyring without keys to write with: of a log that has nothing sealed yet.
    let bare = MemBackend::new();
    drop(create(&bare));
    let key = SecretKey::new([0; 32]);
    let empty = Roots::new(key.clone(), key, vec![], vec![]);
    let signer = Some(signer(Role::Owner));
    let opened = heads(Arc::new(bare)).unwrap();
    let mut log = opened.unlock(empty, env(3), signer).unwrap();
    let appended = put(&mut log, add_packs(9));
    assert!(matches!(appended, Err(LogError::NoEpoch)), "{appended:?}");
    assert_eq!(open(&store).unwrap().state().head.seq, 2);
}

#[test]
fn without_randomness_nothing_is_appended() {
    let (store, _) = filled(2);
    for left in 0..2 {
        let env = running_dry(left);
        let opened = heads(Arc::new(store.clone())).unwrap();
        let mut log = opened
            .unlock(roots(), env, Some(signer(Role::Owner)))
            .unwrap();
        let appended = put(&mut log, add_packs(9));
        assert!(matches!(appended, Err(LogError::Random(_))), "{appended:?}");
    }
    assert_eq!(open(&store).unwrap().state().head.seq, 2);
}

#[test]
fn a_store_that_has_not_what_it_said_it_created_is_called_faithless() {
    let (store, _) = filled(2);
    let lost = Effect::Fail(BackendErrorKind::NotFound);
    let script = FaultScript::new(1).lasting(
        Trigger::call(CallKind::ReadAll, 2).of_object(ObjectName::Log(3)),
        lost,
    );
    let faulty = Arc::new(FaultBackend::new(store, script));
    let mut log = open_on(faulty, Role::Owner, 3).unwrap();
    let appended = put(&mut log, add_packs(9));
    assert!(
        matches!(
            appended,
            Err(LogError::Faithless { seq: 3 } | LogError::Hole { .. })
        ),
        "{appended:?}"
    );
}

#[test]
fn a_log_that_begins_with_anything_else_than_its_beginning_is_damaged() {
    let (store, log) = filled(1);
    let forged = forge(&log, &signer(Role::Owner), &add_packs(2), &|head| {
        (head.seq, head.prev) = (1, [0; 32]);
    });
    store.replace(ObjectName::Log(1), forged);
    let opened = open(&store).err();
    assert!(
        matches!(
            opened,
            Some(LogError::Damaged {
                seq: 1,
                why: Damage::NotGenesis
            })
        ),
        "{opened:?}"
    );
}

#[test]
fn a_memory_that_cannot_be_read_or_written_is_named() {
    let (_, log) = filled(1);
    let folder = tempfile::tempdir().unwrap();
    let memory = log.memory();
    memory
        .save(folder.path(), RunId::new([1; 16]), false)
        .unwrap();
    let file = std::fs::read_dir(folder.path()).unwrap().next();
    let path = file.unwrap().unwrap().path();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let named = |error: Option<LogError>, wanted: &str| {
        assert!(
            matches!(&error, Some(LogError::StateFile { action, path: at, .. })
                if *action == wanted && *at == path),
            "{error:?}"
        );
    };
    named(Memory::load(folder.path(), REPO).err(), "read");
    let saved = memory.save(folder.path(), RunId::new([1; 16]), true);
    named(saved.err(), "write");
}

#[test]
fn an_entry_larger_than_an_entry_can_be_is_neither_written_nor_read() {
    let (store, mut log) = filled(2);
    let of = |ids: usize| {
        Body::AddPacks(AddPacks {
            indexes: vec![index(9); ids],
        })
    };
    // No head has room for as many keys, and no record for that many indexes.
    let mut keys = key_list();
    keys.slots = vec![slot_keys(Role::Reader); 60_000];
    for body in [Body::KeyChange(keys), of(2_200_000)] {
        let appended = put(&mut log, body);
        assert!(
            matches!(
                appended,
                Err(LogError::TooLarge(SealError::Decode(
                    DecodeError::OutOfRange { .. }
                )))
            ),
            "{appended:?}"
        );
    }
    assert_eq!(log.state().head.seq, 2);
    let longest = usize::try_from(MAX_ENTRY_LEN).unwrap();
    store.replace(ObjectName::Log(2), vec![0; longest + 1]);
    let opened = open(&store).err();
    assert!(
        matches!(
            opened,
            Some(LogError::Damaged {
                seq: 2,
                why: Damage::TooLarge
            })
        ),
        "{opened:?}"
    );
}
