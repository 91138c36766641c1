//! Every promise of [`Backend`], each as a function that runs on a store of its own. A backend or
//! decorator without a test that calls [`conformance`] is not finished.

#![expect(
    clippy::unwrap_used,
    reason = "a broken promise ends the test with the error that broke it"
)]

mod medium;

use std::{
    any::Any,
    collections::BTreeMap,
    sync::{Arc, Barrier},
};

use super::super::{
    Backend, BackendError, BackendErrorKind, ConfigCopy, ObjectKind, ObjectName, PutOutcome,
};
use crate::id::{IndexId, PackId, RunId, SlotObjectId, SnapshotId};

/// A fresh, empty store under test.
pub struct Subject {
    backend: Arc<dyn Backend>,
    plant_foreign: Option<Box<dyn Fn()>>,
    _guard: Box<dyn Any>,
}

impl Subject {
    /// A store of which `create_layout` was not called yet.
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self {
            backend: Arc::new(backend),
            plant_foreign: None,
            _guard: Box::new(()),
        }
    }

    /// Keeps `guard` (a temporary folder) until the store is done with.
    #[must_use]
    pub fn keeping(self, guard: impl Any) -> Self {
        Self {
            _guard: Box::new(guard),
            ..self
        }
    }

    /// How to put things into the store that are none of ours.
    #[must_use]
    pub fn with_foreign(self, plant: impl Fn() + 'static) -> Self {
        Self {
            plant_foreign: Some(Box::new(plant)),
            ..self
        }
    }

    fn store(&self) -> &dyn Backend {
        self.backend.as_ref()
    }
}

/// Runs every promise on a fresh store from `make`.
///
/// # Panics
/// A promise is broken.
pub fn conformance(make: impl Fn() -> Subject) {
    for promise in PROMISES {
        let subject = make();
        assert!(!subject.store().location().is_empty());
        subject.store().create_layout().unwrap();
        promise(&subject);
    }
}

const PROMISES: [fn(&Subject); 17] = [
    an_existing_name_is_refused_and_keeps_its_bytes,
    of_many_racing_puts_one_wins_and_its_bytes_are_there,
    many_threads_put_and_read_objects_of_their_own,
    a_range_is_read_exactly_or_not_at_all,
    medium::the_medium_has_the_bytes_that_were_put,
    medium::what_the_medium_has_not_is_told_as_ever,
    lengths_around_block_sizes_come_back,
    an_empty_object_is_an_object,
    many_small_parts_are_one_object,
    a_whole_read_is_bounded,
    what_is_not_there_is_not_found,
    kinds_do_not_mix,
    a_listing_shows_the_objects_of_a_kind_and_nothing_else,
    deleting_is_idempotent_and_frees_the_name,
    a_replacement_takes_the_place_of_the_object,
    barriers_and_upkeep_leave_the_objects_alone,
    making_the_layout_again_changes_nothing,
];

/// One name of each kind and shape.
fn one_of_each() -> Vec<ObjectName> {
    vec![
        ObjectName::Config(ConfigCopy::First),
        ObjectName::Config(ConfigCopy::Second),
        ObjectName::Key(SlotObjectId::new([1; 32])),
        ObjectName::Keyring(1),
        ObjectName::Pack(PackId::new([2; 32])),
        ObjectName::Pack(PackId::new([0xff; 32])),
        ObjectName::Parity(PackId::new([2; 32])),
        ObjectName::Index(IndexId::new([2; 32])),
        ObjectName::Snapshot(SnapshotId::new([2; 32])),
        ObjectName::Log(1),
        ObjectName::Log(u64::MAX),
        ObjectName::LogSegment(1),
        ObjectName::Audit(1),
        ObjectName::Hint(RunId::new([2; 16])),
    ]
}

fn pack(number: u8) -> ObjectName {
    let mut id = [0x5a; 32];
    // Spread over the fan-out folders.
    let [first, ..] = &mut id;
    *first = number;
    ObjectName::Pack(PackId::new(id))
}

fn put(store: &dyn Backend, name: ObjectName, bytes: &[u8]) {
    let outcome = store.put_if_absent(&name, &[bytes]).unwrap();
    assert_eq!(outcome, PutOutcome::Created, "{name}");
}

fn all_of(store: &dyn Backend, name: ObjectName) -> Vec<u8> {
    store.read_all(&name, 1 << 30).unwrap()
}

fn listed(store: &dyn Backend, kind: ObjectKind) -> BTreeMap<ObjectName, u64> {
    let mut found = BTreeMap::new();
    store
        .list(kind, &mut |name, len| {
            assert_eq!(found.insert(name, len), None, "{name} is listed twice");
        })
        .unwrap();
    found
}

fn kind_of<T>(result: Result<T, BackendError>) -> Option<BackendErrorKind> {
    result.err().map(|error| error.kind)
}

fn an_existing_name_is_refused_and_keeps_its_bytes(subject: &Subject) {
    let store = subject.store();
    for name in one_of_each() {
        put(store, name, b"first");
        for second in [&b"second"[..], b"first", b""] {
            let outcome = store.put_if_absent(&name, &[second]).unwrap();
            assert_eq!(outcome, PutOutcome::Exists, "{name}");
        }
        assert_eq!(all_of(store, name), b"first", "{name}");
    }
}

fn of_many_racing_puts_one_wins_and_its_bytes_are_there(subject: &Subject) {
    const THREADS: usize = 16;
    let backend = &subject.backend;
    for round in 1..=25 {
        let name = ObjectName::Log(round);
        let start = Barrier::new(THREADS);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0_u8..16)
                .map(|racer| {
                    let start = &start;
                    scope.spawn(move || {
                        let bytes = vec![racer; 1000 + usize::from(racer)];
                        start.wait();
                        let outcome = backend.put_if_absent(&name, &[&bytes]).unwrap();
                        (outcome, bytes)
                    })
                })
                .collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .collect()
        });
        let (winners, losers): (Vec<_>, Vec<_>) = outcomes
            .into_iter()
            .partition(|(outcome, _)| *outcome == PutOutcome::Created);
        assert_eq!(winners.len(), 1, "round {round}");
        assert!(
            losers
                .iter()
                .all(|(outcome, _)| *outcome == PutOutcome::Exists)
        );
        let winner = winners.into_iter().map(|(_, bytes)| bytes).next();
        assert_eq!(Some(all_of(subject.store(), name)), winner, "round {round}");
    }
}

fn many_threads_put_and_read_objects_of_their_own(subject: &Subject) {
    std::thread::scope(|scope| {
        for thread in 0_u8..8 {
            let store = Arc::clone(&subject.backend);
            scope.spawn(move || {
                for number in 0_u8..8 {
                    let name = pack(thread * 8 + number);
                    let bytes = vec![thread; 2000 + usize::from(number)];
                    put(store.as_ref(), name, &bytes);
                    store.barrier(ObjectKind::Pack).unwrap();
                    let mut out = vec![0; bytes.len()];
                    store.read_at(&name, 0, &mut out).unwrap();
                    assert_eq!(out, bytes);
                }
            });
        }
    });
    assert_eq!(listed(subject.store(), ObjectKind::Pack).len(), 64);
}

fn a_range_is_read_exactly_or_not_at_all(subject: &Subject) {
    let store = subject.store();
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(10_000).collect();
    let name = pack(1);
    put(store, name, &bytes);
    for (start, end) in [
        (0, 10_000),
        (0, 1),
        (9_999, 10_000),
        (4095, 4097),
        (7, 7),
        (10_000, 10_000),
    ] {
        let mut out = vec![0xee; end - start];
        store.read_at(&name, start as u64, &mut out).unwrap();
        assert_eq!(Some(out.as_slice()), bytes.get(start..end));
    }
    for (start, len) in [
        (0, 10_001),
        (9_999, 2),
        (10_000, 1),
        (10_001, 0),
        (u64::MAX, 0),
        (u64::MAX, 1),
    ] {
        let result = store.read_at(&name, start, &mut vec![0; len]);
        assert_eq!(
            kind_of(result),
            Some(BackendErrorKind::TooShort),
            "{start}+{len}"
        );
    }
}

fn lengths_around_block_sizes_come_back(subject: &Subject) {
    let store = subject.store();
    let lens = [
        0,
        1,
        2,
        511,
        512,
        513,
        4095,
        4096,
        4097,
        65_536,
        (1 << 20) + 1,
    ];
    for (number, len) in (0_u8..).zip(lens) {
        let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
        let name = pack(number);
        put(store, name, &bytes);
        assert_eq!(store.len(&name).unwrap(), len as u64);
        assert_eq!(all_of(store, name), bytes, "{len}");
        let mut out = vec![0; len];
        store.read_at(&name, 0, &mut out).unwrap();
        assert_eq!(out, bytes, "{len}");
    }
}

fn an_empty_object_is_an_object(subject: &Subject) {
    let store = subject.store();
    for (number, parts) in [(1, &[][..]), (2, &[&b""[..]]), (3, &[b"", b""])] {
        let name = ObjectName::Audit(number);
        assert_eq!(
            store.put_if_absent(&name, parts).unwrap(),
            PutOutcome::Created
        );
        assert_eq!(
            store.put_if_absent(&name, &[b"x"]).unwrap(),
            PutOutcome::Exists
        );
        assert_eq!(store.len(&name).unwrap(), 0);
        assert_eq!(store.read_all(&name, 0).unwrap(), b"");
        assert_eq!(listed(store, ObjectKind::Audit).get(&name), Some(&0));
    }
}

fn many_small_parts_are_one_object(subject: &Subject) {
    let store = subject.store();
    let owned: Vec<Vec<u8>> = (0_u32..5000)
        .map(|part| vec![part.to_le_bytes()[0]; part as usize % 5])
        .collect();
    let parts: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
    let name = pack(9);
    assert_eq!(
        store.put_if_absent(&name, &parts).unwrap(),
        PutOutcome::Created
    );
    assert_eq!(all_of(store, name), owned.concat());
}

fn a_whole_read_is_bounded(subject: &Subject) {
    let store = subject.store();
    let name = ObjectName::Log(1);
    put(store, name, &[7; 100]);
    assert_eq!(store.read_all(&name, 100).unwrap(), [7; 100]);
    assert_eq!(
        kind_of(store.read_all(&name, 99)),
        Some(BackendErrorKind::TooLarge)
    );
    assert_eq!(
        kind_of(store.read_all(&name, 0)),
        Some(BackendErrorKind::TooLarge)
    );
}

fn what_is_not_there_is_not_found(subject: &Subject) {
    let store = subject.store();
    for name in one_of_each() {
        let not_found = Some(BackendErrorKind::NotFound);
        assert_eq!(kind_of(store.read_all(&name, 1000)), not_found, "{name}");
        assert_eq!(
            kind_of(store.read_at(&name, 0, &mut [0])),
            not_found,
            "{name}"
        );
        assert_eq!(
            kind_of(store.read_at(&name, 0, &mut [])),
            not_found,
            "{name}"
        );
        assert_eq!(kind_of(store.len(&name)), not_found, "{name}");
        assert_eq!(listed(store, name.kind()), BTreeMap::new());
        let error = store.len(&name).unwrap_err();
        assert!(
            error.is_not_found() && error.object == name.path(),
            "{error}"
        );
    }
}

fn kinds_do_not_mix(subject: &Subject) {
    let store = subject.store();
    for name in one_of_each() {
        put(store, name, name.path().as_bytes());
    }
    for name in one_of_each() {
        assert_eq!(all_of(store, name), name.path().as_bytes());
        store.delete(&name).unwrap();
    }
}

fn a_listing_shows_the_objects_of_a_kind_and_nothing_else(subject: &Subject) {
    let store = subject.store();
    let mut wanted: BTreeMap<ObjectKind, BTreeMap<ObjectName, u64>> = BTreeMap::new();
    for (len, name) in (0_u8..).zip(one_of_each()) {
        put(store, name, &vec![1; usize::from(len)]);
        let of_kind = wanted.entry(name.kind()).or_default();
        of_kind.insert(name, u64::from(len));
    }
    if let Some(plant) = &subject.plant_foreign {
        plant();
    }
    for kind in ObjectKind::ALL {
        assert_eq!(Some(&listed(store, kind)), wanted.get(&kind), "{kind:?}");
    }
    // The store may be used while it is listed.
    store
        .list(ObjectKind::Log, &mut |name, len| {
            assert_eq!(store.len(&name).unwrap(), len);
        })
        .unwrap();
}

fn deleting_is_idempotent_and_frees_the_name(subject: &Subject) {
    let store = subject.store();
    for name in one_of_each() {
        store.delete(&name).unwrap();
        put(store, name, b"old");
        store.read_at(&name, 0, &mut [0; 3]).unwrap();
        store.delete(&name).unwrap();
        store.delete(&name).unwrap();
        assert_eq!(kind_of(store.len(&name)), Some(BackendErrorKind::NotFound));
        let read = store.read_at(&name, 0, &mut [0; 3]);
        assert_eq!(kind_of(read), Some(BackendErrorKind::NotFound));
        put(store, name, b"new!");
        let mut out = [0; 4];
        store.read_at(&name, 0, &mut out).unwrap();
        assert_eq!(&out, b"new!");
    }
}

fn a_replacement_takes_the_place_of_the_object(subject: &Subject) {
    let store = subject.store();
    for name in one_of_each() {
        put(store, name, b"damaged");
        store.read_at(&name, 0, &mut [0; 7]).unwrap();
        store.replace_verified(&name, b"healed bytes").unwrap();
        let mut out = [0; 12];
        store.read_at(&name, 0, &mut out).unwrap();
        assert_eq!(&out, b"healed bytes");
        assert_eq!(store.len(&name).unwrap(), 12);
        assert_eq!(
            store.put_if_absent(&name, &[b"x"]).unwrap(),
            PutOutcome::Exists
        );
        store.delete(&name).unwrap();
        store.replace_verified(&name, b"lost and found").unwrap();
        assert_eq!(all_of(store, name), b"lost and found");
    }
}

fn barriers_and_upkeep_leave_the_objects_alone(subject: &Subject) {
    let store = subject.store();
    for name in one_of_each() {
        store.barrier(name.kind()).unwrap();
        put(store, name, b"bytes");
        store.barrier(name.kind()).unwrap();
        store.barrier(name.kind()).unwrap();
    }
    store.release_reserve().unwrap();
    assert!(
        !store.release_reserve().unwrap(),
        "the reserve was given up twice"
    );
    let restored = store.restore_reserve().unwrap();
    assert_eq!(store.restore_reserve().unwrap(), restored);
    assert_eq!(store.release_reserve().unwrap(), restored);
    assert_eq!(store.remove_leftovers().unwrap(), 0);
    for name in one_of_each() {
        assert_eq!(all_of(store, name), b"bytes");
    }
}

fn making_the_layout_again_changes_nothing(subject: &Subject) {
    let store = subject.store();
    for name in one_of_each() {
        put(store, name, b"bytes");
    }
    store.create_layout().unwrap();
    for name in one_of_each() {
        assert_eq!(all_of(store, name), b"bytes");
    }
}
