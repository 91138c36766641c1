//! Saving a stream as one file: standard input, or what a command prints.

use std::{
    cell::RefCell,
    ffi::OsString,
    io::{self, Read},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use strongroom_core::{
    archive::{BackupOptions, BackupReport, StreamSource, backup_stream},
    observer::Observer,
};
use strongroom_repo::repository::Repository;

use crate::signals::Requests;

/// Saves standard input.
pub(super) fn save_stdin(
    repo: &Repository,
    options: &BackupOptions,
    observer: &dyn Observer,
    requests: &Requests,
) -> Result<BackupReport> {
    let source = StreamSource {
        name: name(options)?,
        reader: Box::new(Stoppable::new(io::stdin(), requests)),
        finish: Box::new(|| Ok(())),
    };
    Ok(backup_stream(
        repo,
        options,
        source,
        observer,
        &requests.cancel,
    )?)
}

/// Saves what a command prints, if it ends well.
pub(super) fn save_command(
    repo: &Repository,
    options: &BackupOptions,
    words: &[OsString],
    observer: &dyn Observer,
    requests: &Requests,
) -> Result<BackupReport> {
    let (program, arguments) = words.split_first().context("no command is given")?;
    let what = || format!("cannot run {}", program.display());
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(what)?;
    let stdout = child.stdout.take().with_context(what)?;
    let child = RefCell::new(child);
    let source = StreamSource {
        name: name(options)?,
        reader: Box::new(Stoppable::new(stdout, requests)),
        finish: Box::new(|| ended_well(&mut child.borrow_mut())),
    };
    let result = backup_stream(repo, options, source, observer, &requests.cancel);
    // Where the backup failed the command may still be running, with nobody to read it.
    let mut child = child.into_inner();
    if child.try_wait()?.is_none() {
        child.kill()?;
        child.wait()?;
    }
    result.with_context(|| format!("cannot save what {} prints", program.display()))
}

fn ended_well(child: &mut Child) -> io::Result<()> {
    let status = child.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("the command failed: {status}")))
    }
}

fn name(options: &BackupOptions) -> Result<Vec<u8>> {
    let first = options.targets.first();
    first
        .cloned()
        .ok_or_else(|| anyhow!("the stream has no name"))
}

/// A stream whose reads end when somebody asks the program to stop.
struct Stoppable<R> {
    inner: R,
    cancel: Arc<AtomicBool>,
}

impl<R> Stoppable<R> {
    fn new(inner: R, requests: &Requests) -> Self {
        let cancel = Arc::clone(&requests.cancel);
        Self { inner, cancel }
    }
}

/// Time between two looks at whether to stop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

impl<R: Read + AsFd> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(io::Error::other("cancelled"));
            }
            let mut waited = [PollFd::new(&self.inner, PollFlags::IN)];
            match poll(&mut waited, Some(&PATIENCE)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return self.inner.read(buffer),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
