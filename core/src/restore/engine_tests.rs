//! Whole rounds: back up a directory into a repository in memory, restore it, compare.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use strongroom_repo::{
    backend::{MemBackend, ObjectKind},
    crypto::{Identity, KdfParams},
    env::{Timestamp, testing::seeded},
    format::{config::ConfigBody, slot::Anchor},
    id::RepoId,
    keys::OpenedSlot,
    repository::{CreateOptions, OpenOptions, Repository, Secret},
    writer::WriterOptions,
};
use tempfile::TempDir;

use super::{Overwrite, RestoreOptions, RestoreReport, restore};
use crate::{
    archive::{About, BackupOptions, BackupReport, backup},
    error::{Error, Result},
    observer::{Done, Observer, Recorder},
    snapshots::{SnapshotFilter, find, load_all},
    source::{filter::FilterRules, meta::Accounts},
    view::View,
};

fn create(store: &MemBackend) -> Repository {
    let env = seeded(1);
    let identity = Identity::generate(&env).unwrap();
    let anchor = Anchor {
        repo: RepoId::new([0; 16]),
        owner: identity.public().sign,
    };
    let secret = Secret::Opened(Box::new(OpenedSlot { identity, anchor }));
    let options = CreateOptions {
        config: ConfigBody {
            created: Timestamp::default(),
            program: "test".to_owned(),
            chunker: 1,
            chunk_min: 64 << 10,
            chunk_avg: 256 << 10,
            chunk_max: 1 << 20,
            pack_target: 4 << 20,
        },
        label: "a@b".to_owned(),
        kdf: KdfParams::DEFAULT,
        open: OpenOptions::default(),
    };
    Repository::create(Arc::new(store.clone()), env, secret, options).unwrap()
}

fn back_up(repo: &Repository, from: &Path) -> BackupReport {
    let options = BackupOptions {
        targets: vec![b".".to_vec()],
        base: from.to_path_buf(),
        filter: FilterRules::default(),
        parent: None,
        about: About::default(),
        writer: WriterOptions {
            pack_target: 4 << 20,
            ..WriterOptions::default()
        },
        workers: 2,
        accounts: Accounts::default(),
        with_atime: false,
        ignore_ctime: false,
        skip_if_unchanged: false,
        count_first: false,
    };
    let heard = Recorder::default();
    let report = backup(repo, &options, &heard, &AtomicBool::new(false)).unwrap();
    assert_eq!(heard.problems(), Vec::<String>::new());
    report
}

fn options(to: &Path) -> RestoreOptions {
    RestoreOptions {
        workers: 3,
        ..RestoreOptions::new(to.to_path_buf())
    }
}

fn run(
    repo: &Repository,
    report: &BackupReport,
    options: &RestoreOptions,
) -> (RestoreReport, Vec<String>) {
    let heard = Recorder::default();
    let done = restore(repo, report.tree, options, &heard, &AtomicBool::new(false)).unwrap();
    let problems = heard.problems();
    assert_eq!(done.problems, problems.len() as u64);
    (done, problems)
}

/// What there is of a file, as plain as can be told.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    content: blake3::Hash,
    size: u64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    links: u64,
}

fn listing(root: &Path) -> BTreeMap<PathBuf, Plain> {
    let mut found = BTreeMap::new();
    let mut stack = vec![root.to_path_buf()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let kind = stat.file_type();
            let (kind, content) = if kind.is_dir() {
                stack.push(path.clone());
                ("dir", Vec::new())
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                ("symlink", target.as_os_str().as_bytes().to_vec())
            } else if kind.is_fifo() {
                ("fifo", Vec::new())
            } else {
                ("file", fs::read(&path).unwrap())
            };
            let mut xattrs: Vec<_> = xattr::list(&path)
                .unwrap()
                .map(|name| {
                    let value = xattr::get(&path, &name).unwrap().unwrap_or_default();
                    (name.as_bytes().to_vec(), value)
                })
                .collect();
            xattrs.sort();
            let plain = Plain {
                kind: kind.to_owned(),
                mode: stat.mode(),
                owner: (stat.uid(), stat.gid()),
                mtime: (stat.mtime(), stat.mtime_nsec()),
                content: blake3::hash(&content),
                size: if kind == "dir" { 0 } else { stat.len() },
                links: if kind == "dir" { 0 } else { stat.nlink() },
                xattrs,
            };
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), plain);
        }
    }
    found
}

fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (listing(a), listing(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (path, plain) in &a {
        assert_eq!(Some(plain), b.get(path), "{}", path.display());
    }
}

/// A generator that a seed decides.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new()
            .update(&self.below(1 << 30).to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }
}

fn set_mtime(path: &Path, draw: &mut Draw) {
    let time = std::time::UNIX_EPOCH
        + std::time::Duration::new(
            draw.below(1 << 30),
            u32::try_from(draw.below(999_999_999)).unwrap(),
        );
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// A random tree; a few files are larger than a chunk and one is divided.
fn fill(root: &Path, seed: u64, entries: u64) {
    let mut draw = Draw(seed);
    let mut dirs = vec![root.to_path_buf()];
    let mut files: Vec<PathBuf> = Vec::new();
    for n in 0..entries {
        let dir = dirs[usize::try_from(draw.below(dirs.len() as u64)).unwrap()].clone();
        let path = dir.join(OsStr::from_bytes(format!("{n}-\u{e9}").as_bytes()));
        match draw.below(20) {
            0..3 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path);
            }
            3 => symlink(format!("../{n}"), &path).unwrap(),
            4 if !files.is_empty() => {
                let first = &files[usize::try_from(draw.below(files.len() as u64)).unwrap()];
                fs::hard_link(first, &path).unwrap();
            }
            5 => drop(fs::write(&path, b"")),
            kind => {
                let len = match kind {
                    6 => 900_000 + draw.below(2_000_000),
                    7..10 => draw.below(100_000),
                    _ => draw.below(3000),
                };
                fs::write(&path, draw.bytes(usize::try_from(len).unwrap())).unwrap();
                let mode = 0o400 | u32::try_from(draw.below(0o400)).unwrap();
                if draw.below(8) == 0 {
                    let value = draw.bytes(20);
                    xattr::set(&path, "user.note", &value).unwrap();
                }
                set_mtime(&path, &mut draw);
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                files.push(path);
            }
        }
    }
    for dir in dirs.iter().skip(1) {
        set_mtime(dir, &mut draw);
    }
}

#[test]
fn a_random_tree_comes_back_as_it_was() {
    let seed = 20_261_121;
    println!("seed {seed}");
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fill(from.path(), seed, 1500);
    fs::write(from.path().join("big"), Draw(seed).bytes(40 << 20)).unwrap();
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    let verify = RestoreOptions {
        verify: true,
        ..options(to.path())
    };
    let (done, problems) = run(&repo, &report, &verify);
    assert_eq!(problems, Vec::<String>::new());
    assert_same(from.path(), to.path());
    assert_eq!(done.files_restored, done.total_files);
    assert_eq!(done.bytes_restored, done.total_bytes);
    assert!(done.files_verified > 1000, "{done:?}");
}
