//! Reading the log: from entry to entry up to the tail, each verified with the key list of the
//! prefix before it. Needs no key; bodies stay sealed here.
//!
//! A listing never decides where the log ends. The next number is read until it is not found;
//! then a few numbers further on are tried, and where the caller asks for it the store is listed,
//! only to raise an alarm: an entry above a missing one is a hole.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

use super::{
    error::{Anchored, Damage, LogError},
    segment::{MAX_SEGMENT_LEN, Segment, entries_of, segment_of},
    state::{EntryMeta, IgnoreReason, KeyState, Position, State},
};
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, ObjectKind, ObjectName},
    env::Timestamp,
    format::{
        DecodeError,
        log::{EntryHead, EntryKind, EntryObject, MAX_ENTRY_LEN},
        log_body::{Body, Role},
    },
    id::{DomainId, Hash, RepoId},
    limits::LOG_SEGMENT_ENTRIES,
};

/// What a client knows of a log before it reads it, out of its slot and the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The repository.
    pub repo: RepoId,
    /// The domain.
    pub domain: DomainId,
    /// The Ed25519 key of the first owner, who signed entry 1.
    pub owner: [u8; 32],
}

/// A verified entry on its way to be folded.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) meta: EntryMeta,
    /// The body as stored.
    pub(super) body: Vec<u8>,
    /// The body, where it is readable without a key.
    pub(super) plain: Option<Result<Body, IgnoreReason>>,
    /// Damaged entries right before this one, which it voids.
    pub(super) passed_over: Range<u64>,
}

/// An object of the log that should be healed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedEntry {
    /// The number of the entry.
    pub seq: u64,
    /// The object as it was written, if a twin or enough of it is left.
    pub healed: Option<Vec<u8>>,
    /// Whether the object is missing rather than damaged.
    pub missing: bool,
}

/// Entries read one by one before it is worth looking for a segment.
const SINGLES_BEFORE_SEGMENT: u32 = 32;
/// How many damaged entries in a row a void entry may pass over.
const MAX_VOIDED: u64 = 16;
/// Probes above the tail: the numbers n+1+2^k.
const PROBES: u32 = 10;

/// The verified chain of entries, without the meaning of sealed bodies.
pub(super) struct Chain {
    pub(super) backend: Arc<dyn Backend>,
    anchor: Anchor,
    pub(super) at: Position,
    pub(super) genesis: Hash,
    pub(super) keys: Option<KeyState>,
    pub(super) pending: VecDeque<Verified>,
    pub(super) damage: Vec<DamagedEntry>,
    hashes: BTreeMap<u64, Hash>,
    segment: Option<Segment>,
    no_segment: u64,
    singles: u32,
}

impl Chain {
    pub(super) fn new(backend: Arc<dyn Backend>, anchor: Anchor) -> Self {
        Self {
            backend,
            anchor,
            at: Position {
                seq: 0,
                hash: [0; 32],
                time: Timestamp::default(),
            },
            genesis: [0; 32],
            keys: None,
            pending: VecDeque::new(),
            damage: Vec::new(),
            hashes: BTreeMap::new(),
            segment: None,
            no_segment: 0,
            singles: SINGLES_BEFORE_SEGMENT,
        }
    }

    /// Goes on from a cached state, if the log still has the entry at which it was taken.
    pub(super) fn resume(&mut self, cached: &State) -> Result<bool, LogError> {
        let keys = &cached.keys;
        let ours = keys.repo == self.anchor.repo
            && keys.domain == self.anchor.domain
            && cached.owner == self.anchor.owner;
        if !ours {
            return Ok(false);
        }
        let object = match self.read(cached.head.seq)? {
            Read::Object(object) => object,
            Read::Absent | Read::TooLarge => return Ok(false),
        };
        let same = EntryObject::decode(&object).is_ok_and(|entry| entry.hash() == cached.head.hash);
        if same {
            self.at = cached.head;
            self.genesis = cached.genesis;
            self.keys = Some(keys.clone());
            self.hashes.insert(1, cached.genesis);
            self.hashes.insert(cached.head.seq, cached.head.hash);
            self.singles = 0;
        }
        Ok(same)
    }

    /// The first owner's key.
    pub(super) const fn owner(&self) -> [u8; 32] {
        self.anchor.owner
    }

    /// The hash of an entry that was read or resumed from.
    pub(super) fn hash_of(&self, seq: u64) -> Option<Hash> {
        self.hashes.get(&seq).copied()
    }

    /// Reads to the tail; verified entries wait in `pending`. With `list`, the store is listed
    /// as well.
    pub(super) fn advance(&mut self, list: bool) -> Result<(), LogError> {
        while self.step()? {}
        let mut listed = 0;
        if list {
            listed = self.highest_listed()?;
        }
        loop {
            let above = if listed > self.at.seq {
                Some(listed)
            } else {
                self.probe()?
            };
            let Some(found) = above else { return Ok(()) };
            let before = self.at.seq;
            while self.step()? {}
            if self.at.seq == before && !self.step_from_twin()? {
                return Err(LogError::Hole {
                    missing: before + 1,
                    found,
                });
            }
        }
    }

    /// Reads and verifies the next entry; false where it is not there.
    fn step(&mut self) -> Result<bool, LogError> {
        let seq = self.at.seq + 1;
        if let Some(object) = self.in_segment(seq)?
            && let Ok(verified) = self.verify(seq, &object)
        {
            self.accept(verified);
            return Ok(true);
        }
        let object = match self.read(seq)? {
            Read::Absent => return Ok(false),
            Read::Object(object) => object,
            Read::TooLarge => return self.step_over(seq, Damage::TooLarge),
        };
        self.singles = self.singles.saturating_add(1);
        match self.verify(seq, &object) {
            Ok(verified) => {
                self.note_damage(seq, &object);
                self.accept(verified);
                Ok(true)
            }
            Err(Unusable::Damage(why)) => self.step_over(seq, why),
            Err(Unusable::Fatal(error)) => Err(error),
        }
    }

    /// Past an entry that cannot be used: by its twin, or by an owner's void entry.
    fn step_over(&mut self, seq: u64, why: Damage) -> Result<bool, LogError> {
        if let Some(twin) = self.twin(seq)?
            && let Ok(verified) = self.verify(seq, &twin)
        {
            self.damage.push(DamagedEntry {
                seq,
                healed: Some(twin),
                missing: false,
            });
            self.accept(verified);
            return Ok(true);
        }
        match self.find_void(seq)? {
            Some(verified) => {
                self.accept(verified);
                Ok(true)
            }
            None => Err(LogError::Damaged { seq, why }),
        }
    }

    /// Past a missing entry, by its twin in a segment.
    fn step_from_twin(&mut self) -> Result<bool, LogError> {
        let seq = self.at.seq + 1;
        let Some(twin) = self.twin(seq)? else {
            return Ok(false);
        };
        let Ok(verified) = self.verify(seq, &twin) else {
            return Ok(false);
        };
        self.damage.push(DamagedEntry {
            seq,
            healed: Some(twin),
            missing: true,
        });
        self.accept(verified);
        Ok(true)
    }

    /// Takes the object that this client has just appended and read back.
    pub(super) fn accept_own(&mut self, object: &[u8]) -> Result<(), LogError> {
        let seq = self.at.seq + 1;
        match self.verify(seq, object) {
            Ok(verified) => self.accept(verified),
            Err(Unusable::Damage(why)) => return Err(LogError::Damaged { seq, why }),
            Err(Unusable::Fatal(error)) => return Err(error),
        }
        Ok(())
    }

    fn accept(&mut self, (verified, keys): (Verified, Option<KeyState>)) {
        let at = verified.meta.at;
        if at.seq == 1 {
            self.genesis = at.hash;
        }
        if let Some(keys) = keys {
            self.keys = Some(keys);
        }
        self.at = at;
        self.hashes.insert(at.seq, at.hash);
        self.pending.push_back(verified);
    }

    /// Verifies an object as entry `seq`; with it comes the key state after it, if it changes.
    fn verify(&self, seq: u64, object: &[u8]) -> Result<(Verified, Option<KeyState>), Unusable> {
        let entry = EntryObject::decode(object).map_err(|error| unusable(seq, error))?;
        if entry.head.seq != seq {
            return Err(Damage::Number {
                found: entry.head.seq,
            }
            .into());
        }
        if entry.head.prev != self.at.hash {
            return Err(Damage::Chain.into());
        }
        match &self.keys {
            None => self.verify_first(&entry),
            Some(keys) => verify_next(keys, &entry, seq..seq),
        }
    }

    fn verify_first(
        &self,
        entry: &EntryObject<'_>,
    ) -> Result<(Verified, Option<KeyState>), Unusable> {
        if entry.head.kind != EntryKind::Genesis {
            return Err(Damage::NotGenesis.into());
        }
        let body = Body::decode(EntryKind::Genesis, &entry.head.body);
        let Body::Genesis(list) = body.map_err(|error| unusable(1, error))? else {
            return Err(Damage::NotGenesis.into());
        };
        let wrong = |what| Err(Unusable::Fatal(LogError::WrongLog(what)));
        if list.repo != self.anchor.repo {
            return wrong(Anchored::Repository);
        }
        if list.domain != self.anchor.domain {
            return wrong(Anchored::Domain);
        }
        let keys = KeyState::from_list(&list, None).map_err(|error| unusable(1, error))?;
        let slot = keys.slots.get(&entry.head.writer);
        let owner = slot.is_some_and(|slot| slot.ed25519 == self.anchor.owner)
            && keys.role(&entry.head.writer) == Some(Role::Owner);
        if !owner {
            return wrong(Anchored::Owner);
        }
        if !entry.signed.is_by(&self.anchor.owner) {
            return Err(Damage::Signature.into());
        }
        let verified = Verified {
            meta: meta_of(&entry.head, entry.hash(), Role::Owner),
            body: Vec::new(),
            plain: Some(Ok(Body::Genesis(list))),
            passed_over: 1..1,
        };
        Ok((verified, Some(keys)))
    }

    /// The void entry that passes over `seq`, and perhaps some after it.
    fn find_void(&self, seq: u64) -> Result<Option<(Verified, Option<KeyState>)>, LogError> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        for at in seq + 1..=seq + MAX_VOIDED {
            let object = match self.read(at)? {
                Read::Object(object) => object,
                Read::TooLarge => continue,
                Read::Absent => return Ok(None),
            };
            let Ok(entry) = EntryObject::decode(&object) else {
                continue;
            };
            let Ok(Body::Void(void)) = Body::decode(entry.head.kind, &entry.head.body) else {
                continue;
            };
            let fits = entry.head.seq == at
                && keys.role(&entry.head.writer) == Some(Role::Owner)
                && void.before == self.at.hash
                && void.raw.last() == Some(&entry.head.prev)
                && u64::try_from(void.raw.len()) == Ok(at - seq);
            if fits && let Ok(verified) = verify_next(keys, &entry, seq..at) {
                return Ok(Some(verified));
            }
        }
        Ok(None)
    }

    /// Notes an entry that was usable although its object is not whole.
    fn note_damage(&mut self, seq: u64, object: &[u8]) {
        let Ok(entry) = EntryObject::decode(object) else {
            return;
        };
        if !entry.intact {
            let healed = entry.healed();
            self.damage.push(DamagedEntry {
                seq,
                healed,
                missing: false,
            });
        }
    }

    fn probe(&self) -> Result<Option<u64>, LogError> {
        for k in 0..=PROBES {
            let Some(seq) = self.at.seq.checked_add(1 + (1 << k)) else {
                break;
            };
            match self.backend.len(&ObjectName::Log(seq)) {
                Ok(_) => return Ok(Some(seq)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn highest_listed(&self) -> Result<u64, LogError> {
        let mut highest = 0;
        for kind in [ObjectKind::Log, ObjectKind::LogSegment] {
            self.backend.list(kind, &mut |name, _| match name {
                ObjectName::Log(seq) => highest = highest.max(seq),
                ObjectName::LogSegment(k) => {
                    highest = highest.max(k.saturating_mul(LOG_SEGMENT_ENTRIES));
                }
                _ => {}
            })?;
        }
        Ok(highest)
    }

    pub(super) fn read(&self, seq: u64) -> Result<Read, LogError> {
        match self.backend.read_all(&ObjectName::Log(seq), MAX_ENTRY_LEN) {
            Ok(object) => Ok(Read::Object(object)),
            Err(error) if error.is_not_found() => Ok(Read::Absent),
            Err(error) if error.kind == BackendErrorKind::TooLarge => Ok(Read::TooLarge),
            Err(error) => Err(error.into()),
        }
    }

    /// The entry out of a segment, where one is at hand or worth looking for.
    fn in_segment(&mut self, seq: u64) -> Result<Option<Vec<u8>>, LogError> {
        let k = segment_of(seq);
        let here = self.segment.as_ref().and_then(|segment| segment.entry(seq));
        if let Some(object) = here {
            return Ok(Some(object.to_vec()));
        }
        let boundary = entries_of(k).start == seq;
        if k == self.no_segment || !(boundary || self.singles >= SINGLES_BEFORE_SEGMENT) {
            return Ok(None);
        }
        self.singles = 0;
        self.segment = read_segment(self.backend.as_ref(), k)?;
        if self.segment.is_none() {
            self.no_segment = k;
        }
        let segment = self.segment.as_ref();
        Ok(segment
            .and_then(|segment| segment.entry(seq))
            .map(<[u8]>::to_vec))
    }

    /// The entry out of its segment, wherever that has to be read from.
    pub(super) fn twin(&self, seq: u64) -> Result<Option<Vec<u8>>, LogError> {
        if let Some(object) = self.segment.as_ref().and_then(|segment| segment.entry(seq)) {
            return Ok(Some(object.to_vec()));
        }
        let segment = read_segment(self.backend.as_ref(), segment_of(seq))?;
        Ok(segment.and_then(|segment| segment.entry(seq).map(<[u8]>::to_vec)))
    }
}

/// What a read of an entry brought.
pub(super) enum Read {
    Object(Vec<u8>),
    Absent,
    TooLarge,
}

/// Why an object cannot be taken as an entry.
enum Unusable {
    /// It is damaged: a twin may do.
    Damage(Damage),
    /// It is what it is: stop.
    Fatal(LogError),
}

impl From<Damage> for Unusable {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

fn unusable(seq: u64, error: DecodeError) -> Unusable {
    if is_newer(error) {
        return Unusable::Fatal(LogError::Newer { seq, source: error });
    }
    Unusable::Damage(Damage::Decode(error))
}

/// Whether bytes were written by a program that knows more than this one.
pub(super) const fn is_newer(error: DecodeError) -> bool {
    matches!(
        error,
        DecodeError::UnknownTag { .. } | DecodeError::UnknownVersion { .. }
    )
}

fn verify_next(
    keys: &KeyState,
    entry: &EntryObject<'_>,
    passed_over: Range<u64>,
) -> Result<(Verified, Option<KeyState>), Unusable> {
    let head = &entry.head;
    let unknown = Damage::Writer(head.writer);
    let slot = keys.slots.get(&head.writer).ok_or(unknown)?;
    if !entry.signed.is_by(&slot.ed25519) {
        return Err(Damage::Signature.into());
    }
    let role = keys.role(&head.writer).ok_or(unknown)?;
    let meta = meta_of(head, entry.hash(), role);
    let mut verified = Verified {
        meta,
        body: head.body.clone(),
        plain: None,
        passed_over,
    };
    if !head.kind.is_plain() {
        return Ok((verified, None));
    }
    let body = match Body::decode(head.kind, &head.body) {
        Err(error) if is_newer(error) => return Err(unusable(head.seq, error)),
        body => body.map_err(|_| IgnoreReason::Body),
    };
    let mut changed = None;
    if let Ok(Body::KeyChange(list)) = &body
        && role.may_write(EntryKind::KeyChange)
    {
        changed = match KeyState::from_list(list, Some(keys)) {
            Err(error) if is_newer(error) => return Err(unusable(head.seq, error)),
            keys => keys.ok(),
        };
    }
    verified.body = Vec::new();
    verified.plain = Some(body);
    Ok((verified, changed))
}

fn meta_of(head: &EntryHead, hash: Hash, role: Role) -> EntryMeta {
    EntryMeta {
        at: Position {
            seq: head.seq,
            hash,
            time: head.time,
        },
        kind: head.kind,
        writer: head.writer,
        role,
        parts: head.parts.clone(),
    }
}

/// A segment, if there is a usable one.
pub(super) fn read_segment(backend: &dyn Backend, k: u64) -> Result<Option<Segment>, LogError> {
    let unusable =
        |error: &BackendError| error.is_not_found() || error.kind == BackendErrorKind::TooLarge;
    match backend.read_all(&ObjectName::LogSegment(k), u64::from(MAX_SEGMENT_LEN)) {
        Ok(bytes) => Ok(Segment::decode(k, bytes).ok()),
        Err(error) if unusable(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
