//! Doing what a plan says: sweeps of so many packs at a time, each checked at exactly its prefix,
//! then the deletions in the order of invariant I1. A cut between any two steps leaves a sweep
//! without its end, which the next maintenance run finishes, whoever began it.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    Reach,
    clean::{Survey, clean, delete_pack},
    plan::{PrunePlan, dead_indexes, plan},
    rescue::{Rescued, rescue},
    verify::CopyReader,
    view::{IndexCopies, copies_of, entries_of, pack_of},
};
use crate::{
    backend::{Backend, ObjectKind, ObjectName},
    error::{Error, Result},
    format::{
        log::EntryKind,
        log_body::{Body, MAX_SWEEP_PACKS, Sweep, SweepDone},
    },
    id::{BlobId, IndexId, PackId, SnapshotId},
    index::Index,
    log::{
        AppendError, Draft, LogError,
        check::{Conflict, Copies, View, check_sweep_by},
        state::{BadCopies, State},
    },
    mutant::Mutant,
    repository::Repository,
    writer::WriterOptions,
};

/// How often a plan is made anew because the repository moved.
const MAX_ROUNDS: u32 = 100;

/// What to prune, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneOptions {
    /// Only plan.
    pub dry_run: bool,
    /// Bytes of packs with what is copied out of damaged ones that may wait for the store.
    pub in_flight: usize,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            in_flight: WriterOptions::default().in_flight,
        }
    }
}

/// What a prune is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneStep {
    /// Deciding which packs go.
    Planning,
    /// Reading copies that are about to be the only ones.
    Verifying,
    /// Giving packs up in the log.
    Sweeping,
    /// Deleting objects.
    Deleting,
}

/// Hears how far a prune is.
pub trait PruneProgress: Sync {
    /// So many of so many blobs, packs or objects of a step are done.
    fn advanced(&self, _step: PruneStep, _done: u64, _total: u64) {}
}

impl PruneProgress for () {}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// What was planned at first.
    pub plan: PrunePlan,
    /// Packs given up by this run.
    pub swept: u64,
    /// Packs whose objects this run deleted, those of interrupted sweeps included.
    pub deleted: u64,
    /// Index objects that stopped being live.
    pub dropped_indexes: u64,
    /// Removed snapshots that can no longer be restored.
    pub snapshots: u64,
    /// Interrupted sweeps that were finished first, by their numbers in the log.
    pub finished: Vec<u64>,
    /// What was copied out of damaged packs.
    pub rescued: Rescued,
    /// Temporary files of runs that are gone.
    pub leftovers: u64,
    /// Runs that may be storing packs, and whose packs were left alone.
    pub running: Vec<String>,
    /// Whether the disk was full and the reserve was used.
    pub used_reserve: bool,
    /// Whether a used reserve could be set aside again.
    pub reserve_restored: bool,
}

/// Whose error it was.
enum Failure<E> {
    Own(Error),
    Reach(E),
}

impl<E, T: Into<Error>> From<T> for Failure<E> {
    fn from(error: T) -> Self {
        Self::Own(error.into())
    }
}

/// Why a sweep was not appended.
enum Refusal {
    /// The plan is for another state.
    Moved,
    Conflict(Conflict),
    Lookup(Error),
}

impl From<Conflict> for Refusal {
    fn from(conflict: Conflict) -> Self {
        Self::Conflict(conflict)
    }
}

/// How a round ended.
enum Round {
    Done,
    /// Others changed what the plan rests on.
    Moved(Option<Conflict>),
}

struct Run<'a> {
    repo: &'a Repository,
    progress: &'a dyn PruneProgress,
    in_flight: usize,
    report: PruneReport,
    planned: bool,
}

/// What a plan rests on: while it is as it was, the plan holds.
struct Ground {
    snapshots: BTreeSet<SnapshotId>,
    indexes: BTreeSet<IndexId>,
    bad: BadCopies,
}

impl Ground {
    fn of(state: &State) -> Self {
        Self {
            snapshots: state.snapshots.keys().copied().collect(),
            indexes: state.indexes.keys().copied().collect(),
            bad: state.bad.clone(),
        }
    }

    fn holds(&self, state: &State) -> bool {
        self.snapshots.iter().eq(state.snapshots.keys())
            && self.indexes.iter().eq(state.indexes.keys())
            && self.bad == state.bad
    }
}

impl Repository {
    /// What [`Repository::prune`] would do now.
    ///
    /// # Errors
    /// The store, the log or `reach` failed.
    pub fn plan_prune<R: Reach>(&self, reach: &mut R) -> Result<PrunePlan, R::Error> {
        Ok(self.plan_with_runs(reach)?.0)
    }

    /// The plan, and whose runs may go on.
    fn plan_with_runs<R: Reach>(
        &self,
        reach: &mut R,
    ) -> Result<(PrunePlan, Vec<String>), R::Error> {
        self.refresh()?;
        let state = self.state();
        reach.cover(&state.snapshots.keys().copied().collect())?;
        let survey = Survey::take(self)?;
        let basis = survey.basis(&state, &NONE);
        Ok((plan(&self.index(), reach, &basis)?, survey.labels()))
    }

    /// Gives up and deletes what no live snapshot needs. What others add meanwhile is taken into
    /// account; what others relied on and did not yet commit fails at their commit.
    ///
    /// # Errors
    /// The store, the log or `reach` failed. Nothing that is needed is gone by then, and what was
    /// begun is finished by the next run.
    pub fn prune<R: Reach>(
        &self,
        reach: &mut R,
        options: PruneOptions,
        progress: &dyn PruneProgress,
    ) -> Result<PruneReport, R::Error> {
        if options.dry_run {
            let (plan, running) = self.plan_with_runs(reach)?;
            return Ok(PruneReport {
                plan,
                running,
                ..PruneReport::default()
            });
        }
        let mut run = Run {
            repo: self,
            progress,
            in_flight: options.in_flight,
            report: PruneReport::default(),
            planned: false,
        };
        let mut result = run.attempt(reach);
        if let Err(Failure::Own(error)) = &result
            && error.is_no_space()
            && self.backend().release_reserve().map_err(Error::from)?
        {
            run.report.used_reserve = true;
            result = run.attempt(reach);
        }
        // A forget may have used it before.
        if run.report.used_reserve || run.report.deleted > 0 {
            run.report.reserve_restored = self.backend().restore_reserve().unwrap_or(false);
        }
        match result {
            Ok(()) => Ok(run.report),
            Err(Failure::Own(error)) => Err(error.into()),
            Err(Failure::Reach(error)) => Err(error),
        }
    }
}

static NONE: std::sync::LazyLock<HashSet<(PackId, BlobId)>> =
    std::sync::LazyLock::new(HashSet::new);

impl Run<'_> {
    fn backend(&self) -> &dyn Backend {
        self.repo.backend().as_ref()
    }

    fn attempt<R: Reach>(&mut self, reach: &mut R) -> Result<(), Failure<R::Error>> {
        let mut distrusted = HashSet::new();
        let mut conflict = None;
        for _ in 0..MAX_ROUNDS {
            self.repo.refresh()?;
            self.finish_open_sweeps()?;
            // Finishing a sweep reads on in the log: the plan wants an index of the same prefix.
            self.repo.refresh()?;
            let state = self.repo.state();
            let live = state.snapshots.keys().copied().collect();
            reach.cover(&live).map_err(Failure::Reach)?;
            self.progress.advanced(PruneStep::Planning, 0, 1);
            let index = self.repo.index();
            let rescued = rescue(self.repo, &index, &state, reach, self.in_flight)?;
            if rescued.packs > 0 {
                self.report.rescued = rescued;
                continue;
            }
            let survey = Survey::take(self.repo)?;
            let plan = plan(&index, reach, &survey.basis(&state, &distrusted))?;
            if !self.planned {
                self.report.plan = plan.clone();
                self.planned = true;
            }
            self.report.running = survey.labels();
            let unreadable = self.verify(&index, &plan)?;
            if !unreadable.is_empty() {
                distrusted.extend(unreadable);
                continue;
            }
            match self.sweep_all(&plan, &state, &index, reach)? {
                Round::Done => {
                    let cleaned = clean(self.repo, &plan, &survey)?;
                    self.report.deleted += cleaned.packs;
                    self.report.leftovers = cleaned.files;
                    self.repo.refresh()?;
                    self.repo.settle()?;
                    return Ok(());
                }
                Round::Moved(why) => conflict = why.or(conflict),
            }
        }
        Err(match conflict {
            Some(conflict) => Error::Conflict(conflict).into(),
            None => Error::Log(LogError::Crowded { rounds: MAX_ROUNDS }).into(),
        })
    }

    /// Opens the copies that are about to be the only ones; returns those that cannot be read.
    fn verify(&self, index: &Index, plan: &PrunePlan) -> Result<Vec<(PackId, BlobId)>> {
        let total = u64::try_from(plan.verify.len()).unwrap_or(u64::MAX);
        let mut reader = CopyReader::new(self.repo)?;
        let mut unreadable = Vec::new();
        for (done, (blob, pack)) in (0..).zip(&plan.verify) {
            self.progress.advanced(PruneStep::Verifying, done, total);
            let copy = copies_of(index, blob)?
                .into_iter()
                .find(|copy| pack_of(index, copy) == Some(*pack));
            let read = copy.is_some_and(|copy| reader.reads(index, *pack, &copy));
            if !read {
                unreadable.push((*pack, *blob));
            }
        }
        Ok(unreadable)
    }

    /// Sweeps and deletes, some packs at a time.
    fn sweep_all<R: Reach>(
        &mut self,
        plan: &PrunePlan,
        state: &State,
        index: &Arc<Index>,
        reach: &R,
    ) -> Result<Round> {
        let mut ground = Ground::of(state);
        let packs: Vec<PackId> = plan.sweep.iter().chain(&plan.orphans).copied().collect();
        let total = u64::try_from(packs.len()).unwrap_or(u64::MAX);
        let mut gone: Vec<PackId> = Vec::new();
        let mut snapshots = plan.snapshots.clone();
        let mut rest = packs.as_slice();
        loop {
            let (chunk, tail) = rest.split_at(rest.len().min(MAX_SWEEP_PACKS));
            rest = tail;
            gone.extend(chunk);
            gone.sort_unstable();
            let mut drop_indexes = dead_indexes(index, state, &gone);
            drop_indexes.retain(|id| ground.indexes.contains(id));
            let sweep = Sweep {
                plan: self.repo.env().run(),
                packs: chunk.to_vec(),
                drop_indexes,
                add_indexes: Vec::new(),
                snapshots: std::mem::take(&mut snapshots),
            };
            let nothing = sweep.packs.is_empty()
                && sweep.drop_indexes.is_empty()
                && sweep.snapshots.is_empty();
            if nothing {
                return Ok(Round::Done);
            }
            if self.repo.is(Mutant::DeletedBeforeSwept) {
                for pack in chunk {
                    delete_pack(self.backend(), pack)?;
                }
            }
            let touched = touched(index, plan, chunk, reach)?;
            let seq = match self.append(&sweep, &ground, index, &touched)? {
                Ok(seq) => seq,
                Err(conflict) => return Ok(Round::Moved(conflict)),
            };
            for dropped in &sweep.drop_indexes {
                ground.indexes.remove(dropped);
            }
            self.report.swept += u64::try_from(chunk.len()).unwrap_or(0);
            self.report.dropped_indexes += u64::try_from(sweep.drop_indexes.len()).unwrap_or(0);
            self.report.snapshots += u64::try_from(sweep.snapshots.len()).unwrap_or(0);
            let swept = total.saturating_sub(u64::try_from(rest.len()).unwrap_or(0));
            self.progress.advanced(PruneStep::Sweeping, swept, total);
            self.finish(seq, &sweep)?;
            if rest.is_empty() {
                return Ok(Round::Done);
            }
        }
    }

    /// Appends a sweep where it loses nothing at exactly that prefix; `Err` where the plan must be
    /// made anew.
    fn append(
        &self,
        sweep: &Sweep,
        ground: &Ground,
        index: &Index,
        touched: &[BlobId],
    ) -> Result<Result<u64, Option<Conflict>>> {
        let copies = IndexCopies::new(index);
        let appended = self
            .repo
            .lock_log()
            .append(EntryKind::Sweep, &mut |state: &State| {
                if self.repo.is(Mutant::SweepUnchecked) {
                    return Ok(Draft::from(Body::Sweep(sweep.clone())));
                }
                if !ground.holds(state) {
                    return Err(Refusal::Moved);
                }
                // The indexes that go name nothing that stays, so the copies after the sweep are
                // those before it without its packs.
                let mut reachable = touched.iter().copied();
                let rule = |view: &View<'_>, blob: &BlobId| {
                    if self.repo.is(Mutant::CopySuffices) {
                        return view.exists(blob);
                    }
                    view.decodable(blob)
                };
                let both: (&dyn Copies, &dyn Copies) = (&copies, &copies);
                let checked = check_sweep_by(&rule, state, sweep, both, &mut reachable);
                copies.finish().map_err(Refusal::Lookup)?;
                checked?;
                Ok(Draft::from(Body::Sweep(sweep.clone())))
            });
        match appended {
            Ok(appended) => Ok(Ok(appended.seq)),
            Err(AppendError::Refused(Refusal::Moved)) => Ok(Err(None)),
            Err(AppendError::Refused(Refusal::Conflict(conflict))) => Ok(Err(Some(conflict))),
            Err(AppendError::Refused(Refusal::Lookup(error))) => Err(error),
            Err(AppendError::Log(error)) => Err(error.into()),
        }
    }

    fn finish_open_sweeps(&mut self) -> Result<()> {
        let open = self.repo.lock_log().state().open_sweeps.clone();
        for (seq, sweep) in open {
            self.finish(seq, &sweep)?;
            self.report.finished.push(seq);
        }
        Ok(())
    }

    /// Deletes what a sweep gave up, and says so in the log.
    fn finish(&mut self, seq: u64, sweep: &Sweep) -> Result<()> {
        let backend = self.backend();
        // Whoever wrote the sweep: it must last before anything goes.
        backend.barrier(ObjectKind::Log)?;
        for id in &sweep.drop_indexes {
            backend.delete(&ObjectName::Index(*id))?;
        }
        backend.barrier(ObjectKind::Index)?;
        let total = u64::try_from(sweep.packs.len()).unwrap_or(u64::MAX);
        for (done, pack) in (0..).zip(&sweep.packs) {
            self.progress.advanced(PruneStep::Deleting, done, total);
            delete_pack(backend, pack)?;
        }
        backend.barrier(ObjectKind::Pack)?;
        backend.barrier(ObjectKind::Parity)?;
        let live = self.repo.snapshots();
        for id in sweep.snapshots.iter().filter(|id| !live.contains_key(id)) {
            backend.delete(&ObjectName::Snapshot(*id))?;
        }
        backend.barrier(ObjectKind::Snapshot)?;
        self.report.deleted += total;
        let appended = self
            .repo
            .lock_log()
            .append(EntryKind::SweepDone, &mut |state: &State| {
                if !state.open_sweeps.contains_key(&seq) {
                    return Err(());
                }
                Ok(Draft::from(Body::SweepDone(SweepDone { sweep: seq })))
            });
        match appended {
            // Somebody else has finished it at the same time.
            Ok(_) | Err(AppendError::Refused(())) => Ok(()),
            Err(AppendError::Log(error)) => Err(error.into()),
        }
    }
}

/// The needed blobs whose decoding a sweep of `packs` can change: those with a copy in them.
/// Where there are deltas, any needed blob may rest on a base in them.
fn touched<R: Reach>(
    index: &Index,
    plan: &PrunePlan,
    packs: &[PackId],
    reach: &R,
) -> Result<Vec<BlobId>> {
    let mut touched = Vec::new();
    if plan.has_deltas {
        reach.for_each(&mut |blob| touched.push(*blob));
        return Ok(touched);
    }
    for id in packs {
        let Some(pack) = index.pack_by_id(id) else {
            continue;
        };
        let entries = entries_of(index, &pack)?;
        touched.extend(
            entries
                .iter()
                .map(|entry| entry.id)
                .filter(|id| reach.contains(id)),
        );
    }
    Ok(touched)
}
