//! What a disk and this machine's cores can do, and what that means for a backup and a restore:
//! for people who choose a disk or a setting. [`disk`] measures a folder's disk, [`stages`] each
//! stage of the pipeline with all cores at work, and [`judge`] says which of them is the narrow
//! place. Data is made up from seeds; nothing is left behind; nothing is printed.
//!
//! What must stay true: the stages call the code that a backup and a restore run, not copies of
//! it, and `judge` depends on its arguments alone.

mod disk;
mod judge;
mod sample;
mod stages;

use std::time::Duration;

pub use disk::{BenchAction, Disk, LEAST_SIZE, disk};
pub use judge::{Bottleneck, Content, DiskPart, Job, Stage, Verdict, judge};
pub use stages::{Handling, Stages, StagesOptions, stages};

/// So many bytes in so much time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// How many bytes.
    pub bytes: u64,
    /// How long they took.
    pub time: Duration,
}

impl Pace {
    /// Bytes a second, by one who does nothing else.
    #[must_use]
    pub fn per_second(self) -> u64 {
        let rate = u128::from(self.bytes) * 1_000_000_000 / self.time.as_nanos().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// Both together: what several workers did, each in its own time.
    fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.time += other.time;
    }
}

/// All that was measured, and the settings that it is judged for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The disk of the repository.
    pub disk: Disk,
    /// What a core does.
    pub stages: Stages,
    /// Length of a pack in bytes: each is synced once.
    pub pack_target: u32,
    /// Whether packs are opened and compared before they are stored.
    pub verify: bool,
}
