//! The questions an entry must pass, asked of the state of exactly the prefix before it. Pure:
//! the index reaches them as [`Copies`], reachable blobs as iterators.
//!
//! All of them rest on [`View::decodable`]. It is not enough that a copy of a blob exists: two
//! clients may store X whole with Y as its delta and Y whole with X as its delta, and then each
//! blob has two copies of which only one may go. A delta therefore counts only while its base is
//! stored whole.

use std::collections::BTreeSet;

use super::state::{BadCopies, State};
use crate::{
    format::log_body::Sweep,
    id::{BlobId, PackId, SnapshotId},
};

/// A stored copy of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobCopy {
    /// The pack that holds it.
    pub pack: PackId,
    /// The segment of the pack.
    pub segment: u32,
    /// The blob that it is a delta against; `None` where it is stored whole.
    pub base: Option<BlobId>,
}

/// What the live index objects say.
pub trait Copies {
    /// Calls `found` for every copy of `blob` that a live index names, until it returns false.
    fn copies(&self, blob: &BlobId, found: &mut dyn FnMut(BlobCopy) -> bool);
}

/// Why an entry may not be appended to this prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Packs that the entry relies on were swept.
    #[error("{} packs it relies on were swept meanwhile", packs.len())]
    Swept {
        /// The packs.
        packs: Vec<PackId>,
    },
    /// In packs that the entry relies on copies were found bad.
    #[error("{} packs it relies on were found damaged meanwhile", packs.len())]
    Damaged {
        /// The packs.
        packs: Vec<PackId>,
    },
    /// Blobs that the entry needs cannot be decoded from the live packs.
    #[error("{} blobs it needs cannot be decoded from the packs that are left", blobs.len())]
    Undecodable {
        /// The blobs.
        blobs: Vec<BlobId>,
    },
    /// A sweep that would make blobs of live snapshots undecodable.
    #[error("it would lose {} blobs of live snapshots", blobs.len())]
    WouldLose {
        /// The blobs.
        blobs: Vec<BlobId>,
    },
    /// Snapshots that the entry speaks of do not exist, or no longer.
    #[error("{} of the snapshots do not exist", snapshots.len())]
    NoSuchSnapshot {
        /// The snapshots.
        snapshots: Vec<SnapshotId>,
    },
    /// Snapshots that are held.
    #[error("{} of the snapshots are held", snapshots.len())]
    Held {
        /// The snapshots.
        snapshots: Vec<SnapshotId>,
    },
    /// A sweep that would end the restoring of snapshots which are live.
    #[error("{} of the snapshots are live", snapshots.len())]
    Live {
        /// The snapshots.
        snapshots: Vec<SnapshotId>,
    },
}

/// The live copies at a prefix, or at that prefix with a sweep applied.
#[derive(Clone, Copy)]
pub struct View<'a> {
    copies: &'a dyn Copies,
    swept: &'a BTreeSet<PackId>,
    also_swept: Option<&'a BTreeSet<PackId>>,
    bad: &'a BadCopies,
}

impl<'a> View<'a> {
    /// The copies that count at `state`; `copies` says what its live indexes hold.
    #[must_use]
    pub const fn new(state: &'a State, copies: &'a dyn Copies) -> Self {
        Self {
            copies,
            swept: &state.swept,
            also_swept: None,
            bad: &state.bad,
        }
    }

    /// The same, as if `packs` were swept too.
    #[must_use]
    pub const fn without(self, packs: &'a BTreeSet<PackId>) -> Self {
        Self {
            also_swept: Some(packs),
            ..self
        }
    }

    /// Whether this copy counts: its pack is not swept and it was not found bad.
    #[must_use]
    pub fn counts(&self, copy: &BlobCopy) -> bool {
        !self.swept.contains(&copy.pack)
            && !self
                .also_swept
                .is_some_and(|packs| packs.contains(&copy.pack))
            && !self.bad.contains(&copy.pack, copy.segment)
    }

    /// Whether the blob can be decoded: a copy that counts is whole, or is a delta whose base has
    /// a copy that counts and is whole.
    #[must_use]
    pub fn decodable(&self, blob: &BlobId) -> bool {
        self.usable_copy(blob).is_some()
    }

    /// The copy to read the blob from: a whole one if there is one, else a delta whose base has
    /// a whole one.
    #[must_use]
    pub fn usable_copy(&self, blob: &BlobId) -> Option<BlobCopy> {
        let mut whole = None;
        let mut deltas = Vec::new();
        self.copies.copies(blob, &mut |copy| {
            if self.counts(&copy) {
                match copy.base {
                    None => whole = Some(copy),
                    Some(base) => deltas.push((base, copy)),
                }
            }
            whole.is_none()
        });
        let usable = |(base, copy): (BlobId, BlobCopy)| self.whole(&base).then_some(copy);
        whole.or_else(|| deltas.into_iter().find_map(usable))
    }

    /// Whether a copy counts, readable or not: a rule that is too weak, for tests to show that.
    #[doc(hidden)]
    #[must_use]
    pub fn exists(&self, blob: &BlobId) -> bool {
        let mut exists = false;
        self.copies.copies(blob, &mut |copy| {
            exists = self.counts(&copy);
            !exists
        });
        exists
    }

    fn whole(&self, blob: &BlobId) -> bool {
        let mut found = false;
        self.copies.copies(blob, &mut |copy| {
            found = copy.base.is_none() && self.counts(&copy);
            !found
        });
        found
    }

    /// Those of `blobs` that cannot be decoded.
    fn undecodable(&self, blobs: &mut dyn Iterator<Item = BlobId>) -> Vec<BlobId> {
        blobs.filter(|blob| !self.decodable(blob)).collect()
    }
}

/// For `AddPacks` and as the first half of `AddSnapshot`: none of `packs` was ever swept.
///
/// # Errors
/// [`Conflict::Swept`].
pub fn check_add_packs(
    state: &State,
    packs: &mut dyn Iterator<Item = PackId>,
) -> Result<(), Conflict> {
    let packs: Vec<PackId> = packs.filter(|pack| state.swept.contains(pack)).collect();
    if packs.is_empty() {
        return Ok(());
    }
    Err(Conflict::Swept { packs })
}

/// For `AddSnapshot` where `packs` are all that the run relied on: those of the copies that it
/// found, whole or deltas, those of a whole copy of each base, of these deltas and of its own, and
/// those that it stored. Its blobs are decodable while these copies count: none of `packs` was ever
/// swept, and in none a copy was found bad.
///
/// # Errors
/// [`Conflict::Swept`], [`Conflict::Damaged`].
pub fn check_relied_packs(state: &State, packs: &BTreeSet<PackId>) -> Result<(), Conflict> {
    check_add_packs(state, &mut packs.iter().copied())?;
    let damaged = state.bad.packs();
    let packs: Vec<PackId> = packs.intersection(&damaged).copied().collect();
    if packs.is_empty() {
        return Ok(());
    }
    Err(Conflict::Damaged { packs })
}

/// What a new snapshot relies on.
pub struct Reliance<'a> {
    /// Every pack, old or new, out of which one of `blobs` or the base of one is to be read.
    pub packs: &'a mut dyn Iterator<Item = PackId>,
    /// The blobs that it references, but for what is reused whole from `parents`.
    pub blobs: &'a mut dyn Iterator<Item = BlobId>,
    /// Snapshots of which whole trees are reused.
    pub parents: &'a [SnapshotId],
}

/// For `AddSnapshot`: nothing it relies on was swept, every blob is decodable, and the snapshots
/// it reuses whole trees of are live. `copies` covers the live indexes and the new ones.
///
/// # Errors
/// [`Conflict::NoSuchSnapshot`] for a parent that is gone, [`Conflict::Swept`],
/// [`Conflict::Undecodable`].
pub fn check_add_snapshot(
    state: &State,
    copies: &dyn Copies,
    reliance: Reliance<'_>,
) -> Result<(), Conflict> {
    missing(reliance.parents, |id| state.snapshots.contains_key(id))?;
    check_add_packs(state, reliance.packs)?;
    all_decodable(View::new(state, copies), reliance.blobs)
}

/// For `RemoveSnapshots`: all are live and none is held. `held_by_record` tells whether the
/// snapshot's own record holds it; an annotation has the last word.
///
/// # Errors
/// [`Conflict::NoSuchSnapshot`], [`Conflict::Held`].
pub fn check_remove_snapshots(
    state: &State,
    snapshots: &[SnapshotId],
    held_by_record: &dyn Fn(&SnapshotId) -> bool,
) -> Result<(), Conflict> {
    missing(snapshots, |id| state.snapshots.contains_key(id))?;
    let is_held = |id: &SnapshotId| match state.annotations.get(id).map(|notes| &notes.hold) {
        Some(Some(hold)) => hold.is_some(),
        _ => held_by_record(id),
    };
    let held: Vec<SnapshotId> = snapshots.iter().filter(|id| is_held(id)).copied().collect();
    if held.is_empty() {
        return Ok(());
    }
    Err(Conflict::Held { snapshots: held })
}

/// For `RestoreSnapshots`: all can be taken back, and every blob of theirs is decodable.
///
/// # Errors
/// [`Conflict::NoSuchSnapshot`], [`Conflict::Undecodable`].
pub fn check_restore_snapshots(
    state: &State,
    copies: &dyn Copies,
    snapshots: &[SnapshotId],
    blobs: &mut dyn Iterator<Item = BlobId>,
) -> Result<(), Conflict> {
    missing(snapshots, |id| state.removed.contains_key(id))?;
    all_decodable(View::new(state, copies), blobs)
}

/// For `ReplaceSnapshots`: the old ones are live, nothing that the new ones rely on was swept,
/// and every blob of theirs is decodable.
///
/// # Errors
/// [`Conflict::NoSuchSnapshot`], [`Conflict::Swept`], [`Conflict::Undecodable`].
pub fn check_replace_snapshots(
    state: &State,
    copies: &dyn Copies,
    old: &[SnapshotId],
    reliance: Reliance<'_>,
) -> Result<(), Conflict> {
    missing(old, |id| state.snapshots.contains_key(id))?;
    check_add_snapshot(state, copies, reliance)
}

/// For `Sweep`: no blob reachable from a live snapshot that is decodable before it stops being
/// so. `before` covers the live indexes, `after` those that are live once the sweep has exchanged
/// them; `reachable` names each blob of every snapshot that is live at `state`.
///
/// # Errors
/// [`Conflict::Live`], [`Conflict::WouldLose`].
pub fn check_sweep(
    state: &State,
    sweep: &Sweep,
    before: &dyn Copies,
    after: &dyn Copies,
    reachable: &mut dyn Iterator<Item = BlobId>,
) -> Result<(), Conflict> {
    let rule = |view: &View<'_>, blob: &BlobId| view.decodable(blob);
    check_sweep_by(&rule, state, sweep, (before, after), reachable)
}

/// [`check_sweep`] with the rule as an argument, so that tests can show what a weaker one loses.
#[doc(hidden)]
pub fn check_sweep_by(
    rule: &dyn Fn(&View<'_>, &BlobId) -> bool,
    state: &State,
    sweep: &Sweep,
    (before, after): (&dyn Copies, &dyn Copies),
    reachable: &mut dyn Iterator<Item = BlobId>,
) -> Result<(), Conflict> {
    let is_live = |id: &&SnapshotId| state.snapshots.contains_key(*id);
    let live: Vec<SnapshotId> = sweep.snapshots.iter().filter(is_live).copied().collect();
    if !live.is_empty() {
        return Err(Conflict::Live { snapshots: live });
    }
    let packs: BTreeSet<PackId> = sweep.packs.iter().copied().collect();
    let now = View::new(state, before);
    let then = View::new(state, after).without(&packs);
    let blobs: Vec<BlobId> = reachable
        .filter(|blob| !rule(&then, blob) && rule(&now, blob))
        .collect();
    if blobs.is_empty() {
        return Ok(());
    }
    Err(Conflict::WouldLose { blobs })
}

fn all_decodable(view: View<'_>, blobs: &mut dyn Iterator<Item = BlobId>) -> Result<(), Conflict> {
    let blobs = view.undecodable(blobs);
    if blobs.is_empty() {
        return Ok(());
    }
    Err(Conflict::Undecodable { blobs })
}

fn missing(snapshots: &[SnapshotId], exists: impl Fn(&SnapshotId) -> bool) -> Result<(), Conflict> {
    let gone: Vec<SnapshotId> = snapshots.iter().filter(|id| !exists(id)).copied().collect();
    if gone.is_empty() {
        return Ok(());
    }
    Err(Conflict::NoSuchSnapshot { snapshots: gone })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{
        env::Timestamp,
        format::log_body::{Annotate, Attest, Body, Change, Finding, KeyList, Role, SlotKeys},
        id::{DomainId, RepoId, RunId, SlotId},
        log::state::{EntryMeta, KeyState, Position},
    };

    /// What packs hold: per blob its copies.
    #[derive(Default)]
    struct World(BTreeMap<BlobId, Vec<BlobCopy>>);

    impl Copies for World {
        fn copies(&self, blob: &BlobId, found: &mut dyn FnMut(BlobCopy) -> bool) {
            for copy in self.0.get(blob).into_iter().flatten() {
                if !found(*copy) {
                    return;
                }
            }
        }
    }

    impl World {
        fn with(mut self, blob: u8, pack: u8, base: Option<u8>) -> Self {
            let copy = BlobCopy {
                pack: pack_id(pack),
                segment: u32::from(blob),
                base: base.map(blob_id),
            };
            self.0.entry(blob_id(blob)).or_default().push(copy);
            self
        }
    }

    fn blob_id(n: u8) -> BlobId {
        BlobId::new([n; 32])
    }

    fn pack_id(n: u8) -> PackId {
        PackId::new([n; 32])
    }

    fn snapshot_id(n: u8) -> SnapshotId {
        SnapshotId::new([n; 32])
    }

    fn state() -> State {
        let mut owner = SlotKeys {
            slot: SlotId::new([0; 32]),
            role: 1,
            x25519: [0; 32],
            ed25519: [0; 32],
        };
        owner.slot = owner.identity();
        let list = KeyList {
            repo: RepoId::new([0; 16]),
            domain: DomainId::new([0; 16]),
            keyring: 1,
            keyring_hash: [0; 32],
            slots: vec![owner],
        };
        let at = Position {
            seq: 1,
            hash: [0; 32],
            time: Timestamp::default(),
        };
        State::first([0; 32], at, KeyState::from_list(&list, None).unwrap())
    }

    fn apply(state: &mut State, body: &Body) {
        let mut at = state.head;
        at.seq += 1;
        let entry = EntryMeta {
            at,
            kind: body.kind(),
            writer: SlotId::new([0; 32]),
            role: Role::Owner,
            parts: vec![],
        };
        state.apply(&entry, Ok(body));
    }

    fn sweep_of(packs: &[u8]) -> Sweep {
        Sweep {
            plan: RunId::new([0; 16]),
            packs: packs.iter().map(|n| pack_id(*n)).collect(),
            drop_indexes: vec![],
            add_indexes: vec![],
            snapshots: vec![],
        }
    }

    fn blobs(ns: &[u8]) -> impl Iterator<Item = BlobId> {
        ns.iter()
            .map(|n| blob_id(*n))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Reads a blob the way the reader does, from the packs that still exist.
    fn can_read(world: &World, gone: &BTreeSet<PackId>, blob: BlobId) -> bool {
        let copies = |blob: &BlobId| world.0.get(blob).cloned().unwrap_or_default();
        copies(&blob).iter().any(|copy| {
            !gone.contains(&copy.pack)
                && copy.base.is_none_or(|base| {
                    copies(&base)
                        .iter()
                        .any(|copy| !gone.contains(&copy.pack) && copy.base.is_none())
                })
        })
    }

    /// X whole in 1, its delta against Y in 4; Y whole in 2, its delta against X in 3.
    fn crossed_deltas() -> World {
        World::default()
            .with(b'x', 1, None)
            .with(b'y', 3, Some(b'x'))
            .with(b'y', 2, None)
            .with(b'x', 4, Some(b'y'))
    }

    #[test]
    fn a_sweep_may_not_take_both_wholes_of_crossed_deltas() {
        let (world, state) = (crossed_deltas(), state());
        let check = |packs: &[u8]| {
            let sweep = sweep_of(packs);
            check_sweep(&state, &sweep, &world, &world, &mut blobs(b"xy"))
        };
        assert_eq!(check(&[1]), Ok(()));
        assert_eq!(check(&[1, 3]), Ok(()));
        let lost = Err(Conflict::WouldLose {
            blobs: blobs(b"xy").collect(),
        });
        assert_eq!(check(&[1, 2]), lost);
    }

    #[test]
    fn the_weaker_rule_that_a_copy_exists_would_lose_both_blobs() {
        let (world, state) = (crossed_deltas(), state());
        let sweep = sweep_of(&[1, 2]);
        let both: (&dyn Copies, &dyn Copies) = (&world, &world);
        let mutant = check_sweep_by(
            &|view, blob| view.exists(blob),
            &state,
            &sweep,
            both,
            &mut blobs(b"xy"),
        );
        assert_eq!(mutant, Ok(()), "the mutant lets the sweep pass");
        let gone = sweep.packs.iter().copied().collect();
        for blob in blobs(b"xy") {
            assert!(
                !can_read(&world, &gone, blob),
                "and then nothing can be read"
            );
        }
    }

    #[test]
    fn two_sweeps_each_of_which_spares_the_others_copy_cannot_both_pass() {
        let world = World::default().with(1, 1, None).with(1, 2, None);
        let mut state = state();
        let check = |state: &State, pack| {
            check_sweep(state, &sweep_of(&[pack]), &world, &world, &mut blobs(&[1]))
        };
        assert!(check(&state, 1).is_ok() && check(&state, 2).is_ok());
        apply(&mut state, &Body::Sweep(sweep_of(&[1])));
        assert!(check(&state, 2).is_err());
    }

    #[test]
    fn what_was_lost_before_blocks_no_sweep() {
        let world = World::default().with(1, 1, None);
        let mut state = state();
        apply(&mut state, &Body::Sweep(sweep_of(&[1])));
        let sweep = sweep_of(&[1, 5]);
        let check = check_sweep(&state, &sweep, &world, &world, &mut blobs(&[1, 9]));
        assert_eq!(check, Ok(()));
    }

    #[test]
    fn dropping_an_index_counts_as_losing_what_it_alone_names() {
        let before = World::default().with(1, 1, None).with(2, 1, None);
        let after = World::default().with(1, 1, None);
        let check = check_sweep(
            &state(),
            &sweep_of(&[]),
            &before,
            &after,
            &mut blobs(&[1, 2]),
        );
        let lost = blobs(&[2]).collect();
        assert_eq!(check, Err(Conflict::WouldLose { blobs: lost }));
    }

    #[test]
    fn a_bad_copy_does_not_count_until_it_is_found_good_again() {
        let world = World::default().with(1, 1, None).with(2, 2, Some(1));
        let mut state = state();
        let attest = |good, segments: &[u32]| {
            Body::Attest(Attest {
                findings: vec![Finding {
                    pack: pack_id(1),
                    segments: segments.to_vec(),
                    good,
                }],
            })
        };
        let readable = |state: &State| {
            let view = View::new(state, &world);
            (view.decodable(&blob_id(1)), view.decodable(&blob_id(2)))
        };
        assert_eq!(readable(&state), (true, true));
        apply(&mut state, &attest(false, &[1]));
        assert_eq!(
            readable(&state),
            (false, false),
            "nor does a delta against it"
        );
        apply(&mut state, &attest(true, &[1]));
        assert_eq!(readable(&state), (true, true));
        apply(&mut state, &attest(false, &[]));
        assert_eq!(readable(&state), (false, false));
        assert_eq!(state.bad.packs(), [pack_id(1)].into());
        apply(&mut state, &attest(true, &[]));
        assert_eq!(readable(&state), (true, true));
        assert!(state.bad.is_empty());
    }

    #[test]
    fn a_whole_copy_is_preferred_and_a_delta_against_a_delta_is_none() {
        let world = World::default()
            .with(1, 1, Some(2))
            .with(1, 5, None)
            .with(2, 2, Some(3))
            .with(3, 3, None)
            .with(4, 4, Some(2));
        let state = state();
        let view = View::new(&state, &world);
        assert_eq!(
            view.usable_copy(&blob_id(1)).map(|c| c.pack),
            Some(pack_id(5))
        );
        assert!(view.decodable(&blob_id(2)));
        assert!(!view.decodable(&blob_id(4)), "its base is a delta itself");
    }

    #[test]
    fn a_snapshot_that_relies_on_what_was_swept_is_refused() {
        let world = World::default().with(1, 1, None).with(2, 2, None);
        let mut state = state();
        let add = |state: &State, packs: &[u8], parents: &[SnapshotId]| {
            let reliance = Reliance {
                packs: &mut packs.iter().map(|n| pack_id(*n)),
                blobs: &mut blobs(packs),
                parents,
            };
            check_add_snapshot(state, &world, reliance)
        };
        assert_eq!(add(&state, &[1, 2], &[]), Ok(()));
        let parent = snapshot_id(1);
        let gone = Conflict::NoSuchSnapshot {
            snapshots: vec![parent],
        };
        assert_eq!(add(&state, &[1], &[parent]), Err(gone));
        assert!(matches!(
            add(&state, &[1, 3], &[]),
            Err(Conflict::Undecodable { blobs }) if blobs == [blob_id(3)]
        ));
        apply(&mut state, &Body::Sweep(sweep_of(&[2])));
        assert!(matches!(
            add(&state, &[1, 2], &[]),
            Err(Conflict::Swept { packs }) if packs == [pack_id(2)]
        ));
        assert_eq!(add(&state, &[1], &[]), Ok(()));
    }

    #[test]
    fn held_and_unknown_snapshots_are_not_removed_and_live_ones_not_swept() {
        let mut state = state();
        let id = snapshot_id(1);
        let add = crate::format::log_body::AddSnapshot {
            snapshot: id,
            indexes: vec![],
            base: 1,
        };
        apply(&mut state, &Body::AddSnapshot(add));
        let remove =
            |state: &State, by_record| check_remove_snapshots(state, &[id], &|_| by_record);
        let held = Err(Conflict::Held {
            snapshots: vec![id],
        });
        assert_eq!(remove(&state, false), Ok(()));
        assert_eq!(remove(&state, true), held);
        let annotate = |change| {
            Body::Annotate(Annotate {
                snapshots: vec![id],
                changes: vec![change],
            })
        };
        apply(&mut state, &annotate(Change::Release));
        assert_eq!(
            remove(&state, true),
            Ok(()),
            "the annotation has the last word"
        );
        apply(&mut state, &annotate(Change::Hold("audit".into())));
        assert_eq!(remove(&state, false), held);
        assert!(check_remove_snapshots(&state, &[snapshot_id(2)], &|_| false).is_err());
        let world = World::default();
        let mut sweep = sweep_of(&[]);
        sweep.snapshots = vec![id];
        let check = check_sweep(&state, &sweep, &world, &world, &mut blobs(&[]));
        assert!(matches!(check, Err(Conflict::Live { .. })));
        let back = check_restore_snapshots(&state, &world, &[id], &mut blobs(&[]));
        assert!(matches!(back, Err(Conflict::NoSuchSnapshot { .. })));
    }

    #[test]
    fn no_sweep_that_passes_loses_a_readable_blob_in_any_small_world() {
        // Two blobs, each copy whole or a delta against the other, in up to four packs; every
        // world, every pair of sweeps one after the other.
        let kinds = [
            None,
            Some((1, None)),
            Some((1, Some(2))),
            Some((2, None)),
            Some((2, Some(1))),
        ];
        let mut passed = 0;
        for world in 0..kinds.len().pow(4) {
            let mut copies = World::default();
            for pack in 0..4_u8 {
                let kind = kinds[world / kinds.len().pow(u32::from(pack)) % kinds.len()];
                if let Some((blob, base)) = kind {
                    copies = copies.with(blob, pack, base);
                }
            }
            for sweeps in 0..256_u32 {
                let mut state = state();
                for mask in [sweeps & 15, sweeps >> 4] {
                    let packs: Vec<u8> = (0..4).filter(|pack| mask >> pack & 1 == 1).collect();
                    let sweep = sweep_of(&packs);
                    let was: Vec<bool> = blobs(&[1, 2])
                        .map(|blob| can_read(&copies, &state.swept, blob))
                        .collect();
                    let reach = &mut blobs(&[1, 2]);
                    if check_sweep(&state, &sweep, &copies, &copies, reach).is_ok() {
                        apply(&mut state, &Body::Sweep(sweep));
                        passed += 1;
                    }
                    for (blob, was) in blobs(&[1, 2]).zip(was) {
                        let is = can_read(&copies, &state.swept, blob);
                        assert_eq!(is, was, "world {world}, sweeps {sweeps:08b}");
                    }
                }
            }
        }
        assert!(passed > 1000, "{passed}");
    }
}
