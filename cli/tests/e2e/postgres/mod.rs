//! Databases of real PostgreSQL servers, saved and loaded.

mod data;
mod failures;
mod server;

use std::process::Command;

use serde_json::Value;

use self::{
    data::{NAMES, facts, fill},
    server::{PASSWORD, Server, said},
};
use crate::{runs::answer, sandbox::Sandbox};

/// A run that must go well without a word on standard error; its last message.
fn well(mut command: Command) -> Value {
    command.arg("--json");
    let said = said(command);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    said.last_message()
}

/// A run that must fail for this reason, with the words that it says.
fn fails(command: Command, words: &[&str]) {
    let said = said(command);
    assert_eq!(said.code, 1, "{said:?}");
    for words in words {
        assert!(said.err.contains(words), "no {words:?} in {}", said.err);
    }
}

fn snapshots(sandbox: &Sandbox) -> usize {
    sandbox.run(["list", "snapshots"]).out.lines().count()
}

#[test]
fn databases_come_back_on_another_server_with_roles_grants_and_large_objects() {
    let (from, to) = (Server::start(), Server::start());
    fill(&from);
    let sandbox = Sandbox::with_repository();
    let url = from.url("postgres").replace('@', ":Tr0ub4dor%263@");
    let first = well(from.strongroom(&sandbox, &["backup", "--postgres", &url]));
    assert_eq!(first["files_new"], 5, "globals, and postgres as well");
    let listed = sandbox.run(["-q", "ls", "latest"]).out;
    let lines = [
        "/postgres",
        "/postgres/Bücher.dump",
        "/postgres/globals.sql",
        "/postgres/o%2Fd'd \"100%25\" host=x.dump",
        "/postgres/postgres.dump",
        "/postgres/shop.dump",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), lines);

    // What changed little grows little.
    from.sql("shop", "UPDATE types SET t = 'changed' WHERE id % 1000 = 0");
    let second = well(from.strongroom(&sandbox, &["backup", "--postgres", &url]));
    assert_eq!(second["files_changed"], 5);
    let (all, added) = (
        second["total_bytes_processed"].as_u64().unwrap(),
        second["data_added_packed"].as_u64().unwrap(),
    );
    assert!(added < all / 20, "{added} of {all} bytes");

    let before = NAMES.map(|name| facts(&from, name));
    assert!(before[0].contains("large object|4712"), "{}", before[0]);
    let load = |arguments: &[&str]| {
        let all = [&["restore", "latest", "--postgres"], arguments].concat();
        let mut command = to.strongroom(&sandbox, &all);
        command.envs(to.variables());
        command
    };
    let plan = said(load(&["--dry-run"]));
    assert_eq!(plan.code, 0, "{plan:?}");
    assert!(plan.out.contains("database shop, "), "{plan:?}");
    assert_eq!(to.sql("postgres", "SELECT count(*) FROM pg_database"), "3");
    let loaded = well(load(&[]));
    assert_eq!(loaded["databases_loaded"], 4);
    assert_eq!(loaded["roles_left"], serde_json::json!(["postgres"]));
    assert_eq!(loaded["grants_left"], 0);
    for (name, before) in NAMES.iter().zip(&before) {
        assert_eq!(&facts(&to, name), before, "{name}");
    }

    // They are not overwritten unasked, and roles that exist are no obstacle, but stay as they are.
    to.sql("shop", "DELETE FROM parted; SELECT lo_unlink(4711)");
    let apart = "REVOKE \"Read er\" FROM app";
    to.sql("postgres", "ALTER ROLE app PASSWORD 'another'");
    to.sql("postgres", apart);
    fails(load(&[]), &["data in 3 of these", "shop", "--clean"]);
    assert_eq!(to.sql("shop", "SELECT count(*) FROM parted"), "0");
    let again = said(load(&["--database", "shop", "--clean"]));
    assert_eq!(again.code, 0, "{again:?}");
    for line in [
        "left     roles and tablespaces that exist: Read er, app, postgres",
        "left     1 grant among roles and tablespaces that exist",
    ] {
        assert!(again.out.lines().any(|said| said == line), "{again:?}");
    }
    from.sql("postgres", apart);
    let password = "UPDATE pg_authid SET rolpassword = NULL WHERE rolname = 'app'";
    to.sql("postgres", password);
    from.sql("postgres", password);
    assert_eq!(facts(&to, "shop"), facts(&from, "shop"));

    // Files of a snapshot like any other.
    answer(&sandbox, ["check", "--read-data"]);
    answer(&sandbox, ["restore", "latest", "--target", "files"]);
    let files = sandbox.path("files/postgres");
    let archive = std::fs::read(files.join("shop.dump")).unwrap();
    assert!(archive.starts_with(b"PGDMP"));
    let globals = std::fs::read_to_string(files.join("globals.sql")).unwrap();
    assert!(globals.contains("CREATE ROLE app;") && !globals.contains(PASSWORD));
}
