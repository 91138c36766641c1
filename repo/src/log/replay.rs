//! Reading the log: from entry to entry up to the tail, each verified with the key list of the
//! prefix before it. Needs no key; bodies stay sealed here.
//!
//! A listing never decides where the log ends. The next number is read until it is not found;
//! then a few numbers further on are tried, and where the caller asks for it the store is listed,
//! only to raise an alarm: an entry above a missing one is a hole.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    error::{Damage, LogError},
    source::{Read, Source},
    state::{KeyState, Position, State},
    verify::{Anchor, Step, Unusable, Verified, unusable, verify_first, verify_next},
};
use crate::{
    backend::{Backend, BackendErrorKind},
    env::Timestamp,
    format::{
        log::EntryObject,
        log_body::{Body, Role},
    },
    id::Hash,
};

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

/// How many damaged entries in a row a void entry may pass over.
const MAX_VOIDED: u64 = 16;
/// Before the first entry.
const BEGINNING: Position = Position {
    seq: 0,
    hash: [0; 32],
    time: Timestamp { secs: 0, nanos: 0 },
};

/// The verified chain of entries, without the meaning of sealed bodies.
pub(super) struct Chain {
    pub(super) source: Source,
    anchor: Anchor,
    pub(super) at: Position,
    pub(super) genesis: Hash,
    pub(super) keys: Option<KeyState>,
    pub(super) pending: VecDeque<Verified>,
    pub(super) damage: Vec<DamagedEntry>,
    hashes: BTreeMap<u64, Hash>,
    /// Entries that were read and turned out to be voided later, with the void entry's number.
    voided: BTreeMap<u64, u64>,
}

impl Chain {
    pub(super) fn new(backend: Arc<dyn Backend>, anchor: Anchor) -> Self {
        Self {
            source: Source::new(backend),
            anchor,
            at: BEGINNING,
            genesis: [0; 32],
            keys: None,
            pending: VecDeque::new(),
            damage: Vec::new(),
            hashes: BTreeMap::new(),
            voided: BTreeMap::new(),
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
        let object = match self.source.read(cached.head.seq)? {
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
            self.source.resume();
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
            listed = self.source.highest_listed()?;
        }
        loop {
            let above = if listed > self.at.seq {
                Some(listed)
            } else {
                self.source.probe(self.at.seq)?
            };
            let Some(found) = above else {
                self.source.resume();
                return Ok(());
            };
            let before = self.at.seq;
            while self.step()? {}
            if self.at.seq == before && !self.step_to_twin(true)? {
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
        if self.voided.contains_key(&seq)
            && let Some(verified) = self.find_void(seq)?
        {
            self.accept(verified);
            return Ok(true);
        }
        if let Some(object) = self.source.in_segment(seq)?
            && let Ok(verified) = self.verify(seq, &object)
        {
            self.accept(verified);
            return Ok(true);
        }
        let object = match self.source.read(seq) {
            Ok(Read::Absent) => return Ok(false),
            Ok(Read::Object(object)) => object,
            Ok(Read::TooLarge) => return self.step_over(seq, Damage::TooLarge),
            // A disk that cannot read it any more is no reason to stop where its twin is whole.
            Err(LogError::Backend(error)) if error.kind == BackendErrorKind::Io => {
                return if self.step_to_twin(false)? {
                    Ok(true)
                } else {
                    Err(error.into())
                };
            }
            Err(error) => return Err(error),
        };
        match self.verify(seq, &object) {
            Ok(verified) => {
                self.note_damage(seq, &object)?;
                self.accept(verified);
                Ok(true)
            }
            Err(Unusable::Damage(Damage::Chain)) if self.is_undone_by(seq, &object) => {
                self.restart();
                Ok(true)
            }
            Err(Unusable::Damage(why)) => self.step_over(seq, why),
            Err(Unusable::Fatal(error)) => Err(error),
        }
    }

    /// Whether the object looks like a void entry that passes over entries which this client
    /// could read: then they do not count here either. Looks only; that it is an owner's is
    /// verified when the log is read again. Says so once per void entry.
    fn is_undone_by(&mut self, seq: u64, object: &[u8]) -> bool {
        let Ok(entry) = EntryObject::decode(object) else {
            return false;
        };
        let Ok(Body::Void(void)) = Body::decode(entry.head.kind, &entry.head.body) else {
            return false;
        };
        let first = u64::try_from(void.raw.len())
            .ok()
            .filter(|count| (1..=MAX_VOIDED).contains(count))
            .and_then(|count| seq.checked_sub(count));
        first.is_some_and(|first| first > 1 && self.voided.insert(first, seq) != Some(seq))
    }

    /// Back to the beginning, keeping what is known about voided entries.
    fn restart(&mut self) {
        self.at = BEGINNING;
        self.keys = None;
        self.pending.clear();
        self.hashes.clear();
        self.source.rewind();
    }

    /// Past an entry that cannot be used: by its twin, or by an owner's void entry.
    fn step_over(&mut self, seq: u64, why: Damage) -> Result<bool, LogError> {
        if self.step_to_twin(false)? {
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

    /// Past an entry that is missing or cannot be used, by its twin in a segment; false where there
    /// is no good one.
    fn step_to_twin(&mut self, missing: bool) -> Result<bool, LogError> {
        let seq = self.at.seq + 1;
        let Some(twin) = self.source.next_twin(seq)? else {
            return Ok(false);
        };
        let Ok(verified) = self.verify(seq, &twin) else {
            return Ok(false);
        };
        self.damage.push(DamagedEntry {
            seq,
            healed: Some(twin),
            missing,
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

    fn accept(&mut self, (verified, keys): Step) {
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
    fn verify(&self, seq: u64, object: &[u8]) -> Result<Step, Unusable> {
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
            None => verify_first(&self.anchor, &entry),
            Some(keys) => verify_next(keys, &entry, seq..seq),
        }
    }

    /// The void entry that passes over `seq`, and perhaps some after it.
    fn find_void(&self, seq: u64) -> Result<Option<Step>, LogError> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        for at in seq + 1..=seq + MAX_VOIDED {
            let object = match self.source.read(at)? {
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
    fn note_damage(&mut self, seq: u64, object: &[u8]) -> Result<(), LogError> {
        let Ok(entry) = EntryObject::decode(object) else {
            return Ok(());
        };
        if entry.intact {
            return Ok(());
        }
        let mut healed = entry.healed();
        if healed.is_none() {
            // What it carries inline is nowhere else but in a segment.
            let same = |twin: &EntryObject<'_>| twin.intact && twin.hash() == entry.hash();
            let is_whole = |twin: &Vec<u8>| EntryObject::decode(twin).is_ok_and(|twin| same(&twin));
            healed = self.source.next_twin(seq)?.filter(is_whole);
        }
        self.damage.push(DamagedEntry {
            seq,
            healed,
            missing: false,
        });
        Ok(())
    }
}
