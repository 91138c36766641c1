//! What the tests share beyond the sandbox: runs in the background and as another user, noise that
//! does not compress, and a look at the files of a repository.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;

use crate::sandbox::{Said, Sandbox};

/// Who "another user" is.
pub(crate) const NOBODY: u32 = 65_534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fails the test where it may not do what it needs to.
#[track_caller]
pub(crate) fn needs_root(why: &str) {
    assert!(is_root(), "{why}: run this test as root");
}

/// Pseudo-random numbers; each test names its seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A seed that differs from run to run, or the one that `E2E_SEED` repeats; it is printed.
    #[expect(clippy::disallowed_methods, reason = "a way to repeat a run of a test")]
    pub(crate) fn rolled() -> Self {
        let given = std::env::var("E2E_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).unwrap();
            u64::from_le_bytes(bytes)
        });
        eprintln!("repeat with E2E_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, below a limit.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// Bytes that nothing compresses.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8))
        .flat_map(|_| dice.next().to_le_bytes())
        .collect();
    bytes.truncate(len);
    bytes
}

/// The program as another user, who may enter the sandbox; as ourselves where we are not root.
pub(crate) fn as_nobody(sandbox: &Sandbox) -> Command {
    let command = sandbox.command();
    if !is_root() {
        return command;
    }
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    // The build may lie where others cannot go.
    let program = sandbox.path("program");
    if !program.exists() {
        fs::copy(command.get_program(), &program).unwrap();
    }
    let mut other = Command::new(program);
    other
        .env_clear()
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null());
    other.current_dir(sandbox.path(""));
    for (name, value) in command.get_envs() {
        other.env(name, value.unwrap());
    }
    other
}

/// Runs a command to its end.
pub(crate) fn said(mut command: Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts a command whose output is kept for its end.
pub(crate) fn start<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Child {
    let mut command = sandbox.command();
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Sends a signal; one that comes after the end changes nothing.
pub(crate) fn send(child: &Child, signal: Signal) {
    match kill_process(Pid::from_child(child), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => panic!("cannot signal: {errno}"),
    }
}

/// Waits for the end of a child that was started by [`start`].
pub(crate) fn end(child: Child) -> Said {
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Halts a child; false where it ended before.
pub(crate) fn halt(child: &Child) -> bool {
    send(child, Signal::STOP);
    let ends = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = waitid(WaitId::Pid(Pid::from_child(child)), ends).unwrap();
    status.is_some_and(|status| status.stopped())
}

/// Whether a child has this file open.
pub(crate) fn has_open(child: &Child, path: &Path) -> bool {
    let Ok(handles) = fs::read_dir(format!("/proc/{}/fd", child.id())) else {
        return false;
    };
    handles
        .flatten()
        .any(|handle| fs::read_link(handle.path()).is_ok_and(|target| target == path))
}

/// All files of a repository but its reserve, with their lengths. Files that go meanwhile are no
/// matter.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => folders.push(entry.path()),
                Ok(about) if !entry.file_name().to_string_lossy().contains("reserve") => {
                    found.push((entry.path(), about.len()));
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Bytes of those files.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    files(folder).iter().map(|(_, len)| len).sum()
}

/// Copies a folder of plain files.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A run that must go well without a word on standard error.
pub(crate) fn well<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) {
    answer(sandbox, arguments);
}

/// The same, and what it said on standard output.
pub(crate) fn answer<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Vec<Value> {
    let said = sandbox.run(arguments);
    assert_eq!(
        (said.code, said.err.as_str()),
        (0, ""),
        "{arguments:?}: {said:?}"
    );
    let is_json = arguments.contains(&"--json");
    if is_json { said.messages() } else { Vec::new() }
}

/// Saves a folder; the message about it.
pub(crate) fn save(sandbox: &Sandbox, source: &str) -> Value {
    answer(sandbox, ["--json", "backup", source]).pop().unwrap()
}

/// The id of the snapshot that a message of a backup tells of.
pub(crate) fn id(summary: &Value) -> String {
    summary["snapshot_id"].as_str().unwrap().to_owned()
}
