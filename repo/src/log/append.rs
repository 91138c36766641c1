//! Adding an entry: the only way in which a repository changes.
//!
//! The check is asked of the state of exactly the prefix that the entry will follow, and that
//! prefix is durable before. Adjacency is the whole safety argument: nothing can slip in between,
//! because the entry's number can be taken only once. Where the fate of a put is unknown, the
//! same bytes are put again, never others under the same number, so that a put which arrives late
//! does no harm.

use std::sync::Arc;

use super::{
    Log, LogError, LogHeads,
    replay::{Chain, DamagedEntry},
    segment::{self, entries_of, segment_of},
    source::{Read, read_segment},
    state::{Position, State},
    verify::Anchor,
    wants_listing,
};
use crate::{
    backend::{Backend, BackendError, ObjectKind, ObjectName, PutOutcome},
    crypto::{Roots, SealKind, Signer, seal_object},
    env::Env,
    format::{
        log::{EntryHead, EntryKind, EntryObject, Part, encode_object},
        log_body::{Body, KeyList},
    },
    id::{Hash, TxnId},
    limits::LOG_SEGMENT_ENTRIES,
};

/// How often others may be quicker before an append gives up.
const MAX_ROUNDS: u32 = 1000;
/// How often the same bytes are put while the store does not say what became of them.
const MAX_PUTS: u32 = 8;

/// What an append wants to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The body; its kind must be the one that the append was called with.
    pub body: Body,
    /// Objects that stand inside the entry.
    pub parts: Vec<Part>,
}

impl From<Body> for Draft {
    fn from(body: Body) -> Self {
        Self {
            body,
            parts: Vec::new(),
        }
    }
}

/// An entry that was appended and is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError<E> {
    /// The caller's check refused the state.
    #[error(transparent)]
    Refused(E),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What became of one attempt.
enum Attempt {
    /// The entry is there; these bytes were read back.
    Mine(Vec<u8>),
    /// The number is taken.
    Taken,
}

impl Log {
    /// Begins a log: writes entry 1, which names the slots and the first keyring.
    ///
    /// # Errors
    /// [`LogError::AlreadyExists`] where there is one; otherwise as [`Log::append`].
    pub fn create(
        backend: Arc<dyn Backend>,
        env: Env,
        roots: Roots,
        signer: Signer,
        keys: KeyList,
    ) -> Result<Self, LogError> {
        let anchor = Anchor {
            repo: keys.repo,
            domain: keys.domain,
            owner: signer.public_key(),
        };
        let body = Body::Genesis(keys);
        let head = EntryHead {
            kind: EntryKind::Genesis,
            seq: 1,
            prev: [0; 32],
            writer: signer.slot(),
            txn: TxnId::new(env.random()?),
            time: env.now(),
            body: body.encode().map_err(LogError::too_large)?,
            parts: Vec::new(),
            ext: Vec::new(),
        };
        let inner = head.sign(&signer).map_err(LogError::too_large)?;
        let object = encode_object(&inner, &[]).map_err(LogError::too_large)?;
        // Verified before it is written, so that no log begins that nobody can open.
        Chain::new(Arc::clone(&backend), anchor).accept_own(&object)?;
        match put_entry(backend.as_ref(), 1, &inner, &object)? {
            Attempt::Taken => Err(LogError::AlreadyExists),
            Attempt::Mine(_) => {
                LogHeads::open(backend, anchor, None, None)?.unlock(roots, env, Some(signer))
            }
        }
    }

    /// Appends an entry of `kind`.
    ///
    /// `check` sees the state of exactly the prefix that the entry will follow, and says what to
    /// write or why not; it is asked again whenever somebody else was quicker. On success the
    /// entry is durable and [`Log::state`] is the state after it.
    ///
    /// # Errors
    /// [`AppendError::Refused`] with the check's own error. [`LogError::Uncertain`] and
    /// [`LogError::Faithless`] where the entry may be there or yet appear,
    /// [`LogError::DoesNotCount`] where it is there but changes nothing; after every other error
    /// it is not there.
    pub fn append<E>(
        &mut self,
        kind: EntryKind,
        check: &mut dyn FnMut(&State) -> Result<Draft, E>,
    ) -> Result<Appended, AppendError<E>> {
        for _ in 0..MAX_ROUNDS {
            self.prepare(kind)?;
            let draft = check(&self.state).map_err(AppendError::Refused)?;
            let (inner, object) = self.build(kind, draft)?;
            let seq = self.state.head.seq + 1;
            match put_entry(self.chain.source.backend.as_ref(), seq, &inner, &object)? {
                Attempt::Taken => {}
                Attempt::Mine(found) => return Ok(self.take_own(&found, object)?),
            }
        }
        let rounds = MAX_ROUNDS;
        Err(LogError::Crowded { rounds }.into())
    }

    /// Reads to the tail, makes what was read durable, and sees that this client may append.
    fn prepare(&mut self, kind: EntryKind) -> Result<(), LogError> {
        let list = !self.listed || wants_listing(kind);
        self.advance(list)?;
        self.listed = true;
        let signer = self.signer.as_ref().ok_or(LogError::NoSigner)?;
        let keys = &self.state.keys;
        let not_live = LogError::NotLive(signer.slot());
        let role = match keys.slots.get(&signer.slot()) {
            Some(slot) if slot.ed25519 == signer.public_key() => keys.role(&signer.slot()),
            _ => None,
        };
        let role = role.ok_or(not_live)?;
        if !role.may_write(kind) {
            return Err(LogError::NotAllowed { role, kind });
        }
        self.see_head()?;
        self.chain.source.backend.barrier(ObjectKind::Log)?;
        Ok(())
    }

    /// Makes sure that the entry which the next one will follow is in the store: a store that was
    /// set back under a running client must not get an entry above a hole. What was read from a
    /// segment alone is put back first.
    fn see_head(&mut self) -> Result<(), LogError> {
        let head = self.state.head.seq;
        if self.is_there(head)? {
            return Ok(());
        }
        let segment = read_segment(self.chain.source.backend.as_ref(), segment_of(head))?;
        let twin = |seq| Some(segment.as_ref()?.entry(seq)?.to_vec());
        let mut lost = Vec::new();
        let mut seq = head;
        while let Some(healed) = twin(seq)
            && !self.is_there(seq)?
        {
            lost.push(DamagedEntry {
                seq,
                healed: Some(healed),
                missing: true,
            });
            seq -= 1;
        }
        // Lowest first: an interruption leaves no entry above a hole.
        self.chain.damage.extend(lost.into_iter().rev());
        self.heal()?;
        if self.is_there(head)? {
            return Ok(());
        }
        let tail = head.saturating_sub(1);
        Err(LogError::RolledBack { at: head, tail })
    }

    fn is_there(&self, seq: u64) -> Result<bool, LogError> {
        match self.chain.source.backend.len(&ObjectName::Log(seq)) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The signed head and the object of the next entry.
    pub(super) fn build(
        &self,
        kind: EntryKind,
        draft: Draft,
    ) -> Result<(Vec<u8>, Vec<u8>), LogError> {
        let signer = self.signer.as_ref().ok_or(LogError::NoSigner)?;
        if draft.body.kind() != kind {
            return Err(LogError::WrongKind {
                kind,
                body: draft.body.kind(),
            });
        }
        let record = draft.body.encode().map_err(LogError::too_large)?;
        let body = if kind.is_plain() {
            record
        } else {
            let root = self.roots.meta_epochs().last().ok_or(LogError::NoEpoch)?;
            let salt = self.env.salt(blake3::hash(&record).as_bytes())?;
            let domain = self.state.keys.domain;
            seal_object(root, domain, SealKind::LogBody, salt, &record)
                .map_err(LogError::too_large)?
        };
        let infos: Result<Vec<_>, _> = draft.parts.iter().map(Part::info).collect();
        let head = EntryHead {
            kind,
            seq: self.state.head.seq + 1,
            prev: self.state.head.hash,
            writer: signer.slot(),
            txn: TxnId::new(self.env.random()?),
            time: self.env.now(),
            body,
            parts: infos.map_err(LogError::too_large)?,
            ext: Vec::new(),
        };
        let inner = head.sign(signer).map_err(LogError::too_large)?;
        let parts: Vec<&[u8]> = draft
            .parts
            .iter()
            .map(|part| part.bytes.as_slice())
            .collect();
        let object = encode_object(&inner, &parts).map_err(LogError::too_large)?;
        Ok((inner, object))
    }

    /// Folds the entry that was read back.
    fn take_own(&mut self, found: &[u8], written: Vec<u8>) -> Result<Appended, LogError> {
        self.chain.accept_own(&written)?;
        if found != written {
            // Readable, but not whole: the store has bent it already.
            self.chain.damage.push(DamagedEntry {
                seq: self.chain.at.seq,
                healed: Some(written),
                missing: false,
            });
        }
        self.fold_pending()?;
        let Position { seq, hash, .. } = self.state.head;
        if let Some(reason) = self.state.last_ignored() {
            return Err(LogError::DoesNotCount { seq, reason });
        }
        if seq % LOG_SEGMENT_ENTRIES == 0
            && let Err(error) = self.write_segment(segment_of(seq))
        {
            // The segment only makes reading quicker; the entry is there.
            tracing::debug!(seq, %error, "log segment not written");
        }
        Ok(Appended { seq, hash })
    }

    /// Writes segment `k` if all its entries are there and intact; true if it is there now.
    ///
    /// # Errors
    /// The store's error.
    pub fn write_segment(&self, k: u64) -> Result<bool, LogError> {
        if k == 0 || entries_of(k).end > self.state.head.seq + 1 {
            return Ok(false);
        }
        let mut objects = Vec::new();
        for seq in entries_of(k) {
            let Read::Object(object) = self.chain.source.read(seq)? else {
                return Ok(false);
            };
            let known = self.chain.hash_of(seq);
            let intact = EntryObject::decode(&object)
                .is_ok_and(|entry| entry.intact && known.is_none_or(|known| known == entry.hash()));
            if !intact {
                return Ok(false);
            }
            objects.push(object);
        }
        let Ok(bytes) = segment::encode(k, &objects) else {
            return Ok(false);
        };
        let name = ObjectName::LogSegment(k);
        let put = self.chain.source.backend.put_if_absent(&name, &[&bytes])?;
        Ok(put != PutOutcome::Unknown)
    }
}

/// Puts an entry until its fate is known.
fn put_entry(
    backend: &dyn Backend,
    seq: u64,
    inner: &[u8],
    object: &[u8],
) -> Result<Attempt, LogError> {
    let uncertain = |source| LogError::Uncertain { seq, source };
    let name = ObjectName::Log(seq);
    let mut in_flight = false;
    for _ in 0..MAX_PUTS {
        let outcome = backend.put_if_absent(&name, &[object]);
        let found = look(backend, seq).map_err(|error| uncertain(Some(error)))?;
        match (outcome, found) {
            (_, Some(found)) if is_mine(&found, inner) => {
                let durable = backend.barrier(ObjectKind::Log);
                durable.map_err(|error| uncertain(Some(error)))?;
                return Ok(Attempt::Mine(found));
            }
            (Ok(PutOutcome::Created), _) => return Err(LogError::Faithless { seq }),
            (_, Some(_)) => return Ok(Attempt::Taken),
            (Err(error), None) if in_flight => return Err(uncertain(Some(error))),
            // The contract: after an error the whole object is there or nothing ever will be.
            (Err(error), None) => return Err(error.into()),
            (Ok(PutOutcome::Exists | PutOutcome::Unknown), None) => in_flight = true,
        }
    }
    Err(uncertain(None))
}

/// The object under a number, if any.
fn look(backend: &dyn Backend, seq: u64) -> Result<Option<Vec<u8>>, BackendError> {
    match backend.read_all(&ObjectName::Log(seq), crate::format::log::MAX_ENTRY_LEN) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an object is the entry that this client tried to append: the same signed bytes, with
/// their own random transaction name in them.
fn is_mine(object: &[u8], inner: &[u8]) -> bool {
    EntryObject::decode(object).is_ok_and(|entry| entry.inner == inner)
}
