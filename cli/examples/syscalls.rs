//! Runs a built strongroom on a disk that fails at every operation of a backup, or of a forget and
//! a prune, once and from then on, in every way; see `tests/e2e/syscalls.rs` for what is demanded.
//! Of the faults, dealt out in PARTS, it goes through PART, from 0.
//!
//! usage: `just soak-syscalls backup|prune [PART PARTS]`
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "run by hand, and to fail loudly is its job"
)]

#[path = "../tests/e2e/disk/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use all of it")]
mod disk;
#[path = "../tests/e2e/syscalls.rs"]
mod syscalls;

use std::{path::Path, process::ExitCode, thread};

use syscalls::{Deed, Rig, Tally};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (program, deed, part, parts) = match words.as_slice() {
        [program, deed] => (*program, *deed, "0", "1"),
        [program, deed, part, parts] => (*program, *deed, *part, *parts),
        _ => return usage(),
    };
    let deed = match deed {
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
    let all = rig.faults();
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
        let runs: u64 = tally.runs.values().sum();
        println!("{runs} runs, {} wrong", tally.wrong.len());
    }
    for ((effect, lasting, outcome), runs) in &tally.runs {
        let when = if *lasting { "from then on" } else { "once" };
        println!("{effect} {when}: {runs} {outcome}");
    }
    if tally.wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage() -> ExitCode {
    println!("usage: syscalls PROGRAM backup|prune [PART PARTS]");
    ExitCode::from(2)
}
