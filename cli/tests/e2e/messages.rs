//! The messages for programs, in the shapes that programs know from restic: standard output holds
//! JSON and nothing else, each line of a stream with its type.

use std::fs;

use serde_json::Value;

use crate::{
    runs::{id, save},
    sandbox::{Said, Sandbox},
};

/// A sandbox with three snapshots.
fn sandbox() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::with_repository();
    sandbox.write(String::from("src/b\u{fc}ro"), b"u");
    let mut ids = Vec::new();
    for content in ["one", "two", "three"] {
        sandbox.write("src/a.txt", content.as_bytes());
        ids.push(id(&save(&sandbox, "src")));
    }
    (sandbox, ids)
}

/// Whether a value has these fields, and of this kind.
#[track_caller]
fn has(value: &Value, numbers: &[&str], texts: &[&str]) {
    for field in numbers {
        assert!(value[field].is_number(), "{field} in {value}");
    }
    for field in texts {
        assert!(value[field].is_string(), "{field} in {value}");
    }
}

/// The messages of a stream; all with their type.
#[track_caller]
fn stream(said: &Said) -> Vec<Value> {
    assert_eq!(said.code, 0, "{said:?}");
    let messages = said.messages();
    for message in &messages {
        has(message, &[], &["message_type"]);
    }
    messages
}

fn of_type<'a>(messages: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    messages
        .iter()
        .filter(move |message| message["message_type"] == kind)
}

#[test]
fn a_backup_and_a_restore_are_streams_of_typed_messages_with_the_summary_last() {
    let (sandbox, ids) = sandbox();
    sandbox.write("src/new", b"new");
    let often = [("STRONGROOM_PROGRESS_FPS", "60")];
    let said = sandbox.run_with(&often, ["--json", "-vv", "backup", "src"]);
    let messages = stream(&said);
    let actions: Vec<_> = of_type(&messages, "verbose_status")
        .map(|m| &m["action"])
        .collect();
    for action in ["new", "unchanged"] {
        assert!(
            actions.iter().any(|a| *a == action),
            "{action} in {messages:?}"
        );
    }
    assert_eq!(of_type(&messages, "summary").count(), 1);
    let summary = messages.last().unwrap();
    has(
        summary,
        &["files_new", "data_added", "total_duration"],
        &["snapshot_id"],
    );
    assert_eq!(
        (&summary["files_new"], &summary["files_unmodified"]),
        (&1.into(), &3.into())
    );
    let said = sandbox.run(["--json", "-vv", "restore", &ids[1], "--target", "to"]);
    let messages = stream(&said);
    let restored = of_type(&messages, "verbose_status").filter(|m| m["action"] == "restored");
    assert!(restored.count() >= 3, "{messages:?}");
    let summary = messages.last().unwrap();
    assert_eq!(summary["message_type"], "summary");
    has(
        summary,
        &[
            "total_files",
            "files_restored",
            "files_skipped",
            "total_bytes",
            "bytes_restored",
        ],
        &[],
    );
    assert_eq!(summary["files_restored"], 3);
    assert_eq!(fs::read(sandbox.path("to/src/a.txt")).unwrap(), b"two");
    let status = sandbox.run_with(&often, ["--json", "restore", &ids[0], "--target", "to"]);
    for message in of_type(&stream(&status), "status") {
        has(message, &["total_files", "total_bytes"], &[]);
    }
}

#[test]
fn snapshots_listings_and_statistics_are_arrays_lines_and_one_object() {
    let (sandbox, ids) = sandbox();
    let snapshots = sandbox.run(["--json", "snapshots"]).last_message();
    let snapshots = snapshots.as_array().unwrap();
    assert_eq!(snapshots.len(), 3);
    for (snapshot, id) in snapshots.iter().zip(&ids) {
        has(
            snapshot,
            &["uid", "gid"],
            &["time", "tree", "hostname", "username", "id", "short_id"],
        );
        assert_eq!(snapshot["id"], id.as_str());
        has(
            &snapshot["summary"],
            &["files_new", "total_bytes_processed"],
            &["backup_start"],
        );
    }
    assert_eq!(snapshots[1]["parent"], ids[0].as_str());
    let lines = stream(&sandbox.run(["--json", "ls", "latest"]));
    assert_eq!(lines[0]["message_type"], "snapshot");
    assert_eq!(lines[0]["id"], ids[2].as_str());
    let nodes: Vec<_> = of_type(&lines, "node").collect();
    assert_eq!(nodes.len(), lines.len() - 1);
    for node in &nodes {
        has(
            node,
            &["uid", "gid", "mode"],
            &["name", "type", "path", "permissions", "mtime", "ctime"],
        );
    }
    assert!(
        nodes
            .iter()
            .any(|node| node["name"] == "b\u{fc}ro" && node["size"] == 1)
    );
    let stats = sandbox.run(["--json", "stats"]).last_message();
    has(
        &stats,
        &["total_size", "total_file_count", "snapshots_count"],
        &[],
    );
    assert_eq!(
        (&stats["snapshots_count"], &stats["total_file_count"]),
        (&3.into(), &15.into())
    );
    let raw = sandbox
        .run(["--json", "stats", "--mode", "raw-data"])
        .last_message();
    has(
        &raw,
        &[
            "total_size",
            "total_blob_count",
            "total_uncompressed_size",
            "compression_ratio",
        ],
        &[],
    );
}

#[test]
fn check_forget_and_prune_answer_with_what_they_did() {
    let (sandbox, ids) = sandbox();
    let dry = sandbox
        .run(["--json", "forget", &ids[0], "--dry-run"])
        .last_message();
    assert_eq!(dry[0]["remove"][0]["id"], ids[0].as_str());
    assert_eq!(sandbox.run(["list", "snapshots"]).out.lines().count(), 3);
    let removed = sandbox.run(["--json", "forget", &ids[0]]).last_message();
    assert_eq!(removed[0]["remove"][0]["id"], ids[0].as_str());
    assert_eq!(sandbox.run(["list", "snapshots"]).out.lines().count(), 2);
    let pruned = stream(&sandbox.run(["--json", "prune"])).pop().unwrap();
    assert_eq!(pruned["message_type"], "summary");
    has(&pruned["blobs"], &["used", "unused", "total"], &[]);
    let checked = stream(&sandbox.run(["--json", "check"])).pop().unwrap();
    assert_eq!(
        (&checked["message_type"], &checked["num_errors"]),
        (&"summary".into(), &0.into())
    );
    assert_eq!(checked["broken_packs"].as_array().unwrap().len(), 0);
}

#[test]
fn a_run_that_fails_says_so_in_one_message_on_standard_error_and_nothing_on_standard_output() {
    let (sandbox, _) = sandbox();
    let missing = ["--json", "restore", "ffffffff", "--target", "to"];
    let wrong = [("STRONGROOM_PASSWORD", "wrong")];
    let none = [("STRONGROOM_REPOSITORY", "/nonexistent/repository")];
    for (code, said) in [
        (1, sandbox.run(missing)),
        (12, sandbox.run_with(&wrong, ["--json", "snapshots"])),
        (10, sandbox.run_with(&none, ["--json", "snapshots"])),
        (1, sandbox.run(["--json", "backup", "/nonexistent/source"])),
        (1, sandbox.run(["--json", "no-such-command"])),
    ] {
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{said:?}");
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
        let message = said.last_error();
        assert_eq!(message["message_type"], "exit_error");
        assert_eq!(message["code"], code);
        has(&message, &[], &["message"]);
    }
}
