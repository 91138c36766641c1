//! Storage: the [`Backend`] trait, what objects are called, and what every implementation owes.
//!
//! A backend knows names and bytes, never what they mean. All safety of the repository rests on
//! three promises: [`Backend::put_if_absent`] never replaces and never shows a part of an object,
//! [`Backend::barrier`] makes what was put durable, and a read returns what was put. Listings are
//! hints. Every implementation and decorator passes `testing::conformance`.

mod local;
mod location;
mod mem;
mod name;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::fmt;

use crate::id::RunId;

pub use local::{DEFAULT_RESERVE_LEN, LocalBackend, LocalOptions};
pub use location::{Location, LocationError};
pub use mem::MemBackend;
pub use name::{ConfigCopy, ObjectKind, ObjectName};

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an object that existed already or whose fate is unknown was not necessarily stored"]
pub enum PutOutcome {
    /// The object is there now, with exactly the given bytes.
    Created,
    /// The name was taken; nothing changed.
    Exists,
    /// The store did not say: read the name to find out.
    Unknown,
}

/// A store of immutable named objects.
///
/// Calls block. An implementation may be called from many threads at once.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Where this is, for messages to people. Holds no secret.
    fn location(&self) -> String;

    /// Prepares an empty place: folders, reserve file. Succeeds where it was done before.
    fn create_layout(&self) -> Result<(), BackendError>;

    /// Stores the concatenation of `parts` under `name` if and only if the name is free.
    ///
    /// The whole object appears at once or not at all. On `Created` its bytes are durable, its
    /// name only after [`Backend::barrier`] (a crash before may lose the object, never show a
    /// part of it). After an error nothing is under `name` that this call has put there, or the
    /// whole object is. After a failed sync the implementation must not believe a second sync of
    /// the same file.
    fn put_if_absent(&self, name: &ObjectName, parts: &[&[u8]])
    -> Result<PutOutcome, BackendError>;

    /// Makes durable the names of all objects of `kind` that are visible here, whoever put them,
    /// and the removals that came before. Of packs and parity, which only their own writer makes
    /// others depend on, it covers what was put, met or removed through this handle.
    ///
    /// After a failure the names put since the last barrier must not be relied on, and every
    /// further barrier of this kind through this handle fails as well: a store reports a failed
    /// sync once and then forgets it.
    fn barrier(&self, kind: ObjectKind) -> Result<(), BackendError>;

    /// Reads `out.len()` bytes from `offset`, all of them, or fails; an object that ends earlier
    /// is [`BackendErrorKind::TooShort`].
    fn read_at(&self, name: &ObjectName, offset: u64, out: &mut [u8]) -> Result<(), BackendError>;

    /// The same from the medium itself, where the store can tell: a check that memory answers for a
    /// disk proves nothing.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    fn read_stored(
        &self,
        name: &ObjectName,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), BackendError> {
        self.read_at(name, offset, out)
    }

    /// Reads a whole object of at most `limit` bytes; a larger one is
    /// [`BackendErrorKind::TooLarge`], before anything is allocated for it.
    fn read_all(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, BackendError>;

    /// The length of an object in bytes.
    fn len(&self, name: &ObjectName) -> Result<u64, BackendError>;

    /// Removes an object. Removing one that is not there succeeds. Durable after
    /// [`Backend::barrier`]; until then a crash may bring the object back.
    fn delete(&self, name: &ObjectName) -> Result<(), BackendError>;

    /// Calls `found` for the objects of a kind that the store shows now, with their lengths, in
    /// any order. Names that are not ours are passed over. Never proof that something is missing.
    fn list(
        &self,
        kind: ObjectKind,
        found: &mut dyn FnMut(ObjectName, u64),
    ) -> Result<(), BackendError>;

    /// Replaces an object by healed bytes, or puts it back where it was lost; whole or not at all,
    /// and durable on return. Only for callers that have proven that `bytes` reproduce the name
    /// and every checksum.
    fn replace_verified(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), BackendError>;

    /// Gives up the space kept in reserve, so that a prune can run on a full disk. True if there
    /// was any.
    fn release_reserve(&self) -> Result<bool, BackendError>;

    /// Sets space aside again after [`Backend::release_reserve`]. True if a reserve is there
    /// afterwards; false where the store has no room for one or keeps none.
    fn restore_reserve(&self) -> Result<bool, BackendError>;

    /// Whether the run that writes under this name ([`LocalOptions::run`]) is certainly gone. False
    /// where it goes on, and where the store cannot tell.
    fn is_run_over(&self, run: RunId) -> Result<bool, BackendError>;

    /// Removes leftovers of interrupted puts (temporary files of runs that are gone); returns how
    /// many. Never touches a named object.
    fn remove_leftovers(&self) -> Result<u64, BackendError>;
}

/// A storage operation that failed, on which object, and how.
#[derive(Debug, thiserror::Error)]
#[error("{action} {object} at {location}{}", told(*.kind, .source.as_ref()))]
pub struct BackendError {
    /// What was being done: "read", "write", "sync", ...
    pub action: &'static str,
    /// The object's name relative to the repository.
    pub object: String,
    /// The store.
    pub location: String,
    /// What went wrong.
    pub kind: BackendErrorKind,
    /// The system's own error, where there is one.
    #[source]
    pub source: Option<std::io::Error>,
}

/// What an error says of its kind: nothing where the system's own words follow and say more.
fn told(kind: BackendErrorKind, source: Option<&std::io::Error>) -> String {
    match (kind, source) {
        (BackendErrorKind::Io, Some(_)) => String::new(),
        _ => format!(": {kind}"),
    }
}

/// The kinds of failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendErrorKind {
    /// No object has that name.
    #[error("not found")]
    NotFound,
    /// The store itself is gone, or a part of its layout: nothing follows about the object.
    #[error("the repository is not there")]
    Unavailable,
    /// The object ends before the wanted range.
    #[error("the object is shorter than expected")]
    TooShort,
    /// The object is larger than its kind may be.
    #[error("the object is larger than allowed")]
    TooLarge,
    /// The disk or the quota is full.
    #[error("no space left")]
    NoSpace,
    /// The store cannot be written to.
    #[error("read-only")]
    ReadOnly,
    /// Permission denied.
    #[error("permission denied")]
    Denied,
    /// Anything else the system reports.
    #[error("input/output error")]
    Io,
}

impl BackendError {
    /// True where the object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == BackendErrorKind::NotFound
    }
}
