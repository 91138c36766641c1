//! Backups of databases: what is left out, what is taken over from the parent, what is told.

use std::{
    cell::Cell,
    fs::{self, File, FileTimes},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use rusqlite::Connection;
use strongroom_repo::{backend::MemBackend, repository::Repository};

use crate::{
    archive::{About, BackupOptions, BackupReport, backup},
    error::Error,
    fixture::{Expecting, create, options},
    format::snapshot::Snapshot,
    node::Copied,
    observer::{Recorder, Silent},
    restore::{Overwrite, RestoreOptions, restore},
    source::sqlite::DatabaseOptions,
    view::View,
};

/// Files of databases as programs that died have left them.
struct Source {
    dir: tempfile::TempDir,
    /// Where the database is open.
    live: tempfile::TempDir,
    open: Connection,
    /// Seconds: when what is left next was changed last.
    clock: Cell<u64>,
}

impl Source {
    /// With a database `a.db` of ten rows, in WAL mode, carried over.
    fn new() -> Self {
        let live = tempfile::tempdir().unwrap();
        let open = Connection::open(live.path().join("a.db")).unwrap();
        open.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE t (n INTEGER PRIMARY KEY, words TEXT);",
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let clock = Cell::new(1_000_000);
        let source = Self {
            dir,
            live,
            open,
            clock,
        };
        source.add(10);
        source.open.execute_batch("PRAGMA wal_checkpoint").unwrap();
        source.leave(&["a.db"]);
        source
    }

    fn add(&self, rows: u32) {
        for _ in 0..rows {
            let row = "INSERT INTO t (words) VALUES (hex(randomblob(50)))";
            self.open.execute(row, []).unwrap();
        }
    }

    /// Copies files to where they are saved; they changed long ago.
    fn leave(&self, names: &[&str]) {
        for name in names {
            fs::copy(self.live.path().join(name), self.path(name)).unwrap();
            self.clock.set(self.clock.get() + 1);
            self.age(name, self.clock.get());
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn age(&self, name: &str, secs: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}

fn copying(from: &Path, scratch: &Path) -> BackupOptions {
    BackupOptions {
        databases: DatabaseOptions {
            all: true,
            scratch: scratch.to_path_buf(),
            ..DatabaseOptions::default()
        },
        ..options(from, About::default())
    }
}

/// A backup after `parent`, with what it told of.
fn save(
    repo: &Repository,
    options: BackupOptions,
    parent: Option<&BackupReport>,
) -> (BackupReport, Vec<String>) {
    let (report, heard) = save_and_hear(repo, options, parent);
    (report, heard.problems())
}

/// A backup after `parent`, with the files that it read.
fn save_and_see_what_is_read(
    repo: &Repository,
    options: BackupOptions,
    parent: &BackupReport,
) -> (BackupReport, Vec<String>) {
    let (report, heard) = save_and_hear(repo, options, Some(parent));
    let mut started: Vec<_> = heard
        .started()
        .into_iter()
        .map(|path| String::from_utf8(path).unwrap())
        .collect();
    started.sort();
    (report, started)
}

fn save_and_hear(
    repo: &Repository,
    mut options: BackupOptions,
    parent: Option<&BackupReport>,
) -> (BackupReport, Recorder) {
    options.parent = parent.map(|parent| {
        let id = parent.snapshot.unwrap();
        let record = repo.load_snapshot(id).unwrap();
        (id, Snapshot::decode(&record).unwrap())
    });
    let heard = Recorder::default();
    let report = backup(repo, &options, &heard, &AtomicBool::new(false)).unwrap();
    (report, heard)
}

fn copied(repo: &Repository, report: &BackupReport, path: &[u8]) -> Option<Copied> {
    let record = repo.load_snapshot(report.snapshot.unwrap()).unwrap();
    let view = View::open(repo, &Snapshot::decode(&record).unwrap()).unwrap();
    view.lookup_typed(path).unwrap().node.meta.copied
}

/// Restores and counts the rows of `a.db`; the names that there are.
fn restored(repo: &Repository, report: &BackupReport) -> (u32, Vec<String>) {
    let to = tempfile::tempdir().unwrap();
    let target = RestoreOptions::new(to.path().to_path_buf());
    let never = AtomicBool::new(false);
    restore(repo, report.tree, &target, &Silent, &never).unwrap();
    let names = fs::read_dir(to.path()).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let copy = Connection::open(to.path().join("a.db")).unwrap();
    let rows = copy.query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    (rows.unwrap(), names)
}

#[test]
fn what_belongs_to_a_copied_database_is_left_out_and_nothing_else() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    source.add(5);
    source.leave(&["a.db", "a.db-wal", "a.db-shm"]);
    for (name, content) in [
        ("a.db-journal", &b""[..]),
        ("a.db-old", b"kept"),
        ("b-wal", b"kept: of no database"),
        ("c", b"kept: no database"),
        ("c-wal", b"kept: beside no database"),
    ] {
        fs::write(source.path(name), content).unwrap();
    }
    let repo = create(&MemBackend::new());
    let (report, problems) = save(&repo, copying(source.dir.path(), scratch.path()), None);
    assert_eq!(problems, Vec::<String>::new());
    let (rows, names) = restored(&repo, &report);
    assert_eq!(rows, 15);
    assert_eq!(names, ["a.db", "a.db-old", "b-wal", "c", "c-wal"]);
    let copied = copied(&repo, &report, b"/a.db").unwrap();
    let len = |name| fs::metadata(source.path(name)).unwrap().len();
    assert_eq!(copied.size, len("a.db"));
    assert_eq!(copied.wal.unwrap().size, len("a.db-wal"));
}

#[test]
fn a_database_left_out_by_a_pattern_takes_nothing_with_it() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    source.add(5);
    source.leave(&["a.db", "a.db-wal"]);
    let repo = create(&MemBackend::new());
    let mut options = copying(source.dir.path(), scratch.path());
    options.filter.exclude = vec![b"a.db".to_vec()];
    let (report, problems) = save(&repo, options, None);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!((report.summary.total_files, report.excluded), (1, 1));
}

#[test]
fn an_unchanged_database_is_not_read_again_and_a_change_of_its_log_alone_is_noticed() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    let repo = create(&MemBackend::new());
    let save = |parent| {
        let options = copying(source.dir.path(), scratch.path());
        let (report, problems) = save(&repo, options, parent);
        assert_eq!(problems, Vec::<String>::new());
        report
    };
    let counts = |report: &BackupReport| {
        let summary = &report.summary;
        (summary.files_changed, summary.files_unmodified)
    };
    let first = save(None);
    let again = save(Some(&first));
    assert_eq!(counts(&again), (0, 1));
    // A log comes.
    source.add(5);
    source.leave(&["a.db-wal"]);
    let with_log = save(Some(&again));
    assert_eq!(counts(&with_log), (1, 0));
    assert_eq!(restored(&repo, &with_log).0, 15);
    let again = save(Some(&with_log));
    assert_eq!(counts(&again), (0, 1));
    assert_eq!(restored(&repo, &again).0, 15);
    // It changes, and nothing else.
    source.add(5);
    source.leave(&["a.db-wal"]);
    let longer = save(Some(&again));
    assert_eq!(counts(&longer), (1, 0));
    assert_eq!(restored(&repo, &longer).0, 20);
    // It keeps its length.
    source.age("a.db-wal", 2_000_000);
    let touched = save(Some(&longer));
    assert_eq!(counts(&touched), (1, 0));
    assert_eq!(touched.summary.data_blobs, 0);
    // It is thrown away, and with it what was in it.
    fs::remove_file(source.path("a.db-wal")).unwrap();
    let without = save(Some(&touched));
    assert_eq!(counts(&without), (1, 0));
    assert_eq!(restored(&repo, &without).0, 10);
}

/// In the tick of the clock in which a backup reads a file or a log, either may change once more,
/// and have the time and the length that it had.
#[test]
fn what_changed_just_before_it_was_read_is_read_again() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    source.add(5);
    source.leave(&["a.db-wal"]);
    fs::write(source.path("b"), b"no database").unwrap();
    let repo = create(&MemBackend::new());
    let options = || copying(source.dir.path(), scratch.path());
    let (first, _) = save(&repo, options(), None);
    let start = start_of(&repo, &first);
    for (name, read) in [("a.db", "a.db"), ("a.db-wal", "a.db"), ("b", "b")] {
        for all in ["a.db", "a.db-wal", "b"] {
            source.age(all, start - 1000);
        }
        for (age, again) in [(1, true), (3, false)] {
            source.age(name, start - age);
            let (second, _) = save(&repo, options(), Some(&first));
            let (third, started) = save_and_see_what_is_read(&repo, options(), &second);
            let expected: &[&str] = if again { &[read] } else { &[] };
            assert_eq!(started, expected, "{name}, {age} s old");
            assert_eq!(third.tree, second.tree, "{name}");
            assert_eq!(
                third.summary.files_unmodified, 2,
                "{name}: read, and the same"
            );
        }
    }
}

/// Seconds: when the run began that made a snapshot.
fn start_of(repo: &Repository, report: &BackupReport) -> u64 {
    let record = repo.load_snapshot(report.snapshot.unwrap()).unwrap();
    let start = Snapshot::decode(&record).unwrap().summary.start.secs;
    u64::try_from(start).unwrap()
}

#[test]
fn copies_and_plain_files_are_not_taken_for_each_other() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    source.add(5);
    source.leave(&["a.db-wal"]);
    let repo = create(&MemBackend::new());
    let plain = || options(source.dir.path(), About::default());
    let (first, problems) = save(&repo, plain(), None);
    let path = source.path("a.db").into_os_string().into_encoded_bytes();
    assert_eq!(problems, [Error::ActiveWal { path }.to_string()]);
    assert_eq!(first.errors, 0, "a warning");
    let (same, problems) = save(&repo, plain(), Some(&first));
    assert_eq!((same.summary.files_unmodified, problems.len()), (2, 1));
    let copying = copying(source.dir.path(), scratch.path());
    let (copy, problems) = save(&repo, copying, Some(&same));
    assert_eq!((copy.summary.files_changed, problems.len()), (1, 0));
    assert_eq!(copied(&repo, &same, b"/a.db"), None);
    assert!(copied(&repo, &copy, b"/a.db").is_some());
    let (back, _) = save(&repo, plain(), Some(&copy));
    assert_eq!(back.summary.files_unmodified, 0);
    assert_eq!(copied(&repo, &back, b"/a.db"), None);
    assert_eq!(back.tree, first.tree);
}

#[test]
fn a_copy_whose_file_changed_in_its_metadata_alone_stays_a_copy() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    source.add(100);
    source.leave(&["a.db", "a.db-wal"]);
    let repo = create(&MemBackend::new());
    let options = || BackupOptions {
        ignore_ctime: true,
        ..copying(source.dir.path(), scratch.path())
    };
    let (first, _) = save(&repo, options(), None);
    let mode = fs::metadata(source.path("a.db")).unwrap().permissions();
    fs::set_permissions(source.path("a.db"), mode).unwrap();
    let (second, _) = save(&repo, options(), Some(&first));
    assert_eq!(second.summary.data_blobs, 0);
    assert_eq!(restored(&repo, &second).0, 110);
    let before = copied(&repo, &first, b"/a.db");
    assert_eq!(copied(&repo, &second, b"/a.db"), before);
}

#[test]
fn copies_that_are_made_among_the_files_are_not_saved() {
    let source = Source::new();
    let scratch = source.path("scratch");
    // As of a backup that was killed, or is under way.
    fs::create_dir_all(scratch.join("strongroom-1-1")).unwrap();
    fs::copy(source.path("a.db"), scratch.join("strongroom-1-1/copy")).unwrap();
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(scratch.join("strongroom-1-1"), private).unwrap();
    let repo = create(&MemBackend::new());
    let mut options = copying(source.dir.path(), &scratch);
    options.count_first = true;
    let (report, problems) = save(&repo, options, None);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        restored(&repo, &report),
        (10, vec!["a.db".to_owned(), "scratch".to_owned()])
    );
    assert_eq!(report.summary.total_files, 1);
}

#[test]
fn listed_databases_must_be_databases_and_be_there() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    source.add(5);
    source.leave(&["a.db-wal"]);
    fs::write(source.path("b.db"), b"something else").unwrap();
    let repo = create(&MemBackend::new());
    let path = |name: &str| source.path(name).into_os_string().into_encoded_bytes();
    let mut options = copying(source.dir.path(), scratch.path());
    options.databases.all = false;
    options.databases.listed = vec![path("a.db"), path("b.db"), path("c.db")];
    let (report, problems) = save(&repo, options, None);
    assert_eq!(report.errors, 2);
    let told = |words: &str| problems.iter().any(|problem| problem.contains(words));
    assert!(
        told("cannot copy the database") && told("b.db"),
        "{problems:?}"
    );
    let missing = Error::DatabaseNotFound { path: path("c.db") };
    assert!(problems.contains(&missing.to_string()), "{problems:?}");
    assert_eq!(restored(&repo, &report), (15, vec!["a.db".to_owned()]));
}

#[test]
fn a_database_is_not_restored_beside_the_log_of_another_state() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    source.leave(&["a.db"]);
    let repo = create(&MemBackend::new());
    let (report, _) = save(&repo, copying(source.dir.path(), scratch.path()), None);
    let to = tempfile::tempdir().unwrap();
    let target = RestoreOptions::new(to.path().to_path_buf());
    for (name, is_foreign) in [
        ("a.db-wal", true),
        ("a.db-journal", true),
        ("a.db-shm", false),
    ] {
        fs::write(to.path().join(name), b"what another program left").unwrap();
        let log = to.path().join(name);
        let heard = Expecting::new(move |error: &Error| {
            let Error::NotRestored { source, .. } = error else {
                return false;
            };
            matches!(&**source, Error::ForeignLog { path } if *path == log)
        });
        let never = AtomicBool::new(false);
        restore(&repo, report.tree, &target, &heard, &never).unwrap();
        heard.assert(usize::from(is_foreign));
        assert_eq!(to.path().join("a.db").exists(), !is_foreign, "{name}");
        fs::remove_file(to.path().join(name)).unwrap();
    }
}

#[test]
fn a_copy_is_never_taken_for_what_is_there_by_its_size_and_time() {
    let (source, scratch) = (Source::new(), tempfile::tempdir().unwrap());
    source.leave(&["a.db"]);
    let repo = create(&MemBackend::new());
    let options = || copying(source.dir.path(), scratch.path());
    let (report, _) = save(&repo, options(), None);
    let to = tempfile::tempdir().unwrap();
    let target = RestoreOptions {
        overwrite: Overwrite::IfChanged,
        ..RestoreOptions::new(to.path().to_path_buf())
    };
    let there = to.path().join("a.db");
    let never = AtomicBool::new(false);
    restore(&repo, report.tree, &target, &Silent, &never).unwrap();
    let right = fs::read(&there).unwrap();
    let time = fs::metadata(&there).unwrap().modified().unwrap();
    fs::write(&there, vec![7; right.len()]).unwrap();
    let file = File::options().write(true).open(&there).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
    restore(&repo, report.tree, &target, &Silent, &never).unwrap();
    assert!(fs::read(&there).unwrap() == right);
}
