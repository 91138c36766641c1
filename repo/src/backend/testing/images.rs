//! What may be left of a store after a crash. A put has durable bytes when it returns, its name
//! only after a barrier of its kind; a removal likewise. Until then each of them may have reached
//! the disk or not, in any order. `history` goes through all moments of a run.

use std::{collections::BTreeMap, sync::Arc};

use super::super::{MemBackend, ObjectKind, ObjectName};

pub(super) type Objects = BTreeMap<ObjectName, Arc<Vec<u8>>>;

/// One change of a name that no barrier has covered yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(ObjectName, Arc<Vec<u8>>),
    Delete(ObjectName),
}

impl Change {
    pub(super) const fn name(&self) -> ObjectName {
        match self {
            Self::Put(name, _) | Self::Delete(name) => *name,
        }
    }

    pub(super) fn apply(&self, objects: &mut Objects) {
        match self {
            Self::Put(name, bytes) => {
                objects.insert(*name, Arc::clone(bytes));
            }
            Self::Delete(name) => {
                objects.remove(name);
            }
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Put(name, _) => format!("put {name}"),
            Self::Delete(name) => format!("delete {name}"),
        }
    }
}

/// One step of a run that changed what a crash would leave.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Change(Change),
    Replace(ObjectName, Arc<Vec<u8>>),
    Barrier(ObjectKind),
}

/// What is durable, and what is not yet, in the order in which it was done.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    durable: Objects,
    pending: Vec<Change>,
}

impl Journal {
    /// A store in which everything is durable.
    pub(super) const fn new(durable: Objects) -> Self {
        Self {
            durable,
            pending: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Change(change) => self.pending.push(change.clone()),
            // A replacement is durable at once, and what was pending for its name is history.
            Step::Replace(name, bytes) => {
                self.pending.retain(|change| change.name() != *name);
                self.durable.insert(*name, Arc::clone(bytes));
            }
            Step::Barrier(kind) => {
                for change in &self.pending {
                    if change.name().kind() == *kind {
                        change.apply(&mut self.durable);
                    }
                }
                self.pending.retain(|change| change.name().kind() != *kind);
            }
        }
    }

    /// Only what a barrier covered.
    pub(super) const fn durable(&self) -> &Objects {
        &self.durable
    }

    /// The changes that no barrier covered.
    pub(super) fn pending(&self) -> &[Change] {
        &self.pending
    }

    /// Everything that was issued; only what a barrier covered; that and each change on its own.
    /// Images that equal an earlier one are left out.
    pub(super) fn images(&self, label: &str) -> Vec<MemBackend> {
        let mut images = vec![
            self.image(label, "everything issued", self.pending.iter()),
            self.image(label, "only what a barrier covered", [].iter()),
        ];
        for change in &self.pending {
            let what = format!("only what a barrier covered and {}", change.describe());
            images.push(self.image(label, &what, std::iter::once(change)));
        }
        distinct(images)
    }

    /// Every subset of the pending changes; `None` if there are more than `most` of them.
    pub(super) fn subsets(&self, label: &str, most: u32) -> Option<Vec<MemBackend>> {
        let count = u32::try_from(self.pending.len()).ok()?;
        if count > most {
            return None;
        }
        let images = (0..1_u64.checked_shl(count)?).map(|mask| {
            let chosen = self.pending.iter().zip(0_u32..);
            let chosen: Vec<_> = chosen
                .filter(|(_, at)| (mask >> at) & 1 == 1)
                .map(|(change, _)| change)
                .collect();
            let what = format!("only what a barrier covered and changes {mask:#b}");
            self.image(label, &what, chosen.into_iter())
        });
        Some(distinct(images.collect()))
    }

    fn image<'a>(
        &self,
        label: &str,
        what: &str,
        changes: impl Iterator<Item = &'a Change>,
    ) -> MemBackend {
        let mut objects = self.durable.clone();
        for change in changes {
            change.apply(&mut objects);
        }
        MemBackend::with_objects(&format!("{label}: {what}"), objects)
    }
}

fn distinct(images: Vec<MemBackend>) -> Vec<MemBackend> {
    let mut seen: Vec<Objects> = Vec::new();
    let mut kept = Vec::new();
    for image in images {
        let objects = image.objects();
        if !seen.contains(&objects) {
            seen.push(objects);
            kept.push(image);
        }
    }
    kept
}
