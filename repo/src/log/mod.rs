//! The commit log: the only authority on which snapshots, indexes and packs the repository has.
//! The protocol is in `docs/invariants.md`; entries are in [`crate::format::log`].
//!
//! [`Log::create`] begins one; [`LogHeads::open`] verifies what can be verified without a key, so
//! that the right keyring can be opened; [`LogHeads::unlock`] then folds the sealed bodies.
//! [`Log::append`] is the only way in which a repository changes.

mod append;
mod bad;
pub mod check;
mod error;
mod parts;
mod replay;
pub mod seen;
pub mod segment;
mod source;
pub mod state;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;

pub use append::{AppendError, Appended, Draft};
pub use error::{Anchored, Damage, LogError};
pub use parts::PartReader;
use replay::Chain;
pub use replay::DamagedEntry;
pub use seen::Memory;
use source::Read;
use state::{EntryMeta, IgnoreReason, KeyState, State};
pub use verify::Anchor;
use verify::Verified;

use crate::{
    backend::{Backend, ObjectKind, ObjectName, PutOutcome},
    crypto::{Roots, SealError, SealKind, Signer, open_object},
    env::Env,
    format::{
        log::{EntryKind, EntryObject},
        log_body::Body,
    },
    id::{Hash, IndexId, SnapshotId},
};

/// A log whose chain of signatures is verified, but whose sealed bodies are not yet read.
pub struct LogHeads {
    chain: Chain,
    state: Option<State>,
    remembered: bool,
}

impl LogHeads {
    /// Opens the log and reads it to its tail.
    ///
    /// `cached` is a state saved earlier; one that does not fit costs time, nothing else.
    /// `memory` is what this client saw of the repository before: a log that does not extend it
    /// is refused. Leaving it out where there is one is the override, for the caller to record.
    ///
    /// # Errors
    /// [`LogError::NoLog`], [`LogError::WrongLog`], [`LogError::RolledBack`],
    /// [`LogError::Damaged`], [`LogError::Newer`], [`LogError::Hole`], or the store's error.
    pub fn open(
        backend: Arc<dyn Backend>,
        anchor: Anchor,
        cached: Option<State>,
        memory: Option<&Memory>,
    ) -> Result<Self, LogError> {
        // A cache from beyond what is remembered could hide a fork from the memory.
        let usable = |state: &State| memory.is_none_or(|memory| state.head.seq <= memory.seq);
        let mut chain = Chain::new(backend, anchor);
        let mut state = None;
        if let Some(cached) = cached.filter(usable)
            && chain.resume(&cached)?
        {
            state = Some(cached);
        }
        read_to_tail(&mut chain, false)?;
        if let Some(memory) = memory {
            memory.check(chain.genesis, chain.at.seq, &|seq| chain.hash_of(seq))?;
        }
        Ok(Self {
            chain,
            state,
            remembered: memory.is_some(),
        })
    }

    /// Opens the log anew, from its first entry, and looks at the object of every one, also of
    /// those that a segment holds as well: then [`Log::damage`] is all that is damaged or missing.
    ///
    /// # Errors
    /// As [`LogHeads::open`].
    pub fn open_every(backend: Arc<dyn Backend>, anchor: Anchor) -> Result<Self, LogError> {
        let mut chain = Chain::new(backend, anchor);
        chain.source.prefer_own_objects();
        read_to_tail(&mut chain, true)?;
        Ok(Self {
            chain,
            state: None,
            remembered: false,
        })
    }

    /// The live slots and the keyring to open.
    ///
    /// # Errors
    /// [`LogError::NoLog`], which opening has ruled out.
    pub fn keys(&self) -> Result<&KeyState, LogError> {
        self.chain.keys.as_ref().ok_or(LogError::NoLog)
    }

    /// The number of the last entry.
    #[must_use]
    pub const fn tail(&self) -> u64 {
        self.chain.at.seq
    }

    /// Folds the bodies. `signer` is needed for appending.
    ///
    /// # Errors
    /// [`LogError::NoKey`] where the keyring lacks a key, [`LogError::Newer`].
    pub fn unlock(self, roots: Roots, env: Env, signer: Option<Signer>) -> Result<Log, LogError> {
        let Self {
            chain,
            state,
            remembered,
        } = self;
        let state = state.or_else(|| first_state(&chain, chain.pending.front()?));
        let mut log = Log {
            state: state.ok_or(LogError::NoLog)?,
            chain,
            roots,
            env,
            signer,
            listed: remembered,
        };
        log.fold_pending()?;
        Ok(log)
    }
}

/// The state after entry 1; `None` for any other entry.
fn first_state(chain: &Chain, entry: &Verified) -> Option<State> {
    let Some(Ok(Body::Genesis(list))) = &entry.plain else {
        return None;
    };
    let keys = KeyState::from_list(list, None).ok()?;
    (entry.meta.at.seq == 1).then(|| State::first(chain.owner(), entry.meta.at, keys))
}

/// The log, open.
pub struct Log {
    chain: Chain,
    state: State,
    roots: Roots,
    env: Env,
    signer: Option<Signer>,
    /// Whether this client has looked for holes, or remembers the repository.
    listed: bool,
}

impl Log {
    /// What the entries up to the tail mean, as of the last [`Log::refresh`] or append.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What to remember of this repository from now on.
    #[must_use]
    pub const fn memory(&self) -> Memory {
        Memory {
            repo: self.state.keys.repo,
            genesis: self.state.genesis,
            seq: self.state.head.seq,
            hash: self.state.head.hash,
        }
    }

    /// The same as of the entry before the newest, where that one's hash is known.
    #[must_use]
    pub fn memory_before(&self) -> Option<Memory> {
        let seq = self.state.head.seq.checked_sub(1)?;
        let hash = self.chain.hash_of(seq)?;
        Some(Memory {
            seq,
            hash,
            ..self.memory()
        })
    }

    /// Reads what others have appended.
    ///
    /// # Errors
    /// As [`LogHeads::open`] and [`LogHeads::unlock`].
    pub fn refresh(&mut self) -> Result<&State, LogError> {
        self.advance(false)?;
        Ok(&self.state)
    }

    /// Reads what others have appended, and lists the store to find out whether entries are
    /// missing below others.
    ///
    /// # Errors
    /// [`LogError::Hole`], and as [`Log::refresh`].
    pub fn look_for_holes(&mut self) -> Result<&State, LogError> {
        self.advance(true)?;
        self.listed = true;
        Ok(&self.state)
    }

    fn advance(&mut self, list: bool) -> Result<(), LogError> {
        let advanced = self.chain.advance(list);
        self.fold_pending()?;
        advanced
    }

    fn fold_pending(&mut self) -> Result<(), LogError> {
        while let Some(entry) = self.chain.pending.front() {
            // The first entry begins the state, and begins it anew where the log was read again
            // because entries were voided.
            if let Some(first) = first_state(&self.chain, entry) {
                self.state = first;
                self.chain.pending.pop_front();
                continue;
            }
            let body = self.open_body(entry)?;
            if !entry.passed_over.is_empty() {
                self.state.pass_over(entry.passed_over.clone());
            }
            self.state
                .apply(&entry.meta, body.as_ref().map_err(|reason| *reason));
            self.chain.pending.pop_front();
        }
        Ok(())
    }

    fn open_body(&self, entry: &Verified) -> Result<Result<Body, IgnoreReason>, LogError> {
        let EntryMeta { at, kind, role, .. } = &entry.meta;
        if !role.may_write(*kind) {
            return Ok(Err(IgnoreReason::Role));
        }
        if let Some(plain) = &entry.plain {
            return Ok(plain.clone());
        }
        let domain = self.state.keys.domain;
        let newer = |source| LogError::Newer {
            seq: at.seq,
            source,
        };
        let plain = match open_object(&self.roots, domain, SealKind::LogBody, &entry.body) {
            Ok(plain) => plain,
            Err(source @ SealError::UnknownEpoch(_)) => {
                return Err(LogError::NoKey {
                    seq: at.seq,
                    source,
                });
            }
            Err(SealError::Decode(error)) if error.is_newer() => return Err(newer(error)),
            Err(_) => return Ok(Err(IgnoreReason::Body)),
        };
        match Body::decode(*kind, &plain) {
            Err(error) if error.is_newer() => Err(newer(error)),
            body => Ok(body.map_err(|_| IgnoreReason::Body)),
        }
    }

    /// The inline part of entry `seq` whose hash is `hash`; see [`PartReader::read`].
    ///
    /// # Errors
    /// As [`PartReader::read`].
    pub fn read_part(&self, seq: u64, hash: &Hash) -> Result<Vec<u8>, LogError> {
        self.part_reader().read(seq, hash)
    }

    /// Reads inline parts without the log, for checks that run while an append holds it.
    #[must_use]
    pub fn part_reader(&self) -> PartReader {
        PartReader::new(Arc::clone(&self.chain.source.backend))
    }

    /// The index objects that came to be with a live snapshot. Read again from the entry that added
    /// it, or from the twin of that; none where neither says so.
    ///
    /// # Errors
    /// The store's error.
    pub fn indexes_with(&self, snapshot: &SnapshotId) -> Result<Vec<IndexId>, LogError> {
        let Some(seq) = self.state.snapshots.get(snapshot).map(|state| state.seq) else {
            return Ok(Vec::new());
        };
        let object = match self.chain.source.read(seq)? {
            Read::Object(object) => Some(object),
            Read::Absent | Read::TooLarge => None,
        };
        let found = object.and_then(|object| self.added_with(snapshot, seq, &object));
        if let Some(indexes) = found {
            return Ok(indexes);
        }
        let twin = self.chain.source.twin(seq)?;
        let found = twin.and_then(|object| self.added_with(snapshot, seq, &object));
        Ok(found.unwrap_or_default())
    }

    /// What an object says, if it is the entry that added this snapshot. Whatever became of the
    /// head since it was verified: the body is sealed, and names the snapshot.
    fn added_with(&self, snapshot: &SnapshotId, seq: u64, object: &[u8]) -> Option<Vec<IndexId>> {
        let entry = EntryObject::decode(object).ok()?;
        let domain = self.state.keys.domain;
        let body = &entry.head.body;
        let plain = open_object(&self.roots, domain, SealKind::LogBody, body).ok()?;
        match Body::decode(entry.head.kind, &plain).ok()? {
            Body::AddSnapshot(body) if body.snapshot == *snapshot && entry.head.seq == seq => {
                Some(body.indexes)
            }
            _ => None,
        }
    }

    /// Objects of the log that were found damaged or missing on the way.
    #[must_use]
    pub fn damage(&self) -> &[DamagedEntry] {
        &self.chain.damage
    }

    /// Heals what can be healed of [`Log::damage`]; returns the numbers of the entries healed.
    /// What cannot be healed stays in the list.
    ///
    /// # Errors
    /// The store's error.
    pub fn heal(&mut self) -> Result<Vec<u64>, LogError> {
        let mut healed = Vec::new();
        let mut left = Vec::new();
        for entry in std::mem::take(&mut self.chain.damage) {
            let bytes = match entry.healed.clone() {
                Some(bytes) => Some(bytes),
                None => self.chain.source.twin(entry.seq)?,
            };
            if self.heal_entry(&entry, bytes)? {
                healed.push(entry.seq);
            } else {
                left.push(entry);
            }
        }
        self.chain.damage = left;
        if !healed.is_empty() {
            self.chain.source.backend.barrier(ObjectKind::Log)?;
        }
        Ok(healed)
    }

    fn heal_entry(&self, entry: &DamagedEntry, bytes: Option<Vec<u8>>) -> Result<bool, LogError> {
        // Only the very entry that was verified at this number may stand there again.
        let known = self.chain.hash_of(entry.seq);
        let usable = |bytes: &Vec<u8>| {
            EntryObject::decode(bytes)
                .is_ok_and(|object| object.intact && Some(object.hash()) == known)
        };
        let Some(bytes) = bytes.filter(usable) else {
            return Ok(false);
        };
        let name = ObjectName::Log(entry.seq);
        if entry.missing {
            let put = self.chain.source.backend.put_if_absent(&name, &[&bytes])?;
            return Ok(put == PutOutcome::Created);
        }
        self.chain.source.backend.replace_verified(&name, &bytes)?;
        Ok(true)
    }
}

/// Reads to the tail; with `list` the store is listed as well.
fn read_to_tail(chain: &mut Chain, list: bool) -> Result<(), LogError> {
    chain.advance(list)?;
    if chain.keys.is_none() {
        return Err(LogError::NoLog);
    }
    Ok(())
}

/// Whether the store is listed for holes before every entry of this kind: those after which
/// something may be deleted.
const fn wants_listing(kind: EntryKind) -> bool {
    matches!(kind, EntryKind::Sweep | EntryKind::RemoveSnapshots)
}
