//! Files that do not hold still while they are saved. The run is halted where it has the file
//! open, the file is changed, and the run goes on; where it was faster, it is tried again.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};

use crate::{
    runs::{end, halt, has_open, id, noise, send, start, well},
    sandbox::{Said, Sandbox},
};

/// How often it is tried to be in time.
const TRIES: usize = 20;
/// More than a run reads between two looks at it.
const LARGE: usize = 48 << 20;

/// Halts the run while it has `file` open; false where that was missed.
fn catch(child: &mut Child, file: &Path) -> bool {
    while !has_open(child, file) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        thread::yield_now();
    }
    halt(child) && has_open(child, file)
}

/// Saves `tree` and does something to it while `file` in it is being read, until the run has told
/// of `words`.
fn disturb(
    sandbox: &Sandbox,
    file: &str,
    words: &str,
    prepare: &dyn Fn(),
    change: &dyn Fn(),
) -> Said {
    let file = sandbox.path(file);
    for _ in 0..TRIES {
        prepare();
        let mut child = start(
            sandbox,
            ["--json", "backup", "-f", "--read-concurrency", "1", "tree"],
        );
        let caught = catch(&mut child, &file);
        if caught {
            change();
        }
        // To a run that has ended it is nothing.
        send(&child, Signal::CONT);
        let said = end(child);
        if caught && said.err.contains(words) {
            return said;
        }
    }
    panic!("{words:?} was not told in {TRIES} tries");
}

fn restored(sandbox: &Sandbox, said: &Said) -> PathBuf {
    well(
        sandbox,
        ["restore", &id(&said.last_message()), "--target", "to"],
    );
    sandbox.path("to/tree")
}

#[test]
fn a_file_that_grows_meanwhile_is_saved_as_it_was_when_it_was_opened() {
    let sandbox = Sandbox::with_repository();
    let content = noise(LARGE, 1);
    let longer = [&content[..], b"more"].concat();
    let write = || sandbox.write("tree/large", &content);
    let grow = || sandbox.write("tree/large", &longer);
    let said = disturb(&sandbox, "tree/large", "grew", &write, &grow);
    assert_eq!(said.code, 0, "worth a word, but all is saved: {said:?}");
    assert!(
        said.err.contains("tree/large grew while it was read"),
        "{said:?}"
    );
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    let saved = fs::read(restored(&sandbox, &said).join("large")).unwrap();
    assert_eq!(saved.len(), LARGE);
}

#[test]
fn a_file_that_shrinks_meanwhile_is_saved_as_far_as_it_was_read() {
    let sandbox = Sandbox::with_repository();
    let content = noise(LARGE, 1);
    let write = || sandbox.write("tree/large", &content);
    let shrink = || {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(sandbox.path("tree/large"));
        file.unwrap().set_len(1 << 20).unwrap();
    };
    let said = disturb(&sandbox, "tree/large", "shrank", &write, &shrink);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("tree/large shrank while it was read"),
        "{said:?}"
    );
    let saved = fs::read(restored(&sandbox, &said).join("large")).unwrap();
    assert!(
        saved.len() >= 1 << 20 && saved.len() < LARGE,
        "{}",
        saved.len()
    );
    assert!(
        saved == content[..saved.len()],
        "a beginning of what it was"
    );
}

#[test]
fn a_file_that_is_rewritten_meanwhile_is_told_of() {
    let sandbox = Sandbox::with_repository();
    let content = noise(LARGE, 1);
    let write = || sandbox.write("tree/large", &content);
    let rewrite = || {
        use std::os::unix::fs::FileExt as _;
        let file = fs::OpenOptions::new()
            .write(true)
            .open(sandbox.path("tree/large"));
        file.unwrap().write_all_at(b"changed", 100).unwrap();
    };
    let said = disturb(&sandbox, "tree/large", "was modified", &write, &rewrite);
    assert_eq!(said.code, 0, "{said:?}");
}

/// While the large file is read, the walk is ahead of it among the small ones: some were looked at
/// and wait to be opened, some are only known by name.
#[test]
fn files_that_vanish_or_turn_into_something_else_are_named_and_all_others_saved() {
    const SMALL: usize = 900;
    let sandbox = Sandbox::with_repository();
    let content = noise(LARGE, 1);
    let name = |n: usize| format!("tree/small{n:04}");
    let prepare = || {
        let tree = sandbox.path("tree");
        if tree.exists() {
            fs::remove_dir_all(tree).unwrap();
        }
        sandbox.write("tree/large", &content);
        for n in 0..SMALL {
            sandbox.write(name(n), name(n).as_bytes());
        }
    };
    let change = || {
        for n in 0..SMALL {
            let path = sandbox.path(&name(n));
            fs::remove_file(&path).unwrap();
            match n % 3 {
                0 => {}
                1 => mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
                _ => symlink("elsewhere", &path).unwrap(),
            }
        }
    };
    let said = disturb(
        &sandbox,
        "tree/large",
        "no longer a regular file",
        &prepare,
        &change,
    );
    assert_eq!(said.code, 3, "{said:?}");
    let to = restored(&sandbox, &said);
    assert!(fs::read(to.join("large")).unwrap() == content);
    let mut named = 0;
    for n in 0..SMALL {
        let name = name(n);
        let line = said.err.lines().find(|line| line.contains(&name));
        let saved = fs::symlink_metadata(to.join(Path::new(&name).file_name().unwrap()));
        assert!(
            line.is_some() != saved.is_ok(),
            "{name} is either saved or told of: {line:?}"
        );
        if let Some(line) = line {
            let expected = ["vanished", "no longer a regular file"][usize::from(n % 3 != 0)];
            assert!(line.contains(expected), "{line}");
            named += 1;
        }
    }
    assert_eq!(said.last_message()["error_count"], named);
}

#[test]
fn a_command_whose_output_is_saved_must_not_fail() {
    let sandbox = Sandbox::with_repository();
    let fails = [
        "backup",
        "--stdin-from-command",
        "--",
        "sh",
        "-c",
        "echo half; exit 3",
    ];
    let said = sandbox.run(fails);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains('3'), "{said:?}");
    assert_eq!(
        sandbox.run(["list", "snapshots"]).out,
        "",
        "half a dump is no snapshot"
    );
    let name = [
        "backup",
        "--stdin-filename",
        "dump",
        "--stdin-from-command",
        "--",
        "echo",
        "whole",
    ];
    well(&sandbox, name);
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    assert_eq!(fs::read(sandbox.path("to/dump")).unwrap(), b"whole\n");
}

/// A pipe among the files must not hang the run, nor a file that claims to be endless.
#[test]
fn pipes_and_endless_files_do_not_hold_up_a_backup() {
    let sandbox = Sandbox::with_repository();
    let pipe = sandbox.path("src/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut command = sandbox.command();
    command.args(["-q", "backup", "src", "/dev/null", "/proc/self/status"]);
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
}
