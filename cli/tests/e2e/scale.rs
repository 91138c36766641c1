//! Backups of what is large in one way only: a sparse file of a terabyte, a million files in one
//! folder, a tree two thousand levels deep. Each is saved, restored and compared; after one small
//! change a second backup must add little; and no run may take more memory than any other backup.
//!
//! Memory is the largest resident set that the kernel has seen (`VmHWM`), asked for every few
//! milliseconds until the run has ended.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, OFlags, SeekFrom, mkdirat, openat, seek},
    io::Errno,
};

/// Bytes that lie together in the sparse file.
const PIECE: u64 = 4 << 20;
/// Bytes that a change writes.
const CHANGE: usize = 4096;
/// What each level of the deep tree is called: two thousand of them are no path any more.
const LEVEL: &str = "level";
const BOTTOM: &str = "bottom";
/// What a restored file may take of the disk beyond what the saved one takes.
const ROUNDING: u64 = 1 << 20;

/// What is saved.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tree {
    /// A file so long, with so many bytes of data in scattered places.
    Sparse { len: u64, data: u64 },
    /// So many empty files in one folder.
    Wide(u64),
    /// A file so many folders down.
    Deep(u64),
}

/// What must not be exceeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Memory of a run, in KiB.
    pub(crate) memory: u64,
    /// Bytes that a backup after a small change may add.
    pub(crate) added: u64,
}

/// What came of one run of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    what: &'static str,
    took: Duration,
    memory: u64,
    added: u64,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, seconds) = (self.what, self.took.as_secs_f64());
        let (memory, added) = (self.memory >> 10, self.added);
        write!(
            f,
            "{what}: {seconds:.1} s, {memory} MiB, {added} bytes added"
        )
    }
}

/// Saves, restores, compares, changes and saves again, in `folder`, which is emptied first; tells
/// of every run.
pub(crate) fn go(
    program: &Path,
    folder: &Path,
    tree: Tree,
    limits: Limits,
    tell: &mut dyn FnMut(Run),
) -> Result<(), String> {
    let place = Place::new(program, folder)?;
    place.run("init", &["init"])?;
    let source = place.folder.join("source");
    told(tree.make(&source), &source)?;
    let (from, to) = (utf8(&source)?, place.folder.join("restored"));
    let mut step = |what, arguments: &[&str]| {
        let run = place.run(what, arguments)?;
        tell(run);
        if run.memory > limits.memory {
            let (memory, most) = (run.memory, limits.memory);
            return Err(format!(
                "{what} took {memory} KiB of memory, at most {most}"
            ));
        }
        Ok(run.added)
    };
    step("backup", &["backup", from])?;
    step("restore", &["restore", "latest", "--target", utf8(&to)?])?;
    let inside = source
        .strip_prefix("/")
        .map_err(|error| error.to_string())?;
    tree.compare(&source, &to.join(inside))?;
    remove(&to)?;
    told(tree.change(&source), &source)?;
    let added = step("backup after a change", &["backup", from])?;
    if added > limits.added {
        let most = limits.added;
        return Err(format!(
            "a small change added {added} bytes, at most {most}"
        ));
    }
    remove(&place.folder)
}

impl Tree {
    pub(crate) fn make(self, source: &Path) -> Result<(), Errno> {
        fs::create_dir(source).map_err(errno)?;
        match self {
            Self::Sparse { len, data } => {
                let file = File::create(source.join("sparse")).map_err(errno)?;
                file.set_len(len).map_err(errno)?;
                let pieces = (data / PIECE).max(1);
                for piece in 0..pieces {
                    let at = place_of(piece, pieces, len);
                    file.write_all_at(&noise(piece, PIECE), at).map_err(errno)?;
                }
                file.sync_all().map_err(errno)
            }
            Self::Wide(files) => {
                let dir = open_dir(CWD, source)?;
                (0..files).try_for_each(|file| create(&dir, &format!("file-{file:08}"), b""))
            }
            Self::Deep(levels) => {
                let mut dir = open_dir(CWD, source)?;
                for _ in 0..levels {
                    mkdirat(&dir, LEVEL, Mode::RWXU)?;
                    dir = open_dir(&dir, Path::new(LEVEL))?;
                }
                create(&dir, BOTTOM, b"here it ends")
            }
        }
    }

    pub(crate) fn change(self, source: &Path) -> Result<(), Errno> {
        match self {
            Self::Sparse { len, data } => {
                let file = OpenOptions::new().write(true).open(source.join("sparse"));
                let pieces = (data / PIECE).max(1);
                let at = place_of(pieces / 2, pieces, len) + PIECE / 2;
                let change = noise(u64::MAX, CHANGE as u64);
                file.and_then(|file| file.write_all_at(&change, at))
                    .map_err(errno)
            }
            Self::Wide(files) => {
                let dir = open_dir(CWD, source)?;
                create(&dir, &format!("file-{:08}-more", files / 2), b"")
            }
            Self::Deep(_) => create(&descend(source)?.1, BOTTOM, b"here it ends, differently"),
        }
    }

    pub(crate) fn compare(self, source: &Path, restored: &Path) -> Result<(), String> {
        match self {
            Self::Sparse { .. } => same_data(&source.join("sparse"), &restored.join("sparse")),
            Self::Wide(_) => {
                let (saved, found) = (names(source)?, names(restored)?);
                let differ = saved.iter().zip(&found).find(|(one, other)| one != other);
                match differ {
                    Some((saved, found)) => Err(format!("{saved:?} came back as {found:?}")),
                    None if saved.len() == found.len() => Ok(()),
                    None => Err(format!("{} of {} came back", found.len(), saved.len())),
                }
            }
            Self::Deep(levels) => {
                let (depth, dir) = told(descend(restored), restored)?;
                let end = openat(&dir, BOTTOM, OFlags::RDONLY, Mode::empty());
                let text = std::io::read_to_string(File::from(told(end, restored)?));
                let text = text.map_err(|error| error.to_string())?;
                if depth == levels && text == "here it ends" {
                    return Ok(());
                }
                Err(format!(
                    "{depth} of {levels} levels came back, and {text:?}"
                ))
            }
        }
    }
}

/// Where a piece of the sparse file lies.
fn place_of(piece: u64, pieces: u64, len: u64) -> u64 {
    // On pages, at no round distance, and the last piece up to the end.
    let last = len.saturating_sub(PIECE);
    match pieces - piece {
        1 => last,
        _ => (last / pieces * piece).next_multiple_of(4096),
    }
}

/// Bytes that follow from a number and do not compress.
fn noise(number: u64, len: u64) -> Vec<u8> {
    let mut state = number;
    let words = (0..len / 8).map(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state ^ number.rotate_left(32);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    words.flat_map(u64::to_le_bytes).collect()
}

fn create(dir: &OwnedFd, name: &str, text: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    File::from(file).write_all(text).map_err(errno)
}

fn open_dir(at: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// How many levels there are below a folder, and the last of them.
fn descend(from: &Path) -> Result<(u64, OwnedFd), Errno> {
    let (mut depth, mut dir) = (0, open_dir(CWD, from)?);
    loop {
        match open_dir(&dir, Path::new(LEVEL)) {
            Ok(next) => (depth, dir) = (depth + 1, next),
            Err(Errno::NOENT) => return Ok((depth, dir)),
            Err(error) => return Err(error),
        }
    }
}

fn names(folder: &Path) -> Result<Vec<OsString>, String> {
    let entries = fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    });
    let mut names: Vec<_> = entries.map_err(|error| format!("{}: {error}", folder.display()))?;
    names.sort();
    Ok(names)
}

/// Both files are as long as each other and hold the same data, and neither has many blocks more.
fn same_data(saved: &Path, restored: &Path) -> Result<(), String> {
    let open = |path: &Path| {
        let file = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        file.map_err(|error| format!("{}: {error}", path.display()))
    };
    let ((wanted, one), (found, other)) = (open(saved)?, open(restored)?);
    if wanted.len() != found.len() {
        return Err(format!("{} bytes became {}", wanted.len(), found.len()));
    }
    let taken = (wanted.blocks() * 512, found.blocks() * 512);
    if taken.1 > taken.0 + ROUNDING {
        return Err(format!("{} bytes on disk became {}", taken.0, taken.1));
    }
    // What is data in either of them is compared; the rest is a hole in both.
    for (data, name) in [(&one, saved), (&other, restored)] {
        for (begin, end) in told(extents(data), name)? {
            let mut at = begin;
            while at < end {
                let len = (end - at).min(PIECE);
                let (mut saved, mut restored) = (vec![0; size(len)], vec![0; size(len)]);
                let read = one
                    .read_exact_at(&mut saved, at)
                    .and_then(|()| other.read_exact_at(&mut restored, at));
                read.map_err(|error| format!("at {at}: {error}"))?;
                if saved != restored {
                    return Err(format!("other bytes came back within {len} at {at}"));
                }
                at += len;
            }
        }
    }
    Ok(())
}

/// Where there is data in a file.
fn extents(file: &File) -> Result<Vec<(u64, u64)>, Errno> {
    let (mut extents, mut at) = (Vec::new(), 0);
    loop {
        let begin = match seek(file, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(Errno::NXIO) => return Ok(extents),
            Err(error) => return Err(error),
        };
        at = seek(file, SeekFrom::Hole(begin))?;
        extents.push((begin, at));
    }
}

/// A repository and what its client keeps of it.
struct Place {
    program: PathBuf,
    folder: PathBuf,
}

impl Place {
    fn new(program: &Path, folder: &Path) -> Result<Self, String> {
        remove(folder)?;
        let made = fs::create_dir_all(folder.join("home"))
            .and_then(|()| Ok((fs::canonicalize(program)?, fs::canonicalize(folder)?)));
        let (program, folder) = made.map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self { program, folder })
    }

    fn run(&self, what: &'static str, arguments: &[&str]) -> Result<Run, String> {
        let repo = self.folder.join("repo");
        let log = self.folder.join("log");
        let output = File::create(&log).map_err(|error| error.to_string())?;
        let before = stored(&repo);
        let begin = Instant::now();
        let child = Command::new(&self.program)
            .env_clear()
            .env("HOME", self.folder.join("home"))
            .env("STRONGROOM_REPOSITORY", &repo)
            .env("STRONGROOM_PASSWORD", "scale")
            .arg("-q")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn();
        let child = child.map_err(|error| format!("{}: {error}", self.program.display()))?;
        let (ended, memory) = watch(child)?;
        if !ended {
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(format!("{what} failed: {said}"));
        }
        Ok(Run {
            what,
            took: begin.elapsed(),
            memory,
            added: stored(&repo).saturating_sub(before),
        })
    }
}

/// Whether a run succeeded, and the most memory that it took, in KiB.
fn watch(mut child: Child) -> Result<(bool, u64), String> {
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        let told = fs::read_to_string(&status).unwrap_or_default();
        let line = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(now.unwrap_or(0));
        match child.try_wait() {
            Ok(None) => thread::park_timeout(Duration::from_millis(3)),
            Ok(Some(_)) if most == 0 => return Err(format!("{status} tells no VmHWM")),
            Ok(Some(status)) => return Ok((status.success(), most)),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Bytes of all files below a folder.
fn stored(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let len = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => stored(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(len).sum()
}

/// Removes a folder, however deep it is: the standard library keeps every level open.
fn remove(folder: &Path) -> Result<(), String> {
    let status = Command::new("rm").arg("-rf").arg(folder).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("{} cannot be removed: {other:?}", folder.display())),
    }
}

fn told<T>(result: Result<T, Errno>, path: &Path) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn utf8(path: &Path) -> Result<&str, String> {
    let name = path.to_str();
    name.ok_or_else(|| format!("{} is not UTF-8", path.display()))
}

fn size(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
