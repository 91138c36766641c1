//! Signs of life: a run that writes packs keeps `hint/<run>` while it goes on, so that a prune
//! leaves packs alone that no index names yet. Politeness only: a prune that goes on regardless
//! costs the other run its work, never a snapshot.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    backend::{Backend, ObjectKind, ObjectName},
    env::{Env, Timestamp},
    error::Result,
    format::{
        DecodeError,
        record::{self, Ext},
    },
    id::RunId,
};

const WHAT: &str = "hint";
/// Largest hint: a label and a time.
const MAX_LEN: u64 = 4 << 10;
/// For how long a hint is believed, in seconds from its own time, either way.
pub const FRESH_SECS: i64 = 24 * 60 * 60;

/// What a run says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHint {
    /// When it began, by its own clock.
    pub time: Timestamp,
    /// Whose run, for people.
    pub label: String,
}

impl RunHint {
    /// The stored form; not sealed, since it holds no secret and proves nothing.
    ///
    /// # Errors
    /// As [`record::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        record::encode(self, &Ext::default(), WHAT)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(record::decode(bytes, WHAT)?.0)
    }

    /// Whether the run may still go on.
    #[must_use]
    pub const fn is_fresh(&self, now: Timestamp) -> bool {
        now.secs.saturating_sub(self.time.secs).saturating_abs() < FRESH_SECS
    }
}

/// A hint that stays while this lives.
#[derive(Debug)]
pub(crate) struct SignOfLife {
    backend: Arc<dyn Backend>,
    name: ObjectName,
}

impl SignOfLife {
    /// Puts a hint; none where that fails, since nothing depends on it.
    pub(crate) fn show(backend: &Arc<dyn Backend>, env: &Env, label: &str) -> Option<Self> {
        let run = RunId::new(env.random().ok()?);
        let hint = RunHint {
            time: env.now(),
            label: label.to_owned(),
        };
        let name = ObjectName::Hint(run);
        match backend.put_if_absent(&name, &[&hint.encode().ok()?]) {
            Ok(_) => Some(Self {
                backend: Arc::clone(backend),
                name,
            }),
            Err(error) => {
                tracing::debug!(%error, "no sign of life could be left");
                None
            }
        }
    }
}

impl Drop for SignOfLife {
    fn drop(&mut self) {
        if let Err(error) = self.backend.delete(&self.name) {
            tracing::debug!(%error, "a sign of life could not be removed");
        }
    }
}

/// The hints that are there: fresh ones, and the names of those that nobody believes any more.
pub(crate) fn read_hints(
    backend: &dyn Backend,
    now: Timestamp,
) -> Result<(Vec<RunHint>, Vec<ObjectName>)> {
    let mut names = Vec::new();
    backend.list(ObjectKind::Hint, &mut |name, _| names.push(name))?;
    let (mut fresh, mut stale) = (Vec::new(), Vec::new());
    for name in names {
        // One that is gone by now, or cannot be read, says nothing.
        let Ok(bytes) = backend.read_all(&name, MAX_LEN) else {
            continue;
        };
        match RunHint::decode(&bytes) {
            Ok(hint) if hint.is_fresh(now) => fresh.push(hint),
            _ => stale.push(name),
        }
    }
    Ok((fresh, stale))
}

/// Body of the fuzz target: no bytes panic.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_hint(data: &[u8]) {
    if let Ok(hint) = RunHint::decode(data) {
        let again = hint.encode().map(|bytes| RunHint::decode(&bytes));
        assert_eq!(again, Ok(Ok(hint)));
    }
}
