//! Stopping a run, and asking it how far it is.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::Sandbox;

/// A backup of a stream that never ends, once it listens to signals.
fn endless(sandbox: &Sandbox) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = sandbox.command();
    command
        .args(["--json", "backup", "--stdin"])
        .env("STRONGROOM_PROGRESS_FPS", "20")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(b"beginning")
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"status\"") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended");
    }
    (child, lines)
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_signal_stops_a_backup_with_exit_code_130_and_without_a_snapshot() {
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = Sandbox::with_repository();
        let (mut child, _lines) = endless(&sandbox);
        // Its standard input stays open: it is not the end of the stream that ends it.
        let stdin = child.stdin.take();
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        assert_eq!(output.status.code(), Some(130));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("\"code\":130"), "{said}");
        assert_eq!(sandbox.run(["list", "snapshots"]).out, "");
    }
}

#[test]
fn a_run_tells_how_far_it_is_when_asked() {
    let sandbox = Sandbox::with_repository();
    let (mut child, mut lines) = endless(&sandbox);
    send(&child, Signal::USR1);
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.contains("/stdin"), "{line}");
    drop(child.stdin.take());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(rest.contains("\"summary\""), "{rest}");
}
