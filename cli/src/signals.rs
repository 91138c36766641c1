//! Ctrl-C, termination, and "how far are you?". The first SIGINT or SIGTERM asks the engine to
//! stop; the second ends the program at once. SIGUSR1 asks for a status line.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    flag,
};

use crate::error::Code;

/// What signals have asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    /// To stop.
    pub(crate) cancel: Arc<AtomicBool>,
    /// To tell how far it is.
    pub(crate) status: Arc<AtomicBool>,
}

impl Requests {
    /// Listens to signals from now on. Before, a signal ends the program in the system's way.
    pub(crate) fn listen() -> io::Result<Self> {
        let requests = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset and sets it, the second ends.
            let code = i32::from(Code::Cancelled as u8);
            flag::register_conditional_shutdown(signal, code, Arc::clone(&requests.cancel))?;
            flag::register(signal, Arc::clone(&requests.cancel))?;
        }
        flag::register(SIGUSR1, Arc::clone(&requests.status))?;
        Ok(requests)
    }

    /// Whether somebody asked for the status since the last time.
    pub(crate) fn take_status(&self) -> bool {
        self.status.swap(false, Ordering::Relaxed)
    }
}
