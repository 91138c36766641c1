//! What is said when something cannot be done, and with which exit code.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::sandbox::Sandbox;

#[test]
fn no_repository_is_exit_code_10_also_where_the_folder_is_there() {
    let sandbox = Sandbox::empty();
    let said = sandbox.run(["cat", "config"]);
    assert_eq!(said.code, 10);
    assert_eq!(
        said.err,
        "error: there is no repository at $SANDBOX/repo\n hint: check --repo, or make a \
         repository with `strongroom init`\n"
    );
    fs::create_dir(sandbox.path("repo")).unwrap();
    assert_eq!(sandbox.run(["cat", "config"]).code, 10);
}

#[test]
fn a_wrong_password_is_exit_code_12_and_the_last_line_for_programs_says_so() {
    let sandbox = Sandbox::with_repository();
    let wrong = [("STRONGROOM_PASSWORD", "wrong")];
    let said = sandbox.run_with(&wrong, ["cat", "config", "--json"]);
    assert_eq!(said.code, 12);
    let message = said.last_error();
    assert_eq!(message["message_type"], "exit_error");
    assert_eq!(message["code"], 12);
    assert!(!said.err.contains("wrong\""), "the password is not shown");
}

#[test]
fn a_second_repository_at_the_same_place_is_refused() {
    let sandbox = Sandbox::with_repository();
    let said = sandbox.run(["init"]);
    assert_eq!(said.code, 1);
    assert_eq!(
        said.err,
        "error: cannot make a repository: there is already a repository at \
         $SANDBOX/repo\n hint: use it as it is, or give another folder with --repo\n"
    );
    let nobody = [("STRONGROOM_PASSWORD", "")];
    let asked = sandbox.run_with(&nobody, ["init"]);
    assert_eq!(
        asked.err, said.err,
        "before anybody is asked for a password"
    );
}

#[test]
fn a_memory_that_cannot_be_read_comes_with_a_way_around_it() {
    let sandbox = Sandbox::with_repository();
    let state = sandbox.path("home/.local/state/strongroom");
    let memory = fs::read_dir(&state).unwrap().next().unwrap().unwrap();
    let whole = fs::read(memory.path()).unwrap();
    fs::write(memory.path(), &whole[1..]).unwrap();
    let said = sandbox.run(["list", "snapshots"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("the memory of this repository in"),
        "{said:?}"
    );
    assert!(said.err.contains("--allow-rollback once"), "{said:?}");
    // Not even root can read a folder like a file.
    fs::remove_file(memory.path()).unwrap();
    fs::create_dir(memory.path()).unwrap();
    let said = sandbox.run(["list", "snapshots"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("STRONGROOM_STATE_DIR"), "{said:?}");
}

/// Overwrites both copies of the configuration.
fn replace_config(sandbox: &Sandbox, change: impl Fn(&mut Vec<u8>)) {
    for copy in ["repo/config", "repo/config.2"] {
        let path = sandbox.path(copy);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn a_repository_of_a_later_version_is_not_called_damaged() {
    let sandbox = Sandbox::with_repository();
    replace_config(&sandbox, |bytes| {
        let magic = b"STRONGRM";
        for at in 0..bytes.len() - magic.len() {
            if bytes[at..].starts_with(magic) {
                bytes[at + magic.len()] = 2;
            }
        }
    });
    let said = sandbox.run(["list", "snapshots"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .contains("config was written by a newer strongroom"),
        "{said:?}"
    );
    assert!(
        said.err.contains("hint: use a newer version of strongroom"),
        "{said:?}"
    );
}

#[test]
fn what_keeps_a_repository_from_being_opened_is_named_with_what_brings_it_back() {
    let sandbox = Sandbox::with_repository();
    replace_config(&sandbox, |bytes| bytes.fill(7));
    let said = sandbox.run(["check"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("config is damaged"), "{said:?}");
    assert!(
        said.err.contains("hint: copy it back from a replica"),
        "a check could not open it either: {said:?}"
    );
    let sandbox = Sandbox::with_repository();
    for key in fs::read_dir(sandbox.path("repo/keys")).unwrap() {
        fs::remove_file(key.unwrap().path()).unwrap();
    }
    let said = sandbox.run(["list", "snapshots"]);
    assert_eq!(said.code, 1, "the password may well be right");
    assert!(
        said.err.contains("there is no key in the repository"),
        "{said:?}"
    );
    assert!(said.err.contains("hint: copy the files of `keys`"));
}

#[test]
fn a_file_in_the_place_of_a_repository_is_told_in_the_words_of_the_system() {
    let sandbox = Sandbox::empty();
    sandbox.write("file", b"no folder");
    let said = sandbox.run(["-r", "file", "list", "snapshots"]);
    assert_eq!(said.code, 1);
    assert_eq!(
        said.err,
        "error: cannot open the repository at file: open the repository folder at file: Not a \
         directory\n"
    );
}

#[test]
fn what_does_not_exist_comes_with_where_to_look() {
    let sandbox = Sandbox::with_repository();
    sandbox.backup();
    let cases: [(&[&str], &str); 3] = [
        (&["ls", "latest", "/nowhere"], "`strongroom ls SNAPSHOT`"),
        (&["ls", "12345678"], "`strongroom snapshots`"),
        (&["key", "remove", "12345678"], "`strongroom key list`"),
    ];
    for (args, hint) in cases {
        let said = sandbox.run_fed(b"", args);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains(hint), "{said:?}");
    }
}

#[test]
fn what_cannot_be_parsed_is_exit_code_1_in_words_and_as_a_message() {
    let sandbox = Sandbox::empty();
    let words = sandbox.run(["backup", "--exclude-larger-than", "big", "src"]);
    assert_eq!(words.code, 1);
    assert!(words.err.contains("a size such as 4096, 512K"), "{words:?}");
    let message = sandbox.run(["--json", "nonsense"]).last_error();
    assert_eq!(message["code"], 1);
    assert_eq!(message["message"], "unrecognized subcommand 'nonsense'");
}

#[test]
fn a_variable_with_a_wrong_value_is_an_error_that_names_it() {
    let sandbox = Sandbox::with_repository();
    for (name, value) in [
        ("STRONGROOM_COMPRESSION", "hard"),
        ("STRONGROOM_PACK_SIZE", "3"),
        ("STRONGROOM_READ_CONCURRENCY", "0"),
        ("STRONGROOM_IGNORE_CTIME", "perhaps"),
        ("STRONGROOM_PROGRESS_FPS", "fast"),
    ] {
        let said = sandbox.run_with(&[(name, value)], ["backup", "src"]);
        assert_eq!(said.code, 1, "{name}");
        assert!(said.err.contains(name), "{said:?}");
        let unset = sandbox.run_with(&[(name, "")], ["-q", "backup", "src"]);
        assert_eq!(unset.code, 0, "{unset:?}");
    }
}

#[test]
fn the_password_comes_from_a_file_a_command_or_standard_input() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("pw", b"correct horse\n");
    fs::set_permissions(sandbox.path("pw"), fs::Permissions::from_mode(0o600)).unwrap();
    let none = ("STRONGROOM_PASSWORD", "");
    let file = sandbox.run_with(&[none], ["-p", "pw", "list", "snapshots"]);
    assert_eq!((file.code, file.err.as_str()), (0, ""));
    let command = ["--password-command", "cat pw", "list", "snapshots"];
    assert_eq!(sandbox.run_with(&[none], command).code, 0);
    let variable = [none, ("STRONGROOM_PASSWORD_FILE", "pw")];
    assert_eq!(sandbox.run_with(&variable, ["list", "snapshots"]).code, 0);
    let nobody = sandbox.run_with(&[none], ["list", "snapshots"]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.err.contains("no password was given"), "{nobody:?}");
    let failed = ["--password-command", "false", "list", "snapshots"];
    let failed = sandbox.run_with(&[none], failed);
    assert!(failed.err.contains("exit status: 1"), "{failed:?}");
}

#[test]
fn a_password_file_that_everybody_can_read_is_warned_of() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("pw", b"correct horse\n");
    fs::set_permissions(sandbox.path("pw"), fs::Permissions::from_mode(0o644)).unwrap();
    let said = sandbox.run(["-p", "pw", "list", "snapshots"]);
    assert_eq!(said.code, 0);
    assert_eq!(
        said.err,
        "warning: everybody on this machine can read the password file pw (mode 644): chmod \
         o-rwx it\n"
    );
}

#[test]
fn an_empty_password_must_be_asked_for() {
    let sandbox = Sandbox::empty();
    let none = [("STRONGROOM_PASSWORD", "")];
    let said = sandbox.run_with(&none, ["--insecure-no-password", "-q", "init"]);
    assert_eq!(said.code, 0, "{said:?}");
    let open = ["--insecure-no-password", "list", "snapshots"];
    assert_eq!(sandbox.run_with(&none, open).code, 0);
    let both = sandbox.run(["--insecure-no-password", "list", "snapshots"]);
    assert_eq!(both.code, 1, "a password is given as well");
}

#[test]
fn a_store_that_does_not_exist_yet_is_refused_without_showing_its_secrets() {
    let sandbox = Sandbox::empty();
    let said = sandbox.run(["-r", "s3:https://key:hunter2@host/bucket", "snapshots"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("\"s3:\" are not supported yet"),
        "{said:?}"
    );
    assert!(!said.err.contains("hunter2"));
}

#[test]
fn weak_key_derivation_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::empty();
    let said = sandbox.run(["init", "--kdf-memory", "1MiB"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("64MiB to 4GiB"), "{said:?}");
    assert!(!sandbox.path("repo").exists());
}
