//! What clients of a simulation do: open the repository, back up, forget, prune, change keys, check
//! or restore, record damage, and start anew, with or without what they remembered.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use strongroom_core::{
    Error, check::check, format::snapshot::Snapshot, prune::prune, reachable::load_record,
};
use strongroom_repo::{
    check::{CheckOptions, ReadData, Severity, Verdict},
    crypto::Identity,
    env::{Env, testing::SeededRandom},
    error::Error as RepoError,
    format::slot::{Anchor, Role},
    id::SnapshotId,
    keys::{KeyError, OpenedSlot},
    log::{LogError, check::Conflict},
    prune::PruneOptions,
    repository::{NewSnapshot, OpenOptions, Repository, Secret},
    writer::WriterOptions,
};

use super::{
    Mutant,
    random::Random,
    session::Session,
    source::{Disk, Parent, restore, store},
    watch::chain,
    world::World,
};

/// Attempts at a backup whose ground others pull away.
const ATTEMPTS: u64 = 3;

/// A client.
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) world: Arc<World>,
    pub(super) identities: Arc<Vec<Identity>>,
    pub(super) anchor: Anchor,
    pub(super) folder: PathBuf,
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) disk: Disk,
    pub(super) mutant: Option<Mutant>,
    pub(super) sessions: u64,
    /// Sessions so far.
    pub(super) done: u64,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    BackUp,
    Forget,
    Prune,
    Check,
    Restore,
    Keys,
    /// Records of a pack that it is damaged, or whole again, whatever it is.
    Record,
}

/// Gives the turn away for good, also where a client panics.
struct Turn(Arc<World>, usize);

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().breaks(format!("client {} panicked", self.1));
        }
        self.0.leave(self.1);
    }
}

impl Client {
    /// All sessions, one after the other.
    pub(super) fn run(mut self) {
        let turn = Turn(Arc::clone(&self.world), self.number);
        self.world.enter(self.number);
        while self.done < self.sessions && self.world.lock().broken().is_none() {
            self.done += 1;
            self.session();
        }
        drop(turn);
    }

    fn session(&mut self) {
        let act = match self.random.below(100) {
            0..=39 => Act::BackUp,
            40..=56 => Act::Forget,
            57..=76 => Act::Prune,
            77..=83 => Act::Check,
            84..=90 => Act::Restore,
            91..=94 => Act::Record,
            _ => Act::Keys,
        };
        // A clone of a machine draws the same numbers again.
        let cloned = self.random.permille(50);
        let session = Arc::new(Session::new(&self.world, self.number));
        self.tell(|| format!("-- {act:?}"));
        let result = self.open(&session, cloned).and_then(|repo| {
            let repo = repo.with_mutant(self.mutant.and_then(Mutant::of_repository));
            match act {
                Act::BackUp => self.back_up(&session, &repo),
                Act::Forget => self.forget(&session, &repo),
                Act::Prune => self.prune(&repo),
                Act::Check => self.check(&session, &repo),
                Act::Restore => self.restore(&session, &repo),
                Act::Keys => self.change_keys(&repo),
                Act::Record => self.record(&repo),
            }
        });
        if let Err(error) = result {
            self.tell(|| format!("-- {act:?} failed: {}", chain(&error)));
            if !session.was_struck() && !is_expected(&error) {
                let what = format!("{act:?} without a fault: {}", chain(&error));
                self.world.lock().breaks(what);
            }
        }
        let lost = session.is_over() && self.random.permille(300);
        if lost || self.random.permille(30) {
            self.tell(|| "-- forgets everything".to_owned());
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    fn tell(&self, line: impl FnOnce() -> String) {
        let number = self.number;
        self.world.lock().say(|| format!("{number} {}", line()));
    }

    fn open(&mut self, session: &Arc<Session>, cloned: bool) -> Result<Repository, Error> {
        let draw = if cloned { 0 } else { self.random.next() };
        let random = SeededRandom::new(self.seed ^ draw);
        let env = Env::new(self.world.clock(self.number), random, [0; 32]);
        let env = env.map_err(RepoError::from)?;
        let identity = self.identities.get(self.number).cloned();
        let identity = identity.ok_or(Error::WorkerLost)?;
        let me = OpenedSlot {
            identity,
            anchor: self.anchor,
        };
        let folder = Some(self.folder.clone());
        let options = OpenOptions {
            state_dir: folder.clone(),
            cache_dir: folder.filter(|_| self.number != 1),
            ..OpenOptions::default()
        };
        let secret = Secret::Opened(Box::new(me));
        Ok(Repository::open(
            Arc::clone(session) as Arc<_>,
            env,
            secret,
            options,
        )?)
    }

    fn back_up(&mut self, session: &Session, repo: &Repository) -> Result<(), Error> {
        let dirs = 1 + u64::try_from(self.number % 3).unwrap_or(0);
        self.disk.change(&mut self.random, dirs);
        for attempt in 1..ATTEMPTS {
            match self.attempt(session, repo, attempt) {
                Err(Error::Repo(RepoError::Conflict(_))) => repo.refresh()?,
                result => return result,
            }
        }
        self.attempt(session, repo, ATTEMPTS)
    }

    fn attempt(&mut self, session: &Session, repo: &Repository, nth: u64) -> Result<(), Error> {
        let base = repo.tail();
        let parent = self.parent(repo);
        let mark = format!("client {} session {} attempt {nth}", self.number, self.done);
        let writer = repo.writer(WriterOptions {
            // One pack at a time on its way, and none but at a flush: one thread acts at a time.
            in_flight: 0,
            ..WriterOptions::default()
        });
        let mut bench = writer.bench()?;
        let mut random = self.random.clone();
        let tree = store(
            repo,
            &writer,
            &mut bench,
            &self.disk,
            parent.as_ref().map(|(_, parent)| parent),
            &mut |writer, bench| {
                if random.permille(100) {
                    repo.keep(writer, bench)?;
                }
                Ok(())
            },
        )?;
        self.random = random;
        let record = Snapshot {
            time: repo.env().now(),
            tree,
            paths: vec![b"/".to_vec()],
            host: mark.clone(),
            user: String::new(),
            uid: 0,
            gid: 0,
            tags: Vec::new(),
            excludes: Vec::new(),
            parent: parent.as_ref().map(|(id, _)| *id),
            program: String::new(),
            summary: strongroom_core::format::snapshot::Summary::default(),
            origin: None,
        };
        let record = record.encode()?;
        let new = NewSnapshot {
            record: &record,
            parent: parent.map(|(id, _)| id),
            base,
        };
        let files = self.disk.files();
        self.world.lock().watch.means(mark.clone(), files);
        if self.random.permille(200) {
            // Stopped, and continued when others have been at work.
            self.world.lock().nap(self.number);
        }
        let result = repo.commit(&writer, &mut bench, &new);
        let mut inner = self.world.lock();
        let kept = match &result {
            Ok(id) => inner.watch.committed(*id),
            Err(error) if is_uncertain(error) || session.is_over() => Ok(()),
            Err(_) => inner.watch.refused(&mark),
        };
        inner.hold(kept);
        Ok(result.map(|_| ())?)
    }

    /// A live snapshot to compare with.
    fn parent(&mut self, repo: &Repository) -> Option<(SnapshotId, Parent)> {
        let live: Vec<SnapshotId> = repo.snapshots().into_keys().collect();
        let id = *self.random.pick(&live)?;
        if self.random.permille(300) {
            return None;
        }
        let record = load_record(repo, id).ok()?.snapshot;
        let files = self.world.lock().watch.expected(&id).cloned()?;
        Some((id, Parent { record, files }))
    }

    fn forget(&mut self, session: &Session, repo: &Repository) -> Result<(), Error> {
        let live: Vec<SnapshotId> = repo.snapshots().into_keys().collect();
        let mut ids = Vec::new();
        if self.random.permille(250) {
            ids.clone_from(&live);
        }
        for _ in 0..=self.random.below(2) {
            if let Some(id) = self.random.pick(&live)
                && !ids.contains(id)
            {
                ids.push(*id);
            }
        }
        if ids.is_empty() {
            return Ok(());
        }
        self.world.lock().watch.unwant(&ids);
        let result = repo.remove_snapshots(&ids);
        let mut inner = self.world.lock();
        let kept = match &result {
            _ if session.is_over() => Ok(()),
            Ok(()) => inner.watch.removed(&ids),
            Err(error) if is_uncertain(error) => Ok(()),
            Err(_) => inner.watch.kept(&ids),
        };
        inner.hold(kept);
        drop(inner);
        Ok(result?)
    }

    fn prune(&self, repo: &Repository) -> Result<(), Error> {
        let result = prune(
            repo,
            PruneOptions {
                in_flight: 0,
                ..PruneOptions::default()
            },
            1,
            &(),
            &AtomicBool::new(false),
        );
        match result {
            // A tree that another client's prune took away under the walk.
            Err(Error::DamagedTree { snapshot, .. }) if !self.is_live(&snapshot) => Ok(()),
            result => result.map(|_| ()),
        }
    }

    fn check(&mut self, session: &Session, repo: &Repository) -> Result<(), Error> {
        let read_data = if self.random.permille(500) {
            ReadData::All
        } else {
            ReadData::Nothing
        };
        let options = CheckOptions {
            read_data,
            workers: 1,
        };
        // What was recorded as damaged is told as such until it is read.
        let is_recorded = |repo: &Repository| !repo.state().bad.is_empty();
        let recorded = is_recorded(repo);
        let report = check(repo, options, &(), &AtomicBool::new(false))?;
        if recorded || is_recorded(repo) {
            return Ok(());
        }
        let bad = report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(|finding| finding.what.to_string())
            // Keys are given here: there are no slots.
            .find(|what| !what.contains("its password opens nothing"));
        if let Some(what) = bad
            && !session.was_struck()
        {
            let what = format!("check finds in a sound repository: {what}");
            self.world.lock().breaks(what);
        }
        Ok(())
    }

    fn restore(&mut self, session: &Session, repo: &Repository) -> Result<(), Error> {
        let live: Vec<SnapshotId> = repo.snapshots().into_keys().collect();
        let Some(id) = self.random.pick(&live).copied() else {
            return Ok(());
        };
        let found = load_record(repo, id)
            .and_then(|loaded| restore(repo, loaded.snapshot.tree, &mut |_| {}));
        match found {
            Ok(found) => {
                let mut inner = self.world.lock();
                if inner.watch.expected(&id) != Some(&found) {
                    inner.breaks(format!("restore of {id} gives something else"));
                }
                Ok(())
            }
            Err(_) if !self.is_live(&id) => Ok(()),
            Err(error) if session.was_struck() => Err(error),
            Err(error) => {
                let what = format!("restore of {id}: {}", chain(&error));
                self.world.lock().breaks(what);
                Ok(())
            }
        }
    }

    /// Whether a snapshot is live now, whatever a client knows.
    fn is_live(&self, id: &SnapshotId) -> bool {
        self.world.lock().watch.is_live(id)
    }

    /// Records a verdict on a pack. Nothing was read for it: whoever believes it must not lose
    /// anything by that.
    fn record(&mut self, repo: &Repository) -> Result<(), Error> {
        let index = repo.index();
        let packs: Vec<_> = index.packs().collect();
        let Some(pack) = self.random.pick(&packs) else {
            return Ok(());
        };
        let segments = index.entries_of(pack.number).map_err(RepoError::from)?;
        let mut some = |permille| -> BTreeSet<u32> {
            let all = segments.iter().map(|entry| entry.segment);
            all.filter(|_| self.random.permille(permille)).collect()
        };
        let (bad, unproved) = (some(300), some(100));
        let verdict = match self.random.below(5) {
            0 | 1 => Verdict::Lost,
            2 => Verdict::Segments {
                unproved: unproved.difference(&bad).copied().collect(),
                bad,
            },
            3 => Verdict::Frame,
            _ => Verdict::Whole,
        };
        repo.record_verdicts(&BTreeMap::from([(pack.id, verdict)]))?;
        Ok(())
    }

    /// Makes a client's key live that is not, or takes one away.
    fn change_keys(&mut self, repo: &Repository) -> Result<(), Error> {
        let live = repo.state().keys.slots;
        let identities = Arc::clone(&self.identities);
        let missing = identities
            .iter()
            .find(|identity| !live.contains_key(&identity.public().slot_id()));
        if let Some(identity) = missing {
            repo.add_identity(Role::Owner, identity)?;
            return Ok(());
        }
        let Some(identity) = self.random.pick(identities.get(1..).unwrap_or_default()) else {
            return Ok(());
        };
        match repo.remove_key(identity.public().slot_id()) {
            Err(RepoError::OwnKey { .. }) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// What others may cause without any fault.
fn is_expected(error: &Error) -> bool {
    let Error::Repo(error) = error else {
        return false;
    };
    match error {
        RepoError::Conflict(
            Conflict::Swept { .. } | Conflict::Damaged { .. } | Conflict::NoSuchSnapshot { .. },
        ) => true,
        // Somebody took the key away.
        RepoError::Log(LogError::NotLive(_)) | RepoError::Key(KeyError::NoBundle) => true,
        RepoError::NoKey { .. } => true,
        _ => false,
    }
}

/// After which a snapshot may be there or not.
const fn is_uncertain(error: &RepoError) -> bool {
    matches!(
        error,
        RepoError::Log(
            LogError::Uncertain { .. } | LogError::Faithless { .. } | LogError::DoesNotCount { .. }
        )
    )
}
