//! Runs the program on a disk, and looks at what it left there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Content, Deed, Rig};

/// Makes the repository.
pub(super) const INIT: [&str; 3] = ["--pack-size", "4", "init"];

/// How long a run may take before it counts as hanging; it takes less than a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// A disk at work, for one run.
pub(super) struct Bench<'a> {
    pub(super) rig: &'a Rig,
    /// Where it is mounted.
    pub(super) at: PathBuf,
    /// Where snapshots are restored to.
    pub(super) to: PathBuf,
}

/// What came of a deed.
pub(super) struct Done {
    pub(super) promised: Promised,
    pub(super) end: Result<(), Failed>,
}

/// What holds from then on, by what the program has told.
pub(super) struct Promised {
    /// There is a repository.
    repository: bool,
    /// Snapshots with their files.
    kept: Vec<(String, Content)>,
    /// Such as may be there or not.
    perhaps: Vec<(String, Content)>,
    /// Snapshots that are there no more.
    gone: Vec<String>,
}

/// A run that did not succeed.
pub(super) struct Failed {
    pub(super) code: i32,
    pub(super) message: String,
    pub(super) panicked: bool,
    /// What it said before.
    said: String,
}

impl Bench<'_> {
    /// The deed.
    pub(super) fn deed(&self) -> Result<Done, String> {
        let mut promised = Promised {
            repository: self.rig.deed != Deed::Init,
            kept: self.rig.snapshots.clone(),
            perhaps: Vec::new(),
            gone: Vec::new(),
        };
        let end = match self.rig.deed {
            Deed::Init => {
                let made = self.run(&INIT)?;
                promised.repository = made.is_ok();
                made.map(|_| ())
            }
            Deed::Backup => {
                let saved = self.run(&["backup", "src"])?;
                // What it told of is there, even if it failed later.
                let told = match &saved {
                    Ok(said) => Some(snapshot(said)?),
                    Err(failed) => snapshot(&failed.said).ok(),
                };
                let source = || self.rig.source.clone();
                promised.kept.extend(told.map(|id| (id, source())));
                saved.map(|_| ())
            }
            Deed::Prune => {
                let (oldest, content) = promised.kept.remove(0);
                match self.run(&["forget", &oldest])? {
                    Ok(_) => {
                        promised.gone.push(oldest);
                        self.run(&["prune"])?.map(|_| ())
                    }
                    Err(failed) => {
                        promised.perhaps.push((oldest, content));
                        Err(failed)
                    }
                }
            }
        };
        Ok(Done { promised, end })
    }

    /// Looks for what is promised, on a disk that does not fail, and goes on with it; the snapshot
    /// that it made.
    pub(super) fn inspect(&self, promised: &Promised) -> Result<String, String> {
        if !promised.repository && self.run(&["list", "snapshots"])?.is_err() {
            self.well(&INIT)?;
        }
        let listed = self.well(&["list", "snapshots"])?;
        if let Some(back) = promised.gone.iter().find(|id| listed.contains(*id)) {
            return Err(format!("{back} was forgotten and is there again"));
        }
        let perhaps = promised.perhaps.iter();
        let there = perhaps.filter(|(id, _)| listed.contains(id));
        for (id, content) in promised.kept.iter().chain(there) {
            self.compare(id, content)?;
        }
        let next = self.save()?;
        self.compare(&next, &self.rig.source)?;
        self.well(&["check", "--read-data"])?;
        Ok(next)
    }

    /// Looks for what the last run has made, after another power cut.
    pub(super) fn is_still_there(&self, snapshot: &str) -> Result<(), String> {
        let again = |wrong| format!("after a power cut behind the next run: {wrong}");
        self.is_remembered().map_err(again)?;
        self.compare(snapshot, &self.rig.source).map_err(again)
    }

    /// Whether the program knows how far it has seen the log.
    pub(super) fn is_remembered(&self) -> Result<(), String> {
        let home = self.at.join("home");
        let found = read(&home, &home);
        let mut names = found.keys();
        if names.any(|name| name.extension().is_some_and(|of| of == "seen")) {
            return Ok(());
        }
        Err("what was seen of the log is forgotten".to_owned())
    }

    /// A backup, and its snapshot.
    pub(super) fn save(&self) -> Result<String, String> {
        snapshot(&self.well(&["backup", "src"])?)
    }

    fn compare(&self, id: &str, content: &Content) -> Result<(), String> {
        let _ = fs::remove_dir_all(&self.to);
        self.well(&["restore", id, "--target", self.to.to_str().unwrap()])?;
        let root = self.to.join("src");
        let found = read(&root, &root);
        if found == *content {
            return Ok(());
        }
        let names: Vec<_> = found.keys().collect();
        Err(format!("{id} is restored with other bytes: {names:?}"))
    }

    /// A run that must succeed, and what it said.
    pub(super) fn well(&self, arguments: &[&str]) -> Result<String, String> {
        self.run(arguments)?.map_err(|failed| {
            let Failed { code, message, .. } = failed;
            format!("{arguments:?} without failures: exit code {code}, {message}")
        })
    }

    /// A run to its end, and what it said.
    fn run(&self, arguments: &[&str]) -> Result<Result<String, Failed>, String> {
        let child = Command::new(&self.rig.program)
            .env_clear()
            .env("HOME", self.at.join("home"))
            .env("STRONGROOM_REPOSITORY", self.at.join("repo"))
            .env("STRONGROOM_PASSWORD", "syscalls")
            .env("STRONGROOM_HOST", "box")
            .current_dir(&self.rig.folder)
            .arg("--json")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = patiently(child).map_err(|hangs| format!("{arguments:?} {hangs}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(Ok(text(&output.stdout)));
        }
        let said = text(&output.stderr);
        let last: Value =
            serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_default();
        Ok(Err(Failed {
            code: output.status.code().unwrap_or(-1),
            message: last["message"].as_str().unwrap_or(&said).to_owned(),
            panicked: said.contains("panicked"),
            said: text(&output.stdout),
        }))
    }
}

/// Waits for the end of a child, which is killed where it does not come.
fn patiently(child: Child) -> Result<Output, String> {
    let process = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    let waiting = thread::spawn(move || {
        // Nobody listens any more after a hang.
        let _ = sender.send(child.wait_with_output().unwrap());
    });
    let output = receiver.recv_timeout(PATIENCE).map_err(|_| {
        let _ = kill_process(process, Signal::KILL);
        "hangs".to_owned()
    });
    waiting.join().unwrap();
    output
}

/// The snapshot that a backup tells of.
fn snapshot(said: &str) -> Result<String, String> {
    let last: Value =
        serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_default();
    let id = last["snapshot_id"].as_str();
    id.map(str::to_owned)
        .ok_or_else(|| format!("a backup tells of no snapshot: {said}"))
}

/// Files below a folder, by their path in `root`.
fn read(root: &Path, folder: &Path) -> Content {
    let mut found = Content::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(read(root, &path));
        } else {
            let name = path.strip_prefix(root).unwrap().to_owned();
            found.insert(name, fs::read(&path).unwrap_or_default());
        }
    }
    found
}
