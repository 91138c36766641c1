//! Finished packs on their way to the store: a few threads, a bound on the bytes that wait, and
//! buffers that come back for the next pack.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use crossbeam_channel::{Receiver, Sender};

use super::{Fuse, Shared, lock};
use crate::{
    aligned::AlignedBuf,
    backend::{ObjectName, PutOutcome},
    error::{Error, Result},
    format::index::PackGroup,
    pack::FinishedPack,
};

/// Threads that store packs: one writes while another waits for its sync.
const THREADS: usize = 2;

/// The way to the store.
pub(super) struct Uploads {
    queue: Option<Sender<FinishedPack>>,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    changed: Condvar,
    unindexed: AtomicU64,
}

#[derive(Default)]
struct State {
    in_flight: usize,
    bytes_in_flight: usize,
    limit: usize,
    durable: Vec<PackGroup>,
    buffers: Vec<AlignedBuf>,
    failed: bool,
}

impl Progress {
    /// Waits while a condition holds. Fails once an upload has.
    fn wait_while(&self, holds: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>> {
        let state = self
            .changed
            .wait_while(lock(&self.state), |state| !state.failed && holds(state))
            .unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            return Err(Error::WriterBroken);
        }
        Ok(state)
    }
}

impl Uploads {
    pub(super) fn start(shared: &Arc<Shared>) -> Self {
        let (queue, packs) = crossbeam_channel::unbounded();
        let progress = Arc::new(Progress::default());
        lock(&progress.state).limit = shared.options.in_flight;
        let threads = (0..THREADS)
            .map(|_| {
                let shared = Arc::downgrade(shared);
                let (packs, progress) = (packs.clone(), Arc::clone(&progress));
                std::thread::spawn(move || store_packs(&shared, &packs, &progress))
            })
            .collect();
        Self {
            queue: Some(queue),
            progress,
            threads,
        }
    }

    /// Hands a pack over; waits while too many bytes are under way.
    pub(super) fn send(&self, pack: FinishedPack) -> Result<()> {
        let bytes = pack.bytes.len();
        let mut state = self.progress.wait_while(|state| {
            state.in_flight > 0 && state.bytes_in_flight + bytes > state.limit
        })?;
        state.in_flight += 1;
        state.bytes_in_flight += bytes;
        drop(state);
        let queue = self.queue.as_ref().ok_or(Error::WriterBroken)?;
        queue.send(pack).map_err(|_| Error::WriterBroken)
    }

    /// Waits until nothing is under way.
    pub(super) fn wait(&self) -> Result<()> {
        let idle = self.progress.wait_while(|state| state.in_flight > 0);
        idle.map(drop)
    }

    pub(super) fn take_durable(&self) -> Vec<PackGroup> {
        let mut state = lock(&self.progress.state);
        self.progress.unindexed.store(0, Ordering::Relaxed);
        std::mem::take(&mut state.durable)
    }

    pub(super) fn unindexed_bytes(&self) -> u64 {
        self.progress.unindexed.load(Ordering::Relaxed)
    }

    /// A buffer for a new pack, reused where one came back.
    pub(super) fn buffer(&self) -> AlignedBuf {
        lock(&self.progress.state).buffers.pop().unwrap_or_default()
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // What a thread stored is counted already; one that panicked has nothing to tell.
            let _ = thread.join();
        }
    }
}

/// A pack that is being stored. Where that ends in a panic nobody waits for it any longer.
struct UnderWay<'a>(&'a Progress);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.state).failed = true;
            self.0.changed.notify_all();
        }
    }
}

fn store_packs(shared: &Weak<Shared>, packs: &Receiver<FinishedPack>, progress: &Progress) {
    for pack in packs {
        let _under_way = UnderWay(progress);
        let result = match shared.upgrade() {
            // Never durable, so that no index comes to name it.
            Some(shared) if shared.options.dry_run => Ok(false),
            Some(shared) => store_pack(&shared, &pack)
                .map(|()| true)
                .map_err(|error| shared.fail(error)),
            None => Err(Error::WriterBroken),
        };
        let mut state = lock(&progress.state);
        state.in_flight -= 1;
        state.bytes_in_flight -= pack.bytes.len();
        match result {
            Ok(is_stored) => {
                if is_stored {
                    let len = pack.group.len;
                    progress.unindexed.fetch_add(len, Ordering::Relaxed);
                    state.durable.push(pack.group);
                }
                state.buffers.push(pack.bytes);
            }
            Err(_) => state.failed = true,
        }
        drop(state);
        progress.changed.notify_all();
    }
}

/// Stores one pack. Its name is made durable by the barrier in front of the index.
fn store_pack(shared: &Shared, pack: &FinishedPack) -> Result<()> {
    shared.check_working()?;
    let _fuse = Fuse(shared);
    let name = ObjectName::Pack(pack.group.id);
    let mut outcome = shared.backend.put_if_absent(&name, &[&pack.bytes])?;
    if outcome == PutOutcome::Unknown {
        // Written again under the same name: the bytes are the same, so either attempt will do.
        outcome = shared.backend.put_if_absent(&name, &[&pack.bytes])?;
    }
    if outcome == PutOutcome::Unknown {
        let not_stored = Error::NotStored { object: name };
        match shared.backend.len(&name) {
            Ok(len) if len == pack.group.len => {}
            Ok(_) => return Err(not_stored),
            Err(error) if error.is_not_found() => return Err(not_stored),
            Err(error) => return Err(error.into()),
        }
    }
    shared.stats.packs.fetch_add(1, Ordering::Relaxed);
    if outcome == PutOutcome::Exists {
        // Only our own first attempt can have this name: it contains our salt.
        tracing::debug!(pack = %name, "stored by an earlier attempt");
    }
    Ok(())
}
