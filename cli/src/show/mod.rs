//! Output. [`Show`] knows how the person or program wants it (JSON, quiet, width, colours) and is
//! the only way to standard output; `text` turns values into words, `table` aligns them, `json` has
//! the messages for programs, `progress` tells how far a long command is.

pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod steps;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod trace;

use std::{
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
    os::fd::AsFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use jiff::tz::TimeZone;
use serde::Serialize;

use self::table::Table;
use crate::{env::Vars, error::StdoutError};

/// The columns of a terminal; `None` where it is none, or does not say.
pub(crate) fn columns(terminal: impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Whether standard output is a terminal where colours are welcome.
pub(crate) fn wants_colour(vars: &Vars) -> bool {
    let plain = vars.plain("NO_COLOR").is_some() || vars.plain("TERM").is_some_and(|t| t == "dumb");
    io::stdout().is_terminal() && !plain
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Errors and what was asked for.
    Quiet,
    /// Summaries as well.
    Normal,
    /// Steps as well.
    Verbose,
    /// Every file as well.
    Everything,
}

/// How output is wanted, and the way to it.
#[derive(Debug)]
pub(crate) struct Show {
    /// For programs.
    pub(crate) json: bool,
    /// How much is told.
    pub(crate) level: Level,
    /// Columns that a line may have; `None` where nobody looks at them.
    pub(crate) width: Option<usize>,
    /// Whether colours are wanted.
    pub(crate) colour: bool,
    /// In which times are shown.
    pub(crate) zone: TimeZone,
    out: Mutex<BufWriter<Stdout>>,
}

impl Show {
    /// Output as the options and the terminal have it.
    pub(crate) fn new(json: bool, level: Level, vars: &Vars) -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let wished = vars
            .plain("COLUMNS")
            .and_then(|wished| wished.to_str()?.parse().ok());
        let width = if is_terminal {
            columns(&stdout).or(wished).or(Some(80))
        } else {
            wished
        };
        Self {
            json,
            level,
            width,
            colour: wants_colour(vars),
            zone: TimeZone::system(),
            out: Mutex::new(BufWriter::new(stdout)),
        }
    }

    fn out(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line that was asked for.
    pub(crate) fn line(&self, line: &str) -> Result<()> {
        let mut out = self.out();
        let written = out
            .write_all(line.as_bytes())
            .and_then(|()| out.write_all(b"\n"));
        Ok(written.map_err(StdoutError)?)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<()> {
        Ok(self.out().write_all(bytes).map_err(StdoutError)?)
    }

    /// Writes a line unless only the necessary is wanted, or JSON.
    pub(crate) fn note(&self, line: &str) -> Result<()> {
        if self.level >= Level::Normal && !self.json {
            self.line(line)?;
        }
        Ok(())
    }

    /// Writes a table, as wide as there is room.
    pub(crate) fn table(&self, table: &Table) -> Result<()> {
        table
            .lines(self.width)
            .iter()
            .try_for_each(|line| self.line(line))
    }

    /// Writes a value for programs, on one line.
    pub(crate) fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    /// Writes a value for people who read JSON.
    pub(crate) fn pretty_json<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        self.line(&serde_json::to_string_pretty(value)?)
    }

    /// Hands on what was written so far.
    pub(crate) fn flush(&self) -> Result<()> {
        Ok(self.out().flush().map_err(StdoutError)?)
    }

    /// Tells of something that is not as it should be, on standard error.
    pub(crate) fn warn(&self, what: &str) {
        if self.json {
            text::to_stderr(&json::error(what, "", ""));
        } else {
            text::to_stderr(&format!("warning: {}", text::safe(what)));
        }
    }
}
