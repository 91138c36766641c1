//! Bytes that turn over: what is lost is named, everything else still comes back, and what is kept
//! more than once is read from where it is whole.

use std::{fs, path::Path};

use crate::{
    runs::{bytes_in, end, files, id, noise, save, send, start, well},
    sandbox::Sandbox,
};

/// Two files too large to share a pack with each other's beginning.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_repository();
    sandbox.write("data/one", &noise(200_000, 1));
    // Before the first run, so that the folder is the same to both of them.
    sandbox.write("data/two", &noise(200_000, 2));
    save(&sandbox, "data/one");
    save(&sandbox, "data");
    sandbox
}

/// Turns one bit over.
fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(at).unwrap()] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_pack_is_named_by_check_and_the_file_in_it_by_restore() {
    let sandbox = sandbox();
    let mut packs = files(&sandbox.path("repo/packs"));
    packs.retain(|(_, len)| *len > 200_000);
    assert_eq!(packs.len(), 2, "{packs:?}");
    let (pack, len) = &packs[0];
    flip(pack, len / 2);
    let name = pack.file_name().unwrap().to_str().unwrap();
    let quick = sandbox.run(["check"]);
    assert_eq!(quick.code, 0, "only reading tells: {quick:?}");
    let said = sandbox.run(["check", "--read-data"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(name), "{said:?}");
    let json = sandbox.run(["--json", "check", "--read-data"]);
    assert_eq!(json.last_message()["broken_packs"][0], name);
    assert_eq!(json.last_error()["code"], 1);
    let said = sandbox.run(["restore", "latest", "--path", "data", "--target", "to"]);
    assert_eq!(said.code, 1, "{said:?}");
    let lost = ["one", "two"].map(|file| !sandbox.path("to/data").join(file).exists());
    assert!(lost[0] != lost[1], "{said:?}");
    let (gone, there) = if lost[0] {
        ("one", "two")
    } else {
        ("two", "one")
    };
    assert!(said.err.contains(&format!("data/{gone}")), "{said:?}");
    let whole = |file: &str| fs::read(sandbox.path(file)).unwrap();
    assert!(whole(&format!("to/data/{there}")) == whole(&format!("data/{there}")));
}

/// Records what a check finds, and lets backups and a prune mend it.
fn mend(sandbox: &Sandbox, context: &str) {
    let said = sandbox.run(["check", "--read-data", "--record-damage"]);
    assert_eq!(said.code, 1, "{context}: {said:?}");
    assert!(
        said.out.contains("recorded 1 pack as damaged"),
        "{context}: {said:?}"
    );
    // Not in a hurry, and not with --force.
    for source in ["data/one", "data"] {
        let said = sandbox.run(["-q", "backup", source]);
        assert_eq!(said.code, 0, "{context}: {said:?}");
    }
    let said = sandbox.run(["prune"]);
    assert_eq!(said.code, 0, "{context}: {said:?}");
    let said = sandbox.run(["check", "--read-data"]);
    assert_eq!(
        (said.code, said.err.as_str()),
        (0, ""),
        "{context}: {said:?}"
    );
}

#[test]
fn a_damaged_pack_is_replaced_by_a_backup_once_the_damage_is_recorded() {
    let sandbox = sandbox();
    let mut packs = files(&sandbox.path("repo/packs"));
    packs.retain(|(_, len)| *len > 200_000);
    let (pack, len) = &packs[0];
    flip(pack, len / 2);
    let plain = sandbox.run(["check", "--read-data"]);
    assert!(plain.err.contains("--record-damage"), "{plain:?}");
    let log = files(&sandbox.path("repo/log")).len();
    assert_eq!(log, 3, "a check changes nothing by itself");
    let json = sandbox.run(["--json", "check", "--read-data", "--record-damage"]);
    assert_eq!(json.code, 1);
    assert_eq!(json.last_message()["recorded_bad"], 1);
    assert_eq!(files(&sandbox.path("repo/log")).len(), log + 1);
    let quick = sandbox.run(["check"]);
    assert_eq!(quick.code, 1, "now it is known without reading: {quick:?}");
    assert!(quick.err.contains("needed by /data/"), "{quick:?}");
    let next = save(&sandbox, "data");
    assert_eq!(next["files_changed"], 1, "{next}");
    assert!(next["data_added"].as_u64().unwrap() >= 200_000, "{next}");
    assert!(next["data_added"].as_u64().unwrap() < 300_000, "{next}");
    for (target, snapshot) in ["latest", "latest~1", "latest~2"].into_iter().enumerate() {
        let to = format!("to{target}");
        well(&sandbox, ["restore", snapshot, "--target", &to]);
        let restored = fs::read(sandbox.path(&to).join("data/one")).unwrap();
        assert!(restored == fs::read(sandbox.path("data/one")).unwrap());
    }
    well(&sandbox, ["prune"]);
    assert!(!pack.exists());
    well(&sandbox, ["check", "--read-data"]);
}

/// Anywhere: in the middle of a blob, in what says where blobs are, in the padding.
#[test]
fn whatever_is_damaged_in_a_pack_can_be_mended() {
    let sandbox = sandbox();
    let packs = files(&sandbox.path("repo/packs"));
    assert_eq!(packs.len(), 4);
    for ((pack, len), part) in packs.iter().zip([10, 40, 75, 100]) {
        let at = (len - 1) * part / 100;
        flip(pack, at);
        let context = format!("byte {at} of {len} in {}", pack.display());
        mend(&sandbox, &context);
        assert!(!pack.exists(), "{context}");
    }
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    for file in ["data/one", "data/two"] {
        let restored = fs::read(sandbox.path("to").join(file)).unwrap();
        assert!(restored == fs::read(sandbox.path(file)).unwrap());
    }
}

#[test]
fn a_pack_that_was_brought_back_is_relied_on_again_once_that_is_recorded() {
    let sandbox = sandbox();
    let packs = files(&sandbox.path("repo/packs"));
    let (pack, len) = packs.iter().max_by_key(|(_, len)| *len).unwrap();
    let whole = fs::read(pack).unwrap();
    flip(pack, len / 2);
    let record = ["check", "--read-data", "--record-damage"];
    assert_eq!(sandbox.run(record).code, 1);
    fs::write(pack, whole).unwrap();
    well(&sandbox, ["check", "--read-data"]);
    assert_eq!(sandbox.run(["check"]).code, 1, "the log says otherwise");
    let said = sandbox.run(record);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("1 pack as whole again"), "{said:?}");
    well(&sandbox, ["check"]);
}

const READER: [(&str, &str); 1] = [("STRONGROOM_PASSWORD", "reader's password")];

fn add_reader(sandbox: &Sandbox) {
    sandbox.write("reader", b"reader's password");
    let file = "--new-password-file=reader";
    let said = sandbox.run(["key", "add", "--role", "reader", file]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_key_that_may_not_write_records_nothing_and_says_so_before_it_reads() {
    let sandbox = sandbox();
    add_reader(&sandbox);
    let said = sandbox.run_with(&READER, ["check", "--record-damage"]);
    assert_eq!(said.code, 1, "{said:?}");
    let refused = "a key of role reader may not record what a check finds";
    assert!(said.err.contains(refused), "{said:?}");
    assert!(!said.out.contains("checked"), "{said:?}");
    assert_eq!(sandbox.run_with(&READER, ["check"]).code, 0);
}

#[test]
fn a_reader_is_refused_before_anything_is_done() {
    let sandbox = sandbox();
    add_reader(&sandbox);
    sandbox.write("new/file", b"something new");
    let before = files(&sandbox.path("repo"));
    for (command, deed) in [
        (["backup", "new"], "save snapshots"),
        (["forget", "latest"], "forget snapshots"),
        (["prune", "-q"], "prune"),
        (["key", "add"], "change keys"),
    ] {
        let said = sandbox.run_with(&READER, command);
        let refused = format!("a key of role reader may not {deed}");
        assert!(said.err.contains(&refused), "{said:?}");
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
        assert_eq!(files(&sandbox.path("repo")), before, "{command:?}");
    }
}

#[test]
fn a_lost_pack_is_found_without_reading_data() {
    let sandbox = sandbox();
    let packs = files(&sandbox.path("repo/packs"));
    let (pack, _) = packs.iter().max_by_key(|(_, len)| *len).unwrap();
    fs::remove_file(pack).unwrap();
    let said = sandbox.run(["check"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err
            .contains(pack.file_name().unwrap().to_str().unwrap())
    );
    assert_eq!(sandbox.run(["restore", "latest", "--target", "to"]).code, 1);
}

/// The latest entry holds the index and the snapshot of the last backup, in several copies.
#[test]
fn every_single_damaged_byte_of_the_log_and_the_keys_is_read_around() {
    let sandbox = sandbox();
    let repo = sandbox.path("repo");
    let framed = ["log", "keys", "keyring"].map(|folder| files(&repo.join(folder)));
    for (path, len) in framed.iter().flatten() {
        for at in [len / 3, len - 1] {
            let whole = fs::read(path).unwrap();
            flip(path, at);
            // A machine that remembers nothing reads everything.
            let fresh = [("HOME", "elsewhere")];
            let said = sandbox.run_with(&fresh, ["list", "snapshots", "--no-cache"]);
            assert_eq!(said.code, 0, "byte {at} of {}: {said:?}", path.display());
            fs::write(path, whole).unwrap();
        }
    }
    well(&sandbox, ["check", "--read-data"]);
}

/// The record of a snapshot stands once in the log entry, outside of what is kept three times.
fn damage_newest_record(sandbox: &Sandbox) {
    let (entry, len) = files(&sandbox.path("repo/log")).pop().unwrap();
    flip(&entry, len - 40);
}

#[test]
fn a_snapshot_whose_record_is_damaged_is_read_from_a_copy_and_forgotten_like_any_other() {
    let sandbox = sandbox();
    damage_newest_record(&sandbox);
    let said = sandbox.run(["check", "--read-data"]);
    assert_eq!(said.code, 0, "{said:?}");
    let words = "it is damaged, but its copy in a pack can be read";
    assert!(said.err.contains(words), "{said:?}");
    assert!(said.out.contains("nothing is lost"), "{said:?}");
    let said = sandbox.run(["restore", "latest", "--target", "to"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("a copy of it is used"), "{said:?}");
    for file in ["data/one", "data/two"] {
        let restored = fs::read(sandbox.path("to").join(file)).unwrap();
        assert!(restored == fs::read(sandbox.path(file)).unwrap());
    }
    assert_eq!(sandbox.run(["prune"]).code, 0);
    assert_eq!(sandbox.run(["snapshots"]).code, 0);
    let said = sandbox.run(["forget", "latest"]);
    assert_eq!(said.code, 0, "{said:?}");
    well(&sandbox, ["prune"]);
    well(&sandbox, ["restore", "latest", "--target", "older"]);
    assert_eq!(sandbox.run(["check", "--read-data"]).code, 0);
}

#[test]
fn a_snapshot_of_which_nothing_can_be_read_can_be_forgotten_by_its_id() {
    let sandbox = sandbox();
    let packs = files(&sandbox.path("repo/packs"));
    sandbox.write("data/three", &noise(100_000, 3));
    let lost = id(&save(&sandbox, "data"));
    damage_newest_record(&sandbox);
    let mut new = files(&sandbox.path("repo/packs"));
    new.retain(|pack| !packs.contains(pack));
    for (pack, _) in &new {
        fs::remove_file(pack).unwrap();
    }
    let said = sandbox.run(["prune"]);
    assert_eq!(said.code, 1, "{said:?}");
    let said = sandbox.run(["snapshots"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains(&lost[..8]), "{said:?}");
    assert_eq!(sandbox.run(["forget", "latest"]).code, 1, "which is that?");
    let json = sandbox.run(["--json", "forget", "--dry-run", &lost]);
    assert_eq!(json.last_message()[0]["remove_unreadable"][0], lost);
    let said = sandbox.run(["forget", &lost]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("which cannot be read"), "{said:?}");
    well(&sandbox, ["prune"]);
    assert_eq!(sandbox.run(["check", "--read-data"]).code, 0);
    well(&sandbox, ["restore", "latest", "--target", "to"]);
}

#[test]
fn a_lost_copy_of_the_configuration_is_made_good_by_the_other_and_two_are_told() {
    let sandbox = sandbox();
    let copies = ["repo/config", "repo/config.2"].map(|name| sandbox.path(name));
    let whole = fs::read(&copies[0]).unwrap();
    for damaged in &copies {
        fs::write(damaged, b"not a configuration").unwrap();
        let said = sandbox.run(["list", "snapshots"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(sandbox.run(["-q", "backup", "src"]).code, 0);
        fs::remove_file(damaged).unwrap();
        assert_eq!(sandbox.run(["-q", "backup", "src"]).code, 0);
        fs::write(damaged, &whole).unwrap();
    }
    for damaged in &copies {
        fs::write(damaged, b"not a configuration").unwrap();
    }
    let said = sandbox.run(["list", "snapshots"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("config"), "{said:?}");
    for damaged in &copies {
        fs::remove_file(damaged).unwrap();
    }
    let said = sandbox.run(["list", "snapshots"]);
    assert_eq!(
        said.code, 1,
        "it is not a place for a new repository: {said:?}"
    );
    assert!(said.err.contains("make no new repository here"), "{said:?}");
    let said = sandbox.run(["init"]);
    assert_eq!(said.code, 1, "{said:?}");
    for copy in &copies {
        fs::write(copy, &whole).unwrap();
    }
    well(&sandbox, ["check", "--read-data"]);
}

#[test]
fn a_log_entry_that_is_lost_is_told_and_never_passed_over() {
    let sandbox = sandbox();
    let log = files(&sandbox.path("repo/log"));
    fs::remove_file(&log[log.len() - 2].0).unwrap();
    // What this machine remembers of it still shows the other snapshot.
    let said = sandbox.run(["snapshots"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("log entry 2"), "{said:?}");
    let said = sandbox.run(["check"]);
    assert_eq!(said.code, 1, "{said:?}");
    let fresh = [("HOME", "elsewhere")];
    for command in ["snapshots", "check"] {
        let said = sandbox.run_with(&fresh, [command]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains('2'), "{said:?}");
    }
}

#[test]
fn a_damaged_index_is_told_with_its_name() {
    let sandbox = sandbox();
    let name = own_index(&sandbox);
    let index = sandbox.path("repo/index").join(&name);
    let len = fs::metadata(&index).unwrap().len();
    flip(&index, len / 2);
    let stranger = [("HOME", "elsewhere")];
    for (code, command) in [
        (0, ["-q", "ls", "latest"]),
        (1, ["-q", "check", "--read-data"]),
    ] {
        let said = sandbox.run_with(&stranger, command);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(&name[..8]), "{said:?}");
        assert!(
            !said.err.contains("nameobject"),
            "words run together: {said:?}"
        );
    }
    let said = sandbox.run_with(&stranger, ["restore", "latest", "--target", "to"]);
    assert_eq!(
        said.code, 1,
        "what only it names is lost, and told: {said:?}"
    );
    assert!(said.err.contains("cannot restore /much/"), "{said:?}");
}

/// Name of an index object of its own, as stopped runs leave them.
fn own_index(sandbox: &Sandbox) -> String {
    for part in 0..8 {
        sandbox.write(format!("much/{part}"), &noise(4 << 20, part));
    }
    let child = start(sandbox, ["--pack-size", "4", "backup", "much"]);
    let packs = sandbox.path("repo/packs");
    while bytes_in(&packs) < 6 << 20 {
        std::thread::yield_now();
    }
    send(&child, rustix::process::Signal::INT);
    assert_eq!(end(child).code, 130);
    save(sandbox, "much");
    let (index, _) = files(&sandbox.path("repo/index")).remove(0);
    index.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn what_is_damaged_in_the_log_itself_is_put_right_when_it_is_asked_for() {
    let sandbox = sandbox();
    let lost = sandbox.path("repo/config.2");
    let whole = fs::read(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    let (bent, _) = files(&sandbox.path("repo/log")).remove(0);
    flip(&bent, 60);
    let said = sandbox.run(["check"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("config.2: it is missing"), "{said:?}");
    assert!(said.out.contains("--record-damage` puts right"), "{said:?}");
    assert!(!lost.exists(), "a check changes nothing by itself");
    let said = sandbox.run(["check", "--record-damage"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("healed   2 objects"), "{said:?}");
    assert_eq!(fs::read(&lost).unwrap(), whole);
    let said = sandbox.run(["--json", "check", "--record-damage"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert_eq!(said.last_message()["healed"], 0);
}
