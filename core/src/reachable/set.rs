//! The set of reachable blobs, shared by all workers of a walk.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Mutex,
};

use strongroom_repo::id::BlobId;

use super::lock;

/// Shards of the set.
const SHARDS: usize = 64;

/// Blob ids are keyed hashes: any eight bytes of one are as good as a hash of it.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.as_chunks::<8>().0 {
            self.0 = self.0.rotate_left(23) ^ u64::from_le_bytes(*chunk);
        }
    }
}

type Blobs = HashMap<BlobId, u32, BuildHasherDefault<IdHasher>>;

/// The blobs that snapshots reach, and for data its length as the trees have it.
#[derive(Default)]
pub struct Reachable {
    shards: Vec<Mutex<Blobs>>,
}

impl Reachable {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Whether a blob is reached.
    #[must_use]
    pub fn contains(&self, id: &BlobId) -> bool {
        self.shard(id)
            .is_some_and(|shard| lock(shard).contains_key(id))
    }

    /// Number of blobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether nothing is reached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `each` for every blob, with its length where it is data and 0 otherwise. No lock is
    /// held meanwhile: `each` may ask for other blobs.
    pub fn for_each(&self, each: &mut dyn FnMut(&BlobId, u32)) {
        for shard in &self.shards {
            let blobs: Vec<_> = lock(shard).iter().map(|(id, len)| (*id, *len)).collect();
            for (id, len) in blobs {
                each(&id, len);
            }
        }
    }

    /// Adds a blob; what was known of it, if it was known.
    pub(super) fn add(&self, id: &BlobId, len: u32) -> Option<u32> {
        let shard = self.shard(id)?;
        match lock(shard).entry(*id) {
            std::collections::hash_map::Entry::Occupied(known) => Some(*known.get()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(len);
                None
            }
        }
    }

    fn shard(&self, id: &BlobId) -> Option<&Mutex<Blobs>> {
        let [.., last] = id.as_bytes();
        self.shards.get(usize::from(*last) % SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_goes_through_the_set_may_ask_it() {
        let reachable = Reachable::new();
        let ids: Vec<_> = (0..200_u8).map(|at| BlobId::new([at; 32])).collect();
        for id in &ids {
            assert_eq!(reachable.add(id, 1), None);
        }
        let mut pairs = 0;
        reachable.for_each(&mut |_, _| {
            pairs += ids.iter().filter(|id| reachable.contains(id)).count();
        });
        assert_eq!(pairs, ids.len() * ids.len());
    }
}
