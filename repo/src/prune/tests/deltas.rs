//! Deltas in a repository: what becomes one, what is read through one, and what they keep alive.

use super::*;
use crate::{
    backend::BackendErrorKind,
    check::{CheckReport, Verdict},
    codec::Codec,
    format::log_body::Sweep,
    id::PackId,
    index::Found,
    log::check::{Conflict, check_sweep, check_sweep_by},
    prune::view::IndexCopies,
    repository::Wanted,
    writer::DeltaMode,
};

/// Bytes that nothing makes smaller.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// The same but for some bytes.
fn touched(plain: &[u8], seed: u32, from: usize, len: usize) -> Vec<u8> {
    let mut plain = plain.to_vec();
    plain[from..from + len].copy_from_slice(&noise(seed, len));
    plain
}

fn id(repo: &Repository, plain: &[u8]) -> BlobId {
    repo.blob_id(BlobKind::Data, plain)
}

/// Stores blobs, each with an ancestor if it has one, in a pack of their own, and a snapshot.
fn save(repo: &Repository, blobs: &[(&[u8], Option<BlobId>)], delta: DeltaMode) -> SnapshotId {
    let base = repo.tail();
    let options = WriterOptions {
        delta,
        ..WriterOptions::default()
    };
    let writer = repo.writer(options);
    let mut bench = writer.bench().unwrap();
    for (plain, ancestor) in blobs {
        writer
            .put_like(&mut bench, BlobKind::Data, Hint::Plain, plain, &|| {
                *ancestor
            })
            .unwrap();
    }
    let record = base.to_le_bytes();
    let new = NewSnapshot {
        record: &record,
        parent: None,
        base,
    };
    repo.commit(&writer, &mut bench, &new).unwrap()
}

fn needs(all: &[(SnapshotId, Vec<BlobId>)]) -> Needs {
    Needs {
        per_snapshot: all.iter().cloned().collect(),
        needed: HashSet::new(),
    }
}

fn copies(repo: &Repository, blob: &BlobId) -> Vec<Found> {
    repo.index().copies(blob).unwrap()
}

fn only_base(repo: &Repository, blob: &BlobId) -> Option<BlobId> {
    let copies = copies(repo, blob);
    assert_eq!(copies.len(), 1, "{blob}");
    let entry = copies[0].entry;
    let codec = Codec::try_from(entry.codec).unwrap();
    assert_eq!(codec.has_base(), entry.base.is_some());
    entry.base
}

fn pack_of_copy(repo: &Repository, blob: &BlobId, base: Option<BlobId>) -> PackId {
    let copies = copies(repo, blob);
    let copy = copies.iter().find(|copy| copy.entry.base == base).unwrap();
    repo.index().pack(copy.pack).unwrap().id
}

/// Every blob by itself and all at once.
fn assert_reads(repo: &Repository, blobs: &[&[u8]]) {
    let mut reader = repo.reader().unwrap();
    let mut wanted = Vec::new();
    for (plain, tag) in blobs.iter().zip(0..) {
        let id = id(repo, plain);
        assert!(reader.load(&id).unwrap() == *plain, "{tag}");
        wanted.push(Wanted { id, tag });
    }
    let mut seen = BTreeSet::new();
    let mut take = |tag: u32, plain: &[u8]| {
        assert!(plain == blobs[usize::try_from(tag).unwrap()], "{tag}");
        seen.insert(tag);
        Ok::<_, Error>(())
    };
    let mut failed = |tag: u32, error: Error| panic!("{tag}: {error}");
    reader.load_many(&wanted, &mut take, &mut failed).unwrap();
    assert_eq!(seen.len(), blobs.len());
}

#[test]
fn a_delta_is_never_made_against_a_delta() {
    let store = MemBackend::new();
    let (repo, me) = create(&store);
    let mut plain = noise(1, 100_000);
    let first = id(&repo, &plain);
    save(&repo, &[(&plain, None)], DeltaMode::Auto);
    let mut all = vec![plain.clone()];
    for generation in 1..6 {
        let before = id(&repo, &plain);
        let at = usize::try_from(generation).unwrap() * 10_000;
        plain = touched(&plain, 100 + generation, at, 500);
        save(&repo, &[(&plain, Some(before))], DeltaMode::Auto);
        assert_eq!(only_base(&repo, &id(&repo, &plain)), Some(first));
        all.push(plain.clone());
    }
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    assert_reads(&repo, &all);
    let again = open(Arc::new(store), 2, &me).unwrap();
    assert_reads(&again, &all);
    assert_sound(&again, "with deltas");
}

#[test]
fn what_has_drifted_away_from_its_base_is_stored_whole_and_becomes_one() {
    let store = MemBackend::new();
    let (repo, _) = create(&store);
    let mut plain = noise(1, 100_000);
    let mut bases = vec![id(&repo, &plain)];
    save(&repo, &[(&plain, None)], DeltaMode::Auto);
    for generation in 1..12 {
        let before = id(&repo, &plain);
        let at = usize::try_from(generation).unwrap() * 8_000 % 90_000;
        plain = touched(&plain, 100 + generation, at, 8_000);
        let now = id(&repo, &plain);
        save(&repo, &[(&plain, Some(before))], DeltaMode::Auto);
        match only_base(&repo, &now) {
            Some(base) => assert_eq!(Some(&base), bases.last(), "the newest whole one"),
            None => bases.push(now),
        }
    }
    // Four to eight steps of 8 per cent make a delta from which the next is stored whole.
    assert!((2..=3).contains(&bases.len()), "{}", bases.len());
    assert_reads(&repo, &[&plain]);
}

#[test]
fn nothing_becomes_a_delta_that_gains_little_or_that_nobody_wants() {
    let store = MemBackend::new();
    let (repo, _) = create(&store);
    let (base, unrelated) = (noise(1, 100_000), noise(2, 100_000));
    let near = touched(&base, 3, 0, 100);
    let ancestor = id(&repo, &base);
    let small = near[..10_000].to_vec();
    let nowhere = Some(BlobId::new([9; 32]));
    save(&repo, &[(&base, None)], DeltaMode::Auto);
    save(&repo, &[(&near, Some(ancestor))], DeltaMode::Never);
    let other = touched(&near, 4, 50_000, 100);
    let blobs: [(&[u8], _); 3] = [
        (&unrelated, Some(ancestor)),
        (&small, Some(ancestor)),
        (&other, nowhere),
    ];
    save(&repo, &blobs, DeltaMode::Auto);
    for plain in [&near, &unrelated, &small, &other] {
        assert_eq!(only_base(&repo, &id(&repo, plain)), None);
    }
}

#[test]
fn a_base_stays_as_long_as_a_delta_needs_it() {
    let store = MemBackend::new();
    let (repo, me) = create(&store);
    let base = noise(1, 100_000);
    let plain = touched(&base, 2, 7, 300);
    let (base_id, plain_id) = (id(&repo, &base), id(&repo, &plain));
    let old = save(&repo, &[(&base, None)], DeltaMode::Auto);
    let new = save(&repo, &[(&plain, Some(base_id))], DeltaMode::Auto);
    let needs = needs(&[(old, vec![base_id]), (new, vec![plain_id])]);
    let base_pack = ObjectName::Pack(pack_of_copy(&repo, &base_id, None));
    repo.remove_snapshots(&[old]).unwrap();
    prune(&repo, &needs).unwrap();
    assert!(store.objects().contains_key(&base_pack));
    let again = open(Arc::new(store.clone()), 2, &me).unwrap();
    assert_reads(&again, &[&plain]);
    again.remove_snapshots(&[new]).unwrap();
    prune(&again, &needs).unwrap();
    assert_eq!(count(&store, ObjectKind::Pack), 0, "now neither is needed");
}

#[test]
fn a_delta_that_nothing_needs_may_lose_its_base_and_no_check_minds() {
    let store = MemBackend::new();
    let (repo, _) = create(&store);
    let base = noise(1, 100_000);
    let plain = touched(&base, 2, 7, 300);
    let (base_id, plain_id) = (id(&repo, &base), id(&repo, &plain));
    let old = save(&repo, &[(&base, None)], DeltaMode::Auto);
    // Small ones enough to lie in every pack.
    let others: Vec<Vec<u8>> = (10..30).map(|seed| noise(seed, 200)).collect();
    let mut blobs: Vec<(&[u8], _)> = vec![(&plain, Some(base_id))];
    blobs.extend(others.iter().map(|plain| (plain.as_slice(), None)));
    let middle = save(&repo, &blobs, DeltaMode::Auto);
    blobs.remove(0);
    let new = save(&repo, &blobs, DeltaMode::Auto);
    let kept: Vec<BlobId> = others.iter().map(|plain| id(&repo, plain)).collect();
    let needs = needs(&[
        (old, vec![base_id]),
        (middle, vec![plain_id]),
        (new, kept.clone()),
    ]);
    let pack = pack_of_copy(&repo, &plain_id, Some(base_id));
    let shares = |blob: &BlobId| pack_of_copy(&repo, blob, None) == pack;
    assert!(kept.iter().any(shares), "something needed beside the delta");
    repo.remove_snapshots(&[old, middle]).unwrap();
    prune(&repo, &needs).unwrap();
    assert!(copies(&repo, &base_id).is_empty(), "the base is gone");
    assert_eq!(copies(&repo, &plain_id).len(), 1, "the delta is not");
    assert_sound(&repo, "with a delta that rests on nothing");
    // Saved once more it is stored once more.
    save(&repo, &[(&plain, Some(base_id))], DeltaMode::Auto);
    assert_reads(&repo, &[&plain]);
}

#[test]
fn a_known_delta_without_its_base_is_stored_again() {
    let store = MemBackend::new();
    let (repo, _) = create(&store);
    let base = noise(1, 100_000);
    let plain = touched(&base, 2, 7, 300);
    let (base_id, plain_id) = (id(&repo, &base), id(&repo, &plain));
    save(&repo, &[(&base, None)], DeltaMode::Auto);
    save(&repo, &[(&plain, Some(base_id))], DeltaMode::Auto);
    let pack = pack_of_copy(&repo, &base_id, None);
    store.delete(&ObjectName::Pack(pack)).unwrap();
    let error = repo.reader().unwrap().load(&plain_id).unwrap_err();
    assert!(
        matches!(&error, Error::Base { blob, base, .. } if *blob == plain_id && *base == base_id),
        "{error:?}"
    );
    save(&repo, &[(&plain, Some(base_id))], DeltaMode::Auto);
    assert_eq!(copies(&repo, &plain_id).len(), 2);
    assert_reads(&repo, &[&plain]);
}

#[test]
fn damage_to_a_base_is_told_of_what_rests_on_it_and_hurts_nothing_else() {
    let store = MemBackend::new();
    let (repo, _) = create(&store);
    let (base, other) = (noise(1, 100_000), noise(5, 100_000));
    let (plain, fine) = (touched(&base, 2, 7, 300), touched(&other, 6, 9, 300));
    let (base_id, plain_id, other_id) = (id(&repo, &base), id(&repo, &plain), id(&repo, &other));
    save(&repo, &[(&base, None)], DeltaMode::Auto);
    save(&repo, &[(&other, None)], DeltaMode::Auto);
    let both: [(&[u8], _); 2] = [(&plain, Some(base_id)), (&fine, Some(other_id))];
    save(&repo, &both, DeltaMode::Auto);
    let name = ObjectName::Pack(pack_of_copy(&repo, &base_id, None));
    let mut bytes = store.objects()[&name].to_vec();
    bytes[5000] ^= 1;
    store.replace(name, bytes);
    let mut failures = Vec::new();
    let mut taken = Vec::new();
    let wanted = [(0, plain_id), (1, id(&repo, &fine))].map(|(tag, id)| Wanted { id, tag });
    let mut take = |tag: u32, _: &[u8]| {
        taken.push(tag);
        Ok::<_, Error>(())
    };
    let mut failed = |tag: u32, error: Error| failures.push((tag, error));
    let mut reader = repo.reader().unwrap();
    reader.load_many(&wanted, &mut take, &mut failed).unwrap();
    assert_eq!(taken, [1]);
    assert!(
        matches!(&failures[..], [(0, Error::Base { .. })]),
        "{failures:?}"
    );
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 1,
    };
    let report = repo.check(options, &(), &AtomicBool::new(false)).unwrap();
    let named = report.findings.iter().any(|finding| {
        matches!(&finding.what, Problem::Base { blob, base, .. }
            if *blob == plain_id && *base == base_id)
    });
    assert!(named, "{:?}", report.findings);
    let index = repo.index();
    let bad = repo.state().bad;
    let decodable = |blob| report.is_decodable(&index, &bad, &blob).unwrap();
    assert!(!decodable(base_id) && !decodable(plain_id));
    assert!(decodable(id(&repo, &fine)));
    // A new blob finds no use for such a base, and is stored whole.
    let next = touched(&plain, 8, 50_000, 300);
    save(&repo, &[(&next, Some(plain_id))], DeltaMode::Auto);
    assert_eq!(only_base(&repo, &id(&repo, &next)), None);
    assert_reads(&repo, &[&next, &fine]);
}

fn check(repo: &Repository) -> CheckReport {
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 1,
    };
    repo.check(options, &(), &AtomicBool::new(false)).unwrap()
}

/// A base, a delta of it beside something else, and what is recorded of the delta's pack.
struct Resting {
    store: MemBackend,
    repo: Repository,
    me: OpenedSlot,
    base: Vec<u8>,
    base_pack: ObjectName,
    pack: PackId,
    /// The delta's.
    segment: u32,
    /// What lies beside it, and its id.
    beside: Vec<u8>,
    other: BlobId,
    needs: Needs,
}

impl Resting {
    /// The delta is recorded as bad.
    fn new() -> Self {
        let store = MemBackend::new();
        let (repo, me) = create(&store);
        let base = noise(1, 100_000);
        let plain = touched(&base, 2, 7, 300);
        let (base_id, plain_id) = (id(&repo, &base), id(&repo, &plain));
        let old = save(&repo, &[(&base, None)], DeltaMode::Auto);
        // Small ones enough to lie in every pack.
        let others: Vec<Vec<u8>> = (10..30).map(|seed| noise(seed, 200)).collect();
        let mut blobs: Vec<(&[u8], _)> = vec![(&plain, Some(base_id))];
        blobs.extend(others.iter().map(|plain| (plain.as_slice(), None)));
        let new = save(&repo, &blobs, DeltaMode::Auto);
        let copy = copies(&repo, &plain_id)[0];
        assert_eq!(copy.entry.base, Some(base_id));
        let pack = pack_of_copy(&repo, &plain_id, Some(base_id));
        let lies_there = |plain: &Vec<u8>| pack_of_copy(&repo, &id(&repo, plain), None) == pack;
        let beside = others.into_iter().find(lies_there).unwrap();
        let other = id(&repo, &beside);
        let this = Self {
            base_pack: ObjectName::Pack(pack_of_copy(&repo, &base_id, None)),
            needs: needs(&[(old, vec![base_id]), (new, vec![plain_id, other])]),
            segment: copy.entry.segment,
            store,
            repo,
            me,
            base,
            pack,
            beside,
            other,
        };
        let sound = this.store.objects()[&ObjectName::Pack(pack)].to_vec();
        let mut bytes = sound.clone();
        bytes[usize::try_from(copy.entry.offset).unwrap() + 20] ^= 1;
        this.store.replace(ObjectName::Pack(pack), bytes);
        this.record();
        assert_eq!(this.bad(), (false, [this.segment].into()));
        this.store.replace(ObjectName::Pack(pack), sound);
        this
    }

    fn record(&self) -> CheckReport {
        let report = check(&self.repo);
        self.repo.record_verdicts(&report.verdicts).unwrap();
        report
    }

    fn bad(&self) -> (bool, BTreeSet<u32>) {
        self.repo.state().bad.of(&self.pack)
    }

    fn is_decodable(&self, report: &CheckReport, blob: &BlobId) -> bool {
        let bad = self.repo.state().bad;
        report.is_decodable(&self.repo.index(), &bad, blob).unwrap()
    }
}

#[test]
fn a_delta_that_is_recorded_as_bad_stays_so_until_it_was_read_with_its_base() {
    let recorded = Resting::new();
    let base = recorded.store.objects()[&recorded.base_pack].to_vec();
    let mut damaged = base.clone();
    damaged[5000] ^= 1;
    recorded.store.replace(recorded.base_pack, damaged);
    recorded.record();
    assert_eq!(
        recorded.bad(),
        (false, [recorded.segment].into()),
        "its base is damaged"
    );
    recorded.store.remove(&recorded.base_pack);
    let report = recorded.record();
    assert_eq!(
        recorded.bad(),
        (false, [recorded.segment].into()),
        "its base is lost"
    );
    assert!(recorded.is_decodable(&report, &recorded.other));
    recorded.store.replace(recorded.base_pack, base);
    recorded.record();
    assert_eq!(recorded.bad(), (false, [].into()), "it was read");
}

#[test]
fn a_delta_whose_base_is_out_of_reach_is_neither_called_bad_nor_good() {
    let recorded = Resting::new();
    let denied = Effect::Fail(BackendErrorKind::Denied);
    let trigger = Trigger::call(CallKind::ReadAt, 1).of_object(recorded.base_pack);
    let script = FaultScript::new(1).lasting(trigger, denied);
    let faulty = FaultBackend::new(recorded.store.clone(), script);
    let repo = open(Arc::new(faulty), 2, &recorded.me).unwrap();
    let verdicts = check(&repo).verdicts;
    let unproved = Verdict::Segments {
        bad: [].into(),
        unproved: [recorded.segment].into(),
    };
    assert_eq!(verdicts, [(recorded.pack, unproved)].into());
    let news = repo.record_verdicts(&verdicts).unwrap();
    assert_eq!((news.bad, news.good), (0, 0));
    // And where nothing is recorded, nothing is said of its pack.
    recorded.record();
    assert_eq!(recorded.bad(), (false, [].into()));
    repo.refresh().unwrap();
    assert_eq!(check(&repo).verdicts, [].into());
}

#[test]
fn a_delta_whose_base_went_with_a_prune_is_not_taken_for_good() {
    let recorded = Resting::new();
    recorded.record();
    let snapshots: Vec<_> = recorded.needs.per_snapshot.keys().copied().collect();
    let kept = save(&recorded.repo, &[(&recorded.beside, None)], DeltaMode::Auto);
    let kept = needs(&[(kept, vec![recorded.other])]);
    recorded.repo.remove_snapshots(&snapshots).unwrap();
    prune(&recorded.repo, &kept).unwrap();
    assert!(copies(&recorded.repo, &id(&recorded.repo, &recorded.base)).is_empty());
    // The whole pack was given up, and comes back but for what cannot be told.
    let lost = [(recorded.pack, Verdict::Lost)].into();
    recorded.repo.record_verdicts(&lost).unwrap();
    assert!(recorded.bad().0);
    let report = recorded.record();
    assert_sound(&recorded.repo, "with a delta that rests on nothing");
    assert!(recorded.is_decodable(&report, &recorded.other));
    assert_eq!(recorded.bad(), (false, [recorded.segment].into()));
    recorded.record();
    assert_eq!(recorded.bad(), (false, [recorded.segment].into()));
    // Its base is stored once more.
    save(&recorded.repo, &[(&recorded.base, None)], DeltaMode::Auto);
    recorded.record();
    assert_eq!(recorded.bad(), (false, [].into()));
}

/// X whole with Y as its delta by one client, Y whole with X as its delta by another.
fn two_clients(store: &MemBackend) -> (Repository, [Vec<u8>; 2], Needs, [SnapshotId; 4]) {
    let (one, me) = create(store);
    let two = open(Arc::new(store.clone()), 2, &me).unwrap();
    let x = noise(1, 100_000);
    let y = touched(&x, 2, 400, 400);
    let (x_id, y_id) = (id(&one, &x), id(&one, &y));
    let snapshots = [
        save(&one, &[(&x, None)], DeltaMode::Auto),
        save(&one, &[(&y, Some(x_id))], DeltaMode::Auto),
        save(&two, &[(&y, None)], DeltaMode::Auto),
        save(&two, &[(&x, Some(y_id))], DeltaMode::Auto),
    ];
    let needed = [x_id, y_id, y_id, x_id];
    let needs = needs(
        &snapshots
            .into_iter()
            .zip(needed.map(|id| vec![id]))
            .collect::<Vec<_>>(),
    );
    let third = open(Arc::new(store.clone()), 3, &me).unwrap();
    for (blob, other) in [(x_id, y_id), (y_id, x_id)] {
        let bases: HashSet<_> = copies(&third, &blob).iter().map(|c| c.entry.base).collect();
        assert_eq!(bases, HashSet::from([None, Some(other)]));
    }
    (third, [x, y], needs, snapshots)
}

#[test]
fn two_clients_whose_deltas_rest_on_each_other_lose_nothing() {
    // Whatever was forgotten before.
    for forgotten in 0..15_u8 {
        let store = MemBackend::new();
        let (repo, [x, y], needs, snapshots) = two_clients(&store);
        let gone: Vec<_> = (0..4)
            .filter(|n| forgotten >> n & 1 == 1)
            .map(|n| snapshots[n])
            .collect();
        if !gone.is_empty() {
            repo.remove_snapshots(&gone).unwrap();
        }
        prune(&repo, &needs).unwrap();
        needs.assert_readable(&repo, &format!("{forgotten:04b}"));
        if forgotten == 0 {
            assert_reads(&repo, &[&x, &y]);
        }
        let second = prune(&repo, &needs).unwrap();
        assert_eq!(second.swept, 0, "{forgotten:04b}");
        assert_sound(&repo, &format!("{forgotten:04b}"));
    }
}

#[test]
fn that_a_copy_exists_is_not_enough_for_a_sweep() {
    let store = MemBackend::new();
    let (repo, [x, y], ..) = two_clients(&store);
    let (x, y) = (id(&repo, &x), id(&repo, &y));
    let (state, index) = (repo.state(), repo.index());
    let copies = IndexCopies::new(&index);
    let sweep_of = |packs: Vec<PackId>| Sweep {
        plan: repo.env().run(),
        packs,
        drop_indexes: Vec::new(),
        add_indexes: Vec::new(),
        snapshots: Vec::new(),
    };
    // What two prunes at once may come to, each of which keeps one copy of either.
    let whole = sweep_of(vec![
        pack_of_copy(&repo, &x, None),
        pack_of_copy(&repo, &y, None),
    ]);
    let checked = check_sweep(&state, &whole, &copies, &copies, &mut [x, y].into_iter());
    assert_eq!(checked, Err(Conflict::WouldLose { blobs: vec![x, y] }));
    let both = (&copies as &dyn crate::log::check::Copies, &copies as _);
    let weaker = check_sweep_by(
        &|view, blob| view.exists(blob),
        &state,
        &whole,
        both,
        &mut [x, y].into_iter(),
    );
    assert_eq!(weaker, Ok(()), "the weaker rule lets it pass");
    for pack in &whole.packs {
        store.delete(&ObjectName::Pack(*pack)).unwrap();
    }
    let mut reader = repo.reader().unwrap();
    for blob in [x, y] {
        reader.load(&blob).expect_err("and loses both");
    }
    // Either whole copy may go alone.
    for blob in [x, y] {
        let one = sweep_of(vec![pack_of_copy(&repo, &blob, None)]);
        let checked = check_sweep(&state, &one, &copies, &copies, &mut [x, y].into_iter());
        let rest = if blob == x { y } else { x };
        assert_eq!(checked, Ok(()), "{rest} is whole");
    }
}
