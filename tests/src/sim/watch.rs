//! The one who sees everything: after each step that matters the promises are compared with what
//! the store holds. Reads the store beside the clients, without faults and without being seen.
//!
//! What is compared: the log has no hole and only grows; a snapshot that appears restores exactly
//! what its client meant to save; from then on, until somebody removes it, each of its blobs is in
//! a lasting pack that a live index names and that is not swept; nothing is deleted that a lasting
//! entry of the log did not give up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use strongroom_core::reachable::load_record;
use strongroom_repo::{
    backend::{Backend as _, ObjectKind, ObjectName},
    env::testing::seeded,
    id::{BlobId, PackId, SnapshotId},
    index::Found,
    keys::OpenedSlot,
    log::state::Place,
    repository::{OpenOptions, Repository, Secret},
};

use super::{
    source::{Files, restore},
    store::Store,
};

/// A promise that was not kept.
pub(super) type Broken = String;

/// What is known of a snapshot that appeared.
struct Known {
    /// What its client calls it.
    mark: String,
    /// What it needs.
    blobs: BTreeSet<BlobId>,
}

/// The watcher.
pub(super) struct Watch {
    repo: Repository,
    me: OpenedSlot,
    /// What clients are about to save, by the mark in the record.
    meant: BTreeMap<String, Files>,
    /// Snapshots whose clients were told that they exist.
    told: BTreeSet<SnapshotId>,
    /// Marks whose clients were told that they do not exist.
    denied: BTreeSet<String>,
    /// Snapshots that somebody wants gone.
    unwanted: BTreeMap<SnapshotId, u32>,
    /// Those of which somebody was told that they are gone.
    gone: BTreeSet<SnapshotId>,
    known: BTreeMap<SnapshotId, Known>,
    /// The entry by which each pack was swept.
    swept_at: BTreeMap<PackId, u64>,
    /// What an entry is, once and for all.
    entries: BTreeMap<u64, Arc<Vec<u8>>>,
}

impl Watch {
    pub(super) fn new(store: &Store, me: OpenedSlot) -> Result<Self, Broken> {
        let repo = open(store, &me)?;
        let mut this = Self {
            repo,
            me,
            meant: BTreeMap::new(),
            told: BTreeSet::new(),
            denied: BTreeSet::new(),
            unwanted: BTreeMap::new(),
            gone: BTreeSet::new(),
            known: BTreeMap::new(),
            swept_at: BTreeMap::new(),
            entries: BTreeMap::new(),
        };
        this.look(store)?;
        Ok(this)
    }

    /// A client is about to save this under this mark.
    pub(super) fn means(&mut self, mark: String, files: Files) {
        self.meant.insert(mark, files);
    }

    /// A client was told that its snapshot exists.
    pub(super) fn committed(&mut self, id: SnapshotId) -> Result<(), Broken> {
        if !self.known.contains_key(&id) {
            return Err(format!("{id} was committed and never was in the log"));
        }
        self.told.insert(id);
        Ok(())
    }

    /// A client was told that its snapshot does not exist.
    pub(super) fn refused(&mut self, mark: &str) -> Result<(), Broken> {
        self.denied.insert(mark.to_owned());
        self.deny()
    }

    /// A client is about to remove snapshots.
    pub(super) fn unwant(&mut self, ids: &[SnapshotId]) {
        for id in ids {
            *self.unwanted.entry(*id).or_default() += 1;
        }
    }

    /// A client was told that it did not remove them.
    pub(super) fn kept(&mut self, ids: &[SnapshotId]) -> Result<(), Broken> {
        for id in ids {
            if let Some(attempts) = self.unwanted.get_mut(id) {
                *attempts -= 1;
            }
        }
        self.unwanted.retain(|_, attempts| *attempts > 0);
        self.live_and_gone()
    }

    /// A client was told that they are removed.
    pub(super) fn removed(&mut self, ids: &[SnapshotId]) -> Result<(), Broken> {
        self.gone.extend(ids);
        self.live_and_gone()
    }

    /// Whether a snapshot is live now.
    pub(super) fn is_live(&self, id: &SnapshotId) -> bool {
        self.repo.snapshots().contains_key(id)
    }

    /// What a snapshot must restore, if it is one that appeared.
    pub(super) fn expected(&self, id: &SnapshotId) -> Option<&Files> {
        self.meant.get(&self.known.get(id)?.mark)
    }

    /// Looks at the store as it is after a change of the log.
    pub(super) fn look(&mut self, store: &Store) -> Result<(), Broken> {
        self.look_at_entries(store)?;
        self.repo
            .refresh()
            .map_err(|error| format!("the log cannot be read: {}", chain(&error)))?;
        let state = self.repo.state();
        for pack in &state.swept {
            self.swept_at.entry(*pack).or_insert(state.head.seq);
        }
        if let Some(pack) = self
            .swept_at
            .keys()
            .find(|pack| !state.swept.contains(*pack))
        {
            return Err(format!("pack {pack} is no longer swept"));
        }
        for id in state.snapshots.keys() {
            self.meet(*id)?;
        }
        self.deny()?;
        self.live_and_gone()?;
        self.all_there(store)
    }

    /// After a power cut the log may end earlier: reads it anew.
    pub(super) fn reopen(&mut self, store: &Store) -> Result<(), Broken> {
        let visible = store.visible();
        self.entries
            .retain(|seq, _| visible.len(&ObjectName::Log(*seq)).is_ok());
        self.repo = open(store, &self.me)?;
        let state = self.repo.state();
        self.swept_at.retain(|pack, _| state.swept.contains(pack));
        self.look(store)
    }

    /// The log is one piece, and no entry ever changes.
    fn look_at_entries(&mut self, store: &Store) -> Result<(), Broken> {
        let mut expected = 1;
        for (name, bytes) in store.visible().objects() {
            let ObjectName::Log(seq) = name else { continue };
            if seq != expected {
                return Err(format!("log entry {expected} is missing below {seq}"));
            }
            expected += 1;
            let before = self
                .entries
                .entry(seq)
                .or_insert_with(|| Arc::clone(&bytes));
            if *before != bytes {
                return Err(format!("log entry {seq} changed"));
            }
        }
        match self.entries.last_key_value() {
            Some((last, _)) if *last >= expected => Err(format!("log entry {last} is gone")),
            _ => Ok(()),
        }
    }

    /// Restores a snapshot that is new.
    fn meet(&mut self, id: SnapshotId) -> Result<(), Broken> {
        if self.known.contains_key(&id) {
            return Ok(());
        }
        let loaded = load_record(&self.repo, id)
            .map_err(|error| format!("the record of {id} cannot be read: {}", chain(&error)))?;
        let mark = loaded.snapshot.host.clone();
        let mut blobs = BTreeSet::from([loaded.record]);
        let found = restore(&self.repo, loaded.snapshot.tree, &mut |blob| {
            blobs.insert(blob);
        });
        let found = found.map_err(|error| {
            let why = chain(&error);
            format!("snapshot {id} ({mark}) cannot be restored: {why}")
        })?;
        match self.meant.get(&mark) {
            Some(meant) if *meant == found => {}
            Some(_) => return Err(format!("snapshot {id} ({mark}) restores something else")),
            None => return Err(format!("snapshot {id} is nobody's")),
        }
        self.known.insert(id, Known { mark, blobs });
        Ok(())
    }

    fn deny(&self) -> Result<(), Broken> {
        let denied = |known: &&Known| self.denied.contains(&known.mark);
        match self.known.values().find(denied) {
            Some(known) => Err(format!("{} exists although that was denied", known.mark)),
            None => Ok(()),
        }
    }

    fn live_and_gone(&self) -> Result<(), Broken> {
        let live = self.repo.snapshots();
        for id in &self.told {
            if !live.contains_key(id) && !self.unwanted.contains_key(id) {
                return Err(format!("snapshot {id} is gone and nobody removed it"));
            }
        }
        match self.gone.iter().find(|id| live.contains_key(*id)) {
            Some(id) => Err(format!("snapshot {id} is there although it was removed")),
            None => Ok(()),
        }
    }

    /// Everything that live snapshots need is where it lasts.
    pub(super) fn all_there(&self, store: &Store) -> Result<(), Broken> {
        let state = self.repo.state();
        for (id, place) in &state.indexes {
            if *place == Place::Own && !store.is_lasting(&ObjectName::Index(*id)) {
                return Err(format!("live index {id} does not last"));
            }
        }
        let mut good: BTreeMap<BlobId, bool> = BTreeMap::new();
        for (id, snapshot) in &state.snapshots {
            if snapshot.place == Place::Own && !store.is_lasting(&ObjectName::Snapshot(*id)) {
                return Err(format!("the record of {id} does not last"));
            }
            let Some(known) = self.known.get(id) else {
                continue;
            };
            for blob in &known.blobs {
                let lasts = match good.get(blob) {
                    Some(lasts) => *lasts,
                    None => {
                        let lasting = |blob: &BlobId| self.lasting_copies(store, blob);
                        let mut readable = false;
                        for base in lasting(blob)? {
                            // A delta lasts no longer than a whole copy of its base.
                            readable |= match base {
                                Some(base) => lasting(&base)?.contains(&None),
                                None => true,
                            };
                        }
                        readable
                    }
                };
                good.insert(*blob, lasts);
                if !lasts {
                    let mark = &known.mark;
                    return Err(format!("blob {blob} of snapshot {id} ({mark}) is lost"));
                }
            }
        }
        Ok(())
    }

    /// The bases of the copies of a blob, or that they have none, in packs that are not swept and
    /// where they last.
    fn lasting_copies(&self, store: &Store, blob: &BlobId) -> Result<Vec<Option<BlobId>>, Broken> {
        let (state, index) = (self.repo.state(), self.repo.index());
        let copies = index.copies(blob).map_err(|error| chain(&error))?;
        let lasts = |copy: &&Found| {
            index.pack(copy.pack).is_some_and(|pack| {
                !state.swept.contains(&pack.id) && store.is_lasting(&ObjectName::Pack(pack.id))
            })
        };
        let lasting = copies.iter().filter(lasts);
        Ok(lasting.map(|copy| copy.entry.base).collect())
    }

    /// Whether an object may be deleted now.
    pub(super) fn may_delete(&self, name: &ObjectName, store: &Store) -> Result<(), Broken> {
        let state = self.repo.state();
        let allowed = match name {
            ObjectName::Hint(_) | ObjectName::Key(_) => true,
            ObjectName::Pack(pack) | ObjectName::Parity(pack) => {
                self.swept_at.get(pack).is_some_and(|seq| {
                    (1..=*seq).all(|entry| store.is_durable(&ObjectName::Log(entry)))
                })
            }
            ObjectName::Index(index) => !state.indexes.contains_key(index),
            ObjectName::Snapshot(snapshot) => !state.snapshots.contains_key(snapshot),
            _ => false,
        };
        if allowed {
            return Ok(());
        }
        Err(format!(
            "{name} is deleted, which nothing in the log allows"
        ))
    }

    /// Whether an object may be replaced by these bytes.
    pub(super) fn may_replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), Broken> {
        let same = match name {
            ObjectName::Log(seq) => self
                .entries
                .get(seq)
                .is_some_and(|entry| entry.as_slice() == bytes),
            _ => false,
        };
        if same {
            return Ok(());
        }
        Err(format!("{name} is replaced by something else"))
    }

    /// Snapshots that are live now.
    pub(super) fn live(&self) -> Vec<SnapshotId> {
        self.repo.snapshots().into_keys().collect()
    }

    /// Entries of a kind of object, for the figures.
    pub(super) fn count(store: &Store, kind: ObjectKind) -> usize {
        let objects = store.visible().objects();
        objects.keys().filter(|name| name.kind() == kind).count()
    }
}

fn open(store: &Store, me: &OpenedSlot) -> Result<Repository, Broken> {
    let secret = Secret::Opened(Box::new(me.clone()));
    let backend = Arc::new(store.visible().clone());
    Repository::open(backend, seeded(u64::MAX), secret, OpenOptions::default())
        .map_err(|error| format!("the repository cannot be opened: {}", chain(&error)))
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        out.push_str(": ");
        out.push_str(&cause.to_string());
        next = cause.source();
    }
    out
}
