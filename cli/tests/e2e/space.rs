//! Forgetting and pruning, keys, and repositories that are put back to an older state.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    runs::{answer, bytes_in, copy_folder, id, noise, save, well},
    sandbox::Sandbox,
    tree::{assert_same, read},
};

#[test]
fn what_is_forgotten_frees_its_space_and_all_else_still_comes_back() {
    let sandbox = Sandbox::with_repository();
    let repo = sandbox.path("repo");
    let mut generations = Vec::new();
    for generation in 0..4 {
        sandbox.write("data/own", &noise(2 << 20, generation));
        sandbox.write("data/shared", &noise(1 << 20, 99));
        generations.push((id(&save(&sandbox, "data")), read(&sandbox.path("data"))));
    }
    let full = bytes_in(&repo);
    // The packs of the first one hold what all share.
    well(&sandbox, ["forget", &generations[1].0, &generations[2].0]);
    assert!(bytes_in(&repo) >= full, "forgetting alone deletes nothing");
    well(&sandbox, ["prune"]);
    let freed = full - bytes_in(&repo);
    assert!(freed > 3 << 20, "{freed} bytes freed");
    assert_eq!(sandbox.run(["list", "snapshots"]).out.lines().count(), 2);
    for kept in [0, 3] {
        let (id, state) = &generations[kept];
        let target = format!("to{kept}");
        well(&sandbox, ["restore", id, "--target", &target]);
        assert_same(state, &read(&sandbox.path(&target).join("data")));
    }
    let gone = sandbox.run(["restore", &generations[1].0, "--target", "gone"]);
    assert_eq!(gone.code, 1, "{gone:?}");
    well(&sandbox, ["check", "--read-data"]);
    let again = bytes_in(&repo);
    well(&sandbox, ["prune"]);
    assert!(
        bytes_in(&repo) <= again + 100_000,
        "a prune of nothing adds next to nothing"
    );
}

#[test]
fn a_repository_of_which_everything_is_forgotten_is_as_good_as_new() {
    let sandbox = Sandbox::with_repository();
    let saved = id(&save(&sandbox, "src"));
    well(&sandbox, ["forget", &saved]);
    well(&sandbox, ["prune"]);
    assert_eq!(sandbox.run(["list", "packs"]).out, "");
    save(&sandbox, "src");
    well(&sandbox, ["check", "--read-data"]);
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    assert_same(&read(&sandbox.path("src")), &read(&sandbox.path("to/src")));
}

fn password_file(sandbox: &Sandbox, name: &str, password: &str) {
    sandbox.write(name, password.as_bytes());
    fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn keys_are_added_changed_and_removed_and_each_opens_what_all_have_saved() {
    let sandbox = Sandbox::with_repository();
    save(&sandbox, "src");
    password_file(&sandbox, "second", "second password\n");
    password_file(&sandbox, "third", "third password\n");
    let opens = |file: &str| sandbox.run(["-p", file, "list", "snapshots"]).code;
    assert_eq!(opens("second"), 12);
    let added = answer(
        &sandbox,
        ["--json", "key", "add", "--new-password-file", "second"],
    );
    assert_eq!(added[0]["message_type"], "key_added");
    assert_eq!(opens("second"), 0);
    let passwd = [
        "-p",
        "second",
        "key",
        "passwd",
        "--new-password-file",
        "third",
    ];
    well(&sandbox, passwd);
    assert_eq!((opens("second"), opens("third")), (12, 0));
    well(&sandbox, ["-p", "third", "-q", "backup", "src"]);
    let keys = answer(&sandbox, ["--json", "key", "list"]);
    let keys: Vec<_> = keys[0]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["live"] == true)
        .collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let first = keys.iter().find(|key| key["current"] == true).unwrap();
    let first = first["id"].as_str().unwrap();
    well(&sandbox, ["-p", "third", "key", "remove", first]);
    assert_eq!(
        sandbox.run(["list", "snapshots"]).code,
        12,
        "its password opens nothing any more"
    );
    well(&sandbox, ["-p", "third", "check", "--read-data"]);
    well(
        &sandbox,
        ["-p", "third", "restore", "latest", "--target", "to"],
    );
    assert_same(&read(&sandbox.path("src")), &read(&sandbox.path("to/src")));
    let third = sandbox
        .run(["-p", "third", "--json", "key", "list"])
        .last_message();
    let third = third
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["current"] == true)
        .unwrap()
        .clone();
    let last = sandbox.run([
        "-p",
        "third",
        "key",
        "remove",
        third["id"].as_str().unwrap(),
    ]);
    assert_eq!(last.code, 1, "the last key stays: {last:?}");
    assert_eq!(opens("third"), 0);
}

#[test]
fn a_repository_put_back_to_an_older_state_is_noticed_by_those_who_saw_the_newer() {
    let sandbox = Sandbox::with_repository();
    let repo = sandbox.path("repo");
    save(&sandbox, "src");
    let old = sandbox.path("old");
    copy_folder(&repo, &old);
    sandbox.write("src/a.txt", b"beta\n");
    save(&sandbox, "src");
    fs::remove_dir_all(&repo).unwrap();
    copy_folder(&old, &repo);
    for command in ["snapshots", "check", "prune"] {
        let said = sandbox.run([command]);
        assert_eq!(said.code, 1, "{command}: {said:?}");
        assert!(said.err.contains("--allow-rollback"), "{said:?}");
    }
    let refused = sandbox.run(["backup", "src"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let stranger = [("HOME", "elsewhere")];
    assert_eq!(
        sandbox.run_with(&stranger, ["list", "snapshots"]).code,
        0,
        "others cannot know"
    );
    assert_eq!(
        sandbox
            .run(["--allow-rollback", "list", "snapshots"])
            .out
            .lines()
            .count(),
        1
    );
    save(&sandbox, "src");
    well(&sandbox, ["check", "--read-data"]);
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    assert_same(&read(&sandbox.path("src")), &read(&sandbox.path("to/src")));
}

#[test]
fn a_repository_moved_or_copied_elsewhere_is_the_same_repository() {
    let sandbox = Sandbox::with_repository();
    save(&sandbox, "src");
    copy_folder(&sandbox.path("repo"), &sandbox.path("copy"));
    fs::rename(sandbox.path("repo"), sandbox.path("moved")).unwrap();
    for place in ["moved", "copy"] {
        let target = format!("from-{place}");
        well(
            &sandbox,
            ["-r", place, "restore", "latest", "--target", &target],
        );
        assert_same(
            &read(&sandbox.path("src")),
            &read(&sandbox.path(&target).join("src")),
        );
        well(&sandbox, ["-r", place, "check", "--read-data"]);
    }
}
