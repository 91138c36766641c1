//! Help, versions, completions and manual pages.

use std::fs;

use crate::sandbox::Sandbox;

const COMMANDS: [&str; 18] = [
    "init",
    "backup",
    "restore",
    "snapshots",
    "ls",
    "cat",
    "inspect",
    "list",
    "forget",
    "prune",
    "check",
    "stats",
    "key",
    "bench",
    "completions",
    "man",
    "version",
    "help",
];

#[test]
fn without_arguments_the_program_shows_its_help_and_that_is_no_failure() {
    let sandbox = Sandbox::empty();
    let bare = sandbox.run([]);
    let asked = sandbox.run(["-h"]);
    assert_eq!(bare.code, 0);
    assert_eq!(bare.out, asked.out);
    assert_eq!(bare.err, "");
    insta::assert_snapshot!(bare.out);
}

#[test]
fn every_command_explains_itself() {
    let sandbox = Sandbox::empty();
    let help = sandbox.run(["--help"]);
    for command in COMMANDS {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}");
    }
    for command in COMMANDS.iter().filter(|command| **command != "help") {
        let said = sandbox.run([command, "--help"]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{command}");
        // The options of the program are the same everywhere.
        let own = said.out.split("\nGlobal options:").next().unwrap();
        insta::assert_snapshot!(format!("help_{command}"), own);
    }
}

#[test]
fn the_version_is_told_in_words_and_as_a_message() {
    let sandbox = Sandbox::empty();
    let version = env!("CARGO_PKG_VERSION");
    let said = sandbox.run(["version"]);
    assert!(said.out.starts_with(&format!("strongroom {version} on ")));
    let message = sandbox.run(["version", "--json"]).last_message();
    assert_eq!(message["message_type"], "version");
    assert_eq!(message["version"], version);
}

#[test]
fn there_are_completions_for_every_shell() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let said = sandbox.run(["completions", shell]);
        assert_eq!(said.code, 0, "{shell}");
        assert!(said.out.contains("strongroom") && said.out.contains("snapshots"));
    }
}

#[test]
fn there_is_a_manual_page_for_the_program_and_each_command() {
    let sandbox = Sandbox::empty();
    fs::create_dir(sandbox.path("man")).unwrap();
    assert_eq!(sandbox.run(["man", "man"]).code, 0);
    for page in [
        "strongroom.1",
        "strongroom-backup.1",
        "strongroom-key-add.1",
    ] {
        let page = fs::read_to_string(sandbox.path("man").join(page)).unwrap();
        assert!(page.contains(".TH"));
    }
    assert!(sandbox.run(["man"]).out.contains(".TH strongroom 1"));
}
