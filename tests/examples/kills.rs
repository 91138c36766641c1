//! Kills a built strongroom without warning, at random moments of backups and of prunes, and looks
//! at what is left: `check --read-data` finds nothing, every snapshot that was committed restores
//! with the same bytes, and the next backup and prune succeed. Says where the kills landed, and the
//! seed by which its choices can be repeated; the moment itself is the machine's.
//!
//! usage: `just soak-kills BACKUPS PRUNES SEED MIB FOLDER`
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "run by hand, and to fail loudly is its job"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use strongroom_tests::golden::{noise, tensor};

/// Kills after which a repository is left behind for a new one.
const KILLS_A_REPOSITORY: u64 = 6;
/// Every so many backups one is so large that it makes a checkpoint before its end.
const LARGE_EVERY: u64 = 10;
/// Bytes of the model that each generation trains a little more.
const MODEL: usize = 4 << 20;
/// Stored bytes after which a backup makes its first checkpoint, and some, in MiB.
const LARGE: u64 = 280;
/// How long a run may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [program, folder, numbers @ ..] = words.as_slice() else {
        return usage();
    };
    let numbers: Vec<u64> = numbers
        .iter()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [backups, prunes, seed, mib] = *numbers.as_slice() else {
        return usage();
    };
    println!("seed {seed}: {backups} kills of backups, {prunes} of prunes, {mib} MiB each");
    let mut harness = Harness {
        program: fs::canonicalize(program).unwrap(),
        folder: PathBuf::from(folder),
        dice: Dice(seed),
        mib,
        landed: BTreeMap::new(),
        generations: 0,
    };
    harness.clear();
    harness.kill_backups(backups);
    harness.kill_prunes(prunes);
    for ((what, place), count) in &harness.landed {
        println!("{what}: {count} killed {place}");
    }
    println!("all snapshots restored, all checks clean, all next runs succeeded");
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    println!("usage: kills PROGRAM FOLDER BACKUPS PRUNES SEED MIB");
    ExitCode::from(2)
}

/// Pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// What a kill waits for.
#[derive(Clone, Copy)]
enum Aim {
    /// So much of the time that a whole run took, in thousandths.
    Time(u64),
    /// So many packs more, and then so many microseconds.
    Packs(usize, u64),
    /// A new entry of the log, and then so many microseconds.
    Entry(u64),
}

/// A repository, what its client keeps of it, and what was committed to it.
struct Place {
    folder: PathBuf,
    /// Snapshot to generation.
    committed: BTreeMap<String, PathBuf>,
}

impl Place {
    fn repo(&self) -> PathBuf {
        self.folder.join("repo")
    }

    fn packs(&self) -> usize {
        count(&self.repo().join("packs"))
    }

    fn entries(&self) -> usize {
        count(&self.repo().join("log"))
    }
}

struct Harness {
    program: PathBuf,
    folder: PathBuf,
    dice: Dice,
    mib: u64,
    landed: BTreeMap<(&'static str, &'static str), u64>,
    generations: u64,
}

impl Harness {
    fn clear(&self) {
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(&self.folder).unwrap();
    }

    fn command(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", place.folder.join("home"))
            .env("STRONGROOM_REPOSITORY", place.repo())
            .env("STRONGROOM_PASSWORD", "kills")
            .args(["--pack-size", "4"])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// A run that must succeed; what it said.
    fn run(&self, place: &Place, arguments: &[&str]) -> String {
        let mut command = self.command(place, arguments);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let Output { status, stderr, .. } = output;
        let wrong = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{arguments:?}: {status}: {said}{wrong}");
        said
    }

    /// A new repository with nothing in it.
    fn place(&self, name: &str) -> Place {
        let place = Place {
            folder: self.folder.join(name),
            committed: BTreeMap::new(),
        };
        let _ = fs::remove_dir_all(&place.folder);
        fs::create_dir_all(place.folder.join("home")).unwrap();
        self.run(&place, &["-q", "init"]);
        place
    }

    /// The next generation of files: some of the one before, and `mib` of new ones.
    fn generation(&mut self, before: Option<&Path>, mib: u64) -> PathBuf {
        self.generations += 1;
        let number = self.generations;
        let dir = self.folder.join(format!("files{number:05}"));
        fs::create_dir_all(dir.join("sub")).unwrap();
        if let Some(before) = before {
            for (path, _) in files(before) {
                let name = path.strip_prefix(before).unwrap();
                // Files are never written again, so that generations can share them.
                if self.dice.below(4) == 0 {
                    fs::hard_link(&path, dir.join(name)).unwrap();
                }
            }
        }
        for n in 0..mib / 4 {
            let name = format!("sub/large-{number}-{n}");
            fs::write(dir.join(&name), noise(&name, 4 << 20)).unwrap();
        }
        for n in 0..200 {
            let name = format!("small-{number}-{n}");
            let len = usize::try_from(self.dice.below(20_000)).unwrap();
            fs::write(dir.join(&name), noise(&name, len)).unwrap();
        }
        // Stored as its difference from the model of an earlier generation.
        let trained = 50 * usize::try_from(number).unwrap();
        let name = format!("model-{number}.safetensors");
        fs::write(dir.join(name), tensor(MODEL, trained)).unwrap();
        dir
    }

    /// Saves a generation; the snapshot, and how long it took.
    fn save(&self, place: &mut Place, files: &Path) -> (String, Duration) {
        let known = self.snapshots(place);
        let begin = Instant::now();
        self.run(place, &["-q", "backup", files.to_str().unwrap()]);
        let took = begin.elapsed();
        let now = self.snapshots(place);
        let mut new = now.difference(&known);
        let (Some(id), None) = (new.next(), new.next()) else {
            panic!("{known:?} became {now:?}");
        };
        place.committed.insert(id.clone(), files.to_owned());
        (id.clone(), took)
    }

    fn snapshots(&self, place: &Place) -> BTreeSet<String> {
        let said = self.run(place, &["list", "snapshots"]);
        said.lines().map(str::to_owned).collect()
    }

    /// Restores a snapshot and compares every byte.
    fn compare(&self, place: &Place, id: &str, files_of: &Path) {
        let target = self.folder.join("restored");
        let _ = fs::remove_dir_all(&target);
        let to = target.to_str().unwrap();
        self.run(place, &["-q", "restore", id, "--target", to]);
        let inside = target.join(files_of.strip_prefix("/").unwrap());
        let (wanted, found) = (files(files_of), files(&inside));
        let names = |files: &[(PathBuf, u64)], root: &Path| -> Vec<(PathBuf, u64)> {
            let strip =
                |(path, len): &(PathBuf, u64)| (path.strip_prefix(root).unwrap().to_owned(), *len);
            files.iter().map(strip).collect()
        };
        assert_eq!(names(&wanted, files_of), names(&found, &inside), "{id}");
        for ((wanted, _), (found, _)) in wanted.iter().zip(&found) {
            assert!(
                fs::read(wanted).unwrap() == fs::read(found).unwrap(),
                "{id}: {} is restored with other bytes",
                wanted.display()
            );
        }
        fs::remove_dir_all(&target).unwrap();
    }

    /// Everything that was committed is there, and sound.
    fn inspect(&self, place: &Place) {
        self.run(place, &["-q", "check", "--read-data"]);
        let live = self.snapshots(place);
        let committed: BTreeSet<String> = place.committed.keys().cloned().collect();
        assert_eq!(live, committed, "snapshots");
        for (id, files) in &place.committed {
            self.compare(place, id, files);
        }
        if live.len() > 1 {
            let stored = self.run(place, &["--json", "stats", "--mode", "raw-data"]);
            assert!(stored.contains("delta"), "no differences: {stored}");
        }
    }

    fn note(&mut self, what: &'static str, place: &'static str) {
        *self.landed.entry((what, place)).or_default() += 1;
    }

    /// Starts a run and kills it; false where it ended before.
    fn kill(&self, place: &Place, arguments: &[&str], aim: Aim, whole: Duration) -> bool {
        let (packs, entries) = (place.packs(), place.entries());
        let mut command = self.command(place, arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let begin = Instant::now();
        let mut child = command.spawn().unwrap();
        let is_time = || match aim {
            Aim::Time(share) => begin.elapsed() >= whole * u32::try_from(share).unwrap() / 1000,
            Aim::Packs(more, _) => place.packs() >= packs + more,
            Aim::Entry(_) => place.entries() > entries,
        };
        while !is_time() {
            if has_ended(&mut child) {
                return false;
            }
            assert!(begin.elapsed() < PATIENCE, "{arguments:?} hangs");
            thread::yield_now();
        }
        if let Aim::Packs(_, micros) | Aim::Entry(micros) = aim {
            let then = Instant::now();
            while then.elapsed() < Duration::from_micros(micros) {
                std::hint::spin_loop();
            }
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        status.code().is_none()
    }

    fn kill_backups(&mut self, kills: u64) {
        let mut place = None;
        let mut whole = Duration::from_secs(1);
        let mut kill = 0;
        let mut runs = 0;
        while kill < kills {
            if runs % KILLS_A_REPOSITORY == 0 {
                place = None;
                self.clear();
            }
            runs += 1;
            let place = match &mut place {
                Some(place) => place,
                none => {
                    let mut fresh = self.place("backups");
                    let files = self.generation(None, self.mib);
                    whole = self.save(&mut fresh, &files).1;
                    none.insert(fresh)
                }
            };
            let large = kill % LARGE_EVERY == LARGE_EVERY - 1;
            kill += u64::from(self.kill_backup(place, whole, large));
            println!("{kill} backups killed: {:?}", self.landed);
        }
    }

    /// True where the kill came before the end.
    fn kill_backup(&mut self, place: &mut Place, whole: Duration, large: bool) -> bool {
        let last = place.committed.values().max().cloned();
        let mib = if large { LARGE } else { self.mib };
        let files = self.generation(last.as_deref(), mib);
        let aim = match self.dice.below(8) {
            _ if large => Aim::Entry(self.dice.below(20_000)),
            0..4 => Aim::Time(self.dice.below(1000)),
            4 | 5 => {
                let packs = usize::try_from(1 + self.dice.below(self.mib / 5)).unwrap();
                Aim::Packs(packs, self.dice.below(3000))
            }
            _ => Aim::Entry(self.dice.below(1500)),
        };
        let (packs, entries) = (place.packs(), place.entries());
        let arguments = ["-q", "backup", files.to_str().unwrap()];
        let killed = self.kill(place, &arguments, aim, whole);
        let (more_packs, more_entries) = (place.packs() > packs, place.entries() > entries);
        let live = self.snapshots(place);
        let new: Vec<_> = live
            .into_iter()
            .filter(|id| !place.committed.contains_key(id))
            .collect();
        assert!(new.len() <= 1, "{new:?}");
        let landed = match (killed, new.first()) {
            (false, None) => panic!("a backup ended without a snapshot"),
            (false, Some(_)) => "too late",
            (true, Some(_)) => "after the commit",
            (true, None) if more_entries => "after a checkpoint",
            (true, None) if more_packs => "after the first pack",
            (true, None) => "before the first pack",
        };
        self.note("backup", landed);
        for id in new {
            place.committed.insert(id, files.clone());
        }
        self.inspect(place);
        let next = self.save(place, &files).0;
        self.compare(place, &next, &files);
        self.run(place, &["-q", "check"]);
        self.thin_out(place);
        killed
    }

    /// Forgets all but the newest snapshots, so that a round does not take ever longer.
    fn thin_out(&self, place: &mut Place) {
        let newest = place.committed.values().max().cloned();
        let old: Vec<String> = place
            .committed
            .iter()
            .filter(|(_, files)| Some(*files) != newest.as_ref())
            .map(|(id, _)| id.clone())
            .collect();
        if old.len() < 3 {
            return;
        }
        for id in old {
            self.run(place, &["-q", "forget", &id]);
            place.committed.remove(&id);
        }
        self.run(place, &["-q", "prune"]);
    }

    fn kill_prunes(&mut self, kills: u64) {
        self.clear();
        let mut base = self.place("base");
        let mut files: Option<PathBuf> = None;
        let mut ids = Vec::new();
        for _ in 0..3 {
            let next = self.generation(files.as_deref(), self.mib);
            ids.push(self.save(&mut base, &next).0);
            files = Some(next);
        }
        let [first, second, _] = ids.as_slice() else {
            panic!("{ids:?}");
        };
        for id in [first, second] {
            self.run(&base, &["-q", "forget", id]);
            base.committed.remove(id);
        }
        let timed = self.copy(&base, "timed");
        let begin = Instant::now();
        self.run(&timed, &["-q", "prune"]);
        let whole = begin.elapsed();
        fs::remove_dir_all(&timed.folder).unwrap();
        let late = self.generation(files.as_deref(), 8);
        let mut kill = 0;
        while kill < kills {
            let mut place = self.copy(&base, "prunes");
            kill += u64::from(self.kill_prune(&mut place, whole, &late));
            println!("{kill} prunes killed: {:?}", self.landed);
        }
    }

    /// True where the kill came before the end.
    fn kill_prune(&mut self, place: &mut Place, whole: Duration, late: &Path) -> bool {
        let aim = match self.dice.below(4) {
            0 | 1 => Aim::Time(self.dice.below(1000)),
            _ => Aim::Entry(self.dice.below(6000)),
        };
        let (packs, entries) = (place.packs(), place.entries());
        let killed = self.kill(place, &["-q", "prune"], aim, whole);
        let landed = match (killed, place.entries() - entries) {
            (false, _) => "too late",
            (true, 0) => "before the sweep",
            (true, 1) if place.packs() == packs => "after the sweep",
            (true, 1) => "among the deletions",
            (true, _) => "after the end of the sweep",
        };
        self.note("prune", landed);
        self.inspect(place);
        // A killed prune is finished by the next one; a backup does not have to wait for that.
        if self.dice.below(2) == 0 {
            self.save(place, late);
            self.run(place, &["-q", "prune"]);
        } else {
            self.run(place, &["-q", "prune"]);
            self.save(place, late);
        }
        let said = self.run(place, &["list", "packs"]);
        assert_eq!(said.lines().count(), place.packs(), "packs nobody knows");
        self.inspect(place);
        killed
    }

    /// A copy of a repository and of what its client keeps.
    fn copy(&self, from: &Place, name: &str) -> Place {
        let folder = self.folder.join(name);
        let _ = fs::remove_dir_all(&folder);
        copy_folder(&from.folder, &folder);
        Place {
            folder,
            committed: from.committed.clone(),
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn has_ended(child: &mut Child) -> bool {
    child.try_wait().unwrap().is_some()
}

/// All files below a folder, with their lengths, sorted. What goes meanwhile is no matter.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => open.push(entry.path()),
                Ok(about) => found.push((entry.path(), about.len())),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// How many objects there are below a folder: names of temporary files are no hex.
fn count(folder: &Path) -> usize {
    let is_object = |(path, _): &(PathBuf, u64)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    files(folder).iter().filter(|file| is_object(file)).count()
}
