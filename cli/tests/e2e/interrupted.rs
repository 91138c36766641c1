//! Runs that are stopped, by a signal or without warning: what was there stays, what was stored is
//! used again, what is left over goes with the next prune.

use std::{fs, path::Path, thread};

use crate::{
    runs::{Dice, answer, bytes_in, end, files, halt, noise, save, send, start, well},
    sandbox::Sandbox,
    tree::{assert_same, read},
};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;

/// A sandbox with a snapshot of `src`, and much noise in `big`.
fn sandbox(mib: u64) -> Sandbox {
    let sandbox = Sandbox::with_repository();
    save(&sandbox, "src");
    for part in 0..mib / 8 {
        let content = noise(8 << 20, part + 1);
        sandbox.write(format!("big/part{part:02}"), &content);
    }
    sandbox
}

/// How many packs the indexes name.
fn indexed_packs(sandbox: &Sandbox) -> usize {
    let said = sandbox.run(["list", "packs"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.out.lines().count()
}

fn stored_packs(sandbox: &Sandbox) -> usize {
    files(&sandbox.path("repo/packs")).len()
}

/// Waits until the repository has grown to so many bytes, or the run has ended.
fn wait_for(child: &mut std::process::Child, repo: &Path, len: u64) {
    while bytes_in(repo) < len && child.try_wait().unwrap().is_none() {
        thread::yield_now();
    }
}

const BACKUP: [&str; 5] = ["--json", "--pack-size", "4", "backup", "big"];

#[test]
fn a_backup_that_is_asked_to_stop_keeps_what_it_stored_for_the_next_one() {
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = sandbox(160);
        let repo = sandbox.path("repo");
        let mut child = start(&sandbox, BACKUP);
        let len = bytes_in(&repo) + 12 * MIB;
        wait_for(&mut child, &repo, len);
        send(&child, signal);
        let said = end(child);
        assert_eq!(said.code, 130, "{said:?}");
        assert_eq!(said.last_error()["code"], 130);
        let snapshots = answer(&sandbox, ["--json", "snapshots"]);
        assert_eq!(snapshots[0].as_array().unwrap().len(), 1);
        assert_eq!(
            indexed_packs(&sandbox),
            stored_packs(&sandbox),
            "nothing is left over"
        );
        let next = answer(&sandbox, BACKUP).pop().unwrap();
        let added = next["data_added"].as_u64().unwrap();
        assert!(
            added <= 160 * MIB - 8 * MIB,
            "{added} bytes were stored again"
        );
        well(&sandbox, ["restore", "latest", "--target", "to"]);
        assert_same(&read(&sandbox.path("big")), &read(&sandbox.path("to/big")));
    }
}

/// Stored bytes after which a run makes its first checkpoint, and some.
const CHECKPOINT: u64 = 256 * MIB;

#[test]
fn a_backup_killed_after_a_checkpoint_is_taken_up_from_there() {
    const SOURCE: u64 = CHECKPOINT + 48 * MIB;
    let sandbox = sandbox(SOURCE / MIB);
    let log = sandbox.path("repo/log");
    let entries = files(&log).len();
    let mut child = start(&sandbox, ["-q", "backup", "big"]);
    while files(&log).len() == entries {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "it ended without a checkpoint"
        );
        thread::yield_now();
    }
    send(&child, Signal::KILL);
    assert_eq!(end(child).code, -1);
    let next = save(&sandbox, "big");
    let added = next["data_added"].as_u64().unwrap();
    assert!(
        added < SOURCE - CHECKPOINT / 2,
        "{added} bytes were stored again"
    );
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    assert_same(&read(&sandbox.path("big")), &read(&sandbox.path("to/big")));
}

#[test]
fn a_prune_beside_a_long_backup_leaves_alone_what_it_has_stored() {
    const SOURCE: u64 = 2 * CHECKPOINT;
    let sandbox = sandbox(SOURCE / MIB);
    let log = sandbox.path("repo/log");
    let entries = files(&log).len();
    let mut child = start(&sandbox, ["--json", "backup", "big"]);
    while files(&log).len() == entries {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "it ended without a checkpoint"
        );
        thread::yield_now();
    }
    assert!(halt(&child), "it ended right after its checkpoint");
    assert_eq!(files(&log).len(), entries + 1, "it has its snapshot");
    let stored = stored_packs(&sandbox);
    let said = sandbox.run(["--json", "prune"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let summary = said.last_message();
    assert!(summary["packfiles"]["left_alone"].as_u64().unwrap() > 0);
    assert_eq!(summary["running"].as_array().unwrap().len(), 1);
    assert_eq!(stored_packs(&sandbox), stored);
    let said = sandbox.run(["prune", "--dry-run"]);
    assert!(said.out.contains("a backup under way"), "{said:?}");
    send(&child, Signal::CONT);
    let said = end(child);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    well(&sandbox, ["prune"]);
    well(&sandbox, ["check"]);
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    assert_same(&read(&sandbox.path("big")), &read(&sandbox.path("to/big")));
}

#[test]
fn a_backup_killed_at_any_moment_costs_nothing_but_its_own_work() {
    const KILLS: u64 = 20;
    const SOURCE: u64 = 48 * MIB;
    let mut dice = Dice::rolled();
    let sandbox = sandbox(SOURCE / MIB);
    let repo = sandbox.path("repo");
    let earlier = sandbox.run(["list", "snapshots"]).out.trim().to_owned();
    let mut killed = 0;
    for moment in 0..KILLS {
        let mut child = start(&sandbox, BACKUP);
        let part = SOURCE / KILLS;
        let len = bytes_in(&repo) + moment * part + dice.next() % part;
        wait_for(&mut child, &repo, len);
        send(&child, Signal::KILL);
        // -1: by the signal; else it had come to its end before.
        let said = end(child);
        assert!(said.code == -1 || said.code == 0, "{said:?}");
        killed += u64::from(said.code == -1);
        // That it opens, the next run shows.
        if moment % 4 == 0 {
            let target = format!("to{moment}");
            well(&sandbox, ["restore", &earlier, "--target", &target]);
            let (from, to) = (sandbox.path("src"), sandbox.path(&target));
            assert_same(&read(&from), &read(&to.join("src")));
        }
    }
    assert!(killed >= KILLS / 2, "only {killed} runs were cut");
    let next = answer(&sandbox, BACKUP).pop().unwrap();
    assert!(
        next["data_added"].as_u64().unwrap() <= SOURCE + MIB,
        "{next}"
    );
    assert_eq!(
        next["files_new"].as_u64().unwrap() + next["files_unmodified"].as_u64().unwrap(),
        SOURCE / MIB / 8
    );
    assert!(
        stored_packs(&sandbox) > indexed_packs(&sandbox),
        "nothing was left over to be cleaned"
    );
    // Their signs of life are fresh, but nobody holds their locks.
    assert!(!files(&repo.join("hint")).is_empty());
    well(&sandbox, ["prune"]);
    assert_eq!(stored_packs(&sandbox), indexed_packs(&sandbox));
    assert_eq!(files(&repo.join("hint")), [], "signs of life of dead runs");
    let strange: Vec<_> = files(&repo)
        .into_iter()
        .filter(|(path, _)| {
            path.strip_prefix(&repo)
                .unwrap()
                .to_string_lossy()
                .contains("tmp")
        })
        .collect();
    assert_eq!(strange, [], "temporary files of dead runs");
    well(&sandbox, ["check", "--read-data"]);
    well(
        &sandbox,
        ["restore", "latest", "--path", "big", "--target", "to"],
    );
    assert_same(&read(&sandbox.path("big")), &read(&sandbox.path("to/big")));
}

#[test]
fn a_restore_that_is_stopped_leaves_whole_files_only_and_can_be_taken_up() {
    let sandbox = sandbox(64);
    save(&sandbox, "big");
    let big = sandbox.path("big");
    let mut child = start(&sandbox, ["--json", "restore", "latest", "--target", "to"]);
    let target = sandbox.path("to");
    wait_for(&mut child, &target, 9 * MIB);
    send(&child, Signal::INT);
    let said = end(child);
    assert_eq!(said.code, 130, "{said:?}");
    for (path, _) in files(&target) {
        let name = path.file_name().unwrap();
        assert!(
            fs::read(&path).unwrap() == fs::read(big.join(name)).unwrap(),
            "{path:?}"
        );
    }
    let again = [
        "restore",
        "latest",
        "--target",
        "to",
        "--overwrite",
        "if-changed",
    ];
    well(&sandbox, again);
    assert_same(&read(&big), &read(&target.join("big")));
}

/// Which is how the system says that it cannot read what is mapped.
#[test]
fn a_bus_error_is_told_in_words_and_the_next_run_succeeds() {
    let sandbox = sandbox(160);
    let repo = sandbox.path("repo");
    let mut child = start(&sandbox, BACKUP);
    let len = bytes_in(&repo) + 12 * MIB;
    wait_for(&mut child, &repo, len);
    send(&child, Signal::BUS);
    let said = end(child);
    assert_eq!(said.code, 1, "{said:?}");
    let error = said.last_error();
    assert_eq!(error["code"], 1);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("of the index cache in /"), "{message}");
    assert!(message.contains("--no-cache"), "{message}");
    save(&sandbox, "big");
    well(&sandbox, ["check", "--read-data"]);
}
