//! What changed in files is stored as a difference, and comes back.

use std::path::Path;

use strongroom_repo::writer::{DeltaMode, WriterOptions};

use super::*;
use crate::{
    archive::{BackupOptions, BackupReport, BaseTree},
    observer::Recorder,
    view::View,
};

const MIB: usize = 1 << 20;

/// A safetensors file of bf16 tensors.
fn model(note: &str, tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let mut header = format!("{{\"__metadata__\":{{\"note\":\"{note}\"}}");
    let mut at = 0;
    for (name, bytes) in tensors {
        let (count, end) = (bytes.len() / 2, at + bytes.len());
        header += &format!(
            ",\"{name}\":{{\"dtype\":\"BF16\",\"shape\":[{count}],\"data_offsets\":[{at},{end}]}}"
        );
        at = end;
    }
    header.push('}');
    let mut file = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    for (_, bytes) in tensors {
        file.extend(*bytes);
    }
    file
}

/// Weights as training leaves them a step later: some values one step from where they were.
fn trained(weights: &[u8]) -> Vec<u8> {
    let mut weights = weights.to_vec();
    weights.iter_mut().step_by(34).for_each(|byte| *byte ^= 1);
    weights
}

fn save(repo: &Repository, options: &BackupOptions) -> BackupReport {
    let heard = Recorder::default();
    let report = backup(repo, options, &heard, &AtomicBool::new(false)).unwrap();
    assert_eq!(heard.problems(), Vec::<String>::new());
    report
}

fn with_parent(repo: &Repository, from: &Path, parent: &BackupReport) -> BackupOptions {
    let id = parent.snapshot.unwrap();
    let record = Snapshot::decode(&repo.load_snapshot(id).unwrap()).unwrap();
    BackupOptions {
        parent: Some((id, record)),
        ..options(from, About::default())
    }
}

fn assert_restores(repo: &Repository, report: &BackupReport, from: &Path) {
    let target = tempfile::tempdir().unwrap();
    let options = RestoreOptions::new(target.path().to_path_buf());
    let (heard, never) = (Recorder::default(), AtomicBool::new(false));
    restore(repo, report.tree, &options, &heard, &never).unwrap();
    assert_eq!(heard.problems(), Vec::<String>::new());
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        let (was, is) = (from.join(&name), target.path().join(&name));
        assert!(fs::read(was).unwrap() == fs::read(is).unwrap(), "{name:?}");
    }
}

#[test]
fn a_changed_file_takes_about_what_changed_wherever_its_bytes_moved() {
    let (store, from) = (MemBackend::new(), tempfile::tempdir().unwrap());
    let repo = create(&store);
    for (name, len) in [("big", 20 * MIB), ("small", 3 * MIB)] {
        fs::write(from.path().join(name), noise(1, len)).unwrap();
    }
    let first = save(&repo, &options(from.path(), About::default()));
    for (name, len) in [("big", 20 * MIB), ("small", 3 * MIB)] {
        let mut bytes = noise(1, len);
        for at in (0..len).step_by(2 * MIB + 12_345) {
            bytes[at..at + 500].copy_from_slice(&noise(2, 500));
        }
        bytes.splice(MIB..MIB, noise(3, 100_001));
        fs::write(from.path().join(name), bytes).unwrap();
    }
    let whole = BackupOptions {
        writer: WriterOptions {
            delta: DeltaMode::Never,
            dry_run: true,
            ..options(from.path(), About::default()).writer
        },
        ..with_parent(&repo, from.path(), &first)
    };
    let without = save(&repo, &whole).summary.data_added_packed;
    let second = save(&repo, &with_parent(&repo, from.path(), &first));
    let with = second.summary.data_added_packed;
    assert!(without > 3_000_000, "{without} bytes without deltas");
    assert!(with < 400_000, "{with} bytes with deltas");
    assert_restores(&repo, &second, from.path());
}

#[test]
fn rows_that_go_all_over_a_table_move_what_is_behind_them_and_it_is_found() {
    let (store, from) = (MemBackend::new(), tempfile::tempdir().unwrap());
    let repo = create(&store);
    let row = |number: u32| {
        let hash = blake3::hash(&number.to_le_bytes());
        format!("{number}\t{}\n", hash.to_hex())
    };
    let table = |keep: &dyn Fn(u32) -> bool| -> String {
        (0..200_000)
            .filter(|number| keep(*number))
            .map(row)
            .collect()
    };
    let file = from.path().join("table.sql");
    fs::write(&file, table(&|_| true)).unwrap();
    let first = save(&repo, &options(from.path(), About::default()));
    let whole = first.summary.data_added_packed;
    // No chunk stays as it was, and the last rows move by an eighth of the file.
    fs::write(&file, table(&|number| number % 8 != 5)).unwrap();
    let second = save(&repo, &with_parent(&repo, from.path(), &first));
    let added = second.summary.data_added_packed;
    assert!(added < whole / 10, "{added} bytes, {whole} at first");
    assert_restores(&repo, &second, from.path());
}

/// Pages of 4 KiB that begin as a database does.
fn database(pages: usize) -> Vec<u8> {
    let mut bytes = noise(4, pages * 4096);
    let head = [
        b"SQLite format 3\0".as_slice(),
        &[0x10, 0, 1, 1, 0, 64, 32, 32],
    ]
    .concat();
    bytes[..head.len()].copy_from_slice(&head);
    bytes
}

#[test]
fn pages_of_a_database_that_change_here_and_there_cost_little_more_than_themselves() {
    let (store, from) = (MemBackend::new(), tempfile::tempdir().unwrap());
    let repo = create(&store);
    // One of them is cut by several workers. Each begins with a piece that comes again in its
    // middle: that says nothing of where the others went.
    let files = [("large.db", 20 * MIB / 4096), ("small.db", 3 * MIB / 4096)];
    let content = |pages: usize, seed: u64| {
        let mut bytes = database(pages);
        let middle = pages / 2 / 64 * 64 * 4096;
        bytes.copy_within(64 * 4096..128 * 4096, middle);
        let changed = (200..pages).step_by(20);
        for page in changed.clone().filter(|_| seed > 0) {
            bytes[page * 4096..(page + 1) * 4096].copy_from_slice(&noise(seed, 4096));
        }
        (bytes, changed.len() * 4096)
    };
    for (name, pages) in files {
        fs::write(from.path().join(name), content(pages, 0).0).unwrap();
    }
    let mut last = save(&repo, &options(from.path(), About::default()));
    // Twice: what changed rests on the first of all.
    for seed in [1, 2] {
        let mut changed = 0;
        for (name, pages) in files {
            let (bytes, more) = content(pages, seed);
            fs::write(from.path().join(name), bytes).unwrap();
            changed += u64::try_from(more).unwrap();
        }
        last = save(&repo, &with_parent(&repo, from.path(), &last));
        let added = last.summary.data_added_packed;
        assert!(added < changed * 11 / 10, "{added} bytes for {changed}");
        assert_restores(&repo, &last, from.path());
    }
}

#[test]
fn a_trained_model_rests_on_its_tensors_of_the_same_names_in_whatever_order() {
    let (store, from) = (MemBackend::new(), tempfile::tempdir().unwrap());
    let repo = create(&store);
    let (a, b) = (noise(1, 3 * MIB), noise(2, 2 * MIB + 6));
    let file = from.path().join("model");
    fs::write(&file, model("first", &[("a", &a), ("b", &b)])).unwrap();
    let first = save(&repo, &options(from.path(), About::default()));
    let (a, b) = (trained(&a), trained(&b));
    fs::write(&file, model("the second one", &[("b", &b), ("a", &a)])).unwrap();
    let second = save(&repo, &with_parent(&repo, from.path(), &first));
    let added = second.summary.data_added_packed;
    assert!(added < 500_000, "{added} bytes");
    assert_restores(&repo, &second, from.path());
}

#[test]
fn a_model_under_another_name_finds_the_one_it_was_made_from() {
    let (store, from) = (MemBackend::new(), tempfile::tempdir().unwrap());
    let (other, third) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repo = create(&store);
    let weights = noise(1, 17 * MIB);
    let files = [
        ("unrelated", model("x", &[("u", &noise(7, 17 * MIB))])),
        ("base", model("", &[("w", &weights)])),
    ];
    for (name, bytes) in files {
        fs::write(from.path().join(name), bytes).unwrap();
    }
    let first = save(&repo, &options(from.path(), About::default()));
    let weights = trained(&weights);
    fs::write(
        other.path().join("tuned"),
        model("tuned", &[("w", &weights)]),
    )
    .unwrap();
    let second = save(&repo, &options(other.path(), About::default()));
    let added = second.summary.data_added_packed;
    assert!(added < 2_000_000, "{added} bytes");
    assert_restores(&repo, &second, other.path());
    // A file that was named is believed, whatever the content.
    let id = first.snapshot.unwrap();
    let record = Snapshot::decode(&repo.load_snapshot(id).unwrap()).unwrap();
    let entry = View::open(&repo, &record).unwrap();
    let entry = entry.lookup_typed(b"/unrelated").unwrap();
    let mut plain = model("x", &[("u", &noise(7, 17 * MIB))]);
    plain[9_000_000] ^= 1;
    fs::write(third.path().join("copy"), &plain[..2 * MIB]).unwrap();
    let given = BackupOptions {
        bases: vec![BaseTree { entry }],
        ..options(third.path(), About::default())
    };
    let added = save(&repo, &given).summary.data_added_packed;
    assert!(added < 1_500_000, "{added} bytes");
}
