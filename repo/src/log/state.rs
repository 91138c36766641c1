//! What a prefix of the log means: [`State`], the fold of its entries. Pure; every client that
//! folds the same entries has the same state.
//!
//! Three sets only ever grow: swept packs, dropped indexes and ignored entries. So an entry that
//! comes late (a backup that lists an index which a prune has since replaced) cannot bring back
//! what was given up. An entry that its writer may not write, or whose body says nothing that
//! can be followed, keeps its number and changes nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use super::bad::BadCopies;
use crate::{
    env::Timestamp,
    format::{
        DecodeError,
        log::{EntryKind, PartInfo},
        log_body::{
            AddSnapshot, Annotate, Body, Change, KeyList, ReplaceSnapshots, Role, SlotKeys, Sweep,
        },
    },
    id::{DomainId, Hash, IndexId, PackId, RepoId, SlotId, SnapshotId},
};

/// Where an index or a snapshot record is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In an object of its own.
    Own,
    /// Inside the entry with this number, as the part whose hash is its id.
    Inline(u64),
}

/// An index that came without a snapshot: what a run had stored by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The entry that added it.
    pub seq: u64,
    /// Who added it.
    pub writer: SlotId,
}

/// A snapshot as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotState {
    /// The entry that added it.
    pub seq: u64,
    /// That entry's time, by its writer's clock.
    pub time: Timestamp,
    /// The time of the entry before that.
    pub previous_time: Timestamp,
    /// Who added it.
    pub writer: SlotId,
    /// What role that was.
    pub role: Role,
    /// Where its record is.
    pub place: Place,
    /// The entry from which its backup started; for a replacement, the entry itself.
    pub base: u64,
}

/// A snapshot that was removed and can be restored until a sweep ends that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedSnapshot {
    /// What it was.
    pub snapshot: SnapshotState,
    /// The entry that removed it.
    pub seq: u64,
    /// That entry's time.
    pub time: Timestamp,
}

/// What is noted about a snapshot beside its record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotations {
    /// Tags added after the snapshot was made.
    pub added_tags: BTreeSet<String>,
    /// Tags of the record that no longer hold.
    pub removed_tags: BTreeSet<String>,
    /// `Some(Some(reason))` for a hold, `Some(None)` for a release, `None` where the record's own
    /// hold decides.
    pub hold: Option<Option<String>>,
    /// When and how it was last found whole: time of the entry, and its words.
    pub verified: Option<(Timestamp, String)>,
    /// A remark.
    pub note: Option<String>,
}

/// The slots and the keyring of a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// The repository.
    pub repo: RepoId,
    /// The domain of keys and blob ids.
    pub domain: DomainId,
    /// Number of the keyring to open.
    pub keyring: u64,
    /// BLAKE3 of that keyring's inner bytes.
    pub keyring_hash: Hash,
    /// The live slots.
    pub slots: BTreeMap<SlotId, SlotKeys>,
}

impl KeyState {
    /// The state after a key list, the first where `before` is `None`.
    ///
    /// # Errors
    /// [`DecodeError`] for a list that no owner's client writes: of another repository, an old
    /// keyring, without an owner, a slot twice or with an id that is not that of its keys. An
    /// unknown role is [`DecodeError::UnknownTag`].
    pub fn from_list(list: &KeyList, before: Option<&Self>) -> Result<Self, DecodeError> {
        let mut owners = 0;
        let mut slots = BTreeMap::new();
        for slot in &list.slots {
            if Role::try_from(slot.role)? == Role::Owner {
                owners += 1;
            }
            // A slot is its keys: nobody is listed under somebody else's name.
            if slot.identity() != slot.slot {
                return Err(DecodeError::Malformed { what: "key list" });
            }
            slots.insert(slot.slot, slot.clone());
        }
        let follows = before.is_none_or(|before| {
            before.repo == list.repo
                && before.domain == list.domain
                && before.keyring < list.keyring
        });
        if !follows || owners == 0 || slots.len() != list.slots.len() {
            return Err(DecodeError::Malformed { what: "key list" });
        }
        Ok(Self {
            repo: list.repo,
            domain: list.domain,
            keyring: list.keyring,
            keyring_hash: list.keyring_hash,
            slots,
        })
    }

    /// The role of a live slot.
    #[must_use]
    pub fn role(&self, slot: &SlotId) -> Option<Role> {
        self.slots
            .get(slot)
            .and_then(|slot| Role::try_from(slot.role).ok())
    }

    /// Whether `inner` are the bytes of the keyring that is to be opened.
    #[must_use]
    pub fn names_keyring(&self, inner: &[u8]) -> bool {
        blake3::hash(inner) == self.keyring_hash
    }
}

/// Why an entry changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum IgnoreReason {
    /// Its writer's role may not write its kind.
    #[error("a slot of this role may not write it")]
    Role,
    /// Its body cannot be opened or read.
    #[error("its body cannot be read")]
    Body,
    /// Its key list does not follow from the one before.
    #[error("its key list does not follow from the one before")]
    Keys,
    /// A second first entry, or one that voids nothing.
    #[error("it is out of place")]
    OutOfPlace,
    /// A damaged entry that an owner has passed over.
    #[error("an owner has passed over it as damaged")]
    Void,
}

/// An entry that changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// Its number.
    pub seq: u64,
    /// Who wrote it; zeros where that cannot be told.
    pub writer: SlotId,
    /// Why.
    pub reason: IgnoreReason,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of the entry.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// Its time, by its writer's clock.
    pub time: Timestamp,
}

/// A verified entry, but for its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryMeta {
    /// Where it stands.
    pub at: Position,
    /// What it does.
    pub kind: EntryKind,
    /// Who signed it.
    pub writer: SlotId,
    /// In what role, at that prefix.
    pub role: Role,
    /// Its inline parts.
    pub parts: Vec<PartInfo>,
}

/// The meaning of a prefix of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The first owner's Ed25519 key, by which the log is anchored.
    pub owner: [u8; 32],
    /// Hash of the first entry.
    pub genesis: Hash,
    /// The last entry folded.
    pub head: Position,
    /// Slots and keyring.
    pub keys: KeyState,
    /// The snapshots that exist.
    pub snapshots: BTreeMap<SnapshotId, SnapshotState>,
    /// The snapshots that can be taken back.
    pub removed: BTreeMap<SnapshotId, RemovedSnapshot>,
    /// The live index objects.
    pub indexes: BTreeMap<IndexId, Place>,
    /// Those of them that came without a snapshot.
    pub checkpoints: BTreeMap<IndexId, Checkpoint>,
    /// Per writer the entry that added its last snapshot.
    pub last_snapshots: BTreeMap<SlotId, u64>,
    /// Index objects that were dropped; never live again.
    pub dropped_indexes: BTreeSet<IndexId>,
    /// Packs given up; never used again.
    pub swept: BTreeSet<PackId>,
    /// Sweeps whose deletions are not known to be done, by their numbers.
    pub open_sweeps: BTreeMap<u64, Sweep>,
    /// The body of the configuration and the entry that changed it, if one did.
    pub config: Option<(u64, Vec<u8>)>,
    /// What is noted about snapshots.
    pub annotations: BTreeMap<SnapshotId, Annotations>,
    /// Copies found bad.
    pub bad: BadCopies,
    /// Entries that change nothing.
    pub ignored: Vec<Ignored>,
}

impl State {
    /// The state after the first entry.
    #[must_use]
    pub const fn first(owner: [u8; 32], at: Position, keys: KeyState) -> Self {
        Self {
            owner,
            genesis: at.hash,
            head: at,
            keys,
            snapshots: BTreeMap::new(),
            removed: BTreeMap::new(),
            indexes: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            last_snapshots: BTreeMap::new(),
            dropped_indexes: BTreeSet::new(),
            swept: BTreeSet::new(),
            open_sweeps: BTreeMap::new(),
            config: None,
            annotations: BTreeMap::new(),
            bad: BadCopies::new(),
            ignored: Vec::new(),
        }
    }

    /// Folds the next entry. Its signature and place are the caller's business.
    pub fn apply(&mut self, entry: &EntryMeta, body: Result<&Body, IgnoreReason>) {
        let before = self.head.time;
        self.head = entry.at;
        let followed = body.and_then(|body| {
            if !entry.role.may_write(entry.kind) {
                return Err(IgnoreReason::Role);
            }
            self.follow(entry, before, body)
        });
        if let Err(reason) = followed {
            self.ignored.push(Ignored {
                seq: entry.at.seq,
                writer: entry.writer,
                reason,
            });
        }
    }

    /// Notes damaged entries that an owner passed over, before the void entry itself is applied.
    pub fn pass_over(&mut self, seqs: std::ops::Range<u64>) {
        self.ignored.extend(seqs.map(|seq| Ignored {
            seq,
            writer: SlotId::new([0; 32]),
            reason: IgnoreReason::Void,
        }));
    }

    /// Why the last entry changes nothing, if so.
    #[must_use]
    pub fn last_ignored(&self) -> Option<IgnoreReason> {
        let last = self.ignored.last()?;
        (last.seq == self.head.seq).then_some(last.reason)
    }

    fn follow(
        &mut self,
        entry: &EntryMeta,
        before: Timestamp,
        body: &Body,
    ) -> Result<(), IgnoreReason> {
        match body {
            Body::Genesis(_) => return Err(IgnoreReason::OutOfPlace),
            Body::AddPacks(body) => self.add_checkpoint(entry, &body.indexes),
            Body::AddSnapshot(body) => self.add_snapshot(entry, before, body),
            Body::RemoveSnapshots(body) => {
                for id in &body.snapshots {
                    self.remove_snapshot(entry, id);
                }
            }
            Body::RestoreSnapshots(body) => {
                for id in &body.snapshots {
                    if let Some(removed) = self.removed.remove(id) {
                        self.snapshots.insert(*id, removed.snapshot);
                    }
                }
            }
            Body::Sweep(body) => self.sweep(entry, body),
            Body::SweepDone(body) => {
                self.open_sweeps.remove(&body.sweep);
            }
            Body::Annotate(body) => self.annotate(entry, body),
            Body::ReplaceSnapshots(body) => self.replace(entry, before, body),
            Body::KeyChange(list) => {
                let keys = KeyState::from_list(list, Some(&self.keys));
                self.keys = keys.map_err(|_| IgnoreReason::Keys)?;
            }
            Body::ConfigChange(body) => self.config = Some((entry.at.seq, body.config.clone())),
            Body::Attest(body) => self.bad.apply(body),
            Body::Void(_) => {}
        }
        Ok(())
    }

    /// Whether a run that is alive may yet refer to what an index names: the index came without a
    /// snapshot, and either since the run began, after entry `since`, or from a run of whose
    /// writer no snapshot has come since, so that a run which takes it up may rely on it.
    #[must_use]
    pub fn awaits_snapshot(&self, index: &IndexId, since: u64) -> bool {
        self.checkpoints.get(index).is_some_and(|checkpoint| {
            let last = self.last_snapshots.get(&checkpoint.writer);
            checkpoint.seq > since || last.is_none_or(|last| *last < checkpoint.seq)
        })
    }

    fn add_checkpoint(&mut self, entry: &EntryMeta, indexes: &[IndexId]) {
        for id in indexes {
            if !self.indexes.contains_key(id) && !self.dropped_indexes.contains(id) {
                let (seq, writer) = (entry.at.seq, entry.writer);
                self.checkpoints.insert(*id, Checkpoint { seq, writer });
            }
        }
        self.add_indexes(entry, indexes);
    }

    fn add_indexes(&mut self, entry: &EntryMeta, indexes: &[IndexId]) {
        for id in indexes {
            if !self.dropped_indexes.contains(id) {
                let place = place_of(entry, id.as_bytes());
                self.indexes.entry(*id).or_insert(place);
            }
        }
    }

    fn add_snapshot(&mut self, entry: &EntryMeta, before: Timestamp, body: &AddSnapshot) {
        self.add_indexes(entry, &body.indexes);
        self.last_snapshots.insert(entry.writer, entry.at.seq);
        self.removed.remove(&body.snapshot);
        let state = new_snapshot(entry, before, body.snapshot, body.base);
        self.snapshots.entry(body.snapshot).or_insert(state);
    }

    fn remove_snapshot(&mut self, entry: &EntryMeta, id: &SnapshotId) {
        if let Some(snapshot) = self.snapshots.remove(id) {
            let removed = RemovedSnapshot {
                snapshot,
                seq: entry.at.seq,
                time: entry.at.time,
            };
            self.removed.insert(*id, removed);
        }
    }

    fn sweep(&mut self, entry: &EntryMeta, sweep: &Sweep) {
        self.swept.extend(&sweep.packs);
        self.dropped_indexes.extend(&sweep.drop_indexes);
        for id in &sweep.drop_indexes {
            self.indexes.remove(id);
            self.checkpoints.remove(id);
        }
        self.add_indexes(entry, &sweep.add_indexes);
        for id in &sweep.snapshots {
            if self.removed.remove(id).is_some() {
                self.annotations.remove(id);
            }
        }
        self.open_sweeps.insert(entry.at.seq, sweep.clone());
    }

    fn annotate(&mut self, entry: &EntryMeta, body: &Annotate) {
        for id in &body.snapshots {
            if !self.snapshots.contains_key(id) && !self.removed.contains_key(id) {
                continue;
            }
            let notes = self.annotations.entry(*id).or_default();
            for change in &body.changes {
                match change.clone() {
                    Change::AddTag(tag) => {
                        notes.removed_tags.remove(&tag);
                        notes.added_tags.insert(tag);
                    }
                    Change::RemoveTag(tag) => {
                        notes.added_tags.remove(&tag);
                        notes.removed_tags.insert(tag);
                    }
                    Change::Hold(reason) => notes.hold = Some(Some(reason)),
                    Change::Release => notes.hold = Some(None),
                    Change::Verified(how) => notes.verified = Some((entry.at.time, how)),
                    Change::Note(text) => notes.note = Some(text),
                }
            }
        }
    }

    fn replace(&mut self, entry: &EntryMeta, before: Timestamp, body: &ReplaceSnapshots) {
        self.add_indexes(entry, &body.indexes);
        for (old, new) in &body.pairs {
            if old == new || !self.snapshots.contains_key(old) {
                continue;
            }
            self.remove_snapshot(entry, old);
            self.removed.remove(new);
            let state = new_snapshot(entry, before, *new, entry.at.seq);
            self.snapshots.entry(*new).or_insert(state);
            if let Some(notes) = self.annotations.get(old).cloned() {
                self.annotations.insert(*new, notes);
            }
        }
    }
}

fn new_snapshot(entry: &EntryMeta, before: Timestamp, id: SnapshotId, base: u64) -> SnapshotState {
    SnapshotState {
        seq: entry.at.seq,
        time: entry.at.time,
        previous_time: before,
        writer: entry.writer,
        role: entry.role,
        place: place_of(entry, id.as_bytes()),
        base,
    }
}

/// Inside the entry, where a part is the object of that id; else in an object of its own.
fn place_of(entry: &EntryMeta, id: &[u8; 32]) -> Place {
    let inline = entry.parts.iter().any(|part| part.hash == *id);
    if inline {
        Place::Inline(entry.at.seq)
    } else {
        Place::Own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{
        log::PartKind,
        log_body::{AddPacks, ConfigChange, Snapshots, SweepDone},
        record::{self, Ext},
    };

    fn slot(role: u8) -> SlotKeys {
        let mut slot = SlotKeys {
            slot: SlotId::new([0; 32]),
            role,
            x25519: [role; 32],
            ed25519: [5; 32],
        };
        slot.slot = slot.identity();
        slot
    }

    fn keys() -> KeyList {
        KeyList {
            repo: RepoId::new([1; 16]),
            domain: DomainId::new([2; 16]),
            keyring: 1,
            keyring_hash: [3; 32],
            slots: vec![slot(1)],
        }
    }

    fn first() -> State {
        let at = Position {
            seq: 1,
            hash: [1; 32],
            time: time(100),
        };
        State::first([5; 32], at, KeyState::from_list(&keys(), None).unwrap())
    }

    fn time(secs: i64) -> Timestamp {
        Timestamp { secs, nanos: 0 }
    }

    fn entry(state: &State, kind: EntryKind) -> EntryMeta {
        let seq = state.head.seq + 1;
        EntryMeta {
            at: Position {
                seq,
                hash: [9; 32],
                time: time(100 * i64::try_from(seq).unwrap()),
            },
            kind,
            writer: slot(1).slot,
            role: Role::Owner,
            parts: vec![],
        }
    }

    fn apply(state: &mut State, body: Body) {
        let entry = entry(state, body.kind());
        state.apply(&entry, Ok(&body));
        let bytes = record::encode(state, &Ext::default(), "state").unwrap();
        let (again, _) = record::decode::<State>(&bytes, "state").unwrap();
        assert_eq!(again, *state, "a state survives the cache");
    }

    fn index(n: u8) -> IndexId {
        IndexId::new([n; 32])
    }

    fn snapshot(n: u8) -> SnapshotId {
        SnapshotId::new([n; 32])
    }

    fn add(n: u8) -> Body {
        Body::AddSnapshot(AddSnapshot {
            snapshot: snapshot(n),
            indexes: vec![index(n)],
            base: 1,
        })
    }

    fn these(ns: &[u8]) -> Snapshots {
        Snapshots {
            snapshots: ns.iter().map(|n| snapshot(*n)).collect(),
        }
    }

    fn sweep() -> Sweep {
        Sweep {
            plan: crate::id::RunId::new([0; 16]),
            packs: vec![PackId::new([1; 32])],
            drop_indexes: vec![index(1)],
            add_indexes: vec![index(8)],
            snapshots: vec![snapshot(1)],
        }
    }

    #[test]
    fn a_snapshot_lives_is_removed_comes_back_and_is_swept() {
        let mut state = first();
        apply(&mut state, add(1));
        let lives = state.snapshots[&snapshot(1)].clone();
        assert_eq!(
            (lives.seq, lives.time, lives.previous_time),
            (2, time(200), time(100))
        );
        assert_eq!((lives.role, lives.place), (Role::Owner, Place::Own));
        apply(&mut state, Body::RemoveSnapshots(these(&[1, 2])));
        assert!(state.snapshots.is_empty());
        let removed = &state.removed[&snapshot(1)];
        assert_eq!((removed.seq, removed.time), (3, time(300)));
        apply(&mut state, Body::RestoreSnapshots(these(&[1, 2])));
        assert_eq!(state.snapshots, [(snapshot(1), lives)].into());
        apply(&mut state, Body::RemoveSnapshots(these(&[1])));
        apply(&mut state, Body::Sweep(sweep()));
        assert!(state.removed.is_empty());
        apply(&mut state, Body::RestoreSnapshots(these(&[1])));
        assert!(
            state.snapshots.is_empty(),
            "a swept snapshot does not come back"
        );
        assert!(state.ignored.is_empty());
    }

    #[test]
    fn what_a_sweep_gave_up_never_comes_back() {
        let mut state = first();
        apply(&mut state, add(1));
        apply(&mut state, Body::Sweep(sweep()));
        assert_eq!(state.open_sweeps, [(3, sweep())].into());
        // A backup that ran meanwhile lists the index that was dropped.
        apply(&mut state, add(1));
        apply(
            &mut state,
            Body::AddPacks(AddPacks {
                indexes: vec![index(1), index(2)],
            }),
        );
        assert_eq!(
            state.indexes,
            [(index(2), Place::Own), (index(8), Place::Own)].into()
        );
        assert_eq!(state.swept.len(), 1);
        apply(&mut state, Body::SweepDone(SweepDone { sweep: 3 }));
        assert!(state.open_sweeps.is_empty());
        assert_eq!((state.swept.len(), state.dropped_indexes.len()), (1, 1));
    }

    #[test]
    fn what_came_without_a_snapshot_awaits_one_of_its_writer() {
        let mut state = first();
        let packs = |n| {
            let indexes = vec![index(n)];
            Body::AddPacks(AddPacks { indexes })
        };
        apply(&mut state, packs(1));
        apply(&mut state, packs(2));
        let awaits =
            |state: &State, since| [1, 2, 3].map(|n| state.awaits_snapshot(&index(n), since));
        assert_eq!(awaits(&state, 99), [true, true, false]);
        let mut by_other = entry(&state, EntryKind::AddSnapshot);
        by_other.writer = slot(2).slot;
        state.apply(&by_other, Ok(&add(9)));
        assert_eq!(awaits(&state, 99), [true, true, false], "not its writer's");
        apply(&mut state, add(3));
        assert_eq!(awaits(&state, 99), [false; 3]);
        assert_eq!(
            awaits(&state, 2),
            [false, true, false],
            "of a run under way"
        );
        let mut sweep = sweep();
        sweep.drop_indexes = vec![index(2)];
        apply(&mut state, Body::Sweep(sweep));
        assert_eq!(awaits(&state, 0), [true, false, false]);
        apply(&mut state, packs(2));
        assert_eq!(awaits(&state, 0), [true, false, false], "dropped for good");
    }

    #[test]
    fn an_index_or_snapshot_is_inline_where_a_part_has_its_hash() {
        let mut state = first();
        let mut meta = entry(&state, EntryKind::AddSnapshot);
        meta.parts = vec![PartInfo {
            kind: PartKind::Index,
            len: 1,
            hash: [1; 32],
        }];
        let body = Body::AddSnapshot(AddSnapshot {
            snapshot: snapshot(2),
            indexes: vec![index(1), index(3)],
            base: 1,
        });
        state.apply(&meta, Ok(&body));
        assert_eq!(state.indexes[&index(1)], Place::Inline(2));
        assert_eq!(state.indexes[&index(3)], Place::Own);
        assert_eq!(state.snapshots[&snapshot(2)].place, Place::Own);
    }

    #[test]
    fn notes_follow_a_snapshot_to_its_replacement() {
        let mut state = first();
        apply(&mut state, add(1));
        apply(
            &mut state,
            Body::Annotate(Annotate {
                snapshots: vec![snapshot(1), snapshot(77)],
                changes: vec![
                    Change::AddTag("a".into()),
                    Change::AddTag("b".into()),
                    Change::RemoveTag("b".into()),
                    Change::Hold("audit".into()),
                    Change::Verified("all data".into()),
                    Change::Note("n".into()),
                ],
            }),
        );
        let notes = Annotations {
            added_tags: ["a".to_owned()].into(),
            removed_tags: ["b".to_owned()].into(),
            hold: Some(Some("audit".to_owned())),
            verified: Some((time(300), "all data".to_owned())),
            note: Some("n".to_owned()),
        };
        assert_eq!(state.annotations, [(snapshot(1), notes.clone())].into());
        apply(
            &mut state,
            Body::ReplaceSnapshots(ReplaceSnapshots {
                pairs: vec![(snapshot(1), snapshot(2)), (snapshot(5), snapshot(6))],
                indexes: vec![index(9)],
            }),
        );
        assert_eq!(state.snapshots.keys().collect::<Vec<_>>(), [&snapshot(2)]);
        assert_eq!(state.annotations[&snapshot(2)], notes);
        assert!(state.removed.contains_key(&snapshot(1)) && state.indexes.contains_key(&index(9)));
    }

    #[test]
    fn entries_that_may_not_be_or_cannot_be_read_change_nothing() {
        let mut state = first();
        apply(&mut state, add(1));
        let kept = state.clone();
        let mut by_reader = entry(&state, EntryKind::RemoveSnapshots);
        by_reader.role = Role::Reader;
        let body = Body::RemoveSnapshots(these(&[1]));
        state.apply(&by_reader, Ok(&body));
        let unreadable = entry(&state, EntryKind::Sweep);
        state.apply(&unreadable, Err(IgnoreReason::Body));
        let again = entry(&state, EntryKind::Genesis);
        state.apply(&again, Ok(&Body::Genesis(keys())));
        let reasons: Vec<_> = state.ignored.iter().map(|i| (i.seq, i.reason)).collect();
        assert_eq!(
            reasons,
            [
                (3, IgnoreReason::Role),
                (4, IgnoreReason::Body),
                (5, IgnoreReason::OutOfPlace)
            ]
        );
        assert_eq!(state.last_ignored(), Some(IgnoreReason::OutOfPlace));
        assert_eq!((state.snapshots, state.keys), (kept.snapshots, kept.keys));
    }

    #[test]
    fn a_key_list_must_follow_from_the_one_before() {
        let before = KeyState::from_list(&keys(), None).unwrap();
        let follows = |change: &dyn Fn(&mut KeyList)| {
            let mut list = keys();
            list.keyring = 2;
            change(&mut list);
            KeyState::from_list(&list, Some(&before)).is_ok()
        };
        assert!(follows(&|_| {}));
        assert!(!follows(&|list| list.keyring = 1));
        assert!(!follows(&|list| list.repo = RepoId::new([9; 16])));
        assert!(!follows(&|list| list.domain = DomainId::new([9; 16])));
        assert!(!follows(&|list| list.slots.clear()));
        assert!(!follows(&|list| list.slots[0].role = 3));
        assert!(!follows(&|list| list.slots[0].role = 6));
        assert!(follows(&|list| list.slots.push(slot(2))));
        assert!(!follows(&|list| list.slots[0].x25519 = [9; 32]));
        assert!(!follows(&|list| list.slots.push(list.slots[0].clone())));
    }

    #[test]
    fn the_last_configuration_holds() {
        let mut state = first();
        for n in 1..=2 {
            apply(
                &mut state,
                Body::ConfigChange(ConfigChange { config: vec![n] }),
            );
        }
        assert_eq!(state.config, Some((3, vec![2])));
    }
}
