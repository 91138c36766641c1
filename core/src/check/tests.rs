//! Back up real folders, then check, count, forget and prune them.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use strongroom_repo::{
    backend::{Backend, MemBackend, ObjectKind, ObjectName},
    check::{CheckOptions, CheckProgress, ReadData, Verdict},
    env::testing::seeded,
    format::config::ConfigBody,
    id::SnapshotId,
    prune::PruneOptions,
    repository::{OpenOptions, Repository, Secret, testing},
};

use super::{CheckReport, Finding, What, check};
use crate::{
    archive::{About, BackupOptions, backup},
    error::Error,
    fixture::{back_up, noise},
    format::snapshot::Snapshot,
    observer::Recorder,
    prune::prune,
    reachable::TreeFault,
    stats::{Stats, StatsMode, stats},
};

static GO_ON: AtomicBool = AtomicBool::new(false);

fn create(store: &MemBackend) -> Repository {
    let options = testing::options(ConfigBody {
        chunk_min: 256 << 10,
        chunk_avg: 1 << 20,
        chunk_max: 8 << 20,
        ..testing::config()
    });
    let secret = Secret::Password(b"pw".to_vec());
    Repository::create(Arc::new(store.clone()), seeded(1), secret, options).unwrap()
}

fn save(repo: &Repository, folder: &Path) -> SnapshotId {
    back_up(repo, folder).snapshot.unwrap()
}

fn look(repo: &Repository, read_data: ReadData) -> CheckReport {
    let options = CheckOptions {
        read_data,
        workers: 2,
    };
    check(repo, options, &(), &GO_ON).unwrap()
}

fn count(repo: &Repository, snapshots: &[SnapshotId], mode: StatsMode) -> Stats {
    let snapshots = BTreeSet::from_iter(snapshots.iter().copied());
    stats(repo, &snapshots, mode, 2, &GO_ON).unwrap()
}

/// The same repository, opened by somebody else.
fn another(store: &MemBackend) -> Repository {
    let secret = Secret::Password(b"pw".to_vec());
    let backend = Arc::new(store.clone());
    Repository::open(backend, seeded(9), secret, OpenOptions::default()).unwrap()
}

/// Forgets snapshots and prunes, once the check has looked at the packs.
struct Meanwhile<'a> {
    other: &'a Repository,
    snapshots: &'a [SnapshotId],
    done: AtomicBool,
}

impl CheckProgress for Meanwhile<'_> {
    fn total(&self, _packs: u64, _bytes: u64) {
        if !self.done.swap(true, Ordering::Relaxed) {
            self.other.remove_snapshots(self.snapshots).unwrap();
            prune(self.other, PruneOptions::default(), 2, &(), &GO_ON).unwrap();
        }
    }
}

#[test]
fn what_is_given_up_during_a_check_is_no_damage() {
    let store = MemBackend::new();
    let (repo, [first, second]) = two_snapshots(&store);
    let other = another(&store);
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 2,
    };
    let meanwhile = Meanwhile {
        other: &other,
        snapshots: &[first],
        done: AtomicBool::new(false),
    };
    let report = check(&repo, options, &meanwhile, &GO_ON).unwrap();
    assert!(!report.has_errors(), "{:?}", report.findings);
    // What a live snapshot needs is still missed.
    let names: Vec<_> = store.objects().into_keys().collect();
    for name in names.iter().filter(|name| name.kind() == ObjectKind::Pack) {
        store.delete(name).unwrap();
    }
    let report = look(&repo, ReadData::All);
    assert!(report.has_errors());
    let concerned = |finding: &Finding| finding.affected.snapshots.contains(&second);
    assert!(report.findings.iter().any(concerned));
}

#[test]
fn a_base_that_is_given_up_during_a_check_is_no_damage_to_what_rested_on_it() {
    let store = MemBackend::new();
    let repo = create(&store);
    let folder = tempfile::tempdir().unwrap();
    let changes = folder.path().join("changes");
    let stays = |number: u64| folder.path().join(format!("stays-{number}"));
    let mut bytes = noise(1, 100_000);
    fs::write(&changes, &bytes).unwrap();
    let first = save(&repo, folder.path());
    bytes[50_000] ^= 1;
    fs::write(&changes, &bytes).unwrap();
    // Some in each of the packs that are open at a time.
    for number in 0..12 {
        fs::write(stays(number), noise(10 + number, 4000)).unwrap();
    }
    let record = Snapshot::decode(&repo.load_snapshot(first).unwrap()).unwrap();
    let options = BackupOptions {
        parent: Some((first, record)),
        ..crate::fixture::options(folder.path(), About::default())
    };
    let second = backup(&repo, &options, &Recorder::default(), &GO_ON).unwrap();
    assert!(second.summary.data_added_packed < 110_000, "a difference");
    fs::remove_file(&changes).unwrap();
    save(&repo, folder.path());
    // The pack of the second snapshot is still needed, that of the first is not.
    let other = another(&store);
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 1,
    };
    let packs = || {
        let names = store.objects().into_keys();
        names.filter(|name| name.kind() == ObjectKind::Pack).count()
    };
    let before = packs();
    let meanwhile = Meanwhile {
        other: &other,
        snapshots: &[first, second.snapshot.unwrap()],
        done: AtomicBool::new(false),
    };
    let report = check(&repo, options, &meanwhile, &GO_ON).unwrap();
    assert!((1..before).contains(&packs()));
    assert!(!report.has_errors(), "{:?}", report.findings);
    // Of the packs that are gone nothing is noted, and of the other nothing is said.
    let verdicts = report.objects.verdicts.values();
    assert!(
        verdicts
            .into_iter()
            .all(|verdict| *verdict == Verdict::Lost)
    );
}

/// Two snapshots of a folder; the second lacks `gone` and has `more`.
fn two_snapshots(store: &MemBackend) -> (Repository, [SnapshotId; 2]) {
    let repo = create(store);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("d/e")).unwrap();
    fs::write(path("d/e/big"), noise(1, 9 << 20)).unwrap();
    fs::write(path("d/small"), noise(2, 3000)).unwrap();
    fs::write(path("d/twin"), noise(2, 3000)).unwrap();
    fs::write(path("empty"), b"").unwrap();
    fs::write(path("gone"), noise(3, 2 << 20)).unwrap();
    fs::hard_link(path("d/small"), path("d/linked")).unwrap();
    let first = save(&repo, folder.path());
    fs::remove_file(path("gone")).unwrap();
    fs::write(path("more"), noise(4, 5000)).unwrap();
    let second = save(&repo, folder.path());
    (repo, [first, second])
}

#[test]
fn sound_trees_have_no_findings() {
    let store = MemBackend::new();
    let (repo, _) = two_snapshots(&store);
    let report = look(&repo, ReadData::All);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.snapshots, 2);
    // Nothing was interrupted, so all that is stored is reached but for records.
    let stored = repo.index().blob_count().unwrap();
    assert_eq!(report.reachable + 2, stored);
}

#[test]
fn a_lost_pack_is_told_with_the_snapshots_and_paths_that_need_it() {
    let store = MemBackend::new();
    let (repo, [first, second]) = two_snapshots(&store);
    let sound = store.objects();
    let packs = sound.keys().filter(|name| name.kind() == ObjectKind::Pack);
    let (mut only_first, mut both, mut trees) = (0, 0, 0);
    for name in packs {
        store.remove(name);
        let report = look(&repo, ReadData::Nothing);
        assert!(report.has_errors());
        let finding = &report.findings[0];
        assert!(matches!(&finding.what, What::Object(found) if found.object == Some(*name)));
        let snapshots: Vec<_> = finding.affected.snapshots.iter().copied().collect();
        let ends = |end: &str| {
            let mut paths = finding.affected.paths.iter();
            paths.any(|(_, path)| path.ends_with(end.as_bytes()))
        };
        if snapshots == [first] && ends("/gone") {
            only_first += 1;
        }
        if snapshots.len() == 2 && ends("/d/e/big") {
            assert!(snapshots.contains(&second));
            both += 1;
        }
        let is_page = |what: &What| matches!(what, What::Tree(TreeFault::Page { .. }));
        if report.findings.iter().any(|found| is_page(&found.what)) {
            let pruned = prune(&repo, PruneOptions::default(), 2, &(), &GO_ON);
            assert!(
                matches!(pruned, Err(Error::DamagedTree { .. })),
                "nothing goes below a lost page: {pruned:?}"
            );
            trees += 1;
        }
        store.replace(*name, sound[name].to_vec());
    }
    assert!(both > 0 && trees > 0, "{only_first} {both} {trees}");
    assert!(look(&repo, ReadData::All).findings.is_empty());
}

#[test]
fn a_bit_in_a_big_file_is_told_with_its_path() {
    let store = MemBackend::new();
    let (repo, _) = two_snapshots(&store);
    let index = repo.index();
    let largest = index.packs().max_by_key(|pack| pack.len).unwrap();
    let name = ObjectName::Pack(largest.id);
    let mut bytes = store.objects()[&name].to_vec();
    bytes[300_000] ^= 1;
    store.replace(name, bytes);
    let report = look(&repo, ReadData::All);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    let affected = &report.findings[0].affected;
    assert!(!affected.paths.is_empty() && affected.paths.len() <= 2);
    assert!(
        !look(&repo, ReadData::Nothing).has_errors(),
        "a pack must be read for it"
    );
}

#[test]
fn prune_gives_back_what_forget_freed_and_leaves_the_rest_sound() {
    let store = MemBackend::new();
    let (repo, [first, second]) = two_snapshots(&store);
    repo.remove_snapshots(&[second]).unwrap();
    let planned = PruneOptions {
        dry_run: true,
        ..PruneOptions::default()
    };
    let planned = prune(&repo, planned, 2, &(), &GO_ON).unwrap();
    let report = prune(&repo, PruneOptions::default(), 2, &(), &GO_ON).unwrap();
    assert_eq!(planned.plan, report.plan);
    assert!(report.swept > 0 && report.plan.freed_bytes() > 5000);
    let checked = look(&repo, ReadData::All);
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
    assert_eq!(checked.snapshots, 1);
    repo.remove_snapshots(&[first]).unwrap();
    prune(&repo, PruneOptions::default(), 2, &(), &GO_ON).unwrap();
    assert!(
        store
            .objects()
            .keys()
            .all(|name| name.kind() != ObjectKind::Pack)
    );
}

#[test]
fn each_mode_counts_what_it_says() {
    let store = MemBackend::new();
    let (repo, both) = two_snapshots(&store);
    let big = 9 << 20;
    let one = count(&repo, &both[1..], StatsMode::RestoreSize);
    // The two names of d/small count once.
    assert_eq!(one.size, big + 3000 + 3000 + 5000);
    let two = count(&repo, &both, StatsMode::RestoreSize);
    assert_eq!(two.size, 2 * (big + 6000) + 5000 + (2 << 20));
    assert_eq!(two.snapshots, 2);
    let contents = count(&repo, &both, StatsMode::FilesByContents);
    assert_eq!(contents.size, big + 3000 + 5000 + (2 << 20));
    assert_eq!(contents.files, 5, "the empty content is one");
    let blobs = count(&repo, &both, StatsMode::BlobsPerFile);
    assert_eq!((blobs.size, blobs.files), (contents.size, contents.files));
    let raw = count(&repo, &both, StatsMode::RawData);
    assert_eq!(raw.blobs, repo.index().blob_count().unwrap());
    assert!(raw.size > 0 && raw.compression_ratio() > 0.9);
    assert_eq!(
        [one, two, contents, blobs, raw].map(|stats| stats.problems),
        [0; 5]
    );
}
