//! Which folders have names that a crash may still lose, and the syncs that make them durable.
//! Serves [`Backend::barrier`](super::Backend::barrier); a folder whose sync failed once fails
//! for the rest of the run, because the system reports the loss once only.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{
    super::{BackendError, ObjectKind, ObjectName},
    LocalBackend,
};

/// What is to be synced, by kind.
#[derive(Debug, Default)]
pub(super) struct Folders(Mutex<BTreeMap<ObjectKind, Arc<Folder>>>);

/// The folder of one kind.
#[derive(Debug, Default)]
struct Folder {
    /// Fan-out folders touched since the last barrier.
    dirty: Mutex<BTreeSet<u8>>,
    /// Held during a barrier: the next one waits, because the folders it finds clean may not be
    /// synced yet.
    barrier: Mutex<Health>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Health {
    #[default]
    Sound,
    /// As the system reported it once.
    SyncFailed(Errno),
}

impl Folders {
    /// Notes that the folder of `name` has an entry more or less, or one by another client.
    pub(super) fn note(&self, name: &ObjectName) {
        if let Some(fan) = fan_of(name) {
            locked(&self.of(name.kind()).dirty).insert(fan);
        }
    }

    fn of(&self, kind: ObjectKind) -> Arc<Folder> {
        Arc::clone(locked(&self.0).entry(kind).or_default())
    }
}

impl LocalBackend {
    /// Syncs the folder of `kind`; of a fanned-out kind, those sub-folders that were touched.
    pub(super) fn sync_folders(&self, kind: ObjectKind) -> Result<(), BackendError> {
        let folder = self.folders.of(kind);
        let mut health = locked(&folder.barrier);
        if let Health::SyncFailed(errno) = *health {
            return Err(self.error("sync", &folder_path(kind), errno));
        }
        let paths: Vec<_> = if kind.is_fanned_out() {
            let dirty = std::mem::take(&mut *locked(&folder.dirty));
            dirty.into_iter().map(|fan| fan_path(kind, fan)).collect()
        } else {
            vec![folder_path(kind)]
        };
        for path in paths {
            let synced = match self.sync_path(&path) {
                // Copying tools drop empty folders: one that is not there holds no names.
                Err(Errno::NOENT) => match self.is_there(kind) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(Errno::NOENT),
                    Err(errno) => Err(errno),
                },
                other => other,
            };
            if let Err(errno) = synced {
                *health = Health::SyncFailed(errno);
                return Err(self.error("sync", &path, errno));
            }
        }
        Ok(())
    }

    /// Syncs one folder.
    pub(super) fn sync_path(&self, path: &str) -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let folder = self
            .sys
            .open(self.root(), path.as_ref(), flags, Mode::empty())?;
        self.sys.sync(folder.as_fd())
    }
}

/// The path of the folder of `kind`, `.` for the repository itself.
pub(super) fn folder_path(kind: ObjectKind) -> String {
    match kind {
        ObjectKind::Config => ".".to_owned(),
        kind => kind.folder().to_owned(),
    }
}

/// The path of a fan-out folder.
pub(super) fn fan_path(kind: ObjectKind, fan: u8) -> String {
    format!("{}/{fan:02x}", kind.folder())
}

/// `file` in `folder`, as [`ObjectName::path`] writes it.
pub(super) fn join(folder: &str, file: &str) -> String {
    match folder {
        "." => file.to_owned(),
        folder => format!("{folder}/{file}"),
    }
}

fn fan_of(name: &ObjectName) -> Option<u8> {
    match name {
        ObjectName::Pack(id) | ObjectName::Parity(id) => id.as_bytes().first().copied(),
        _ => None,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is held here is left half changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
