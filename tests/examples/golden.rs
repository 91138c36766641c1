//! Makes a frozen repository under `tests/golden/`: once for each version of the format, into a
//! new folder, never into one that is there. What is in it, and why, stands in its README, which
//! this program does not write; what it must still give back stands in `manifest.txt`, which it
//! does.
//!
//! Keys follow from a fixed seed. Salts are drawn by several threads, and change times and inode
//! numbers are the file system's, so that a second run gives an equivalent repository, not the
//! same bytes.
//!
//! usage: `just golden repo-v1`, `just golden repo-v1-deltas`
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "run by hand, and to fail loudly is its job"
)]

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use strongroom_core::{
    archive::{About, BackupOptions, backup},
    format::snapshot::Snapshot,
    observer::Silent,
    prune::prune,
    source::meta::Accounts,
};
use strongroom_repo::{
    backend::{LocalBackend, LocalOptions},
    codec::Hint,
    crypto::{BlobKind, KdfParams},
    env::{Env, Timestamp, testing},
    format::{config::ConfigBody, slot::Role},
    id::SnapshotId,
    prune::PruneOptions,
    repository::{CreateOptions, NewKey, OpenOptions, Repository, Secret},
    writer::WriterOptions,
};
use strongroom_tests::golden::{escape, noise, text};

/// From this the keys follow.
const SEED: u64 = 1;
/// 2023-11-14T22:13:20Z.
const TIME: i64 = 1_700_000_000;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let make = match name.as_str() {
        "repo-v1" => repo_v1,
        "repo-v1-deltas" => repo_v1_deltas,
        _ => return ExitCode::from(2),
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    // Never edited: fails where the folder is there.
    fs::create_dir_all(golden.parent().unwrap()).unwrap();
    fs::create_dir(&golden).unwrap();
    let manifest = make(&golden.join("repo"));
    fs::write(golden.join("manifest.txt"), manifest).unwrap();
    remove_empty(&golden.join("repo"));
    ExitCode::SUCCESS
}

/// What format 1 had from its beginning.
fn repo_v1(path: &Path) -> String {
    let source = tempfile::tempdir().unwrap();
    let mut manifest = String::new();
    let (repo, clock) = create(path, [64, 256, 1024]);
    fill_first(source.path());
    let first = snapshot(&repo, source.path(), "first", None);
    list(source.path(), "first", &mut manifest);

    clock.set(at(3600));
    add_reader(&repo);
    clock.set(at(7200));
    checkpoint(&repo);

    clock.set(at(10_800));
    change_for_second(source.path());
    snapshot(&repo, source.path(), "second", Some(first));
    list(source.path(), "second", &mut manifest);

    clock.set(at(14_400));
    fs::write(source.path().join("notes.txt"), b"removed again\n").unwrap();
    let (gone, _) = snapshot(&repo, source.path(), "gone", None);
    clock.set(at(18_000));
    repo.remove_snapshots(&[gone]).unwrap();
    manifest
}

/// Deltas of each codec, tensors and blocks; of the first generation only what the later ones rest
/// on is needed any more, and of what nobody needs one pack was swept.
fn repo_v1_deltas(path: &Path) -> String {
    let source = tempfile::tempdir().unwrap();
    let mut manifest = String::new();
    let (repo, clock) = create(path, [32 << 10, 64 << 10, 128 << 10]);
    fill_generation(source.path(), 0);
    let first = snapshot(&repo, source.path(), "first", None);
    let only = source.path().join("only-once");
    fs::write(&only, noise("only once", 500)).unwrap();
    let once = snapshot(&repo, source.path(), "once", Some(first.clone()));
    fs::remove_file(only).unwrap();
    let mut parent = first.clone();
    for (generation, tag) in [(1, "second"), (2, "third")] {
        clock.set(at(3600 * i64::from(generation)));
        fill_generation(source.path(), generation);
        parent = snapshot(&repo, source.path(), tag, Some(parent));
        list(source.path(), tag, &mut manifest);
    }
    clock.set(at(14_400));
    repo.remove_snapshots(&[first.0, once.0]).unwrap();
    add_reader(&repo);
    clock.set(at(18_000));
    let never = AtomicBool::new(false);
    prune(&repo, PruneOptions::default(), 1, &(), &never).unwrap();
    manifest
}

fn at(offset: i64) -> Timestamp {
    Timestamp {
        secs: TIME + offset,
        nanos: 123_456_789,
    }
}

fn create(
    path: &Path,
    [chunk_min, chunk_avg, chunk_max]: [u32; 3],
) -> (Repository, Arc<testing::FixedClock>) {
    let clock = testing::FixedClock::new(TIME);
    let random = testing::SeededRandom::new(SEED);
    let env = Env::new(clock.clone(), random, [7; 32]).unwrap();
    let options = LocalOptions {
        run: env.run(),
        reserve_len: 0,
    };
    let backend = Arc::new(LocalBackend::create(path, options).unwrap());
    let options = CreateOptions {
        config: ConfigBody {
            created: Timestamp::default(),
            program: "strongroom golden".to_owned(),
            chunker: 1,
            chunk_min,
            chunk_avg,
            chunk_max,
            pack_target: 4 << 20,
        },
        label: "owner@golden".to_owned(),
        kdf: KdfParams::DEFAULT,
        open: OpenOptions::default(),
    };
    let secret = Secret::Password(b"golden owner".to_vec());
    (
        Repository::create(backend, env, secret, options).unwrap(),
        clock,
    )
}

fn add_reader(repo: &Repository) {
    let key = NewKey {
        label: "reader@golden".to_owned(),
        role: Role::Reader,
        password: b"golden reader",
        kdf: KdfParams::DEFAULT,
    };
    repo.add_key(key).unwrap();
}

/// What an interrupted backup leaves: packs that an `AddPacks` entry lists. The blob is a piece of
/// a file of the second snapshot, which so finds it again.
fn checkpoint(repo: &Repository) {
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    for n in 0..4 {
        let plain = noise(&format!("checkpoint {n}"), 300);
        writer
            .put(&mut bench, BlobKind::Data, Hint::Plain, &plain)
            .unwrap();
    }
    repo.keep(&writer, &mut bench).unwrap();
}

fn snapshot(
    repo: &Repository,
    source: &Path,
    tag: &str,
    parent: Option<(SnapshotId, Snapshot)>,
) -> (SnapshotId, Snapshot) {
    let options = BackupOptions {
        parent,
        about: About {
            host: "golden".to_owned(),
            user: "root".to_owned(),
            tags: vec![tag.to_owned()],
            program: "strongroom golden".to_owned(),
            ..About::default()
        },
        accounts: Accounts::parse(b"root:x:0:0::/:/bin/sh\n", b"root:x:0:\n"),
        ..BackupOptions::new(source.to_owned())
    };
    let report = backup(repo, &options, &Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!(report.errors, 0);
    let id = report.snapshot.unwrap();
    let record = repo.load_snapshot(id).unwrap();
    (id, Snapshot::decode(&record).unwrap())
}

/// The files of the first snapshot: see the README.
fn fill_first(dir: &Path) {
    let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    put("empty", b"");
    put("one-byte", b"x");
    put("notes.txt", text(3000).as_bytes());
    put("model.safetensors", &safetensors());
    put("floats.raw", floats16(8193).get(1..).unwrap());
    // More than 1024 extents of few different chunks: two leaf pages and one above them.
    put("long.bin", &noise("block", 2048).repeat(150));
    put("zeros", &[0; 5000]);
    fs::write(
        dir.join(OsStr::from_bytes(b"not \xff utf-8")),
        b"named badly\n",
    )
    .unwrap();
    fs::hard_link(dir.join("notes.txt"), dir.join("notes-again.txt")).unwrap();
    std::os::unix::fs::symlink("notes.txt", dir.join("link")).unwrap();
    sparse(&dir.join("sparse.img"));
    fs::create_dir_all(dir.join("deep/er/est")).unwrap();
    put("deep/er/est/file", b"at the bottom\n");
    fs::create_dir(dir.join("none-here")).unwrap();
    fs::create_dir(dir.join("many")).unwrap();
    // Enough names for several pages.
    for n in 0..600 {
        put(&format!("many/entry-{n:04}"), b"");
    }
}

fn change_for_second(dir: &Path) {
    let mut long = noise("block", 2048).repeat(150);
    long.splice(5000..5000, noise("inserted", 100));
    fs::write(dir.join("long.bin"), long).unwrap();
    fs::write(dir.join("checkpointed"), noise("checkpoint 0", 300)).unwrap();
    fs::remove_file(dir.join("one-byte")).unwrap();
    fs::write(dir.join("many/entry-0300a"), b"new\n").unwrap();
}

/// Data, a hole, data, a hole to the end.
fn sparse(path: &Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(b"first", 0).unwrap();
    file.write_all_at(b"second", 1 << 20).unwrap();
}

/// `len` bytes of bf16 elements such as weights are: few exponents, noise below.
fn floats16(len: usize) -> Vec<u8> {
    let noise = noise("bf16", len);
    let element = |pair: &[u8]| {
        let bits = u16::from(pair.first().copied().unwrap_or(0)) << 8
            | u16::from(pair.get(1).copied().unwrap_or(0));
        let exponent = 120 + (bits.trailing_zeros() as u16).min(6);
        (bits & 0x8000 | exponent << 7 | (bits >> 8) & 0x7f).to_le_bytes()
    };
    noise.chunks(2).flat_map(element).take(len).collect()
}

/// `len` bytes of fp32 elements.
fn floats32(len: usize) -> Vec<u8> {
    let noise = noise("fp32", len);
    let element = |four: &[u8]| {
        let bits = four
            .iter()
            .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let exponent = 118 + bits.trailing_zeros().min(6);
        (bits & 0x8000_0000 | exponent << 23 | (bits >> 8) & 0x7f_ffff).to_le_bytes()
    };
    noise.chunks(4).flat_map(element).take(len).collect()
}

fn safetensors() -> Vec<u8> {
    let header = concat!(
        r#"{"a":{"dtype":"BF16","shape":[4096],"data_offsets":[0,8192]},"#,
        r#""b":{"dtype":"F32","shape":[2048],"data_offsets":[8192,16384]},"#,
        r#""c":{"dtype":"F16","shape":[4096],"data_offsets":[16384,24576]}}"#,
    );
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend(floats16(8192));
    out.extend(floats32(8192));
    out.extend(halves(8192));
    out
}

/// Halves of one binade and its neighbours.
fn halves(len: usize) -> Vec<u8> {
    let halves = noise("fp16", len);
    let element = |pair: &[u8]| {
        let low = pair.first().copied().unwrap_or(0);
        let high = pair.get(1).copied().unwrap_or(0);
        [
            low,
            high & 0x83 | 0x30 | (high.trailing_zeros().min(1) as u8) << 2,
        ]
    };
    halves.chunks(2).flat_map(element).collect()
}

/// The files of a generation of `repo-v1-deltas`: see its README.
fn fill_generation(dir: &Path, generation: u8) {
    let put = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    let step = usize::from(generation);
    let floats = [
        ("bf16", "BF16", 2, trained(floats16(40_002), 2, generation)),
        ("fp16", "F16", 2, trained(halves(36_000), 2, generation)),
        ("fp32", "F32", 4, trained(floats32(40_000), 4, generation)),
        // Longer each time: its base is continued by zeros.
        (
            "pruned",
            "F16",
            2,
            // Shorter each time: its base is cut.
            trained(halves(39_000 - 2000 * step), 2, generation),
        ),
        (
            "vocabulary",
            "BF16",
            2,
            trained(floats16(34_000 + 2000 * step), 2, generation),
        ),
    ];
    put("model.safetensors", &tensors(generation, &floats));
    let mut swapped = trained(floats32(40_000), 4, generation);
    swapped.chunks_mut(4).for_each(<[u8]>::reverse);
    let header = "{'descr': '>f4', 'fortran_order': False, 'shape': (10000,), }";
    let mut array = b"\x93NUMPY\x01\0\x76\0".to_vec();
    array.extend(format!("{header:<117}\n").as_bytes());
    array.extend(swapped);
    put("swapped.npy", &array);
    let mut book = text(200_000).into_bytes();
    for at in (0..step * 30_000).step_by(10_000) {
        book.splice(
            at..at,
            format!("edited {generation} at {at}\n").into_bytes(),
        );
    }
    // Shorter than what it rests on.
    book.truncate(200_000 - 20_000 * step);
    put("book.txt", &book);
    put("app.db", &pages(generation));
    image(&dir.join("disk.img"), generation);
}

/// Weights some steps later: every so many values are a little larger or smaller, among them
/// special ones and zero.
fn trained(mut weights: Vec<u8>, width: usize, generation: u8) -> Vec<u8> {
    let specials: [u32; 6] = [0x7fc0_0001, 0xff80_0000, 0x8000_0000, 1, 0, 0x7f80_1234];
    let places = weights.chunks_exact_mut(width).step_by(211);
    for (bits, place) in specials.iter().cycle().zip(places) {
        let bytes = bits.to_be_bytes();
        place
            .iter_mut()
            .rev()
            .zip(bytes)
            .for_each(|(to, byte)| *to = byte);
    }
    for past in 1..=generation {
        let step = 31 + usize::from(past);
        weights
            .iter_mut()
            .step_by(step * width)
            .for_each(|byte| *byte ^= past);
    }
    weights
}

/// A safetensors file: name, type, width, bytes. Each generation has a header of another length
/// and another order.
fn tensors(generation: u8, tensors: &[(&str, &str, usize, Vec<u8>)]) -> Vec<u8> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.rotate_left(usize::from(generation));
    let note = "x".repeat(usize::from(generation) * 7);
    let mut header = format!("{{\"__metadata__\":{{\"note\":\"{note}\"}}");
    let mut at = 0;
    for (name, dtype, width, bytes) in &order {
        let (count, end) = (bytes.len() / width, at + bytes.len());
        let places = format!("\"shape\":[{count}],\"data_offsets\":[{at},{end}]");
        header += &format!(",\"{name}\":{{\"dtype\":\"{dtype}\",{places}}}");
        at = end;
    }
    header.push('}');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    order.iter().for_each(|(.., bytes)| out.extend(bytes));
    out
}

/// What begins like an SQLite database of pages of 8 KiB; one page of it changes.
fn pages(generation: u8) -> Vec<u8> {
    let mut pages = text(25 * 8192).into_bytes();
    let head = b"SQLite format 3\0\x20\0\x01\x01\0\x40\x20\x20";
    pages[..head.len()].copy_from_slice(head);
    pages[24] = generation;
    let changed = 17 * 8192..17 * 8192 + 300 * usize::from(generation);
    let bytes = noise("page", changed.len());
    pages[changed].copy_from_slice(&bytes);
    pages
}

/// What begins like an image of ext4: data, written zeros, data, a hole. A block changes, and in
/// the third generation all moves on by three blocks.
fn image(path: &Path, generation: u8) {
    let mut head = vec![0; 4096];
    // Inodes, blocks, magic.
    for (at, byte) in [(1024, 16), (1028, 16), (1080, 0x53), (1081, 0xef)] {
        head[at] = byte;
    }
    let mut data = text(120_000).into_bytes();
    data.resize(30 * 4096, b'.');
    let changed = 9 * 4096..9 * 4096 + 100 * usize::from(generation);
    let bytes = noise("block", changed.len());
    data[changed].copy_from_slice(&bytes);
    let moved = if generation == 2 { 3 * 4096 } else { 0 };
    let _ = fs::remove_file(path);
    let file = fs::File::create(path).unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(&head, 0).unwrap();
    file.write_all_at(&vec![0; 1 << 20], 4096).unwrap();
    file.write_all_at(&data, (1 << 20) + moved).unwrap();
}

/// One line for every regular file that is not empty: tag, BLAKE3, length, path; then one with
/// the number of all of them and the sum of their lengths.
fn list(dir: &Path, tag: &str, manifest: &mut String) {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let (count, mut total) = (files.len(), 0);
    for file in files {
        let bytes = fs::read(&file).unwrap();
        total += bytes.len();
        if bytes.is_empty() {
            continue;
        }
        let path = file.strip_prefix(dir).unwrap().as_os_str().as_bytes();
        let hash = strongroom_tests::golden::hash(&bytes);
        let line = format!("{tag} {hash} {} {}\n", bytes.len(), escape(path));
        manifest.push_str(&line);
    }
    manifest.push_str(&format!("{tag} total {count} {total}\n"));
}

/// What git would not keep either.
fn remove_empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            remove_empty(&entry.path());
            // Fails where something is left in it, as it should.
            let _ = fs::remove_dir(entry.path());
        }
    }
}
