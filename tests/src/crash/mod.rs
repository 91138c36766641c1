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

/// What going through the crashes of a scene came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Steps of the command.
    pub steps: usize,
    /// Moments, tears and models.
    pub counted: u64,
    /// Different images, each of which was inspected.
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
        let crashes = self.history.crashes(depth);
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(state) = crashes.states.get(next.fetch_add(1, Ordering::Relaxed))
                    {
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
            inspected: crashes.states.len(),
            failures: failures
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
        }
    }
}
