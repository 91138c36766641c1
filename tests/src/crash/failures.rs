//! What if the store fails? A command runs on a store that fails at its nth call, once or from then
//! on, for every n. It ends (a hang is told as one), it says what failed on which object, and what
//! is left passes the same inspection as after a crash.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use strongroom_core::{
    restore::{RestoreOptions, restore},
    snapshots::load_all,
};
use strongroom_repo::{
    backend::{
        BackendErrorKind, MemBackend, ObjectName,
        testing::{Call, Effect, FaultBackend, FaultScript, Trigger},
    },
    repository::Repository,
};

use super::{
    Promise,
    inspect::{Image, inspect_image},
    scenes::Start,
    world::{Generation, World, story},
};

/// How long a command may take before it counts as hanging; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// A command on a store that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Opens and saves.
    Backup,
    /// Opens, forgets the oldest snapshot and prunes.
    ForgetAndPrune,
    /// Opens and restores all snapshots.
    Restore,
    /// Opens, records damage, saves and prunes.
    Mend,
    /// Opens, adds a key and removes it.
    Keys,
}

/// What going through the calls of a command came to.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// Calls of the command where nothing fails.
    pub calls: u64,
    /// Runs in which something failed.
    pub runs: u64,
    /// Of these, runs that succeeded all the same.
    pub survived: u64,
    /// What was wrong.
    pub failures: Vec<String>,
}

/// The failures of a full, a broken and a read-only disk.
pub const DISK: [Effect; 3] = [
    Effect::Fail(BackendErrorKind::NoSpace),
    Effect::Fail(BackendErrorKind::Io),
    Effect::Fail(BackendErrorKind::ReadOnly),
];

/// What else a store can do: lose an answer, leave a fate open, lie.
pub const STORE: [Effect; 8] = [
    Effect::Fail(BackendErrorKind::Denied),
    Effect::Fail(BackendErrorKind::Unavailable),
    Effect::FailAfter(BackendErrorKind::Io),
    Effect::Unknown { applied: true },
    Effect::Unknown { applied: false },
    Effect::ShortRead,
    Effect::FlipRead,
    Effect::PartialList,
];

/// Lets every call of a command fail in each of these ways, once and from then on.
#[must_use]
pub fn every_call(
    world: &Arc<World>,
    start: &Start,
    command: Command,
    effects: &[Effect],
    threads: usize,
) -> Failures {
    some_calls(world, start, command, effects, (threads, 1))
}

/// The same for every so manieth call.
#[must_use]
pub fn some_calls(
    world: &Arc<World>,
    start: &Start,
    command: Command,
    effects: &[Effect],
    (threads, every): (usize, u64),
) -> Failures {
    let clean = Arc::new(FaultBackend::from(store(start)));
    let done = perform(world, &clean, start, command);
    let calls = u64::try_from(clean.calls().len()).unwrap_or(u64::MAX);
    let all = Mutex::new(Failures {
        calls,
        failures: done.err().into_iter().collect(),
        ..Failures::default()
    });
    let next = AtomicU64::new(1);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(every, Ordering::Relaxed);
                    if nth > calls {
                        return;
                    }
                    for effect in effects {
                        for lasting in [false, true] {
                            run(world, start, command, (nth, *effect, lasting), &all);
                        }
                    }
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn store(start: &Start) -> MemBackend {
    MemBackend::with_objects("the store", start.objects.clone())
}

/// One run; what came of it is added to `all`.
fn run(
    world: &Arc<World>,
    start: &Start,
    command: Command,
    (nth, effect, lasting): (u64, Effect, bool),
    all: &Mutex<Failures>,
) {
    let script = FaultScript::new(nth);
    let trigger = Trigger::any(nth);
    let script = if lasting {
        script.lasting(trigger, effect)
    } else {
        script.once(trigger, effect)
    };
    let context = format!("{command:?} with {script}");
    let backend = Arc::new(FaultBackend::new(store(start), script));
    let done = watched(world, &backend, start, command);
    let struck = backend.all_struck();
    let survived = matches!(done, Ok(Ok(_)));
    let judged = match done {
        Err(hangs) => Err(hangs),
        Ok(Ok(promised)) => Ok(promised),
        Ok(Err(_)) if !struck => Err("failed although nothing did".to_owned()),
        Ok(Err(words)) => {
            named(&words, effect, &backend.calls(), (nth, lasting)).map(|()| Vec::new())
        }
    };
    let checked = judged.and_then(|promised| {
        let image = Image {
            store: backend.store(),
            door: &start.door,
            torn: None,
            promised: &promised,
            change_keys: false,
            thorough: false,
        };
        inspect_image(world, &image)
    });
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.runs += u64::from(struck);
    all.survived += u64::from(struck && survived);
    if let Err(wrong) = checked {
        all.failures.push(format!("{context}: {wrong}"));
    }
}

/// The command in a thread of its own, so that one that hangs is told.
fn watched(
    world: &Arc<World>,
    backend: &Arc<FaultBackend>,
    start: &Start,
    command: Command,
) -> Result<Result<Vec<Promise>, String>, String> {
    let (sender, receiver) = mpsc::channel();
    let (world, backend, start) = (Arc::clone(world), Arc::clone(backend), start.clone());
    thread::spawn(move || {
        let done = perform(&world, &backend, &start, command);
        // Nobody listens any more after a hang.
        let _ = sender.send(done);
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(done) => Ok(done),
        Err(mpsc::RecvTimeoutError::Timeout) => Err("it hangs".to_owned()),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("it panics".to_owned()),
    }
}

/// Does it; what it promises, or what it says went wrong.
fn perform(
    world: &World,
    backend: &Arc<FaultBackend>,
    start: &Start,
    command: Command,
) -> Result<Vec<Promise>, String> {
    let repo = world
        .open(backend.clone(), &start.door, 0)
        .map_err(|error| story(&error))?;
    match command {
        Command::Backup => {
            let id = world
                .save(&repo, Generation::Two)
                .map_err(|error| story(&error))?;
            Ok(vec![Promise::Committed(id)])
        }
        Command::ForgetAndPrune => {
            let loaded = load_all(&repo);
            if let Some((_, error)) = loaded.damaged.first() {
                return Err(story(error));
            }
            let oldest = loaded.snapshots[0].id;
            repo.remove_snapshots(&[oldest])
                .map_err(|error| story(&error))?;
            world.prune(&repo).map_err(|error| story(&error))?;
            Ok(vec![Promise::Forgotten(oldest)])
        }
        Command::Mend => {
            let (id, _) = world
                .mend(&repo, Generation::Two)
                .map_err(|error| story(&error))?;
            Ok(vec![Promise::Committed(id)])
        }
        Command::Restore => restore_all(world, &repo).map(|()| Vec::new()),
        Command::Keys => {
            let slot = super::scenes::try_second_key(&repo).map_err(|error| story(&error))?;
            repo.remove_key(slot).map_err(|error| story(&error))?;
            Ok(Vec::new())
        }
    }
}

/// Restores everything; a restore that says nothing has restored every byte.
fn restore_all(world: &World, repo: &Repository) -> Result<(), String> {
    let loaded = load_all(repo);
    if let Some((_, error)) = loaded.damaged.first() {
        return Err(story(error));
    }
    for snapshot in &loaded.snapshots {
        let target = world.target();
        let heard = Stories::default();
        let never = std::sync::atomic::AtomicBool::new(false);
        let mut options = RestoreOptions::new(target.path().to_owned());
        options.owner = false;
        let restored = restore(repo, snapshot.record.tree, &options, &heard, &never);
        let report = restored.map_err(|error| story(&error))?;
        let problems = heard.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = problems.first() {
            if report.problems == 0 {
                return Err(format!("told and not counted: {problem}"));
            }
            return Err(problem.clone());
        }
        world.compare_with(snapshot, target.path())?;
    }
    Ok(())
}

/// Keeps what it hears, with causes.
#[derive(Default)]
struct Stories(Mutex<Vec<String>>);

impl strongroom_core::observer::Observer for Stories {
    fn problem(&self, error: &strongroom_core::error::Error) {
        let mut stories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stories.push(story(error));
    }
}

/// Whether an error says what failed and on which object.
fn named(
    words: &str,
    effect: Effect,
    calls: &[Call],
    (nth, lasting): (u64, bool),
) -> Result<(), String> {
    let cause = match effect {
        Effect::Fail(kind) | Effect::FailAfter(kind) => Some(kind),
        Effect::Unknown { .. } => None,
        // A wrong answer is met as damage, of whatever kind.
        _ => return Ok(()),
    };
    if let Some(kind) = cause
        && !words.contains(&kind.to_string())
    {
        return Err(format!("'{words}' does not say '{kind}'"));
    }
    let from = usize::try_from(nth - 1).unwrap_or(usize::MAX);
    let mut failed = calls.get(from..).unwrap_or_default();
    if !lasting {
        failed = failed.get(..1).unwrap_or_default();
    }
    let is_named = |call: &Call| match (call.name, call.object_kind) {
        (Some(ObjectName::Log(seq)), _) if words.contains(&format!("log entry {seq}")) => true,
        (Some(name), _) => words.contains(&name.path()),
        (None, Some(kind)) => words.contains(kind.folder()),
        (None, None) => words.contains("the repository"),
    };
    if failed.iter().any(is_named) {
        return Ok(());
    }
    let first = failed.first().map(ToString::to_string);
    Err(format!("'{words}' does not name the object of {first:?}"))
}
