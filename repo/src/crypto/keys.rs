//! Key types and blob ids. The hierarchy stands in `docs/format-v1.md`, "Keys": a keyring holds
//! the [`Roots`]; every object is sealed under a key of its own derived from one of them.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    format::DecodeError,
    id::{BlobId, EpochId},
};

/// 32 secret bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes the bytes of a key.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives a key for `context` (BLAKE3 `derive_key` over this key and `suffix`).
    #[must_use]
    pub fn derive(&self, context: &str, suffix: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0).update(suffix);
        Self(hasher.finalize().into())
    }
}

/// A key with the epoch in which it is used for writing.
#[derive(Clone)]
pub struct EpochKey {
    /// Name of the epoch.
    pub epoch: EpochId,
    /// The root key of that epoch.
    pub key: SecretKey,
}

/// What a blob holds. Equal bytes of different kinds are different blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlobKind {
    /// File content.
    Data = 1,
    /// A piece of a directory.
    Tree = 2,
    /// A piece of a long list of extents.
    ExtentList = 3,
    /// A snapshot record, kept so that snapshots can be recovered from packs alone.
    Snapshot = 4,
}

impl BlobKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Data, Self::Tree, Self::ExtentList, Self::Snapshot];

    /// Whether blobs of this kind go into tree packs: everything but file content.
    #[must_use]
    pub const fn is_metadata(self) -> bool {
        !matches!(self, Self::Data)
    }
}

impl TryFrom<u8> for BlobKind {
    type Error = DecodeError;

    fn try_from(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            1 => Self::Data,
            2 => Self::Tree,
            3 => Self::ExtentList,
            4 => Self::Snapshot,
            _ => {
                return Err(DecodeError::UnknownTag {
                    what: "blob kind",
                    tag: u64::from(byte),
                });
            }
        })
    }
}

/// The keys of a repository's owner or reader, out of its keyring.
#[derive(Clone)]
pub struct Roots {
    cdc: SecretKey,
    id: SecretKey,
    id_keys: [SecretKey; 4],
    meta: Vec<EpochKey>,
    data: Vec<EpochKey>,
}

impl Roots {
    /// Assembles the roots; the last epoch of each list is the one that is written with.
    #[must_use]
    pub fn new(id: SecretKey, cdc: SecretKey, meta: Vec<EpochKey>, data: Vec<EpochKey>) -> Self {
        let id_keys = BlobKind::ALL.map(|kind| id.derive("strongroom v1 id", &[kind as u8]));
        Self {
            cdc,
            id,
            id_keys,
            meta,
            data,
        }
    }

    /// The id of a blob: BLAKE3 of its plain bytes under a key of its kind.
    #[must_use]
    pub fn blob_id(&self, kind: BlobKind, plain: &[u8]) -> BlobId {
        let [data, tree, extents, snapshot] = &self.id_keys;
        let key = match kind {
            BlobKind::Data => data,
            BlobKind::Tree => tree,
            BlobKind::ExtentList => extents,
            BlobKind::Snapshot => snapshot,
        };
        BlobId::new(blake3::keyed_hash(key.expose(), plain).into())
    }

    /// The key of blob ids, for the keyring alone.
    pub(crate) const fn id_root(&self) -> &SecretKey {
        &self.id
    }

    /// The key of the chunker.
    #[must_use]
    pub const fn chunker_key(&self) -> &SecretKey {
        &self.cdc
    }

    /// The epochs of metadata keys, oldest first.
    pub(crate) fn meta_epochs(&self) -> &[EpochKey] {
        &self.meta
    }

    /// The epochs of data keys, oldest first.
    pub(crate) fn data_epochs(&self) -> &[EpochKey] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_of_different_kinds_have_different_ids() {
        let roots = Roots::new(
            SecretKey::new([1; 32]),
            SecretKey::new([2; 32]),
            vec![],
            vec![],
        );
        let ids = BlobKind::ALL.map(|kind| roots.blob_id(kind, b"same"));
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[at + 1..].contains(id));
        }
        assert_eq!(
            ids[0].to_hex(),
            {
                let key = blake3::derive_key("strongroom v1 id", &[&[1; 32][..], &[1]].concat());
                blake3::keyed_hash(&key, b"same").to_hex().to_string()
            },
            "derived as the format says"
        );
    }
}
