//! Crashes at every step of the commands that write, in three persistence models, and torn writes:
//! what fits into a test. `just soak` goes through all of them.
#![expect(
    clippy::print_stderr,
    reason = "a test binary: to fail loudly is its job"
)]

use std::sync::Arc;

use strongroom_repo::backend::testing::Depth;
use strongroom_tests::crash::{
    Scene, Tally,
    failures::{Command, DISK, Failures, some_calls},
    scenes::{self, Start},
    world::{Generation, World},
};

/// Goes through the crashes of a scene; at least so many images are different.
fn all(world: &World, scene: &Scene, least: usize) {
    // Where passwords are tried, time goes into deriving keys.
    let thorough = !scene.name.starts_with("key") && scene.name != "init";
    let tally = scene.run(world, Depth::QUICK, thorough, 1);
    let Tally {
        steps,
        counted,
        inspected,
        failures,
        ..
    } = tally;
    let name = &scene.name;
    eprintln!("{name}: {steps} steps, {counted} crashes, {inspected} different images");
    for failure in failures.iter().take(20) {
        eprintln!("{failure}");
    }
    assert!(failures.is_empty(), "{name}: {} failures", failures.len());
    assert!(inspected >= least, "{name}: only {inspected} images");
}

#[test]
fn a_crash_of_init_leaves_no_repository_or_a_whole_one() {
    let world = World::new(1);
    all(
        &world,
        &scenes::init(&world, "init", Default::default()),
        15,
    );
}

#[test]
fn a_crash_of_the_first_backup_loses_nothing() {
    let world = World::new(2);
    let start = Start::empty(&world);
    let scene = scenes::backup_with_checkpoint(&world, "first backup", &start, Generation::One);
    all(&world, &scene, 100);
}

#[test]
fn a_crash_of_a_backup_taken_up_after_a_checkpoint_loses_nothing() {
    let world = World::new(3);
    let start = Start::empty(&world).with(&world, &[Generation::One]);
    let first = scenes::backup_with_checkpoint(&world, "second backup", &start, Generation::Two);
    let states = scenes::past_checkpoint(&first, &start);
    let Some(state) = states.first() else {
        panic!("the backup made no checkpoint");
    };
    let start = Start::after_crash(&first, state);
    let scene = scenes::backup(&world, "resumed backup", &start, Generation::Two);
    all(&world, &scene, 20);
}

#[test]
fn a_crash_of_a_backup_with_objects_of_its_own_for_index_and_snapshot_loses_nothing() {
    let world = World::new(4);
    let start = Start::empty(&world).with(&world, &[Generation::One]);
    let scene = scenes::backup(&world, "wide backup", &start, Generation::Wide);
    all(&world, &scene, 50);
}

#[test]
fn a_crash_of_a_stopped_backup_loses_nothing() {
    let world = World::new(5);
    let start = Start::empty(&world).with(&world, &[Generation::One]);
    all(&world, &scenes::stopped_backup(&world, &start), 25);
}

#[test]
fn a_crash_of_forget_and_prune_loses_nothing() {
    let world = World::new(6);
    let generations = [Generation::One, Generation::Two];
    let start = Start::empty(&world).with(&world, &generations);
    all(&world, &scenes::forget_and_prune(&world, &start), 20);
}

#[test]
fn a_crash_of_a_backup_and_a_prune_with_differences_loses_nothing() {
    let world = World::with_differences(8);
    let one = Start::empty(&world).with(&world, &[Generation::One]);
    all(
        &world,
        &scenes::backup(&world, "difference", &one, Generation::Two),
        20,
    );
    let two = one.then(&world, |repo| {
        world.save(repo, Generation::Two).unwrap();
        assert_eq!(world.differences(repo), 1);
    });
    all(&world, &scenes::forget_and_prune(&world, &two), 20);
}

#[test]
fn a_crash_while_damage_is_recorded_and_mended_loses_nothing() {
    let world = World::new(9);
    let generations = [Generation::One, Generation::Two];
    let start = Start::empty(&world).with(&world, &generations);
    all(&world, &scenes::mend(&world, &start), 20);
}

#[test]
fn a_crash_of_a_change_of_keys_leaves_a_way_in() {
    let world = World::new(7);
    let start = Start::empty(&world);
    all(&world, &scenes::add_key(&world, &start), 9);
    all(&world, &scenes::remove_key(&world, &start), 7);
    all(&world, &scenes::change_password(&world, &start), 4);
}

/// Lets every call of a command fail, as a full, broken or read-only disk does.
fn fails(seed: u64, command: Command, least: u64) {
    let world = Arc::new(World::new(seed));
    let start = Start::empty(&world).with(&world, &[Generation::One, Generation::Next]);
    // Every change of a key derives one from a password, which costs time on purpose, and mending
    // has three times as many calls as a backup.
    let effects = match command {
        Command::Keys | Command::Mend => &DISK[..1],
        _ => &DISK[..],
    };
    // All of them are in `just soak-crashes`.
    let every = if command == Command::Mend { 5 } else { 1 };
    let found = some_calls(&world, &start, command, effects, (1, every));
    let Failures {
        calls,
        runs,
        survived,
        failures,
    } = found;
    eprintln!("{command:?}: {calls} calls, {runs} failing runs, {survived} survived");
    for failure in failures.iter().take(20) {
        eprintln!("{failure}");
    }
    assert!(failures.is_empty(), "{command:?}: {}", failures.len());
    assert!(runs >= least, "{command:?}: only {runs} runs");
}

#[test]
fn a_disk_that_fails_at_any_call_of_a_backup_is_named_and_nothing_is_lost() {
    fails(11, Command::Backup, 50);
}

#[test]
fn a_disk_that_fails_at_any_call_of_forget_and_prune_is_named_and_nothing_is_lost() {
    fails(12, Command::ForgetAndPrune, 50);
}

#[test]
fn a_disk_that_fails_while_damage_is_mended_is_named_and_nothing_is_lost() {
    fails(14, Command::Mend, 50);
}

#[test]
fn a_disk_that_fails_at_any_call_of_a_restore_is_named_and_no_byte_is_wrong() {
    fails(13, Command::Restore, 50);
}

#[test]
fn a_disk_that_fails_at_any_call_of_a_change_of_keys_is_named_and_there_is_a_way_in() {
    fails(14, Command::Keys, 20);
}
