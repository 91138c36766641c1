//! Which files a backup copies as the SQLite databases that they are.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::Result;
use strongroom_core::source::{
    sqlite::{DatabaseOptions, PATIENCE},
    targets::Targets,
};

use super::targets::bytes_of;
use crate::{app::App, error::Hint};

const SQLITE: &str = "SQLite databases";

/// Which databases are copied, and where.
#[derive(clap::Args, Debug)]
pub(super) struct SqliteArgs {
    /// Save SQLite databases as they are at one moment, while programs go on with them; with =PATH
    /// this one alone; can be given several times
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        help_heading = SQLITE,
        conflicts_with_all = ["stdin", "stdin_from_command"],
    )]
    sqlite: Vec<OsString>,

    /// Folder for the copies that this takes, one at a time for each thread, as large as the
    /// databases [env: STRONGROOM_SCRATCH] [default: TMPDIR, or else /tmp]
    #[arg(long, value_name = "DIR", help_heading = SQLITE)]
    scratch: Option<PathBuf>,
}

impl SqliteArgs {
    /// What it means for the engine.
    pub(super) fn options(&self, app: &App, base: &Path) -> Result<DatabaseOptions> {
        let given: Vec<_> = self.sqlite.iter().filter(|path| !path.is_empty()).collect();
        let targets = Targets::resolve(base, &given.iter().map(bytes_of).collect::<Vec<_>>());
        if let Some(missing) = targets.missing().next() {
            let hint = "give the path of a database with --sqlite=PATH, or --sqlite alone for all";
            return Err(Hint::of(hint).on(anyhow::anyhow!("{missing}")));
        }
        let variable = || app.vars.own("SCRATCH").or_else(|| app.vars.plain("TMPDIR"));
        let scratch = match &self.scratch {
            Some(folder) => folder.clone(),
            None => variable().map_or_else(|| PathBuf::from("/tmp"), PathBuf::from),
        };
        Ok(DatabaseOptions {
            all: self.sqlite.len() > given.len(),
            listed: targets.absolute_paths().to_vec(),
            scratch: base.join(scratch),
            patience: PATIENCE,
        })
    }
}
