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
        let mut delta = None;
        let mut whole = None;
        self.copies.copies(blob, &mut |copy| {
            if self.counts(&copy) {
                match copy.base {
                    None => whole = Some(copy),
                    Some(base) => {
                        if delta.is_none() && self.whole(&base) {
                            delta = Some(copy);
                        }
                    }
                }
            }
            whole.is_none()
        });
        whole.or(delta)
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
