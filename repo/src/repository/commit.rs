//! How snapshots and indexes come to exist. The order is invariant 1 of docs/invariants.md: packs
//! durable, index durable, snapshot durable, one log entry.

use std::{collections::BTreeSet, sync::PoisonError};

use super::{Repository, create::read_back};
use crate::{
    backend::{ObjectKind, ObjectName, PutOutcome},
    codec::Hint,
    crypto::{BlobKind, SealKind, seal_object},
    error::{Error, Result},
    format::{
        DecodeError,
        frame::{self, FrameKind},
        index::{IndexBody, PackGroup},
        log::{EntryKind, Part, PartKind},
        log_body::{AddPacks, AddSnapshot, Body, Snapshots},
        record::Ext,
    },
    id::{IndexId, PackId, SnapshotId},
    index::Index,
    limits::MAX_INLINE_PART,
    log::{
        Draft,
        check::{
            Conflict, check_add_packs, check_parents, check_relied_packs, check_remove_snapshots,
        },
        state::State,
    },
    mutant::Mutant,
    writer::{WorkBench, Writer},
};

/// Packs in one index object: keeps each well below the largest metadata object.
const PACKS_PER_INDEX: usize = 4096;
/// Blobs in one index object, likewise.
const BLOBS_PER_INDEX: usize = 400_000;

/// A snapshot about to be.
pub struct NewSnapshot<'a> {
    /// The plain bytes of its record.
    pub record: &'a [u8],
    /// The snapshot whose trees are reused whole, if any.
    pub parent: Option<SnapshotId>,
    /// The log's tail when the backup began.
    pub base: u64,
}

impl Repository {
    /// The number of the last log entry known here: the base of a backup that begins now.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.log().state().head.seq
    }

    /// Indexes what is durable so far, so that an interrupted run is taken up by the next one.
    ///
    /// # Errors
    /// The store or the log failed; a pack of this run was swept.
    pub fn checkpoint(&self, writer: &Writer) -> Result<()> {
        self.index_groups(writer.take_durable())
    }

    /// Ends a run without a snapshot: stores what is still open and indexes it, so that the next
    /// run finds it.
    ///
    /// # Errors
    /// As [`Repository::checkpoint`].
    pub fn keep(&self, writer: &Writer, bench: &mut WorkBench) -> Result<()> {
        self.index_groups(writer.flush(bench)?)
    }

    pub(super) fn index_groups(&self, groups: Vec<PackGroup>) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        self.backend.barrier(ObjectKind::Pack)?;
        let mut indexes = Vec::new();
        for body in index_bodies(groups) {
            let (id, object) = self.seal_index(&body)?;
            self.put_index(id, &object)?;
            indexes.push((id, body));
        }
        self.backend.barrier(ObjectKind::Index)?;
        let packs: Vec<PackId> = indexes
            .iter()
            .flat_map(|(_, body)| body.packs.iter().map(|pack| pack.id))
            .collect();
        let ids: Vec<IndexId> = indexes.iter().map(|(id, _)| *id).collect();
        self.log()
            .append(EntryKind::AddPacks, &mut |state: &State| {
                check_add_packs(state, &mut packs.iter().copied())?;
                Ok::<_, Conflict>(Draft::from(Body::AddPacks(AddPacks {
                    indexes: ids.clone(),
                })))
            })?;
        self.extend_index(indexes);
        Ok(())
    }

    /// Ends a backup: stores what is still open and appends the snapshot. After an error the
    /// snapshot does not exist, but for [`crate::log::LogError::Uncertain`].
    ///
    /// # Errors
    /// [`Error::Conflict`] where something the snapshot relies on was swept meanwhile; the store
    /// or the log failed.
    pub fn commit(
        &self,
        writer: &Writer,
        bench: &mut WorkBench,
        new: &NewSnapshot<'_>,
    ) -> Result<SnapshotId> {
        writer
            .put(bench, BlobKind::Snapshot, Hint::Plain, new.record)
            .map_err(|error| writer.cause(error))?;
        let groups = writer.flush(bench)?;
        self.backend.barrier(ObjectKind::Pack)?;
        let mut parts = Vec::new();
        let mut indexes = Vec::new();
        for body in index_bodies(groups) {
            let (id, object) = self.seal_index(&body)?;
            if parts.is_empty() && fits_inline(&object) {
                parts.push(Part {
                    kind: PartKind::Index,
                    bytes: object,
                });
            } else {
                self.put_index(id, &object)?;
            }
            indexes.push((id, body));
        }
        self.backend.barrier(ObjectKind::Index)?;
        let snapshot = self.store_snapshot(new.record, &mut parts)?;
        self.append_snapshot(writer, new, snapshot, &indexes, parts)?;
        self.extend_index(indexes);
        self.remember();
        Ok(snapshot)
    }

    /// Seals a snapshot record; as an inline part where it is small, as an object otherwise.
    fn store_snapshot(&self, record: &[u8], parts: &mut Vec<Part>) -> Result<SnapshotId> {
        let inner = self.seal(SealKind::Snapshot, record)?;
        let id = SnapshotId::new(blake3::hash(&inner).into());
        if fits_inline(&inner) {
            parts.push(Part {
                kind: PartKind::Snapshot,
                bytes: inner,
            });
            return Ok(id);
        }
        let object = frame::encode(FrameKind::Snapshot, &inner, &[])?;
        self.put_named(&ObjectName::Snapshot(id), &object)?;
        self.backend.barrier(ObjectKind::Snapshot)?;
        Ok(id)
    }

    fn append_snapshot(
        &self,
        writer: &Writer,
        new: &NewSnapshot<'_>,
        snapshot: SnapshotId,
        indexes: &[(IndexId, IndexBody)],
        parts: Vec<Part>,
    ) -> Result<()> {
        let ours = indexes
            .iter()
            .flat_map(|(_, body)| body.packs.iter().map(|pack| pack.id));
        let mut packs: BTreeSet<PackId> = writer.relied_packs().into_iter().collect();
        packs.extend(ours);
        let body = AddSnapshot {
            snapshot,
            indexes: indexes.iter().map(|(id, _)| *id).collect(),
            base: new.base,
        };
        let mut asked = false;
        self.log()
            .append(EntryKind::AddSnapshot, &mut |state: &State| {
                let checked = std::mem::replace(&mut asked, true);
                let trusted = self.is(Mutant::CommitTrustsIndex)
                    || (checked && self.is(Mutant::CommitChecksOnce));
                // A blob is decodable where the pack that it was found in is not swept, nor, if it
                // is a delta there, that of a whole copy of its base: the writer relies on both.
                if !trusted {
                    check_relied_packs(state, &packs)?;
                }
                if !self.is(Mutant::ParentUnchecked) {
                    check_parents(state, new.parent.as_slice())?;
                }
                let body = Body::AddSnapshot(body.clone());
                Ok(Draft {
                    body,
                    parts: parts.clone(),
                })
            })?;
        Ok(())
    }

    /// Removes snapshots: from the next `prune` on, what only they need is deleted. On a full disk
    /// the reserve is used; the prune sets it aside again.
    ///
    /// # Errors
    /// [`Error::Conflict`] where one of them does not exist or is held.
    pub fn remove_snapshots(&self, snapshots: &[SnapshotId]) -> Result<()> {
        match self.append_removal(snapshots) {
            Err(error) if error.is_no_space() && self.backend.release_reserve()? => {
                self.append_removal(snapshots)?;
            }
            result => result?,
        }
        self.remember();
        Ok(())
    }

    fn append_removal(&self, snapshots: &[SnapshotId]) -> Result<()> {
        self.log()
            .append(EntryKind::RemoveSnapshots, &mut |state: &State| {
                check_remove_snapshots(state, snapshots, &|_| false)?;
                let snapshots = snapshots.to_vec();
                Ok::<_, Conflict>(Draft::from(Body::RemoveSnapshots(Snapshots { snapshots })))
            })?;
        Ok(())
    }

    pub(super) fn seal(&self, kind: SealKind, plain: &[u8]) -> Result<Vec<u8>> {
        let malformed = DecodeError::Malformed { what: "key bundle" };
        let root = self.roots.meta_epochs().last().ok_or(malformed)?;
        let salt = self.env.salt(blake3::hash(plain).as_bytes())?;
        Ok(seal_object(root, self.domain, kind, salt, plain)?)
    }

    pub(crate) fn seal_index(&self, body: &IndexBody) -> Result<(IndexId, Vec<u8>)> {
        let object = self.seal(SealKind::Index, &body.encode()?)?;
        Ok((IndexId::new(blake3::hash(&object).into()), object))
    }

    pub(crate) fn put_index(&self, id: IndexId, object: &[u8]) -> Result<()> {
        self.put_named(&ObjectName::Index(id), object)
    }

    /// Stores an object whose name follows from its bytes: one that exists is the same.
    fn put_named(&self, name: &ObjectName, object: &[u8]) -> Result<()> {
        if self.backend.put_if_absent(name, &[object])? == PutOutcome::Unknown
            && self.backend.put_if_absent(name, &[object])? == PutOutcome::Unknown
            && read_back(self.backend.as_ref(), name)? != object
        {
            return Err(Error::NotStored { object: *name });
        }
        Ok(())
    }

    fn extend_index(&self, indexes: Vec<(IndexId, IndexBody)>) {
        if indexes.is_empty() {
            return;
        }
        let swept = self.swept();
        let mut index = Index::clone(&self.index());
        for (id, body) in indexes {
            // What was committed is committed: the next refresh brings what is missing here.
            if let Err(error) = index.add(id, &body, &swept) {
                tracing::warn!(%error, index = %id, "the index in memory stays behind");
            }
        }
        let lost = std::mem::take(
            &mut *self
                .lost_indexes
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.set_index(index, lost);
    }
}

fn fits_inline(bytes: &[u8]) -> bool {
    bytes.len() as u64 <= u64::from(MAX_INLINE_PART)
}

/// Divides packs over as many index objects as it takes.
fn index_bodies(groups: Vec<PackGroup>) -> Vec<IndexBody> {
    let mut bodies: Vec<IndexBody> = Vec::new();
    let mut blobs = 0;
    for group in groups {
        let full = bodies.last().is_none_or(|body| {
            body.packs.len() >= PACKS_PER_INDEX || blobs + group.entries.len() > BLOBS_PER_INDEX
        });
        if full {
            bodies.push(IndexBody {
                packs: Vec::new(),
                ext: Ext::default(),
            });
            blobs = 0;
        }
        blobs += group.entries.len();
        if let Some(body) = bodies.last_mut() {
            body.packs.push(group);
        }
    }
    bodies
}
