//! Copies of databases that other programs have left in every state.
//!
//! Programs that are at work meanwhile are in the tests of the command line: SQLite's locks belong
//! to processes, so that one process cannot play both parts.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use nix::libc;
use rusqlite::Connection;

use super::{copy::Job, lock, *};
use crate::error::Error;
use crate::source::{Event, Filter, FilterRules, Targets};

/// A database of `rows` rows, in WAL mode or not; the connection is still open.
fn database(path: &Path, mode: &str, rows: u32) -> Connection {
    let open = Connection::open(path).unwrap();
    open.pragma_update(None, "journal_mode", mode).unwrap();
    open.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    open.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, words TEXT)")
        .unwrap();
    add(&open, rows);
    open
}

fn add(open: &Connection, rows: u32) {
    open.execute_batch("BEGIN").unwrap();
    for _ in 0..rows {
        let row = "INSERT INTO t (words) VALUES (hex(randomblob(50)))";
        open.execute(row, []).unwrap();
    }
    open.execute_batch("COMMIT").unwrap();
}

/// The files of a database as a program that dies now leaves them.
fn leave(from: &Path, to: &Path, suffixes: &[&str]) {
    for suffix in suffixes {
        let beside = |path: &Path| format!("{}{suffix}", path.display());
        fs::copy(beside(from), beside(to)).unwrap();
    }
}

fn entry(path: &Path) -> Entry {
    let filter = Filter::compile(&FilterRules::default()).unwrap();
    let (base, name) = (path.parent().unwrap(), path.file_name().unwrap());
    Walk::new(Targets::resolve(base, &[name.as_bytes()]), filter)
        .find_map(|event| match event {
            Event::Entry(entry) => Some(entry),
            _ => None,
        })
        .unwrap()
}

fn options(scratch: &Path) -> DatabaseOptions {
    DatabaseOptions {
        all: true,
        listed: Vec::new(),
        scratch: scratch.to_path_buf(),
        patience: Duration::ZERO,
    }
}

fn open_with(path: &Path, options: &DatabaseOptions) -> Result<SourceFile> {
    let (entry, path) = (entry(path), path.as_os_str().as_bytes());
    let file = SourceFile::open(&entry, path).unwrap();
    copy_if_database(file, &entry, path, options, &|| false)
}

fn failure(path: &Path, options: &DatabaseOptions) -> DatabaseError {
    match open_with(path, options).unwrap_err() {
        Error::Database { source, .. } => source,
        error => panic!("{error:?}"),
    }
}

/// Everything in a folder, by name.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let read = |path: &Path| {
        let mut bytes = Vec::new();
        File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, read(&entry.path()))
        })
        .collect()
}

/// Copies the database `path`, beside which nothing may change; how many rows the copy has.
fn rows_of_copy(path: &Path) -> u32 {
    let (scratch, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let before = contents(path.parent().unwrap());
    let file = open_with(path, &options(scratch.path())).unwrap();
    assert_eq!(contents(path.parent().unwrap()), before);
    assert_eq!(contents(scratch.path()).len(), 0, "nothing is left over");
    assert_eq!(file.copied().unwrap().size, file.stat().size);
    let size = usize::try_from(file.content_stat().size).unwrap();
    let mut bytes = vec![0; size];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), size);
    assert_eq!(file.change().unwrap(), None);
    let copy = out.path().join("copy.db");
    fs::write(&copy, bytes).unwrap();
    let copy = Connection::open(copy).unwrap();
    let verdict: String = copy
        .pragma_query_value(None, "integrity_check", |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    copy.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn a_database_that_nobody_uses_is_copied_byte_by_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    for mode in ["wal", "delete", "persist"] {
        database(&path, mode, 100).close().unwrap();
        assert_eq!(rows_of_copy(&path), 100, "{mode}");
        let names: Vec<_> = contents(dir.path()).into_keys().collect();
        let expected: &[&str] = match mode {
            "persist" => &["a.db", "a.db-journal"],
            _ => &["a.db"],
        };
        assert_eq!(names, expected, "{mode}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn the_log_of_a_dead_program_is_in_the_copy_with_and_without_its_index() {
    let (live, dead) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (live.path().join("a.db"), dead.path().join("a.db"));
    let open = database(&from, "wal", 10);
    open.execute_batch("PRAGMA wal_checkpoint").unwrap();
    add(&open, 1000);
    leave(&from, &to, &["", "-wal", "-shm"]);
    assert_eq!(rows_of_copy(&to), 1010);
    fs::remove_file(dead.path().join("a.db-shm")).unwrap();
    assert_eq!(rows_of_copy(&to), 1010);
    // Cut off in the last transaction, as a power failure leaves it.
    let log = dead.path().join("a.db-wal");
    let log = OpenOptions::new().write(true).open(log).unwrap();
    log.set_len(log.metadata().unwrap().len() - 1).unwrap();
    assert_eq!(rows_of_copy(&to), 10);
}

#[test]
fn a_transaction_that_a_dead_program_left_half_written_is_taken_back_in_the_copy_alone() {
    let (live, dead) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (live.path().join("a.db"), dead.path().join("a.db"));
    let open = database(&from, "delete", 1000);
    open.execute_batch("PRAGMA cache_size = 2; BEGIN; UPDATE t SET words = 'x'; DELETE FROM t")
        .unwrap();
    open.cache_flush().unwrap();
    leave(&from, &to, &["", "-journal"]);
    let half = Connection::open_with_flags(
        format!("file:{}?immutable=1", to.display()),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI,
    );
    let count = half
        .unwrap()
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0));
    assert_ne!(count, Ok(1000), "the file alone is not what it was");
    assert_eq!(rows_of_copy(&to), 1000);
}

#[test]
fn what_is_no_database_is_left_as_it_is_unless_it_should_be_one() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.db");
    fs::write(&path, [7; 5000]).unwrap();
    let mut options = options(scratch.path());
    assert_eq!(open_with(&path, &options).unwrap().copied(), None);
    options.listed = vec![path.as_os_str().as_bytes().to_vec()];
    let error = failure(&path, &options);
    assert!(matches!(error, DatabaseError::NotADatabase), "{error:?}");
    // SQLite's own view of an empty file: a database without tables.
    fs::write(&path, []).unwrap();
    assert_eq!(open_with(&path, &options).unwrap().copied(), None);
}

#[test]
fn a_damaged_database_is_an_error_that_says_so() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.db");
    let options = options(scratch.path());
    for mode in ["wal", "delete"] {
        database(&path, mode, 1000).close().unwrap();
        let whole = fs::read(&path).unwrap();
        let mut encrypted = whole.clone();
        encrypted[16..100].fill(0xa5);
        fs::write(&path, encrypted).unwrap();
        let error = failure(&path, &options);
        assert!(matches!(error, DatabaseError::NotADatabase), "{error:?}");
        fs::write(&path, &whole[..50]).unwrap();
        let error = failure(&path, &options);
        let is_told = matches!(
            error,
            DatabaseError::NotADatabase | DatabaseError::Sqlite { code: 11, .. }
        );
        assert!(is_told, "{error:?}");
        fs::remove_file(&path).unwrap();
    }
    database(&path, "delete", 1000).close().unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..8192]).unwrap();
    let error = failure(&path, &options);
    assert!(
        matches!(error, DatabaseError::Sqlite { code: 11, .. }),
        "{error:?}"
    );
    assert_eq!(contents(scratch.path()).len(), 0);
}

#[test]
fn a_locked_database_is_waited_for_and_then_given_up() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.db");
    database(&path, "delete", 10).close().unwrap();
    let other = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    assert!(lock::set(&other, libc::F_WRLCK, lock::SHARED, lock::SHARED_LEN).unwrap());
    let options = DatabaseOptions {
        patience: Duration::from_millis(1),
        ..options(scratch.path())
    };
    let error = failure(&path, &options);
    assert!(
        matches!(error, DatabaseError::Locked { seconds: 0 }),
        "{error:?}"
    );
    drop(other);
    assert_eq!(rows_of_copy(&path), 10);
}

#[test]
fn an_index_that_nobody_puts_in_order_is_given_up_in_the_end() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.db");
    database(&path, "wal", 10).close().unwrap();
    fs::write(dir.path().join("a.db-wal"), []).unwrap();
    let mut index = File::create_new(dir.path().join("a.db-shm")).unwrap();
    index.write_all(&[1; 32 << 10]).unwrap();
    // As if a program had it open, which has not put it in order yet.
    let (deadman, len) = (128, 1);
    let index = OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.path().join("a.db-shm"));
    let index = index.unwrap();
    assert!(lock::set(&index, libc::F_RDLCK, deadman, len).unwrap());
    let error = failure(&path, &options(scratch.path()));
    assert!(matches!(error, DatabaseError::Restless), "{error:?}");
    drop(index);
    assert_eq!(rows_of_copy(&path), 10);
}

#[test]
fn where_a_copy_cannot_be_made_or_has_no_room_the_error_names_the_folder() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.db");
    database(&path, "wal", 10).close().unwrap();
    let gone = scratch.path().join("gone");
    let error = failure(&path, &options(&gone));
    assert!(
        matches!(&error, DatabaseError::Scratch { dir, .. } if *dir == gone),
        "{error:?}"
    );
    let mut folder = scratch::Scratch::create(scratch.path()).unwrap();
    let error = folder.make_room(u64::MAX).unwrap_err();
    let DatabaseError::NoRoom { dir, need, free } = error else {
        panic!("{error:?}");
    };
    assert_eq!((dir.as_path(), need), (scratch.path(), u64::MAX));
    assert!(free < u64::MAX);
    drop(folder);
    assert_eq!(contents(scratch.path()).len(), 0);
}

#[test]
fn a_log_that_cannot_be_read_is_an_error_that_names_it() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.db");
    database(&path, "wal", 10).close().unwrap();
    fs::create_dir(dir.path().join("a.db-wal")).unwrap();
    let error = failure(&path, &options(scratch.path()));
    assert!(
        matches!(&error, DatabaseError::Read { file, .. } if file.ends_with("a.db-wal")),
        "{error:?}"
    );
}

#[test]
fn a_database_that_is_no_longer_where_it_was_is_not_mistaken_for_another() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, other) = (dir.path().join("a.db"), dir.path().join("b.db"));
    database(&path, "delete", 10).close().unwrap();
    database(&other, "delete", 20).close().unwrap();
    let entry = entry(&path);
    let file = SourceFile::open(&entry, b"a.db").unwrap();
    let options = options(scratch.path());
    let job = Job {
        file: &file,
        entry: &entry,
        path: other.as_os_str().as_bytes(),
        options: &options,
        is_over: &|| false,
    };
    let error = job.run().unwrap_err();
    assert!(matches!(error, DatabaseError::Moved), "{error:?}");
}

/// As where a backup is put in the place of a database: what lies beside it then is of the new one.
#[test]
fn a_database_that_was_replaced_is_not_mixed_with_the_log_of_the_new_one() {
    let (live, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (other, path) = (live.path().join("b.db"), dir.path().join("a.db"));
    let scratch = tempfile::tempdir().unwrap();
    let open = database(&other, "wal", 20);
    open.execute_batch("PRAGMA wal_checkpoint").unwrap();
    add(&open, 20);
    database(&path, "wal", 10).close().unwrap();
    let entry = entry(&path);
    let file = SourceFile::open(&entry, b"a.db").unwrap();
    fs::remove_file(&path).unwrap();
    leave(&other, &path, &["", "-wal"]);
    let options = options(scratch.path());
    let job = Job {
        file: &file,
        entry: &entry,
        path: path.as_os_str().as_bytes(),
        options: &options,
        is_over: &|| false,
    };
    let error = job.run().unwrap_err();
    assert!(matches!(error, DatabaseError::Moved), "{error:?}");
    assert_eq!(contents(scratch.path()).len(), 0);
}

#[test]
fn a_run_that_is_over_ends_a_copy() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("a.db");
    for mode in ["wal", "delete"] {
        database(&path, mode, 10).close().unwrap();
        let (entry, name) = (entry(&path), path.as_os_str().as_bytes());
        let file = SourceFile::open(&entry, name).unwrap();
        let options = options(scratch.path());
        let error = copy_if_database(file, &entry, name, &options, &|| true).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error:?}");
        let told = DatabaseError::Cancelled.of(name);
        assert!(matches!(told, Error::Cancelled), "{told:?}");
        assert_eq!(contents(scratch.path()).len(), 0);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_locked_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // A reader's lock takes a file that is open for reading.
    let file = File::create(dir.path().join("a")).unwrap();
    let taken = lock::ReadLock::take(&file);
    assert!(
        matches!(taken, Err(DatabaseError::NoLocks { .. })),
        "{taken:?}"
    );
}

#[test]
fn names_with_any_bytes_reach_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"a?b#c%41 \xff&mode=rw.db");
    let path = dir.path().join(name);
    let plain = dir.path().join("plain.db");
    database(&plain, "delete", 10).close().unwrap();
    fs::rename(plain, &path).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let copied = open_with(&path, &options(scratch.path())).unwrap();
    assert!(copied.copied().is_some());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A folder below `dir` whose path has more bytes than SQLite takes.
fn deep(dir: &Path) -> PathBuf {
    let mut deep = dir.to_path_buf();
    while deep.as_os_str().len() <= LONGEST {
        deep.push("d".repeat(100));
    }
    fs::create_dir_all(&deep).unwrap();
    deep
}

#[test]
fn where_sqlite_cannot_reach_a_database_its_files_are_copied() {
    let (live, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (live.path().join("a.db"), deep(dir.path()).join("a.db"));
    let refused = Connection::open(&to);
    assert!(refused.is_err(), "SQLite takes longer paths by now");
    for (mode, left) in [
        ("wal", &[""][..]),
        ("delete", &[""]),
        ("persist", &["", "-journal"]),
    ] {
        database(&from, mode, 100).close().unwrap();
        leave(&from, &to, left);
        assert_eq!(rows_of_copy(&to), 100, "{mode}");
        for suffix in left {
            fs::remove_file(format!("{}{suffix}", from.display())).unwrap();
        }
    }
    // A transaction is under way, of which nothing is in the file.
    let open = database(&from, "delete", 100);
    open.execute_batch("BEGIN; UPDATE t SET words = 'x'; DELETE FROM t")
        .unwrap();
    leave(&from, &to, &["", "-journal"]);
    assert_eq!(rows_of_copy(&to), 100);
    // Now a half of it is.
    open.execute_batch("PRAGMA cache_size = 2").unwrap();
    open.cache_flush().unwrap();
    leave(&from, &to, &["", "-journal"]);
    assert_eq!(rows_of_copy(&to), 100);
}

#[test]
fn a_log_that_may_be_in_use_where_sqlite_cannot_reach_is_an_error_that_says_so() {
    let (live, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let (from, to) = (live.path().join("a.db"), deep(dir.path()).join("a.db"));
    let _open = database(&from, "wal", 100);
    leave(&from, &to, &["", "-wal", "-shm"]);
    let error = failure(&to, &options(scratch.path()));
    assert!(
        matches!(error, DatabaseError::LongPath { limit: LONGEST }),
        "{error:?}"
    );
    fs::remove_file(to.with_file_name("a.db-shm")).unwrap();
    assert_eq!(rows_of_copy(&to), 100);
    // By a link the path is short, but SQLite follows links.
    let link = live.path().join("link");
    std::os::unix::fs::symlink(to.parent().unwrap(), &link).unwrap();
    assert_eq!(rows_of_copy(&link.join("a.db")), 100);
}

#[test]
fn a_scratch_folder_that_sqlite_cannot_reach_is_named() {
    let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (path, far) = (dir.path().join("a.db"), deep(scratch.path()));
    database(&path, "wal", 10).close().unwrap();
    let error = failure(&path, &options(&far));
    assert!(
        matches!(&error, DatabaseError::Scratch { dir, .. } if *dir == far),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(&far).unwrap().count(), 0);
}

#[test]
fn owners_are_told_from_the_names_of_what_belongs_to_them() {
    assert_eq!(owner(b"a.db-wal"), Some(&b"a.db"[..]));
    assert_eq!(owner(b"a-shm"), Some(&b"a"[..]));
    assert_eq!(owner(b"a.db-journal"), Some(&b"a.db"[..]));
    for other in [&b"-wal"[..], b"a.db", b"a-wall", b"wal"] {
        assert_eq!(owner(other), None);
    }
}
