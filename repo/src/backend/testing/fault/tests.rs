//! The fault machine does what its script says, and nothing else.

use super::*;
use crate::{
    backend::testing::{Subject, Trigger, conformance},
    id::PackId,
};

const LOG: ObjectName = ObjectName::Log(1);
const PACK: ObjectName = ObjectName::Pack(PackId::new([1; 32]));

fn play(script: FaultScript) -> FaultBackend {
    FaultBackend::new(MemBackend::new(), script)
}

fn put(store: &dyn Backend, name: ObjectName) -> Result<PutOutcome, BackendError> {
    store.put_if_absent(&name, &[b"some ", b"bytes"])
}

/// The names in each image, in the order of the images.
fn images(store: &FaultBackend) -> Vec<Vec<ObjectName>> {
    let names = |image: MemBackend| image.objects().into_keys().collect();
    store.crash_images().map(names).collect()
}

#[test]
fn without_faults_it_keeps_the_contract() {
    conformance(|| Subject::new(play(FaultScript::new(0))));
}

#[test]
fn a_fault_strikes_the_nth_fitting_call_once() {
    let trigger = Trigger::call(CallKind::Put, 2).of_kind(ObjectKind::Log);
    let store = play(FaultScript::new(0).once(trigger, Effect::Fail(BackendErrorKind::NoSpace)));
    let _ = put(&store, LOG).unwrap();
    let _ = put(&store, PACK).unwrap();
    let second = ObjectName::Log(2);
    assert_eq!(
        put(&store, second).unwrap_err().kind,
        BackendErrorKind::NoSpace
    );
    assert!(store.len(&second).unwrap_err().is_not_found());
    assert_eq!(put(&store, second).unwrap(), PutOutcome::Created);
    assert!(store.all_struck());
}

#[test]
fn a_lasting_fault_strikes_every_later_call() {
    let effect = Effect::Fail(BackendErrorKind::ReadOnly);
    let store = play(FaultScript::new(0).lasting(Trigger::write(2), effect));
    let _ = put(&store, LOG).unwrap();
    for _ in 0..3 {
        assert_eq!(
            put(&store, PACK).unwrap_err().kind,
            BackendErrorKind::ReadOnly
        );
        assert_eq!(store.len(&LOG).unwrap(), 10);
    }
}

#[test]
fn an_unknown_put_was_made_or_not_as_the_script_says() {
    for applied in [false, true] {
        let script = FaultScript::new(0).once(Trigger::any(1), Effect::Unknown { applied });
        let store = play(script);
        assert_eq!(put(&store, LOG).unwrap(), PutOutcome::Unknown);
        assert_eq!(store.len(&LOG).is_ok(), applied);
    }
    let after = Effect::FailAfter(BackendErrorKind::Io);
    let store = play(FaultScript::new(0).once(Trigger::any(1), after));
    assert_eq!(put(&store, LOG).unwrap_err().kind, BackendErrorKind::Io);
    assert_eq!(put(&store, LOG).unwrap(), PutOutcome::Exists);
}

#[test]
fn after_a_crash_every_call_fails_as_crashed() {
    for (point, kept) in [
        (CrashPoint::Before, None),
        (CrashPoint::After, Some(10)),
        (CrashPoint::Torn(3), Some(3)),
    ] {
        let store = play(FaultScript::new(0).once(Trigger::write(1), Effect::Crash(point)));
        assert!(Crashed::caused(&put(&store, LOG).unwrap_err()));
        assert!(store.crashed());
        assert!(Crashed::caused(&store.len(&LOG).unwrap_err()));
        assert!(Crashed::caused(
            &store.barrier(ObjectKind::Log).unwrap_err()
        ));
        let image = store.crash_images().next().unwrap();
        assert_eq!(image.len(&LOG).ok(), kept, "{point:?}");
    }
    let error = play(FaultScript::new(0)).len(&LOG).unwrap_err();
    assert!(!Crashed::caused(&error));
}

#[test]
fn a_crash_may_keep_or_lose_each_name_that_no_barrier_covered() {
    let store = play(FaultScript::new(0));
    let _ = put(&store, PACK).unwrap();
    store.barrier(ObjectKind::Pack).unwrap();
    assert_eq!(images(&store), [vec![PACK]]);
    let two = ObjectName::Log(2);
    let _ = put(&store, LOG).unwrap();
    let _ = put(&store, two).unwrap();
    store.delete(&PACK).unwrap();
    let expected = [
        vec![LOG, two],
        vec![PACK],
        vec![PACK, LOG],
        vec![PACK, two],
        vec![],
    ];
    assert_eq!(images(&store), expected);
    assert_eq!(store.crash_subsets(3).unwrap().len(), 8);
    assert!(store.crash_subsets(2).is_none());
    store.barrier(ObjectKind::Log).unwrap();
    assert_eq!(images(&store), [vec![LOG, two], vec![PACK, LOG, two]]);
}

#[test]
fn a_replacement_survives_every_crash() {
    let store = play(FaultScript::new(0));
    let _ = put(&store, LOG).unwrap();
    store.replace_verified(&LOG, b"healed").unwrap();
    for image in store.crash_images() {
        assert_eq!(image.read_all(&LOG, 10).unwrap(), b"healed");
    }
}

#[test]
fn crash_points_cover_each_write_before_and_after() {
    let run = |store: &FaultBackend| {
        put(store, PACK)
            .and_then(|_| store.barrier(ObjectKind::Pack))
            .and_then(|()| put(store, LOG))
    };
    let sound = play(FaultScript::new(0));
    let _ = run(&sound).unwrap();
    assert_eq!(sound.writes(), 3);
    let scripts: Vec<_> = FaultScript::crash_points(0, sound.writes()).collect();
    assert_eq!(scripts.len(), 6);
    for script in scripts {
        let store = play(script);
        assert!(Crashed::caused(&run(&store).unwrap_err()));
        for image in store.crash_images() {
            // The pack is durable before the log entry is put.
            let objects = image.objects();
            assert!(
                objects.contains_key(&PACK) || !objects.contains_key(&LOG),
                "{image:?}"
            );
        }
    }
}

#[test]
fn a_full_disk_has_room_again_when_the_reserve_is_given_up() {
    let store = play(FaultScript::new(0).capacity(25, 10));
    store.create_layout().unwrap();
    let _ = put(&store, LOG).unwrap();
    assert_eq!(
        put(&store, PACK).unwrap_err().kind,
        BackendErrorKind::NoSpace
    );
    assert!(store.release_reserve().unwrap());
    let _ = put(&store, PACK).unwrap();
    assert!(!store.restore_reserve().unwrap());
    store.delete(&LOG).unwrap();
    assert!(store.restore_reserve().unwrap());
}

#[test]
fn a_read_that_lies_once_leaves_the_object_sound() {
    for effect in [Effect::FlipRead, Effect::ShortRead] {
        let first_read = Trigger::call(CallKind::ReadAll, 1).of_object(LOG);
        let store = play(FaultScript::new(3).once(first_read, effect));
        let _ = put(&store, LOG).unwrap();
        assert_ne!(store.read_all(&LOG, 10).unwrap(), b"some bytes");
        assert_eq!(store.read_all(&LOG, 10).unwrap(), b"some bytes");
    }
    let first_read = Trigger::call(CallKind::ReadAt, 1);
    let store = play(FaultScript::new(3).once(first_read, Effect::ShortRead));
    let _ = put(&store, LOG).unwrap();
    let error = store.read_at(&LOG, 0, &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind, BackendErrorKind::TooShort);
}

#[test]
fn a_partial_listing_shows_some_of_the_objects() {
    let script = FaultScript::new(5).once(Trigger::call(CallKind::List, 1), Effect::PartialList);
    let store = play(script);
    for number in 1..=100 {
        let _ = put(&store, ObjectName::Log(number)).unwrap();
    }
    let count = || {
        let mut count = 0;
        store.list(ObjectKind::Log, &mut |_, _| count += 1).unwrap();
        count
    };
    assert!((20..80).contains(&count()));
    assert_eq!(count(), 100);
}

#[test]
fn a_script_shows_how_to_write_it_again_and_its_images_name_it() {
    let trigger = Trigger::call(CallKind::Put, 3).of_kind(ObjectKind::Log);
    let script = FaultScript::new(9)
        .once(trigger, Effect::Crash(CrashPoint::Torn(1)))
        .lasting(Trigger::write(2), Effect::Fail(BackendErrorKind::Io))
        .capacity(7, 1);
    let text = "FaultScript::new(9)\
        .once(Trigger::call(CallKind::Put, 3).of_kind(ObjectKind::Log), Effect::Crash(Torn(1)))\
        .lasting(Trigger::write(2), Effect::Fail(Io)).capacity(7, 1)";
    assert_eq!(script.to_string(), text);
    let image = play(script).crash_images().next().unwrap();
    assert_eq!(image.location(), format!("{text}: everything issued"));
}

#[test]
fn random_scripts_follow_from_their_seed() {
    let scripts: Vec<_> = (0..50).map(|seed| FaultScript::random(seed, 20)).collect();
    let again: Vec<_> = (0..50).map(|seed| FaultScript::random(seed, 20)).collect();
    assert_eq!(scripts, again);
    assert!(
        scripts
            .iter()
            .any(|script| script.faults != scripts[0].faults)
    );
}
