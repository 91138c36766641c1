//! Ctrl-C, termination, and "how far are you?". The first SIGINT or SIGTERM asks the engine to
//! stop; another one, at least a second later, ends the program at once: some programs send the
//! same signal to a process and again to its group. SIGUSR1 asks for a status line. SIGBUS is how
//! the system says that it cannot read what is mapped.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGBUS, SIGINT, SIGTERM, SIGUSR1},
    flag, low_level,
};

use crate::error::{Code, Failure};

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

/// Names the index cache, which is nearly all that is mapped, where the system cannot read a part
/// of it that it had read before: the program cannot go on then.
#[expect(
    unsafe_code,
    reason = "what runs in a signal handler may only call what is safe there: `write` on a \
              descriptor and `_exit`, and memory that was made before"
)]
pub(crate) fn name_lost_cache(cache: &Path, as_json: bool) -> io::Result<()> {
    let failure = Failure {
        code: Code::Failed,
        message: format!(
            "cannot read a mapped file, most likely of the index cache in {}",
            cache.display()
        ),
        hint: Some(
            "its disk may be failing: run the command again with --no-cache, or give another \
             folder with --cache-dir"
                .to_owned(),
        ),
        silent: false,
    };
    let told = failure.told(as_json) + "\n";
    let code = i32::from(failure.code as u8);
    let tell = move || {
        // The last words: nowhere to report a failure to.
        let _ = rustix::io::write(io::stderr(), told.as_bytes());
        low_level::exit(code);
    };
    // SAFETY: see the reason above.
    unsafe { low_level::register(SIGBUS, tell) }?;
    Ok(())
}
