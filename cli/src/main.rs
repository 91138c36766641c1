//! The program: parses what was typed, runs the command, and turns what came of it into an exit
//! code. A bug that panics is told in our words and ends with a code of its own.

mod app;
mod args;
mod child;
mod commands;
mod env;
mod error;
mod password;
mod select;
mod show;
mod signals;
mod threads;
mod units;

use std::{panic, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};

use crate::{
    app::App,
    args::Cli,
    error::{Code, Failure},
};

fn main() -> ExitCode {
    panic::set_hook(Box::new(show::text::internal_error));
    panic::catch_unwind(run).unwrap_or(Code::Internal).into()
}

fn run() -> Code {
    let arguments = env::arguments();
    let as_json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, as_json),
    };
    let app = App::new(cli.global, env::Vars::of_process());
    show::trace::Notes::listen(app.show.level, app.show.json);
    let outcome = commands::run(&app, cli.command).and_then(|code| {
        app.show.flush()?;
        Ok(code)
    });
    outcome.unwrap_or_else(|error| {
        // What was written before it failed is still wanted; a second failure says nothing new.
        let _ = app.show.flush();
        let failure = Failure::judge(&error);
        failure.report(app.show.json);
        failure.code
    })
}

/// Help goes to standard output and is no failure; anything else that cannot be parsed is one.
fn usage(error: &clap::Error, as_json: bool) -> Code {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if is_help {
        let colour = show::wants_colour(&env::Vars::of_process());
        show::text::to_stdout(&error.render(), colour);
        return Code::Success;
    }
    if as_json {
        let message = error.to_string();
        let first = message.split("\n\n").next().unwrap_or_default();
        let first = first.trim_start_matches("error: ");
        Failure::usage(first.to_owned()).report(true);
    } else {
        // Nowhere to report a failure to.
        let _ = error.print();
    }
    Code::Failed
}
