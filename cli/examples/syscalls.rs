//! Runs a built strongroom on a disk that fails at every operation of an init, of a backup, or of a
//! forget and a prune, once and from then on, in every way, and on one whose power is cut at every
//! operation; see `tests/e2e/syscalls/` for what is demanded. Of the faults, dealt out in PARTS, it
//! goes through PART, from 0. Of ten faults nine must be met, or the round counts as failed.
//!
//! usage: `just soak-syscalls init|backup|prune [faults|cuts|all] [PART PARTS]`
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "run by hand, and to fail loudly is its job"
)]

#[path = "../tests/e2e/disk/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod disk;
#[path = "../tests/e2e/syscalls/mod.rs"]
mod syscalls;

use std::{path::Path, process::ExitCode, thread};

use syscalls::{Deed, Rig, Tally};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, deed, which, part, parts) = match words.as_slice() {
        [program, deed] => (*program, *deed, "all", "0", "1"),
        [program, deed, which] => (*program, *deed, *which, "0", "1"),
        [program, deed, which, part, parts] => (*program, *deed, *which, *part, *parts),
        _ => return usage(),
    };
    let deed = match deed {
        "init" => Deed::Init,
        "backup" => Deed::Backup,
        "prune" => Deed::Prune,
        _ => return usage(),
    };
    let (Ok(part), Ok(parts)) = (part.parse::<usize>(), parts.parse::<usize>()) else {
        return usage();
    };
    let folder = tempfile::tempdir().unwrap();
    let rig = match Rig::new(Path::new(program), folder.path(), deed) {
        Ok(rig) => rig,
        Err(error) => {
            println!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let all = match which {
        "faults" => rig.faults(),
        "cuts" => rig.power_cuts(),
        "all" => rig.power_cuts().into_iter().chain(rig.faults()).collect(),
        _ => return usage(),
    };
    let dealt: Vec<_> = all
        .iter()
        .copied()
        .skip(part)
        .step_by(parts.max(1))
        .collect();
    println!(
        "{deed:?}: part {part} of {parts}, {} of {} faults",
        dealt.len(),
        all.len()
    );
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut tally = Tally::default();
    // Told as it goes, so that a run that is stopped was not for nothing.
    for some in dealt.chunks(16) {
        let told = tally.wrong.len();
        tally.add(rig.run_all(some, workers));
        for wrong in &tally.wrong[told..] {
            println!("{wrong}");
        }
        println!("{} runs, {} wrong", tally.all(), tally.wrong.len());
    }
    for ((effect, lasting, outcome), runs) in &tally.runs {
        let when = if *lasting { "from then on" } else { "once" };
        println!("{effect} {when}: {runs} {outcome:?}");
    }
    let enough = tally.met() * 10 >= tally.all() * 9;
    if !enough {
        println!("too few were met: {} of {}", tally.met(), tally.all());
    }
    if tally.wrong.is_empty() && enough {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage() -> ExitCode {
    println!("usage: syscalls PROGRAM init|backup|prune [faults|cuts|all] [PART PARTS]");
    ExitCode::from(2)
}
