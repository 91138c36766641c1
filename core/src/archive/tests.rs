//! Backups whose ground is pulled away while they run.

mod deltas;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use strongroom_repo::{backend::MemBackend, prune::PruneOptions, repository::Repository};

use super::{About, backup};
use crate::{
    fixture::{back_up, create, options},
    format::snapshot::Snapshot,
    observer::{Done, Observer},
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
