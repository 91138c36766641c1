//! `completions`: what makes a shell finish words.

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{app::App, args::Cli, error::Code};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom completions bash > /etc/bash_completion.d/strongroom
  strongroom completions fish > ~/.config/fish/completions/strongroom.fish")]
pub(crate) struct Args {
    /// For which shell
    shell: Shell,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "strongroom", &mut script);
    app.show.bytes(&script)?;
    Ok(Code::Success)
}
