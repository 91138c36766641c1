//! What a backup leaves out, and the patterns that restores share with it.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context as _, Result};
use strongroom_core::source::{filter::FilterRules, lists};

use super::targets::bytes_of;
use crate::{app::App, units::Size};

const EXCLUDE: &str = "What to leave out";

/// Which files are left out.
#[derive(clap::Args, Debug)]
pub(super) struct ExcludeArgs {
    /// Leave out what matches this pattern
    #[arg(short, long, value_name = "PATTERN", help_heading = EXCLUDE)]
    pub(super) exclude: Vec<OsString>,

    /// The same, whether letters are small or capital
    #[arg(long, value_name = "PATTERN", help_heading = EXCLUDE)]
    pub(super) iexclude: Vec<OsString>,

    /// Leave out what matches a pattern in this file
    #[arg(long, value_name = "FILE", help_heading = EXCLUDE)]
    exclude_file: Vec<PathBuf>,

    /// The same, whether letters are small or capital
    #[arg(long, value_name = "FILE", help_heading = EXCLUDE)]
    iexclude_file: Vec<PathBuf>,

    /// Leave out the contents of folders that hold this file, which begins with HEADER
    #[arg(long, value_name = "NAME[:HEADER]", help_heading = EXCLUDE)]
    exclude_if_present: Vec<OsString>,

    /// Leave out the contents of folders that hold a proper CACHEDIR.TAG
    #[arg(long, help_heading = EXCLUDE)]
    exclude_caches: bool,

    /// Leave out files larger than this
    #[arg(long, value_name = "SIZE", help_heading = EXCLUDE)]
    exclude_larger_than: Option<Size>,

    /// Do not cross into other file systems
    #[arg(short = 'x', long, help_heading = EXCLUDE)]
    one_file_system: bool,
}

impl ExcludeArgs {
    /// The rules as the engine has them.
    pub(super) fn rules(&self, app: &App) -> Result<FilterRules> {
        Ok(FilterRules {
            exclude: patterns(app, &self.exclude, &self.exclude_file)?,
            iexclude: patterns(app, &self.iexclude, &self.iexclude_file)?,
            exclude_if_present: self.exclude_if_present.iter().map(bytes_of).collect(),
            exclude_caches: self.exclude_caches,
            exclude_larger_than: self.exclude_larger_than.map(|size| size.0),
            one_file_system: self.one_file_system,
        })
    }
}

/// The patterns given one by one, then those in files.
pub(super) fn patterns(app: &App, given: &[OsString], files: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let mut patterns: Vec<_> = given.iter().map(bytes_of).collect();
    let variable = |name: &[u8]| app.vars.raw(name).map(bytes_of);
    for file in files {
        let what = || format!("cannot use the patterns in {}", file.display());
        let data = std::fs::read(file).with_context(what)?;
        patterns.extend(lists::parse_exclude_file(&data, &variable).with_context(what)?);
    }
    Ok(patterns)
}
