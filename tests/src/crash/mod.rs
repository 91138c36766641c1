//! What if the machine stops here? A [`Scene`] is one command, recorded on a store in memory; its
//! history gives every crash that it can suffer, and `inspect` what must hold after each. `world`
//! has the files that are saved and the acts, `scenes` the commands.
//!
//! The tests go through the crashes that fit into their time; `examples/crashes.rs` through all.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test kit: to fail loudly is its job"
)]

pub mod failures;
mod files;
mod inspect;
pub mod scenes;
pub mod world;

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use strongroom_repo::{
    backend::{
        Backend as _,
        testing::{CrashState, Depth, History},
    },
    id::SnapshotId,
};

pub use self::inspect::inspect;
use self::world::{Door, World};

/// A command and what it did.
pub struct Scene {
    /// For people.
    pub name: String,
    /// What it did to the store.
    pub history: History,
    /// What it has promised, and after how many steps.
    pub promises: Vec<(usize, Promise)>,
    /// How the repository is opened.
    pub door: Door,
}

/// What a command has said to its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The snapshot is there.
    Committed(SnapshotId),
    /// The snapshot is gone.
    Forgotten(SnapshotId),
    /// The password opens the repository.
    Opens(&'static [u8]),
    /// It opens nothing any more.
    Shut(&'static [u8]),
}

/// Which of many cases a run goes through, so that others can take the rest: those whose number
/// leaves `part` when it is divided by `parts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub part: usize,
    /// At least 1.
    pub parts: usize,
}

impl Share {
    /// Everything.
    pub const ALL: Self = Self { part: 0, parts: 1 };

    /// Its part of the cases.
    #[must_use]
    pub fn of<T>(self, cases: Vec<T>) -> Vec<T> {
        let dealt = cases.into_iter().skip(self.part);
        dealt.step_by(self.parts.max(1)).collect()
    }
}

/// What going through the crashes of a scene came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Steps of the command.
    pub steps: usize,
    /// Moments, tears and models.
    pub counted: u64,
    /// Different images.
    pub images: usize,
    /// Of these, images that were inspected.
    pub inspected: usize,
    /// What was wrong: which crash, and what.
    pub failures: Vec<String>,
}

impl Scene {
    /// What was promised before a crash.
    fn promised(&self, state: &CrashState) -> impl Iterator<Item = &Promise> {
        let steps = state.steps;
        let made = self.promises.iter().filter(move |(at, _)| *at <= steps);
        made.map(|(_, promise)| promise)
    }

    /// Goes through the crashes of the scene, with so many threads. `thorough` says how much is
    /// demanded of each image: see [`inspect`].
    #[must_use]
    pub fn run(&self, world: &World, depth: Depth, thorough: bool, threads: usize) -> Tally {
        self.run_share(world, depth, thorough, threads, Share::ALL)
    }

    /// The same for a share of the images.
    #[must_use]
    pub fn run_share(
        &self,
        world: &World,
        depth: Depth,
        thorough: bool,
        threads: usize,
        share: Share,
    ) -> Tally {
        let crashes = self.history.crashes(depth);
        let images = crashes.states.len();
        let states = share.of(crashes.states);
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(state) = states.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let promised: Vec<_> = self.promised(state).cloned().collect();
                        if let Err(wrong) = inspect(world, self, state, &promised, thorough) {
                            let mut failures =
                                failures.lock().unwrap_or_else(PoisonError::into_inner);
                            let crash = state.image.location();
                            failures.push(format!("{}: {crash}: {wrong}", self.name));
                        }
                    }
                });
            }
        });
        Tally {
            steps: self.history.len(),
            counted: crashes.counted,
            images,
            inspected: states.len(),
            failures: failures
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        }
    }
}
