//! What a backup saves: paths, lists of paths, or a stream.

use std::{
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use strongroom_core::source::{lists, targets::Targets};

use crate::{app::App, error::Hint, show::text};

const SOURCE: &str = "What to save";

/// What is saved.
#[derive(clap::Args, Debug)]
pub(super) struct SourceArgs {
    /// Files and folders; with --stdin-from-command the command and its arguments
    #[arg(value_name = "PATH", help_heading = SOURCE)]
    pub(super) paths: Vec<OsString>,

    /// Save the paths in this file, one a line; wildcards are expanded
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    files_from: Vec<PathBuf>,

    /// Save the paths in this file, one a line, taken as they are
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    files_from_verbatim: Vec<PathBuf>,

    /// Save the paths in this file, each ended by a NUL byte
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    files_from_raw: Vec<PathBuf>,

    /// Save the content of block devices among the paths, each as a file; otherwise only the
    /// device node is saved
    #[arg(
        long,
        help_heading = SOURCE,
        conflicts_with_all = ["stdin", "stdin_from_command"],
    )]
    pub(super) read_devices: bool,

    /// Save standard input as one file
    #[arg(
        long,
        help_heading = SOURCE,
        conflicts_with_all = [
            "paths",
            "files_from",
            "files_from_verbatim",
            "files_from_raw",
            "stdin_from_command",
        ],
    )]
    pub(super) stdin: bool,

    /// Name of that file
    #[arg(long, value_name = "NAME", default_value = "stdin", help_heading = SOURCE)]
    pub(super) stdin_filename: OsString,

    /// Save what a command prints as one file; where it fails there is no snapshot
    #[arg(
        long,
        requires = "paths",
        help_heading = SOURCE,
        conflicts_with_all = ["files_from", "files_from_verbatim", "files_from_raw"],
    )]
    pub(super) stdin_from_command: bool,
}

impl SourceArgs {
    /// Whether it is a stream rather than files.
    pub(super) const fn is_stream(&self) -> bool {
        self.stdin || self.stdin_from_command
    }

    /// Whether standard input is data, so that no password comes from there.
    pub(super) fn takes_stdin(&self) -> bool {
        self.stdin || self.lists().any(|file| file == Path::new("-"))
    }

    fn lists(&self) -> impl Iterator<Item = &PathBuf> {
        self.files_from
            .iter()
            .chain(&self.files_from_verbatim)
            .chain(&self.files_from_raw)
    }

    /// The paths typed and those in lists.
    pub(super) fn targets(&self, app: &App, base: &Path) -> Result<Vec<Vec<u8>>> {
        let mut targets: Vec<_> = self.paths.iter().map(bytes_of).collect();
        for file in &self.files_from {
            for pattern in read_list(file, &|data| lists::parse_patterns(data))? {
                let found = lists::expand_wildcards(base, &pattern)?;
                if found.is_empty() {
                    app.show
                        .warn(&format!("{} matches no file", text::name(&pattern)));
                }
                targets.extend(found);
            }
        }
        for file in &self.files_from_verbatim {
            targets.extend(read_list(file, &|data| lists::parse_verbatim(data))?);
        }
        for file in &self.files_from_raw {
            targets.extend(read_list(file, &|data| lists::parse_raw(data))?);
        }
        if targets.is_empty() {
            bail!("nothing to save: give files or folders");
        }
        let resolved = Targets::resolve(base, &targets);
        if resolved.is_empty() {
            let missing: Vec<_> = resolved.missing().map(ToString::to_string).collect();
            return Err(Hint::of("check how the paths are written")
                .on(anyhow::anyhow!("nothing to save: {}", missing.join("; "))));
        }
        self.tell_of_devices(app, base, &targets);
        Ok(targets)
    }
}

impl SourceArgs {
    /// Says so where what is saved of a device may not be what is wanted.
    fn tell_of_devices(&self, app: &App, base: &Path, targets: &[Vec<u8>]) {
        let path = |target: &Vec<u8>| base.join(OsStr::from_bytes(target));
        let is_device = |target: &&Vec<u8>| {
            let about = std::fs::metadata(path(target));
            about.is_ok_and(|about| about.file_type().is_block_device())
        };
        let mut devices = targets.iter().filter(is_device).peekable();
        if self.read_devices {
            if devices.peek().is_none() {
                let what = "none of the paths is a block device: --read-devices has no effect";
                app.show.warn(what);
            }
            return;
        }
        for device in devices {
            app.show.warn(&format!(
                "{} is a block device: its content is saved only with --read-devices",
                text::name(device)
            ));
        }
    }
}

/// The bytes of what was typed.
pub(super) fn bytes_of(text: impl AsRef<OsStr>) -> Vec<u8> {
    text.as_ref().as_bytes().to_vec()
}

/// The name that a stream gets.
pub(super) fn stream_target(name: &OsStr) -> Result<Vec<Vec<u8>>> {
    let name = name.as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    ensure!(
        !name.is_empty() && !name.contains(&b'/'),
        "--stdin-filename must be the name of a file, without folders"
    );
    Ok(vec![name.to_vec()])
}

type Parse<'a> = &'a dyn Fn(&[u8]) -> strongroom_core::Result<Vec<Vec<u8>>>;

fn read_list(file: &Path, parse: Parse<'_>) -> Result<Vec<Vec<u8>>> {
    let what = || format!("cannot use the list of files {}", file.display());
    let data = if file == Path::new("-") {
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut data).with_context(what)?;
        data
    } else {
        std::fs::read(file).with_context(what)?
    };
    parse(&data).with_context(what)
}
