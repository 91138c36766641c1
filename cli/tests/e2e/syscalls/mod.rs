//! The program on a disk that fails at its nth operation, once or from then on, for every n and in
//! every way that [`Effect`] knows; one of them is that the power is cut, after which the disk goes
//! on with what was synced. Demanded is: the run ends; with exit code 0, or with 1 and a message
//! that names the object and the cause; and then, on the disk as it is and without failures, what
//! was told as done is done, earlier snapshots restore with the same bytes, the next run succeeds,
//! and `check --read-data` finds nothing.
//!
//! The disk also holds what the program keeps at home: its memory of the log and its cache.
//!
//! `bench` runs the program and looks at what it left, `message` judges what it said.

mod bench;
mod message;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use self::bench::{Bench, Failed};
use crate::disk::{Disk, Effect, Fault, Meter, Tree};

/// What is done on the disk that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Makes the repository.
    Init,
    /// The second backup of a folder that has changed.
    Backup,
    /// Forgets the older of two snapshots, and prunes.
    Prune,
}

/// Files by name.
type Content = BTreeMap<PathBuf, Vec<u8>>;

/// What came of a run with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It took a course on which there is no such operation.
    NotMet,
    /// It succeeded all the same.
    Survived,
    /// It failed as it should.
    Failed,
    /// It did not keep to what is demanded.
    Wrong,
}

/// What came of many.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Runs by effect, whether it lasts, and outcome.
    pub(crate) runs: BTreeMap<(String, bool, Outcome), u64>,
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

    /// Runs of which something was struck.
    pub(crate) fn met(&self) -> u64 {
        self.all() - self.of(Outcome::NotMet)
    }

    /// All runs.
    pub(crate) fn all(&self) -> u64 {
        self.runs.values().sum()
    }

    fn of(&self, wanted: Outcome) -> u64 {
        let runs = self.runs.iter();
        runs.filter_map(|((_, _, outcome), runs)| (*outcome == wanted).then_some(*runs))
            .sum()
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
        let mut snapshots = Vec::new();
        if deed != Deed::Init {
            bench.well(&bench::INIT)?;
            snapshots.push((bench.save()?, rig.source.clone()));
        }
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
        rig.bench(0).deed()?.end.map_err(|failed| failed.message)?;
        rig.clean = disk.meter();
        Ok(rig)
    }

    /// Every fault that can befall the deed, but power cuts.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for effect in Effect::ALL {
            if effect == Effect::PowerCut {
                continue;
            }
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

    /// A power cut at every operation of the deed, and one after its end.
    pub(crate) fn power_cuts(&self) -> Vec<Fault> {
        let after = self.clean.count(Effect::PowerCut) + 1;
        let cuts = (1..=after).map(|nth| Fault {
            effect: Effect::PowerCut,
            nth,
            lasting: true,
        });
        cuts.collect()
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
                        let outcome = done.unwrap_or_else(|wrong| {
                            tally.wrong.push(format!("{fault:?}: {wrong}"));
                            Outcome::Wrong
                        });
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
        let meter = disk.meter();
        disk.set(None);
        let left = match fault.effect {
            Effect::PowerCut => disk.tree_after_power_cut(),
            _ => disk.tree_as_it_is(),
        };
        // What the system remembers of the disk goes with the mount.
        drop(disk);
        let disk = Disk::mount(&bench.at, left, None)?;
        let judged = done.and_then(|done| {
            let outcome = self.outcome(&bench, fault, &meter, done.end.err())?;
            if meter.first_struck().is_none() {
                bench.is_remembered()?;
            }
            let next = bench.inspect(&done.promised)?;
            Ok((outcome, next))
        });
        let left = disk.tree_after_power_cut();
        drop(disk);
        // What the next run has told lasts as well, whatever the one before left unsynced.
        let judged = judged.and_then(|(outcome, next)| {
            let _disk = Disk::mount(&bench.at, left, None)?;
            bench.is_still_there(&next)?;
            Ok(outcome)
        });
        let first = meter.first_struck();
        let struck = first.as_deref().unwrap_or("nothing");
        judged.map_err(|wrong| format!("at {struck}: {wrong}"))
    }

    /// What became of the deed itself, where that is as it should be.
    fn outcome(
        &self,
        bench: &Bench<'_>,
        fault: Fault,
        meter: &Meter,
        failed: Option<Failed>,
    ) -> Result<Outcome, String> {
        let struck = meter.first_struck().is_some();
        match failed {
            Some(failed) => {
                let wrong = if struck {
                    message::judge(&failed, fault.effect, &bench.at, meter.struck())
                } else {
                    Err("failed although nothing did")
                };
                let Failed { code, message, .. } = failed;
                wrong.map_err(|wrong| format!("{wrong}: exit code {code}, {message}"))?;
                Ok(Outcome::Failed)
            }
            // The power is cut after the end on purpose as well.
            None if struck || fault.nth > self.clean.count(fault.effect) => Ok(Outcome::Survived),
            None => Ok(Outcome::NotMet),
        }
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
