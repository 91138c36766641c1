//! Which packs may go. Pure: an index, what the log says, what is needed and what the store holds
//! go in, a [`PrunePlan`] comes out.
//!
//! A pack stays if it holds the only copy of a needed blob, good or bad. Of a blob with several
//! copies one stays: in a pack that stays anyway where there is one. A needed delta needs its base
//! whole. While runs go on, what they have stored and what they may take up stays too, so that
//! they need not begin anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    Reach,
    view::{copies_of, entries_of, pack_of},
};
use crate::{
    error::Result,
    id::{BlobId, IndexId, PackId, SnapshotId},
    index::{Found, Index},
    log::state::State,
};

/// What goes into a plan beside the index and the needed blobs.
pub(crate) struct Basis<'a> {
    /// The state of the log that the index belongs to.
    pub state: &'a State,
    /// The packs that the store shows, with their lengths.
    pub stored: &'a BTreeMap<PackId, u64>,
    /// The log entry after which the oldest run began that may go on; `None` where there is none.
    pub since: Option<u64>,
    /// Copies that turned out to be unreadable when a plan before wanted to rely on them.
    pub distrusted: &'a HashSet<(PackId, BlobId)>,
    /// Whether bases of needed deltas are needed: always, but in a test of what else would happen.
    pub keeps_bases: bool,
}

impl Basis<'_> {
    /// Whether what an index names is left to the runs that may go on.
    fn is_left(&self, index: &IndexId) -> bool {
        self.since
            .is_some_and(|since| self.state.awaits_snapshot(index, since))
    }
}

/// Counts of blobs and their sealed bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Amount {
    /// One more, of so many bytes.
    pub const fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// A pack that stays although not all of it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub pack: PackId,
    /// Sealed bytes of needed blobs.
    pub used: u64,
    /// Sealed bytes of blobs that nothing needs, or that another copy is kept of.
    pub unused: u64,
}

/// What a prune would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunePlan {
    /// Indexed packs that go, ascending.
    pub sweep: Vec<PackId>,
    /// Packs that no live index names and that were never swept: they go too, ascending.
    pub orphans: Vec<PackId>,
    /// Packs swept before that are still there: they are deleted without more ado.
    pub leftovers: Vec<PackId>,
    /// Such packs as `orphans` that stay, because a run may be at work on them.
    pub left_alone: Amount,
    /// Indexed packs of which no snapshot needs anything and that stay all the same, because a run
    /// that goes on may have stored them or take them up.
    pub awaited: Amount,
    /// Packs that stay with waste in them, ascending.
    pub partly_used: Vec<PackUse>,
    /// Index objects of which nothing stays.
    pub drop_indexes: Vec<IndexId>,
    /// Removed snapshots that can no longer be restored afterwards.
    pub snapshots: Vec<SnapshotId>,
    /// Packs that a snapshot needs and that are missing, or recorded as damaged: they stay.
    pub damaged: Amount,
    /// Copies that must be read before another copy of the same blob goes.
    pub(crate) verify: Vec<(BlobId, PackId)>,
    /// Indexed packs, with the bytes of the objects.
    pub packs: Amount,
    /// Needed copies.
    pub used: Amount,
    /// Copies of needed blobs beyond the one that is kept.
    pub duplicate: Amount,
    /// Copies that nothing needs.
    pub unused: Amount,
    /// What the indexed packs that go take.
    pub freed: Amount,
    /// What `orphans` and `leftovers` take.
    pub unreferenced: Amount,
    /// Waste in packs that stay.
    pub unused_left: u64,
    /// Whether any blob is stored as a delta.
    pub(crate) has_deltas: bool,
}

impl PrunePlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sweep.is_empty()
            && self.orphans.is_empty()
            && self.leftovers.is_empty()
            && self.drop_indexes.is_empty()
            && self.snapshots.is_empty()
    }

    /// Bytes that a prune gives back, small objects apart.
    #[must_use]
    pub const fn freed_bytes(&self) -> u64 {
        self.freed.bytes.saturating_add(self.unreferenced.bytes)
    }
}

/// Decides.
pub(crate) fn plan<R: Reach>(index: &Index, reach: &R, basis: &Basis<'_>) -> Result<PrunePlan> {
    let mut keepers = Keepers::new(index, basis);
    let mut plan = PrunePlan::default();
    for pack in index.packs() {
        if basis.is_left(&pack.index) {
            keepers.packs.insert(pack.id);
        }
        for entry in entries_of(index, &pack)? {
            plan.has_deltas |= entry.base.is_some();
            if reach.contains(&entry.id) {
                keepers.need(entry.id, false)?;
            }
        }
    }
    keepers.choose()?;
    sum_up(index, &keepers, &mut plan)?;
    plan.drop_indexes = dead_indexes(index, basis.state, &plan.sweep);
    plan.snapshots = basis.state.removed.keys().copied().collect();
    unreferenced(index, basis, &mut plan);
    Ok(plan)
}

/// The live index objects that name nothing which is left once `sweep` is gone.
pub(crate) fn dead_indexes(index: &Index, state: &State, sweep: &[PackId]) -> Vec<IndexId> {
    let stays = |pack: &PackId| !state.swept.contains(pack) && sweep.binary_search(pack).is_err();
    let needed: HashSet<IndexId> = index
        .packs()
        .filter(|pack| stays(&pack.id))
        .map(|pack| pack.index)
        .collect();
    let live = state.indexes.keys();
    live.filter(|id| !needed.contains(*id)).copied().collect()
}

/// Finds the packs of the store that nothing names.
fn unreferenced(index: &Index, basis: &Basis<'_>, plan: &mut PrunePlan) {
    for (pack, len) in basis.stored {
        if basis.state.swept.contains(pack) {
            plan.leftovers.push(*pack);
            plan.unreferenced.add(*len);
        } else if index.pack_by_id(pack).is_none() {
            if basis.since.is_some() {
                plan.left_alone.add(*len);
            } else {
                plan.orphans.push(*pack);
                plan.unreferenced.add(*len);
            }
        }
    }
}

fn sum_up(index: &Index, keepers: &Keepers<'_>, plan: &mut PrunePlan) -> Result<()> {
    for pack in index.packs() {
        plan.packs.add(pack.len);
        let (mut used, mut unused) = (0_u64, 0_u64);
        let mut seen = HashSet::new();
        for entry in entries_of(index, &pack)? {
            let len = u64::from(entry.sealed_len);
            if keepers.is_kept(&entry.id, &pack.id) && seen.insert(entry.id) {
                plan.used.add(len);
                used += len;
                continue;
            }
            unused += len;
            let several = keepers.several.contains_key(&entry.id) || seen.contains(&entry.id);
            if several {
                plan.duplicate.add(len);
            } else {
                plan.unused.add(len);
            }
        }
        if !keepers.packs.contains(&pack.id) {
            plan.freed.add(pack.len);
            plan.sweep.push(pack.id);
            continue;
        }
        plan.unused_left += unused;
        let is_there = keepers.basis.stored.contains_key(&pack.id);
        if used > 0 && (!is_there || keepers.damaged.contains(&pack.id)) {
            plan.damaged.add(pack.len);
        }
        if used == 0 && keepers.basis.is_left(&pack.index) {
            plan.awaited.add(pack.len);
        } else if unused > 0 {
            let pack = pack.id;
            plan.partly_used.push(PackUse { pack, used, unused });
        }
    }
    plan.sweep.sort_unstable();
    plan.partly_used.sort_unstable_by_key(|partly| partly.pack);
    for (blob, chosen) in &keepers.several {
        let Some(chosen) = chosen.pack else { continue };
        for copy in copies_of(index, blob)? {
            let goes = pack_of(index, &copy).is_some_and(|id| !keepers.packs.contains(&id));
            if goes {
                plan.verify.push((*blob, chosen));
                break;
            }
        }
    }
    plan.verify
        .sort_unstable_by_key(|(blob, pack)| (*pack, *blob));
    Ok(())
}

/// Which copy of a blob with several is kept.
#[derive(Clone, Copy, Default)]
struct Chosen {
    /// Only a whole copy will do.
    whole: bool,
    /// The pack of the copy, once it is chosen.
    pack: Option<PackId>,
}

/// The packs that must stay, as they are found out.
struct Keepers<'a> {
    index: &'a Index,
    basis: &'a Basis<'a>,
    /// Packs of which something was found bad.
    damaged: BTreeSet<PackId>,
    /// Packs that stay.
    packs: HashSet<PackId>,
    /// Needed blobs with one copy.
    single: HashSet<BlobId>,
    /// Needed blobs with several copies.
    several: HashMap<BlobId, Chosen>,
}

impl<'a> Keepers<'a> {
    fn new(index: &'a Index, basis: &'a Basis<'a>) -> Self {
        Self {
            index,
            basis,
            damaged: basis.state.bad.packs(),
            packs: HashSet::new(),
            single: HashSet::new(),
            several: HashMap::new(),
        }
    }

    /// Whether the copy of `blob` in `pack` is the one that is relied on.
    fn is_kept(&self, blob: &BlobId, pack: &PackId) -> bool {
        let chosen = self.several.get(blob).and_then(|chosen| chosen.pack);
        self.single.contains(blob) || chosen == Some(*pack)
    }

    /// Notes that a blob is needed; `whole` where a delta rests on it. Bases come along where no
    /// whole copy can be relied on.
    fn need(&mut self, blob: BlobId, whole: bool) -> Result<()> {
        let mut wanted = vec![(blob, whole)];
        while let Some((blob, whole)) = wanted.pop() {
            if let Some(chosen) = self.several.get_mut(&blob) {
                chosen.whole |= whole;
                continue;
            }
            if self.single.contains(&blob) {
                continue;
            }
            let copies = copies_of(self.index, &blob)?;
            let packs: BTreeSet<PackId> = copies
                .iter()
                .filter_map(|copy| pack_of(self.index, copy))
                .collect();
            let is_whole = |copy: &Found| copy.entry.base.is_none() && self.is_trusted(copy);
            if self.basis.keeps_bases && !copies.iter().any(is_whole) {
                // Which of the deltas stays is not known yet: all their bases may be needed.
                let bases = copies.iter().filter_map(|copy| copy.entry.base);
                wanted.extend(bases.map(|base| (base, true)));
            }
            if packs.len() <= 1 {
                self.single.insert(blob);
                self.packs.extend(packs);
            } else {
                self.several.insert(blob, Chosen { whole, pack: None });
            }
        }
        Ok(())
    }

    /// Whether nothing is known against a copy.
    fn is_trusted(&self, copy: &Found) -> bool {
        let basis = self.basis;
        pack_of(self.index, copy).is_some_and(|pack| {
            !basis.state.bad.contains(&pack, copy.entry.segment)
                && !basis.distrusted.contains(&(pack, copy.entry.id))
                && basis.stored.contains_key(&pack)
        })
    }

    /// Chooses a copy of every blob that has several, so that few packs stay.
    fn choose(&mut self) -> Result<()> {
        let mut blobs: Vec<BlobId> = self.several.keys().copied().collect();
        // The same plan from the same state, whatever the order of a hash table.
        blobs.sort_unstable();
        for blob in blobs {
            let whole = self.several.get(&blob).is_some_and(|chosen| chosen.whole);
            let mut best = None;
            let mut all = Vec::new();
            for copy in copies_of(self.index, &blob)? {
                let Some(pack) = pack_of(self.index, &copy) else {
                    continue;
                };
                all.push(pack);
                if !self.is_trusted(&copy) || (whole && copy.entry.base.is_some()) {
                    continue;
                }
                // A pack with damage in it goes as soon as nothing needs it.
                let is_doubtful = self.damaged.contains(&pack);
                let stays = self.packs.contains(&pack);
                let rank = (copy.entry.base.is_some(), is_doubtful, !stays, pack);
                if best.is_none_or(|before| rank < before) {
                    best = Some(rank);
                }
            }
            if let Some((.., pack)) = best {
                self.packs.insert(pack);
                self.several.insert(
                    blob,
                    Chosen {
                        whole,
                        pack: Some(pack),
                    },
                );
            } else {
                // No copy can be relied on: none goes.
                self.packs.extend(all);
            }
        }
        Ok(())
    }
}
