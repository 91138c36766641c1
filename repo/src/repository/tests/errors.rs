//! What a repository says when something is wrong, each error as what it is.

use super::*;
use crate::{
    crypto::SealError,
    env::{RandomError, testing::running_dry},
    format::DecodeError,
    id::PackId,
    keys::KeyError,
    pack::{
        forged::{self, Claim},
        reader::PackError,
    },
};

#[test]
fn a_blob_with_other_content_than_its_id_says_is_given_to_nobody() {
    let store = MemBackend::new();
    let (repo, _) = create(&store, 1);
    let id = BlobId::new([7; 32]);
    let group = forged::store(&repo, &[Claim::stored(id, b"other bytes")], |_| {});
    let mut reader = repo.reader().unwrap();
    let is_wrong = |error: &Error| match error {
        Error::WrongBlob { blob, pack } => *blob == id && *pack == group.id,
        _ => false,
    };
    let loaded = reader.load(&id).unwrap_err();
    assert!(is_wrong(&loaded), "{loaded:?}");
    let mut told = Vec::new();
    let mut take = |_, _: &[u8]| -> Result<(), ()> { unreachable!("nobody is given it") };
    let wanted = [Wanted { id, tag: 7 }];
    let mut failed = |tag, error| told.push((tag, error));
    reader.load_many(&wanted, &mut take, &mut failed).unwrap();
    assert!(
        matches!(told.as_slice(), [(7, error)] if is_wrong(error)),
        "{told:?}"
    );
}

#[test]
fn a_pack_whose_key_cannot_be_found_is_named() {
    let store = MemBackend::new();
    let (repo, _) = create(&store, 1);
    let plain = b"some bytes";
    let id = repo.blob_id(BlobKind::Data, plain);
    let group = forged::store(&repo, &[Claim::stored(id, plain)], |group| {
        group.header.salt = [9; 32];
    });
    let loaded = repo.reader().unwrap().load(&id).unwrap_err();
    assert!(
        matches!(
            loaded,
            Error::Pack {
                pack,
                source: PackError::Seal(SealError::WrongKey)
            } if pack == group.id
        ),
        "{loaded:?}"
    );
}

#[test]
fn a_snapshot_that_the_log_does_not_know_is_named() {
    let (repo, _) = create(&MemBackend::new(), 1);
    let wanted = SnapshotId::new([3; 32]);
    let loaded = repo.load_snapshot(wanted);
    assert!(
        matches!(loaded, Err(Error::NoSnapshot { snapshot }) if snapshot == wanted),
        "{loaded:?}"
    );
}

/// A repository whose store takes no object of this kind, and does not say so.
fn on_silent_store(kind: ObjectKind, nth: u64) -> Repository {
    let store = MemBackend::new();
    let (_, me) = create(&store, 1);
    let trigger = Trigger::write(nth).of_kind(kind);
    let script = FaultScript::new(1).lasting(trigger, Effect::Unknown { applied: false });
    let faulty = Arc::new(FaultBackend::new(store, script));
    let secret = Secret::Opened(Box::new(me));
    Repository::open(faulty, seeded(2), secret, OpenOptions::default()).unwrap()
}

#[test]
fn what_the_store_took_and_does_not_have_was_not_stored() {
    for kind in [ObjectKind::Pack, ObjectKind::Index, ObjectKind::Snapshot] {
        let repo = on_silent_store(kind, 1);
        let base = repo.tail();
        let writer = repo.writer(WriterOptions::default());
        let mut bench = writer.bench().unwrap();
        // As many blobs as make an index that does not fit into the log entry, and a record too.
        for n in 0..4000_u32 {
            let plain = n.to_le_bytes();
            let stored = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &plain);
            stored.unwrap();
        }
        let new = NewSnapshot {
            record: &blob(6),
            parent: None,
            base,
        };
        let committed = repo.commit(&writer, &mut bench, &new).unwrap_err();
        let error = writer.cause(committed);
        assert!(
            matches!(error, Error::NotStored { object } if object.kind() == kind),
            "{kind:?}: {error:?}"
        );
        assert!(repo.snapshots().is_empty());
    }
    for kind in [ObjectKind::Key, ObjectKind::Keyring] {
        let repo = on_silent_store(kind, 1);
        let new = NewKey {
            password: b"other",
            label: "reader".to_owned(),
            role: Role::Reader,
            kdf: KdfParams::DEFAULT,
        };
        let added = repo.add_key(new).unwrap_err();
        assert!(
            matches!(added, Error::NotStored { object } if object.kind() == kind),
            "{kind:?}: {added:?}"
        );
    }
}

#[test]
fn without_randomness_a_repository_is_not_made() {
    let me = Identity::generate(&seeded(1)).unwrap();
    let mut errors = 0;
    for times in 0.. {
        let anchor = Anchor {
            repo: RepoId::new([0; 16]),
            owner: me.public().sign,
        };
        let opened = OpenedSlot {
            identity: me.clone(),
            anchor,
        };
        let secret = Secret::Opened(Box::new(opened));
        let store = MemBackend::new();
        let made = Repository::create(
            Arc::new(store.clone()),
            running_dry(times),
            secret,
            options(),
        );
        match made.err() {
            None => break,
            Some(
                Error::Random(RandomError)
                | Error::Key(KeyError::Random(_) | KeyError::Wrap(_))
                | Error::Log(LogError::Random(_)),
            ) => errors += 1,
            Some(other) => panic!("{times}: {other:?}"),
        }
        let config = ObjectName::Config(ConfigCopy::First);
        assert!(!store.objects().contains_key(&config));
    }
    assert!(errors > 5, "{errors}");
}

#[test]
fn what_no_object_has_room_for_is_refused() {
    let me = Identity::generate(&seeded(1)).unwrap();
    let anchor = Anchor {
        repo: RepoId::new([0; 16]),
        owner: me.public().sign,
    };
    let secret = Secret::Opened(Box::new(OpenedSlot {
        identity: me,
        anchor,
    }));
    let mut options = options();
    options.config.program = "x".repeat(65 << 20);
    let store = Arc::new(MemBackend::new());
    let made = Repository::create(store, seeded(1), secret, options).err();
    assert!(
        matches!(made, Some(Error::Decode(DecodeError::OutOfRange { .. }))),
        "{made:?}"
    );
    let (repo, _) = create(&MemBackend::new(), 1);
    let sealed = repo.seal(SealKind::Index, &vec![0; (64 << 20) + 1]).err();
    assert!(
        matches!(
            sealed,
            Some(Error::Seal(SealError::Decode(
                DecodeError::OutOfRange { .. }
            )))
        ),
        "{sealed:?}"
    );
}

/// Bytes that nothing makes smaller, but for a few at the front that tell them apart.
fn near(n: u8) -> Vec<u8> {
    let mut plain = blob(6);
    plain[..8].fill(n);
    plain
}

/// A pack with a blob, one with two deltas of it, and the ids of all three.
fn with_deltas(repo: &Repository) -> ([PackId; 2], [BlobId; 3]) {
    let mut packs = Vec::new();
    let mut ids = Vec::new();
    // By the last bit of its id a blob goes into one of two open packs.
    let slot = |n: &u8| repo.blob_id(BlobKind::Data, &near(*n)).as_bytes()[31] & 1;
    let beside = (2..).find(|n| slot(n) == slot(&1)).unwrap();
    for parts in [&[0_u8][..], &[1, beside]] {
        let writer = repo.writer(WriterOptions::default());
        let mut bench = writer.bench().unwrap();
        for n in parts {
            let base = ids.first().copied();
            let stored =
                writer.put_like(&mut bench, BlobKind::Data, Hint::Plain, &near(*n), &|| base);
            ids.push(stored.unwrap().id);
        }
        repo.keep(&writer, &mut bench).unwrap();
        let index = repo.index();
        let found = index.find(ids.last().unwrap()).unwrap().unwrap();
        assert_eq!(found.entry.base, (ids.len() > 1).then(|| ids[0]));
        packs.push(index.pack(found.pack).unwrap().id);
    }
    (packs.try_into().unwrap(), ids.try_into().unwrap())
}

#[test]
fn every_delta_that_the_store_keeps_from_us_is_told_with_what_the_store_says() {
    for lost in 0..2 {
        let store = MemBackend::new();
        let (repo, me) = create(&store, 1);
        let (packs, ids) = with_deltas(&repo);
        let name = ObjectName::Pack(packs[lost]);
        let trigger = Trigger::call(CallKind::ReadAt, 1).of_object(name);
        let script = FaultScript::new(1).lasting(trigger, Effect::Fail(BackendErrorKind::Io));
        let faulty = Arc::new(FaultBackend::new(store, script));
        let secret = Secret::Opened(Box::new(me));
        let repo = Repository::open(faulty, seeded(2), secret, OpenOptions::default()).unwrap();
        let mut told = Vec::new();
        let mut take = |tag: u32, _: &[u8]| {
            assert_eq!((lost, tag), (1, 0), "only the blob in the other pack");
            Ok::<_, ()>(())
        };
        let wanted: Vec<_> = (0..).zip(ids).map(|(tag, id)| Wanted { id, tag }).collect();
        let mut failed = |tag, error| told.push((tag, error));
        let mut reader = repo.reader().unwrap();
        reader.load_many(&wanted, &mut take, &mut failed).unwrap();
        told.sort_by_key(|(tag, _)| *tag);
        let of_store = |error: &Error| match error {
            Error::Backend(error) => error.kind == BackendErrorKind::Io,
            _ => false,
        };
        let as_expected = |(tag, error): &(u32, Error)| match error {
            Error::Base { blob, base, source } => {
                lost == 0 && *tag > 0 && *base == ids[0] && ids.contains(blob) && of_store(source)
            }
            error => (lost == 1) == (*tag > 0) && of_store(error),
        };
        assert_eq!(told.len(), 3 - lost, "{told:?}");
        assert!(told.iter().all(as_expected), "{told:?}");
    }
}

#[test]
fn a_repository_without_a_key_is_not_called_a_wrong_password() {
    let store = MemBackend::new();
    create(&store, 1);
    let secret = || Secret::Password(b"pw".to_vec());
    let options = OpenOptions::default;
    let opened = Repository::open(Arc::new(store.clone()), seeded(2), secret(), options());
    assert!(matches!(opened.err(), Some(Error::NoKeys { .. })));
    store.replace(ObjectName::Key(SlotObjectId::new([7; 32])), vec![1; 100]);
    let opened = Repository::open(Arc::new(store), seeded(2), secret(), options()).err();
    assert!(
        matches!(opened, Some(Error::DamagedObject { .. })),
        "{opened:?}"
    );
}

#[test]
fn an_object_of_a_newer_version_is_not_called_damaged() {
    let store = MemBackend::new();
    let (repo, me) = create(&store, 1);
    // An index of a later version, by a later program.
    let sealed = repo.seal(SealKind::Index, &[2; 40]).unwrap();
    let id = IndexId::new(*blake3::hash(&sealed).as_bytes());
    let name = ObjectName::Index(id);
    store.replace(name, sealed);
    let newer = repo.read_index(id, Place::Own).err();
    assert!(
        matches!(newer, Some(Error::Newer { object, .. }) if object == name),
        "{newer:?}"
    );
    // A configuration of which every copy is.
    for copy in [ConfigCopy::First, ConfigCopy::Second] {
        let name = ObjectName::Config(copy);
        let mut bytes = store.objects()[&name].to_vec();
        let magic = b"STRONGRM";
        for at in 0..bytes.len() - magic.len() {
            if bytes[at..].starts_with(magic) {
                bytes[at + magic.len()] = 2;
            }
        }
        store.replace(name, bytes);
    }
    let secret = Secret::Opened(Box::new(me));
    let opened = Repository::open(
        Arc::new(store.clone()),
        seeded(2),
        secret,
        OpenOptions::default(),
    );
    assert!(matches!(opened.err(), Some(Error::Newer { .. })));
    // One object in the place of another is no news.
    for copy in [ConfigCopy::First, ConfigCopy::Second] {
        let keyring = store.objects()[&ObjectName::Keyring(1)].to_vec();
        store.replace(ObjectName::Config(copy), keyring);
    }
    let read = crate::repository::open::read_config(&store).err();
    assert!(
        matches!(read, Some(Error::DamagedObject { .. })),
        "{read:?}"
    );
}
