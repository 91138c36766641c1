//! `man`: the manual pages, one for the program and one for each command.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::{app::App, args::Cli, error::Code};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom man /usr/local/share/man/man1
  strongroom man | man -l -")]
pub(crate) struct Args {
    /// Folder for the pages; the page of the program goes to standard output where none is given
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    match &args.folder {
        None => {
            let mut page = Vec::new();
            Man::new(program).render(&mut page)?;
            app.show.bytes(&page)?;
        }
        Some(folder) => {
            let pages = write_pages(&program, folder)?;
            app.show
                .note(&format!("wrote {pages} pages to {}", folder.display()))?;
        }
    }
    Ok(Code::Success)
}

fn write_pages(command: &Command, folder: &Path) -> Result<usize> {
    let mut pages = 1;
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        pages += write_pages(below, folder)?;
    }
    Man::new(command.clone())
        .generate_to(folder)
        .with_context(|| format!("cannot write a page to {}", folder.display()))?;
    Ok(pages)
}
