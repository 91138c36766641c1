//! A repository for each problem that a check can report, and the problem told as what it is.

use std::collections::HashSet;

use super::*;
use crate::{
    codec::CodecError,
    crypto::Identity,
    format::{
        index::IndexBody,
        log::{EntryHead, encode_object},
        record::Ext,
    },
    id::{BlobId, SlotObjectId, TxnId},
    index::{IndexCache, IndexError},
    log::state::IgnoreReason,
    pack::{
        forged::{self, Claim},
        reader::PackError,
    },
};

#[test]
fn a_log_entry_with_a_bad_copy_is_told_with_that_it_can_be_healed() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let name = ObjectName::Log(2);
    bend(&store, name, 60);
    let report = check(&repo, ReadData::Nothing);
    let told = about(&report, name);
    assert!(
        matches!(
            told.as_slice(),
            [(
                Severity::Warning,
                Problem::LogEntry {
                    missing: false,
                    healable: true
                }
            )]
        ),
        "{told:?}"
    );
}

#[test]
fn an_entry_of_a_key_that_may_not_write_it_is_noted() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let reader = Identity::generate(&seeded(5)).unwrap();
    repo.add_identity(Role::Reader, &reader).unwrap();
    let (seq, prev) = {
        let state = repo.state();
        (state.head.seq + 1, state.head.hash)
    };
    let head = EntryHead {
        kind: EntryKind::AddPacks,
        seq,
        prev,
        writer: reader.public().slot_id(),
        txn: TxnId::new([1; 16]),
        time: Timestamp::default(),
        body: vec![0; 40],
        parts: vec![],
        ext: vec![],
    };
    let inner = head.sign(&reader.signer()).unwrap();
    let name = ObjectName::Log(seq);
    store.replace(name, encode_object(&inner, &[]).unwrap());
    let mut report = check(&repo, ReadData::Nothing);
    // Somebody who is no more than a public key has no slot.
    report
        .findings
        .retain(|finding| !matches!(finding.what, Problem::KeyLost(_)));
    let told = about(&report, name);
    assert!(
        matches!(
            told.as_slice(),
            [(Severity::Note, Problem::Ignored(IgnoreReason::Role))]
        ),
        "{told:?}"
    );
}

#[test]
fn a_bad_copy_inside_an_object_is_told_from_an_object_that_is_bad() {
    for name in [
        ObjectName::Keyring(1),
        ObjectName::Config(ConfigCopy::First),
        ObjectName::Config(ConfigCopy::Second),
    ] {
        let store = MemBackend::new();
        let repo = repository(&store);
        bend(&store, name, 60);
        let report = check(&repo, ReadData::Nothing);
        let told = about(&report, name);
        assert!(
            matches!(told.as_slice(), [(Severity::Warning, Problem::Copy)]),
            "{name}: {told:?}"
        );
        store.replace(name, vec![1; 300]);
        let report = check(&repo, ReadData::Nothing);
        let told = about(&report, name);
        assert!(
            matches!(told.as_slice(), [(_, Problem::Damaged(_))]),
            "{name}: {told:?}"
        );
    }
}

#[test]
fn an_object_of_another_repository_in_the_place_of_ours_differs() {
    let (store, other) = (MemBackend::new(), MemBackend::new());
    let repo = repository(&store);
    let options = testing::options(ConfigBody {
        program: "another".to_owned(),
        ..repo.config().clone()
    });
    let secret = Secret::Password(b"pw".to_vec());
    Repository::create(Arc::new(other.clone()), seeded(2), secret, options).unwrap();
    for (name, expected) in [
        (ObjectName::Config(ConfigCopy::Second), Severity::Warning),
        (ObjectName::Keyring(1), Severity::Error),
    ] {
        let ours = store.objects()[&name].to_vec();
        store.replace(name, other.objects()[&name].to_vec());
        let report = check(&repo, ReadData::Nothing);
        let told = about(&report, name);
        assert!(
            matches!(told.as_slice(), [(severity, Problem::Differs)] if *severity == expected),
            "{name}: {told:?}"
        );
        store.replace(name, ours);
    }
}

#[test]
fn a_key_or_an_index_that_cannot_be_opened_is_told_with_the_reason() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let name = ObjectName::Key(SlotObjectId::new([9; 32]));
    store.replace(name, vec![1; 200]);
    let report = check(&repo, ReadData::Nothing);
    let told = about(&report, name);
    assert!(
        matches!(
            told.as_slice(),
            [(
                Severity::Error,
                Problem::Unreadable(Error::DamagedObject { .. })
            )]
        ),
        "{told:?}"
    );
    store.remove(&name);
    let group = forged::store(&repo, &[], |_| {});
    let index = repo.index().pack_by_id(&group.id).unwrap().index;
    let name = ObjectName::Index(index);
    bend(&store, name, 150);
    let report = check(&repo, ReadData::Nothing);
    let told = about(&report, name);
    assert!(
        matches!(
            told.as_slice(),
            [(
                Severity::Error,
                Problem::Unreadable(Error::WrongContent { object })
            )] if *object == name
        ),
        "{told:?}"
    );
}

#[test]
fn a_record_that_its_copy_replaces_is_a_warning_with_the_reason() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let mut record = vec![0; 200_000];
    blake3::Hasher::new().finalize_xof().fill(&mut record);
    let base = repo.tail();
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    let new = NewSnapshot {
        record: &record,
        parent: None,
        base,
    };
    let snapshot = repo.commit(&writer, &mut bench, &new).unwrap();
    let name = ObjectName::Snapshot(snapshot);
    store.remove(&name);
    let report = check(&repo, ReadData::Nothing);
    let told = about(&report, name);
    assert!(
        matches!(
            told.as_slice(),
            [(Severity::Warning, Problem::Record(Error::Backend(error)))]
                if error.is_not_found()
        ),
        "{told:?}"
    );
}

#[test]
fn what_the_store_does_not_give_is_told_with_what_the_store_says() {
    let store = MemBackend::new();
    drop(repository(&store));
    let name = ObjectName::Config(ConfigCopy::Second);
    let trigger = Trigger::call(CallKind::ReadAll, 1).of_object(name);
    let script = FaultScript::new(1).lasting(trigger, Effect::Fail(BackendErrorKind::Io));
    let faulty = Arc::new(FaultBackend::new(store, script));
    let secret = Secret::Password(b"pw".to_vec());
    let repo = Repository::open(faulty, seeded(2), secret, OpenOptions::default()).unwrap();
    let report = check(&repo, ReadData::Nothing);
    let told = about(&report, name);
    assert!(
        matches!(
            told.as_slice(),
            [(Severity::Warning, Problem::Store(error))] if error.kind == BackendErrorKind::Io
        ),
        "{told:?}"
    );
}

#[test]
fn a_pack_that_the_store_does_not_give_is_told_with_what_the_store_says() {
    let store = MemBackend::new();
    let pack = a_pack(&repository(&store));
    let trigger = Trigger::call(CallKind::ReadAt, 1).of_object(ObjectName::Pack(pack));
    let script = FaultScript::new(1).lasting(trigger, Effect::Fail(BackendErrorKind::Io));
    let faulty = Arc::new(FaultBackend::new(store, script));
    let secret = Secret::Password(b"pw".to_vec());
    let repo = Repository::open(faulty, seeded(2), secret, OpenOptions::default()).unwrap();
    let report = check(&repo, ReadData::All);
    let told = about(&report, ObjectName::Pack(pack));
    assert!(
        matches!(
            told.as_slice(),
            [(
                Severity::Error,
                Problem::Pack {
                    good: 0,
                    source: PackError::Backend(error),
                    ..
                }
            )] if error.kind == BackendErrorKind::Io
        ),
        "{told:?}"
    );
}

/// A cache that says it knows an index object, and lacks what that says.
fn forget_in_cache(dir: &std::path::Path, repo: &Repository) {
    let live = repo.state().indexes.keys().copied().collect();
    let mut nothing = |_| {
        Ok(IndexBody {
            packs: vec![],
            ext: Ext::default(),
        })
    };
    IndexCache::open(Some(dir), repo.id(), &live, &HashSet::new(), &mut nothing).unwrap();
}

#[test]
fn a_local_index_that_lacks_what_the_repository_says_is_told() {
    let store = MemBackend::new();
    let first = repository(&store);
    let dir = tempfile::tempdir().unwrap();
    forget_in_cache(dir.path(), &first);
    let options = OpenOptions {
        cache_dir: Some(dir.path().to_path_buf()),
        ..OpenOptions::default()
    };
    let secret = Secret::Password(b"pw".to_vec());
    let repo = Repository::open(Arc::new(store), seeded(2), secret, options).unwrap();
    let report = check(&repo, ReadData::Nothing);
    assert!(!report.findings.is_empty());
    for finding in &report.findings {
        assert!(matches!(finding.what, Problem::Cache), "{finding:?}");
        assert_eq!(finding.severity, Severity::Error);
    }
}

#[test]
fn a_local_index_that_is_damaged_ends_the_check_with_an_error_that_names_it() {
    let store = MemBackend::new();
    drop(repository(&store));
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        cache_dir: Some(dir.path().to_path_buf()),
        ..OpenOptions::default()
    };
    let secret = Secret::Password(b"pw".to_vec());
    let repo = Repository::open(Arc::new(store), seeded(2), secret, options).unwrap();
    let verified = repo.index().spoiled(repo.id()).verify();
    let error = Error::from(verified.unwrap_err());
    assert!(
        matches!(&error, Error::Index(IndexError::DamagedCache { file, .. })
            if file.starts_with(dir.path())),
        "{error:?}"
    );
}

#[test]
fn a_blob_that_its_writer_sealed_badly_is_told_from_one_with_a_false_id() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let (bad, wrong) = (BlobId::new([7; 32]), BlobId::new([8; 32]));
    let mut unreadable = Claim::stored(bad, b"no frame");
    unreadable.codec = 2;
    let claims = [unreadable, Claim::stored(wrong, b"other bytes")];
    let group = forged::store(&repo, &claims, |_| {});
    let report = check(&repo, ReadData::All);
    let told = about(&report, ObjectName::Pack(group.id));
    assert!(
        matches!(
            told.as_slice(),
            [
                (
                    Severity::Error,
                    Problem::Blob {
                        blob: first,
                        source: PackError::Codec(CodecError::NotAFrame)
                    }
                ),
                (Severity::Error, Problem::WrongBlob { blob: second })
            ] if *first == bad && *second == wrong
        ),
        "{told:?}"
    );
    let bad_blobs = &report.bad_blobs[&group.id];
    assert_eq!(*bad_blobs, BTreeSet::from([bad, wrong]));
}

#[test]
fn an_index_that_says_other_things_than_the_pack_itself_is_told() {
    let store = MemBackend::new();
    let repo = repository(&store);
    let plain = b"some bytes";
    let id = repo.blob_id(BlobKind::Data, plain);
    let claims = [Claim::stored(id, plain), Claim::stored(id, plain)];
    let group = forged::store(&repo, &claims, |group| {
        group.entries.pop();
    });
    let report = check(&repo, ReadData::All);
    let told = about(&report, ObjectName::Pack(group.id));
    assert!(
        matches!(
            told.as_slice(),
            [(Severity::Error, Problem::TableOfContents)]
        ),
        "{told:?}"
    );
}
