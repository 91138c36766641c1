//! [`MemBackend`]: objects in memory; the shortest implementation of the contract, which the
//! others are compared with. A clone is another handle of the same store.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Backend, BackendError, BackendErrorKind, ObjectKind, ObjectName, PutOutcome};
use crate::id::RunId;

/// The objects of a store; the bytes are shared between copies of the map.
type Objects = BTreeMap<ObjectName, Arc<Vec<u8>>>;

/// A store in memory. Everything in it is as durable as the process.
#[derive(Clone)]
pub struct MemBackend {
    label: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    reserve: bool,
}

impl Default for MemBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl MemBackend {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_objects("memory", Objects::new())
    }

    /// A store with the given contents; `label` is its location in messages.
    #[must_use]
    pub fn with_objects(label: &str, objects: BTreeMap<ObjectName, Arc<Vec<u8>>>) -> Self {
        let state = State {
            objects,
            reserve: false,
        };
        Self {
            label: label.into(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// A copy of the map of all objects as they are now; the bytes are shared.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<ObjectName, Arc<Vec<u8>>> {
        self.state().objects.clone()
    }

    /// Puts `bytes` under `name`, whatever was there: what a damaged disk does.
    pub fn replace(&self, name: ObjectName, bytes: Vec<u8>) {
        self.state().objects.insert(name, Arc::new(bytes));
    }

    /// Removes an object and returns what it was: what a lost file is.
    pub fn remove(&self, name: &ObjectName) -> Option<Arc<Vec<u8>>> {
        self.state().objects.remove(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code below can panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, action: &'static str, name: &ObjectName) -> Result<Arc<Vec<u8>>, BackendError> {
        let found = self.state().objects.get(name).cloned();
        found.ok_or_else(|| self.error(action, name, BackendErrorKind::NotFound))
    }

    fn error(
        &self,
        action: &'static str,
        name: &ObjectName,
        kind: BackendErrorKind,
    ) -> BackendError {
        BackendError {
            action,
            object: name.path(),
            location: self.location(),
            kind,
            source: None,
        }
    }
}

impl fmt::Debug for MemBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemBackend")
            .field("label", &self.label)
            .field("objects", &self.state().objects.len())
            .finish_non_exhaustive()
    }
}

impl Backend for MemBackend {
    fn location(&self) -> String {
        self.label.as_ref().to_owned()
    }

    fn create_layout(&self) -> Result<(), BackendError> {
        self.state().reserve = true;
        Ok(())
    }

    fn put_if_absent(
        &self,
        name: &ObjectName,
        parts: &[&[u8]],
    ) -> Result<PutOutcome, BackendError> {
        let bytes = parts.concat();
        let mut state = self.state();
        if state.objects.contains_key(name) {
            return Ok(PutOutcome::Exists);
        }
        state.objects.insert(*name, Arc::new(bytes));
        Ok(PutOutcome::Created)
    }

    fn barrier(&self, _kind: ObjectKind) -> Result<(), BackendError> {
        Ok(())
    }

    fn read_at(&self, name: &ObjectName, offset: u64, out: &mut [u8]) -> Result<(), BackendError> {
        let bytes = self.find("read", name)?;
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| bytes.get(start..start.checked_add(out.len())?));
        let Some(range) = range else {
            return Err(self.error("read", name, BackendErrorKind::TooShort));
        };
        out.copy_from_slice(range);
        Ok(())
    }

    fn read_all(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, BackendError> {
        let bytes = self.find("read", name)?;
        if u64::try_from(bytes.len()).map_or(true, |len| len > limit) {
            return Err(self.error("read", name, BackendErrorKind::TooLarge));
        }
        Ok(bytes.as_ref().clone())
    }

    fn len(&self, name: &ObjectName) -> Result<u64, BackendError> {
        let bytes = self.find("measure", name)?;
        u64::try_from(bytes.len())
            .map_err(|_| self.error("measure", name, BackendErrorKind::TooLarge))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.remove(name);
        Ok(())
    }

    fn list(
        &self,
        kind: ObjectKind,
        found: &mut dyn FnMut(ObjectName, u64),
    ) -> Result<(), BackendError> {
        // The lock is released before `found` runs: it may use the store.
        for (name, bytes) in self.objects() {
            if name.kind() == kind
                && let Ok(len) = u64::try_from(bytes.len())
            {
                found(name, len);
            }
        }
        Ok(())
    }

    fn replace_verified(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), BackendError> {
        self.replace(*name, bytes.to_vec());
        Ok(())
    }

    fn release_reserve(&self) -> Result<bool, BackendError> {
        Ok(std::mem::take(&mut self.state().reserve))
    }

    fn restore_reserve(&self) -> Result<bool, BackendError> {
        self.state().reserve = true;
        Ok(true)
    }

    fn is_run_over(&self, _run: RunId) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn remove_leftovers(&self) -> Result<u64, BackendError> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::conformance::{Subject, conformance},
        MemBackend,
    };

    #[test]
    fn the_memory_store_keeps_the_contract() {
        conformance(|| Subject::new(MemBackend::new()));
    }
}
