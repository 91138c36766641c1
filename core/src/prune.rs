//! Prune as people mean it: the repository gives up packs, the trees of all live snapshots say
//! what is needed. A tree that cannot be read stops it: what hangs below would be given up.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use strongroom_repo::{
    id::{BlobId, SnapshotId},
    prune::{PruneOptions, PruneProgress, PruneReport, Reach},
    repository::Repository,
};

use crate::{
    error::{Error, Result},
    reachable::{Reachable, TreeProblem, Visitor, add_record, load_record, walk},
};

/// What live snapshots need, found out as it is asked for.
struct Live<'a> {
    repo: &'a Repository,
    workers: usize,
    cancel: &'a AtomicBool,
    reachable: Reachable,
    covered: BTreeSet<SnapshotId>,
}

/// Keeps the first problem and counts the others.
#[derive(Default)]
struct Problems(Mutex<(Option<TreeProblem>, u64)>);

impl Visitor for Problems {
    fn problem(&self, problem: TreeProblem) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.1 += 1;
        held.0.get_or_insert(problem);
    }
}

impl Reach for Live<'_> {
    type Error = Error;

    fn cover(&mut self, snapshots: &BTreeSet<SnapshotId>) -> Result<()> {
        let mut roots = Vec::new();
        let mut loaded_now = Vec::new();
        for id in snapshots.difference(&self.covered) {
            let loaded = load_record(self.repo, *id)?;
            roots.push(loaded.root());
            loaded_now.push(loaded);
        }
        let problems = Problems::default();
        let (workers, cancel) = (self.workers, self.cancel);
        walk(
            self.repo,
            &roots,
            workers,
            &self.reachable,
            &problems,
            cancel,
        )?;
        let (first, count) = problems
            .0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = first {
            return Err(Error::DamagedTree {
                snapshot: problem.snapshot,
                path: problem.path,
                more: count - 1,
                source: Box::new(problem.what),
            });
        }
        for loaded in &loaded_now {
            add_record(&self.reachable, loaded);
            self.covered.insert(loaded.id);
        }
        Ok(())
    }

    fn contains(&self, blob: &BlobId) -> bool {
        self.reachable.contains(blob)
    }

    fn for_each(&self, each: &mut dyn FnMut(&BlobId)) {
        self.reachable.for_each(&mut |blob, _| each(blob));
    }
}

/// Gives up and deletes what no live snapshot needs, or says what would go on a dry run.
///
/// # Errors
/// [`Error::DamagedTree`] where a tree cannot be read, [`Error::Cancelled`] while trees are read,
/// or a failure of the repository.
pub fn prune(
    repo: &Repository,
    options: PruneOptions,
    workers: usize,
    progress: &dyn PruneProgress,
    cancel: &AtomicBool,
) -> Result<PruneReport> {
    let mut live = Live {
        repo,
        workers,
        cancel,
        reachable: Reachable::new(),
        covered: BTreeSet::new(),
    };
    repo.prune(&mut live, options, progress)
}
