//! What the store shows before a prune, and clearing away what the log has given up already or
//! what means nothing: for these no entry is needed.

use std::collections::{BTreeMap, HashSet};

use super::{
    hint::{RunHint, read_hints},
    plan::{Basis, PrunePlan},
};
use crate::{
    backend::{Backend, BackendError, ObjectKind, ObjectName},
    error::Result,
    id::{BlobId, PackId},
    log::state::{Place, State},
    mutant::Mutant,
    repository::Repository,
};

/// What the store shows.
pub(super) struct Survey {
    packs: BTreeMap<PackId, u64>,
    running: Vec<RunHint>,
    stale_hints: Vec<ObjectName>,
    keeps_bases: bool,
}

impl Survey {
    pub(super) fn take(repo: &Repository) -> Result<Self> {
        // A pack that only a lost index knows of would look like nobody's.
        repo.demand_whole_index()?;
        let backend = repo.backend().as_ref();
        let mut packs = BTreeMap::new();
        backend.list(ObjectKind::Pack, &mut |name, len| {
            if let ObjectName::Pack(pack) = name {
                packs.insert(pack, len);
            }
        })?;
        // After the packs: a run whose packs were seen has shown its hint before.
        let (running, stale_hints) = read_hints(backend, repo.env().now())?;
        Ok(Self {
            packs,
            running,
            stale_hints,
            keeps_bases: !repo.is(Mutant::CopySuffices),
        })
    }

    pub(super) fn basis<'a>(
        &'a self,
        state: &'a State,
        distrusted: &'a HashSet<(PackId, BlobId)>,
    ) -> Basis<'a> {
        Basis {
            state,
            stored: &self.packs,
            since: self.running.iter().map(|run| run.since.unwrap_or(0)).min(),
            distrusted,
            keeps_bases: self.keeps_bases,
        }
    }

    /// Whose runs may go on.
    pub(super) fn labels(&self) -> Vec<String> {
        self.running.iter().map(|run| run.label.clone()).collect()
    }
}

/// What was cleared away.
pub(super) struct Cleaned {
    /// Packs that were swept before.
    pub(super) packs: u64,
    /// Temporary files.
    pub(super) files: u64,
}

/// Clears away packs and parity swept before `plan` was made, hints that nobody believes any
/// more, index objects that can never count, and temporary files of runs that are gone.
pub(super) fn clean(repo: &Repository, plan: &PrunePlan, survey: &Survey) -> Result<Cleaned> {
    let state = repo.state();
    let backend = repo.backend().as_ref();
    // Another client's sweep may be in sight and not yet last: it must before anything goes.
    backend.barrier(ObjectKind::Log)?;
    for pack in &plan.leftovers {
        delete_pack(backend, pack)?;
    }
    let mut parity = Vec::new();
    backend.list(ObjectKind::Parity, &mut |name, _| {
        if let ObjectName::Parity(pack) = name
            && state.swept.contains(&pack)
        {
            parity.push(name);
        }
    })?;
    for name in parity.iter().chain(&survey.stale_hints) {
        backend.delete(name)?;
    }
    backend.barrier(ObjectKind::Pack)?;
    backend.barrier(ObjectKind::Parity)?;
    clean_indexes(repo, &state)?;
    Ok(Cleaned {
        packs: u64::try_from(plan.leftovers.len()).unwrap_or(u64::MAX),
        files: backend.remove_leftovers()?,
    })
}

/// Deletes index objects that can never count: dropped ones, and those that no entry names and
/// that name swept packs only, so that no entry which names them passes its check.
fn clean_indexes(repo: &Repository, state: &State) -> Result<()> {
    let backend = repo.backend().as_ref();
    let mut stray = Vec::new();
    backend.list(ObjectKind::Index, &mut |name, _| {
        if let ObjectName::Index(id) = name
            && !state.indexes.contains_key(&id)
        {
            stray.push(id);
        }
    })?;
    for id in stray {
        let dead = state.dropped_indexes.contains(&id)
            || repo.index_body(id, Place::Own).is_ok_and(|body| {
                !body.packs.is_empty()
                    && body.packs.iter().all(|pack| state.swept.contains(&pack.id))
            });
        if dead {
            backend.delete(&ObjectName::Index(id))?;
        }
    }
    backend.barrier(ObjectKind::Index)?;
    Ok(())
}

/// Deletes a pack that was swept, and its parity.
pub(super) fn delete_pack(backend: &dyn Backend, pack: &PackId) -> Result<(), BackendError> {
    backend.delete(&ObjectName::Pack(*pack))?;
    backend.delete(&ObjectName::Parity(*pack))
}
