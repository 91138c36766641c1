//! The store of a simulation: what every client sees, what of it would survive a power cut, and
//! puts that are still on their way. Weaker than any backend may be, never stronger: a name lasts
//! only once a barrier has covered it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use strongroom_repo::backend::{Backend as _, MemBackend, ObjectKind, ObjectName, PutOutcome};

type Objects = BTreeMap<ObjectName, Arc<Vec<u8>>>;

/// A change of a name that no barrier has covered.
struct Change {
    /// The bytes that it puts; none for a removal.
    bytes: Option<Arc<Vec<u8>>>,
    /// The sessions whose barriers cover it, where only those of its own do.
    by: BTreeSet<u64>,
}

/// The objects of all clients.
pub(super) struct Store {
    visible: MemBackend,
    durable: Objects,
    pending: BTreeMap<ObjectName, Vec<Change>>,
    late: Vec<(u64, ObjectName, Vec<u8>)>,
}

impl Store {
    /// A store with the objects of `start`, all of them durable.
    pub(super) fn new(start: &MemBackend) -> Self {
        Self {
            visible: MemBackend::with_objects("the store", start.objects()),
            durable: start.objects(),
            pending: BTreeMap::new(),
            late: Vec::new(),
        }
    }

    /// What everybody sees. For reading only.
    pub(super) const fn visible(&self) -> &MemBackend {
        &self.visible
    }

    /// Whether an object is there, and would be after a power cut.
    pub(super) fn is_lasting(&self, name: &ObjectName) -> bool {
        self.durable.contains_key(name) && self.visible.len(name).is_ok()
    }

    /// Whether an object would be there after a power cut.
    pub(super) fn is_durable(&self, name: &ObjectName) -> bool {
        self.durable.contains_key(name)
    }

    pub(super) fn put(&mut self, session: u64, name: ObjectName, bytes: &[u8]) -> PutOutcome {
        if self.visible.len(&name).is_ok() {
            // Who meets a name that is taken may rely on it after a barrier.
            let last = self.pending.get_mut(&name).and_then(|all| all.last_mut());
            if let Some(change) = last {
                change.by.insert(session);
            }
            return PutOutcome::Exists;
        }
        self.visible.replace(name, bytes.to_vec());
        self.change(session, name, Some(Arc::new(bytes.to_vec())));
        PutOutcome::Created
    }

    pub(super) fn delete(&mut self, session: u64, name: &ObjectName) {
        if self.visible.remove(name).is_some() {
            self.change(session, *name, None);
        }
    }

    pub(super) fn replace(&mut self, name: ObjectName, bytes: &[u8]) {
        self.visible.replace(name, bytes.to_vec());
        self.pending.remove(&name);
        self.durable.insert(name, Arc::new(bytes.to_vec()));
    }

    /// What a barrier promises: all names of a kind, but of packs and parity only those that the
    /// same session put, met or removed.
    pub(super) fn barrier(&mut self, session: u64, kind: ObjectKind) {
        let own_only = matches!(kind, ObjectKind::Pack | ObjectKind::Parity);
        let covers = |change: &Change| !own_only || change.by.contains(&session);
        let now = self.visible.objects();
        let durable = &mut self.durable;
        self.pending.retain(|name, changes| {
            let covered = name.kind() == kind && changes.iter().any(covers);
            if covered {
                match now.get(name) {
                    Some(bytes) => durable.insert(*name, Arc::clone(bytes)),
                    None => durable.remove(name),
                };
            }
            !covered
        });
    }

    /// Sends a put on its way, to arrive whenever [`Store::arrive`] says.
    pub(super) fn send(&mut self, session: u64, name: ObjectName, bytes: Vec<u8>) {
        self.late.push((session, name, bytes));
    }

    /// How many puts are on their way.
    pub(super) const fn under_way(&self) -> usize {
        self.late.len()
    }

    /// Lets a put arrive; the name, where that changed something.
    pub(super) fn arrive(&mut self, which: usize) -> Option<ObjectName> {
        if which >= self.late.len() {
            return None;
        }
        let (session, name, bytes) = self.late.swap_remove(which);
        (self.put(session, name, &bytes) == PutOutcome::Created).then_some(name)
    }

    /// Keeps of the changes that no barrier covered those for which `coin` says so, in order; what
    /// was on its way is lost.
    pub(super) fn lose_power(&mut self, coin: &mut dyn FnMut() -> bool) {
        for (name, changes) in std::mem::take(&mut self.pending) {
            for change in changes {
                if coin() {
                    match change.bytes {
                        Some(bytes) => self.durable.insert(name, bytes),
                        None => self.durable.remove(&name),
                    };
                }
            }
        }
        self.late.clear();
        self.visible = MemBackend::with_objects("the store", self.durable.clone());
    }

    fn change(&mut self, session: u64, name: ObjectName, bytes: Option<Arc<Vec<u8>>>) {
        let by = BTreeSet::from([session]);
        let changes = self.pending.entry(name).or_default();
        changes.push(Change { bytes, by });
    }
}
