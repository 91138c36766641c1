//! Opens an index of made-up blobs through the local cache and says what that cost.
//!
//! `cargo run --release -p strongroom-benches --example index_at_scale -- DIR OBJECTS`, 32,000
//! blobs an index object; run it twice to see a warm cache, with more objects to see a merge.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::{collections::HashSet, error::Error, path::PathBuf, time::Instant};

use strongroom_repo::{
    id::RepoId,
    index::{IndexCache, synthetic::Synthetic},
};

const LOOKUPS: u32 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map(PathBuf::from).ok_or("which folder?")?;
    let objects = args.next().ok_or("how many index objects?")?.parse()?;
    let made_up = Synthetic {
        objects,
        packs: 1000,
        blobs: 32,
    };
    let mut loads = 0_u32;
    let mut load = |id| {
        loads += 1;
        Ok(made_up.body(id))
    };
    let dir = (dir.as_os_str() != "-").then_some(dir);
    let start = Instant::now();
    let repo = RepoId::new([1; 16]);
    let live = made_up.live();
    let index = IndexCache::open(dir.as_deref(), repo, &live, &HashSet::new(), &mut load)?;
    println!("open: {:?}, {loads} index objects loaded", start.elapsed());
    memory()?;
    let start = Instant::now();
    println!(
        "{} copies, counted in {:?}",
        index.copy_count(),
        start.elapsed()
    );
    for (what, beyond) in [("hits", 0), ("misses", objects), ("hits again", 0)] {
        let ids: Vec<_> = (0..LOOKUPS)
            .map(|step| {
                let step = step.wrapping_mul(2_654_435_761);
                let object = (step >> 8) % objects + beyond;
                Synthetic::blob_id(object, (step >> 16) % made_up.packs, step % made_up.blobs)
            })
            .collect();
        let start = Instant::now();
        let mut found = 0;
        for id in &ids {
            found += u32::from(index.find(id)?.is_some());
        }
        println!(
            "{LOOKUPS} look-ups, {what}: {:?}, {found} found",
            start.elapsed()
        );
    }
    memory()?;
    let start = Instant::now();
    println!(
        "{} blobs, counted in {:?}",
        index.blob_count()?,
        start.elapsed()
    );
    let start = Instant::now();
    let mut blobs = 0;
    for pack in index.packs() {
        blobs += index.entries_of(pack.number)?.len();
    }
    println!(
        "{blobs} entries listed pack by pack in {:?}",
        start.elapsed()
    );
    memory()
}

/// Memory of this process: now, its own part of that, and the most so far.
fn memory() -> Result<(), Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let lines = status.lines().filter(|line| {
        ["VmHWM", "VmRSS", "RssAnon", "RssFile"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    let lines: Vec<_> = lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    println!("memory: {}", lines.join(", "));
    Ok(())
}
