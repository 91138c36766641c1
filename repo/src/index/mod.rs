//! Where blobs are: the merged view of all live index objects. Answers "is this blob known, and
//! where does it lie", and lists what packs hold. Entries of swept packs are never in it.

use std::collections::{HashMap, HashSet};

use crate::{
    crypto::SealHeader,
    format::{index::IndexBody, pack::BlobEntry},
    id::{BlobId, IndexId, PackId},
};

/// Number of a pack inside one [`Index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackNumber(u32);

/// What the index knows of a pack.
#[derive(Clone, Debug)]
pub struct PackInfo {
    /// The pack.
    pub id: PackId,
    /// Length of the pack object.
    pub len: u64,
    /// Its sealing header.
    pub header: SealHeader,
    /// The index object that says so.
    pub index: IndexId,
    /// Its blobs, by offset.
    pub entries: Vec<BlobEntry>,
}

/// A copy of a blob.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The pack that holds it.
    pub pack: PackNumber,
    /// Where in the pack, and how to open it.
    pub entry: BlobEntry,
}

/// The merged view.
#[derive(Clone, Debug, Default)]
pub struct Index {
    packs: Vec<PackInfo>,
    by_id: HashMap<PackId, PackNumber>,
    blobs: HashMap<BlobId, Vec<(PackNumber, u32)>>,
}

impl Index {
    /// Adds what an index object says, but for packs in `swept`. A pack that is known already is
    /// passed over.
    pub fn add(&mut self, object: IndexId, body: IndexBody, swept: &HashSet<PackId>) {
        for group in body.packs {
            if swept.contains(&group.id) || self.by_id.contains_key(&group.id) {
                continue;
            }
            let Ok(number) = u32::try_from(self.packs.len()) else {
                return;
            };
            let number = PackNumber(number);
            for (at, entry) in (0_u32..).zip(&group.entries) {
                self.blobs.entry(entry.id).or_default().push((number, at));
            }
            self.by_id.insert(group.id, number);
            self.packs.push(PackInfo {
                id: group.id,
                len: group.len,
                header: group.header,
                index: object,
                entries: group.entries,
            });
        }
    }

    /// A copy of the blob, one that is no delta where there is a choice.
    #[must_use]
    pub fn find(&self, id: &BlobId) -> Option<Found> {
        let mut first = None;
        for found in self.copies(id) {
            if found.entry.base.is_none() {
                return Some(found);
            }
            first = first.or(Some(found));
        }
        first
    }

    /// All copies of the blob.
    pub fn copies(&self, id: &BlobId) -> impl Iterator<Item = Found> {
        self.blobs
            .get(id)
            .into_iter()
            .flatten()
            .filter_map(|(pack, at)| {
                let entries = &self.pack(*pack)?.entries;
                let at = usize::try_from(*at).ok()?;
                Some(Found {
                    pack: *pack,
                    entry: *entries.get(at)?,
                })
            })
    }

    /// What is known of a pack.
    #[must_use]
    pub fn pack(&self, number: PackNumber) -> Option<&PackInfo> {
        self.packs.get(usize::try_from(number.0).ok()?)
    }

    /// What is known of a pack, by its id.
    #[must_use]
    pub fn pack_by_id(&self, id: &PackId) -> Option<&PackInfo> {
        self.pack(*self.by_id.get(id)?)
    }

    /// All packs.
    pub fn packs(&self) -> impl Iterator<Item = &PackInfo> {
        self.packs.iter()
    }

    /// Number of different blobs.
    #[must_use]
    pub fn blob_count(&self) -> usize {
        self.blobs.len()
    }

    /// All different blobs, in no order.
    pub fn blob_ids(&self) -> impl Iterator<Item = &BlobId> {
        self.blobs.keys()
    }
}
