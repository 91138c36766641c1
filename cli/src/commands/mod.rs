//! The commands, one file each: what can be typed (`Args`), what it means for the engine, the call,
//! and what is shown of the answer. A command returns the exit code of a run that did not fail.

pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod check;
pub(crate) mod completions;
mod excludes;
pub(crate) mod forget;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod ls;
pub(crate) mod man;
mod postgres;
pub(crate) mod prune;
pub(crate) mod restore;
mod restore_onto;
pub(crate) mod snapshots;
mod sqlite;
pub(crate) mod stats;
mod stream;
mod targets;
pub(crate) mod version;

use anyhow::Result;

use crate::{app::App, args::Command, error::Code};

/// Runs a command.
pub(crate) fn run(app: &App, command: Command) -> Result<Code> {
    match command {
        Command::Init(args) => init::run(app, &args),
        Command::Backup(args) => backup::run(app, *args),
        Command::Restore(args) => restore::run(app, &args),
        Command::Snapshots(args) => snapshots::run(app, &args),
        Command::Ls(args) => ls::run(app, args),
        Command::Cat(args) => cat::run(app, &args),
        Command::Inspect(args) => inspect::run(app, &args),
        Command::List(args) => list::run(app, &args),
        Command::Forget(args) => forget::run(app, &args),
        Command::Prune(args) => prune::run(app, &args),
        Command::Check(args) => check::run(app, &args),
        Command::Stats(args) => stats::run(app, &args),
        Command::Key(args) => key::run(app, args),
        Command::Bench(args) => bench::run(app, &args),
        Command::Completions(args) => completions::run(app, &args),
        Command::Man(args) => man::run(app, &args),
        Command::Version => version::run(app),
    }
}
