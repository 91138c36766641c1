//! What changed in a file is stored as its difference: when it is, when it is not, what a file
//! under another name descends from, and what becomes of it all where the bytes below are damaged.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    runs::{answer, files, id, noise, save, well},
    sandbox::Sandbox,
};

const MIB: usize = 1 << 20;

/// Blobs in a repository that are stored as differences, of whatever kind.
fn deltas(sandbox: &Sandbox) -> u64 {
    let stats = answer(sandbox, ["--json", "stats", "--mode", "raw-data"])
        .pop()
        .unwrap();
    let codecs = stats["codecs"].as_object().unwrap().iter();
    codecs
        .filter(|(name, _)| name.starts_with("delta"))
        .map(|(_, sum)| sum["blob_count"].as_u64().unwrap())
        .sum()
}

fn packed(summary: &Value) -> u64 {
    summary["data_added_packed"].as_u64().unwrap()
}

/// Saves something with more arguments; the message about it.
fn save_with<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Value {
    let mut command = sandbox.command();
    command.args(["--json", "backup"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let out = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

fn assert_restores(sandbox: &Sandbox, summary: &Value, folder: &str) {
    let to = format!("to-{}", id(summary));
    well(sandbox, ["restore", &id(summary), "--target", &to]);
    for entry in fs::read_dir(sandbox.path(folder)).unwrap() {
        let name = entry.unwrap().file_name();
        let now = fs::read(sandbox.path(folder).join(&name)).unwrap();
        let back = fs::read(sandbox.path(&to).join(folder).join(&name)).unwrap();
        assert!(now == back, "{name:?}");
    }
}

/// Bytes, of which some change from one version to the next.
fn version(number: u64) -> Vec<u8> {
    let mut bytes = noise(2 * MIB, 1);
    for at in (0..bytes.len()).step_by(200_000) {
        bytes[at..at + 100].copy_from_slice(&noise(100, 10 + number));
    }
    bytes
}

#[test]
fn what_changed_in_a_file_is_stored_as_its_difference_unless_that_is_not_wanted() {
    for (mode, wanted) in [("auto", true), ("always", true), ("never", false)] {
        let sandbox = Sandbox::with_repository();
        sandbox.write("data/file", &version(0));
        save_with(&sandbox, ["--delta", mode, "data"]);
        assert_eq!(deltas(&sandbox), 0);
        sandbox.write("data/file", &version(1));
        let second = save_with(&sandbox, ["--delta", mode, "data"]);
        assert_eq!(deltas(&sandbox) > 0, wanted, "{mode}");
        let added = packed(&second);
        assert!((added < 100_000) == wanted, "{mode}: {added}");
        assert_restores(&sandbox, &second, "data");
        well(&sandbox, ["check", "--read-data"]);
    }
}

#[test]
fn without_a_parent_nothing_is_a_difference_and_what_a_mode_is_not_is_refused() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("data/file", &version(0));
    save(&sandbox, "data");
    sandbox.write("data/file", &version(1));
    let forced = save_with(&sandbox, ["--force", "data"]);
    assert_eq!(deltas(&sandbox), 0);
    assert!(packed(&forced) > MIB as u64);
    let said = sandbox.run(["backup", "--delta", "sometimes", "data"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("sometimes"), "{said:?}");
}

#[test]
fn a_file_that_is_named_as_the_base_is_what_a_new_one_differs_from() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("old/folder/file", &version(0));
    sandbox.write("old/other", &noise(2 * MIB, 99));
    let first = id(&save(&sandbox, "old"));
    sandbox.write("new/renamed", &version(1));
    let alone = save_with(&sandbox, ["--dry-run", "new"]);
    assert!(packed(&alone) > MIB as u64, "a plain file has no relatives");
    let base = format!("{first}:/old/folder/file");
    let second = save_with(&sandbox, ["--base", &base, "new"]);
    assert!(packed(&second) < 100_000, "{second}");
    assert!(deltas(&sandbox) > 0);
    assert_restores(&sandbox, &second, "new");
    // What is named in vain.
    let said = sandbox.run(["backup", "--base", "0123456789", "new"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("0123456789"), "{said:?}");
    let nowhere = format!("{first}:/old/nothing");
    let said = sandbox.run(["backup", "--base", &nowhere, "new"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("/old/nothing"), "{said:?}");
    well(&sandbox, ["check", "--read-data"]);
    // What rests on the first snapshot outlives it.
    well(&sandbox, ["forget", &first]);
    well(&sandbox, ["prune"]);
    assert_restores(&sandbox, &second, "new");
    well(&sandbox, ["check", "--read-data"]);
}

/// A safetensors file of one bf16 tensor of 3 MiB, some values of which differ by version.
fn weights(seed: u64, version: u8) -> Vec<u8> {
    let mut data = noise(3 * MIB, seed);
    // Exponents as weights have them.
    let exponents = data.iter_mut().skip(1).step_by(2);
    exponents.for_each(|byte| *byte = *byte & 0x80 | 0x3b | *byte & 1 << 2);
    let steps = data.iter_mut().step_by(46);
    steps.for_each(|byte| *byte ^= version);
    let (count, len) = (data.len() / 2, data.len());
    let note = "y".repeat(usize::from(version) * 3);
    let header = format!(
        "{{\"__metadata__\":{{\"note\":\"{note}\"}},\
         \"w{seed}\":{{\"dtype\":\"BF16\",\"shape\":[{count}],\"data_offsets\":[0,{len}]}}}}"
    );
    let mut file = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

#[test]
fn a_model_in_shards_under_another_name_and_folder_finds_what_it_was_made_from() {
    let shard = |folder: &str, seed: u64| format!("{folder}-0000{seed}-of-00003.safetensors");
    let fill = |sandbox: &Sandbox, folder: &str, version: u8| {
        for seed in 1..4 {
            sandbox.write(shard(folder, seed), &weights(seed, version));
        }
    };
    // By itself, and where the folder is named.
    for named in [false, true] {
        let sandbox = Sandbox::with_repository();
        fill(&sandbox, "hub/base/model", 0);
        let first = save(&sandbox, "hub/base");
        let whole = packed(&first);
        assert!(whole > 5 * MIB as u64, "{whole}");
        fill(&sandbox, "runs/7/tuned", 1);
        let base = format!("{}:/hub/base", id(&first));
        let second = if named {
            save_with(&sandbox, ["--base", &base, "runs/7"])
        } else {
            save(&sandbox, "runs/7")
        };
        let added = packed(&second);
        assert!(added < whole / 8, "{added} of {whole}");
        assert_restores(&sandbox, &second, "runs/7");
        fill(&sandbox, "runs/8/whole", 2);
        let whole = save_with(&sandbox, ["--delta", "never", "runs/8"]);
        assert!(packed(&whole) > added * 6, "{whole}");
        assert_restores(&sandbox, &whole, "runs/8");
        well(&sandbox, ["check", "--read-data"]);
    }
}

/// A file whose second version rests on the first, beside one that does not.
struct Resting {
    sandbox: Sandbox,
    /// Both snapshots.
    snapshots: [String; 2],
    /// The packs with the first version.
    bases: Vec<PathBuf>,
}

impl Resting {
    fn new() -> Self {
        let sandbox = Sandbox::with_repository();
        sandbox.write("data/changes", &version(0));
        let first = id(&save(&sandbox, "data"));
        let mut packs = files(&sandbox.path("repo/packs"));
        packs.retain(|(_, len)| *len > 100_000);
        sandbox.write("data/changes", &version(1));
        sandbox.write("data/other", &noise(300_000, 7));
        let second = id(&save(&sandbox, "data"));
        assert!(deltas(&sandbox) > 0);
        Self {
            sandbox,
            snapshots: [first, second],
            bases: packs.into_iter().map(|(path, _)| path).collect(),
        }
    }

    /// What a check finds; then a restore gives what is whole.
    fn assert_named<const N: usize>(&self, check: [&str; N]) {
        let sandbox = &self.sandbox;
        let said = sandbox.run(check);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("needed by /data/changes in"), "{said:?}");
        assert!(!said.err.contains("needed by /data/other"), "{said:?}");
        let said = sandbox.run(["restore", "latest", "--target", "to"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("data/changes"), "{said:?}");
        assert!(!said.err.contains("data/other"), "{said:?}");
        let other = fs::read(sandbox.path("to/data/other")).unwrap();
        assert!(other == fs::read(sandbox.path("data/other")).unwrap());
        assert!(!sandbox.path("to/data/changes").exists());
    }

    /// A backup stores whole what is lost, and the next rests on that; then all is well without the
    /// snapshots that lost something.
    fn assert_mends(&self) {
        let sandbox = &self.sandbox;
        sandbox.write("data/changes", &version(2));
        let third = save(sandbox, "data");
        assert!(packed(&third) > MIB as u64, "stored anew: {third}");
        assert_restores(sandbox, &third, "data");
        sandbox.write("data/changes", &version(3));
        let fourth = save(sandbox, "data");
        assert!(packed(&fourth) < 100_000, "rests on the new one: {fourth}");
        let [first, second] = &self.snapshots;
        well(sandbox, ["forget", first, second]);
        well(sandbox, ["prune"]);
        well(sandbox, ["check", "--read-data"]);
        assert_restores(sandbox, &fourth, "data");
    }
}

#[test]
fn what_rests_on_a_damaged_base_is_named_and_the_next_backup_stores_it_anew() {
    let resting = Resting::new();
    for pack in &resting.bases {
        let mut bytes = fs::read(pack).unwrap();
        // All over, so that every blob is hit.
        let places = bytes.iter_mut().skip(200).step_by(20_000);
        places.for_each(|byte| *byte ^= 1);
        fs::write(pack, bytes).unwrap();
    }
    resting.assert_named(["check", "--read-data", "--record-damage"]);
    resting.assert_mends();
}

#[test]
fn what_rests_on_a_lost_base_is_named_and_the_next_backup_stores_it_anew() {
    let resting = Resting::new();
    for pack in &resting.bases {
        fs::remove_file(pack).unwrap();
    }
    resting.assert_named(["check", "--record-damage"]);
    resting.assert_mends();
}
