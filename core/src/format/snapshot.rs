//! A snapshot record: what was saved, when, by whom, from where.

use serde::{Deserialize, Serialize};
use strongroom_repo::{
    env::Timestamp,
    format::{
        DecodeError,
        record::{self, Ext},
    },
    id::{BlobId, RepoId, SnapshotId},
};

const WHAT: &str = "snapshot";

/// A snapshot record as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the backup started, or what `--time` said.
    pub time: Timestamp,
    /// Root page of the tree.
    pub tree: BlobId,
    /// Absolute paths that were saved, byte for byte.
    pub paths: Vec<Vec<u8>>,
    /// Name of the host.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// Their numeric id.
    pub uid: u32,
    /// Their group's numeric id.
    pub gid: u32,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// Exclude patterns as typed.
    pub excludes: Vec<String>,
    /// The snapshot that this one was compared with.
    pub parent: Option<SnapshotId>,
    /// The program, such as `strongroom 0.1.0`.
    pub program: String,
    /// What the backup met and stored.
    pub summary: Summary,
    /// Where a copy or a rewritten snapshot came from.
    pub origin: Option<Origin>,
}

/// What a backup met and stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// When the backup started.
    pub start: Timestamp,
    /// When the last file was stored.
    pub end: Timestamp,
    /// Files that the parent does not have.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files that are as in the parent.
    pub files_unmodified: u64,
    /// Directories that the parent does not have.
    pub dirs_new: u64,
    /// Directories that differ from the parent's.
    pub dirs_changed: u64,
    /// Directories that are as in the parent.
    pub dirs_unmodified: u64,
    /// New data blobs.
    pub data_blobs: u64,
    /// New tree blobs.
    pub tree_blobs: u64,
    /// Plain bytes of new blobs.
    pub data_added: u64,
    /// Bytes that they take in packs.
    pub data_added_packed: u64,
    /// All files.
    pub total_files: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Where a copied or rewritten snapshot came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The repository.
    pub repo: RepoId,
    /// Sequence number of its log entry there.
    pub sequence: u64,
    /// When that entry was written.
    pub first_seen: Timestamp,
}

impl Snapshot {
    /// The plain bytes of the record.
    ///
    /// # Errors
    /// As [`record::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        record::encode(self, &Ext::default(), WHAT)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (snapshot, _): (Self, Ext) = record::decode(bytes, WHAT)?;
        if snapshot.time.nanos >= 1_000_000_000 {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        Ok(snapshot)
    }
}

/// Body of the fuzz target: no bytes panic.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_snapshot(data: &[u8]) {
    if let Ok(snapshot) = Snapshot::decode(data) {
        let _ = snapshot.encode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let snapshot = Snapshot {
            time: Timestamp { secs: 10, nanos: 2 },
            tree: BlobId::new([7; 32]),
            paths: vec![b"/a\xff".to_vec()],
            host: "h".to_owned(),
            user: "u".to_owned(),
            uid: 1,
            gid: 2,
            tags: vec!["t".to_owned()],
            excludes: vec![],
            parent: None,
            program: "p".to_owned(),
            summary: Summary {
                total_bytes: 250,
                ..Summary::default()
            },
            origin: None,
        };
        let mut expected = vec![1, 20, 2];
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&[1, 3, b'/', b'a', 255, 1, b'h', 1, b'u', 1, 2, 1, 1, b't']);
        expected.extend_from_slice(&[0, 0, 1, b'p']);
        expected.extend_from_slice(&[0; 4 + 11]);
        expected.extend_from_slice(&[250, 0, 0]);
        let bytes = snapshot.encode().unwrap();
        assert_eq!(bytes, expected);
        assert_eq!(Snapshot::decode(&bytes), Ok(snapshot));
    }
}
