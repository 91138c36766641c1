//! [`FaultBackend`]: the one fault machine. A store in memory that does what a [`FaultScript`]
//! says: fails a call, leaves its outcome open, crashes at it, runs full, lies once when read.
//! After a crash every call fails, and [`FaultBackend::crash_images`] gives what may be left.
//!
//! A run is a function of the script and the calls. With several threads the calls come in an
//! order of their own; triggers that name a kind or an object stay exact all the same.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    super::{
        Backend, BackendError, BackendErrorKind, MemBackend, ObjectKind, ObjectName, PutOutcome,
    },
    history::History,
    images::{Change, Step},
    next_random,
    record::{Call, CallKind},
    script::{Capacity, CrashPoint, Effect, FaultScript},
};
use crate::id::RunId;

/// The source of every error after a crash.
#[derive(Debug, thiserror::Error)]
#[error("the machine crashed")]
pub struct Crashed;

impl Crashed {
    /// Whether an error is that of a store whose machine has crashed.
    #[must_use]
    pub fn caused(error: &BackendError) -> bool {
        let inner = error.source.as_ref().and_then(std::io::Error::get_ref);
        inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

/// A store in memory on which a script plays.
#[derive(Debug)]
pub struct FaultBackend {
    store: MemBackend,
    script: FaultScript,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    calls: Vec<Call>,
    /// Per fault of the script: fitting calls seen, and how often it struck.
    seen: Vec<(u64, u64)>,
    random: u64,
    crashed: bool,
    reserve_held: bool,
    history: History,
}

impl FaultBackend {
    /// Plays `script` on `store`, whose contents count as durable.
    #[must_use]
    pub fn new(store: MemBackend, script: FaultScript) -> Self {
        let state = State {
            calls: Vec::new(),
            seen: vec![(0, 0); script.faults.len()],
            random: script.seed,
            crashed: false,
            reserve_held: false,
            history: History::new(store.objects()),
        };
        Self {
            store,
            script,
            state: Mutex::new(state),
        }
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many of the calls so far may have changed something: run a scenario without faults,
    /// then crash it at each of these.
    #[must_use]
    pub fn writes(&self) -> u64 {
        let state = self.state();
        let writes = state.calls.iter().filter(|call| call.kind.is_write());
        u64::try_from(writes.count()).unwrap_or(u64::MAX)
    }

    /// Whether every fault of the script has struck: a test whose fault never came tests nothing.
    #[must_use]
    pub fn all_struck(&self) -> bool {
        self.state().seen.iter().all(|(_, struck)| *struck > 0)
    }

    /// Whether the machine has crashed.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Stops the machine now: every later call fails.
    pub fn crash(&self) {
        self.state().crashed = true;
    }

    /// The store as it looks while it runs; for damage in mid-run.
    pub const fn store(&self) -> &MemBackend {
        &self.store
    }

    /// The stores that a crash at this moment may leave: everything issued; only what a barrier
    /// covered; that and each single later change on its own. The location of each says what it
    /// is and how to come to it.
    pub fn crash_images(&self) -> impl Iterator<Item = MemBackend> {
        let label = self.script.to_string();
        self.state().history.journal().images(&label).into_iter()
    }

    /// The same for every subset of the changes that no barrier covered; `None` where there are
    /// more than `most` of those.
    #[must_use]
    pub fn crash_subsets(&self, most: u32) -> Option<Vec<MemBackend>> {
        let label = self.script.to_string();
        self.state().history.journal().subsets(&label, most)
    }

    /// Everything that changed what a crash would leave, step by step: from a run without faults,
    /// all crashes of that run.
    #[must_use]
    pub fn history(&self) -> History {
        self.state().history.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, call: &Call, kind: BackendErrorKind) -> BackendError {
        BackendError {
            action: action(call.kind),
            object: match (call.name, call.object_kind) {
                (Some(name), _) => name.path(),
                (None, Some(kind)) => kind.folder().to_owned(),
                (None, None) => "the repository".to_owned(),
            },
            location: self.location(),
            kind,
            source: None,
        }
    }

    fn crashed_error(&self, call: &Call) -> BackendError {
        BackendError {
            source: Some(std::io::Error::other(Crashed)),
            ..self.error(call, BackendErrorKind::Io)
        }
    }

    /// Notes a call and finds out what is to go wrong with it.
    fn begin(&self, call: &Call) -> Result<(MutexGuard<'_, State>, Option<Effect>), BackendError> {
        let mut state = self.state();
        if state.crashed {
            return Err(self.crashed_error(call));
        }
        state.calls.push(call.clone());
        let mut effect = None;
        for (fault, (seen, struck)) in self.script.faults.iter().zip(&mut state.seen) {
            if !fault.trigger.fits(call) {
                continue;
            }
            *seen += 1;
            let due = *seen == fault.trigger.nth || (fault.lasting && *seen > fault.trigger.nth);
            if due && fault.effect.suits(call.kind) && effect.is_none() {
                *struck += 1;
                effect = Some(fault.effect);
            }
        }
        if effect == Some(Effect::Panic) {
            drop(state);
            #[expect(clippy::panic, reason = "what the script asks for")]
            {
                panic!("asked for by {}", self.script);
            }
        }
        Ok((state, effect))
    }

    /// A call that may change something. `apply` does it; given a length, tears it there.
    fn write<T>(
        &self,
        call: &Call,
        unknown: Option<T>,
        apply: impl FnOnce(&mut State, Option<u64>) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        let (mut state, effect) = self.begin(call)?;
        let state = &mut *state;
        match effect {
            Some(Effect::Fail(kind)) => Err(self.error(call, kind)),
            Some(Effect::FailAfter(kind)) => {
                apply(state, None)?;
                Err(self.error(call, kind))
            }
            Some(Effect::Unknown { applied }) => {
                if applied {
                    apply(state, None)?;
                }
                unknown.ok_or_else(|| self.error(call, BackendErrorKind::Io))
            }
            Some(Effect::Crash(point)) => {
                match point {
                    CrashPoint::After => apply(state, None).map(|_| ())?,
                    CrashPoint::Torn(len) if call.len > 0 => {
                        apply(state, Some(len)).map(|_| ())?;
                    }
                    CrashPoint::Before | CrashPoint::Torn(_) => {}
                }
                state.crashed = true;
                Err(self.crashed_error(call))
            }
            None
            | Some(Effect::ShortRead | Effect::FlipRead | Effect::PartialList | Effect::Panic) => {
                apply(state, None)
            }
        }
    }

    /// A call that only looks; gives the effect that is left to the caller.
    fn look(&self, call: &Call) -> Result<(MutexGuard<'_, State>, Option<Effect>), BackendError> {
        let (mut state, effect) = self.begin(call)?;
        match effect {
            Some(Effect::Fail(kind) | Effect::FailAfter(kind)) => Err(self.error(call, kind)),
            Some(Effect::Crash(_)) => {
                state.crashed = true;
                Err(self.crashed_error(call))
            }
            other => Ok((state, other)),
        }
    }

    /// Fails where `len` more bytes do not fit.
    fn make_room(&self, state: &State, call: &Call, len: u64) -> Result<(), BackendError> {
        if self.fits(state, len) {
            return Ok(());
        }
        Err(self.error(call, BackendErrorKind::NoSpace))
    }

    fn fits(&self, state: &State, len: u64) -> bool {
        let Some(Capacity { bytes, reserve }) = self.script.capacity else {
            return true;
        };
        let held = if state.reserve_held { reserve } else { 0 };
        let objects = self.store.objects();
        let used = objects.values().fold(held, |sum, object| {
            sum.saturating_add(u64::try_from(object.len()).unwrap_or(u64::MAX))
        });
        used.saturating_add(len) <= bytes
    }

    fn take_reserve(&self, state: &mut State) -> bool {
        let len = self.script.capacity.map_or(0, |capacity| capacity.reserve);
        if !state.reserve_held {
            state.reserve_held = self.fits(state, len);
        }
        state.reserve_held
    }
}

impl Backend for FaultBackend {
    fn location(&self) -> String {
        format!("{} on {}", self.script, self.store.location())
    }

    fn create_layout(&self) -> Result<(), BackendError> {
        let call = Call::of_store(CallKind::CreateLayout);
        self.write(&call, None, |state, _| {
            self.take_reserve(state);
            Ok(())
        })
    }

    fn put_if_absent(
        &self,
        name: &ObjectName,
        parts: &[&[u8]],
    ) -> Result<PutOutcome, BackendError> {
        let call = Call::put(*name, parts);
        self.write(&call, Some(PutOutcome::Unknown), |state, torn| {
            let bytes = torn_at(parts.concat(), torn);
            if self.store.len(name).is_ok() {
                return Ok(PutOutcome::Exists);
            }
            self.make_room(state, &call, call.len)?;
            let change = Change::Put(*name, Arc::new(bytes.clone()));
            state.history.add(Step::Change(change));
            self.store.put_if_absent(name, &[&bytes])
        })
    }

    fn barrier(&self, kind: ObjectKind) -> Result<(), BackendError> {
        let call = Call::of_kind(CallKind::Barrier, kind);
        self.write(&call, None, |state, _| {
            state.history.add(Step::Barrier(kind));
            Ok(())
        })
    }

    fn read_at(&self, name: &ObjectName, offset: u64, out: &mut [u8]) -> Result<(), BackendError> {
        let call = Call::of_object(CallKind::ReadAt, *name).with_range(offset, out.len());
        let (mut state, effect) = self.look(&call)?;
        self.store.read_at(name, offset, out)?;
        match effect {
            Some(Effect::ShortRead) => Err(self.error(&call, BackendErrorKind::TooShort)),
            Some(Effect::FlipRead) => {
                flip(out, &mut state.random);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read_all(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, BackendError> {
        let call = Call::of_object(CallKind::ReadAll, *name);
        let (mut state, effect) = self.look(&call)?;
        let mut bytes = self.store.read_all(name, limit)?;
        match effect {
            Some(Effect::ShortRead) => bytes.truncate(bytes.len() / 2),
            Some(Effect::FlipRead) => flip(&mut bytes, &mut state.random),
            _ => {}
        }
        Ok(bytes)
    }

    fn len(&self, name: &ObjectName) -> Result<u64, BackendError> {
        let call = Call::of_object(CallKind::Len, *name);
        let (_state, _) = self.look(&call)?;
        self.store.len(name)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        let call = Call::of_object(CallKind::Delete, *name);
        self.write(&call, None, |state, _| {
            if self.store.remove(name).is_some() {
                state.history.add(Step::Change(Change::Delete(*name)));
            }
            Ok(())
        })
    }

    fn list(
        &self,
        kind: ObjectKind,
        found: &mut dyn FnMut(ObjectName, u64),
    ) -> Result<(), BackendError> {
        let call = Call::of_kind(CallKind::List, kind);
        let mut names = BTreeMap::new();
        let (mut state, effect) = self.look(&call)?;
        self.store.list(kind, &mut |name, len| {
            names.insert(name, len);
        })?;
        if effect == Some(Effect::PartialList) {
            names.retain(|_, _| next_random(&mut state.random) & 1 == 0);
        }
        // `found` may use the store.
        drop(state);
        for (name, len) in names {
            found(name, len);
        }
        Ok(())
    }

    fn replace_verified(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), BackendError> {
        let call = Call::of_object(CallKind::Replace, *name).with_range(0, bytes.len());
        self.write(&call, None, |state, torn| {
            // As on disk, old and new bytes are there side by side for a moment.
            self.make_room(state, &call, call.len)?;
            let bytes = torn_at(bytes.to_vec(), torn);
            let step = Step::Replace(*name, Arc::new(bytes.clone()));
            state.history.add(step);
            self.store.replace(*name, bytes);
            Ok(())
        })
    }

    fn release_reserve(&self) -> Result<bool, BackendError> {
        let call = Call::of_store(CallKind::ReleaseReserve);
        self.write(&call, None, |state, _| {
            Ok(std::mem::take(&mut state.reserve_held))
        })
    }

    fn restore_reserve(&self) -> Result<bool, BackendError> {
        let call = Call::of_store(CallKind::RestoreReserve);
        self.write(&call, None, |state, _| Ok(self.take_reserve(state)))
    }

    fn is_run_over(&self, run: RunId) -> Result<bool, BackendError> {
        let call = Call::of_store(CallKind::IsRunOver);
        let (_state, _) = self.look(&call)?;
        self.store.is_run_over(run)
    }

    fn remove_leftovers(&self) -> Result<u64, BackendError> {
        let call = Call::of_store(CallKind::RemoveLeftovers);
        self.write(&call, None, |_, _| Ok(0))
    }
}

/// Restarts a store from what a crash left, without faults.
impl From<MemBackend> for FaultBackend {
    fn from(image: MemBackend) -> Self {
        Self::new(image, FaultScript::new(0))
    }
}

fn torn_at(mut bytes: Vec<u8>, len: Option<u64>) -> Vec<u8> {
    if let Some(len) = len.and_then(|len| usize::try_from(len).ok()) {
        bytes.truncate(len);
    }
    bytes
}

fn flip(bytes: &mut [u8], random: &mut u64) {
    let Ok(bits) = u64::try_from(bytes.len()).map(|len| len.saturating_mul(8)) else {
        return;
    };
    let bit = next_random(random) % bits.max(1);
    if let Some(byte) = usize::try_from(bit / 8)
        .ok()
        .and_then(|at| bytes.get_mut(at))
    {
        *byte ^= 1 << (bit % 8);
    }
}

const fn action(call: CallKind) -> &'static str {
    match call {
        CallKind::CreateLayout => "create",
        CallKind::Put => "write",
        CallKind::Barrier => "sync",
        CallKind::ReadAt | CallKind::ReadAll => "read",
        CallKind::Len => "measure",
        CallKind::IsRunOver => "ask",
        CallKind::Delete => "delete",
        CallKind::List => "list",
        CallKind::Replace => "replace",
        CallKind::ReleaseReserve | CallKind::RestoreReserve => "reserve",
        CallKind::RemoveLeftovers => "clean",
    }
}

#[cfg(test)]
mod tests;
