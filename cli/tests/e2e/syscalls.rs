//! The program on a disk that fails at its nth operation, once or from then on, for every n and in
//! every way that [`Effect`] knows. Demanded is: the run ends; with exit code 0 and a snapshot that
//! restores, or with 1 and a message that names the object and the cause; and then, on the disk as
//! it is and without failures, earlier snapshots restore with the same bytes, the next run
//! succeeds, and `check --read-data` finds nothing.
//!
//! The disk also holds what the program keeps at home: its memory of the log and its cache.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::disk::{Disk, Effect, Fault, Meter, Tree};

/// How long a run may take before it counts as hanging; it takes less than a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is done on the disk that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The second backup of a folder that has changed.
    Backup,
    /// Forgets the older of two snapshots, and prunes.
    Prune,
}

/// Files by name.
type Content = BTreeMap<PathBuf, Vec<u8>>;

/// What came of a run with a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It took a course on which there is no such operation.
    NotMet,
    /// It succeeded all the same.
    Survived,
    /// It failed as it should.
    Failed,
}

/// What came of many.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Runs by effect, whether it lasts, and outcome.
    pub(crate) runs: BTreeMap<(String, bool, String), u64>,
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    /// Adds what came of others.
    pub(crate) fn add(&mut self, other: Self) {
        for (key, runs) in other.runs {
            *self.runs.entry(key).or_default() += runs;
        }
        self.wrong.extend(other.wrong);
    }
}

/// A repository on which one deed is done again and again.
pub(crate) struct Rig {
    program: PathBuf,
    folder: PathBuf,
    deed: Deed,
    /// The disk before the deed.
    before: Tree,
    /// What stands on it.
    snapshots: Vec<(String, Content)>,
    /// What is in the source folder.
    source: Content,
    /// Of a run in which nothing fails.
    clean: Meter,
}

/// A disk at work, for one run.
struct Bench<'a> {
    rig: &'a Rig,
    at: PathBuf,
    to: PathBuf,
}

impl Rig {
    /// Makes the repository, with everything it needs in `folder`.
    pub(crate) fn new(program: &Path, folder: &Path, deed: Deed) -> Result<Self, String> {
        let mut rig = Self {
            program: fs::canonicalize(program).unwrap(),
            folder: folder.to_owned(),
            deed,
            before: Tree::default(),
            snapshots: Vec::new(),
            source: Content::new(),
            clean: Meter::default(),
        };
        rig.fill_source(1);
        let bench = rig.bench(0);
        let disk = Disk::mount(&bench.at, Tree::default(), None)?;
        fs::create_dir(bench.at.join("home")).unwrap();
        bench.well(&["--pack-size", "4", "init"])?;
        let mut snapshots = vec![(bench.save()?, rig.source.clone())];
        if deed == Deed::Prune {
            rig.fill_source(2);
            let bench = rig.bench(0);
            snapshots.push((bench.save()?, rig.source.clone()));
        }
        rig.before = disk.tree();
        drop(disk);
        rig.snapshots = snapshots;
        rig.fill_source(3);
        let disk = rig.disk(0)?;
        rig.bench(0).deed()?.map_err(|failed| failed.message)?;
        rig.clean = disk.meter();
        Ok(rig)
    }

    /// Every fault that can befall the deed.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for effect in Effect::ALL {
            for lasting in [false, true] {
                faults.extend((1..=self.clean.count(effect)).map(|nth| Fault {
                    effect,
                    nth,
                    lasting,
                }));
            }
        }
        faults
    }

    /// Runs the deed with each of these faults, on so many disks side by side.
    pub(crate) fn run_all(&self, faults: &[Fault], workers: usize) -> Tally {
        let tally = Mutex::new(Tally::default());
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for worker in 0..workers {
                let (tally, next) = (&tally, &next);
                scope.spawn(move || {
                    while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let done = self.run(*fault, worker);
                        let mut tally = tally.lock().unwrap();
                        let outcome = match done {
                            Ok(outcome) => format!("{outcome:?}"),
                            Err(wrong) => {
                                tally.wrong.push(format!("{fault:?}: {wrong}"));
                                "WRONG".to_owned()
                            }
                        };
                        let key = (format!("{:?}", fault.effect), fault.lasting, outcome);
                        *tally.runs.entry(key).or_default() += 1;
                    }
                });
            }
        });
        tally.into_inner().unwrap()
    }

    fn run(&self, fault: Fault, worker: usize) -> Result<Outcome, String> {
        let bench = self.bench(worker);
        let disk = self.disk(worker)?;
        disk.set(Some(fault));
        let done = bench.deed();
        let struck = disk.meter().struck().map(str::to_owned);
        disk.set(None);
        let left = disk.tree();
        // What the system remembers of the disk goes with the mount.
        drop(disk);
        let disk = Disk::mount(&bench.at, left, None)?;
        let story = format!("at {}", struck.as_deref().unwrap_or("nothing"));
        let judged = done.and_then(|done| {
            let saved = match done {
                Ok(saved) => saved,
                Err(failed) => {
                    self.judge(&bench, fault, struck.is_some(), &failed)?;
                    bench.inspect(None)?;
                    return Ok(Outcome::Failed);
                }
            };
            bench.inspect(Some(&saved))?;
            Ok(match struck {
                Some(_) => Outcome::Survived,
                None => Outcome::NotMet,
            })
        });
        drop(disk);
        judged.map_err(|wrong| format!("{story}: {wrong}"))
    }

    /// Whether a failure is one that people can understand.
    fn judge(
        &self,
        bench: &Bench<'_>,
        fault: Fault,
        struck: bool,
        failed: &Failed,
    ) -> Result<(), String> {
        let Failed { code, message, .. } = failed;
        let said = message.to_lowercase();
        let wrong = if !struck {
            "failed although nothing did"
        } else if *code != 1 {
            "ended with another code than 1"
        } else if fault
            .effect
            .words()
            .is_none_or(|words| !said.contains(words))
        {
            "the message does not say why"
        } else if !message.contains(bench.at.to_str().unwrap()) {
            "the message does not say where"
        } else if failed.panicked {
            "panicked"
        } else {
            return Ok(());
        };
        Err(format!("{wrong}: exit code {code}, {message}"))
    }

    fn bench(&self, worker: usize) -> Bench<'_> {
        Bench {
            rig: self,
            at: self.folder.join(format!("disk{worker}")),
            to: self.folder.join(format!("to{worker}")),
        }
    }

    fn disk(&self, worker: usize) -> Result<Disk, String> {
        Disk::mount(&self.bench(worker).at, self.before.clone(), None)
    }

    /// Some files that differ from generation to generation in part.
    fn fill_source(&mut self, generation: u64) {
        let text: String = (0..4000)
            .map(|line| {
                let of = if line % 1000 == 0 { generation } else { 0 };
                format!("line {line} of generation {of}\n")
            })
            .collect();
        self.source = BTreeMap::from([
            (PathBuf::from("text"), text.into_bytes()),
            ("sub/same".into(), noise(200_000, 1)),
            ("sub/new".into(), noise(1_200_000, 100 + generation)),
            ("small".into(), generation.to_string().into_bytes()),
        ]);
        for (name, content) in &self.source {
            let path = self.folder.join("src").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

/// A run that did not succeed.
struct Failed {
    code: i32,
    message: String,
    panicked: bool,
}

impl Bench<'_> {
    /// The deed; the snapshots that must be there after it with their files, or how it failed.
    fn deed(&self) -> Result<Result<Vec<(String, Content)>, Failed>, String> {
        let mut kept = self.rig.snapshots.clone();
        match self.rig.deed {
            Deed::Backup => Ok(match self.run(&["backup", "src"])? {
                Ok(said) => {
                    kept.push((snapshot(&said)?, self.rig.source.clone()));
                    Ok(kept)
                }
                Err(failed) => Err(failed),
            }),
            Deed::Prune => {
                let (oldest, _) = kept.remove(0);
                let forgot = self.run(&["forget", &oldest])?;
                Ok(match forgot {
                    Ok(_) => self.run(&["prune"])?.map(|_| kept),
                    Err(failed) => Err(failed),
                })
            }
        }
    }

    /// What is promised, on a disk that does not fail.
    fn inspect(&self, promised: Option<&[(String, Content)]>) -> Result<(), String> {
        let listed = self.well(&["list", "snapshots"])?;
        let before = self.rig.snapshots.iter();
        let mut kept: Vec<_> = match promised {
            Some(promised) => promised.iter().collect(),
            // A deed that fails may have done its work, as long as it takes nothing else.
            None => before
                .filter(|(id, _)| listed.contains(id) || !self.may_go(id))
                .collect(),
        };
        for (id, content) in kept.drain(..) {
            self.compare(id, content)?;
        }
        let next = self.save()?;
        self.compare(&next, &self.rig.source)?;
        self.well(&["check", "--read-data"]).map(|_| ())
    }

    fn may_go(&self, id: &str) -> bool {
        self.rig.deed == Deed::Prune && self.rig.snapshots[0].0 == id
    }

    fn save(&self) -> Result<String, String> {
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
    fn well(&self, arguments: &[&str]) -> Result<String, String> {
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

/// Bytes that nothing compresses.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes: Vec<u8> = (0..len.div_ceil(8))
        .flat_map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)).to_le_bytes()
        })
        .collect();
    bytes.truncate(len);
    bytes
}
