//! The commands whose crashes are gone through, each recorded on a store in memory.

use std::{collections::BTreeMap, sync::Arc};

use strongroom_repo::{
    backend::{
        MemBackend, ObjectKind, ObjectName,
        testing::{CrashState, Depth, FaultBackend},
    },
    crypto::KdfParams,
    error::Error,
    format::{
        frame::{self, FrameKind},
        slot::{Role, Slot},
    },
    id::{SlotId, SnapshotId},
    keys::open_slot,
    repository::{NewKey, Repository},
};

use super::{
    Promise, Scene,
    world::{Door, Generation, PASSWORD, World},
};

/// The password of a second key.
pub const SECOND: &[u8] = b"second";
/// The password that takes the place of the first.
pub const CHANGED: &[u8] = b"changed";

/// The contents of a store.
pub type Objects = BTreeMap<ObjectName, Arc<Vec<u8>>>;

/// A repository to begin with.
#[derive(Clone)]
pub struct Start {
    /// Its objects.
    pub objects: Objects,
    /// How to open it.
    pub door: Door,
}

/// A command while it is recorded.
pub struct Recording<'a> {
    store: &'a FaultBackend,
    promises: Vec<(usize, Promise)>,
}

impl Recording<'_> {
    /// The command tells its user something, now.
    pub fn promise(&mut self, promise: Promise) {
        self.promises.push((self.store.history().len(), promise));
    }
}

impl Start {
    /// An empty repository.
    #[must_use]
    pub fn empty(world: &World) -> Self {
        let store = MemBackend::new();
        let by_password = Door::Password(PASSWORD);
        world.create(Arc::new(store.clone()), &by_password).unwrap();
        let objects = store.objects();
        let door = opened(&objects);
        Self { objects, door }
    }

    /// What a crash of a scene left.
    #[must_use]
    pub fn after_crash(scene: &Scene, state: &CrashState) -> Self {
        Self {
            objects: state.image.objects(),
            door: scene.door.clone(),
        }
    }

    /// Goes on from here.
    #[must_use]
    pub fn then(&self, world: &World, act: impl FnOnce(&Repository)) -> Self {
        let store = self.store("start");
        let repo = world.open(Arc::new(store.clone()), &self.door, 0).unwrap();
        act(&repo);
        drop(repo);
        Self {
            objects: store.objects(),
            door: self.door.clone(),
        }
    }

    /// With so many generations saved.
    #[must_use]
    pub fn with(&self, world: &World, generations: &[Generation]) -> Self {
        self.then(world, |repo| {
            for generation in generations {
                world.save(repo, *generation).unwrap();
            }
        })
    }

    fn store(&self, label: &str) -> MemBackend {
        MemBackend::with_objects(label, self.objects.clone())
    }

    /// Records a command. What was committed before must stay, unless the command forgets it.
    #[must_use]
    pub fn record(
        &self,
        world: &World,
        name: &str,
        act: impl FnOnce(&Repository, &mut Recording<'_>),
    ) -> Scene {
        let store = Arc::new(FaultBackend::from(self.store(name)));
        let repo = world.open(store.clone(), &self.door, 0).unwrap();
        let before: Vec<SnapshotId> = repo.snapshots().into_keys().collect();
        let mut recording = Recording {
            store: &store,
            promises: Vec::new(),
        };
        act(&repo, &mut recording);
        let mut promises = recording.promises;
        let after = repo.snapshots();
        let kept = before.iter().filter(|id| after.contains_key(id));
        promises.extend(kept.map(|id| (0, Promise::Committed(*id))));
        drop(repo);
        Scene {
            name: name.to_owned(),
            history: store.history(),
            promises,
            door: self.door.clone(),
        }
    }
}

/// The key that [`PASSWORD`] opens.
fn opened(objects: &Objects) -> Door {
    let is_key = |name: &&ObjectName| name.kind() == ObjectKind::Key;
    let name = objects.keys().find(is_key).unwrap();
    let framed = frame::decode(FrameKind::Slot, &objects[name]).unwrap();
    let slot = Slot::decode(framed.inner).unwrap();
    Door::Opened(Box::new(open_slot(&slot, PASSWORD).unwrap().unwrap()))
}

/// `init`, in a store that holds what an earlier crash left.
#[must_use]
pub fn init(world: &World, name: &str, left: Objects) -> Scene {
    let store = Arc::new(FaultBackend::from(MemBackend::with_objects(name, left)));
    let door = Door::Password(PASSWORD);
    world.create(store.clone(), &door).unwrap();
    let history = store.history();
    let promises = vec![(history.len(), Promise::Opens(PASSWORD))];
    Scene {
        name: name.to_owned(),
        history,
        promises,
        door,
    }
}

/// `backup`.
#[must_use]
pub fn backup(world: &World, name: &str, start: &Start, generation: Generation) -> Scene {
    start.record(world, name, |repo, recording| {
        let id = world.save(repo, generation).unwrap();
        recording.promise(Promise::Committed(id));
    })
}

/// `backup` with a checkpoint before its end. Whether there is one depends on how quick the threads
/// are that store packs; it is recorded until there is.
#[must_use]
pub fn backup_with_checkpoint(
    world: &World,
    name: &str,
    start: &Start,
    generation: Generation,
) -> Scene {
    let recorded = (0..100).map(|_| backup(world, name, start, generation));
    let mut with = recorded.filter(|scene| !past_checkpoint(scene, start).is_empty());
    with.next().unwrap()
}

/// `backup`, stopped by its user.
#[must_use]
pub fn stopped_backup(world: &World, start: &Start) -> Scene {
    start.record(world, "stopped backup", |repo, _| {
        world.save_stopped(repo, Generation::Two, 5).unwrap_err();
    })
}

/// `forget` of the oldest snapshot, then `prune`.
#[must_use]
pub fn forget_and_prune(world: &World, start: &Start) -> Scene {
    start.record(world, "forget and prune", |repo, recording| {
        let oldest = strongroom_core::snapshots::load_all(repo).snapshots[0].id;
        repo.remove_snapshots(&[oldest]).unwrap();
        recording.promise(Promise::Forgotten(oldest));
        let report = world.prune(repo).unwrap();
        assert!(report.swept > 0, "{report:?}");
    })
}

/// `prune` of what is there.
#[must_use]
pub fn prune(world: &World, name: &str, start: &Start) -> Scene {
    start.record(world, name, |repo, _| {
        world.prune(repo).unwrap();
    })
}

/// Damage is recorded, what lies there is saved anew, and a `prune` copies the rest.
#[must_use]
pub fn mend(world: &World, start: &Start) -> Scene {
    start.record(world, "mend", |repo, recording| {
        let (id, report) = world.mend(repo, Generation::Two).unwrap();
        assert!(report.rescued.packs > 0 && report.swept > 0, "{report:?}");
        recording.promise(Promise::Committed(id));
    })
}

fn second_key(repo: &Repository) -> SlotId {
    try_second_key(repo).unwrap()
}

pub(super) fn try_second_key(repo: &Repository) -> Result<SlotId, Error> {
    let key = NewKey {
        label: "second@test".to_owned(),
        role: Role::Owner,
        password: SECOND,
        kdf: KdfParams::DEFAULT,
    };
    repo.add_key(key)
}

/// `key add`.
#[must_use]
pub fn add_key(world: &World, start: &Start) -> Scene {
    start.record(world, "key add", |repo, recording| {
        recording.promise(Promise::Opens(PASSWORD));
        second_key(repo);
        recording.promise(Promise::Opens(SECOND));
    })
}

/// `key remove`.
#[must_use]
pub fn remove_key(world: &World, start: &Start) -> Scene {
    let start = start.then(world, |repo| {
        second_key(repo);
    });
    start.record(world, "key remove", |repo, recording| {
        recording.promise(Promise::Opens(PASSWORD));
        let keys = repo.keys().unwrap();
        let other = keys.iter().find(|key| !key.current).unwrap();
        repo.remove_key(other.slot).unwrap();
        recording.promise(Promise::Shut(SECOND));
    })
}

/// `key passwd`.
#[must_use]
pub fn change_password(world: &World, start: &Start) -> Scene {
    start.record(world, "key passwd", |repo, recording| {
        repo.change_password(CHANGED, KdfParams::DEFAULT).unwrap();
        recording.promise(Promise::Opens(CHANGED));
        recording.promise(Promise::Shut(PASSWORD));
    })
}

/// The crashes of a backup that has made a checkpoint and no snapshot yet.
#[must_use]
pub fn past_checkpoint(scene: &Scene, start: &Start) -> Vec<CrashState> {
    let (before, end) = (entries(&start.objects), entries(&scene.history.end()));
    let mut states = scene.history.crashes(Depth::QUICK).states;
    states.retain(|state| {
        let now = entries(&state.image.objects());
        state.torn.is_none() && before < now && now < end
    });
    states
}

/// How long the log is.
fn entries(objects: &Objects) -> usize {
    let is_log = |name: &&ObjectName| name.kind() == ObjectKind::Log;
    objects.keys().filter(is_log).count()
}
