//! Signs of life: a run that writes packs keeps `hint/<random>` while it goes on, so that a prune
//! leaves alone what no index names yet and what no snapshot refers to yet. Politeness only: a
//! prune that goes on regardless costs the other run its work, never a snapshot.
//!
//! A hint is believed for a day and renewed before that. Where the store can tell that the run
//! which left it is gone, it is believed no longer.

use std::sync::{Arc, Mutex, PoisonError};

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
/// Largest hint: a label, a time and two short fields.
const MAX_LEN: u64 = 4 << 10;
/// For how long a hint is believed, in seconds from its own time, either way.
pub const FRESH_SECS: i64 = 24 * 60 * 60;
/// After how many seconds a run that goes on renews its hint.
const RENEW_SECS: i64 = FRESH_SECS / 4;

/// Extension: the log's tail when the run began, `u64`.
const SINCE: u16 = 1;
/// Extension: the run that the store knows, 16 bytes.
const RUN: u16 = 2;

/// What a run says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHint {
    /// When this was written, by the run's own clock.
    pub time: Timestamp,
    /// Whose run, for people.
    pub label: String,
    /// The last log entry when it began; `None` where it does not say.
    pub since: Option<u64>,
    /// The run whose end the store may know of ([`Backend::is_run_over`]).
    pub run: Option<RunId>,
}

#[derive(Serialize, Deserialize)]
struct Fields {
    time: Timestamp,
    label: String,
}

impl RunHint {
    /// The stored form; not sealed, since it holds no secret and proves nothing.
    ///
    /// # Errors
    /// As [`record::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut ext = Ext::default();
        if let Some(since) = self.since {
            ext.set(SINCE, since.to_le_bytes().to_vec());
        }
        if let Some(run) = self.run {
            ext.set(RUN, run.as_bytes().to_vec());
        }
        let (time, label) = (self.time, self.label.clone());
        record::encode(&Fields { time, label }, &ext, WHAT)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (Fields { time, label }, ext) = record::decode(bytes, WHAT)?;
        let malformed = |_| DecodeError::Malformed { what: WHAT };
        let since = ext.find(SINCE).map(<[u8; 8]>::try_from).transpose();
        let run = ext.find(RUN).map(<[u8; RunId::LEN]>::try_from).transpose();
        Ok(Self {
            time,
            label,
            since: since.map_err(malformed)?.map(u64::from_le_bytes),
            run: run.map_err(malformed)?.map(RunId::new),
        })
    }

    /// Whether the run may still go on.
    #[must_use]
    pub const fn is_fresh(&self, now: Timestamp) -> bool {
        self.age(now) < FRESH_SECS
    }

    const fn age(&self, now: Timestamp) -> i64 {
        now.secs.saturating_sub(self.time.secs).saturating_abs()
    }
}

/// A hint that stays while this lives.
#[derive(Debug)]
pub(crate) struct SignOfLife {
    backend: Arc<dyn Backend>,
    env: Env,
    shown: Mutex<(ObjectName, RunHint)>,
}

impl SignOfLife {
    /// Puts a hint of a run that begins after entry `since`; none where that fails, since nothing
    /// depends on it.
    pub(crate) fn show(
        backend: &Arc<dyn Backend>,
        env: &Env,
        label: String,
        since: u64,
    ) -> Option<Self> {
        let hint = RunHint {
            time: env.now(),
            label,
            since: Some(since),
            run: Some(env.run()),
        };
        let name = put(backend.as_ref(), env, &hint)?;
        Some(Self {
            backend: Arc::clone(backend),
            env: env.clone(),
            shown: Mutex::new((name, hint)),
        })
    }

    /// Says that the run goes on, once what it said last is some hours old.
    pub(crate) fn renew(&self) {
        let Ok(mut shown) = self.shown.try_lock() else {
            return;
        };
        let (name, hint) = &mut *shown;
        let now = self.env.now();
        if hint.age(now) < RENEW_SECS {
            return;
        }
        // Whether it can be put or not: the next try is hours from now.
        hint.time = now;
        // The new one first: at no moment does the run seem to be gone.
        if let Some(new) = put(self.backend.as_ref(), &self.env, hint) {
            let old = std::mem::replace(name, new);
            self.remove(&old);
        }
    }

    fn remove(&self, name: &ObjectName) {
        if let Err(error) = self.backend.delete(name) {
            tracing::debug!(%error, "a sign of life could not be removed");
        }
    }
}

impl Drop for SignOfLife {
    fn drop(&mut self) {
        let name = self.shown.lock().unwrap_or_else(PoisonError::into_inner).0;
        self.remove(&name);
    }
}

/// Puts a hint under a name of its own: a run that writes twice at once has two.
fn put(backend: &dyn Backend, env: &Env, hint: &RunHint) -> Option<ObjectName> {
    let name = ObjectName::Hint(RunId::new(env.random().ok()?));
    match backend.put_if_absent(&name, &[&hint.encode().ok()?]) {
        Ok(_) => Some(name),
        Err(error) => {
            tracing::debug!(%error, "no sign of life could be left");
            None
        }
    }
}

/// The hints that are there: of runs that may go on, and the names of those that nobody believes
/// any more.
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
            Ok(hint) if hint.is_fresh(now) && !is_over(backend, &hint) => fresh.push(hint),
            _ => stale.push(name),
        }
    }
    Ok((fresh, stale))
}

/// Whether the store knows that the run is gone; where it cannot say, the run may go on.
fn is_over(backend: &dyn Backend, hint: &RunHint) -> bool {
    let over = |run| {
        backend.is_run_over(run).unwrap_or_else(|error| {
            tracing::debug!(%error, "whether a run goes on is not known");
            false
        })
    };
    hint.run.is_some_and(over)
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
