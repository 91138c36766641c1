//! Time and randomness as arguments: the engine asks [`Env`], never the machine, so that a test
//! can run it with a fixed clock and a seeded generator. Salts are hedged here (several sources
//! hashed together), so that a cloned virtual machine or a weak generator does not repeat one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::id::RunId;

/// A point in time: whole seconds since 1970-01-01T00:00:00Z (negative before) and nanoseconds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Seconds since the Unix epoch, rounded towards the past.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 10^9.
    pub nanos: u32,
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The current wall-clock time.
    fn now(&self) -> Timestamp;
}

/// Where random bytes come from.
pub trait Random: Send + Sync {
    /// Fills `out`, or says that the machine has no randomness to give.
    ///
    /// # Errors
    /// The operating system's generator failed.
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError>;
}

/// The operating system's random generator failed.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct RandomError;

/// What a run takes from its surroundings.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    run: RunId,
    machine: [u8; 32],
    counter: Arc<AtomicU64>,
}

impl Env {
    /// The real clock and the operating system's generator.
    ///
    /// # Errors
    /// The operating system's generator failed.
    pub fn system() -> Result<Self, RandomError> {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut machine = blake3::Hasher::new();
        machine
            .update(&boot)
            .update(&std::process::id().to_le_bytes());
        Self::new(
            Arc::new(SystemClock),
            Arc::new(SystemRandom),
            machine.finalize().into(),
        )
    }

    /// An environment of the caller's own; `machine` tells machines and processes apart.
    ///
    /// # Errors
    /// `random` failed.
    pub fn new(
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        machine: [u8; 32],
    ) -> Result<Self, RandomError> {
        let mut run = [0; RunId::LEN];
        random.fill(&mut run)?;
        let counter = Arc::new(AtomicU64::new(0));
        Ok(Self {
            clock,
            random,
            run: RunId::new(run),
            machine,
            counter,
        })
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The id of this run.
    #[must_use]
    pub const fn run(&self) -> RunId {
        self.run
    }

    /// Fresh random bytes.
    ///
    /// # Errors
    /// The generator failed.
    pub fn random<const N: usize>(&self) -> Result<[u8; N], RandomError> {
        let mut out = [0; N];
        self.random.fill(&mut out)?;
        Ok(out)
    }

    /// A salt that no other pack or object will have, even if the generator repeats itself: the
    /// generator's bytes hashed with machine, process, time, run, a counter and `content` (a hash
    /// of the first plain bytes).
    ///
    /// # Errors
    /// The generator failed.
    pub fn salt(&self, content: &[u8; 32]) -> Result<[u8; 32], RandomError> {
        let now = self.now();
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&self.random::<32>()?)
            .update(&self.machine)
            .update(&now.secs.to_le_bytes())
            .update(&now.nanos.to_le_bytes())
            .update(self.run.as_bytes())
            .update(&count.to_le_bytes())
            .update(content);
        Ok(hasher.finalize().into())
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// The machine's wall clock.
#[derive(Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp {
            secs: now.tv_sec,
            nanos: u32::try_from(now.tv_nsec).unwrap_or(0),
        }
    }
}

/// The operating system's generator.
#[derive(Debug)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(out).map_err(|_| RandomError)
    }
}

/// A fixed clock and a seeded generator, for tests that must be repeatable.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use std::sync::{Arc, Mutex};

    use super::{Clock, Env, Random, RandomError, Timestamp};

    /// A clock that stands still until it is set.
    #[derive(Debug)]
    pub struct FixedClock(Mutex<Timestamp>);

    impl FixedClock {
        /// A clock that shows `secs`.
        #[must_use]
        pub fn new(secs: i64) -> Arc<Self> {
            Arc::new(Self(Mutex::new(Timestamp { secs, nanos: 0 })))
        }

        /// Sets the clock.
        pub fn set(&self, time: Timestamp) {
            if let Ok(mut now) = self.0.lock() {
                *now = time;
            }
        }
    }

    impl Clock for FixedClock {
        fn now(&self) -> Timestamp {
            self.0.lock().map(|now| *now).unwrap_or_default()
        }
    }

    /// A generator whose bytes follow from its seed.
    #[derive(Debug)]
    pub struct SeededRandom(Mutex<blake3::OutputReader>);

    impl SeededRandom {
        /// A generator for `seed`.
        #[must_use]
        pub fn new(seed: u64) -> Arc<Self> {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&seed.to_le_bytes());
            Arc::new(Self(Mutex::new(hasher.finalize_xof())))
        }
    }

    impl Random for SeededRandom {
        fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
            self.0.lock().map_err(|_| RandomError)?.fill(out);
            Ok(())
        }
    }

    /// A generator that gives so many times and then nothing.
    #[derive(Debug)]
    pub struct FiniteRandom(Mutex<u32>);

    impl FiniteRandom {
        /// A generator that gives `times` times.
        #[must_use]
        pub fn new(times: u32) -> Arc<Self> {
            Arc::new(Self(Mutex::new(times)))
        }
    }

    impl Random for FiniteRandom {
        fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
            let mut left = self.0.lock().map_err(|_| RandomError)?;
            *left = left.checked_sub(1).ok_or(RandomError)?;
            blake3::Hasher::new()
                .update(&left.to_le_bytes())
                .finalize_xof()
                .fill(out);
            Ok(())
        }
    }

    /// An environment whose generator gives so many times, and then nothing.
    #[must_use]
    pub fn running_dry(times: u32) -> Env {
        // Making the environment takes one.
        let random = FiniteRandom::new(times.saturating_add(1));
        #[expect(clippy::unwrap_used, reason = "the first draw is given")]
        Env::new(FixedClock::new(1_700_000_000), random, [7; 32]).unwrap()
    }

    /// An environment in which everything follows from `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Env {
        let env = Env::new(
            FixedClock::new(1_700_000_000),
            SeededRandom::new(seed),
            [7; 32],
        );
        #[expect(clippy::unwrap_used, reason = "the seeded generator cannot fail")]
        env.unwrap()
    }
}
