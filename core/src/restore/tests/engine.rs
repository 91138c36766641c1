//! Whole rounds: back up a directory into a repository in memory, restore it, compare.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use strongroom_repo::{
    backend::{MemBackend, ObjectKind},
    crypto::BlobKind,
    id::BlobId,
    repository::Repository,
};
use tempfile::TempDir;

use super::super::{Overwrite, RestoreOptions, RestoreReport, apply::Attribute, restore};
use crate::{
    archive::BackupReport,
    error::Error,
    fixture::{Expecting, back_up, create, dir_entry, file_entry, leaf, store_pages},
    format::extents::Extent,
    node::{LinkId, Xattr},
    observer::{Done, Observer, Recorder},
};

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

/// A repository with a snapshot of one file.
fn one_file() -> (Repository, BackupReport) {
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("file"), "x").unwrap();
    let repo = create(&MemBackend::new());
    let saved = back_up(&repo, from.path());
    (repo, saved)
}

#[test]
fn the_folder_that_is_filled_keeps_what_guards_it() {
    let (repo, saved) = one_file();
    let to = TempDir::new().unwrap();
    fs::set_permissions(to.path(), fs::Permissions::from_mode(0o550)).unwrap();
    // Who is not root may not fill it.
    let root = rustix::process::geteuid().is_root();
    let (_, problems) = run(&repo, &saved, &options(to.path()));
    assert_eq!(problems.is_empty(), root, "{problems:?}");
    let mode = to.path().metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o550);
    fs::set_permissions(to.path(), fs::Permissions::from_mode(0o750)).unwrap();
}

#[test]
fn a_mount_point_that_is_immutable_is_not_filled_and_stays_so() {
    let (repo, saved) = one_file();
    let to = TempDir::new().unwrap();
    let folder = fs::File::open(to.path()).unwrap();
    let guarded = ioctl_getflags(&folder).unwrap() | IFlags::IMMUTABLE;
    assert!(
        ioctl_setflags(&folder, guarded).is_ok(),
        "this test needs root and a file system with flags"
    );
    let (done, problems) = run(&repo, &saved, &options(to.path()));
    assert_eq!(
        (done.files_restored, problems.len()),
        (0, 1),
        "{problems:?}"
    );
    assert_eq!(ioctl_getflags(&folder).unwrap(), guarded);
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    ioctl_setflags(&folder, guarded.difference(IFlags::IMMUTABLE)).unwrap();
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

#[test]
fn the_same_tree_again_is_joined_and_left_where_unchanged() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fill(from.path(), 7, 200);
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    let (first, _) = run(&repo, &report, &options(to.path()));
    for overwrite in [Overwrite::IfChanged, Overwrite::Always] {
        let again = RestoreOptions {
            overwrite,
            ..options(to.path())
        };
        let (done, problems) = run(&repo, &report, &again);
        assert_eq!(problems, Vec::<String>::new());
        assert_same(from.path(), to.path());
        assert_eq!(done.files_restored + done.files_skipped, first.total_files);
        assert_eq!(done.files_skipped > 0, overwrite == Overwrite::IfChanged);
    }
}

#[test]
fn each_overwrite_mode_replaces_what_it_says() {
    let from = TempDir::new().unwrap();
    let at = |secs| std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
    for name in ["same", "older", "newer"] {
        let path = from.path().join(name);
        fs::write(&path, "stored").unwrap();
        fs::File::open(&path)
            .unwrap()
            .set_modified(at(1000))
            .unwrap();
    }
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    let cases = [
        (Overwrite::Always, ["stored", "stored", "stored"]),
        (Overwrite::IfChanged, ["local.", "stored", "stored"]),
        (Overwrite::IfNewer, ["local.", "stored", "local."]),
        (Overwrite::Never, ["local.", "local.", "local."]),
    ];
    for (overwrite, expected) in cases {
        let to = TempDir::new().unwrap();
        for (name, secs) in [("same", 1000), ("older", 999), ("newer", 1001)] {
            let path = to.path().join(name);
            fs::write(&path, "local.").unwrap();
            fs::File::open(&path)
                .unwrap()
                .set_modified(at(secs))
                .unwrap();
        }
        let how = RestoreOptions {
            overwrite,
            ..options(to.path())
        };
        let dry = RestoreOptions {
            dry_run: true,
            ..how.clone()
        };
        let (told, _) = run(&repo, &report, &dry);
        assert_eq!(fs::read(to.path().join("older")).unwrap(), b"local.");
        let (done, problems) = run(&repo, &report, &how);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            told, done,
            "{overwrite:?}: a dry run says what would be done"
        );
        let found = ["same", "older", "newer"]
            .map(|name| fs::read_to_string(to.path().join(name)).unwrap());
        assert_eq!(found, expected, "{overwrite:?}");
    }
}

#[test]
fn nothing_comes_of_a_dry_run() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fill(from.path(), 3, 100);
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    let dry = RestoreOptions {
        dry_run: true,
        verify: true,
        ..options(&to.path().join("new"))
    };
    let (done, _) = run(&repo, &report, &dry);
    assert!(done.files_restored > 50);
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}

#[test]
fn includes_and_excludes_choose_and_parents_come_along() {
    let from = TempDir::new().unwrap();
    for path in ["a/b/x.txt", "a/b/y.dat", "a/c/z.txt", "d/X.TXT", "e/f/g"] {
        let path = from.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    fs::set_permissions(from.path().join("a"), fs::Permissions::from_mode(0o710)).unwrap();
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    let list = |patterns: &[&str]| patterns.iter().map(|p| p.as_bytes().to_vec()).collect();
    let restored = |how: RestoreOptions| {
        let to = TempDir::new().unwrap();
        let how = RestoreOptions {
            target: to.path().to_path_buf(),
            verify: true,
            ..how
        };
        let (_, problems) = run(&repo, &report, &how);
        assert_eq!(problems, Vec::<String>::new());
        let found = listing(to.path());
        if let Some(a) = found.get(Path::new("a")) {
            assert_eq!(a.mode & 0o7777, 0o710, "parents get their metadata");
        }
        found
            .keys()
            .map(|path| path.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let none = options(Path::new(""));
    let include = RestoreOptions {
        include: list(&["*.txt"]),
        ..none.clone()
    };
    assert_eq!(
        restored(include),
        ["a", "a/b", "a/b/x.txt", "a/c", "a/c/z.txt"]
    );
    let folded = RestoreOptions {
        iinclude: list(&["*.txt"]),
        exclude: list(&["/a/c"]),
        ..none.clone()
    };
    assert_eq!(restored(folded), ["a", "a/b", "a/b/x.txt", "d", "d/X.TXT"]);
    let anchored = RestoreOptions {
        include: list(&["/e/f"]),
        ..none.clone()
    };
    assert_eq!(restored(anchored), ["e", "e/f", "e/f/g"]);
    let exclude = RestoreOptions {
        exclude: list(&["*.txt", "/e"]),
        iexclude: list(&["x.txt"]),
        ..none
    };
    assert_eq!(restored(exclude), ["a", "a/b", "a/b/y.dat", "a/c", "d"]);
}

#[test]
fn holes_stay_holes_and_zeros_become_some_on_request() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mib = 1 << 20;
    let file = fs::File::create(from.path().join("sparse")).unwrap();
    file.set_len(40 * mib).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 20 * mib).unwrap();
    fs::write(from.path().join("zeros"), vec![0; 24 << 20]).unwrap();
    fs::File::create(from.path().join("hole"))
        .unwrap()
        .set_len(mib)
        .unwrap();
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    for sparse in [false, true] {
        let how = RestoreOptions {
            sparse,
            verify: true,
            ..options(to.path())
        };
        let (done, problems) = run(&repo, &report, &how);
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(done.files_verified, 3);
        assert_same(from.path(), to.path());
        let allocated = |name: &str| to.path().join(name).metadata().unwrap().blocks() * 512;
        assert!(allocated("sparse") < 2 * mib, "{}", allocated("sparse"));
        assert_eq!(allocated("zeros") < mib, sparse, "{}", allocated("zeros"));
    }
}

#[test]
fn a_damaged_pack_costs_the_files_in_it_and_no_others() {
    let from = TempDir::new().unwrap();
    let mut draw = Draw(5);
    for n in 0..40 {
        fs::write(from.path().join(format!("{n}")), draw.bytes(700_000)).unwrap();
    }
    fs::hard_link(from.path().join("7"), from.path().join("7-linked")).unwrap();
    let store = MemBackend::new();
    let repo = create(&store);
    let report = back_up(&repo, from.path());
    let whole = store.objects();
    let packs: Vec<_> = whole
        .iter()
        .filter(|(name, bytes)| name.kind() == ObjectKind::Pack && bytes.len() > 1 << 20)
        .collect();
    let (name, bytes) = packs.first().unwrap();
    let mut damaged = bytes.to_vec();
    for at in (100_000..bytes.len()).step_by(1 << 20) {
        damaged[at] ^= 1;
    }
    store.replace(**name, damaged);
    let to = TempDir::new().unwrap();
    fs::write(to.path().join("0"), "what was there before").unwrap();
    let verify = RestoreOptions {
        verify: true,
        ..options(to.path())
    };
    let (done, problems) = run(&repo, &report, &verify);
    assert!((2..20).contains(&problems.len()), "{problems:?}");
    assert_eq!(
        done.files_restored + problems.len() as u64,
        done.total_files
    );
    assert_eq!(done.files_verified, done.files_restored);
    let (a, b) = (listing(from.path()), listing(to.path()));
    for (path, plain) in &a {
        let shown = format!("/{}", path.display());
        let is_named = problems
            .iter()
            .any(|problem| problem.ends_with(&format!(" {shown}")));
        match b.get(path) {
            Some(found) if *path == Path::new("0") && is_named => {
                assert_eq!(found.content, blake3::hash(b"what was there before"));
            }
            Some(found) => {
                assert_eq!(found.content, plain.content, "{shown}");
                assert!(!is_named, "{shown}");
            }
            None => assert!(
                is_named,
                "{shown} is missing, which was not told: {problems:?}"
            ),
        }
    }
    assert_eq!(
        to.path().read_dir().unwrap().count(),
        b.len(),
        "nothing else is left"
    );
}

/// Cancels after so many files.
struct CancelAfter<'a> {
    left: AtomicU64,
    cancel: &'a AtomicBool,
}

impl Observer for CancelAfter<'_> {
    fn finished(&self, done: &Done<'_>) {
        if !done.is_dir && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_cancelled_restore_leaves_only_whole_files() {
    let from = TempDir::new().unwrap();
    fill(from.path(), 11, 800);
    fs::write(from.path().join("zz-big"), Draw(1).bytes(60 << 20)).unwrap();
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    for count in [1, 20, 300] {
        let to = TempDir::new().unwrap();
        let cancel = AtomicBool::new(false);
        let observer = CancelAfter {
            left: AtomicU64::new(count),
            cancel: &cancel,
        };
        let done = restore(&repo, report.tree, &options(to.path()), &observer, &cancel);
        assert!(matches!(done, Err(Error::Cancelled)), "{done:?}");
        let (a, b) = (listing(from.path()), listing(to.path()));
        assert!(b.len() < a.len());
        for (path, found) in &b {
            let wanted = &a[path];
            assert_eq!((found.size, found.content), (wanted.size, wanted.content));
        }
    }
}

#[test]
fn verifying_finds_a_file_that_changed_behind_the_restore() {
    /// Spoils a file as soon as it has its name.
    struct Spoil(PathBuf);
    impl Observer for Spoil {
        fn finished(&self, done: &Done<'_>) {
            if done.path == b"b" {
                fs::write(self.0.join("b"), "other").unwrap();
            }
        }
    }
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in ["a", "b", "c"] {
        fs::write(from.path().join(name), "right").unwrap();
    }
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    let verify = RestoreOptions {
        verify: true,
        ..options(to.path())
    };
    let observer = Spoil(to.path().to_path_buf());
    let never = AtomicBool::new(false);
    let done = restore(&repo, report.tree, &verify, &observer, &never).unwrap();
    assert_eq!((done.files_verified, done.problems), (2, 1));
}

#[test]
fn what_is_in_the_way_of_the_first_name_does_not_keep_the_others_away() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(from.path().join("a"), "content").unwrap();
    for name in ["b", "c"] {
        fs::hard_link(from.path().join("a"), from.path().join(name)).unwrap();
    }
    fs::create_dir_all(to.path().join("a/full")).unwrap();
    let repo = create(&MemBackend::new());
    let report = back_up(&repo, from.path());
    let (done, problems) = run(&repo, &report, &options(to.path()));
    assert_eq!(problems, ["cannot restore /a"]);
    assert_eq!(done.files_restored, 2);
    let found = listing(to.path());
    assert_eq!(found[Path::new("b")].links, 2);
    assert_eq!(found[Path::new("c")].content, blake3::hash(b"content"));
}

/// Restores a tree, of which nothing but so many expected problems may be told.
fn expect(
    repo: &Repository,
    tree: BlobId,
    options: &RestoreOptions,
    times: usize,
    is_expected: impl Fn(&Error) -> bool + Send + Sync,
) -> RestoreReport {
    let heard = Expecting::new(is_expected);
    let done = restore(repo, tree, options, &heard, &AtomicBool::new(false)).unwrap();
    heard.assert(times);
    done
}

/// Why the file of this name was not restored, if that is what the error says.
fn why<'e>(error: &'e Error, name: &[u8]) -> Option<&'e Error> {
    match error {
        Error::NotRestored { path, source } if path == name => Some(source),
        _ => None,
    }
}

#[test]
fn a_file_whose_content_is_not_what_its_entry_says_is_told_with_the_reason() {
    let repo = create(&MemBackend::new());
    let id = repo.blob_id(BlobKind::Data, b"12345");
    let five = Extent::Data { len: 5, id };
    let root = store_pages(&repo, |store| {
        store(leaf(&[
            file_entry(b"long", 4, vec![five]),
            file_entry(b"piece", 4, vec![Extent::Data { len: 4, id }]),
            file_entry(b"short", 6, vec![five]),
        ]))
    });
    let to = TempDir::new().unwrap();
    expect(&repo, root, &options(to.path()), 3, |error| {
        let wrong_len = |name, wanted, got| {
            matches!(why(error, name), Some(Error::WrongLength { path, size, found })
                if path == name && (*size, *found) == (wanted, got))
        };
        let damaged = matches!(why(error, b"piece"), Some(Error::DamagedBlob { blob, .. })
            if *blob == id);
        damaged || wrong_len(b"long", 4, 5) || wrong_len(b"short", 6, 5)
    });
    assert!(listing(to.path()).is_empty());
}

#[test]
fn a_directory_of_which_a_page_is_damaged_is_told_with_the_reason() {
    let repo = create(&MemBackend::new());
    let page = repo.blob_id(BlobKind::Data, b"12345");
    let root = store_pages(&repo, |store| store(leaf(&[dir_entry(b"d", page)])));
    let to = TempDir::new().unwrap();
    expect(&repo, root, &options(to.path()), 1, |error| {
        let Error::DamagedDir { path, source } = error else {
            return false;
        };
        path == b"d" && matches!(&**source, Error::DamagedBlob { blob, .. } if *blob == page)
    });
    assert_eq!(listing(to.path()).len(), 1);
}

#[test]
fn what_the_verification_finds_is_told_with_the_place() {
    /// Exchanges a byte of the restored file when it is done.
    struct Spoil(PathBuf, AtomicU64);
    impl Observer for Spoil {
        fn finished(&self, done: &Done<'_>) {
            if done.path == b"a" {
                let file = fs::OpenOptions::new().write(true).open(&self.0).unwrap();
                file.write_all_at(b"X", 3 << 20).unwrap();
            }
        }
        fn problem(&self, error: &Error) {
            assert!(
                matches!(error, Error::Differs { path, offset }
                    if path == b"a" && (1 << 20..=3 << 20).contains(offset)),
                "{error:?}"
            );
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(from.path().join("a"), Draw(1).bytes(5 << 20)).unwrap();
    let repo = create(&MemBackend::new());
    let tree = back_up(&repo, from.path()).tree;
    let verify = RestoreOptions {
        verify: true,
        ..options(to.path())
    };
    let observer = Spoil(to.path().join("a"), AtomicU64::new(0));
    restore(&repo, tree, &verify, &observer, &AtomicBool::new(false)).unwrap();
    assert_eq!(observer.1.load(Ordering::Relaxed), 1);
}

#[test]
fn names_of_a_file_of_which_none_can_be_restored_are_each_told() {
    let repo = create(&MemBackend::new());
    let root = store_pages(&repo, |store| {
        let missing = Extent::Data {
            len: 5,
            id: BlobId::new([3; 32]),
        };
        let entries: Vec<_> = (0..12)
            .map(|n| {
                let name = format!("{n:02}");
                let mut entry = file_entry(name.as_bytes(), 5, vec![missing]);
                entry.node.meta.link = Some(LinkId {
                    device: 0,
                    inode: 7,
                });
                entry
            })
            .collect();
        store(leaf(&entries))
    });
    let to = TempDir::new().unwrap();
    let (tried, given_up) = (AtomicU64::new(0), AtomicU64::new(0));
    expect(&repo, root, &options(to.path()), 12, |error| {
        let counter = match error {
            Error::NotRestored { .. } => &tried,
            Error::NoLinkSource { .. } => &given_up,
            _ => return false,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        true
    });
    let told = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert!(told(&tried) > 0 && told(&given_up) > 0);
    assert!(listing(to.path()).is_empty());
}

#[test]
fn metadata_that_a_file_does_not_take_is_told_and_its_content_is_there() {
    let repo = create(&MemBackend::new());
    let id = repo.blob_id(BlobKind::Data, b"12345");
    let root = store_pages(&repo, |store| {
        let mut entry = file_entry(b"a", 5, vec![Extent::Data { len: 5, id }]);
        entry.node.meta.xattrs = vec![Xattr {
            name: b"nowhere.such".to_vec(),
            value: b"1".to_vec(),
        }];
        store(leaf(&[entry]))
    });
    let to = TempDir::new().unwrap();
    let done = expect(&repo, root, &options(to.path()), 1, |error| {
        matches!(error, Error::Metadata(problem)
            if problem.what == Attribute::Xattr("nowhere.such".into())
                && problem.path == to.path().join("a"))
    });
    assert_eq!(done.files_restored, 1);
    assert_eq!(fs::read(to.path().join("a")).unwrap(), b"12345");
}

fn run_tree(repo: &Repository, tree: BlobId, to: &Path) -> (RestoreReport, Vec<String>) {
    let heard = Recorder::default();
    let never = AtomicBool::new(false);
    let done = restore(repo, tree, &options(to), &heard, &never).unwrap();
    (done, heard.problems())
}

#[test]
fn a_hostile_tree_is_refused_where_it_is_hostile() {
    let repo = create(&MemBackend::new());
    let id = repo.blob_id(BlobKind::Data, b"12345");
    let five = Extent::Data { len: 5, id };
    let root = store_pages(&repo, |store| {
        let mut entries = vec![
            file_entry(b"good", 5, vec![five]),
            file_entry(b"long", 4, vec![five]),
            file_entry(b"short", 6, vec![five]),
            file_entry(b"wrap", 5, vec![five, Extent::Hole { len: u64::MAX }]),
            file_entry(b"x-len", 4, vec![Extent::Data { len: 4, id }]),
        ];
        for name in [b"..".as_slice(), b".", b"", b"a/b", b"../../etc"] {
            let tree = store(leaf(&[file_entry(name, 5, vec![five])]));
            let name = format!("z{}", name.len());
            entries.push(dir_entry(name.as_bytes(), tree));
        }
        let missing = BlobId::new([3; 32]);
        entries.push(dir_entry(b"zz", missing));
        entries.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        store(leaf(&entries))
    });
    let scratch = TempDir::new().unwrap();
    let to = scratch.path().join("a/b");
    let (done, problems) = run_tree(&repo, root, &to);
    assert_eq!(done.files_restored, 1);
    let mut expected: Vec<_> = ["long", "short", "wrap", "x-len"]
        .map(|name| format!("cannot restore /{name}"))
        .into();
    for name in ["z0", "z1", "z2", "z3", "z9", "zz"] {
        expected.push(format!(
            "cannot read all of the directory /{name} of the snapshot"
        ));
    }
    let mut problems = problems;
    problems.sort();
    expected.sort();
    assert_eq!(problems, expected);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    assert_eq!(fs::read(to.join("good")).unwrap(), b"12345");
    assert_eq!(listing(&to).len(), 7);
}

#[test]
fn a_tree_deeper_than_any_path_comes_back() {
    let repo = create(&MemBackend::new());
    let depth = 1000;
    let root = store_pages(&repo, |store| {
        let mut tree = store(leaf(&[file_entry(b"bottom", 0, vec![])]));
        for _ in 0..depth {
            tree = store(leaf(&[dir_entry(b"dd", tree)]));
        }
        tree
    });
    let to = TempDir::new().unwrap();
    let (done, problems) = run_tree(&repo, root, to.path());
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!((done.dirs, done.files_restored), (depth, 1));
    let target = super::super::target::Target::open(
        to.path(),
        false,
        super::super::target::TargetOptions::new(1),
    )
    .unwrap();
    super::remove_chain(target.root());
}
