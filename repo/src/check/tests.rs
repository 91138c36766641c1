//! Every sort of damage is found and named; a sound repository has no findings.

use std::sync::{Arc, atomic::AtomicBool};

use super::{CheckOptions, CheckReport, Problem, ReadData, Severity, stored_size};
use crate::{
    backend::{ConfigCopy, MemBackend, ObjectKind, ObjectName},
    codec::Hint,
    crypto::{BlobKind, KdfParams},
    env::{Timestamp, testing::seeded},
    format::config::ConfigBody,
    id::PackId,
    log::segment,
    repository::{CreateOptions, NewSnapshot, OpenOptions, Repository, Secret},
    writer::WriterOptions,
};

/// A repository with one snapshot of a few blobs.
fn repository(store: &MemBackend) -> Repository {
    let options = CreateOptions {
        config: ConfigBody {
            created: Timestamp::default(),
            program: "test".to_owned(),
            chunker: 1,
            chunk_min: 1,
            chunk_avg: 2,
            chunk_max: 3,
            pack_target: 4 << 20,
        },
        label: "a@b".to_owned(),
        kdf: KdfParams::DEFAULT,
        open: OpenOptions::default(),
    };
    let secret = Secret::Password(b"pw".to_vec());
    let repo = Repository::create(Arc::new(store.clone()), seeded(1), secret, options).unwrap();
    let base = repo.tail();
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    for n in 0..8_u8 {
        let mut plain = vec![0; 5000];
        blake3::Hasher::new()
            .update(&[n])
            .finalize_xof()
            .fill(&mut plain);
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
}

#[test]
fn a_log_segment_that_rots_is_a_warning_and_one_that_is_lost_is_nothing() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let name = ObjectName::LogSegment(1);
    let entries: Vec<Vec<u8>> = (0..1024).map(|n: u32| n.to_le_bytes().to_vec()).collect();
    let sound = segment::encode(1, &entries).unwrap();
    store.replace(name, sound.clone());
    assert!(check(&repo, ReadData::Nothing).findings.is_empty());
    for at in (0..sound.len()).step_by(37) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        store.replace(name, bytes);
        let report = check(&repo, ReadData::Nothing);
        assert_eq!(report.count(Severity::Warning), 1, "byte {at}");
        assert_eq!(report.findings[0].object, Some(name), "byte {at}");
        assert!(!report.has_errors(), "byte {at}");
    }
    store.remove(&name);
    assert!(check(&repo, ReadData::Nothing).findings.is_empty());
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
