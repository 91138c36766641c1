//! A result that a worker owes the assembler. A promise that is dropped unkept, by a worker that
//! panicked or a run that ends, answers so: nobody waits for ever.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::{
    error::{Error, Result},
    format::tree::TreeEntry,
    observer::Action,
};

/// A file that was stored.
pub(super) struct Stored {
    pub(super) entry: TreeEntry,
    pub(super) action: Action,
    pub(super) added: u64,
}

type Shared = Arc<(Mutex<Option<Result<Stored>>>, Condvar)>;

/// The worker's end.
pub(super) struct Promise(Option<Shared>);

/// The assembler's end.
pub(super) struct Awaited(Shared);

/// A promise and what awaits it.
pub(super) fn promise() -> (Promise, Awaited) {
    let shared = Shared::default();
    (Promise(Some(Arc::clone(&shared))), Awaited(shared))
}

impl Promise {
    /// Keeps the promise.
    pub(super) fn keep(mut self, result: Result<Stored>) {
        self.settle(result);
    }

    fn settle(&mut self, result: Result<Stored>) {
        if let Some(shared) = self.0.take() {
            *shared.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            shared.1.notify_all();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.settle(Err(Error::WorkerLost));
    }
}

impl Awaited {
    /// Waits for the result.
    pub(super) fn wait(self) -> Result<Stored> {
        let mut slot = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = slot.take() {
                return result;
            }
            slot = self.0.1.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
