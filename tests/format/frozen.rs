//! Frozen repositories, read by today's code: every pack checked without a key, every blob read
//! and compared with its id, every file with the manifest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
};

use strongroom_core::{
    Error,
    format::{
        extents::{Content, Extent, Extents, Page},
        snapshot::Snapshot,
        tree::{Body, Entries, TreeEntry, TreePage},
    },
    node::NodeKind,
};
use strongroom_repo::{
    backend::{Backend, LocalBackend, LocalOptions, ObjectKind, ObjectName},
    codec::Codec,
    env::testing::seeded,
    format::slot::Role,
    id::BlobId,
    index::Found,
    pack::reader::check_bytes,
    repository::{OpenOptions, Repository, Secret},
};

use super::{DELTAS, EXERCISED, Manifest, OWNER, READER, REPO_V1, golden};

fn open(name: &str, password: &str) -> Repository {
    let env = seeded(1);
    let options = LocalOptions::new(env.run());
    let backend = LocalBackend::open(&golden(name).join("repo"), options).unwrap();
    let secret = Secret::Password(password.as_bytes().to_vec());
    Repository::open(Arc::new(backend), env, secret, OpenOptions::default()).unwrap()
}

fn load(repo: &Repository, id: &BlobId) -> Result<Vec<u8>, Error> {
    Ok(repo.reader()?.load(id)?)
}

/// The regular files below a page: path and node.
fn files(repo: &Repository, tree: BlobId) -> BTreeMap<Vec<u8>, TreeEntry> {
    let mut found = BTreeMap::new();
    let mut open = vec![(Vec::new(), tree)];
    while let Some((folder, tree)) = open.pop() {
        let page = |id: &BlobId| Ok::<_, Error>(TreePage::decode(&load(repo, id)?)?);
        for entry in Entries::new(tree, page) {
            let entry = entry.unwrap();
            let mut path = folder.clone();
            path.extend_from_slice(&entry.node.name);
            match &entry.body {
                Body::File(_) => {
                    found.insert(path, entry);
                }
                Body::Dir(tree) => {
                    path.push(b'/');
                    open.push((path, *tree));
                }
                Body::None => {}
            }
        }
    }
    found
}

fn content(repo: &Repository, content: &Content) -> Vec<u8> {
    let mut out = Vec::new();
    let page = |id: &BlobId| Ok::<_, Error>(Page::decode(&load(repo, id)?)?);
    for extent in Extents::new(content, page) {
        match extent.unwrap() {
            Extent::Data { len, id } => {
                let bytes = load(repo, &id).unwrap();
                assert_eq!(bytes.len(), usize::try_from(len).unwrap());
                out.extend(bytes);
            }
            Extent::Hole { len } | Extent::Zero { len } => {
                out.resize(out.len() + usize::try_from(len).unwrap(), 0);
            }
        }
    }
    out
}

/// Its snapshots, by their only tag.
fn snapshots(repo: &Repository) -> BTreeMap<String, Snapshot> {
    repo.snapshots()
        .keys()
        .map(|id| Snapshot::decode(&repo.load_snapshot(*id).unwrap()).unwrap())
        .map(|snapshot| (snapshot.tags[0].clone(), snapshot))
        .collect()
}

#[test]
fn every_file_of_a_frozen_repository_has_the_hash_in_its_manifest() {
    for name in EXERCISED {
        let manifest = Manifest::load(name);
        let repo = open(name, OWNER);
        let snapshots = snapshots(&repo);
        let expected: BTreeSet<&String> = manifest.totals.iter().map(|(tag, ..)| tag).collect();
        assert_eq!(snapshots.keys().collect::<BTreeSet<_>>(), expected);
        let files: BTreeMap<_, _> = snapshots
            .iter()
            .map(|(tag, snapshot)| (tag.as_str(), files(&repo, snapshot.tree)))
            .collect();
        for (tag, count, total) in &manifest.totals {
            let files = &files[tag.as_str()];
            assert_eq!(files.len(), *count, "{name} {tag}");
            let sizes = files.values().map(|entry| match entry.node.kind {
                NodeKind::File { size } => size,
                _ => 0,
            });
            assert_eq!(sizes.sum::<u64>(), *total, "{name} {tag}");
        }
        for file in &manifest.files {
            let path = strongroom_tests::golden::unescape(&file.shown).unwrap();
            let Body::File(list) = &files[file.tag.as_str()][&path].body else {
                panic!("{} is no file", file.shown);
            };
            let bytes = content(&repo, list);
            assert_eq!(bytes.len() as u64, file.len, "{}", file.shown);
            assert_eq!(
                strongroom_tests::golden::hash(&bytes),
                file.hash,
                "{}",
                file.shown
            );
        }
    }
}

/// Every copy that the index has, after reading every blob.
fn copies(name: &str) -> Vec<Found> {
    let repo = open(name, READER);
    let index = repo.index();
    // Reading a blob ends with comparing its id.
    let mut reader = repo.reader().unwrap();
    let mut all = Vec::new();
    for id in index.blob_ids().unwrap() {
        let id = id.unwrap();
        let plain = reader.load(&id).unwrap();
        for copy in index.copies(&id).unwrap() {
            assert_eq!(plain.len() as u64, u64::from(copy.entry.plain_len));
            all.push(copy);
        }
    }
    all
}

#[test]
fn every_blob_of_the_frozen_repositories_reads_and_every_codec_is_among_them() {
    let mut codecs = BTreeSet::new();
    for name in EXERCISED {
        let found: BTreeSet<u8> = copies(name).iter().map(|copy| copy.entry.codec).collect();
        let deltas = [
            Codec::Delta16.to_byte(),
            Codec::Delta32.to_byte(),
            Codec::DeltaBytes.to_byte(),
        ];
        let has_all = deltas.iter().all(|codec| found.contains(codec));
        assert_eq!(has_all, name == DELTAS, "{name}: {found:?}");
        codecs.extend(found);
    }
    assert_eq!(codecs, Codec::ALL.map(Codec::to_byte).into());
}

#[test]
fn what_only_deltas_need_is_there_and_what_nobody_needs_was_swept() {
    let repo = open(DELTAS, OWNER);
    let state = repo.state();
    assert_eq!((state.snapshots.len(), state.removed.len()), (2, 0));
    assert!(!state.swept.is_empty() && state.ignored.is_empty());
    let mut needed = BTreeSet::new();
    for snapshot in snapshots(&repo).values() {
        for entry in files(&repo, snapshot.tree).values() {
            let Body::File(list) = &entry.body else {
                continue;
            };
            let page = |id: &BlobId| Ok::<_, Error>(Page::decode(&load(&repo, id)?)?);
            for extent in Extents::new(list, page) {
                if let Extent::Data { id, .. } = extent.unwrap() {
                    needed.insert(id);
                }
            }
        }
    }
    let copies = copies(DELTAS);
    let bases: BTreeSet<BlobId> = copies.iter().filter_map(|copy| copy.entry.base).collect();
    assert!(bases.len() > 5, "{bases:?}");
    assert!(
        bases.difference(&needed).count() > 5,
        "bases for deltas alone"
    );
    let index = repo.index();
    for base in &bases {
        let whole = index.copies(base).unwrap();
        assert!(whole.iter().any(|copy| copy.entry.base.is_none()), "{base}");
    }
    let lens = |blob: &BlobId| index.find(blob).unwrap().unwrap().entry.plain_len;
    let longer = |copy: &&Found| {
        copy.entry
            .base
            .is_some_and(|base| lens(&base) < copy.entry.plain_len)
    };
    let shorter = |copy: &&Found| {
        copy.entry
            .base
            .is_some_and(|base| lens(&base) > copy.entry.plain_len)
    };
    assert!(
        copies.iter().any(|copy| longer(&copy)),
        "a base that is continued"
    );
    assert!(
        copies.iter().any(|copy| shorter(&copy)),
        "a base that is cut"
    );
}

#[test]
fn blocks_and_tensors_of_a_frozen_repository_are_cut_as_they_were() {
    let repo = open(DELTAS, OWNER);
    let third = &snapshots(&repo)["third"];
    let files = files(&repo, third.tree);
    let lens = |name: &[u8]| -> Vec<(char, u64)> {
        let Body::File(list) = &files[name].body else {
            panic!("no file");
        };
        let page = |id: &BlobId| Ok::<_, Error>(Page::decode(&load(&repo, id)?)?);
        let extents = Extents::new(list, page).map(|extent| match extent.unwrap() {
            Extent::Data { len, .. } => ('d', u64::from(len)),
            Extent::Zero { len } => ('z', len),
            Extent::Hole { len } => ('h', len),
        });
        extents.collect()
    };
    // The header; then each tensor, in the order of the third generation.
    let model = lens(b"model.safetensors");
    let tensors: Vec<u64> = model[1..].iter().map(|(_, len)| *len).collect();
    assert_eq!(tensors, [40_000, 35_000, 38_000, 40_002, 36_000]);
    assert_eq!(lens(b"swapped.npy"), [('d', 128), ('d', 40_000)]);
    for (name, grid) in [(&b"app.db"[..], 8192), (b"disk.img", 4096)] {
        let all = lens(name);
        assert!(all.len() > 1, "{all:?}");
        assert!(all.iter().all(|(_, len)| len % grid == 0), "{all:?}");
    }
    let image = lens(b"disk.img");
    assert!(image.iter().any(|(kind, _)| *kind == 'z'), "{image:?}");
    assert_eq!(image.last().unwrap().0, 'h', "{image:?}");
}

#[test]
fn every_pack_of_a_frozen_repository_is_whole_without_a_key() {
    for name in EXERCISED {
        let options = LocalOptions::new(seeded(1).run());
        let store = LocalBackend::open(&golden(name).join("repo"), options).unwrap();
        let mut packs = Vec::new();
        store
            .list(ObjectKind::Pack, &mut |object, _| packs.push(object))
            .unwrap();
        assert!(packs.len() > 3);
        for object in packs {
            let ObjectName::Pack(id) = object else {
                panic!("{object} among the packs");
            };
            check_bytes(id, &store.read_all(&object, 1 << 20).unwrap()).unwrap();
        }
    }
}

#[test]
fn a_frozen_repository_has_two_keys_a_removed_snapshot_and_an_index_of_an_interrupted_run() {
    let repo = open(REPO_V1, READER);
    let state = repo.state();
    let roles: BTreeSet<u8> = state.keys.slots.values().map(|slot| slot.role).collect();
    assert_eq!(roles, [Role::Owner as u8, Role::Reader as u8].into());
    assert_eq!((state.snapshots.len(), state.removed.len()), (2, 1));
    assert_eq!(state.indexes.len(), 4);
    assert!(state.ignored.is_empty());
}

#[test]
fn links_holes_and_names_of_a_frozen_repository_are_what_they_were() {
    let repo = open(REPO_V1, OWNER);
    let first = &snapshots(&repo)["first"];
    let files = files(&repo, first.tree);
    let link = |name: &[u8]| files[name].node.meta.link;
    assert!(link(b"notes.txt").is_some());
    assert_eq!(link(b"notes.txt"), link(b"notes-again.txt"));
    assert!(files.contains_key(b"not \xff utf-8".as_slice()));
    let Body::File(Content::Inline(extents)) = &files[b"sparse.img".as_slice()].body else {
        panic!("a sparse file of few extents is not inline");
    };
    let holes = extents
        .iter()
        .filter(|extent| matches!(extent, Extent::Hole { .. }));
    assert_eq!(holes.count(), 2);
    let Body::File(Content::List { level, .. }) = &files[b"long.bin".as_slice()].body else {
        panic!("a file of many extents has no pages");
    };
    assert_eq!(*level, 1);
}

#[test]
fn opening_a_frozen_repository_changes_nothing_in_it() {
    let before = bytes_below(&golden(REPO_V1));
    drop(open(REPO_V1, OWNER));
    assert_eq!(bytes_below(&golden(REPO_V1)), before);
}

#[test]
fn a_damaged_frozen_pack_is_noticed() {
    let copy = tempfile::tempdir().unwrap();
    let source = golden(REPO_V1).join("repo");
    for entry in fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "packs" {
            symlink(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    for (path, mut bytes) in bytes_below(&source.join("packs")) {
        bytes[100] ^= 1;
        let to = copy.path().join("packs").join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
    let options = LocalOptions::new(seeded(1).run());
    let store = LocalBackend::open(copy.path(), options).unwrap();
    let mut found = 0;
    store
        .list(ObjectKind::Pack, &mut |object, _| {
            if let ObjectName::Pack(id) = object {
                let bytes = store.read_all(&object, 1 << 20).unwrap();
                assert!(check_bytes(id, &bytes).is_err());
                found += 1;
            }
        })
        .unwrap();
    assert!(found > 3);
}

/// Every file below a folder, by relative path.
fn bytes_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
                continue;
            }
            let path = entry.path();
            let path = path.strip_prefix(folder).unwrap().to_str().unwrap();
            found.insert(path.to_owned(), fs::read(entry.path()).unwrap());
        }
    }
    found
}
