//! Databases that are in use while they are saved, or were when their program died.
//!
//! The programs that use them are processes of their own, in Python: SQLite's locks belong to
//! processes, so that a test that opened a database itself would prove nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

use rusqlite::Connection;
use serde_json::Value;

use crate::{
    full_disk::Mount,
    runs::{answer, id, is_root, well},
    sandbox::{Said, Sandbox},
};

/// Transactions that the writer's database keeps.
const KEPT: u64 = 500;
const WRITER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/writer.py");

fn writer(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new("python3");
    command.arg(WRITER);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    command
}

fn run_writer(arguments: &[&dyn AsRef<std::ffi::OsStr>]) {
    let status = writer(arguments).status();
    let status =
        status.unwrap_or_else(|error| panic!("python3, which .ci/prepare test installs: {error}"));
    assert!(
        status.success(),
        "python3 with its module sqlite3 is needed"
    );
}

/// A program that commits all the time; ended with the value.
struct Busy {
    child: Child,
    progress: PathBuf,
}

impl Busy {
    fn start(sandbox: &Sandbox, database: &str, journal: &str) -> Self {
        let (database, progress) = (sandbox.path(database), sandbox.path("progress"));
        fs::create_dir_all(database.parent().unwrap()).unwrap();
        let child = writer(&[&"commit", &database, &progress, &journal]).spawn();
        let child = child
            .unwrap_or_else(|error| panic!("python3, which .ci/prepare test installs: {error}"));
        let mut busy = Self { child, progress };
        while busy.committed() == 0 {
            let ended = busy.child.try_wait().unwrap();
            assert_eq!(ended, None, "python3 with its module sqlite3 is needed");
            thread::yield_now();
        }
        busy
    }

    /// The last transaction that is surely committed.
    fn committed(&self) -> u64 {
        let text = fs::read_to_string(&self.progress).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().last().map_or(0, |line| line.parse().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The backup of a folder with its databases; what went wrong with it is the caller's to see.
fn save(sandbox: &Sandbox, folder: &str) -> Value {
    let arguments = [
        "--json",
        "backup",
        "--sqlite",
        "--scratch",
        "scratch",
        folder,
    ];
    answer(sandbox, arguments).pop().unwrap()
}

fn with_scratch() -> Sandbox {
    let sandbox = Sandbox::with_repository();
    fs::create_dir(sandbox.path("scratch")).unwrap();
    sandbox
}

fn restore(sandbox: &Sandbox, summary: &Value, to: &str) -> PathBuf {
    well(sandbox, ["-q", "restore", &id(summary), "--target", to]);
    sandbox.path(to)
}

fn number(copy: &Connection, query: &str) -> u64 {
    let number: i64 = copy.query_row(query, [], |row| row.get(0)).unwrap();
    number.try_into().unwrap()
}

fn sound(path: &Path) -> Connection {
    let copy = Connection::open(path).unwrap();
    let verdict: String = copy
        .pragma_query_value(None, "integrity_check", |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok", "{}", path.display());
    copy
}

/// Names, lengths and contents of what is in a folder, without opening anything as this process.
fn contents(folder: &Path) -> BTreeMap<String, String> {
    let sums = Command::new("sh")
        .args(["-c", "for file in *; do sha256sum \"$file\"; done"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(sums.status.success());
    let lines = String::from_utf8(sums.stdout).unwrap();
    lines
        .lines()
        .map(|line| line.split_once("  ").unwrap())
        .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
        .collect()
}

/// Saves a database so many times while a program commits all the time.
fn save_under_writing(sandbox: &Sandbox, journal: &str, rounds: usize) {
    let mut busy = Busy::start(sandbox, "db/busy.db", journal);
    let mut last = 0;
    for round in 0..rounds {
        let before = busy.committed();
        let summary = save(sandbox, "db");
        let to = restore(sandbox, &summary, &format!("to{round}"));
        let names: Vec<_> = contents(&to.join("db")).into_keys().collect();
        assert_eq!(names, ["busy.db"]);
        let copy = sound(&to.join("db/busy.db"));
        let newest = number(&copy, "SELECT n FROM last");
        assert!(
            newest >= before,
            "round {round}: {newest} of at least {before}"
        );
        assert!(
            newest > last,
            "round {round}: the program went on meanwhile"
        );
        last = newest;
        assert_eq!(number(&copy, "SELECT max(n) FROM parts"), newest);
        assert_eq!(
            number(&copy, "SELECT count(*) FROM parts"),
            3 * newest.min(KEPT)
        );
        let halves = "SELECT count(*) FROM (SELECT n FROM parts GROUP BY n HAVING count(*) <> 3)";
        assert_eq!(number(&copy, halves), 0);
        drop(copy);
        fs::remove_dir_all(to).unwrap();
        let ended = busy.child.try_wait().unwrap();
        assert_eq!(ended, None, "no commit has failed");
    }
    eprintln!("{last} transactions in the last of {rounds} backups");
    assert_eq!(fs::read_dir(sandbox.path("scratch")).unwrap().count(), 0);
    well(sandbox, ["-q", "check", "--read-data"]);
}

#[test]
fn a_database_under_constant_writing_is_whole_in_each_of_twenty_backups() {
    let sandbox = with_scratch();
    save_under_writing(&sandbox, "wal", 20);
    let len = fs::metadata(sandbox.path("db/busy.db")).unwrap().len();
    assert!(len > 100 << 10, "the log was carried over meanwhile: {len}");
}

#[test]
fn a_database_with_a_rollback_journal_is_whole_and_keeps_its_writer_waiting_for_a_moment_only() {
    save_under_writing(&with_scratch(), "delete", 8);
}

#[test]
fn nothing_is_written_beside_databases_whose_programs_are_idle_or_dead_or_gone() {
    let sandbox = with_scratch();
    let database = sandbox.path("db/a.db");
    fs::create_dir(sandbox.path("db")).unwrap();
    let expect = |len: usize| {
        let before = contents(&sandbox.path("db"));
        assert_eq!(before.len(), len);
        let summary = save(&sandbox, "db");
        assert_eq!(contents(&sandbox.path("db")), before);
        let to = restore(&sandbox, &summary, "to");
        assert_eq!(
            number(&sound(&to.join("db/a.db")), "SELECT count(*) FROM t"),
            1000
        );
        fs::remove_dir_all(to).unwrap();
    };
    run_writer(&[&"fill", &database, &"1000"]);
    expect(1);
    run_writer(&[&"change", &database, &"7", &"die"]);
    expect(3);
    // A program that has it open, and has not carried the log over.
    let script = "import sqlite3, sys; database = sqlite3.connect(sys.argv[1]); \
                  database.execute('SELECT count(*) FROM t').fetchall(); \
                  print(flush=True); sys.stdin.read()";
    let mut idle = Command::new("python3")
        .args(["-c", script])
        .arg(&database)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0];
    std::io::Read::read_exact(idle.stdout.as_mut().unwrap(), &mut line).unwrap();
    expect(3);
    idle.kill().unwrap();
    idle.wait().unwrap();
    fs::remove_file(sandbox.path("db/a.db-shm")).unwrap();
    expect(2);
    assert_eq!(fs::read_dir(sandbox.path("scratch")).unwrap().count(), 0);
}

/// The folder `db`, in which nothing can be made while it is saved: as root we see it on a disk
/// that is read-only, otherwise it lacks the permission.
struct Fixed<'a> {
    sandbox: &'a Sandbox,
    mount: Option<Mount>,
}

impl<'a> Fixed<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let mount = || Mount::read_only(&sandbox.path("db"), &sandbox.path("fixed"));
        let mount = is_root().then(mount);
        Self { sandbox, mount }
    }

    /// Saves and restores it; where it has come back.
    fn come_back(&self) -> PathBuf {
        let mode = |folder: &Path, mode| {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        };
        let (name, db) = match self.mount {
            Some(_) => ("fixed", None),
            None => ("db", Some(self.sandbox.path("db"))),
        };
        db.iter().for_each(|db| mode(db, 0o555));
        let summary = save(self.sandbox, name);
        db.iter().for_each(|db| mode(db, 0o755));
        let back = restore(self.sandbox, &summary, "to").join(name);
        mode(&back, 0o755);
        back
    }
}

#[test]
fn where_nothing_can_be_written_all_is_saved_that_programs_have_left_or_do_meanwhile() {
    let sandbox = with_scratch();
    let database = sandbox.path("db/a.db");
    fs::create_dir(sandbox.path("db")).unwrap();
    run_writer(&[&"fill", &database, &"1000"]);
    let fixed = Fixed::new(&sandbox);
    let expect = |what: &str| {
        let back = fixed.come_back();
        let rows = number(&sound(&back.join("a.db")), "SELECT count(*) FROM t");
        assert_eq!(rows, 1000, "{what}");
        fs::remove_dir_all(back).unwrap();
    };
    expect("left alone");
    run_writer(&[&"change", &database, &"7", &"die"]);
    expect("with the log and its index left behind");
    fs::remove_file(sandbox.path("db/a.db-shm")).unwrap();
    expect("with the log left behind");
    let busy = Busy::start(&sandbox, "db/b.db", "wal");
    let before = busy.committed();
    let back = fixed.come_back();
    let newest = number(&sound(&back.join("b.db")), "SELECT n FROM last");
    assert!(newest >= before);
}

/// Bytes of the pages that differ between two copies of a database.
fn changed_bytes(before: &[u8], after: &[u8]) -> u64 {
    let page = 4096;
    let pages = before.chunks(page).zip(after.chunks(page));
    let changed = pages.filter(|(before, after)| before != after).count();
    u64::try_from(changed * page + after.len().saturating_sub(before.len())).unwrap()
}

#[test]
fn a_database_grows_the_repository_by_what_changed_in_it() {
    let sandbox = with_scratch();
    let database = sandbox.path("db/a.db");
    fs::create_dir(sandbox.path("db")).unwrap();
    run_writer(&[&"fill", &database, &"40000"]);
    save(&sandbox, "db");
    let (mut all_changed, mut all_added) = (0, 0);
    for (round, end) in ["close", "die", "die", "close"].into_iter().enumerate() {
        let copy = |sandbox: &Sandbox| {
            well(sandbox, ["-q", "restore", "latest", "--target", "to"]);
            let bytes = fs::read(sandbox.path("to/db/a.db")).unwrap();
            fs::remove_dir_all(sandbox.path("to")).unwrap();
            bytes
        };
        let before = copy(&sandbox);
        run_writer(&[&"change", &database, &round.to_string(), &end]);
        let summary = save(&sandbox, "db");
        let changed = changed_bytes(&before, &copy(&sandbox));
        let added = summary["data_added_packed"].as_u64().unwrap();
        eprintln!("{end}: {changed} bytes of pages changed, {added} bytes added");
        assert!(changed > 1 << 20, "round {round}: {changed}");
        assert!(round > 0 || added <= 2 * changed, "{added} for {changed}");
        (all_changed, all_added) = (all_changed + changed, all_added + added);
    }
    // What has moved too far from its base is stored anew and is the next base: one round bears
    // that for several.
    assert!(
        2 * all_added <= 5 * all_changed,
        "{all_added} for {all_changed}"
    );
}

#[test]
fn without_the_option_a_log_in_use_is_warned_of_and_all_is_saved_as_it_is() {
    let sandbox = with_scratch();
    let database = sandbox.path("db/a.db");
    fs::create_dir(sandbox.path("db")).unwrap();
    run_writer(&[&"fill", &database, &"100"]);
    run_writer(&[&"change", &database, &"7", &"die"]);
    let warning = "warning: $SANDBOX/db/a.db is an SQLite database in use: its latest changes are \
                   in its write-ahead log, and the two may not fit together when they are \
                   restored; save it with --sqlite\n";
    for target in ["db", "db/a.db"] {
        for _ in 0..2 {
            let said = sandbox.run(["-q", "backup", target]);
            assert_eq!((said.code, said.err.as_str()), (0, warning), "{said:?}");
        }
    }
    well(&sandbox, ["-q", "restore", "latest", "--target", "to"]);
    let (saved, source) = (sandbox.path("to/db/a.db"), sandbox.path("db/a.db"));
    assert_eq!(fs::read(saved).unwrap(), fs::read(source).unwrap());
}

fn fails(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    for words in words {
        assert!(said.err.contains(words), "{words:?} in {said:?}");
    }
}

#[test]
fn a_database_that_cannot_be_copied_is_named_and_the_rest_is_saved() {
    let sandbox = with_scratch();
    let database = sandbox.path("src/a.db");
    run_writer(&[&"fill", &database, &"1000"]);
    let said = sandbox.run(["backup", "--sqlite=src/a.txt", "src"]);
    let words = "cannot copy the database $SANDBOX/src/a.txt: it is no SQLite database, or an \
                 encrypted one";
    fails(&said, 3, &[words]);
    let listed = sandbox.run(["ls", "latest"]);
    assert!(listed.out.contains("/src/sub/b.bin"), "{listed:?}");
    assert!(!listed.out.contains("/src/a.txt"), "{listed:?}");
    let said = sandbox.run(["backup", "--sqlite=src/a.db", "--exclude=*.db", "src"]);
    let words = "the database $SANDBOX/src/a.db is not among the files that are saved; give \
                 --sqlite=PATH the path that the backup goes";
    fails(&said, 3, &[words]);
    let said = sandbox.run(["backup", "--sqlite=src/b.db", "src"]);
    fails(
        &said,
        1,
        &[
            "src/b.db does not exist",
            "hint: give the path of a database",
        ],
    );
    let said = sandbox.run(["backup", "--sqlite", "--scratch=nowhere", "src"]);
    let words = "cannot make a copy in $SANDBOX/nowhere: No such file or directory; choose \
                 another folder with --scratch";
    fails(
        &said,
        3,
        &["cannot copy the database $SANDBOX/src/a.db: ", words],
    );
    let said = sandbox.run_with(
        &[("STRONGROOM_SCRATCH", "elsewhere")],
        ["backup", "--sqlite", "src"],
    );
    fails(&said, 3, &["cannot make a copy in $SANDBOX/elsewhere"]);
    let said = sandbox.run_with(&[("TMPDIR", "there")], ["backup", "--sqlite", "src"]);
    fails(&said, 3, &["cannot make a copy in $SANDBOX/there"]);
}

#[test]
fn a_scratch_folder_without_room_is_named_with_what_is_needed_and_what_is_free() {
    let sandbox = with_scratch();
    let database = sandbox.path("src/a.db");
    run_writer(&[&"fill", &database, &"1000"]);
    // Nearly all of it a hole, which takes no room here.
    let stat = rustix::fs::statvfs(sandbox.path("scratch")).unwrap();
    let need = 2 * stat.f_bavail * stat.f_frsize + (1 << 30);
    let file = fs::File::options().write(true).open(&database).unwrap();
    file.set_len(need).unwrap();
    let said = sandbox.run(["backup", "--sqlite", "--scratch=scratch", "src"]);
    let words = format!(
        "cannot copy the database $SANDBOX/src/a.db: the copy takes {need} bytes, and \
         $SANDBOX/scratch has room for "
    );
    fails(
        &said,
        3,
        &[&words, "; choose another folder with --scratch"],
    );
    let free = said.err.split_once(&words).unwrap().1;
    let free: u64 = free.split_once(';').unwrap().0.parse().unwrap();
    assert!(free > 0 && free < need, "{said:?}");
    assert_eq!(fs::read_dir(sandbox.path("scratch")).unwrap().count(), 0);
}
