//! Commands on a repository, from the first backup to the last snapshot.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::sandbox::Sandbox;

#[test]
fn a_backup_tells_what_is_new_and_what_it_took() {
    let sandbox = Sandbox::with_repository();
    let said = sandbox.run(["backup", "src", "--tag", "a,b"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines[0], "files    2 new, 0 changed, 0 unchanged");
    assert_eq!(lines[1], "folders  2 new, 0 changed, 0 unchanged");
    assert_eq!(lines[2], "size     97.7 KiB in 2 files");
    assert!(lines[3].starts_with("added    98.") && lines[3].ends_with(" stored"));
    let again = sandbox.run(["backup", "src"]);
    assert!(again.out.contains("files    0 new, 0 changed, 2 unchanged"));
    assert!(again.out.contains("added    0 B new"), "{again:?}");
    let quiet = sandbox.run(["-q", "backup", "src"]);
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
}

#[test]
fn the_messages_of_a_backup_have_the_known_fields() {
    let sandbox = Sandbox::with_repository();
    let said = sandbox.run(["--json", "-vv", "backup", "src"]);
    let messages = said.messages();
    let new = |item: &str| {
        messages
            .iter()
            .any(|m| m["message_type"] == "verbose_status" && m["item"] == item)
    };
    assert!(new("/src/a.txt") || new("src/a.txt"), "{messages:?}");
    let summary = said.last_message();
    assert_eq!(summary["message_type"], "summary");
    for field in [
        "files_new",
        "files_changed",
        "files_unmodified",
        "dirs_new",
        "dirs_changed",
        "dirs_unmodified",
        "data_blobs",
        "tree_blobs",
        "data_added",
        "data_added_packed",
        "total_files_processed",
        "total_bytes_processed",
        "total_duration",
    ] {
        assert!(summary[field].is_number(), "{field}");
    }
    assert_eq!(summary["snapshot_id"].as_str().unwrap().len(), 64);
    assert_eq!(summary["dry_run"], false);
}

#[test]
fn snapshots_are_shown_in_a_table_and_as_an_array() {
    let sandbox = Sandbox::with_repository();
    let arguments = [
        "-q",
        "backup",
        "src",
        "--tag",
        "b,a",
        "--time",
        "2026-11-21 03:05:40",
    ];
    assert_eq!(sandbox.run(arguments).code, 0);
    let said = sandbox.run(["snapshots", "--json", "--tag", "a"]);
    let array: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let snapshot = &array[0];
    assert_eq!(snapshot["time"], "2026-11-21T03:05:40.000000000Z");
    assert_eq!(snapshot["hostname"], "box");
    assert_eq!(snapshot["tags"], serde_json::json!(["a", "b"]));
    assert_eq!(snapshot["paths"], serde_json::json!(["$SANDBOX/src"]));
    let short = snapshot["short_id"].as_str().unwrap();
    let said = sandbox.run(["snapshots", "--compact"]);
    let expected = format!(
        "ID        Time                 Host  Tags\n\
         -----------------------------------------\n\
         {short}  2026-11-21 03:05:40  box   a,b\n\
         1 snapshot\n"
    );
    assert_eq!(said.out, expected);
    let none = sandbox.run(["snapshots", "--json", "--host", "other"]);
    assert_eq!(none.out, "[]\n");
}

#[test]
fn a_table_is_no_wider_than_the_screen() {
    let sandbox = Sandbox::with_repository();
    let folder = format!("src/{}/{}", "long".repeat(20), "name".repeat(20));
    sandbox.write(format!("{folder}/file"), b"x");
    assert_eq!(sandbox.run(["-q", "backup", &folder]).code, 0);
    for columns in ["80", "160"] {
        let said = sandbox.run_with(&[("COLUMNS", columns)], ["snapshots"]);
        let widest = columns.parse().unwrap();
        // The sandbox's path was put in by the program and taken out again here.
        assert!(
            said.out.lines().all(|line| line.len() <= widest),
            "{said:?}"
        );
    }
}

#[test]
fn files_are_listed_and_their_names_cannot_drive_the_terminal() {
    let sandbox = Sandbox::with_repository();
    sandbox.write(OsStr::from_bytes(b"src/\x1b[31mred\xff"), b"");
    sandbox.backup();
    let said = sandbox.run(["-q", "ls", "latest"]);
    let expected = "/src\n\"/src/\\x1b[31mred\\xff\"\n/src/a.txt\n/src/sub\n/src/sub/b.bin\n";
    assert_eq!(said.out, expected);
    let folder = sandbox.run(["-q", "ls", "latest", "/src/sub"]);
    assert_eq!(folder.out, "/src/sub\n/src/sub/b.bin\n");
    let below = sandbox.run(["-q", "ls", "latest:/src/sub"]);
    assert_eq!(below.out, "/b.bin\n");
    let sorted = sandbox.run(["-q", "ls", "latest:/src", "--sort", "size", "--reverse"]);
    assert!(sorted.out.starts_with("/sub/b.bin\n/a.txt\n"), "{sorted:?}");
    let long = sandbox.run(["-q", "ls", "-l", "latest:/src/sub"]);
    assert!(long.out.contains("    100000 "), "{long:?}");
    let messages = sandbox.run(["--json", "ls", "latest:/src/sub"]).messages();
    assert_eq!(messages[0]["message_type"], "snapshot");
    assert_eq!(messages[1]["message_type"], "node");
    assert_eq!(messages[1]["path"], "/b.bin");
    assert_eq!(messages[1]["size"], 100_000);
    assert_eq!(sandbox.run(["ls", "latest", "/nowhere"]).code, 1);
}

#[test]
fn a_file_that_is_missing_is_exit_code_3_and_nothing_at_all_is_1() {
    let sandbox = Sandbox::with_repository();
    let some = sandbox.run(["-q", "backup", "src", "nowhere"]);
    assert_eq!(some.code, 3);
    assert_eq!(some.err, "warning: nowhere does not exist\n");
    let none = sandbox.run(["-q", "backup", "nowhere"]);
    assert_eq!(none.code, 1);
    assert!(none.err.contains("nothing to save: nowhere does not exist"));
}

#[test]
fn a_dry_run_stores_nothing_and_an_unchanged_source_can_be_skipped() {
    let sandbox = Sandbox::with_repository();
    let dry = sandbox.run(["backup", "-n", "src"]);
    assert!(dry.out.contains("would be stored"), "{dry:?}");
    assert_eq!(sandbox.run(["list", "snapshots"]).out, "");
    sandbox.backup();
    let skipped = sandbox.run(["--json", "backup", "--skip-if-unchanged", "src"]);
    assert!(skipped.last_message()["snapshot_id"].is_null());
    assert_eq!(sandbox.run(["list", "snapshots"]).out.lines().count(), 1);
}

#[test]
fn excludes_and_lists_of_files_are_obeyed() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("src/A.TMP", b"t");
    sandbox.write("list", b"src\n# a remark\n");
    sandbox.write("excludes", b"$WHAT\n");
    let arguments = [
        "-q",
        "backup",
        "--files-from",
        "list",
        "--iexclude",
        "*.tmp",
        "--exclude-file",
        "excludes",
    ];
    let said = sandbox.run_with(&[("WHAT", "sub")], arguments);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        sandbox.run(["-q", "ls", "latest"]).out,
        "/src\n/src/a.txt\n"
    );
    let wrong = sandbox.run(["backup", "src", "--exclude", "[a"]);
    assert_eq!(wrong.code, 1, "{wrong:?}");
}

#[test]
fn standard_input_and_the_output_of_a_command_are_saved_as_files() {
    let sandbox = Sandbox::with_repository();
    let arguments = ["-q", "backup", "--stdin", "--stdin-filename", "dump.sql"];
    assert_eq!(sandbox.run_fed(b"insert\n", &arguments).code, 0);
    assert_eq!(sandbox.run(["-q", "ls", "latest"]).out, "/dump.sql\n");
    let command = [
        "-q",
        "backup",
        "--stdin-from-command",
        "--",
        "echo",
        "hello",
    ];
    assert_eq!(sandbox.run(command).code, 0);
    let listed = sandbox.run(["--json", "ls", "latest"]).last_message();
    assert_eq!(
        (&listed["name"], &listed["size"]),
        (&"stdin".into(), &6.into())
    );
}

#[test]
fn a_command_that_fails_leaves_no_snapshot() {
    let sandbox = Sandbox::with_repository();
    let script = "echo half; exit 3";
    let said = sandbox.run(["backup", "--stdin-from-command", "--", "sh", "-c", script]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("exit status: 3"), "{said:?}");
    assert_eq!(sandbox.run(["list", "snapshots"]).out, "");
    let missing = ["backup", "--stdin-from-command", "--", "/no/such/program"];
    assert_eq!(sandbox.run(missing).code, 1);
}

#[test]
fn objects_are_listed_and_shown() {
    let sandbox = Sandbox::with_repository();
    let summary = sandbox.backup();
    let id = summary["snapshot_id"].as_str().unwrap();
    let snapshot = sandbox.run(["cat", "snapshot", &id[..8]]);
    let snapshot: serde_json::Value = serde_json::from_str(&snapshot.out).unwrap();
    let tree = sandbox.run(["cat", "tree", snapshot["tree"].as_str().unwrap()]);
    let tree: serde_json::Value = serde_json::from_str(&tree.out).unwrap();
    assert_eq!(tree["nodes"][0]["name"], "src");
    let config = sandbox.run(["cat", "config"]);
    let config: serde_json::Value = serde_json::from_str(&config.out).unwrap();
    assert_eq!(config["chunker"], 1);
    let blobs = sandbox.run(["list", "blobs"]).out;
    assert!(blobs.lines().any(|line| line.starts_with("data ")));
    for (kind, least) in [("packs", 1), ("index", 1), ("snapshots", 1), ("keys", 1)] {
        let listed = sandbox.run(["list", kind]).out;
        assert!(listed.lines().count() >= least, "{kind}");
        assert!(listed.lines().all(|line| line.len() == 64), "{kind}");
    }
    let pack = sandbox.run(["list", "packs"]).out;
    let index = sandbox.run(["cat", "index", sandbox.run(["list", "index"]).out.trim()]);
    assert!(index.out.contains(pack.lines().next().unwrap()));
    assert_eq!(sandbox.run(["cat", "blob", "zz"]).code, 1);
}

#[test]
fn a_forgotten_snapshot_is_gone_and_an_unknown_one_is_an_error() {
    let sandbox = Sandbox::with_repository();
    let summary = sandbox.backup();
    let id = summary["snapshot_id"].as_str().unwrap();
    let dry = sandbox.run(["forget", "-n", id]);
    assert!(dry.out.starts_with("would remove snapshot "), "{dry:?}");
    assert_eq!(sandbox.run(["list", "snapshots"]).out.trim(), id);
    assert_eq!(sandbox.run(["-q", "forget", id]).out, "");
    assert_eq!(sandbox.run(["list", "snapshots"]).out, "");
    let again = sandbox.run(["forget", id]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("no snapshot matches"), "{again:?}");
}

#[test]
fn a_key_can_be_added_used_and_removed() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("new", b"second\n");
    let add = [
        "--json",
        "key",
        "add",
        "--new-password-file",
        "new",
        "--user",
        "eve",
    ];
    let added = sandbox.run(add).last_message();
    let id = added["id"].as_str().unwrap();
    let second = [("STRONGROOM_PASSWORD", "second")];
    let listed = sandbox.run_with(&second, ["--json", "key", "list"]);
    let keys: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    let mine = keys
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["current"] == true);
    assert_eq!(mine.unwrap()["userName"], "eve");
    assert_eq!(mine.unwrap()["hostName"], "box");
    sandbox.write("third", b"third\n");
    let passwd = ["key", "passwd", "--new-password-file", "third"];
    assert_eq!(sandbox.run_with(&second, passwd).code, 0);
    assert_eq!(sandbox.run_with(&second, ["key", "list"]).code, 12);
    assert_eq!(sandbox.run(["key", "remove", &id[..10]]).code, 0);
    let third = [("STRONGROOM_PASSWORD", "third")];
    assert_ne!(sandbox.run_with(&third, ["key", "list"]).code, 0);
    let own = sandbox.run(["--json", "key", "list"]);
    let own: serde_json::Value = serde_json::from_str(&own.out).unwrap();
    let last = own[0]["id"].as_str().unwrap();
    assert_eq!(sandbox.run(["key", "remove", last]).code, 1);
}

#[test]
fn a_listing_that_nobody_reads_ends_quietly() {
    let sandbox = Sandbox::with_repository();
    for number in 0..2000 {
        sandbox.write(format!("src/many/{number:0100}"), b"");
    }
    sandbox.backup();
    let mut command = sandbox.command();
    command
        .args(["-q", "ls", "latest"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let sandbox = Sandbox::with_repository();
    sandbox.backup();
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command: Command = sandbox.command();
    let output = command
        .args(["ls", "latest"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said,
        "error: cannot write to standard output: No space left on device\n"
    );
}

#[test]
fn what_was_saved_is_restored_and_existing_files_are_treated_as_asked() {
    let sandbox = Sandbox::with_repository();
    sandbox.backup();
    let said = sandbox.run(["--json", "restore", "latest", "--target", "out", "--verify"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let summary = said.last_message();
    assert_eq!(summary["files_restored"], 2);
    assert_eq!(summary["bytes_restored"], 100_006);
    assert_eq!(summary["files_verified"], 2);
    assert_eq!(fs::read(sandbox.path("out/src/a.txt")).unwrap(), b"alpha\n");
    sandbox.write("out/src/a.txt", b"mine\n");
    let never = [
        "-q",
        "restore",
        "latest",
        "-t",
        "out",
        "--overwrite",
        "never",
    ];
    assert_eq!(sandbox.run(never).code, 0);
    assert_eq!(fs::read(sandbox.path("out/src/a.txt")).unwrap(), b"mine\n");
    let part = ["-q", "restore", "latest:/src", "-t", "part", "-i", "*.bin"];
    assert_eq!(sandbox.run(part).code, 0);
    assert!(sandbox.path("part/sub/b.bin").exists());
    assert!(!sandbox.path("part/a.txt").exists());
    let file = sandbox.run(["restore", "latest:/src/a.txt", "-t", "x"]);
    assert_eq!(file.code, 1);
    assert!(file.err.contains("restore it with --include"), "{file:?}");
    assert_eq!(sandbox.run(["restore", "latest"]).code, 1, "no target");
}

#[test]
fn a_damaged_pack_is_found_with_the_files_that_need_it_and_their_restore_fails_alone() {
    let sandbox = Sandbox::with_repository();
    let random: Vec<u8> = (0..50_000_u32)
        .flat_map(|n| {
            n.wrapping_mul(0x9e37_79b9)
                .rotate_left(n % 32)
                .to_le_bytes()
        })
        .collect();
    sandbox.write("src/big", &random);
    sandbox.backup();
    let sound = sandbox.run(["check", "--read-data"]);
    assert_eq!((sound.code, sound.err.as_str()), (0, ""));
    assert!(sound.out.ends_with("no errors were found\n"));
    let pack = largest_pack(&sandbox);
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    let found = sandbox.run(["--json", "check", "--read-data"]);
    assert_eq!(found.code, 1);
    let summary = found.last_message();
    assert_eq!(summary["broken_packs"].as_array().unwrap().len(), 1);
    let words = sandbox.run(["check", "--read-data"]);
    assert!(
        words.err.contains("  needed by /src/big in snapshot "),
        "{words:?}"
    );
    let restored = sandbox.run(["restore", "latest", "-t", "out"]);
    assert_eq!(restored.code, 1);
    assert!(restored.err.contains("cannot restore"), "{restored:?}");
    assert_eq!(fs::read(sandbox.path("out/src/a.txt")).unwrap(), b"alpha\n");
}

fn largest_pack(sandbox: &Sandbox) -> PathBuf {
    let mut packs = Vec::new();
    for folder in fs::read_dir(sandbox.path("repo/packs")).unwrap() {
        for pack in fs::read_dir(folder.unwrap().path()).unwrap() {
            let pack = pack.unwrap();
            packs.push((pack.metadata().unwrap().len(), pack.path()));
        }
    }
    packs.into_iter().max().unwrap().1
}

#[test]
fn a_prune_frees_what_forgotten_snapshots_took_and_no_more() {
    let sandbox = Sandbox::with_repository();
    // Every run has packs of its own, so those of the first are unneeded as a whole.
    sandbox.write("gone/b.txt", b"beta\n");
    let first = sandbox.run(["--json", "backup", "gone"]).last_message();
    sandbox.backup();
    let id = first["snapshot_id"].as_str().unwrap();
    assert_eq!(sandbox.run(["-q", "forget", id]).code, 0);
    let dry = sandbox.run(["--json", "prune", "-n"]).last_message();
    assert_eq!(dry["dry_run"], true);
    assert!(dry["blobs"]["unused"].as_u64().unwrap() > 0, "{dry}");
    let packs = sandbox.run(["list", "packs"]).out.lines().count();
    let said = sandbox.run(["prune"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert!(sandbox.run(["list", "packs"]).out.lines().count() < packs);
    assert_eq!(sandbox.run(["check", "--read-data"]).code, 0);
    assert_eq!(
        sandbox.run(["-q", "restore", "latest", "-t", "out"]).code,
        0
    );
    assert_eq!(fs::read(sandbox.path("out/src/a.txt")).unwrap(), b"alpha\n");
}

#[test]
fn statistics_count_by_the_mode_asked_for() {
    let sandbox = Sandbox::with_repository();
    sandbox.backup();
    sandbox.backup();
    let count = |mode| {
        let said = sandbox.run(["--json", "stats", "--mode", mode]);
        assert_eq!(said.code, 0, "{said:?}");
        said.last_message()
    };
    let restore = count("restore-size");
    assert_eq!(
        (&restore["snapshots_count"], &restore["total_size"]),
        (&2.into(), &200_012.into())
    );
    assert_eq!(count("files-by-contents")["total_file_count"], 2);
    let raw = count("raw-data");
    assert!(raw["total_size"].as_u64().unwrap() < raw["total_uncompressed_size"].as_u64().unwrap());
}
