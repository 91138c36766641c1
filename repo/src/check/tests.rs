//! Every sort of damage is found and named; a sound repository has no findings.

mod pieces;
mod problems;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    CheckOptions, CheckReport, Problem, ReadData, Recorded, Severity, Verdict, stored_size,
};
use crate::{
    backend::{
        BackendErrorKind, ConfigCopy, MemBackend, ObjectKind, ObjectName,
        testing::{CallKind, Effect, FaultBackend, FaultScript, Trigger},
    },
    codec::Hint,
    crypto::{BlobKind, KdfParams},
    env::{Timestamp, testing::seeded},
    error::Error,
    format::{
        config::ConfigBody,
        log::EntryKind,
        log_body::{AddPacks, Body},
        slot::Role,
    },
    id::PackId,
    log::{Draft, LogError, check::Conflict, state::State},
    repository::{NewKey, NewSnapshot, OpenOptions, Repository, Secret, testing},
    writer::{Writer, WriterOptions},
};

/// A repository with one snapshot of a few blobs.
fn repository(store: &MemBackend) -> Repository {
    saved(store, testing::config(), (0..8).map(|n| (n, 5000)))
}

/// A repository with one snapshot of blobs of these seeds and lengths.
fn saved(
    store: &MemBackend,
    config: ConfigBody,
    blobs: impl Iterator<Item = (u8, usize)>,
) -> Repository {
    let options = testing::options(config);
    let secret = Secret::Password(b"pw".to_vec());
    let repo = Repository::create(Arc::new(store.clone()), seeded(1), secret, options).unwrap();
    let base = repo.tail();
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    for (seed, len) in blobs {
        let mut plain = vec![0; len];
        let mut noise = blake3::Hasher::new().update(&[seed]).finalize_xof();
        noise.fill(&mut plain);
        let stored = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &plain);
        stored.unwrap();
    }
    let new = NewSnapshot {
        record: b"record",
        parent: None,
        base,
    };
    repo.commit(&writer, &mut bench, &new).unwrap();
    repo
}

fn check(repo: &Repository, read_data: ReadData) -> CheckReport {
    let options = CheckOptions {
        read_data,
        workers: 2,
    };
    repo.check(options, &(), &AtomicBool::new(false)).unwrap()
}

fn a_pack(repo: &Repository) -> PackId {
    let index = repo.index();
    let largest = index.packs().max_by_key(|pack| pack.blobs);
    largest.unwrap().id
}

/// The findings about one object, and that they are all there are.
fn about(report: &CheckReport, name: ObjectName) -> Vec<(Severity, &Problem)> {
    let (here, others): (Vec<_>, Vec<_>) = report
        .findings
        .iter()
        .partition(|finding| finding.object == Some(name));
    assert!(others.is_empty(), "{others:?}");
    here.into_iter()
        .map(|finding| (finding.severity, &finding.what))
        .collect()
}

fn bend(store: &MemBackend, name: ObjectName, at: usize) {
    let mut bytes = store.objects()[&name].to_vec();
    bytes[at] ^= 1;
    store.replace(name, bytes);
}

#[test]
fn a_sound_repository_has_no_findings_and_all_of_it_is_read() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let report = check(&repo, ReadData::All);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.blobs, report.read_blobs), (9, 9));
    assert_eq!(report.read, report.packs);
    assert!(report.log_entries > 0 && report.indexes > 0);
    let size = stored_size(&repo).unwrap();
    assert_eq!(size.kinds[&ObjectKind::Pack], report.packs);
}

#[test]
fn a_flipped_bit_anywhere_in_a_pack_is_found_by_reading_it() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let pack = a_pack(&repo);
    let name = ObjectName::Pack(pack);
    let sound = store.objects()[&name].to_vec();
    for at in (0..sound.len()).step_by(97) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        store.replace(name, bytes);
        let report = check(&repo, ReadData::All);
        assert!(report.has_errors(), "byte {at}");
        let [finding] = report.findings.as_slice() else {
            panic!("byte {at}: {:?}", report.findings);
        };
        assert_eq!(finding.object, Some(name), "byte {at}");
        assert!(matches!(finding.what, Problem::Pack { .. }), "byte {at}");
        let bad = report.bad_blobs.get(&pack).map_or(0, |blobs| blobs.len());
        assert!(bad <= 1, "byte {at}: only the blob that it is in");
        assert!(check(&repo, ReadData::Nothing).findings.is_empty());
    }
}

#[test]
fn missing_and_short_packs_are_found_without_reading_them() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let pack = a_pack(&repo);
    let name = ObjectName::Pack(pack);
    let mut bytes = store.objects()[&name].to_vec();
    bytes.pop();
    store.replace(name, bytes);
    let report = check(&repo, ReadData::Nothing);
    assert!(matches!(report.findings[0].what, Problem::Length { .. }));
    assert!(report.bad_packs.contains(&pack));
    store.remove(&name);
    let report = check(&repo, ReadData::All);
    assert!(matches!(report.findings[0].what, Problem::Missing));
    assert_eq!(report.findings.len(), 1, "it is told once");
}

#[test]
fn damage_to_one_of_several_copies_is_a_warning() {
    let store = MemBackend::new();
    let repo = repository(&store);
    store.remove(&ObjectName::Config(ConfigCopy::Second));
    let keyring = ObjectName::Keyring(1);
    for name in [keyring, ObjectName::Log(1)] {
        let mut bytes = store.objects()[&name].to_vec();
        bytes[60] ^= 1;
        store.replace(name, bytes);
    }
    let report = check(&repo, ReadData::Nothing);
    assert!(!report.has_errors(), "{:?}", report.findings);
    assert_eq!(report.count(Severity::Warning), 3, "{:?}", report.findings);
    let config = ObjectName::Config(ConfigCopy::First);
    bend(&store, config, 60);
    let second = ObjectName::Config(ConfigCopy::Second);
    let healed = [config, second, ObjectName::Log(1)];
    assert_eq!(repo.heal().unwrap(), healed);
    let report = check(&repo, ReadData::Nothing);
    assert_eq!(about(&report, keyring).len(), 1, "nothing else is left");
    assert_eq!(store.objects()[&config], store.objects()[&second]);
    // What a newer version wrote is told, and left as it is.
    let mut newer = store.objects()[&second].to_vec();
    let frame = (newer.len() - 12) / 3;
    for copy in 0..3 {
        newer[copy * frame + 8] = 2;
    }
    store.replace(second, newer.clone());
    let report = check(&repo, ReadData::Nothing);
    let told = report.findings.iter();
    let told: Vec<_> = told.filter(|found| found.object == Some(second)).collect();
    assert!(told.len() == 1 && !told[0].is_healable(), "{told:?}");
    assert_eq!(repo.heal().unwrap(), []);
    assert_eq!(*store.objects()[&second], newer);
}

#[test]
fn a_log_segment_that_rots_is_a_warning_and_one_that_is_lost_is_nothing() {
    let store = MemBackend::new();
    let repo = repository(&store);
    for _ in repo.tail()..1024 {
        let body = Body::AddPacks(AddPacks { indexes: vec![] });
        let mut check = |_: &State| Ok::<_, Infallible>(Draft::from(body.clone()));
        let appended = repo.lock_log().append(EntryKind::AddPacks, &mut check);
        appended.unwrap();
    }
    let name = ObjectName::LogSegment(1);
    let sound = store.objects()[&name].to_vec();
    let told = || {
        let report = check(&repo, ReadData::Nothing);
        // The keys were given: there is no slot.
        let about = report.findings.into_iter();
        let about = about.filter(|finding| !matches!(finding.what, Problem::KeyLost(_)));
        about
            .map(|finding| (finding.severity, finding.object))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(), []);
    for nth in 0..12 {
        let at = nth * (sound.len() - 1) / 11;
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        store.replace(name, bytes);
        assert_eq!(told(), [(Severity::Warning, Some(name))], "byte {at}");
    }
    // Entries that are whole in the segment only are told and put right.
    store.replace(name, sound);
    let (bent, lost) = (ObjectName::Log(700), ObjectName::Log(701));
    let whole = [bent, lost].map(|entry| store.objects()[&entry].clone());
    bend(&store, bent, 60);
    store.replace(bent, store.objects()[&bent][..100].to_vec());
    store.remove(&lost);
    let expected = [bent, lost].map(|entry| (Severity::Warning, Some(entry)));
    assert_eq!(told(), expected);
    assert_eq!(repo.heal().unwrap(), [bent, lost]);
    assert_eq!(told(), []);
    assert_eq!(
        [bent, lost].map(|entry| store.objects()[&entry].clone()),
        whole
    );
    assert_eq!(repo.heal().unwrap(), [], "nothing is left to be done");
    // So is one of which only what it carries inline is bad.
    let carrying = ObjectName::Log(repo.snapshots().into_values().next().unwrap().seq);
    let sound = store.objects()[&carrying].clone();
    bend(&store, carrying, sound.len() - 40);
    let report = check(&repo, ReadData::Nothing);
    let healable = report
        .findings
        .iter()
        .filter(|finding| finding.is_healable());
    let healable: Vec<_> = healable.map(|finding| finding.object).collect();
    assert_eq!(healable, [Some(carrying)]);
    assert_eq!(repo.heal().unwrap(), [carrying]);
    assert_eq!(store.objects()[&carrying], sound);
    // One that the disk cannot read any more does not keep from reading the others.
    let trigger = Trigger::call(CallKind::ReadAll, 1).of_object(bent);
    let script = FaultScript::new(1).lasting(trigger, Effect::Fail(BackendErrorKind::Io));
    let faulty = Arc::new(FaultBackend::new(store.clone(), script));
    let secret = Secret::Password(b"pw".to_vec());
    let other = Repository::open(faulty, seeded(3), secret, OpenOptions::default()).unwrap();
    let report = check(&other, ReadData::Nothing);
    let objects = report.findings.iter().map(|finding| finding.object);
    assert!(objects.eq([Some(bent)]), "{:?}", report.findings);
    assert!(report.findings[0].is_healable());
    store.remove(&name);
    assert_eq!(told(), []);
    store.remove(&lost);
    assert!(repo.heal().is_err(), "nobody knows what it was");
}

#[test]
fn a_lost_log_entry_is_an_error() {
    let store = MemBackend::new();
    let repo = repository(&store);
    store.remove(&ObjectName::Log(1));
    let report = check(&repo, ReadData::Nothing);
    assert!(matches!(report.findings[0].what, Problem::Log(_)));
    assert!(report.has_errors());
}

#[test]
fn parts_cover_every_pack_once_and_random_choices_are_as_large_as_asked() {
    let packs: Vec<PackId> = (0..100_u8)
        .map(|n| PackId::new(*blake3::hash(&[n]).as_bytes()))
        .collect();
    let choose = |read: ReadData| read.choose(packs.clone(), |pack| (*pack, 10), &[3; 32]);
    let mut parts: Vec<PackId> = (1..=7)
        .flat_map(|nth| choose(ReadData::Part { nth, of: 7 }))
        .collect();
    parts.sort();
    let mut all = packs.clone();
    all.sort();
    assert_eq!(parts, all);
    assert_eq!(choose(ReadData::Millionths(250_000)).len(), 25);
    assert_eq!(choose(ReadData::Millionths(1)).len(), 1);
    assert_eq!(choose(ReadData::Bytes(95)).len(), 9);
    assert_eq!(choose(ReadData::Bytes(1)).len(), 1);
    assert!(choose(ReadData::Nothing).is_empty());
}

/// Turns a bit over in the first blob of a pack.
fn damage(store: &MemBackend, pack: PackId, at: usize) {
    let name = ObjectName::Pack(pack);
    let mut bytes = store.objects()[&name].to_vec();
    let at = if at == usize::MAX {
        bytes.len() - 1
    } else {
        at
    };
    bytes[at] ^= 1;
    store.replace(name, bytes);
}

fn reopened(store: &MemBackend) -> Repository {
    let secret = Secret::Password(b"pw".to_vec());
    let options = OpenOptions::default();
    Repository::open(Arc::new(store.clone()), seeded(9), secret, options).unwrap()
}

#[test]
fn what_was_found_is_recorded_once_and_taken_back_when_it_is_good_again() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let pack = a_pack(&repo);
    let sound = store.objects()[&ObjectName::Pack(pack)].to_vec();
    let look = |repo: &Repository| check(repo, ReadData::All).verdicts;
    assert!(look(&repo).is_empty());
    let mut entries = repo.tail();
    let mut record = |verdicts: &BTreeMap<PackId, Verdict>, bad, good| {
        assert_eq!(
            repo.record_verdicts(verdicts).unwrap(),
            Recorded { bad, good }
        );
        // The second time there is no news.
        assert_eq!(repo.record_verdicts(verdicts).unwrap(), Recorded::default());
        entries += u64::from(bad + good > 0);
        assert_eq!(repo.tail(), entries);
        reopened(&store).state().bad.of(&pack)
    };
    record(&BTreeMap::new(), 0, 0);
    // A blob.
    damage(&store, pack, 100);
    let verdicts = look(&repo);
    let Some(Verdict::Segments {
        bad: segments,
        unproved,
    }) = verdicts.get(&pack)
    else {
        panic!("{verdicts:?}");
    };
    assert_eq!((segments.len(), unproved.len()), (1, 0));
    assert_eq!(record(&verdicts, 1, 0), (false, segments.clone()));
    // Another one instead.
    store.replace(ObjectName::Pack(pack), sound.clone());
    damage(&store, pack, 6000);
    let verdicts = look(&repo);
    let (whole, others) = record(&verdicts, 1, 0);
    assert!(!whole && others.is_disjoint(segments) && others.len() == 1);
    // What is around the blobs.
    store.replace(ObjectName::Pack(pack), sound.clone());
    damage(&store, pack, usize::MAX);
    let verdicts = look(&repo);
    assert_eq!(verdicts, [(pack, Verdict::Frame)].into());
    assert!(record(&verdicts, 1, 0).0);
    // Nothing is left of it.
    store.remove(&ObjectName::Pack(pack));
    let verdicts = look(&repo);
    assert_eq!(verdicts, [(pack, Verdict::Lost)].into());
    assert!(record(&verdicts, 0, 0).0, "it is not relied on already");
    // Somebody brought it back.
    store.replace(ObjectName::Pack(pack), sound);
    let verdicts = look(&repo);
    assert_eq!(verdicts, [(pack, Verdict::Whole)].into());
    assert_eq!(record(&verdicts, 0, 1), (false, BTreeSet::new()));
    assert!(look(&repo).is_empty());
}

#[test]
fn a_store_that_does_not_answer_is_no_damage() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let denied = Effect::Fail(BackendErrorKind::Denied);
    let script = FaultScript::new(1).lasting(
        Trigger::call(CallKind::ReadAt, 1).of_kind(ObjectKind::Pack),
        denied,
    );
    let faulty = Arc::new(FaultBackend::new(store, script));
    let secret = Secret::Password(b"pw".to_vec());
    let repo = {
        drop(repo);
        Repository::open(faulty, seeded(2), secret, OpenOptions::default()).unwrap()
    };
    let report = check(&repo, ReadData::All);
    assert!(report.has_errors());
    assert!(report.verdicts.is_empty(), "{:?}", report.verdicts);
}

#[test]
fn a_pack_that_is_recorded_as_damaged_is_not_relied_on() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let pack = a_pack(&repo);
    damage(&store, pack, 100);
    let verdicts = check(&repo, ReadData::All).verdicts;
    let mut plain = vec![0; 5000];
    blake3::Hasher::new()
        .update(&[0])
        .finalize_xof()
        .fill(&mut plain);
    let put = |writer: &Writer| {
        let mut bench = writer.bench().unwrap();
        let stored = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &plain);
        stored.unwrap().added.is_some()
    };
    // A backup that began before relies on it, and has to begin anew.
    let early = reopened(&store);
    let base = early.tail();
    let writer = early.writer(WriterOptions::default());
    assert!(!put(&writer) && !writer.knows_of_damage());
    repo.record_verdicts(&verdicts).unwrap();
    let new = NewSnapshot {
        record: b"later",
        parent: None,
        base,
    };
    let mut bench = writer.bench().unwrap();
    let committed = early.commit(&writer, &mut bench, &new);
    assert!(
        matches!(
            committed,
            Err(Error::Conflict(Conflict::Damaged { ref packs })) if *packs == [pack]
        ),
        "{committed:?}"
    );
    drop(writer);
    early.refresh().unwrap();
    let writer = early.writer(WriterOptions::default());
    assert!(put(&writer) && writer.knows_of_damage());
    early.commit(&writer, &mut bench, &new).unwrap();
}

#[test]
fn who_may_not_record_is_told_so() {
    let store = MemBackend::new();
    let repo = repository(&store);
    assert!(repo.may_append(EntryKind::Attest));
    let new = NewKey {
        password: b"other",
        label: "reader".to_owned(),
        role: Role::Reader,
        kdf: KdfParams::DEFAULT,
    };
    repo.add_key(new).unwrap();
    let secret = Secret::Password(b"other".to_vec());
    let options = OpenOptions::default();
    let reader = Repository::open(Arc::new(store), seeded(3), secret, options).unwrap();
    assert!(!reader.may_append(EntryKind::Attest));
    let verdicts = [(a_pack(&repo), Verdict::Lost)].into();
    let recorded = reader.record_verdicts(&verdicts);
    assert!(
        matches!(recorded, Err(Error::Log(LogError::NotAllowed { .. }))),
        "{recorded:?}"
    );
}
