//! Goes through all crashes of all commands that write: every moment, every length at which a write
//! can tear, every choice among up to eight changes that were not durable; then through the crashes
//! of the commands that take up what a crash has left; then every call of a command fails in every
//! way. Prints what it went through, and everything that does not hold. WORD leaves only what has
//! it in its name; of the images of each command, dealt out in PARTS, only PART (from 0) is
//! inspected.
//!
//! usage: `just soak-crashes SEED ROUNDS [WORD [PART PARTS]]`
#![expect(
    clippy::print_stdout,
    reason = "run by hand, and to say what it found is its job"
)]

use std::{process::ExitCode, sync::Arc, thread, time::Instant};

use strongroom_repo::backend::testing::Depth;
use strongroom_tests::crash::{
    Scene, Share, Tally,
    failures::{Command, DISK, Failures, STORE, every_call},
    scenes::{self, Start},
    world::{Generation, World},
};

/// Crashes of a scene from which the next command is recorded in its turn.
const TAKEN_UP: usize = 6;

struct Soak {
    world: Arc<World>,
    threads: usize,
    word: String,
    share: Share,
    counted: u64,
    inspected: usize,
    failures: usize,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let (Some(seed), Some(rounds)) = (number(0), number(1)) else {
        println!("usage: crashes SEED ROUNDS [WORD [PART PARTS]]");
        return ExitCode::from(2);
    };
    let share = match (number(3), number(4)) {
        (Some(part), Some(parts)) => Share {
            part: usize::try_from(part).unwrap_or(usize::MAX),
            parts: usize::try_from(parts).unwrap_or(usize::MAX),
        },
        _ => Share::ALL,
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (mut counted, mut inspected, mut failures) = (0, 0, 0);
    for round in 0..rounds {
        println!("round {round} with seed {seed}");
        let mut soak = Soak {
            world: Arc::new(World::new(seed.wrapping_add(round))),
            threads,
            word: words.get(2).cloned().unwrap_or_default(),
            share,
            counted: 0,
            inspected: 0,
            failures: 0,
        };
        soak.round();
        soak.world = Arc::new(World::with_differences(seed.wrapping_add(round)));
        soak.differences();
        counted += soak.counted;
        inspected += soak.inspected;
        failures += soak.failures;
    }
    println!("{counted} crashes, {inspected} images inspected, {failures} failures");
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Soak {
    fn all(&mut self, scene: &Scene) {
        if !scene.name.contains(&self.word) {
            return;
        }
        let begin = Instant::now();
        let Tally {
            steps,
            counted,
            images,
            inspected,
            failures,
        } = scene.run_share(&self.world, Depth::FULL, true, self.threads, self.share);
        println!(
            "{}: {steps} steps, {counted} crashes, {images} different images, {inspected} \
             inspected, {} failures, {:.0} s",
            scene.name,
            failures.len(),
            begin.elapsed().as_secs_f64(),
        );
        for failure in &failures {
            println!("  {failure}");
        }
        self.counted += counted;
        self.inspected += inspected;
        self.failures += failures.len();
    }

    fn round(&mut self) {
        use Generation::{One, Two, Wide};
        let empty = Start::empty(&self.world);
        let one = empty.with(&self.world, &[One]);
        let two = one.with(&self.world, &[Two]);
        self.failing(&one.with(&self.world, &[Generation::Next]));
        self.inits();
        self.backups("first backup", &empty, One);
        self.backups("second backup", &one, Two);
        self.all(&scenes::backup(&self.world, "wide backup", &one, Wide));
        self.all(&scenes::stopped_backup(&self.world, &one));
        self.prunes(&two);
        self.all(&scenes::mend(&self.world, &two));
        self.all(&scenes::add_key(&self.world, &one));
        self.all(&scenes::remove_key(&self.world, &one));
        self.all(&scenes::change_password(&self.world, &one));
    }

    /// The same where some of what is saved is stored as a difference.
    fn differences(&mut self) {
        use Generation::{One, Two};
        let one = Start::empty(&self.world).with(&self.world, &[One]);
        let two = one.with(&self.world, &[Two]);
        self.failing(&one.with(&self.world, &[Generation::Next]));
        self.all(&scenes::backup(
            &self.world,
            "backup of a difference",
            &one,
            Two,
        ));
        self.all(&scenes::forget_and_prune(&self.world, &two));
        self.all(&scenes::mend(&self.world, &two));
    }

    /// Every call of a command fails, in every way.
    fn failing(&mut self, start: &Start) {
        if !"failing".contains(&self.word) {
            return;
        }
        for command in [
            Command::Backup,
            Command::ForgetAndPrune,
            Command::Mend,
            Command::Restore,
            Command::Keys,
        ] {
            let effects: Vec<_> = DISK.into_iter().chain(STORE).collect();
            let Failures {
                calls,
                runs,
                survived,
                failures,
            } = every_call(&self.world, start, command, &effects, self.threads);
            println!(
                "failing {command:?}: {calls} calls, {runs} runs, {survived} survived, {} failures",
                failures.len()
            );
            for failure in &failures {
                println!("  {failure}");
            }
            self.failures += failures.len();
        }
    }

    /// `init`, and `init` over what an interrupted one left.
    fn inits(&mut self) {
        let first = scenes::init(&self.world, "init", Default::default());
        self.all(&first);
        for state in some(first.history.crashes(Depth::QUICK).states, |state| {
            state.torn.is_none() && state.steps + 2 < first.history.len()
        }) {
            let left = state.image.objects();
            self.all(&scenes::init(&self.world, "init after a crash", left));
        }
    }

    /// A backup, and the backups that take it up after a checkpoint.
    fn backups(&mut self, name: &str, start: &Start, generation: Generation) {
        let scene = scenes::backup_with_checkpoint(&self.world, name, start, generation);
        self.all(&scene);
        for state in some(scenes::past_checkpoint(&scene, start), |_| true) {
            let start = Start::after_crash(&scene, &state);
            let resumed = scenes::backup(&self.world, "resumed backup", &start, generation);
            self.all(&resumed);
        }
    }

    /// Forget and prune, and the prunes and backups that follow a crash of these.
    fn prunes(&mut self, start: &Start) {
        let scene = scenes::forget_and_prune(&self.world, start);
        self.all(&scene);
        for state in some(scene.history.crashes(Depth::QUICK).states, |state| {
            state.torn.is_none()
        }) {
            let start = Start::after_crash(&scene, &state);
            self.all(&scenes::prune(&self.world, "prune after a crash", &start));
            let name = "backup after a crashed prune";
            self.all(&scenes::backup(&self.world, name, &start, Generation::One));
        }
    }
}

/// Some of the values that fit, evenly spread.
fn some<T>(values: Vec<T>, fits: impl Fn(&T) -> bool) -> Vec<T> {
    let fitting: Vec<T> = values.into_iter().filter(|value| fits(value)).collect();
    let step = fitting.len().div_ceil(TAKEN_UP).max(1);
    fitting.into_iter().step_by(step).collect()
}
