//! What must hold of what a crash left: it opens, what was promised is there, every live snapshot
//! restores byte by byte, the next backup succeeds and restores, `check --read-data` finds nothing.
//! Thorough: a prune then leaves nothing behind, and all of that holds once more.
//!
//! Where a disk has torn an entry of the log, which it had reported to be durable, the repository
//! may refuse to open or lack what stood in the entry. What was promised before must be there all
//! the same, the entry must be named, and without it everything must hold. A torn slot is named by
//! a check, and without it everything must hold.

use std::sync::Arc;

use strongroom_core::{
    check::{CheckReport, What},
    snapshots,
};
use strongroom_repo::{
    backend::{MemBackend, ObjectKind, ObjectName, testing::CrashState},
    check::Severity,
    crypto::KdfParams,
    error::Error as RepoError,
    format::slot::Role,
    repository::{NewKey, Repository},
};

use super::{
    Promise, Scene,
    scenes::{CHANGED, SECOND},
    world::{Door, Generation, KeySet, PASSWORD, World, story},
};

/// Days after which nobody believes that a crashed run still goes on.
const LATER: i64 = 3;

/// What is left of a store.
pub(super) struct Image<'a> {
    pub(super) store: &'a MemBackend,
    pub(super) door: &'a Door,
    pub(super) torn: Option<ObjectName>,
    /// What was promised before.
    pub(super) promised: &'a [Promise],
    /// Whether keys are added and removed as well.
    pub(super) change_keys: bool,
    pub(super) thorough: bool,
}

/// Inspects what a crash left, and goes on with it.
///
/// # Errors
/// What is wrong.
pub fn inspect(
    world: &World,
    scene: &Scene,
    state: &CrashState,
    promised: &[Promise],
    thorough: bool,
) -> Result<(), String> {
    let image = Image {
        store: &state.image,
        door: &scene.door,
        torn: state.torn,
        promised,
        change_keys: scene.name.starts_with("key"),
        thorough,
    };
    inspect_image(world, &image)
}

pub(super) fn inspect_image(world: &World, image: &Image<'_>) -> Result<(), String> {
    let repo = match (image.door, image.promised.is_empty()) {
        // An entry or a slot that was torn belongs to a repository that never was.
        (Door::Password(_), true) => made_at_last(world, image)?,
        _ => {
            let (repo, is_away) = open(world, image)?;
            let again = match is_away {
                true => None,
                false => without_torn(world, image, &repo)?,
            };
            again.unwrap_or(repo)
        }
    };
    keep(world, image, &repo)?;
    world.compare_all(&repo)?;
    let next = world
        .save(&repo, Generation::Next)
        .map_err(|error| format!("the next backup: {}", story(&error)))?;
    let saved = snapshots::load(&repo, next).map_err(|error| story(&error))?;
    world.compare(&repo, &saved)?;
    world.check(&repo)?;
    if image.change_keys {
        change_keys_again(&repo)?;
    }
    if image.thorough {
        tidy(world, image, &repo)?;
    }
    Ok(())
}

/// Opens the repository; where a torn entry of the log keeps from it, that is named and taken away,
/// which is told as well.
fn open(world: &World, image: &Image<'_>) -> Result<(Repository, bool), String> {
    let again = || world.open(Arc::new(image.store.clone()), image.door, LATER);
    let error = match again() {
        Ok(repo) => return Ok((repo, false)),
        Err(error) => error,
    };
    let words = story(&error);
    match image.torn {
        Some(name @ ObjectName::Log(seq)) if words.contains(&format!("log entry {seq}")) => {
            image.store.remove(&name);
            let repo = again().map_err(|error| format!("without {name}: {}", story(&error)))?;
            Ok((repo, true))
        }
        _ => Err(format!("does not open: {words}")),
    }
}

/// Takes a torn entry of the log away that opens and lacks something, or a torn slot; what was
/// promised before does not need it, and a check names it.
fn without_torn(
    world: &World,
    image: &Image<'_>,
    repo: &Repository,
) -> Result<Option<Repository>, String> {
    let Some(name @ (ObjectName::Log(_) | ObjectName::Key(_))) = image.torn else {
        return Ok(None);
    };
    for promise in image.promised {
        if let Promise::Committed(id) = promise {
            let loaded = snapshots::load(repo, *id).map_err(|error| story(&error))?;
            world.compare(repo, &loaded)?;
        }
    }
    let is_named = |words: &str| match name {
        ObjectName::Log(seq) if words.contains(&format!("log entry {seq}")) => true,
        name => words.contains(&name.path()),
    };
    match world.check(repo) {
        Err(wrong) if is_named(&wrong) => {}
        Err(wrong) => return Err(format!("check does not name {name}: {wrong}")),
        // All of it can be read from what is left, and that it lacks something is told.
        Ok(report) if told_of(&report, &name) => return Ok(None),
        Ok(_) => return Err(format!("check says nothing of {name}, which is torn")),
    }
    image.store.remove(&name);
    let again = world.open(Arc::new(image.store.clone()), image.door, LATER);
    let again = again.map_err(|error| format!("without {name}: {}", story(&error)))?;
    keep(world, image, &again)?;
    Ok(Some(again))
}

fn told_of(report: &CheckReport, name: &ObjectName) -> bool {
    let mut told = report.findings.iter();
    told.any(|finding| {
        matches!(&finding.what, What::Object(found) if found.object == Some(*name))
            && finding.severity > Severity::Note
    })
}

/// After a crash of `init` there is a whole repository, or none; then the next `init` makes one, or
/// says what is in the way.
fn made_at_last(world: &World, image: &Image<'_>) -> Result<Repository, String> {
    let Image { door, torn, .. } = *image;
    let store = || Arc::new(image.store.clone());
    match world.open(store(), door, LATER) {
        Ok(repo) => return Ok(repo),
        Err(RepoError::NoRepository { .. }) => {}
        Err(error) if torn.is_some() => {
            // Only a disk that lies comes here.
            let words = story(&error);
            let name = torn.filter(|name| words.contains(&name.path()));
            let name = name.ok_or_else(|| format!("open does not say what to remove: {words}"))?;
            image.store.remove(&name);
        }
        Err(error) => return Err(format!("half a repository: {}", story(&error))),
    }
    match world.create(store(), door) {
        Ok(repo) => Ok(repo),
        Err(error) => Err(format!("init again: {}", story(&error))),
    }
}

/// Whether the promises are kept.
fn keep(world: &World, image: &Image<'_>, repo: &Repository) -> Result<(), String> {
    let live = repo.snapshots();
    let store = image.store;
    for promise in image.promised {
        let kept = match promise {
            Promise::Committed(id) => live.contains_key(id),
            Promise::Forgotten(id) => !live.contains_key(id),
            Promise::Opens(password) => opens(world, store, password),
            Promise::Shut(password) => !opens(world, store, password),
        };
        if !kept {
            return Err(format!("not kept: {promise:?}"));
        }
    }
    let known = [PASSWORD, CHANGED, SECOND];
    if !image.change_keys || known.iter().any(|password| opens(world, store, password)) {
        Ok(())
    } else {
        Err("no password opens it any more".to_owned())
    }
}

/// Whether a password opens the repository. Where the keys and the log are as in an earlier image,
/// so is the answer: deriving a key costs time on purpose.
fn opens(world: &World, store: &MemBackend, password: &'static [u8]) -> bool {
    let keys = key_set(store);
    if let Some(known) = world.remembered(keys, password) {
        return known;
    }
    let door = Door::Password(password);
    let opens = world.open(Arc::new(store.clone()), &door, LATER).is_ok();
    world.remember(keys, password, opens);
    opens
}

fn key_set(store: &MemBackend) -> KeySet {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in store.objects() {
        if matches!(name.kind(), ObjectKind::Key | ObjectKind::Keyring) {
            hasher.update(name.path().as_bytes()).update(&bytes);
        }
        if name.kind() == ObjectKind::Log {
            hasher.update(name.path().as_bytes());
        }
    }
    hasher.finalize().into()
}

/// Keys can be listed, added and removed.
fn change_keys_again(repo: &Repository) -> Result<(), String> {
    let wrong = |what: &str, error: RepoError| format!("{what}: {}", story(&error));
    let key = NewKey {
        label: "third@test".to_owned(),
        role: Role::Reader,
        password: b"third",
        kdf: KdfParams::DEFAULT,
    };
    let slot = repo.add_key(key).map_err(|e| wrong("key add", e))?;
    let keys = repo.keys().map_err(|e| wrong("key list", e))?;
    if !keys.iter().any(|key| key.slot == slot && key.live) {
        return Err("the new key is not listed".to_owned());
    }
    for key in keys.iter().filter(|key| !key.current) {
        repo.remove_key(key.slot)
            .map_err(|e| wrong("key remove", e))?;
    }
    Ok(())
}

/// A prune leaves nothing that nobody needs, and nothing is lost.
fn tidy(world: &World, image: &Image<'_>, repo: &Repository) -> Result<(), String> {
    let pruned = world.prune(repo);
    pruned.map_err(|error| format!("prune: {}", story(&error)))?;
    let again = world
        .open(Arc::new(image.store.clone()), image.door, LATER)
        .map_err(|error| format!("after a prune: {}", story(&error)))?;
    world.compare_all(&again)?;
    again
        .heal()
        .map_err(|error| format!("heal: {}", story(&error)))?;
    // What a torn entry carried may be known from elsewhere, and stays torn.
    match image.torn {
        Some(_) => world.check(&again)?,
        None => world.check_well(&again)?,
    };
    if !again.state().open_sweeps.is_empty() {
        return Err("a sweep is left open".to_owned());
    }
    let objects = image.store.objects();
    let count = |kind| objects.keys().filter(|name| name.kind() == kind).count();
    let (stored, indexed) = (count(ObjectKind::Pack), again.index().packs().count());
    if stored != indexed {
        return Err(format!(
            "{stored} packs are stored, {indexed} of them known"
        ));
    }
    match count(ObjectKind::Hint) {
        0 => Ok(()),
        hints => Err(format!("{hints} signs of life of dead runs are left")),
    }
}
