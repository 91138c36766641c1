//! Opens an index of made-up blobs through the local cache, says what that cost, and fails where
//! it cost more than it may.
//!
//! `cargo run --release -p strongroom-benches --example index_at_scale -- DIR [OBJECTS [MIB [WARM
//! [COLD]]]]`, 32,000 blobs an index object; run it twice to see a warm cache, with more objects to
//! see a merge. Without other numbers 313 objects, 10,016,000 entries.
//!
//! Exit code 1 says that opening and looking up took more than WARM seconds (5) with a cache and
//! COLD seconds (60) where objects had to be loaded, that something was not found or not listed, or
//! that memory was beyond MIB (700). Memory is the largest resident set, `VmHWM`: nearly all of it
//! are pages of the mapped cache, which the system may take back; `RssAnon` is what it cannot.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::{
    collections::HashSet,
    error::Error,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use strongroom_repo::{
    id::RepoId,
    index::{Index, IndexCache, synthetic::Synthetic},
};

const LOOKUPS: u32 = 10_000;
/// Index objects of 32,000 blobs each, MiB, seconds warm and cold, where nothing else is said.
const DEFAULTS: [u32; 4] = [313, 700, 5, 60];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().map(PathBuf::from).ok_or("which folder?")?;
    let mut numbers = DEFAULTS;
    for number in &mut numbers {
        if let Some(given) = args.next() {
            *number = given.parse()?;
        }
    }
    let [objects, mib, warm, cold] = numbers;
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
    let mut wrong = look_up(&index, &made_up)?;
    let took = start.elapsed();
    let most = if loads > 0 { cold } else { warm };
    if took > Duration::from_secs(most.into()) {
        wrong.push(format!(
            "opened and looked up in {took:?}, at most {most} s"
        ));
    }
    memory()?;
    wrong.extend(list(&index, &made_up)?);
    let peak = memory()?;
    if peak > u64::from(mib) << 10 {
        wrong.push(format!("{peak} KiB of memory, at most {mib} MiB"));
    }
    for line in &wrong {
        println!("FAILED: {line}");
    }
    Ok(ExitCode::from(u8::from(!wrong.is_empty())))
}

/// Looks up what is there and what is not; says what was answered wrong.
fn look_up(index: &Index, made_up: &Synthetic) -> Result<Vec<String>, Box<dyn Error>> {
    let start = Instant::now();
    println!(
        "{} copies, counted in {:?}",
        index.copy_count(),
        start.elapsed()
    );
    let objects = made_up.objects;
    let mut wrong = Vec::new();
    for (what, beyond, expected) in [
        ("hits", 0, LOOKUPS),
        ("misses", objects, 0),
        ("hits again", 0, LOOKUPS),
    ] {
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
        if found != expected {
            wrong.push(format!("{found} found of {expected}, {what}"));
        }
    }
    Ok(wrong)
}

/// Counts and lists every entry; says where some are missing.
fn list(index: &Index, made_up: &Synthetic) -> Result<Option<String>, Box<dyn Error>> {
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
    let expected = u64::from(made_up.objects) * u64::from(made_up.packs * made_up.blobs);
    let listed = u64::try_from(blobs)?;
    Ok((listed != expected).then(|| format!("{listed} of {expected} entries listed")))
}

/// Memory of this process: now, its own part of that, and the most so far, which is the result, in
/// KiB.
fn memory() -> Result<u64, Box<dyn Error>> {
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
    let peak = lines.iter().find_map(|line| line.strip_prefix("VmHWM: "));
    let peak = peak.and_then(|line| line.strip_suffix(" kB"));
    Ok(peak.ok_or("no VmHWM")?.parse()?)
}
