//! Open pack files, so that a restore that reads many blobs of a pack opens it once. A bounded
//! list, most recently used last; an entry is only a way to read bytes that are immutable by
//! contract, so nothing breaks when it is evicted or the file is deleted by somebody else.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use super::super::ObjectName;

/// Most files kept open: far below the usual limit of 1024 descriptors, above the number of
/// packs that a restore reads side by side.
const CAPACITY: usize = 64;

/// What a file was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// To be read through the page cache.
    Cached,
    /// To be read past it.
    Direct,
    /// To be asked what of it is in the page cache.
    Probe,
}

/// The open files, least recently used first.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<Vec<(Key, Arc<OwnedFd>)>>);

type Key = (ObjectName, Opened);

impl Handles {
    /// The open file of `name`, which becomes the most recently used.
    pub(super) fn find(&self, name: &ObjectName, opened: Opened) -> Option<Arc<OwnedFd>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(held, _)| *held == (*name, opened))?;
        let entry = open.remove(at);
        let file = Arc::clone(&entry.1);
        open.push(entry);
        Some(file)
    }

    /// Keeps `file` open for later reads of `name`.
    pub(super) fn keep(&self, name: ObjectName, opened: Opened, file: &Arc<OwnedFd>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(held, _)| *held != (name, opened));
        if open.len() >= CAPACITY {
            open.remove(0);
        }
        open.push(((name, opened), Arc::clone(file)));
    }

    /// Closes the files of `name`, where they are open.
    pub(super) fn forget(&self, name: &ObjectName) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|((held, _), _)| held != name);
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}
