//! What can be typed: the program, its global options and the selection of snapshots that many
//! commands share. Each command's own options stand in its file under `commands`. What is typed
//! here and what the environment says meet in `app`.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use strongroom_core::snapshots;
use strongroom_repo::codec::Level;

use crate::{commands, units::Span};

const GLOBAL: &str = "Global options";
const FILTER: &str = "Which snapshots";

/// Encrypted, deduplicating backups.
#[derive(Debug, Parser)]
#[command(
    name = "strongroom",
    version,
    about = "Encrypted, deduplicating backups of files, model weights, volumes and dumps",
    after_help = AFTER_HELP,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    max_term_width = 100,
)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  export STRONGROOM_REPOSITORY=/mnt/backup STRONGROOM_PASSWORD_FILE=/etc/strongroom.pw
  strongroom init
  strongroom backup --tag nightly /srv /etc
  strongroom snapshots
  strongroom restore latest --target /tmp/restored

Exit codes: 0 done; 1 failed; 2 internal error; 3 done, but something could not be read or
removed; 10 no repository; 11 not available in time; 12 wrong password; 130 cancelled.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new repository
    Init(commands::init::Args),
    /// Save files, standard input, what a command prints, or databases
    Backup(Box<commands::backup::Args>),
    /// Restore files or databases of a snapshot
    Restore(Box<commands::restore::Args>),
    /// Show the snapshots of a repository
    Snapshots(commands::snapshots::Args),
    /// Show the files of a snapshot
    Ls(commands::ls::Args),
    /// Show an object of the repository as it is stored
    Cat(commands::cat::Args),
    /// Show the tensors of a file, and what its parts take in a repository
    Inspect(commands::inspect::Args),
    /// List the names of objects in the repository
    List(commands::list::Args),
    /// Remove snapshots; `prune` then frees their space
    Forget(commands::forget::Args),
    /// Free the space that no snapshot needs
    Prune(commands::prune::Args),
    /// Check that everything is there and can be read
    Check(commands::check::Args),
    /// Count files, blobs and bytes
    Stats(commands::stats::Args),
    /// Manage who can open the repository
    Key(commands::key::Args),
    /// Measure a disk and this machine, and tell what a backup will wait for
    Bench(commands::bench::Args),
    /// Print a completion script for a shell
    Completions(commands::completions::Args),
    /// Write the manual pages
    Man(commands::man::Args),
    /// Show the version of the program
    Version,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GlobalArgs {
    /// Where the repository is: a folder, or local:FOLDER [env: STRONGROOM_REPOSITORY]
    #[arg(short, long, global = true, value_name = "REPOSITORY", help_heading = GLOBAL)]
    pub(crate) repo: Option<OsString>,

    /// File that says where the repository is [env: STRONGROOM_REPOSITORY_FILE]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL, conflicts_with = "repo")]
    pub(crate) repository_file: Option<PathBuf>,

    /// File that holds the password; white space around it does not count
    /// [env: STRONGROOM_PASSWORD_FILE]
    #[arg(short, long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) password_file: Option<PathBuf>,

    /// Command that prints the password [env: STRONGROOM_PASSWORD_COMMAND]
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        help_heading = GLOBAL,
        conflicts_with = "password_file",
    )]
    pub(crate) password_command: Option<OsString>,

    /// Use an empty password: everybody who can reach the repository can read it
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        conflicts_with_all = ["password_file", "password_command"],
    )]
    pub(crate) insecure_no_password: bool,

    /// Key to try first, by the start of its ID [env: STRONGROOM_KEY_HINT]
    #[arg(long, global = true, value_name = "ID", help_heading = GLOBAL)]
    pub(crate) key_hint: Option<String>,

    /// Print JSON for programs: one object a line, or one array
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) json: bool,

    /// Print only errors and what was asked for
    #[arg(short, long, global = true, help_heading = GLOBAL, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Tell more: once for steps, twice for every file
    #[arg(
        short,
        long,
        global = true,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1",
        action = clap::ArgAction::Append,
        help_heading = GLOBAL,
    )]
    pub(crate) verbose: Vec<u8>,

    /// Folder for what can be computed again [env: STRONGROOM_CACHE_DIR]
    #[arg(long, global = true, value_name = "FOLDER", help_heading = GLOBAL)]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Keep no cache on this machine
    #[arg(long, global = true, help_heading = GLOBAL, conflicts_with = "cache_dir")]
    pub(crate) no_cache: bool,

    /// How hard to compress [env: STRONGROOM_COMPRESSION] [default: auto]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = GLOBAL)]
    pub(crate) compression: Option<Compression>,

    /// Pack size aimed at, in MiB, 4 to 128 [env: STRONGROOM_PACK_SIZE]
    #[arg(
        long,
        global = true,
        value_name = "MIB",
        help_heading = GLOBAL,
        value_parser = clap::value_parser!(u32).range(4..=128),
    )]
    pub(crate) pack_size: Option<u32>,

    /// Do not open and compare packs before they are stored
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) no_extra_verify: bool,

    /// Accepted and without effect: there are no locks
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) no_lock: bool,

    /// Accepted and without effect: there are no locks to wait for
    #[arg(long, global = true, value_name = "TIME", help_heading = GLOBAL)]
    pub(crate) retry_lock: Option<Span>,

    /// Go on although the repository is older than what this machine saw of it before
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) allow_rollback: bool,
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Stores everything as it is
    Off,
    /// For fast disks and slow processors
    Fastest,
    /// A good balance
    #[default]
    Auto,
    /// Smaller and slower
    Better,
    /// As small as it gets, and very slow
    Max,
}

impl From<Compression> for Level {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Off => Self::Off,
            Compression::Fastest => Self::Fastest,
            Compression::Auto => Self::Auto,
            Compression::Better => Self::Better,
            Compression::Max => Self::Max,
        }
    }
}

/// Which snapshots a command looks at.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct FilterArgs {
    /// Only snapshots of this host; can be given several times, '' means any [env: STRONGROOM_HOST]
    #[arg(short = 'H', long, value_name = "HOST", help_heading = FILTER)]
    pub(crate) host: Vec<String>,

    /// Only snapshots with all tags of this list, '' for those without; several lists are
    /// alternatives
    #[arg(long, value_name = "TAG[,TAG]", help_heading = FILTER)]
    pub(crate) tag: Vec<String>,

    /// Only snapshots that hold this path; several must all be held
    #[arg(long, value_name = "PATH", help_heading = FILTER)]
    pub(crate) path: Vec<OsString>,
}

/// One thing by which snapshots are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKey {
    /// The host.
    Host,
    /// The paths.
    Paths,
    /// The tags.
    Tags,
}

/// By what snapshots are grouped: `host,paths`; nothing for all in one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupBy(pub(crate) Vec<GroupKey>);

impl FromStr for GroupBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            keys.push(match word {
                "host" | "hosts" => GroupKey::Host,
                "path" | "paths" => GroupKey::Paths,
                "tag" | "tags" => GroupKey::Tags,
                other => return Err(format!("{other:?} is none of host, paths, tags")),
            });
        }
        Ok(Self(keys))
    }
}

impl From<&GroupBy> for snapshots::GroupBy {
    fn from(by: &GroupBy) -> Self {
        Self {
            host: by.0.contains(&GroupKey::Host),
            paths: by.0.contains(&GroupKey::Paths),
            tags: by.0.contains(&GroupKey::Tags),
        }
    }
}
