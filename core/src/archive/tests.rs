//! Backups whose ground is pulled away while they run.

mod databases;
mod deltas;
mod streams;

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use strongroom_repo::{
    backend::MemBackend, codec::CodecError, error::Error as RepoError, prune::PruneOptions,
    repository::Repository,
};

use super::{About, OpenStream, Run, StreamSource, Streams, backup, backup_streams};
use crate::{
    error::Error,
    fixture::{back_up, create, options},
    format::snapshot::Snapshot,
    observer::{Done, Observer, Silent},
    prune::prune,
    restore::{RestoreOptions, restore},
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
            let report = prune(self.repo, PruneOptions { dry_run: false }, 1, &(), &never).unwrap();
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

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn a_worker_that_panics_ends_the_backup_with_an_error() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("big"), noise(40 << 20)).unwrap();
    for n in 0..20 {
        fs::write(from.path().join(format!("small{n}")), noise(100_000 + n)).unwrap();
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
    let content = noise(8 << 20);
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
