//! A deterministic simulation: one seed decides what at least three clients do, in which order
//! their operations on one store happen, what fails, crashes or arrives late, and what time it is.
//! After each step that matters the promises of docs/invariants.md are compared with what the
//! store holds.
//!
//! The clients run the library as it is, with the real formats and ciphers. Each is a thread that
//! waits at every operation of the store until the seed gives it the turn, so that the course of a
//! run follows from the seed alone. Threads of the library's own that act on the store must wait
//! for each other for that: a writer has one pack on its way at a time, walks have one worker.

mod client;
mod ending;
mod random;
mod session;
mod source;
mod store;
mod watch;
mod weather;
mod world;

use std::{panic, path::PathBuf, sync::Arc, thread::ScopedJoinHandle};

use strongroom_repo::{
    backend::{MemBackend, ObjectKind},
    crypto::{Identity, KdfParams},
    env::{Timestamp, testing::seeded},
    format::{
        config::ConfigBody,
        slot::{Anchor, Role},
    },
    id::RepoId,
    keys::OpenedSlot,
    mutant::Mutant as RepoMutant,
    repository::{CreateOptions, OpenOptions, Repository, Secret},
};

use self::{
    client::Client, random::Random, source::Disk, store::Store, watch::Watch, world::World,
};

/// A rule that is broken on purpose, to show that the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// One of the repository's own rules.
    Repository(RepoMutant),
    /// The log is never made durable.
    NoLogBarrier,
    /// Packs are never made durable.
    NoPackBarrier,
}

impl Mutant {
    const fn of_repository(self) -> Option<RepoMutant> {
        match self {
            Self::Repository(mutant) => Some(mutant),
            Self::NoLogBarrier | Self::NoPackBarrier => None,
        }
    }
}

/// What a simulation came to.
#[derive(Debug)]
pub struct Course {
    /// The seed that makes it again.
    pub seed: u64,
    /// A hash of everything that happened.
    pub trace: String,
    /// Operations of the store.
    pub steps: u64,
    /// Operations that something went wrong with.
    pub strikes: u64,
    /// Entries of the log at the end.
    pub entries: usize,
    /// Snapshots at the end.
    pub snapshots: usize,
    /// The promise that was not kept.
    pub broken: Option<String>,
    /// What happened, where it was asked for.
    pub tale: Vec<String>,
}

/// Runs the simulation of a seed, with a rule broken or not; `tell` keeps what happens, to read.
///
/// # Errors
/// The simulation itself could not be set up, or panicked; with the seed.
pub fn run(seed: u64, mutant: Option<Mutant>, tell: bool) -> Result<Course, String> {
    panic::catch_unwind(|| simulate(seed, mutant, tell))
        .unwrap_or_else(|_| Err("a panic, told above".to_owned()))
        .map_err(|error| format!("seed {seed}: {error}"))
}

fn simulate(seed: u64, mutant: Option<Mutant>, tell: bool) -> Result<Course, String> {
    let mut random = Random::new(seed, "plan");
    let clients = 3 + random.place(3);
    let sessions = 3 + random.below(5);
    let folder = folder().map_err(|error| format!("no folder for the clients: {error}"))?;
    let (start, identities, anchor) = repository(seed, clients)?;
    let store = Store::new(&start);
    let owner = identities.first().cloned().ok_or("no owner")?;
    let me = OpenedSlot {
        identity: owner,
        anchor,
    };
    let watch = Watch::new(&store, me)?;
    let world = World::new(clients, (store, watch), seed, mutant, tell);
    let identities = Arc::new(identities);
    let panicked = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in 0..clients {
            let client = Client {
                number,
                world: Arc::clone(&world),
                identities: Arc::clone(&identities),
                anchor,
                folder: folder.path().join(number.to_string()),
                seed,
                random: Random::new(seed, &format!("client {number}")),
                disk: Disk::default(),
                mutant,
                sessions,
                done: 0,
            };
            threads.push(scope.spawn(move || client.run()));
        }
        world.start();
        // Joined one by one: a panic in one of them is noted, and does not end all seeds.
        let ended = threads.into_iter().map(ScopedJoinHandle::join);
        ended.filter(Result::is_err).count()
    });
    let mut inner = world.lock();
    if panicked > 0 {
        inner.breaks(format!("{panicked} clients panicked"));
    }
    if inner.broken().is_none() {
        let kept = ending::end(&inner, anchor, &identities, folder.path());
        inner.hold(kept);
    }
    let snapshots = inner.watch.live().len();
    Ok(Course {
        seed,
        trace: inner.trace().to_hex().to_string(),
        steps: inner.steps,
        strikes: inner.strikes,
        entries: Watch::count(&inner.store, ObjectKind::Log),
        snapshots,
        broken: inner.broken().cloned(),
        tale: inner.take_tale(),
    })
}

/// A folder in memory, where the machine has one: clients sync what they remember.
fn folder() -> std::io::Result<tempfile::TempDir> {
    let memory = PathBuf::from("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir())
}

/// A new repository whose clients all have a key.
fn repository(seed: u64, clients: usize) -> Result<(MemBackend, Vec<Identity>, Anchor), String> {
    let failed = |error: strongroom_repo::error::Error| watch::chain(&error);
    let store = MemBackend::new();
    let env = seeded(seed);
    let mut identities = Vec::new();
    for _ in 0..clients {
        let identity = Identity::generate(&env).map_err(|error| error.to_string())?;
        identities.push(identity);
    }
    let owner = identities.first().cloned().ok_or("no clients")?;
    let anchor = Anchor {
        repo: RepoId::new([0; 16]),
        owner: owner.public().sign,
    };
    let secret = Secret::Opened(Box::new(OpenedSlot {
        identity: owner,
        anchor,
    }));
    let options = CreateOptions {
        config: ConfigBody {
            created: Timestamp::default(),
            program: "test".to_owned(),
            chunker: 1,
            chunk_min: 1,
            chunk_avg: 2,
            chunk_max: 3,
            pack_target: 32 << 20,
        },
        label: String::new(),
        kdf: KdfParams::DEFAULT,
        open: OpenOptions::default(),
    };
    let backend = Arc::new(store.clone());
    let repo = Repository::create(backend, env, secret, options).map_err(failed)?;
    for identity in identities.iter().skip(1) {
        repo.add_identity(Role::Owner, identity).map_err(failed)?;
    }
    let anchor = Anchor {
        repo: repo.id(),
        ..anchor
    };
    Ok((store, identities, anchor))
}
