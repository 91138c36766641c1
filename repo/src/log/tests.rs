//! The log as its clients see it: on a store in memory, with faults where the store is at fault.

use std::{convert::Infallible, sync::Arc};

use super::{
    Anchor, Anchored, AppendError, Appended, Damage, Draft, Log, LogError, LogHeads, Memory,
    replay::Chain,
    seen,
    segment::{self, entries_of},
    state::{IgnoreReason, Place, State},
};
use crate::{
    backend::{
        Backend, BackendErrorKind, MemBackend, ObjectKind, ObjectName,
        testing::{CallKind, Effect, FaultBackend, FaultScript, Trigger},
    },
    crypto::{EpochKey, Roots, SecretKey, Signer},
    env::{Env, testing::seeded},
    format::{
        DecodeError,
        log::{EntryHead, EntryKind, EntryObject, Part, PartKind, encode_object},
        log_body::{AddPacks, AddSnapshot, Body, KeyList, Role, SlotKeys, Snapshots, Sweep, Void},
    },
    id::{DomainId, EpochId, IndexId, PackId, RepoId, RunId, SlotId, SnapshotId, TxnId},
};

const REPO: RepoId = RepoId::new([1; 16]);
const DOMAIN: DomainId = DomainId::new([2; 16]);

fn secret(role: Role) -> SecretKey {
    SecretKey::new([role as u8; 32])
}

fn signer(role: Role) -> Signer {
    Signer::new(SlotId::new([role as u8 + 100; 32]), &secret(role))
}

fn slot_keys(role: Role) -> SlotKeys {
    let signer = signer(role);
    SlotKeys {
        slot: signer.slot(),
        role: role as u8,
        x25519: [0; 32],
        ed25519: signer.public_key(),
    }
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
    let mut two = open_on(Arc::new(store.clone()), Role::Owner, 2).unwrap();
    let mut asked = Vec::new();
    let appended = one
        .append::<Infallible>(EntryKind::AddPacks, &mut |state| {
            asked.push((state.head.seq, state.indexes.len()));
            if asked.len() < 4 {
                put(&mut two, add_packs(asked.len() as u8)).unwrap();
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
                let trigger = Trigger::call(CallKind::PutIfAbsent, nth);
                script = script.once(trigger, Effect::Unknown { done });
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
    let trigger = Trigger::call(CallKind::PutIfAbsent, 1);
    let script = FaultScript::new(1).lasting(trigger, Effect::Unknown { done: false });
    let faulty = Arc::new(FaultBackend::new(store.clone(), script));
    let mut log = open_on(faulty, Role::Owner, 1).unwrap();
    assert!(matches!(
        put(&mut log, add_packs(1)),
        Err(LogError::Uncertain { seq: 2, .. })
    ));
}
