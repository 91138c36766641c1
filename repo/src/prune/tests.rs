//! Forget and prune on a small repository: what goes, what stays, and what a crash between any
//! two steps leaves.

mod deltas;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use super::{PruneOptions, PruneProgress, PruneReport, PruneStep, Reach, Rescued, hint::RunHint};
use crate::{
    backend::{
        Backend, MemBackend, ObjectKind, ObjectName,
        testing::{
            CallKind, CrashPoint, Effect, FaultBackend, FaultScript, RecordBackend, Trigger,
        },
    },
    check::{CheckOptions, Problem, ReadData, Severity},
    codec::Hint,
    crypto::BlobKind,
    env::{
        Env, Timestamp,
        testing::{FixedClock, SeededRandom, seeded},
    },
    error::Error,
    format::DecodeError,
    id::{BlobId, RunId, SnapshotId},
    keys::OpenedSlot,
    repository::{NewSnapshot, OpenOptions, Repository, Secret, testing},
    writer::{Writer, WriterOptions},
};

fn create(store: &MemBackend) -> (Repository, OpenedSlot) {
    testing::create(Arc::new(store.clone()), seeded(1), testing::config()).unwrap()
}

fn open(backend: Arc<dyn Backend>, seed: u64, me: &OpenedSlot) -> Result<Repository, Error> {
    testing::open(backend, seeded(seed), me)
}

fn blob(n: u32) -> Vec<u8> {
    let mut bytes = vec![0; 2000];
    blake3::Hasher::new()
        .update(&n.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Stores blobs and a snapshot of them.
fn back_up(repo: &Repository, blobs: &[u32]) -> SnapshotId {
    let base = repo.tail();
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    for n in blobs {
        let stored = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(*n));
        stored.unwrap();
    }
    let record = format!("{blobs:?}");
    let new = NewSnapshot {
        record: record.as_bytes(),
        parent: None,
        base,
    };
    repo.commit(&writer, &mut bench, &new).unwrap()
}

/// What each snapshot needs.
#[derive(Clone, Default)]
struct Needs {
    per_snapshot: BTreeMap<SnapshotId, Vec<BlobId>>,
    needed: HashSet<BlobId>,
}

impl Needs {
    fn with(mut self, repo: &Repository, snapshot: SnapshotId, blobs: &[u32]) -> Self {
        let mut ids: Vec<_> = blobs
            .iter()
            .map(|n| repo.blob_id(BlobKind::Data, &blob(*n)))
            .collect();
        let record = format!("{blobs:?}");
        ids.push(repo.blob_id(BlobKind::Snapshot, record.as_bytes()));
        self.per_snapshot.insert(snapshot, ids);
        self
    }

    /// Reads everything that live snapshots need.
    fn assert_readable(&self, repo: &Repository, context: &str) {
        let mut reader = repo.reader().unwrap();
        for snapshot in repo.snapshots().keys() {
            for id in self.per_snapshot.get(snapshot).into_iter().flatten() {
                reader
                    .load(id)
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
            }
        }
    }
}

impl Reach for Needs {
    type Error = Error;

    fn cover(&mut self, snapshots: &BTreeSet<SnapshotId>) -> Result<(), Error> {
        for id in snapshots {
            self.needed.extend(&self.per_snapshot[id]);
        }
        Ok(())
    }

    fn contains(&self, blob: &BlobId) -> bool {
        self.needed.contains(blob)
    }

    fn for_each(&self, each: &mut dyn FnMut(&BlobId)) {
        self.needed.iter().for_each(each);
    }
}

fn prune(repo: &Repository, needs: &Needs) -> Result<PruneReport, Error> {
    repo.prune(&mut needs.clone(), PruneOptions::default(), &())
}

fn names(store: &MemBackend, kind: ObjectKind) -> Vec<ObjectName> {
    let objects = store.objects();
    let names = objects.keys().filter(|name| name.kind() == kind);
    names.copied().collect()
}

fn count(store: &MemBackend, kind: ObjectKind) -> usize {
    names(store, kind).len()
}

fn assert_sound(repo: &Repository, context: &str) {
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 2,
    };
    let report = repo.check(options, &(), &AtomicBool::new(false)).unwrap();
    let errors = report.findings.iter();
    let errors: Vec<_> = errors
        .filter(|finding| finding.severity == Severity::Error)
        // The keys were given: there is no slot.
        .filter(|finding| !matches!(finding.what, Problem::KeyLost(_)))
        .collect();
    assert!(errors.is_empty(), "{context}: {errors:?}");
}

/// Two snapshots that share blobs, and a pack that no index names.
fn two_snapshots(store: &MemBackend) -> (OpenedSlot, [SnapshotId; 2], Needs) {
    let (repo, me) = create(store);
    let old = back_up(&repo, &[1, 2, 3]);
    let new = back_up(&repo, &[3, 4, 5]);
    let needs = Needs::default()
        .with(&repo, old, &[1, 2, 3])
        .with(&repo, new, &[3, 4, 5]);
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    let orphan = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(9));
    orphan.unwrap();
    writer.flush(&mut bench).unwrap();
    (me, [old, new], needs)
}

#[test]
fn what_no_live_snapshot_needs_goes_and_all_else_stays() {
    let store = MemBackend::new();
    let (me, [old, new], needs) = two_snapshots(&store);
    let repo = open(Arc::new(store.clone()), 2, &me).unwrap();
    let packs = count(&store, ObjectKind::Pack);
    repo.remove_snapshots(&[new]).unwrap();
    let plan = repo.plan_prune(&mut needs.clone()).unwrap();
    assert_eq!(plan.orphans.len(), 1);
    assert_eq!(
        count(&store, ObjectKind::Pack),
        packs,
        "a plan changes nothing"
    );
    let report = prune(&repo, &needs).unwrap();
    assert_eq!(report.plan, plan);
    assert_eq!(report.snapshots, 1);
    assert!(!plan.sweep.is_empty());
    let gone = plan.sweep.len() + plan.orphans.len();
    assert_eq!(count(&store, ObjectKind::Pack), packs - gone);
    assert_eq!(repo.snapshots().into_keys().collect::<Vec<_>>(), [old]);
    needs.assert_readable(&repo, "the same client");
    let again = open(Arc::new(store), 3, &me).unwrap();
    needs.assert_readable(&again, "another client");
    assert_sound(&again, "after a prune");
    let second = prune(&again, &needs).unwrap();
    assert!(second.plan.is_empty(), "{:?}", second.plan);
}

#[test]
fn packs_without_an_index_stay_while_a_backup_may_be_running() {
    let store = MemBackend::new();
    let (me, _, needs) = two_snapshots(&store);
    let repo = open(Arc::new(store.clone()), 2, &me).unwrap();
    let running = repo.writer(WriterOptions::default());
    assert_eq!(count(&store, ObjectKind::Hint), 1);
    let report = prune(&repo, &needs).unwrap();
    assert_eq!((report.plan.left_alone.count, report.swept), (1, 0));
    assert_eq!(report.running.len(), 1);
    drop(running);
    assert_eq!(count(&store, ObjectKind::Hint), 0);
    let old = RunHint {
        time: Timestamp::default(),
        label: "long ago".to_owned(),
        since: None,
        run: None,
    };
    let name = ObjectName::Hint(RunId::new([7; 16]));
    store.replace(name, old.encode().unwrap());
    let report = prune(&repo, &needs).unwrap();
    assert_eq!((report.plan.orphans.len(), report.swept), (1, 1));
    assert_eq!(count(&store, ObjectKind::Hint), 0, "stale hints go");
}

/// Stores a blob and indexes it, as a backup does from time to time.
fn checkpoint(repo: &Repository, writer: &Writer, n: u32) {
    let mut bench = writer.bench().unwrap();
    let put = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(n));
    assert!(put.unwrap().added.is_some());
    repo.keep(writer, &mut bench).unwrap();
}

#[test]
fn what_a_run_under_way_has_indexed_stays_until_it_is_gone() {
    let store = MemBackend::new();
    let (me, _, mut needs) = two_snapshots(&store);
    let backup = open(Arc::new(store.clone()), 2, &me).unwrap();
    let base = backup.tail();
    let writer = backup.writer(WriterOptions::default());
    checkpoint(&backup, &writer, 100);
    // A snapshot of the same writer's other run says nothing of this one.
    let other = open(Arc::new(store), 3, &me).unwrap();
    let third = back_up(&other, &[7]);
    needs = needs.with(&other, third, &[7]);
    let report = prune(&other, &needs).unwrap();
    assert_eq!((report.plan.awaited.count, report.swept), (1, 0));
    assert_eq!(report.plan.partly_used, []);
    assert!(report.plan.unused_left > 0);
    let record = NewSnapshot {
        record: b"[100]",
        parent: None,
        base,
    };
    let mut bench = writer.bench().unwrap();
    let snapshot = backup.commit(&writer, &mut bench, &record).unwrap();
    drop(writer);
    needs = needs.with(&backup, snapshot, &[100]);
    needs.assert_readable(&backup, "after the commit");
    backup.remove_snapshots(&[snapshot]).unwrap();
    let report = prune(&backup, &needs).unwrap();
    assert_eq!(report.plan.awaited.count, 0);
    assert!(report.swept > 0, "what was forgotten goes");
}

#[test]
fn what_a_run_may_take_up_stays_while_it_goes_on() {
    let store = MemBackend::new();
    let (me, _, needs) = two_snapshots(&store);
    let stopped = open(Arc::new(store.clone()), 2, &me).unwrap();
    checkpoint(&stopped, &stopped.writer(WriterOptions::default()), 100);
    let next = open(Arc::new(store.clone()), 3, &me).unwrap();
    let base = next.tail();
    let writer = next.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    let put = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(100));
    assert_eq!(put.unwrap().added, None, "it is there");
    let other = open(Arc::new(store.clone()), 4, &me).unwrap();
    let report = prune(&other, &needs).unwrap();
    assert_eq!((report.plan.awaited.count, report.swept), (1, 0));
    let record = NewSnapshot {
        record: b"[100]",
        parent: None,
        base,
    };
    let snapshot = next.commit(&writer, &mut bench, &record).unwrap();
    drop(writer);
    let needs = needs.with(&next, snapshot, &[100]);
    let quiet = open(Arc::new(store), 5, &me).unwrap();
    prune(&quiet, &needs).unwrap();
    needs.assert_readable(&quiet, "what was taken up");
}

#[test]
fn what_a_stopped_run_has_indexed_goes_where_no_run_goes_on() {
    let store = MemBackend::new();
    let (me, _, needs) = two_snapshots(&store);
    let stopped = open(Arc::new(store), 2, &me).unwrap();
    checkpoint(&stopped, &stopped.writer(WriterOptions::default()), 100);
    let report = prune(&stopped, &needs).unwrap();
    assert_eq!((report.plan.awaited.count, report.plan.sweep.len()), (0, 1));
}

#[test]
fn a_run_that_goes_on_for_days_renews_its_sign_of_life_and_keeps_when_it_began() {
    let store = MemBackend::new();
    let (me, _, needs) = two_snapshots(&store);
    let clock = FixedClock::new(1_700_000_000);
    let env = Env::new(clock.clone(), SeededRandom::new(2), [7; 32]).unwrap();
    let secret = Secret::Opened(Box::new(me));
    let backend = Arc::new(store.clone());
    let backup = Repository::open(backend, env, secret, OpenOptions::default()).unwrap();
    let writer = backup.writer(WriterOptions::default());
    checkpoint(&backup, &writer, 100);
    let shown = names(&store, ObjectKind::Hint);
    writer.show_life();
    assert_eq!(names(&store, ObjectKind::Hint), shown, "it is new enough");
    for hours in [7, 20, 30] {
        let secs = 1_700_000_000 + hours * 3600;
        clock.set(Timestamp { secs, nanos: 0 });
        writer.show_life();
    }
    let renewed = names(&store, ObjectKind::Hint);
    assert_eq!(renewed.len(), 1);
    assert_ne!(renewed, shown);
    let report = prune(&backup, &needs).unwrap();
    assert_eq!((report.plan.awaited.count, report.swept), (1, 0));
    drop(writer);
    assert_eq!(count(&store, ObjectKind::Hint), 0);
}

#[test]
fn a_hint_is_read_as_it_was_written_with_or_without_its_extensions() {
    for (since, run) in [(None, None), (Some(7), Some(RunId::new([3; 16])))] {
        let hint = RunHint {
            time: Timestamp { secs: 5, nanos: 6 },
            label: "key 12".to_owned(),
            since,
            run,
        };
        let bytes = hint.encode().unwrap();
        assert_eq!(RunHint::decode(&bytes), Ok(hint));
    }
    let bare = RunHint {
        time: Timestamp::default(),
        label: String::new(),
        since: None,
        run: None,
    };
    // version, seconds, nanoseconds, label, no extension
    assert_eq!(bare.encode().unwrap(), [1, 0, 0, 0, 0]);
    for bad in [
        [1, 0, 0, 0, 1, 1, 1, 9].as_slice(),
        &[1, 0, 0, 0, 1, 2, 1, 9],
    ] {
        let decoded = RunHint::decode(bad);
        assert_eq!(decoded, Err(DecodeError::Malformed { what: "hint" }));
    }
}

#[test]
fn a_damaged_pack_goes_once_all_that_is_needed_of_it_lies_elsewhere() {
    let store = MemBackend::new();
    let (repo, me) = create(&store);
    let first = back_up(&repo, &[1, 2, 3]);
    let id = repo.blob_id(BlobKind::Data, &blob(2));
    let index = repo.index();
    let found = index.find(&id).unwrap().unwrap();
    let damaged = index.pack(found.pack).unwrap().id;
    let name = ObjectName::Pack(damaged);
    let mut bytes = store.objects()[&name].to_vec();
    bytes[usize::try_from(found.entry.offset).unwrap()] ^= 1;
    store.replace(name, bytes);
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 1,
    };
    let report = repo.check(options, &(), &AtomicBool::new(false)).unwrap();
    repo.record_verdicts(&report.verdicts).unwrap();
    let needs = Needs::default().with(&repo, first, &[1, 2, 3]);
    let report = prune(&repo, &needs).unwrap();
    assert_eq!(report.swept, 0, "it has the last copy of what is damaged");
    assert_eq!(report.plan.damaged.count, 1);
    assert_eq!(report.rescued, Rescued::default());
    // What is still there is stored anew, but for the blob that nobody has any more.
    let second = back_up(&repo, &[1, 2]);
    let needs = needs.with(&repo, second, &[1, 2]);
    let report = prune(&repo, &needs).unwrap();
    assert_eq!(report.rescued.packs, 1);
    assert_eq!(report.plan.sweep, [damaged]);
    assert_eq!(report.plan.damaged.count, 0);
    let fresh = open(Arc::new(store), 4, &me).unwrap();
    needs.assert_readable(&fresh, "after the damaged pack went");
    assert_sound(&fresh, "after the damaged pack went");
    let report = prune(&fresh, &needs).unwrap();
    assert!(report.plan.is_empty() && report.rescued == Rescued::default());
}

#[test]
fn whatever_byte_of_a_pack_turns_over_it_can_be_replaced() {
    let store = MemBackend::new();
    let (repo, me) = create(&store);
    let first = back_up(&repo, &[1, 2]);
    let start = store.objects();
    let mut mended = 0;
    for name in names(&store, ObjectKind::Pack) {
        for at in (0..start[&name].len()).step_by(61) {
            let context = format!("byte {at} of {name}");
            let store = MemBackend::with_objects("mend", start.clone());
            let mut bytes = start[&name].to_vec();
            bytes[at] ^= 4;
            store.replace(name, bytes);
            let repo = open(Arc::new(store.clone()), 2, &me).unwrap();
            let options = CheckOptions {
                read_data: ReadData::All,
                workers: 1,
            };
            let report = repo.check(options, &(), &AtomicBool::new(false)).unwrap();
            assert_eq!(report.verdicts.len(), 1, "{context}");
            repo.record_verdicts(&report.verdicts).unwrap();
            let second = back_up(&repo, &[1, 2]);
            let needs = Needs::default()
                .with(&repo, first, &[1, 2])
                .with(&repo, second, &[1, 2]);
            prune(&repo, &needs).unwrap();
            assert!(!store.objects().contains_key(&name), "{context}");
            let fresh = open(Arc::new(store), 4, &me).unwrap();
            needs.assert_readable(&fresh, &context);
            assert_sound(&fresh, &context);
            mended += 1;
        }
    }
    assert!(mended > 50, "{mended}");
}

#[test]
fn a_backup_that_relied_on_a_swept_pack_fails_at_its_commit() {
    let store = MemBackend::new();
    let (me, [_, new], needs) = two_snapshots(&store);
    let backup = open(Arc::new(store.clone()), 2, &me).unwrap();
    let base = backup.tail();
    let writer = backup.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    for n in [4, 6] {
        let stored = writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(n));
        stored.unwrap();
    }
    let other = open(Arc::new(store), 3, &me).unwrap();
    other.remove_snapshots(&[new]).unwrap();
    prune(&other, &needs).unwrap();
    let record = NewSnapshot {
        record: b"late",
        parent: None,
        base,
    };
    let committed = backup.commit(&writer, &mut bench, &record);
    assert!(
        matches!(committed, Err(Error::Conflict(_))),
        "{committed:?}"
    );
    assert_eq!(other.snapshots().len(), 1);
}

#[test]
fn a_backup_whose_checkpoint_was_swept_fails_at_its_commit() {
    let store = MemBackend::new();
    let (me, _, needs) = two_snapshots(&store);
    let backup = open(Arc::new(store.clone()), 2, &me).unwrap();
    let base = backup.tail();
    let writer = backup.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    let mut put = |n| writer.put(&mut bench, BlobKind::Data, Hint::Plain, &blob(n));
    assert!(put(100).unwrap().added.is_some());
    let indexed = backup.keep(&writer, &mut writer.bench().unwrap());
    indexed.unwrap();
    assert!(put(101).unwrap().added.is_some());
    // Nobody knows of the run: its sign of life is lost.
    for name in names(&store, ObjectKind::Hint) {
        store.remove(&name);
    }
    let other = open(Arc::new(store), 3, &me).unwrap();
    let report = prune(&other, &needs).unwrap();
    assert!(report.swept > 0, "no snapshot needs the checkpoint yet");
    let record = NewSnapshot {
        record: b"late",
        parent: None,
        base,
    };
    let committed = backup.commit(&writer, &mut bench, &record);
    assert!(
        matches!(committed, Err(Error::Conflict(_))),
        "{committed:?}"
    );
}

#[test]
fn of_two_copies_the_one_that_stays_is_read_first() {
    let store = MemBackend::new();
    let (repo, me) = create(&store);
    // Two clients that do not know of each other store the same blobs.
    let other = open(Arc::new(store.clone()), 2, &me).unwrap();
    let first = back_up(&repo, &[1, 2]);
    let second = back_up(&other, &[1, 2]);
    let needs = Needs::default()
        .with(&repo, first, &[1, 2])
        .with(&repo, second, &[1, 2]);
    repo.refresh().unwrap();
    let plan = repo.plan_prune(&mut needs.clone()).unwrap();
    assert_eq!((plan.duplicate.count, plan.verify.len()), (3, 3));
    assert!(!plan.sweep.is_empty());
    let keeper = plan.verify[0].1;
    // The copy that would stay is bad: then the other one must.
    let name = ObjectName::Pack(keeper);
    let mut bytes = store.objects()[&name].to_vec();
    for byte in &mut bytes[94..110] {
        *byte ^= 1;
    }
    store.replace(name, bytes);
    prune(&repo, &needs).unwrap();
    let fresh = open(Arc::new(store), 4, &me).unwrap();
    needs.assert_readable(&fresh, "from the good copy");
}

/// Forget and prune, as a run does them.
fn forget_and_prune(repo: &Repository, snapshot: SnapshotId, needs: &Needs) -> Result<(), Error> {
    repo.remove_snapshots(&[snapshot])?;
    prune(repo, needs).map(|_| ())
}

#[test]
fn a_crash_at_any_step_of_forget_and_prune_loses_nothing_and_is_finished_later() {
    let store = MemBackend::new();
    let (me, [_, new], needs) = two_snapshots(&store);
    let start = store.objects();
    let restart = || MemBackend::with_objects("start", start.clone());
    let clean = Arc::new(FaultBackend::from(restart()));
    let repo = open(clean.clone(), 2, &me).unwrap();
    let before = clean.writes();
    forget_and_prune(&repo, new, &needs).unwrap();
    let writes = clean.writes() - before;
    assert!(writes > 15, "{writes}");
    let mut images = 0;
    for script in FaultScript::crash_points(7, clean.writes()) {
        let faulty = Arc::new(FaultBackend::new(restart(), script));
        let Ok(repo) = open(faulty.clone(), 2, &me) else {
            continue;
        };
        let _ = forget_and_prune(&repo, new, &needs);
        assert!(faulty.crashed());
        for image in faulty.crash_images() {
            let context = image.location();
            let repo = open(Arc::new(image.clone()), 3, &me)
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            needs.assert_readable(&repo, &context);
            assert_sound(&repo, &context);
            prune(&repo, &needs).unwrap_or_else(|error| panic!("{context}: {error}"));
            needs.assert_readable(&repo, &context);
            let again = open(Arc::new(image.clone()), 4, &me).unwrap();
            needs.assert_readable(&again, &context);
            assert_sound(&again, &context);
            assert!(again.state().open_sweeps.is_empty(), "{context}");
            let left = again.index().packs().count();
            assert_eq!(count(&image, ObjectKind::Pack), left, "{context}");
            images += 1;
        }
    }
    assert!(images > 30, "{images}");
}

/// Takes every byte that is left.
fn fill(store: &FaultBackend) {
    let mut n = 0;
    for len in [4096, 256, 16, 1] {
        loop {
            let name = ObjectName::Audit(n + 1);
            if store.put_if_absent(&name, &[&vec![0; len]]).is_err() {
                break;
            }
            n += 1;
        }
    }
}

#[test]
fn on_a_full_disk_snapshots_are_forgotten_and_pruned_from_the_reserve() {
    let store = MemBackend::new();
    let (me, [_, new], needs) = two_snapshots(&store);
    let used: usize = store.objects().values().map(|object| object.len()).sum();
    let used = u64::try_from(used).unwrap();
    let reserve = 32 << 10;
    let script = FaultScript::new(1).capacity(used + reserve + 100, reserve);
    let full = Arc::new(FaultBackend::new(store, script));
    full.create_layout().unwrap();
    let repo = open(full.clone(), 2, &me).unwrap();
    fill(&full);
    repo.remove_snapshots(&[new]).unwrap();
    assert_eq!(repo.snapshots().len(), 1);
    let report = prune(&repo, &needs).unwrap();
    assert!(report.swept > 0, "{report:?}");
    needs.assert_readable(&repo, "after a prune on a full disk");
}

#[test]
fn a_full_disk_is_pruned_from_its_reserve() {
    let store = MemBackend::new();
    let (me, [_, new], needs) = two_snapshots(&store);
    let used: usize = store.objects().values().map(|object| object.len()).sum();
    let used = u64::try_from(used).unwrap();
    // Forgetting fits, and little else.
    let script = FaultScript::new(1).capacity(used + (64 << 10) + 8000, 64 << 10);
    let full = Arc::new(FaultBackend::new(store, script));
    full.create_layout().unwrap();
    let repo = open(full.clone(), 2, &me).unwrap();
    repo.remove_snapshots(&[new]).unwrap();
    fill(&full);
    let report = prune(&repo, &needs).unwrap();
    assert!(report.used_reserve && report.swept > 0, "{report:?}");
    needs.assert_readable(&repo, "after a prune on a full disk");
}

/// Acts once, at the first deletion.
struct AtDeletion<'a>(Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>);

impl PruneProgress for AtDeletion<'_> {
    fn advanced(&self, step: PruneStep, _done: u64, _total: u64) {
        if step == PruneStep::Deleting
            && let Some(act) = self.0.lock().unwrap().take()
        {
            act();
        }
    }
}

#[test]
fn what_is_added_while_a_sweep_is_finished_is_known_to_the_plan_after_it() {
    let store = MemBackend::new();
    let (me, [old, new], needs) = two_snapshots(&store);
    // A prune that stops right after its sweep.
    let crash = Trigger::call(CallKind::Delete, 1).of_kind(ObjectKind::Pack);
    let script = FaultScript::new(1).once(crash, Effect::Crash(CrashPoint::Before));
    let faulty = Arc::new(FaultBackend::new(store.clone(), script));
    let stopped = open(faulty, 2, &me).unwrap();
    forget_and_prune(&stopped, new, &needs).unwrap_err();
    let repo = open(Arc::new(store.clone()), 3, &me).unwrap();
    assert_eq!(repo.state().open_sweeps.len(), 1);
    // The next one finishes it, and meanwhile somebody adds a snapshot.
    let added = Mutex::new(None);
    let other = open(Arc::new(store.clone()), 4, &me).unwrap();
    let act = || *added.lock().unwrap() = Some(back_up(&other, &[20, 21]));
    let progress = AtDeletion(Mutex::new(Some(Box::new(act))));
    let asked = Mutex::new(Vec::new());
    let mut reach = Watched {
        needs: needs.clone(),
        repo: &repo,
        asked: &asked,
    };
    repo.prune(&mut reach, PruneOptions::default(), &progress)
        .unwrap();
    let added = added.lock().unwrap().take().unwrap();
    assert!(asked.lock().unwrap().contains(&(added, true)));
    let needs = needs.with(&repo, added, &[20, 21]);
    let fresh = open(Arc::new(store), 5, &me).unwrap();
    assert_eq!(fresh.snapshots().len(), 2);
    assert!(fresh.snapshots().contains_key(&old));
    needs.assert_readable(&fresh, "what was added meanwhile");
    assert_sound(&fresh, "after both");
}

/// Notes for which snapshots it is asked, and whether the index knows what they hold by then.
struct Watched<'a> {
    needs: Needs,
    repo: &'a Repository,
    asked: &'a Mutex<Vec<(SnapshotId, bool)>>,
}

impl Reach for Watched<'_> {
    type Error = Error;

    fn cover(&mut self, snapshots: &BTreeSet<SnapshotId>) -> Result<(), Error> {
        let state = self.repo.state();
        let index = self.repo.index();
        let named: BTreeSet<_> = index.packs().map(|pack| pack.index).collect();
        for id in snapshots {
            let all_known = state.indexes.keys().all(|index| named.contains(index));
            self.asked.lock().unwrap().push((*id, all_known));
            if !self.needs.per_snapshot.contains_key(id) {
                self.needs = self.needs.clone().with(self.repo, *id, &[20, 21]);
            }
        }
        self.needs.cover(snapshots)
    }

    fn contains(&self, blob: &BlobId) -> bool {
        self.needs.contains(blob)
    }

    fn for_each(&self, each: &mut dyn FnMut(&BlobId)) {
        self.needs.for_each(each);
    }
}

#[test]
fn what_an_earlier_sweep_left_goes_only_after_the_log_was_made_to_last() {
    let store = MemBackend::new();
    let (me, [_, new], needs) = two_snapshots(&store);
    let before = store.objects();
    let repo = open(Arc::new(store.clone()), 2, &me).unwrap();
    forget_and_prune(&repo, new, &needs).unwrap();
    // A pack that was swept is there again, as after a crash.
    let swept = before.iter().find(
        |(name, _)| matches!(name, ObjectName::Pack(pack) if repo.state().swept.contains(pack)),
    );
    let (name, bytes) = swept.unwrap();
    store.replace(*name, bytes.to_vec());
    let record = Arc::new(RecordBackend::new(Arc::new(store)));
    let repo = open(record.clone(), 3, &me).unwrap();
    drop(record.take());
    assert_eq!(prune(&repo, &needs).unwrap().deleted, 1);
    let calls = record.take();
    let is_read = |kind| matches!(kind, CallKind::ReadAll | CallKind::Len);
    let of_log = |kind: Option<ObjectKind>| kind == Some(ObjectKind::Log);
    let deleted = calls
        .iter()
        .position(|call| call.kind == CallKind::Delete && call.name == Some(*name))
        .unwrap();
    let read = calls[..deleted]
        .iter()
        .rposition(|call| is_read(call.kind) && of_log(call.object_kind));
    let barrier = calls[..deleted]
        .iter()
        .rposition(|call| call.kind == CallKind::Barrier && of_log(call.object_kind));
    assert!(barrier > read && barrier.is_some(), "{calls:?}");
}
