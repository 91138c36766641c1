//! How a simulation ends: faults are over, years have passed, and a client without memory finds a
//! sound repository, prunes it, and finds it sound again with nothing left over. Every client opens
//! it with what it remembers.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use strongroom_core::{
    check::{CheckReport, check},
    prune::prune,
    reachable::load_record,
};
use strongroom_repo::{
    backend::{MemBackend, ObjectKind},
    check::{CheckOptions, ReadData, Severity, Verdict},
    crypto::Identity,
    env::{
        Env, Timestamp,
        testing::{FixedClock, SeededRandom},
    },
    error::Error as RepoError,
    format::slot::Anchor,
    keys::{KeyError, OpenedSlot},
    prune::PruneOptions,
    repository::{OpenOptions, Repository, Secret},
};

use super::{
    source::restore,
    watch::{Broken, chain},
    world::Inner,
};

pub(super) fn end(
    inner: &Inner,
    anchor: Anchor,
    identities: &[Identity],
    folder: &Path,
) -> Result<(), Broken> {
    let store = MemBackend::with_objects("the end", inner.store.visible().objects());
    for (number, identity) in identities.iter().enumerate() {
        let options = OpenOptions {
            state_dir: Some(folder.join(number.to_string())),
            cache_dir: Some(folder.join(number.to_string())),
            ..OpenOptions::default()
        };
        match open(&store, anchor, identity, options) {
            // Somebody took its key away.
            Ok(_) | Err(RepoError::Key(KeyError::NoBundle)) => {}
            Err(error) => return Err(format!("client {number} at the end: {}", chain(&error))),
        }
    }
    let owner = identities.first().ok_or("no owner")?;
    let repo = open(&store, anchor, owner, OpenOptions::default());
    let repo = repo.map_err(|error| format!("at the end: {}", chain(&error)))?;
    // What was recorded of packs that are as they should be is taken back.
    let report = check_all(&repo)?;
    let recorded = repo.record_verdicts(&report.objects.verdicts);
    recorded.map_err(|error| format!("what is recorded at the end: {}", chain(&error)))?;
    let state = repo.state();
    for pack in state.bad.packs() {
        // Of a difference nothing is known where what it rests on is gone.
        let unproved = match report.objects.verdicts.get(&pack) {
            Some(Verdict::Segments { bad, unproved }) if bad.is_empty() => unproved.clone(),
            _ => BTreeSet::new(),
        };
        let (whole, segments) = state.bad.of(&pack);
        let excused = !whole && segments.is_subset(&unproved);
        if !excused && !state.swept.contains(&pack) {
            return Err(format!(
                "pack {pack} is whole and stays recorded as damaged"
            ));
        }
    }
    sound(&repo, inner)?;
    let pruned = prune(
        &repo,
        PruneOptions::default(),
        1,
        &(),
        &AtomicBool::new(false),
    );
    pruned.map_err(|error| format!("prune at the end: {}", chain(&error)))?;
    let repo = open(&store, anchor, owner, OpenOptions::default());
    let repo = repo.map_err(|error| format!("after the last prune: {}", chain(&error)))?;
    let report = sound(&repo, inner)?;
    if report != 0 {
        return Err(format!("{report} packs are left over after the last prune"));
    }
    let hints = store.objects();
    match hints.keys().find(|name| name.kind() == ObjectKind::Hint) {
        Some(name) => Err(format!("{name} is left over after the last prune")),
        None => Ok(()),
    }
}

fn open(
    store: &MemBackend,
    anchor: Anchor,
    identity: &Identity,
    options: OpenOptions,
) -> Result<Repository, RepoError> {
    // So late that nobody believes a sign of life any more.
    let clock = FixedClock::new(0);
    clock.set(Timestamp {
        secs: 4_000_000_000,
        nanos: 0,
    });
    let env = Env::new(clock, SeededRandom::new(1), [1; 32])?;
    let me = OpenedSlot {
        identity: identity.clone(),
        anchor,
    };
    let secret = Secret::Opened(Box::new(me));
    Repository::open(Arc::new(store.clone()), env, secret, options)
}

fn check_all(repo: &Repository) -> Result<CheckReport, Broken> {
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 1,
    };
    let report = check(repo, options, &(), &AtomicBool::new(false));
    report.map_err(|error| format!("check at the end: {}", chain(&error)))
}

/// Checks everything and restores every snapshot; returns how many packs nothing refers to.
fn sound(repo: &Repository, inner: &Inner) -> Result<u64, Broken> {
    let report = check_all(repo)?;
    let found = report
        .findings
        .iter()
        .filter(|finding| finding.severity != Severity::Note)
        .map(|finding| finding.what.to_string())
        // Keys are given here: there are no slots.
        .find(|what| !what.contains("its password opens nothing"));
    if let Some(what) = found {
        return Err(format!("check at the end: {what}"));
    }
    for id in repo.snapshots().into_keys() {
        let loaded = load_record(repo, id).map_err(|error| chain(&error))?;
        let found = restore(repo, loaded.snapshot.tree, &mut |_| {});
        let found = found.map_err(|error| format!("{id} at the end: {}", chain(&error)))?;
        if inner.watch.expected(&id) != Some(&found) {
            return Err(format!("{id} restores something else at the end"));
        }
    }
    Ok(report.objects.unreferenced.count)
}
