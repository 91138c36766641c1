//! Simulations of several clients on one store, from seeds: many keep every promise, the same seed
//! takes the same course, and where a rule is broken on purpose some seed shows it.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use rstest::rstest;
use strongroom_repo::mutant::Mutant as RepoMutant;
use strongroom_tests::sim::{Course, Mutant, run};

/// Runs seeds from 0 on, on all cores, until `take` has enough.
#[expect(
    clippy::unwrap_used,
    reason = "a simulation that cannot begin ends the test"
)]
fn seeds(count: u64, mutant: Option<Mutant>, take: &(dyn Fn(Course) -> bool + Sync)) {
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let course = run(seed, mutant, false).unwrap();
                    if !take(course) {
                        next.store(count, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

#[test]
fn a_thousand_seeds_keep_every_promise() {
    let broken = Mutex::new(Vec::new());
    let [steps, strikes, entries, snapshots] = [const { AtomicU64::new(0) }; 4];
    seeds(1000, None, &|course| {
        steps.fetch_add(course.steps, Ordering::Relaxed);
        strikes.fetch_add(course.strikes, Ordering::Relaxed);
        entries.fetch_add(course.entries as u64, Ordering::Relaxed);
        snapshots.fetch_add(course.snapshots as u64, Ordering::Relaxed);
        if let Some(what) = course.broken {
            let seed = course.seed;
            let again = format!("cargo run -p strongroom-tests --bin soak -- seed {seed}");
            broken
                .lock()
                .unwrap()
                .push(format!("{what}\n  again: {again}"));
        }
        true
    });
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    // A simulation in which nothing happens keeps every promise.
    assert!(steps.into_inner() > 500_000);
    assert!(strikes.into_inner() > 3000);
    assert!(entries.into_inner() > 8000);
    assert!(snapshots.into_inner() > 1000);
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for seed in 0..50 {
        let (one, other) = (
            run(seed, None, false).unwrap(),
            run(seed, None, true).unwrap(),
        );
        assert_eq!(one.trace, other.trace, "seed {seed}");
        assert_eq!(one.steps, other.steps, "seed {seed}");
        assert!(!other.tale.is_empty());
    }
    let (one, other) = (run(1, None, false).unwrap(), run(2, None, false).unwrap());
    assert_ne!(one.trace, other.trace);
}

#[rstest]
#[case(Mutant::Repository(RepoMutant::CommitTrustsIndex))]
#[case(Mutant::Repository(RepoMutant::CommitChecksOnce))]
#[case(Mutant::Repository(RepoMutant::ParentUnchecked))]
#[case(Mutant::Repository(RepoMutant::DeletedBeforeSwept))]
#[case(Mutant::Repository(RepoMutant::SweepUnchecked))]
#[case(Mutant::Repository(RepoMutant::CopySuffices))]
#[case(Mutant::Repository(RepoMutant::BasesUnrelied))]
#[case(Mutant::NoLogBarrier)]
#[case(Mutant::NoPackBarrier)]
fn a_broken_rule_is_noticed_within_a_thousand_seeds(#[case] mutant: Mutant) {
    let first = Mutex::new(None);
    seeds(1000, Some(mutant), &|course| {
        let Some(what) = course.broken else {
            return true;
        };
        first.lock().unwrap().get_or_insert((course.seed, what));
        false
    });
    let found = first.into_inner().unwrap();
    let (seed, what) = found.unwrap_or_else(|| panic!("{mutant:?} went unnoticed"));
    println!("{mutant:?} at seed {seed}: {what}");
}
