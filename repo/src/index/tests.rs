//! The index against a naive model, and its cache against everything that can happen to files.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use super::{
    Index, IndexCache, IndexError,
    build::{IndexBuilder, Sink},
    fuzz::fuzz_table,
    layout::Layout,
    synthetic::Synthetic,
    table::{Bytes, Table},
};
use crate::{
    crypto::{BlobKind, SealHeader, SealKind},
    format::{
        index::{IndexBody, PackGroup},
        pack::BlobEntry,
        record::Ext,
    },
    id::{BlobId, EpochId, IndexId, PackId, RepoId},
};

const REPO: RepoId = RepoId::new([7; 16]);
const POOL: u32 = 48;

fn hash(what: &str, number: u32) -> [u8; 32] {
    *blake3::hash(format!("{what} {number}").as_bytes()).as_bytes()
}

/// Blob ids; two neighbours share the half that look-ups go by.
fn blob_id(number: u32) -> BlobId {
    let mut id = hash("blob", number);
    id[..16].copy_from_slice(&hash("blob", number / 2)[..16]);
    BlobId::new(id)
}

fn pack_id(number: u32) -> PackId {
    PackId::new(hash("pack", number))
}

/// A pack is a function of its number, as real packs never change.
fn group(number: u32) -> PackGroup {
    let blobs = number * 5 % 9;
    let mut offset = 94;
    let entries = (0..blobs).map(|blob| {
        let seed = u32::from(hash("choice", number * 100 + blob)[0]);
        let entry = BlobEntry {
            kind: BlobKind::ALL[usize::try_from(seed % 4).unwrap()],
            codec: hash("codec", seed)[0],
            base: hash("base", number * 100 + blob)[0]
                .is_multiple_of(3)
                .then(|| blob_id(seed % POOL + 1)),
            segment: if blob == 0 { 65_535 } else { blob },
            offset,
            sealed_len: 16 + seed,
            plain_len: seed,
            id: blob_id(seed % POOL),
        };
        offset += entry.sealed_len;
        entry
    });
    PackGroup {
        id: pack_id(number),
        entries: entries.collect(),
        len: 10_000 + u64::from(number),
        header: SealHeader {
            kind: SealKind::Pack,
            epoch: EpochId::new([3; 16]),
            salt: hash("salt", number),
            commit: hash("commit", number),
        },
        ext: Ext::default(),
    }
}

fn body(packs: &[u32]) -> IndexBody {
    IndexBody {
        packs: packs.iter().map(|number| group(*number)).collect(),
        ext: Ext::default(),
    }
}

/// What is true of a repository, naively.
#[derive(Clone, Default)]
struct World {
    objects: BTreeMap<IndexId, Vec<u32>>,
    next: u32,
    swept: HashSet<PackId>,
    loaded: RefCell<Vec<IndexId>>,
}

impl World {
    fn add(&mut self, packs: &[u32]) -> IndexId {
        let id = IndexId::new(hash("object", self.next));
        self.next += 1;
        self.objects.insert(id, packs.to_vec());
        id
    }

    fn live(&self) -> BTreeSet<IndexId> {
        self.objects.keys().copied().collect()
    }

    fn open(&self, dir: Option<&Path>) -> Index {
        self.loaded.borrow_mut().clear();
        let mut load = |id| {
            self.loaded.borrow_mut().push(id);
            Ok(body(&self.objects[&id]))
        };
        IndexCache::open(dir, REPO, &self.live(), &self.swept, &mut load).unwrap()
    }

    /// How many index objects the last opening had to load.
    fn loads(&self) -> usize {
        self.loaded.borrow().len()
    }

    /// Opens the index and compares every answer.
    fn check(&self, dir: Option<&Path>) {
        self.compare(&self.open(dir)).unwrap();
    }

    /// Compares every answer that is given.
    fn compare(&self, index: &Index) -> Result<(), IndexError> {
        let numbers: BTreeSet<u32> = self.objects.values().flatten().copied().collect();
        let groups: HashMap<PackId, PackGroup> = numbers
            .iter()
            .map(|number| (pack_id(*number), group(*number)))
            .filter(|(id, _)| !self.swept.contains(id))
            .collect();
        let mut copies: HashMap<BlobId, Vec<(PackId, BlobEntry)>> = HashMap::new();
        for (id, group) in &groups {
            for entry in &group.entries {
                copies.entry(entry.id).or_default().push((*id, *entry));
            }
        }
        for number in 0..POOL + 8 {
            let id = blob_id(number);
            compare_copies(index, &id, copies.get(&id).map_or(&[], Vec::as_slice))?;
        }
        let mut listed: Vec<PackId> = index.packs().map(|pack| pack.id).collect();
        listed.sort_unstable();
        let mut expected: Vec<PackId> = groups.keys().copied().collect();
        expected.sort_unstable();
        assert_eq!(listed, expected);
        for (id, group) in &groups {
            let pack = index.pack_by_id(id).unwrap();
            assert_eq!(
                (pack.id, pack.len, &pack.header),
                (*id, group.len, &group.header)
            );
            assert!(body(&self.objects[&pack.index]).packs.contains(group));
            assert_eq!(index.entries_of(pack.number)?, group.entries);
            assert_eq!(index.pack(pack.number).unwrap().id, *id);
        }
        for id in &self.swept {
            assert!(index.pack_by_id(id).is_none());
        }
        let distinct: BTreeSet<BlobId> = copies.keys().copied().collect();
        let ids: Result<Vec<BlobId>, _> = index.blob_ids()?.collect();
        assert_eq!(ids?, distinct.into_iter().collect::<Vec<_>>());
        let all: usize = copies.values().map(Vec::len).sum();
        assert_eq!(index.copy_count(), all as u64);
        Ok(())
    }
}

fn compare_copies(
    index: &Index,
    id: &BlobId,
    expected: &[(PackId, BlobEntry)],
) -> Result<(), IndexError> {
    let key = |(pack, entry): &(PackId, BlobEntry)| (*pack, entry.offset);
    let mut expected = expected.to_vec();
    expected.sort_unstable_by_key(key);
    let mut found: Vec<(PackId, BlobEntry)> = index
        .copies(id)?
        .into_iter()
        .map(|found| (index.pack(found.pack).unwrap().id, found.entry))
        .collect();
    found.sort_unstable_by_key(key);
    assert_eq!(found, expected);
    let best = index.find(id)?;
    assert_eq!(best.is_some(), !expected.is_empty());
    if expected.iter().any(|(_, entry)| entry.base.is_none()) {
        assert_eq!(best.unwrap().entry.base, None);
    }
    Ok(())
}

impl Index {
    /// The same index over files of which every block that is checked late is damaged.
    pub(crate) fn spoiled(&self, repo: RepoId) -> Self {
        let mut spoiled = Self::default();
        for part in &self.parts {
            let file = part.table.file().unwrap();
            let mut bytes = fs::read(file).unwrap();
            let layout = Layout::of(part.table.counts());
            let late = usize::try_from(layout.fan).unwrap()..usize::try_from(layout.sums).unwrap();
            for at in late.step_by(4096) {
                bytes[at] ^= 1;
            }
            let file = Some(file.to_path_buf());
            let table = Table::open_checking(Bytes::Owned(bytes), repo, file, 0).unwrap();
            spoiled.attach(table, None);
        }
        spoiled
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let folder = dir.join(REPO.to_hex()).join("index");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Blobs of so many packs, an index object each.
fn world_of(packs: u32) -> World {
    let mut world = World::default();
    for number in 0..packs {
        world.add(&[number]);
    }
    world
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<u32>),
    Remove(usize),
    Rewrite(usize, usize),
    Sweep(u32),
    Damage(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(0_u32..40, 0..6).prop_map(Step::Add),
        2 => any::<usize>().prop_map(Step::Remove),
        2 => any::<(usize, usize)>().prop_map(|(one, other)| Step::Rewrite(one, other)),
        1 => (0_u32..40).prop_map(Step::Sweep),
        1 => any::<(usize, usize)>().prop_map(|(file, at)| Step::Damage(file, at)),
    ];
    prop::collection::vec(step, 1..24)
}

impl World {
    fn nth(&self, at: usize) -> Option<IndexId> {
        let count = self.objects.len().max(1);
        self.objects.keys().nth(at % count).copied()
    }

    fn apply(&mut self, step: &Step, dir: &Path) {
        match step {
            Step::Add(packs) => {
                self.add(packs);
            }
            Step::Remove(at) => {
                self.nth(*at).and_then(|id| self.objects.remove(&id));
            }
            Step::Rewrite(one, other) => {
                let mut packs = Vec::new();
                for at in [one, other] {
                    packs.extend(self.nth(*at).and_then(|id| self.objects.remove(&id)));
                }
                self.add(&packs.concat());
            }
            Step::Sweep(number) => {
                self.swept.insert(pack_id(*number));
            }
            Step::Damage(file, at) => {
                let files = files(dir);
                let file = files.get(file % files.len().max(1));
                if let Some(file) = file {
                    let mut bytes = fs::read(file).unwrap();
                    let at = at % bytes.len();
                    bytes[at] ^= 0x40;
                    fs::write(file, bytes).unwrap();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_history_gives_the_answers_of_the_model(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::default();
        world.check(Some(dir.path()));
        for step in &steps {
            world.apply(step, dir.path());
            world.check(Some(dir.path()));
            if !matches!(step, Step::Add(_) | Step::Rewrite(..) | Step::Damage(..)) {
                prop_assert_eq!(world.loads(), 0, "{:?} loaded something", step);
            }
        }
        world.check(None);
    }

    #[test]
    fn adding_one_by_one_gives_the_answers_of_the_model(steps in steps()) {
        let mut world = World::default();
        let mut index = Index::default();
        for step in &steps {
            match step {
                Step::Add(packs) => {
                    let id = world.add(packs);
                    index.add(id, &body(packs), &HashSet::new()).unwrap();
                }
                Step::Sweep(number) => {
                    world.swept.insert(pack_id(*number));
                    index.sweep(&world.swept);
                }
                _ => {}
            }
        }
        world.compare(&index).unwrap();
    }

    #[test]
    fn no_bytes_with_right_checksums_panic(
        counts in prop::collection::vec(0_u16..40, 4),
        data in prop::collection::vec(any::<u8>(), 0..40_000),
    ) {
        let mut bytes: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        bytes.extend_from_slice(&data);
        fuzz_table(&bytes);
    }

    #[test]
    fn no_change_of_a_good_table_with_right_checksums_panics(
        packs in 1_u32..40,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut builder = IndexBuilder::default();
        builder.add(IndexId::new([1; 32]), &body(&(0..packs).collect::<Vec<_>>())).unwrap();
        let sink = builder.write(REPO, Sink::Memory(Vec::new())).unwrap();
        let Sink::Memory(bytes) = sink else { panic!("not in memory") };
        let table = Table::open(Bytes::Owned(bytes.clone()), REPO, None).unwrap();
        let counts = *table.counts();
        let mut body = bytes[4096..].to_vec();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let mut data = Vec::new();
        for count in [counts.entries, counts.packs, counts.covered, counts.bases] {
            data.extend_from_slice(&u16::try_from(count).unwrap().to_le_bytes());
        }
        data.extend_from_slice(&body);
        fuzz_table(&data);
    }
}

#[test]
fn an_empty_repository_has_an_empty_index() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::default();
    world.check(None);
    world.check(Some(dir.path()));
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn what_was_loaded_once_is_not_loaded_again_and_files_stay_few() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::default();
    for number in 0..60 {
        world.add(&[number]);
        world.check(Some(dir.path()));
        assert_eq!(world.loads(), 1);
        assert!(files(dir.path()).len() <= 6, "{:?}", files(dir.path()));
    }
    world.check(Some(dir.path()));
    assert_eq!(world.loads(), 0);
}

#[test]
fn a_pack_that_two_index_objects_name_outlives_either() {
    for first_dies in [true, false] {
        for apart in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let mut world = World::default();
            let one = world.add(&[4, 6]);
            if apart {
                world.check(Some(dir.path()));
            }
            let other = world.add(&[6, 8]);
            world.check(Some(dir.path()));
            world.objects.remove(if first_dies { &one } else { &other });
            world.check(Some(dir.path()));
            assert_eq!(world.loads(), 0);
        }
    }
}

#[test]
fn a_swept_pack_that_is_swept_no_more_in_another_log_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world_of(12);
    world.swept.insert(pack_id(4));
    world.check(Some(dir.path()));
    world.add(&[20]);
    world.check(Some(dir.path()));
    world.swept.clear();
    world.check(Some(dir.path()));
}

#[test]
fn dead_entries_leave_the_cache_once_they_are_many() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = world_of(40);
    world.check(Some(dir.path()));
    let size = |dir: &Path| -> u64 {
        let files = files(dir);
        files
            .iter()
            .map(|file| fs::metadata(file).unwrap().len())
            .sum()
    };
    let before = size(dir.path());
    let dead: Vec<IndexId> = world.live().into_iter().take(36).collect();
    world.objects.retain(|id, _| !dead.contains(id));
    world.check(Some(dir.path()));
    assert_eq!(world.loads(), 0);
    assert!(size(dir.path()) < before);
    world.objects.clear();
    world.check(Some(dir.path()));
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

/// Every 61st byte, and all of the first and last ones of every block: each region is hit.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |at| at % 61 == 0 || matches!(at % 4096, 0..64 | 4095) || *at + 8 > len)
}

#[test]
fn damage_to_any_region_of_a_file_costs_one_rebuild_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::default();
    world.add(&(0..40).collect::<Vec<_>>());
    world.check(Some(dir.path()));
    let [file] = <[PathBuf; 1]>::try_from(files(dir.path())).unwrap();
    let good = fs::read(&file).unwrap();
    for at in places(good.len()).step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&file, &bytes).unwrap();
        world.check(Some(dir.path()));
        assert_eq!(world.loads(), 1, "byte {at}");
        assert_eq!(fs::read(&file).unwrap(), good, "byte {at}");
    }
}

#[test]
fn damage_that_is_met_late_is_an_error_and_never_a_wrong_answer() {
    let mut world = World::default();
    world.add(&(0..40).collect::<Vec<_>>());
    let mut builder = IndexBuilder::default();
    let (id, packs) = world.objects.first_key_value().unwrap();
    builder.add(*id, &body(packs)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    world.open(Some(dir.path()));
    let [file] = <[PathBuf; 1]>::try_from(files(dir.path())).unwrap();
    let good = fs::read(&file).unwrap();
    let (mut early, mut late) = (0, 0);
    for at in places(good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x80;
        let Ok(table) = Table::open_checking(Bytes::Owned(bytes), REPO, Some(file.clone()), 0)
        else {
            early += 1;
            continue;
        };
        assert!(table.verify().is_err(), "byte {at}");
        let mut index = Index::default();
        index.attach(table, Some(&world.live()));
        let error = world.compare(&index).unwrap_err();
        assert!(
            matches!(error, IndexError::DamagedCache { .. }),
            "byte {at}"
        );
        assert!(!file.exists());
        late += 1;
    }
    assert!(early > 0 && late > 0);
}

/// As on a disk that fails: a look through the mapping alone would end the process.
#[test]
fn a_mapped_table_that_cannot_be_read_any_more_is_an_error_and_no_signal() {
    let mut world = World::default();
    world.add(&(0..40).collect::<Vec<_>>());
    let dir = tempfile::tempdir().unwrap();
    world.open(Some(dir.path()));
    let [path] = <[PathBuf; 1]>::try_from(files(dir.path())).unwrap();
    let bytes = Bytes::map(fs::File::open(&path).unwrap()).unwrap();
    let table = Table::open_checking(bytes, REPO, Some(path.clone()), 0).unwrap();
    // What was checked when it was opened lies in memory.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(Layout::of(table.counts()).fan).unwrap();
    assert!(table.verify().is_err());
    let mut index = Index::default();
    index.attach(table, Some(&world.live()));
    let error = world.compare(&index).unwrap_err();
    assert!(
        matches!(error, IndexError::DamagedCache { .. }),
        "{error:?}"
    );
}

#[test]
fn a_table_in_memory_that_is_damaged_is_an_error_of_its_own() {
    let mut world = World::default();
    world.add(&(0..40).collect::<Vec<_>>());
    let mut builder = IndexBuilder::default();
    let (id, packs) = world.objects.first_key_value().unwrap();
    builder.add(*id, &body(packs)).unwrap();
    let sink = builder.write(REPO, Sink::Memory(Vec::new())).unwrap();
    let mut bytes = sink.into_bytes().unwrap();
    let Bytes::Owned(plain) = &mut bytes else {
        panic!("it was made in memory");
    };
    let middle = plain.len() / 2;
    plain[middle] ^= 0x80;
    let table = Table::open_checking(bytes, REPO, None, 0).unwrap();
    let mut index = Index::default();
    index.attach(table, Some(&world.live()));
    let error = world.compare(&index).unwrap_err();
    assert!(matches!(error, IndexError::Damaged(_)), "{error:?}");
}

#[test]
fn what_no_table_can_hold_is_refused() {
    let mut bad = body(&[1]);
    let group = bad.packs.first_mut().unwrap();
    group.entries.first_mut().unwrap().segment = 1 << 16;
    let mut index = Index::default();
    let id = IndexId::new([1; 32]);
    let added = index.add(id, &bad, &HashSet::new());
    assert!(matches!(added, Err(IndexError::Build(_))), "{added:?}");
    let live = BTreeSet::from([id]);
    let mut load = |_| Ok(bad.clone());
    let opened = IndexCache::open(None, REPO, &live, &HashSet::new(), &mut load).err();
    assert!(
        matches!(
            opened,
            Some(crate::error::Error::Index(IndexError::Build(_)))
        ),
        "{opened:?}"
    );
}

#[test]
fn cut_longer_empty_and_foreign_files_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_of(30);
    world.check(Some(dir.path()));
    let [file] = <[PathBuf; 1]>::try_from(files(dir.path())).unwrap();
    let good = fs::read(&file).unwrap();
    let mut bad: Vec<Vec<u8>> = (0..good.len())
        .step_by(997)
        .map(|len| good[..len].to_vec())
        .collect();
    bad.push([good.as_slice(), &[0]].concat());
    bad.push(vec![0; good.len()]);
    let mut foreign = IndexBuilder::default();
    foreign
        .add(*world.live().first().unwrap(), &body(&[1, 2]))
        .unwrap();
    let other_repo = tempfile::tempdir().unwrap();
    let mut load = |id| Ok(body(&world.objects[&id]));
    let other = RepoId::new([8; 16]);
    IndexCache::open(
        Some(other_repo.path()),
        other,
        &world.live(),
        &HashSet::new(),
        &mut load,
    )
    .unwrap();
    let folder = other_repo.path().join(other.to_hex()).join("index");
    let theirs = fs::read_dir(folder)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    assert_eq!(theirs.file_name(), file.file_name());
    bad.push(fs::read(theirs).unwrap());
    for bytes in bad {
        fs::write(&file, &bytes).unwrap();
        world.check(Some(dir.path()));
        assert_eq!(world.loads(), 30);
        assert_eq!(fs::read(&file).unwrap(), good);
    }
}

#[test]
fn leftovers_of_a_crash_are_removed_and_files_in_the_making_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_of(3);
    world.check(Some(dir.path()));
    let folder = dir.path().join(REPO.to_hex()).join("index");
    let left = folder.join("a-1-1.tmp");
    let busy = folder.join("b-1-1.tmp");
    let other = folder.join("notes.txt");
    for file in [&left, &busy, &other] {
        fs::write(file, b"half").unwrap();
    }
    let writer = fs::File::open(&busy).unwrap();
    writer.try_lock().unwrap();
    world.check(Some(dir.path()));
    assert!(!left.exists() && busy.exists() && other.exists());
}

#[test]
fn without_a_usable_folder_everything_is_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("file");
    fs::write(&in_the_way, b"").unwrap();
    let world = world_of(25);
    world.check(Some(&in_the_way));
    assert_eq!(world.loads(), 25);
    // Where folders are made and files cannot be written, as on a full disk.
    let folder = dir.path().join(REPO.to_hex()).join("index");
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    fs::write(folder, b"").unwrap();
    world.check(Some(dir.path()));
}

#[test]
fn an_index_in_use_does_not_mind_what_becomes_of_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_of(20);
    let index = world.open(Some(dir.path()));
    for file in files(dir.path()) {
        fs::remove_file(file).unwrap();
    }
    world.compare(&index).unwrap();
}

#[test]
fn processes_that_share_a_folder_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut world = World::default();
                for number in 0..20 {
                    world.add(&[number, number + 1]);
                    world.check(Some(dir.path()));
                }
            });
        }
    });
}

#[test]
fn a_failed_load_is_the_callers_to_hear() {
    let dir = tempfile::tempdir().unwrap();
    let world = world_of(2);
    let mut load = |_| Err(crate::error::Error::WriterBroken);
    let opened = IndexCache::open(
        Some(dir.path()),
        REPO,
        &world.live(),
        &HashSet::new(),
        &mut load,
    );
    assert!(matches!(opened, Err(crate::error::Error::WriterBroken)));
}

#[test]
fn a_large_table_written_in_pieces_and_merged_answers_for_every_blob() {
    let dir = tempfile::tempdir().unwrap();
    let made_up = Synthetic {
        objects: 9,
        packs: 50,
        blobs: 40,
    };
    let mut load = |id| Ok(made_up.body(id));
    let mut live = BTreeSet::new();
    for object in 0..made_up.objects {
        live.insert(Synthetic::index_id(object));
        IndexCache::open(Some(dir.path()), REPO, &live, &HashSet::new(), &mut load).unwrap();
    }
    let mut load = |_| panic!("everything is in the cache");
    let index =
        IndexCache::open(Some(dir.path()), REPO, &live, &HashSet::new(), &mut load).unwrap();
    assert_eq!(index.blob_count().unwrap(), 9 * 50 * 40);
    for object in 0..9 {
        for (pack, blob) in [(0, 0), (49, 39), (17, 3)] {
            let id = Synthetic::blob_id(object, pack, blob);
            let found = index.find(&id).unwrap().unwrap();
            assert_eq!((found.entry.id, found.entry.segment), (id, blob));
            assert_eq!(index.pack(found.pack).unwrap().blobs, 40);
            assert!(
                !index
                    .contains(&Synthetic::blob_id(object, pack, 40))
                    .unwrap()
            );
        }
    }
}
