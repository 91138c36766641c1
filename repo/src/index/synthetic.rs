//! Index objects made up from numbers, as many as a test or a benchmark wants, for runs through
//! the real code without a repository.

use std::collections::BTreeSet;

use crate::{
    crypto::{BlobKind, SealHeader, SealKind},
    format::{
        index::{IndexBody, PackGroup},
        pack::BlobEntry,
        record::Ext,
    },
    id::{BlobId, EpochId, IndexId, PackId},
};

/// A made-up repository: so many index objects, each with so many packs of so many blobs.
#[derive(Clone, Copy, Debug)]
pub struct Synthetic {
    /// Index objects.
    pub objects: u32,
    /// Packs of each index object.
    pub packs: u32,
    /// Blobs of each pack.
    pub blobs: u32,
}

impl Synthetic {
    /// The ids of all index objects.
    #[must_use]
    pub fn live(&self) -> BTreeSet<IndexId> {
        (0..self.objects).map(Self::index_id).collect()
    }

    /// The id of an index object; it begins with its number.
    #[must_use]
    pub fn index_id(object: u32) -> IndexId {
        let mut id = hash(&[object]);
        if let Some(front) = id.first_chunk_mut() {
            *front = object.to_be_bytes();
        }
        IndexId::new(id)
    }

    /// The id of a blob, by the numbers of its index object, pack and place.
    #[must_use]
    pub fn blob_id(object: u32, pack: u32, blob: u32) -> BlobId {
        BlobId::new(hash(&[object, pack, blob]))
    }

    /// What an index object says.
    #[must_use]
    pub fn body(&self, id: IndexId) -> IndexBody {
        let [b0, b1, b2, b3, ..] = *id.as_bytes();
        let object = u32::from_be_bytes([b0, b1, b2, b3]);
        let packs = (0..self.packs).map(|pack| self.group(object, pack));
        IndexBody {
            packs: packs.collect(),
            ext: Ext::default(),
        }
    }

    fn group(&self, object: u32, pack: u32) -> PackGroup {
        const SEALED: u32 = 1 << 10;
        let header = SealHeader {
            kind: SealKind::Pack,
            epoch: EpochId::new([1; EpochId::LEN]),
            salt: hash(&[object, pack]),
            commit: [2; 32],
        };
        let start = 94;
        let entries = (0..self.blobs).map(|blob| BlobEntry {
            kind: BlobKind::Data,
            codec: 1,
            base: None,
            segment: blob,
            offset: start + blob * SEALED,
            sealed_len: SEALED,
            plain_len: 2 * SEALED,
            id: Self::blob_id(object, pack, blob),
        });
        PackGroup {
            id: PackId::new(hash(&[object, pack])),
            len: u64::from(start + (self.blobs + 1) * SEALED),
            header,
            entries: entries.collect(),
            ext: Ext::default(),
        }
    }
}

fn hash(numbers: &[u32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher.finalize().into()
}
