//! What `check` and `prune` need of an open repository beyond its public face: its keys, its log,
//! its objects one by one. Nothing here decides anything.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard},
};

use super::{Repository, open::read_slots};
use crate::{
    crypto::Roots,
    error::Result,
    format::{index::IndexBody, slot::Slot},
    id::{DomainId, IndexId, SlotId, SlotObjectId},
    log::{Anchor, Log, state::Place},
};

impl Repository {
    pub(crate) const fn roots(&self) -> &Arc<Roots> {
        &self.roots
    }

    pub(crate) const fn domain(&self) -> DomainId {
        self.domain
    }

    /// What the log must begin with.
    pub(crate) const fn anchor(&self) -> Anchor {
        Anchor {
            repo: self.repo,
            domain: self.domain,
            owner: self.me.anchor.owner,
        }
    }

    /// The key in use.
    pub(crate) fn slot_id(&self) -> SlotId {
        self.me.identity.public().slot_id()
    }

    pub(crate) fn config_inner(&self) -> &[u8] {
        &self.config_inner
    }

    /// The log. Held during an append: checks that run inside one must not ask for it.
    pub(crate) fn lock_log(&self) -> MutexGuard<'_, Log> {
        self.log()
    }

    pub(crate) fn index_body(&self, id: IndexId, place: Place) -> Result<IndexBody> {
        self.read_index(id, place)
    }

    pub(crate) fn slots(&self) -> Result<BTreeMap<SlotObjectId, Result<Slot>>> {
        read_slots(self.backend.as_ref())
    }

    /// Brings index and memory up to the log as it is known.
    pub(crate) fn settle(&self) -> Result<()> {
        self.load_index()?;
        self.remember();
        Ok(())
    }
}
