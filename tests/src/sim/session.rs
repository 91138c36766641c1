//! A client's connection to the store, for one session: each operation waits for its turn, is
//! struck or not, and is looked at by the one who sees everything.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use strongroom_repo::{
    backend::{
        Backend, BackendError, BackendErrorKind, ObjectKind, ObjectName, PutOutcome,
        testing::{Call, CallKind, Crashed},
    },
    id::RunId,
};

use super::{
    Mutant,
    random::Random,
    weather::{Fate, Strike},
    world::{Inner, World},
};

/// Steps after which a simulation is stopped as going in circles.
const MAX_STEPS: u64 = 200_000;

/// A client's connection to the store, for one session.
pub(super) struct Session {
    world: Arc<World>,
    client: usize,
    number: u64,
    epoch: u64,
    over: AtomicBool,
    struck: AtomicBool,
    /// Kinds of which a sync failed: no later one is believed.
    unsynced: Mutex<BTreeSet<ObjectKind>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("client", &self.client)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A new session of a client.
    pub(super) fn new(world: &Arc<World>, client: usize) -> Self {
        let mut inner = world.lock();
        inner.sessions += 1;
        Self {
            world: Arc::clone(world),
            client,
            number: inner.sessions,
            epoch: inner.epoch,
            over: AtomicBool::new(false),
            struck: AtomicBool::new(false),
            unsynced: Mutex::default(),
        }
    }

    /// Whether the store failed this client since it connected.
    pub(super) fn was_struck(&self) -> bool {
        self.struck.load(Ordering::Relaxed)
    }

    /// Whether the client has crashed.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn error(&self, call: &Call, kind: BackendErrorKind) -> BackendError {
        BackendError {
            action: "call",
            object: call.to_string(),
            location: self.location(),
            kind,
            source: None,
        }
    }

    fn crashed(&self, call: &Call) -> BackendError {
        self.over.store(true, Ordering::Relaxed);
        self.struck.store(true, Ordering::Relaxed);
        BackendError {
            source: Some(std::io::Error::other(Crashed)),
            ..self.error(call, BackendErrorKind::Io)
        }
    }

    /// An operation: waits for its turn, is struck or not, and is looked at.
    fn act<T>(
        &self,
        call: &Call,
        act: impl FnOnce(&mut Inner, Strike) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if self.is_over() {
            return Err(self.crashed(call));
        }
        let mut inner = self.world.step(self.client);
        if inner.steps > MAX_STEPS {
            inner.breaks(format!("no end after {MAX_STEPS} steps"));
        }
        if inner.epoch != self.epoch || inner.broken.is_some() {
            return Err(self.crashed(call));
        }
        inner.tick(self.client);
        inner.deliver();
        let strike = inner.draw(call);
        let (client, number) = (self.client, self.number);
        inner.say(|| format!("{client}.{number:<3} {call} {}", strike.tale()));
        let result = match strike {
            Strike::PowerCut => {
                inner.cut_power();
                Err(self.crashed(call))
            }
            Strike::Crash { after: false } => Err(self.crashed(call)),
            Strike::Crash { after: true } => {
                drop(act(&mut inner, Strike::None));
                Err(self.crashed(call))
            }
            Strike::Fail(kind) => Err(self.error(call, kind)),
            Strike::FailAfter => {
                act(&mut inner, Strike::None).and(Err(self.error(call, BackendErrorKind::Io)))
            }
            strike => act(&mut inner, strike),
        };
        if strike != Strike::None {
            self.struck.store(true, Ordering::Relaxed);
            inner.strikes += 1;
        }
        let line = format!("{client} {number} {call} {strike:?} {}", result.is_ok());
        inner.trace.update(line.as_bytes());
        result
    }
}

impl Backend for Session {
    fn location(&self) -> String {
        format!("session {} of client {}", self.number, self.client)
    }

    fn create_layout(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn put_if_absent(
        &self,
        name: &ObjectName,
        parts: &[&[u8]],
    ) -> Result<PutOutcome, BackendError> {
        let call = Call::put(*name, parts);
        self.act(&call, |inner, strike| {
            let bytes = parts.concat();
            match strike {
                Strike::Unknown(Fate::Lost) => return Ok(PutOutcome::Unknown),
                Strike::Unknown(Fate::Late) => {
                    inner.store.send(self.number, *name, bytes);
                    return Ok(PutOutcome::Unknown);
                }
                _ => {}
            }
            let outcome = inner.store.put(self.number, *name, &bytes);
            if outcome == PutOutcome::Created {
                inner.after(name);
            }
            match strike {
                Strike::Unknown(_) => Ok(PutOutcome::Unknown),
                _ => Ok(outcome),
            }
        })
    }

    fn barrier(&self, kind: ObjectKind) -> Result<(), BackendError> {
        let call = Call::of_kind(CallKind::Barrier, kind);
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        let failed_before = unsynced.contains(&kind);
        let result = self.act(&call, |inner, _| {
            if failed_before {
                return Err(self.error(&call, BackendErrorKind::Io));
            }
            let skipped = match inner.mutant {
                Some(Mutant::NoLogBarrier) => kind == ObjectKind::Log,
                Some(Mutant::NoPackBarrier) => kind == ObjectKind::Pack,
                _ => false,
            };
            if !skipped {
                inner.store.barrier(self.number, kind);
            }
            Ok(())
        });
        if result.is_err() {
            unsynced.insert(kind);
        }
        result
    }

    fn read_at(&self, name: &ObjectName, offset: u64, out: &mut [u8]) -> Result<(), BackendError> {
        let call = Call::of_object(CallKind::ReadAt, *name).with_range(offset, out.len());
        self.act(&call, |inner, strike| {
            inner.store.visible().read_at(name, offset, out)?;
            if strike == Strike::FlipRead {
                flip(out, &mut inner.random);
            }
            Ok(())
        })
    }

    fn read_all(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, BackendError> {
        let call = Call::of_object(CallKind::ReadAll, *name);
        self.act(&call, |inner, strike| {
            let mut bytes = inner.store.visible().read_all(name, limit)?;
            if strike == Strike::FlipRead {
                flip(&mut bytes, &mut inner.random);
            }
            Ok(bytes)
        })
    }

    fn len(&self, name: &ObjectName) -> Result<u64, BackendError> {
        let call = Call::of_object(CallKind::Len, *name);
        self.act(&call, |inner, _| inner.store.visible().len(name))
    }

    fn delete(&self, name: &ObjectName) -> Result<(), BackendError> {
        let call = Call::of_object(CallKind::Delete, *name);
        self.act(&call, |inner, _| {
            if inner.store.visible().len(name).is_ok() {
                let allowed = inner.watch.may_delete(name, &inner.store);
                inner.hold(allowed);
                inner.store.delete(self.number, name);
                inner.after(name);
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
        let mut names = Vec::new();
        self.act(&call, |inner, strike| {
            inner
                .store
                .visible()
                .list(kind, &mut |name, len| names.push((name, len)))?;
            if strike == Strike::PartialList {
                let random = &mut inner.random;
                names.retain(|_| random.next() & 1 == 0);
            }
            Ok(())
        })?;
        for (name, len) in names {
            found(name, len);
        }
        Ok(())
    }

    fn replace_verified(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), BackendError> {
        let call = Call::of_object(CallKind::Replace, *name).with_range(0, bytes.len());
        self.act(&call, |inner, _| {
            let allowed = inner.watch.may_replace(name, bytes);
            inner.hold(allowed);
            inner.store.replace(*name, bytes);
            Ok(())
        })
    }

    fn release_reserve(&self) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn restore_reserve(&self) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn is_run_over(&self, _run: RunId) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn remove_leftovers(&self) -> Result<u64, BackendError> {
        Ok(0)
    }
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.place(bytes.len());
    let bit = random.below(8);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
}
