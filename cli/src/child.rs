//! Programs that run for this one: what they print is read, or they are fed, and they end with it.
//! Waiting for them ends when somebody asks to stop.
//!
//! Must stay true: no program outlives its [`Program`], and none that failed passes for one that
//! ended well.

mod words;

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::fd::AsFd,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use self::words::Sieve;
use crate::signals::Requests;

/// Time between two looks at whether to stop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
/// Time between two looks at whether a program has ended.
const LOOK: Duration = Duration::from_millis(10);
/// How many such looks a program has to end by itself, after it was asked to.
const LOOKS: u32 = 300;
/// Bytes that are kept of what a program says on standard error.
const KEPT: usize = 8 << 10;
/// Lines of them that are told.
const TOLD: usize = 8;

/// Why a program did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// It cannot be started.
    #[error("cannot run {program}")]
    Start {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It did not end well.
    #[error("{what} failed: {status}{}", told(.said))]
    Failed {
        /// What it was to do.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// The last it said.
        said: Vec<String>,
    },
    /// It ended well, but before it had read what it was given.
    #[error("{what} ended before it had read all")]
    TooEarly {
        /// What it was to do.
        what: String,
    },
    /// Its output cannot be read, or it cannot be fed or waited for.
    #[error("cannot go on with {what}")]
    Pipe {
        /// What it was to do.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl ProgramError {
    /// The error of a program that is behind another error, if one is: as a cause, or as what went
    /// wrong with its output.
    pub(crate) fn behind(error: &anyhow::Error) -> Option<&Self> {
        error.chain().find_map(Self::in_link)
    }

    /// The same for one link of a chain.
    pub(crate) fn in_link<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let inside = || cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref();
        cause.downcast_ref().or_else(inside)
    }
}

fn told(said: &[String]) -> String {
    if said.is_empty() {
        return String::new();
    }
    format!(": {}", said.join("; "))
}

/// A program under way.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    what: String,
    ear: Option<JoinHandle<Vec<u8>>>,
    cancel: Arc<AtomicBool>,
}

impl Program {
    /// Starts a program that is to do `what`; its standard error stays ours. What it prints is read
    /// from the second.
    pub(crate) fn read(
        command: &mut Command,
        what: String,
        requests: &Requests,
    ) -> Result<(Self, Stoppable<ChildStdout>), ProgramError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Self::start(command, what, requests, None)?;
        match program.child.stdout.take() {
            Some(output) => {
                let output = Stoppable::new(output, requests);
                Ok((program, output))
            }
            None => Err(program.trouble(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The same for one whose last words are kept for its end.
    pub(crate) fn read_and_listen(
        command: &mut Command,
        what: String,
        requests: &Requests,
    ) -> Result<(Self, Stoppable<ChildStdout>), ProgramError> {
        Self::read(command.stderr(Stdio::piped()), what, requests)
    }

    /// Starts a program that is fed; what it prints is dropped, its last words are kept, without
    /// the statements that it was fed.
    pub(crate) fn feed(
        command: &mut Command,
        what: String,
        requests: &Requests,
    ) -> Result<(Self, Feeder), ProgramError> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // In these words the lines are known.
        command.env("LANGUAGE", "C").env("LC_MESSAGES", "C");
        let sieve = Sieve::of(&command.get_program().to_string_lossy());
        let mut program = Self::start(command, what, requests, Some(sieve))?;
        let feeder = match program.child.stdin.take() {
            Some(input) => Feeder::new(input, requests),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        match feeder {
            Ok(feeder) => Ok((program, feeder)),
            Err(error) => Err(program.trouble(error)),
        }
    }

    fn start(
        command: &mut Command,
        what: String,
        requests: &Requests,
        sieve: Option<Sieve>,
    ) -> Result<Self, ProgramError> {
        let mut child = command.spawn().map_err(|source| ProgramError::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        let ear = child
            .stderr
            .take()
            .map(|stderr| thread::spawn(move || last_words(stderr, sieve)));
        Ok(Self {
            child,
            what,
            ear,
            cancel: Arc::clone(&requests.cancel),
        })
    }

    /// Waits for the end of a program whose output was read to its end, or that was fed all; the
    /// lines that it said, if they were kept.
    pub(crate) fn finish(mut self) -> Result<Vec<String>, ProgramError> {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if self.cancel.load(Ordering::Relaxed) => {
                    return Err(ProgramError::Cancelled);
                }
                Ok(None) => thread::sleep(LOOK),
                Err(error) => return Err(self.trouble(error)),
            }
        };
        let said = self.ear.take().map(JoinHandle::join);
        let said = lines(&said.and_then(Result::ok).unwrap_or_default());
        if status.success() {
            return Ok(said);
        }
        let what = std::mem::take(&mut self.what);
        Err(ProgramError::Failed { what, status, said })
    }

    /// Ends a program that did not take what it was fed.
    pub(crate) fn finish_after(self, error: io::Error) -> ProgramError {
        let what = self.what.clone();
        if self.cancel.load(Ordering::Relaxed) {
            return ProgramError::Cancelled;
        }
        if error.kind() != io::ErrorKind::BrokenPipe {
            return self.trouble(error);
        }
        // Its own words say more than that it reads no more.
        match self.finish() {
            Ok(_) => ProgramError::TooEarly { what },
            Err(error) => error,
        }
    }

    fn trouble(&self, source: io::Error) -> ProgramError {
        let what = self.what.clone();
        ProgramError::Pipe { what, source }
    }

    /// Asks the program to end, and ends it where it does not.
    fn end(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        // One that ended meanwhile is waited for all the same.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        for _ in 0..LOOKS {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Nothing more can be done about one that cannot be ended.
        if let Err(error) = self.end() {
            tracing::warn!(%error, "{} could not be ended", self.what);
        }
    }
}

/// The last that a program says, until it says no more; of a line only the beginning, where it is
/// long.
fn last_words(stderr: ChildStderr, mut sieve: Option<Sieve>) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut stderr = BufReader::new(stderr);
    let mut goes_on = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        let most = u64::try_from(KEPT).unwrap_or(u64::MAX);
        match stderr.by_ref().take(most).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return kept,
            Ok(_) => {}
        }
        let is_rest = std::mem::replace(&mut goes_on, line.last() != Some(&b'\n'));
        let text = String::from_utf8_lossy(&line);
        if !is_rest
            && sieve
                .as_mut()
                .is_none_or(|sieve| sieve.keeps(text.trim_end()))
        {
            kept.extend_from_slice(&line);
            if goes_on {
                kept.push(b'\n');
            }
        }
        let over = kept.len().saturating_sub(KEPT);
        kept.drain(..over);
    }
}

/// The last whole lines.
fn lines(said: &[u8]) -> Vec<String> {
    let said = String::from_utf8_lossy(said);
    let lines = said.lines().map(str::trim_end);
    let mut lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    lines.drain(..lines.len().saturating_sub(TOLD));
    lines.into_iter().map(str::to_owned).collect()
}

/// A stream whose reads end when somebody asks the program to stop.
pub(crate) struct Stoppable<R> {
    inner: R,
    cancel: Arc<AtomicBool>,
}

impl<R> Stoppable<R> {
    /// Reads from `inner` until then.
    pub(crate) fn new(inner: R, requests: &Requests) -> Self {
        let cancel = Arc::clone(&requests.cancel);
        Self { inner, cancel }
    }
}

impl<R: Read + AsFd> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wait_for(&self.inner, PollFlags::IN, &self.cancel)?;
        self.inner.read(buffer)
    }
}

/// Feeds a program, until somebody asks to stop. It sees the end when this goes.
pub(crate) struct Feeder {
    inner: ChildStdin,
    cancel: Arc<AtomicBool>,
}

impl Feeder {
    fn new(inner: ChildStdin, requests: &Requests) -> io::Result<Self> {
        let flags = fcntl_getfl(&inner)?;
        fcntl_setfl(&inner, flags | OFlags::NONBLOCK)?;
        let cancel = Arc::clone(&requests.cancel);
        Ok(Self { inner, cancel })
    }

    /// Hands on bytes.
    ///
    /// # Errors
    /// The program reads no more, or somebody asked to stop: [`Program::finish_after`] tells.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            wait_for(&self.inner, PollFlags::OUT, &self.cancel)?;
            match self.inner.write(bytes) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn wait_for(file: &impl AsFd, what: PollFlags, cancel: &AtomicBool) -> io::Result<()> {
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        match poll(&mut [PollFd::new(file, what)], Some(&PATIENCE)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn read_all(script: &str) -> (Result<Vec<String>, ProgramError>, Vec<u8>) {
        let requests = Requests::default();
        let started = Program::read_and_listen(&mut shell(script), "x".to_owned(), &requests);
        let (program, mut output) = started.unwrap();
        let mut all = Vec::new();
        output.read_to_end(&mut all).unwrap();
        (program.finish(), all)
    }

    #[test]
    fn a_failure_is_told_with_its_status_and_the_last_lines() {
        let (result, output) =
            read_all("echo out; for n in $(seq 5000); do echo $n >&2; done; exit 7");
        assert_eq!(output, b"out\n");
        let Err(ProgramError::Failed { what, status, said }) = result else {
            panic!("{result:?}");
        };
        assert_eq!((what.as_str(), status.code()), ("x", Some(7)));
        assert_eq!(
            said,
            [
                "4993", "4994", "4995", "4996", "4997", "4998", "4999", "5000"
            ]
        );
        let (result, _) = read_all("echo careful >&2");
        assert_eq!(result.unwrap(), ["careful"]);
    }

    #[test]
    fn a_program_that_reads_no_more_is_told_of_in_its_own_words() {
        let requests = Requests::default();
        let bytes = vec![b'x'; 1 << 20];
        let outcome = |script: &str| {
            let started = Program::feed(&mut shell(script), "x".to_owned(), &requests);
            let (program, mut feeder) = started.unwrap();
            match feeder.write(&bytes) {
                Ok(()) => {
                    drop(feeder);
                    program.finish().map(drop)
                }
                Err(error) => Err(program.finish_after(error)),
            }
        };
        assert!(outcome("cat > /dev/null").is_ok());
        let early = outcome("head -c 10 > /dev/null");
        assert!(
            matches!(early, Err(ProgramError::TooEarly { .. })),
            "{early:?}"
        );
        let failed = outcome("echo no >&2; exit 3");
        assert!(
            matches!(failed, Err(ProgramError::Failed { .. })),
            "{failed:?}"
        );
    }

    #[test]
    fn what_a_program_was_fed_is_not_in_its_words() {
        let requests = Requests::default();
        let script = "printf 'sh: ERROR:  no\\nCommand was: a secret\\n' >&2
            seq 5000 >&2; printf 'sh: so %020000d\\nHINT:  yes' 0 >&2; exit 1";
        let (program, _) = Program::feed(&mut shell(script), "x".to_owned(), &requests).unwrap();
        let Err(ProgramError::Failed { said, .. }) = program.finish() else {
            panic!("it ended well");
        };
        let ends: Vec<_> = said.iter().filter_map(|line| line.get(..5)).collect();
        assert!(ends.last().is_some_and(|last| *last == "HINT:"), "{said:?}");
        assert!(!said.concat().contains("secret"), "{said:?}");
        assert!(said.len() <= 3, "{said:?}");
    }

    #[test]
    fn a_request_to_stop_ends_reading_feeding_and_waiting_and_the_program() {
        let requests = Requests::default();
        let what = || "x".to_owned();
        let endless = "exec tail -f /dev/null";
        let (reading, mut output) = Program::read(&mut shell(endless), what(), &requests).unwrap();
        let (feeding, mut feeder) = Program::feed(&mut shell(endless), what(), &requests).unwrap();
        let pid = Pid::from_child(&reading.child);
        requests.cancel.store(true, Ordering::Relaxed);
        assert!(output.read(&mut [0; 1]).is_err());
        let error = feeder.write(b"x").unwrap_err();
        assert!(matches!(
            feeding.finish_after(error),
            ProgramError::Cancelled
        ));
        assert!(matches!(reading.finish(), Err(ProgramError::Cancelled)));
        assert!(
            rustix::process::test_kill_process(pid).is_err(),
            "it lives on"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_told_by_name() {
        let mut command = Command::new("/no/such/program");
        let result = Program::read(&mut command, "x".to_owned(), &Requests::default());
        let Err(ProgramError::Start { program, .. }) = result else {
            panic!("it runs");
        };
        assert_eq!(program, "/no/such/program");
    }
}
