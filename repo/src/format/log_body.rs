//! The bodies of log entries, one record per [`EntryKind`]. What an entry means for the
//! repository is decided in [`log::state`](crate::log); here is only what it says.
//!
//! `Genesis`, `KeyChange` and `Void` are plain, the others are sealed with the metadata key.
//! Index objects and snapshots are named by id; where they stand inside the entry, a part of the
//! head has the same hash.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    DecodeError,
    log::EntryKind,
    record::{self, Ext},
};
use crate::{
    crypto::PublicIdentity,
    id::{DomainId, Hash, IndexId, PackId, RepoId, RunId, SlotId, SnapshotId},
};

const WHAT: &str = "log body";

/// Most packs that one sweep may name; a longer list is several sweeps.
pub const MAX_SWEEP_PACKS: usize = 1000;

/// What a slot may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Role {
    /// Everything.
    Owner = 1,
    /// Reads.
    Reader = 2,
    /// Adds packs and snapshots.
    Writer = 3,
    /// Removes snapshots and packs.
    Maintenance = 4,
    /// Says which packs are good.
    Verifier = 5,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [
        Self::Owner,
        Self::Reader,
        Self::Writer,
        Self::Maintenance,
        Self::Verifier,
    ];

    /// Whether entries of `kind` by this role count.
    #[must_use]
    pub const fn may_write(self, kind: EntryKind) -> bool {
        match kind {
            EntryKind::AddPacks | EntryKind::AddSnapshot => {
                matches!(self, Self::Owner | Self::Writer)
            }
            EntryKind::RemoveSnapshots
            | EntryKind::RestoreSnapshots
            | EntryKind::Sweep
            | EntryKind::SweepDone
            | EntryKind::ReplaceSnapshots
            | EntryKind::Annotate => matches!(self, Self::Owner | Self::Maintenance),
            EntryKind::Attest => matches!(self, Self::Owner | Self::Verifier),
            EntryKind::Genesis
            | EntryKind::KeyChange
            | EntryKind::ConfigChange
            | EntryKind::Void => matches!(self, Self::Owner),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Maintenance => "maintenance",
            Self::Verifier => "verifier",
        })
    }
}

impl From<Role> for u8 {
    fn from(role: Role) -> Self {
        role as Self
    }
}

impl TryFrom<u8> for Role {
    type Error = DecodeError;

    fn try_from(byte: u8) -> Result<Self, DecodeError> {
        let role = Self::ALL.into_iter().find(|role| *role as u8 == byte);
        role.ok_or(DecodeError::UnknownTag {
            what: "role",
            tag: u64::from(byte),
        })
    }
}

/// A live slot, as `Genesis` and `KeyChange` list it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotKeys {
    /// Its identity.
    pub slot: SlotId,
    /// What it may do: a [`Role`], kept as a number so that an unknown one can be named.
    pub role: u8,
    /// Its X25519 public key, to which keyrings are wrapped.
    pub x25519: [u8; 32],
    /// Its Ed25519 public key, with which its entries are verified.
    pub ed25519: [u8; 32],
}

impl SlotKeys {
    /// The slot id that these keys have.
    #[must_use]
    pub fn identity(&self) -> SlotId {
        let (wrap, sign) = (self.x25519, self.ed25519);
        PublicIdentity { wrap, sign }.slot_id()
    }
}

/// Who may do what from here on; the body of `Genesis` and `KeyChange`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyList {
    /// The repository.
    pub repo: RepoId,
    /// The domain of keys and blob ids.
    pub domain: DomainId,
    /// Number of the keyring object to open.
    pub keyring: u64,
    /// BLAKE3 of the inner bytes of that object.
    pub keyring_hash: Hash,
    /// The live slots.
    pub slots: Vec<SlotKeys>,
}

/// Packs that are stored and indexed, so that an interrupted backup finds them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddPacks {
    /// The index objects that list them.
    pub indexes: Vec<IndexId>,
}

/// A new snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddSnapshot {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Index objects that become live with it, if they are not yet.
    pub indexes: Vec<IndexId>,
    /// The entry that the backup started from.
    pub base: u64,
}

/// Snapshots, by id; the body of `RemoveSnapshots` and `RestoreSnapshots`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// The snapshots.
    pub snapshots: Vec<SnapshotId>,
}

/// What may be deleted once the entry is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// The run that planned it.
    pub plan: RunId,
    /// Packs given up for ever, at most [`MAX_SWEEP_PACKS`].
    pub packs: Vec<PackId>,
    /// Index objects that stop being live.
    pub drop_indexes: Vec<IndexId>,
    /// Index objects that become live in their place.
    pub add_indexes: Vec<IndexId>,
    /// Removed snapshots that can no longer be restored.
    pub snapshots: Vec<SnapshotId>,
}

/// The end of a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepDone {
    /// Sequence number of the `Sweep` whose deletions are done.
    pub sweep: u64,
}

/// One change to what is noted about a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A tag added.
    AddTag(String),
    /// A tag taken away.
    RemoveTag(String),
    /// Kept whatever retention says, for the given reason.
    Hold(String),
    /// No longer held.
    Release,
    /// Read back and found whole; how thoroughly.
    Verified(String),
    /// A remark, in place of any before.
    Note(String),
}

/// Changes to what is noted about snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotate {
    /// The snapshots.
    pub snapshots: Vec<SnapshotId>,
    /// The changes, applied in order to each.
    pub changes: Vec<Change>,
}

/// Snapshots put in the place of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceSnapshots {
    /// Old and new ids.
    pub pairs: Vec<(SnapshotId, SnapshotId)>,
    /// Index objects that become live with the new ones.
    pub indexes: Vec<IndexId>,
}

/// A new configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// The whole new body of the configuration, a record.
    pub config: Vec<u8>,
}

/// What was found out about segments of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The pack.
    pub pack: PackId,
    /// The segments; none means the whole pack.
    pub segments: Vec<u32>,
    /// Whether they are good.
    pub good: bool,
}

/// Packs found good or bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// What was found.
    pub findings: Vec<Finding>,
}

/// Damaged entries passed over: the ones right before this entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Void {
    /// Hash of the last entry that counts, before the damaged ones.
    pub before: Hash,
    /// BLAKE3 of the raw objects passed over, in order; the last is also the entry's `prev`.
    pub raw: Vec<Hash>,
}

/// The body of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the kind of the same name")]
pub enum Body {
    Genesis(KeyList),
    AddPacks(AddPacks),
    AddSnapshot(AddSnapshot),
    RemoveSnapshots(Snapshots),
    RestoreSnapshots(Snapshots),
    Sweep(Sweep),
    SweepDone(SweepDone),
    Annotate(Annotate),
    ReplaceSnapshots(ReplaceSnapshots),
    KeyChange(KeyList),
    ConfigChange(ConfigChange),
    Attest(Attest),
    Void(Void),
}

type WireChange = (u8, String);
type WireAnnotate = (Vec<SnapshotId>, Vec<WireChange>);
type WireFinding = (PackId, Vec<u32>, u8);

impl Body {
    /// The kind of entry that this is the body of.
    #[must_use]
    pub const fn kind(&self) -> EntryKind {
        match self {
            Self::Genesis(_) => EntryKind::Genesis,
            Self::AddPacks(_) => EntryKind::AddPacks,
            Self::AddSnapshot(_) => EntryKind::AddSnapshot,
            Self::RemoveSnapshots(_) => EntryKind::RemoveSnapshots,
            Self::RestoreSnapshots(_) => EntryKind::RestoreSnapshots,
            Self::Sweep(_) => EntryKind::Sweep,
            Self::SweepDone(_) => EntryKind::SweepDone,
            Self::Annotate(_) => EntryKind::Annotate,
            Self::ReplaceSnapshots(_) => EntryKind::ReplaceSnapshots,
            Self::KeyChange(_) => EntryKind::KeyChange,
            Self::ConfigChange(_) => EntryKind::ConfigChange,
            Self::Attest(_) => EntryKind::Attest,
            Self::Void(_) => EntryKind::Void,
        }
    }

    /// The record of this body.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] where it names more than one entry may.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        fn put<T: Serialize>(fields: &T) -> Result<Vec<u8>, DecodeError> {
            record::encode(fields, &Ext::default(), WHAT)
        }
        match self {
            Self::Genesis(body) | Self::KeyChange(body) => put(body),
            Self::AddPacks(body) => put(body),
            Self::AddSnapshot(body) => put(body),
            Self::RemoveSnapshots(body) | Self::RestoreSnapshots(body) => put(body),
            Self::Sweep(body) => {
                check_sweep_len(body)?;
                put(body)
            }
            Self::SweepDone(body) => put(body),
            Self::Annotate(body) => put(&to_wire_annotate(body)),
            Self::ReplaceSnapshots(body) => put(body),
            Self::ConfigChange(body) => put(body),
            Self::Attest(body) => put(&to_wire_findings(body)),
            Self::Void(body) => put(body),
        }
    }

    /// Reads the record of a body of `kind`.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but one canonical record.
    pub fn decode(kind: EntryKind, bytes: &[u8]) -> Result<Self, DecodeError> {
        fn take<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
            record::decode(bytes, WHAT).map(|(fields, _)| fields)
        }
        Ok(match kind {
            EntryKind::Genesis => Self::Genesis(take(bytes)?),
            EntryKind::AddPacks => Self::AddPacks(take(bytes)?),
            EntryKind::AddSnapshot => Self::AddSnapshot(take(bytes)?),
            EntryKind::RemoveSnapshots => Self::RemoveSnapshots(take(bytes)?),
            EntryKind::RestoreSnapshots => Self::RestoreSnapshots(take(bytes)?),
            EntryKind::Sweep => {
                let body = take(bytes)?;
                check_sweep_len(&body)?;
                Self::Sweep(body)
            }
            EntryKind::SweepDone => Self::SweepDone(take(bytes)?),
            EntryKind::Annotate => Self::Annotate(from_wire_annotate(take(bytes)?)?),
            EntryKind::ReplaceSnapshots => Self::ReplaceSnapshots(take(bytes)?),
            EntryKind::KeyChange => Self::KeyChange(take(bytes)?),
            EntryKind::ConfigChange => Self::ConfigChange(take(bytes)?),
            EntryKind::Attest => Self::Attest(from_wire_findings(take(bytes)?)?),
            EntryKind::Void => Self::Void(take(bytes)?),
        })
    }
}

fn check_sweep_len(sweep: &Sweep) -> Result<(), DecodeError> {
    if sweep.packs.len() <= MAX_SWEEP_PACKS {
        return Ok(());
    }
    Err(DecodeError::OutOfRange {
        what: "number of packs in a sweep",
        value: u64::try_from(sweep.packs.len()).unwrap_or(u64::MAX),
    })
}

fn to_wire_annotate(body: &Annotate) -> WireAnnotate {
    let change = |change: &Change| match change {
        Change::AddTag(text) => (1, text.clone()),
        Change::RemoveTag(text) => (2, text.clone()),
        Change::Hold(text) => (3, text.clone()),
        Change::Release => (4, String::new()),
        Change::Verified(text) => (5, text.clone()),
        Change::Note(text) => (6, text.clone()),
    };
    let changes = body.changes.iter().map(change).collect();
    (body.snapshots.clone(), changes)
}

fn from_wire_annotate((snapshots, changes): WireAnnotate) -> Result<Annotate, DecodeError> {
    let change = |(tag, text): WireChange| {
        Ok(match tag {
            1 => Change::AddTag(text),
            2 => Change::RemoveTag(text),
            3 => Change::Hold(text),
            4 if text.is_empty() => Change::Release,
            4 => return Err(DecodeError::Malformed { what: WHAT }),
            5 => Change::Verified(text),
            6 => Change::Note(text),
            _ => {
                return Err(DecodeError::UnknownTag {
                    what: "annotation",
                    tag: u64::from(tag),
                });
            }
        })
    };
    let changes = changes.into_iter().map(change).collect::<Result<_, _>>()?;
    Ok(Annotate { snapshots, changes })
}

fn to_wire_findings(body: &Attest) -> Vec<WireFinding> {
    let finding = |f: &Finding| (f.pack, f.segments.clone(), if f.good { 1 } else { 2 });
    body.findings.iter().map(finding).collect()
}

fn from_wire_findings(findings: Vec<WireFinding>) -> Result<Attest, DecodeError> {
    let finding = |(pack, segments, verdict): WireFinding| {
        let good = match verdict {
            1 => true,
            2 => false,
            _ => {
                return Err(DecodeError::UnknownTag {
                    what: "attested verdict",
                    tag: u64::from(verdict),
                });
            }
        };
        Ok(Finding {
            pack,
            segments,
            good,
        })
    };
    let findings = findings
        .into_iter()
        .map(finding)
        .collect::<Result<_, _>>()?;
    Ok(Attest { findings })
}

/// Body of the fuzz target: no input panics, and what decodes has exactly one encoding unless it
/// carries extensions, which are not kept.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_log_body(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let Ok(kind) = EntryKind::try_from(*kind) else {
        return;
    };
    if let Ok(body) = Body::decode(kind, bytes) {
        let again = body.encode();
        assert_eq!(
            again.and_then(|again| Body::decode(kind, &again)),
            Ok(body),
            "a body survives writing and reading"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Body> {
        let snapshot = SnapshotId::new([1; 32]);
        let index = IndexId::new([2; 32]);
        let pack = PackId::new([3; 32]);
        let keys = KeyList {
            repo: RepoId::new([4; 16]),
            domain: DomainId::new([5; 16]),
            keyring: 1,
            keyring_hash: [6; 32],
            slots: vec![SlotKeys {
                slot: SlotId::new([7; 32]),
                role: 1,
                x25519: [8; 32],
                ed25519: [9; 32],
            }],
        };
        let snapshots = Snapshots {
            snapshots: vec![snapshot],
        };
        vec![
            Body::Genesis(keys.clone()),
            Body::AddPacks(AddPacks {
                indexes: vec![index],
            }),
            Body::AddSnapshot(AddSnapshot {
                snapshot,
                indexes: vec![index],
                base: 300,
            }),
            Body::RemoveSnapshots(snapshots.clone()),
            Body::RestoreSnapshots(snapshots),
            Body::Sweep(Sweep {
                plan: RunId::new([10; 16]),
                packs: vec![pack],
                drop_indexes: vec![index],
                add_indexes: vec![],
                snapshots: vec![snapshot],
            }),
            Body::SweepDone(SweepDone { sweep: 9 }),
            Body::Annotate(Annotate {
                snapshots: vec![snapshot],
                changes: vec![
                    Change::AddTag("a".into()),
                    Change::RemoveTag("b".into()),
                    Change::Hold("c".into()),
                    Change::Release,
                    Change::Verified("d".into()),
                    Change::Note("e".into()),
                ],
            }),
            Body::ReplaceSnapshots(ReplaceSnapshots {
                pairs: vec![(snapshot, SnapshotId::new([11; 32]))],
                indexes: vec![],
            }),
            Body::KeyChange(keys),
            Body::ConfigChange(ConfigChange {
                config: vec![1, 2, 3],
            }),
            Body::Attest(Attest {
                findings: vec![Finding {
                    pack,
                    segments: vec![4, 5],
                    good: false,
                }],
            }),
            Body::Void(Void {
                before: [12; 32],
                raw: vec![[13; 32]],
            }),
        ]
    }

    #[test]
    fn every_kind_survives_writing_and_reading_and_no_cut_is_accepted() {
        let samples = samples();
        assert_eq!(samples.len(), EntryKind::ALL.len());
        for body in samples {
            let bytes = body.encode().unwrap();
            assert_eq!(Body::decode(body.kind(), &bytes), Ok(body.clone()));
            for len in 0..bytes.len() {
                assert!(Body::decode(body.kind(), &bytes[..len]).is_err());
            }
            for bit in 0..bytes.len() * 8 {
                let mut bent = vec![body.kind() as u8];
                bent.extend_from_slice(&bytes);
                bent[1 + bit / 8] ^= 1 << (bit % 8);
                fuzz_log_body(&bent);
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let mut hasher = blake3::Hasher::new();
        for body in samples() {
            hasher.update(&body.encode().unwrap());
        }
        assert_eq!(
            hasher.finalize().to_hex().as_str(),
            "1c00761ae1061c1d95e83406b0cc0c969df633b4355daad557f2b6d01e4f0e12",
            "the bytes of all bodies are the format"
        );
        let done = Body::SweepDone(SweepDone { sweep: 300 });
        assert_eq!(done.encode().unwrap(), [1, 251, 44, 1, 0]);
        let finding = Finding {
            pack: PackId::new([3; 32]),
            segments: vec![7],
            good: true,
        };
        let attest = Body::Attest(Attest {
            findings: vec![finding],
        });
        let expected = [&[1, 1][..], &[3; 32], &[1, 7, 1, 0]].concat();
        assert_eq!(attest.encode().unwrap(), expected);
    }

    #[test]
    fn unknown_roles_annotations_and_verdicts_are_refused_as_such() {
        assert!(matches!(
            Role::try_from(6),
            Err(DecodeError::UnknownTag { tag: 6, .. })
        ));
        let annotate: WireAnnotate = (vec![], vec![(7, String::new())]);
        let bytes = record::encode(&annotate, &Ext::default(), WHAT).unwrap();
        assert!(matches!(
            Body::decode(EntryKind::Annotate, &bytes),
            Err(DecodeError::UnknownTag { tag: 7, .. })
        ));
        let findings: Vec<WireFinding> = vec![(PackId::new([0; 32]), vec![], 3)];
        let bytes = record::encode(&findings, &Ext::default(), WHAT).unwrap();
        assert!(matches!(
            Body::decode(EntryKind::Attest, &bytes),
            Err(DecodeError::UnknownTag { tag: 3, .. })
        ));
    }

    #[test]
    fn a_sweep_of_too_many_packs_is_refused() {
        let sweep = |count| {
            Body::Sweep(Sweep {
                plan: RunId::new([0; 16]),
                packs: vec![PackId::new([0; 32]); count],
                drop_indexes: vec![],
                add_indexes: vec![],
                snapshots: vec![],
            })
        };
        assert!(sweep(MAX_SWEEP_PACKS).encode().is_ok());
        assert!(sweep(MAX_SWEEP_PACKS + 1).encode().is_err());
    }

    #[test]
    fn who_may_write_what() {
        use EntryKind as K;
        let may = |role: Role| K::ALL.map(|kind| role.may_write(kind));
        assert_eq!(may(Role::Owner), [true; 13]);
        assert_eq!(may(Role::Reader), [false; 13]);
        let only = |kinds: &[K]| K::ALL.map(|kind| kinds.contains(&kind));
        assert_eq!(may(Role::Writer), only(&[K::AddPacks, K::AddSnapshot]));
        assert_eq!(may(Role::Verifier), only(&[K::Attest]));
        assert_eq!(
            may(Role::Maintenance),
            only(&[
                K::RemoveSnapshots,
                K::RestoreSnapshots,
                K::Sweep,
                K::SweepDone,
                K::Annotate,
                K::ReplaceSnapshots
            ])
        );
    }
}
