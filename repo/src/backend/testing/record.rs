//! [`RecordBackend`]: passes every call on and keeps a list of them, for tests that say what
//! storage a run touches, in which order and how often.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::super::{Backend, BackendError, ObjectKind, ObjectName, PutOutcome};
use crate::id::RunId;

/// One call of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which method.
    pub kind: CallKind,
    /// The object it names, if it names one.
    pub name: Option<ObjectName>,
    /// The kind of objects it is about, if it is about one.
    pub object_kind: Option<ObjectKind>,
    /// Where a read starts.
    pub offset: u64,
    /// Bytes given to a write, or wanted by a read of a range.
    pub len: u64,
}

/// The methods of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// [`Backend::create_layout`]
    CreateLayout,
    /// [`Backend::put_if_absent`]
    Put,
    /// [`Backend::barrier`]
    Barrier,
    /// [`Backend::read_at`]
    ReadAt,
    /// [`Backend::read_all`]
    ReadAll,
    /// [`Backend::len`]
    Len,
    /// [`Backend::delete`]
    Delete,
    /// [`Backend::list`]
    List,
    /// [`Backend::replace_verified`]
    Replace,
    /// [`Backend::release_reserve`]
    ReleaseReserve,
    /// [`Backend::restore_reserve`]
    RestoreReserve,
    /// [`Backend::is_run_over`]
    IsRunOver,
    /// [`Backend::remove_leftovers`]
    RemoveLeftovers,
}

impl CallKind {
    /// Whether the call may change what the store holds, or what of it is durable.
    #[must_use]
    pub const fn is_write(self) -> bool {
        !matches!(
            self,
            Self::ReadAt | Self::ReadAll | Self::Len | Self::List | Self::IsRunOver
        )
    }
}

impl Call {
    /// A call about the whole store.
    #[must_use]
    pub const fn of_store(kind: CallKind) -> Self {
        Self {
            kind,
            name: None,
            object_kind: None,
            offset: 0,
            len: 0,
        }
    }

    /// A call about all objects of a kind.
    #[must_use]
    pub const fn of_kind(kind: CallKind, object_kind: ObjectKind) -> Self {
        Self {
            object_kind: Some(object_kind),
            ..Self::of_store(kind)
        }
    }

    /// A call about one object.
    #[must_use]
    pub const fn of_object(kind: CallKind, name: ObjectName) -> Self {
        Self {
            name: Some(name),
            object_kind: Some(name.kind()),
            ..Self::of_store(kind)
        }
    }

    /// The same call for a range of bytes.
    #[must_use]
    pub fn with_range(self, offset: u64, len: usize) -> Self {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        Self {
            offset,
            len,
            ..self
        }
    }

    /// A put of these parts.
    #[must_use]
    pub fn put(name: ObjectName, parts: &[&[u8]]) -> Self {
        let len = parts.iter().map(|part| part.len()).sum();
        Self::of_object(CallKind::Put, name).with_range(0, len)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        match (self.name, self.object_kind) {
            (Some(name), _) => write!(f, " {name}")?,
            (None, Some(kind)) => write!(f, " {kind:?}")?,
            (None, None) => {}
        }
        if self.len > 0 {
            write!(f, " {}+{}", self.offset, self.len)?;
        }
        Ok(())
    }
}

/// A backend that writes down what it is asked.
#[derive(Debug)]
pub struct RecordBackend {
    inner: Arc<dyn Backend>,
    calls: Mutex<Vec<Call>>,
}

impl RecordBackend {
    /// Records the calls of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self {
            inner,
            calls: Mutex::new(Vec::new()),
        }
    }

    /// The calls so far, in the order in which they began.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    /// The calls since the last time this was asked.
    #[must_use]
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock())
    }

    /// How many calls of a kind there were.
    #[must_use]
    pub fn count(&self, kind: CallKind) -> usize {
        self.lock().iter().filter(|call| call.kind == kind).count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: Call) -> &dyn Backend {
        self.lock().push(call);
        self.inner.as_ref()
    }
}

impl Backend for RecordBackend {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn create_layout(&self) -> Result<(), BackendError> {
        self.note(Call::of_store(CallKind::CreateLayout))
            .create_layout()
    }

    fn put_if_absent(
        &self,
        name: &ObjectName,
        parts: &[&[u8]],
    ) -> Result<PutOutcome, BackendError> {
        self.note(Call::put(*name, parts))
            .put_if_absent(name, parts)
    }

    fn barrier(&self, kind: ObjectKind) -> Result<(), BackendError> {
        self.note(Call::of_kind(CallKind::Barrier, kind))
            .barrier(kind)
    }

    fn read_at(&self, name: &ObjectName, offset: u64, out: &mut [u8]) -> Result<(), BackendError> {
        self.note(Call::of_object(CallKind::ReadAt, *name).with_range(offset, out.len()))
            .read_at(name, offset, out)
    }

    fn read_all(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, BackendError> {
        self.note(Call::of_object(CallKind::ReadAll, *name))
            .read_all(name, limit)
    }

    fn len(&self, name: &ObjectName) -> Result<u64, BackendError> {
        self.note(Call::of_object(CallKind::Len, *name)).len(name)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        self.note(Call::of_object(CallKind::Delete, *name))
            .delete(name)
    }

    fn list(
        &self,
        kind: ObjectKind,
        found: &mut dyn FnMut(ObjectName, u64),
    ) -> Result<(), BackendError> {
        self.note(Call::of_kind(CallKind::List, kind))
            .list(kind, found)
    }

    fn replace_verified(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), BackendError> {
        self.note(Call::of_object(CallKind::Replace, *name).with_range(0, bytes.len()))
            .replace_verified(name, bytes)
    }

    fn release_reserve(&self) -> Result<bool, BackendError> {
        self.note(Call::of_store(CallKind::ReleaseReserve))
            .release_reserve()
    }

    fn restore_reserve(&self) -> Result<bool, BackendError> {
        self.note(Call::of_store(CallKind::RestoreReserve))
            .restore_reserve()
    }

    fn is_run_over(&self, run: RunId) -> Result<bool, BackendError> {
        self.note(Call::of_store(CallKind::IsRunOver))
            .is_run_over(run)
    }

    fn remove_leftovers(&self) -> Result<u64, BackendError> {
        self.note(Call::of_store(CallKind::RemoveLeftovers))
            .remove_leftovers()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::MemBackend,
            conformance::{Subject, conformance},
        },
        *,
    };

    #[test]
    fn a_recorded_store_keeps_the_contract() {
        conformance(|| Subject::new(RecordBackend::new(Arc::new(MemBackend::new()))));
    }

    #[test]
    fn calls_are_listed_in_order_with_what_they_are_about() {
        let store = RecordBackend::new(Arc::new(MemBackend::new()));
        let name = ObjectName::Log(1);
        let _ = store.put_if_absent(&name, &[b"ab", b"c"]).unwrap();
        store.barrier(ObjectKind::Log).unwrap();
        store.read_at(&name, 1, &mut [0; 2]).unwrap();
        let text: Vec<_> = store.take().iter().map(Call::to_string).collect();
        assert_eq!(
            text,
            [
                "Put log/00000000000000000001 0+3",
                "Barrier Log",
                "ReadAt log/00000000000000000001 1+2"
            ]
        );
        assert_eq!(store.calls(), []);
    }
}
