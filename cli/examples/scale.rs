//! Saves and restores with a built strongroom what is large in one way only, and holds every run
//! to limits of memory, and a backup after a small change to what it may add; see
//! `tests/e2e/scale.rs`. The sparse file is GB long and holds DATA MiB, FILES lie in one folder,
//! and the tree is LEVELS deep. FOLDER is emptied first and must lie on a disk that knows holes.
//!
//! usage: `just soak-scale [GB DATA FILES LEVELS FOLDER]`
#![expect(clippy::print_stdout, reason = "run by hand")]

#[path = "../tests/e2e/scale.rs"]
mod scale;

use std::{path::Path, process::ExitCode};

use scale::{Limits, Tree, go};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, folder, numbers @ ..] = words.as_slice() else {
        return usage();
    };
    let numbers: Result<Vec<u64>, _> = numbers.iter().map(|word| word.parse()).collect();
    let Ok(Ok([gigabytes, data, files, levels])) = numbers.map(<[u64; 4]>::try_from) else {
        return usage();
    };
    let limits = Limits {
        memory: 300 << 10,
        added: 1_000_000,
    };
    let sparse = Tree::Sparse {
        len: gigabytes * 1_000_000_000,
        data: data << 20,
    };
    let mut failed = false;
    for tree in [sparse, Tree::Wide(files), Tree::Deep(levels)] {
        println!("{tree:?}");
        let ended = go(
            Path::new(program),
            Path::new(folder),
            tree,
            limits,
            &mut |run| {
                println!("  {run}");
            },
        );
        if let Err(error) = ended {
            println!("FAILED: {tree:?}: {error}");
            failed = true;
        }
    }
    if failed {
        return ExitCode::FAILURE;
    }
    println!("all came back, within all limits");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    println!("usage: scale PROGRAM FOLDER GB DATA FILES LEVELS");
    ExitCode::from(2)
}
