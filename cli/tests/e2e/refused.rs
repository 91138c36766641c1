//! What a person can get wrong, and what others leave in the way: each refused in words that name
//! it, with its exit code, and without harm.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use crate::{
    runs::{NOBODY, as_nobody, copy_folder, files, id, is_root, said, save, well},
    sandbox::{Said, Sandbox},
    tree::{assert_same, read},
};

/// Failed with this code and these words.
#[track_caller]
fn refused(said: &Said, code: i32, words: &str) {
    assert_eq!(said.code, code, "{said:?}");
    assert!(said.err.contains(words), "{words:?} in {said:?}");
    assert!(
        !said.err.contains("panicked") && !said.err.contains("internal"),
        "{said:?}"
    );
}

#[test]
fn a_place_without_a_repository_is_code_10_and_a_file_in_its_place_is_told() {
    let sandbox = Sandbox::with_repository();
    for place in ["nowhere", "src", "nowhere/below"] {
        refused(&sandbox.run(["-r", place, "snapshots"]), 10, place);
    }
    let file = sandbox.run(["-r", "src/a.txt", "snapshots"]);
    refused(&file, 1, "src/a.txt");
    refused(&sandbox.run(["-r", "src/a.txt", "init"]), 1, "src/a.txt");
    assert_eq!(fs::read(sandbox.path("src/a.txt")).unwrap(), b"alpha\n");
    let none = [("STRONGROOM_REPOSITORY", "")];
    refused(
        &sandbox.run_with(&none, ["snapshots"]),
        1,
        "STRONGROOM_REPOSITORY",
    );
}

#[test]
fn a_key_of_another_repository_opens_nothing_although_the_password_is_right() {
    let sandbox = Sandbox::with_repository();
    save(&sandbox, "src");
    well(&sandbox, ["-q", "-r", "other", "init"]);
    for (key, _) in files(&sandbox.path("other/keys")) {
        let name = key.file_name().unwrap();
        fs::copy(&key, sandbox.path("repo/keys").join(name)).unwrap();
    }
    // The right key is still there and is found, whichever comes first.
    assert_eq!(sandbox.run(["list", "snapshots"]).code, 0);
    fs::remove_dir_all(sandbox.path("repo/keys")).unwrap();
    copy_folder(&sandbox.path("other/keys"), &sandbox.path("repo/keys"));
    refused(&sandbox.run(["list", "snapshots"]), 1, "repository");
}

#[test]
fn a_repository_of_a_newer_version_is_left_to_a_newer_program() {
    let sandbox = Sandbox::with_repository();
    save(&sandbox, "src");
    let copies = ["repo/config", "repo/config.2"].map(|name| sandbox.path(name));
    for path in &copies {
        // Three times a frame, and three times its length; the version follows the magic.
        let mut bytes = fs::read(path).unwrap();
        let frame = (bytes.len() - 12) / 3;
        for copy in 0..3 {
            let version = &mut bytes[copy * frame + 8];
            assert_eq!(*version, 1);
            *version = 2;
        }
        fs::write(path, bytes).unwrap();
    }
    refused(&sandbox.run(["snapshots"]), 1, "newer");
    refused(&sandbox.run(["backup", "src"]), 1, "newer");
}

#[test]
fn a_repository_that_may_only_be_read_serves_reading_and_refuses_a_backup_in_clear_words() {
    let sandbox = Sandbox::with_repository();
    let forgotten = id(&save(&sandbox, "src/sub"));
    save(&sandbox, "src");
    well(&sandbox, ["forget", &forgotten]);
    let open_up =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let mut folders = vec![sandbox.path("repo")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                open_up(&entry.path(), 0o444);
            }
        }
        open_up(&folder, 0o555);
    }
    for (path, _) in files(&sandbox.path("src")) {
        open_up(&path, 0o644);
    }
    let home = sandbox.path("other-home");
    fs::create_dir(&home).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = as_nobody(&sandbox);
        command.env("HOME", &home).args(arguments);
        said(command)
    };
    if is_root() {
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    assert_eq!(run(&["list", "snapshots"]).code, 0);
    let private = sandbox.path("private");
    fs::create_dir(&private).unwrap();
    open_up(&private, 0o000);
    let listed = run(&[
        "--cache-dir",
        private.to_str().unwrap(),
        "list",
        "snapshots",
    ]);
    assert_eq!(listed.code, 0, "a cache is not needed: {listed:?}");
    assert_eq!(run(&["check", "--read-data"]).code, 0);
    let target = home.join("to");
    assert_eq!(
        run(&["restore", "latest", "--target", target.to_str().unwrap()]).code,
        0
    );
    assert_eq!(fs::read(target.join("src/a.txt")).unwrap(), b"alpha\n");
    for command in [
        &["backup", "-f", "src"][..],
        &["prune"],
        &["forget", "latest"],
    ] {
        let said = run(command);
        refused(&said, 1, "ermission denied");
        let place = sandbox.path("repo");
        assert!(said.err.contains(place.to_str().unwrap()), "{said:?}");
    }
    open_up(&sandbox.path("repo"), 0o755);
    let mut folders = vec![sandbox.path("repo")];
    while let Some(folder) = folders.pop() {
        open_up(&folder, 0o755);
        let below = fs::read_dir(&folder).unwrap().flatten();
        folders.extend(
            below
                .filter(|e| e.file_type().unwrap().is_dir())
                .map(|e| e.path()),
        );
    }
}

#[test]
fn without_a_place_for_cache_and_memory_everything_still_works() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("a-file", b"");
    // Where the folder should be there is a file, so that root cannot make it either.
    for home in ["/dev/null", "a-file"] {
        let variables = [
            ("HOME", home),
            ("XDG_CACHE_HOME", ""),
            ("XDG_STATE_HOME", ""),
        ];
        for arguments in [
            ["-q", "backup", "src"],
            ["-q", "check", "--read-data"],
            ["-q", "list", "snapshots"],
        ] {
            let said = sandbox.run_with(&variables, arguments);
            assert_eq!(said.code, 0, "{arguments:?}: {said:?}");
        }
    }
    let cache = sandbox.path("a-file/cache");
    let said = sandbox.run(["--cache-dir", cache.to_str().unwrap(), "list", "snapshots"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_source_that_is_missing_is_named_and_the_others_are_saved() {
    let sandbox = Sandbox::with_repository();
    let some = sandbox.run(["--json", "backup", "src", "gone"]);
    refused(&some, 3, "gone");
    let snapshot = id(&some.last_message());
    well(&sandbox, ["restore", &snapshot, "--target", "to"]);
    assert_same(&read(&sandbox.path("src")), &read(&sandbox.path("to/src")));
    let none = sandbox.run(["backup", "gone", "also-gone"]);
    refused(&none, 1, "gone");
    assert!(none.err.contains("also-gone"), "{none:?}");
    refused(&sandbox.run(["backup"]), 1, "nothing to save");
    assert_eq!(sandbox.run(["list", "snapshots"]).out.lines().count(), 1);
}

#[test]
fn what_cannot_be_meant_is_code_1_and_changes_nothing() {
    let sandbox = Sandbox::with_repository();
    save(&sandbox, "src");
    let before = files(&sandbox.path("repo"));
    let impossible: [&[&str]; 12] = [
        &["backup", "--stdin", "src"],
        &["backup", "--parent", "latest", "--force", "src"],
        &["backup", "--read-concurrency", "0", "src"],
        &["backup", "--time", "yesterday-ish", "src"],
        &["backup", "--group-by", "colour", "src"],
        &["backup", "--exclude", "[", "src"],
        &["backup", "--exclude-file", "gone", "src"],
        &["restore", "latest"],
        &["restore", "--target", "to"],
        &["check", "--read-data", "--read-data-subset", "1/2"],
        &["check", "--read-data-subset", "3/2"],
        &["--quiet", "--verbose", "snapshots"],
    ];
    for arguments in impossible {
        let said = said({
            let mut command = sandbox.command();
            command.args(arguments);
            command
        });
        assert_eq!(said.code, 1, "{arguments:?}: {said:?}");
        assert!(
            !said.err.is_empty() && said.out.is_empty(),
            "{arguments:?}: {said:?}"
        );
    }
    assert_eq!(files(&sandbox.path("repo")), before);
}

#[test]
fn a_restore_onto_a_file_is_refused_and_the_file_stays() {
    let sandbox = Sandbox::with_repository();
    save(&sandbox, "src");
    sandbox.write("there", b"precious");
    refused(
        &sandbox.run(["restore", "latest", "--target", "there"]),
        1,
        "there",
    );
    refused(
        &sandbox.run(["restore", "latest", "--target", "there/below"]),
        1,
        "there",
    );
    assert_eq!(fs::read(sandbox.path("there")).unwrap(), b"precious");
    refused(
        &sandbox.run(["restore", "latest", "--target", ""]),
        1,
        "target",
    );
}

#[test]
fn a_snapshot_that_is_not_there_or_not_the_only_one_meant_is_told() {
    let sandbox = Sandbox::with_repository();
    refused(
        &sandbox.run(["restore", "latest", "--target", "to"]),
        1,
        "latest",
    );
    // Of seventeen ids two begin alike; mostly of six.
    let mut begins = BTreeSet::new();
    let prefix = loop {
        let mut begin = id(&save(&sandbox, "src/a.txt"));
        begin.truncate(1);
        if !begins.insert(begin.clone()) {
            break begin;
        }
    };
    refused(
        &sandbox.run(["restore", &prefix, "--target", "to"]),
        1,
        "2 snapshot",
    );
    refused(
        &sandbox.run(["ls", "0123456789abcdef0123"]),
        1,
        "0123456789abcdef0123",
    );
    refused(&sandbox.run(["forget", "xyz"]), 1, "xyz");
    refused(
        &sandbox.run(["restore", "latest:/no/such", "--target", "to"]),
        1,
        "no/such",
    );
    refused(
        &sandbox.run(["restore", "latest", "--host", "elsewhere", "--target", "to"]),
        1,
        "latest",
    );
    assert!(!sandbox.path("to").exists());
}

#[test]
fn passwords_that_are_missing_or_open_to_others_are_told_of() {
    let sandbox = Sandbox::with_repository();
    let none = [("STRONGROOM_PASSWORD", "")];
    refused(
        &sandbox.run_with(&none, ["-p", "gone", "snapshots"]),
        1,
        "gone",
    );
    sandbox.write("empty", b"\n");
    fs::set_permissions(sandbox.path("empty"), fs::Permissions::from_mode(0o600)).unwrap();
    refused(
        &sandbox.run_with(&none, ["-p", "empty", "-r", "new", "init"]),
        1,
        "--insecure-no-password",
    );
    assert!(!sandbox.path("new").exists());
    sandbox.write("open", b"correct horse\n");
    fs::set_permissions(sandbox.path("open"), fs::Permissions::from_mode(0o604)).unwrap();
    let told = sandbox.run_with(&none, ["-p", "open", "list", "snapshots"]);
    assert_eq!(told.code, 0);
    assert!(told.err.starts_with("warning: everybody"), "{told:?}");
    let fed = sandbox.run_fed(b"", &["--password-command", "cat /dev/null", "snapshots"]);
    refused(&fed, 1, "empty");
}

/// What was told of one problem must not stop the rest.
#[test]
fn files_and_folders_that_may_not_be_read_are_named_and_all_others_saved() {
    let sandbox = Sandbox::with_repository();
    for name in [
        "tree/secret",
        "tree/locked/inside",
        "tree/open/readable",
        "tree/zz",
    ] {
        sandbox.write(name, name.as_bytes());
    }
    let mode = |name: &str, mode| {
        fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("tree/secret", 0o000);
    mode("tree/locked", 0o000);
    if is_root() {
        for place in ["repo", "tree"] {
            hand_over(&sandbox.path(place));
        }
        chown(sandbox.path("tree/secret"), Some(0), Some(0)).unwrap();
        chown(sandbox.path("tree/locked"), Some(0), Some(0)).unwrap();
    }
    let mut command = as_nobody(&sandbox);
    command
        .env("HOME", "nowhere")
        .args(["--json", "backup", "tree"]);
    let told = said(command);
    assert_eq!(told.code, 3, "{told:?}");
    for name in ["tree/secret", "tree/locked"] {
        let line = told.err.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.contains("ermission denied"), "{line}");
    }
    assert_eq!(told.last_message()["error_count"], 2, "{told:?}");
    mode("tree/locked", 0o755);
    let to = sandbox.path("to");
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    for name in ["tree/open/readable", "tree/zz"] {
        assert_eq!(fs::read(to.join(name)).unwrap(), name.as_bytes());
    }
    assert!(!to.join("tree/secret").exists());
}

/// Gives a folder and all below it to the other user.
fn hand_over(folder: &Path) {
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            hand_over(&entry.path());
        } else {
            chown(entry.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
}
