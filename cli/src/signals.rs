//! Ctrl-C, termination, and "how far are you?". The first SIGINT or SIGTERM asks the engine to
//! stop; another one, at least a second later, ends the program at once: some programs send the
//! same signal to a process and again to its group. SIGUSR1 asks for a status line.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
    flag,
};

use crate::error::Code;

/// How often it is looked for the first signal.
const LOOK: Duration = Duration::from_millis(50);
/// How long after the first signal another one means more than the first.
const PATIENCE: Duration = Duration::from_secs(1);

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
        let impatient = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let code = i32::from(Code::Cancelled as u8);
            flag::register_conditional_shutdown(signal, code, Arc::clone(&impatient))?;
            flag::register(signal, Arc::clone(&requests.cancel))?;
        }
        let cancel = Arc::clone(&requests.cancel);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                while !cancel.load(Ordering::Relaxed) {
                    thread::sleep(LOOK);
                }
                thread::sleep(PATIENCE);
                impatient.store(true, Ordering::Relaxed);
            })?;
        flag::register(SIGUSR1, Arc::clone(&requests.status))?;
        Ok(requests)
    }

    /// Whether somebody asked for the status since the last time.
    pub(crate) fn take_status(&self) -> bool {
        self.status.swap(false, Ordering::Relaxed)
    }
}
