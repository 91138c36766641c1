//! What goes wrong with servers: it is told with the database, the program and its words, and
//! leaves no snapshot.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use super::{
    fails,
    server::{PASSWORD, Server, said},
    snapshots, well,
};
use crate::{
    runs::{end, save, send},
    sandbox::Sandbox,
};

/// A server with databases that are hard to save or to load, and a repository.
struct Scene {
    server: Server,
    sandbox: Sandbox,
    /// The server's URL for somebody who may do all.
    root: String,
}

/// Databases whose second takes a while.
const ONE: [&str; 5] = ["--no-globals", "--database", "more", "--database", "shop"];

impl Scene {
    fn new() -> Self {
        let server = Server::start();
        fill(&server);
        Self {
            root: server.local_url("postgres"),
            sandbox: Sandbox::with_repository(),
            server,
        }
    }

    fn backup(&self, url: &str, arguments: &[&str]) -> Command {
        let all = [&["backup", "--postgres", url], arguments].concat();
        self.server.strongroom(&self.sandbox, &all)
    }

    fn restore(&self, url: &str, arguments: &[&str]) -> Command {
        let all = [&["restore", "latest", "--postgres", url], arguments].concat();
        self.server.strongroom(&self.sandbox, &all)
    }

    /// A command that finds these programs only.
    fn with_programs(&self, name: &str, programs: &[&str], mut command: Command) -> Command {
        let folder = self.sandbox.path(name);
        fs::create_dir(&folder).unwrap();
        for program in programs {
            symlink(self.server.programs().join(program), folder.join(program)).unwrap();
        }
        command.env("PATH", &folder);
        command
    }
}

/// A function that the programs of a restore run when they refresh the view that calls it.
const ON_RESTORE: &str = "
    CREATE FUNCTION public.on_restore() RETURNS int LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('application_name') = 'pg_restore' THEN @ACTION@; END IF;
        RETURN 1;
    END $$;
    CREATE MATERIALIZED VIEW v AS SELECT public.on_restore();";

fn fill(server: &Server) {
    server.sql(
        "postgres",
        "CREATE DATABASE shop; CREATE DATABASE more;
         CREATE ROLE dumper LOGIN; CREATE ROLE plain LOGIN;
         GRANT pg_read_all_data TO dumper; CREATE DATABASE bad; CREATE DATABASE slow;
         CREATE ROLE seller",
    );
    server.sql(
        "shop",
        "CREATE TABLE a_big AS SELECT n, md5(n::text) || md5((-n)::text) AS t
         FROM generate_series(1, 100000) n;
         CREATE TABLE b_closed AS SELECT 1 AS n;
         GRANT SELECT ON b_closed TO seller;
         ALTER TABLE b_closed ENABLE ROW LEVEL SECURITY;",
    );
    let raise = ON_RESTORE.replace("@ACTION@", "RAISE EXCEPTION 'no more today'");
    server.sql("bad", &raise);
    server.sql(
        "slow",
        &ON_RESTORE.replace("@ACTION@", "PERFORM pg_sleep(600)"),
    );
}

#[test]
fn a_dump_that_fails_leaves_no_snapshot_and_says_what_failed() {
    let scene = Scene::new();
    fail_in_the_middle(&scene);
    fail_to_connect(&scene);
    fail_without_programs(&scene);
    let lock = "BEGIN; LOCK TABLE a_big IN ACCESS EXCLUSIVE MODE;";
    let session = scene.server.session("shop", lock);
    be_ended_by_the_server(&scene);
    for signal in [Signal::INT, Signal::TERM] {
        let child = start(scene.backup(&scene.root, &ONE));
        scene.server.wait_until(WAITS);
        send(&child, signal);
        let told = end(child);
        assert_eq!(told.code, 130, "{told:?}");
        scene.server.see_that_all_left();
    }
    drop(session);
    assert_eq!(snapshots(&scene.sandbox), 0);
    well(scene.backup(&scene.root, &ONE));
    assert_eq!(snapshots(&scene.sandbox), 1);
}

/// Megabytes were read by then.
fn fail_in_the_middle(scene: &Scene) {
    let dumper = scene.server.local_url("dumper");
    fails(
        scene.backup(&dumper, &ONE),
        &[
            "/postgres/shop.dump",
            "pg_dump of database shop failed: exit status: 1",
            "row-level security",
            "pg_read_all_data",
        ],
    );
    let missing = [&ONE[..], &["--database", "no such"]].concat();
    fails(
        scene.backup(&scene.root, &missing),
        &["no database", "no such", "it has", "shop"],
    );
    let plain = scene.server.local_url("plain");
    fails(
        scene.backup(&plain, &["--database", "more"]),
        &[
            "/postgres/globals.sql",
            "pg_dumpall --globals-only failed: exit status: 1",
            "permission denied",
            "--no-globals",
        ],
    );
}

/// Nobody is there, or one who does not open.
fn fail_to_connect(scene: &Scene) {
    let nobody = scene.root.clone() + "1";
    fails(
        scene.backup(&nobody, &[]),
        &["cannot ask", "psql", "exit status: 2", "check the URL"],
    );
    let network = scene.server.url("postgres");
    fails(
        scene.backup(&network, &[]),
        &["psql", "no password supplied"],
    );
    let wrong = network.replace('@', ":wrong-one@");
    let refused = said(scene.backup(&wrong, &[]));
    assert_eq!(refused.code, 1);
    let why = "password authentication failed";
    assert!(refused.err.contains(why), "{refused:?}");
    assert!(!refused.err.contains("wrong-one"), "{refused:?}");
    let unescaped = network.replace('@', &format!(":{PASSWORD}/x@"));
    fails(scene.backup(&unescaped, &[]), &["URL", "%XX"]);
    fails(scene.backup("shop", &[]), &["postgresql://"]);
}

fn fail_without_programs(scene: &Scene) {
    let cases: [(&[&str], &str); 3] = [
        (&[], "psql"),
        (&["psql"], "pg_dumpall"),
        (&["psql", "pg_dumpall"], "pg_dump"),
    ];
    for (there, gone) in cases {
        let mut command = scene.backup(&scene.root, &["--database", "more"]);
        if gone == "pg_dump" {
            command.arg("--no-globals");
        }
        let command = scene.with_programs(&format!("without-{gone}"), there, command);
        let told = format!("cannot run {gone}: ");
        fails(command, &[&told, "postgresql-client"]);
    }
}

/// While the dump waits for a lock.
fn be_ended_by_the_server(scene: &Scene) {
    let child = start(scene.backup(&scene.root, &ONE));
    scene.server.wait_until(WAITS);
    scene.server.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name = 'pg_dump'",
    );
    let told = end(child);
    assert_eq!(told.code, 1, "{told:?}");
    for words in ["pg_dump of database shop failed", "terminating connection"] {
        assert!(told.err.contains(words), "{told:?}");
    }
}

/// Whether a dump waits for a lock.
const WAITS: &str = "SELECT count(*) = 1 FROM pg_stat_activity
    WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'";

fn start(mut command: Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn a_load_that_fails_says_which_database_and_leaves_the_others_alone() {
    let scene = Scene::new();
    let (server, root) = (&scene.server, scene.root.as_str());
    save(&scene.sandbox, "src");
    fails(
        scene.restore(root, &[]),
        &["no databases at", "backup --postgres"],
    );
    well(scene.backup(root, &[]));
    refuse(&scene);
    for name in ["bad", "more", "shop", "slow"] {
        server.sql("postgres", &format!("DROP DATABASE {name}"));
    }
    fail_with_a_database(&scene);
    fail_before_any_database(&scene);
    // Somebody stops it.
    let child = start(scene.restore(root, &["--database", "slow"]));
    server.wait_until(
        "SELECT count(*) = 1 FROM pg_stat_activity
         WHERE application_name = 'pg_restore' AND wait_event = 'PgSleep'",
    );
    send(&child, Signal::INT);
    let told = end(child);
    assert_eq!(told.code, 130, "{told:?}");
    assert!(told.err.contains("incomplete"), "{told:?}");
    server.see_that_all_left();
}

/// Loading the first one makes a table in the second.
#[test]
fn a_database_that_is_filled_while_another_is_loaded_is_not_replaced() {
    let scene = Scene::new();
    let (server, root) = (&scene.server, scene.root.as_str());
    let both = ["--no-globals", "--database", "aa", "--database", "more"];
    server.sql("postgres", "CREATE DATABASE aa");
    let fill = format!("COPY (SELECT 'CREATE TABLE kept ()') TO PROGRAM 'psql {root}/more'");
    server.sql("aa", &ON_RESTORE.replace("@ACTION@", &fill));
    well(scene.backup(root, &both));
    server.sql("postgres", "DROP DATABASE aa; CREATE DATABASE aa");
    fails(
        scene.restore(root, &both),
        &[
            "cannot load database more; loaded before: aa",
            "meanwhile it was filled",
            "--clean",
        ],
    );
    assert_eq!(server.sql("more", "SELECT count(*) FROM kept"), "0");
    well(scene.restore(root, &["--no-globals", "--database", "more", "--clean"]));
    let kept = "SELECT count(*) FROM pg_class WHERE relname = 'kept'";
    assert_eq!(server.sql("more", kept), "0");
}

fn refuse(scene: &Scene) {
    let root = scene.root.as_str();
    fails(
        scene.restore(root, &["--database", "x"]),
        &["no database x", "it has bad, more"],
    );
    fails(
        scene.restore(root, &[]),
        &["data in 3 of these databases already: bad, shop, slow; nothing was changed"],
    );
    let nobody = scene.root.clone() + "1";
    fails(scene.restore(&nobody, &[]), &["cannot ask", "psql"]);
}

/// It is told with the program's words, and those before it stay.
fn fail_with_a_database(scene: &Scene) {
    let (server, root) = (&scene.server, scene.root.as_str());
    fails(
        scene.restore(root, &["--database", "bad"]),
        &[
            "cannot load database bad",
            "pg_restore of database bad failed: exit status: 1",
            "no more today",
            "--clean",
        ],
    );
    server.sql("postgres", "DROP DATABASE bad; DROP ROLE seller");
    fails(
        scene.restore(root, &ONE),
        &["cannot load database shop; loaded before: more", "seller"],
    );
    // Now with the roles, and with what was left half loaded.
    fails(
        scene.restore(root, &["--database", "shop"]),
        &["shop", "--clean"],
    );
    well(scene.restore(root, &["--database", "shop", "--clean"]));
    assert_eq!(server.sql("shop", "SELECT count(*) FROM a_big"), "100000");
}

fn fail_before_any_database(scene: &Scene) {
    let server = &scene.server;
    server.sql("postgres", "DROP DATABASE more");
    server.sql("shop", "DROP OWNED BY seller; DROP ROLE seller");
    fails(
        scene.restore(&server.local_url("plain"), &["--database", "more"]),
        &[
            "roles and tablespaces",
            "psql",
            "permission denied",
            "superuser",
        ],
    );
    let command = scene.restore(&scene.root, &["--database", "more"]);
    let command = scene.with_programs("without", &["psql"], command);
    fails(command, &["cannot run pg_restore: ", "postgresql-client"]);
    let there = "SELECT count(*) FROM pg_database WHERE datname = 'more'";
    assert_eq!(server.sql("postgres", there), "0");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_asked() {
    let sandbox = Sandbox::with_repository();
    let impossible: [&[&str]; 7] = [
        &["backup", "--database", "shop", "src"],
        &["backup", "--no-globals"],
        &["backup", "--postgres", "postgres://h", "src"],
        &["backup", "--postgres", "postgres://h", "--stdin"],
        &["backup", "--postgres", "postgres://h?x=y"],
        &[
            "restore",
            "latest",
            "--postgres",
            "postgres://h",
            "--target",
            "to",
        ],
        &["restore", "latest", "--target", "to", "--clean"],
    ];
    for arguments in impossible {
        let mut command = sandbox.command();
        command.args(arguments);
        let said = said(command);
        assert_eq!(said.code, 1, "{arguments:?}: {said:?}");
        assert!(!said.err.is_empty() && said.out.is_empty(), "{said:?}");
    }
    assert_eq!(snapshots(&sandbox), 0);
}
