//! The random tests that take hours: many seeds, every bit, a million segments. Prints what it does
//! and what fails, with what repeats it; ends with 1 where something failed.
//!
//! usage: soak all SEEDS          everything below, simulations of so many seeds
//!        soak sim FIRST COUNT    simulations of so many seeds
//!        soak seed SEED          one simulation, with everything that happens
//!        soak flips [PART PARTS] every bit of every object of a small repository, every cut; of
//!                                these, dealt out in PARTS, only PART, from 0
//!        soak packs BITS SEED    so many bits of packs of full size

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use strongroom_repo::backend::{ObjectName, testing::Damage};
use strongroom_tests::{
    crash::Share,
    flips::{Sample, judge_all},
    packs, sim,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().unwrap_or_default();
    let failures = match words.as_slice() {
        ["all", seeds] => simulations(0, number(seeds)) + flips(Share::ALL) + packs(100_000, 1),
        ["flips"] => flips(Share::ALL),
        ["flips", part, parts] => flips(Share {
            part: usize::try_from(number(part)).unwrap_or(usize::MAX),
            parts: usize::try_from(number(parts)).unwrap_or(usize::MAX),
        }),
        ["packs", bits, seed] => packs(number(bits), number(seed)),
        ["sim", first, count] => simulations(number(first), number(count)),
        ["seed", seed] => one_simulation(number(seed)),
        _ => {
            eprintln!(
                "usage: soak all SEEDS | sim FIRST COUNT | seed SEED | flips [PART PARTS] | \
                 packs BITS SEED"
            );
            return ExitCode::from(2);
        }
    };
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn flips(share: Share) -> u64 {
    let begin = Instant::now();
    let sample = match Sample::small() {
        Ok(sample) => sample,
        Err(error) => {
            eprintln!("{error}");
            return 1;
        }
    };
    let mut cases = Vec::new();
    for (name, bytes) in sample.objects.objects() {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        cases.extend((0..len * 8).map(|bit| (name, Damage::FlipBit(bit))));
        cases.extend((0..len).map(|cut| (name, Damage::Truncate(cut))));
    }
    let all = cases.len();
    let cases = share.of(cases);
    let judge = |(name, damage): &(ObjectName, Damage)| sample.judge_one(*name, *damage);
    let (count, complaints) = judge_all(&cases, &judge);
    for complaint in &complaints {
        println!("{complaint}");
    }
    println!(
        "{count} of {all} flips and cuts in {} bytes, {} not named, {:.0} s",
        sample.len(),
        complaints.len(),
        begin.elapsed().as_secs_f64(),
    );
    u64::try_from(complaints.len()).unwrap_or(u64::MAX)
}

fn packs(bits: u64, seed: u64) -> u64 {
    let begin = Instant::now();
    match packs::flip(bits, seed) {
        Ok(done) => {
            println!(
                "{} bits in blobs and {} elsewhere in packs of {} bytes, all named, {:.0} s",
                done.in_blobs,
                done.elsewhere,
                done.bytes,
                begin.elapsed().as_secs_f64(),
            );
            0
        }
        Err(error) => {
            println!("packs of seed {seed}: {error}");
            1
        }
    }
}

fn one_simulation(seed: u64) -> u64 {
    match sim::run(seed, None, true) {
        Ok(course) => {
            for line in &course.tale {
                println!("{line}");
            }
            println!("{} steps, {:?}", course.steps, course.broken);
            u64::from(course.broken.is_some())
        }
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn simulations(first: u64, count: u64) -> u64 {
    let begin = Instant::now();
    let next = AtomicU64::new(first);
    let [failures, steps, strikes, entries] = [const { AtomicU64::new(0) }; 4];
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let broken = match sim::run(seed, None, false) {
                        Ok(course) => {
                            steps.fetch_add(course.steps, Ordering::Relaxed);
                            strikes.fetch_add(course.strikes, Ordering::Relaxed);
                            let grown = u64::try_from(course.entries).unwrap_or(0);
                            entries.fetch_add(grown, Ordering::Relaxed);
                            course.broken
                        }
                        Err(error) => Some(error),
                    };
                    if let Some(broken) = broken {
                        failures.fetch_add(1, Ordering::Relaxed);
                        println!("seed {seed}: {broken}");
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    println!(
        "{count} seeds from {first}, {} steps, {} faults, {} entries, {failures} failed, {:.0} s",
        steps.into_inner(),
        strikes.into_inner(),
        entries.into_inner(),
        begin.elapsed().as_secs_f64(),
    );
    failures
}
