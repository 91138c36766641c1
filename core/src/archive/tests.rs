//! Backups that meet something on their way: a parent that goes, a worker that panics, a target
//! that is missing, a file that changes, a stream that fails. Databases, deltas and streams have
//! modules of their own.

mod databases;
mod deltas;
mod streams;

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use strongroom_repo::{
    backend::MemBackend,
    codec::CodecError,
    error::Error as RepoError,
    format::{DecodeError, config::ConfigBody},
    prune::PruneOptions,
    repository::Repository,
};

use super::{About, OpenStream, Run, StreamSource, Streams, backup, backup_streams, chunker};
use crate::{
    error::{Error, SourceAction},
    fixture::{Expecting, back_up, create, create_with, noise, options},
    format::snapshot::Snapshot,
    observer::{Done, Observer, Silent},
    path::ArchivePath,
    prune::prune,
    restore::{RestoreOptions, restore},
    source::read::Change,
};

/// Forgets and prunes everything there is when the first entry is done.
struct Saboteur<'a> {
    repo: &'a Repository,
    done: AtomicBool,
}

impl Observer for Saboteur<'_> {
    fn finished(&self, _done: &Done<'_>) {
        if !self.done.swap(true, Ordering::Relaxed) {
            let ids: Vec<_> = self.repo.snapshots().into_keys().collect();
            self.repo.remove_snapshots(&ids).unwrap();
            let never = AtomicBool::new(false);
            let report = prune(self.repo, PruneOptions::default(), 1, &(), &never).unwrap();
            assert_ne!(report.plan.freed_bytes(), 0);
        }
    }
}

#[test]
fn a_parent_that_is_forgotten_and_pruned_meanwhile_costs_time_and_nothing_else() {
    let (store, from) = (MemBackend::new(), tempfile::tempdir().unwrap());
    for n in 0..20_u8 {
        fs::write(from.path().join(format!("{n}")), vec![n + 1; 10_000]).unwrap();
    }
    let repo = create(&store);
    let parent = back_up(&repo, from.path()).snapshot.unwrap();
    fs::write(from.path().join("new"), b"new").unwrap();
    let record = Snapshot::decode(&repo.load_snapshot(parent).unwrap()).unwrap();
    let mut options = options(from.path(), About::default());
    options.parent = Some((parent, record));
    let saboteur = Saboteur {
        repo: &repo,
        done: AtomicBool::new(false),
    };
    let never = AtomicBool::new(false);
    let report = backup(&repo, &options, &saboteur, &never).unwrap();
    assert!(saboteur.done.load(Ordering::Relaxed));
    assert_eq!(
        report.summary.files_new, 21,
        "nothing was taken over from what is gone"
    );
    let to = tempfile::tempdir().unwrap();
    let target = RestoreOptions::new(to.path().to_path_buf());
    restore(
        &repo,
        report.tree,
        &target,
        &crate::observer::Silent,
        &never,
    )
    .unwrap();
    for n in 0..20_u8 {
        let bytes = fs::read(to.path().join(format!("{n}"))).unwrap();
        assert_eq!(bytes, vec![n + 1; 10_000]);
    }
}

/// Has a bug in what it does when so many bytes are done.
struct Faulty(AtomicU64);

impl Observer for Faulty {
    fn advanced(&self, bytes: u64) {
        let before = self.0.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before > bytes, "the bug");
    }
}

#[test]
fn a_worker_that_panics_ends_the_backup_with_an_error() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("big"), noise(0, 40 << 20)).unwrap();
    for n in 0..20 {
        fs::write(from.path().join(format!("small{n}")), noise(0, 100_000 + n)).unwrap();
    }
    let never = AtomicBool::new(false);
    for after in [1, 10 << 20, 39 << 20, 41 << 20] {
        let repo = create(&MemBackend::new());
        let options = options(from.path(), About::default());
        let faulty = Faulty(AtomicU64::new(after));
        let result = backup(&repo, &options, &faulty, &never);
        assert!(
            matches!(result, Err(Error::WorkerLost)),
            "{after}: {result:?}"
        );
        assert!(repo.snapshots().is_empty());
        // What was stored is no obstacle.
        assert!(back_up(&repo, from.path()).snapshot.is_some());
    }
}

#[test]
fn a_worker_that_panics_ends_the_backup_of_a_stream_with_an_error() {
    let repo = create(&MemBackend::new());
    let content = noise(0, 8 << 20);
    let streams = streams::of([("dump", content.as_slice())]);
    let options = options(std::path::Path::new("/"), About::default());
    let faulty = Faulty(AtomicU64::new(8 << 20));
    let never = AtomicBool::new(false);
    let result = backup_streams(&repo, &options, streams, &faulty, &never);
    assert!(matches!(result, Err(Error::WorkerLost)), "{result:?}");
    assert!(repo.snapshots().is_empty());
}

#[test]
fn what_kept_all_workers_from_beginning_is_the_error_of_the_backup() {
    let repo = create(&MemBackend::new());
    let options = options(std::path::Path::new("/"), About::default());
    let writer = repo.writer(options.writer.clone());
    let never = AtomicBool::new(false);
    let run = Run::new(&repo, &writer, &options, &Silent, &never).unwrap();
    let no_memory = || Error::Repo(RepoError::Codec(CodecError::TooLong { len: 1 }));
    run.lost_worker(no_memory());
    run.lost_worker(Error::WorkerLost);
    let cause = run.cause(Error::WorkerLost);
    assert_eq!(cause.to_string(), no_memory().to_string());
    assert!(matches!(run.cause(Error::WorkerLost), Error::WorkerLost));
}

#[test]
fn a_repository_whose_chunker_is_not_known_takes_no_backup() {
    let from = tempfile::tempdir().unwrap();
    let never = AtomicBool::new(false);
    let odd: [fn(&mut ConfigBody); 2] = [
        |config| config.chunker = 9,
        |config| config.chunk_avg = config.chunk_max,
    ];
    for change in odd {
        let repo = create_with(&MemBackend::new(), change);
        assert!(matches!(chunker(&repo), Err(Error::Chunker { .. })));
        let options = options(from.path(), About::default());
        let result = backup(&repo, &options, &Silent, &never);
        assert!(matches!(result, Err(Error::Chunker { .. })), "{result:?}");
        assert!(repo.snapshots().is_empty());
    }
}

#[test]
fn a_target_that_is_not_there_is_told_and_the_others_are_saved() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("here"), "x").unwrap();
    let repo = create(&MemBackend::new());
    let mut options = options(from.path(), About::default());
    options.targets = vec![b"gone".to_vec(), b"here".to_vec()];
    let gone = from
        .path()
        .join("gone")
        .into_os_string()
        .into_encoded_bytes();
    let heard = Expecting::new(
        |error: &Error| matches!(error, Error::TargetMissing { path } if gone.ends_with(path)),
    );
    let report = backup(&repo, &options, &heard, &AtomicBool::new(false)).unwrap();
    heard.assert(1);
    assert_eq!((report.errors, report.summary.files_new), (1, 1));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_told_and_saved_as_it_was_read() {
    /// Makes the file longer once it is being read.
    struct Growing(std::path::PathBuf, AtomicBool, AtomicU64);
    impl Observer for Growing {
        fn advanced(&self, _: u64) {
            if !self.1.swap(true, Ordering::Relaxed) {
                let file = fs::OpenOptions::new().append(true).open(&self.0).unwrap();
                file.set_len(50 << 20).unwrap();
            }
        }
        fn problem(&self, error: &Error) {
            let name = self.0.as_os_str().as_encoded_bytes();
            assert!(
                matches!(error, Error::SourceChanged { path, change: Change::Grew }
                    if path == name),
                "{error:?}"
            );
            assert!(error.is_warning());
            self.2.fetch_add(1, Ordering::Relaxed);
        }
    }
    let from = tempfile::tempdir().unwrap();
    let from = from.path().canonicalize().unwrap();
    let file = from.join("log");
    fs::write(&file, noise(0, 40 << 20)).unwrap();
    let repo = create(&MemBackend::new());
    let options = options(&from, About::default());
    let growing = Growing(file, AtomicBool::new(false), AtomicU64::new(0));
    backup(&repo, &options, &growing, &AtomicBool::new(false)).unwrap();
    assert_eq!(growing.2.load(Ordering::Relaxed), 1);
}

/// Gives some bytes, and then what a dying disk gives.
struct Dying(usize);

impl std::io::Read for Dying {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.0.min(buffer.len());
        if len == 0 {
            return Err(std::io::Error::from_raw_os_error(5));
        }
        self.0 -= len;
        Ok(len)
    }
}

#[test]
fn a_stream_that_cannot_be_read_or_whose_end_is_an_error_leaves_no_snapshot() {
    let failed = || Err(std::io::Error::other("exit code 1"));
    let sources: [(Box<dyn std::io::Read + Send>, _); 2] = [
        (Box::new(Dying(1 << 20)), false),
        (Box::new(&b"all of it"[..]), true),
    ];
    for (reader, ends_badly) in sources {
        let repo = create(&MemBackend::new());
        let stream = OpenStream {
            reader,
            finish: Box::new(move || if ends_badly { failed() } else { Ok(()) }),
        };
        let source = StreamSource {
            path: ArchivePath::parse(b"dump").unwrap(),
            mode: 0o640,
            open: Box::new(move || Ok(stream)),
        };
        let streams = Streams {
            paths: vec![b"/dump".to_vec()],
            sources: vec![source],
        };
        let options = options(std::path::Path::new("/"), About::default());
        let never = AtomicBool::new(false);
        let result = backup_streams(&repo, &options, streams, &Silent, &never);
        assert!(
            matches!(
                &result,
                Err(Error::Source {
                    action: SourceAction::Read,
                    path,
                    source,
                }) if path == b"/dump" && (source.raw_os_error() == Some(5)) != ends_badly
            ),
            "{result:?}"
        );
        assert!(repo.snapshots().is_empty());
    }
}

#[test]
fn a_snapshot_that_says_more_of_itself_than_a_record_holds_is_refused() {
    let from = tempfile::tempdir().unwrap();
    let repo = create(&MemBackend::new());
    let about = About {
        tags: vec!["x".repeat(65 << 20)],
        ..About::default()
    };
    let options = options(from.path(), about);
    let result = backup(&repo, &options, &Silent, &AtomicBool::new(false));
    assert!(
        matches!(result, Err(Error::Decode(DecodeError::OutOfRange { .. }))),
        "{result:?}"
    );
    assert!(repo.snapshots().is_empty());
}
