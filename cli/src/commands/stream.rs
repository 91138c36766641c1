//! Saving a stream as one file: standard input, or what a command prints.

use std::{
    ffi::OsString,
    io::{self, Read},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};
use strongroom_core::{
    archive::{BackupOptions, BackupReport, OpenStream, StreamSource, Streams, backup_streams},
    observer::Observer,
    path::ArchivePath,
};
use strongroom_repo::repository::Repository;

use crate::{
    child::{Program, Stoppable},
    signals::Requests,
};

/// Saves standard input.
pub(super) fn save_stdin(
    repo: &Repository,
    options: &BackupOptions,
    observer: &dyn Observer,
    requests: &Requests,
) -> Result<BackupReport> {
    let open = || {
        Ok(OpenStream {
            reader: Box::new(Stoppable::new(io::stdin(), requests)),
            finish: Box::new(|| Ok(())),
        })
    };
    save(repo, options, Box::new(open), observer, requests)
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
    let mut command = Command::new(program);
    command.args(arguments);
    let (child, output) = Program::read(&mut command, "the command".to_owned(), requests)?;
    let open = || Ok(until_the_end(child, output));
    save(repo, options, Box::new(open), observer, requests)
        .with_context(|| format!("cannot save what {} prints", program.display()))
}

/// What a program prints, which counts if the program ends well.
pub(super) fn until_the_end<'a>(program: Program, output: impl Read + Send + 'a) -> OpenStream<'a> {
    OpenStream {
        reader: Box::new(output),
        finish: Box::new(|| program.finish().map(drop).map_err(io::Error::other)),
    }
}

type Open<'a> = Box<dyn FnOnce() -> io::Result<OpenStream<'a>> + 'a>;

/// Saves one stream under the name of the target.
fn save(
    repo: &Repository,
    options: &BackupOptions,
    open: Open<'_>,
    observer: &dyn Observer,
    requests: &Requests,
) -> Result<BackupReport> {
    let name = options.targets.first();
    let name = name.ok_or_else(|| anyhow!("the stream has no name"))?;
    let mut path = ArchivePath::root();
    path.push(name)
        .context("--stdin-filename is no name of a file")?;
    let streams = Streams {
        paths: vec![[b"/", name.as_slice()].concat()],
        sources: vec![StreamSource {
            path,
            mode: 0o644,
            open,
        }],
    };
    let cancel = &requests.cancel;
    Ok(backup_streams(repo, options, streams, observer, cancel)?)
}
