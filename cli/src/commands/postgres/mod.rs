//! Databases of a PostgreSQL server: saved by `backup --postgres`, loaded by `restore --postgres`.
//! The server's own programs do it; here is what can be typed, and how they are run.

pub(super) mod load;
pub(super) mod save;

use std::{
    ffi::OsString,
    fmt,
    io::Read as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    process::Command,
};

use anyhow::{Context as _, Error, Result, ensure};
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParserFactory};
use strongroom_core::source::postgres::{Call, Connection, MAX_LIST, rows};

use crate::{
    app::App,
    child::{Program, ProgramError},
    error::Hint,
    show::text,
    signals::Requests,
};

/// The database that is connected to where no other is meant.
const USUAL: &[u8] = b"postgres";
/// The one that is, where that one is to be replaced.
const OTHER: &[u8] = b"template1";

/// A URL as typed, which may hold a password: it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url(OsString);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url")
    }
}

impl ValueParserFactory for Url {
    type Parser = clap::builder::MapValueParser<OsStringValueParser, fn(OsString) -> Self>;

    fn value_parser() -> Self::Parser {
        OsStringValueParser::new().map(Url)
    }
}

impl Url {
    fn parse(&self) -> Result<Connection> {
        Connection::parse(self.0.as_bytes()).map_err(|error| {
            let hint = "write it as postgresql://USER@HOST:PORT, any of @ : / ? # % in a user or \
                        password as %XX; better, keep the password in PGPASSWORD or ~/.pgpass";
            Hint::of(hint).on(error.into())
        })
    }
}

/// A server, and how it is reached.
struct Server<'a> {
    connection: Connection,
    /// The database for questions about the server as a whole.
    usual: Vec<u8>,
    requests: &'a Requests,
}

impl<'a> Server<'a> {
    fn new(app: &App, url: &Url, requests: &'a Requests) -> Result<Self> {
        let connection = url.parse()?;
        let named = connection.variable("PGDATABASE").map(OsString::as_os_str);
        let named = named.or_else(|| app.vars.plain("PGDATABASE"));
        let usual = named.map_or(USUAL, |named| named.as_bytes()).to_vec();
        Ok(Self {
            connection,
            usual,
            requests,
        })
    }

    /// A program, about to run for this server.
    fn command(&self, call: &Call) -> Command {
        let mut command = Command::new(call.program);
        command.args(&call.arguments);
        // Databases are saved as they are encoded, whatever is usual here.
        command.env_remove("PGCLIENTENCODING");
        for name in self.connection.withheld() {
            command.env_remove(name);
        }
        command.envs(self.connection.variables());
        command
    }

    /// What a database answers to a question.
    fn query(&self, sql: &str, database: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut command = self.command(&Call::query(sql, database));
        // Names come as the bytes that they are.
        command.env("PGCLIENTENCODING", "SQL_ASCII");
        let what = format!("psql on database {}", text::name(database));
        let answer = || {
            let (program, output) = Program::read_and_listen(&mut command, what, self.requests)?;
            let mut answer = Vec::new();
            let read = output.take(MAX_LIST + 1).read_to_end(&mut answer);
            let cut = u64::try_from(answer.len()).unwrap_or(u64::MAX) > MAX_LIST;
            ensure!(!cut, "the server's answer has more than {MAX_LIST} bytes");
            program.finish()?;
            read.context("cannot read what psql prints")?;
            Ok(rows(&answer))
        };
        answer()
            .context("cannot ask the PostgreSQL server")
            .map_err(|error| hinted(error, CONNECT))
    }
}

const CONNECT: &str = "check the URL, or PGHOST, PGPORT, PGUSER and PGPASSWORD or ~/.pgpass";
const INSTALL: &str = "install PostgreSQL's client programs, not older than the server (on Debian: \
                       postgresql-client), and see that they are in PATH";

/// An error of a program, with what to do about it where that is not said yet.
fn hinted(error: Error, hint: &str) -> Error {
    if error.is::<Hint>() {
        return error;
    }
    let hint = match ProgramError::behind(&error) {
        Some(ProgramError::Start { .. }) => INSTALL,
        Some(ProgramError::Failed { .. }) => hint,
        _ => return error,
    };
    Hint::of(hint).on(error)
}

/// Names as they are told: each so that nothing in it is obeyed.
fn names<'a>(names: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| text::name(name)).collect();
    names.join(", ")
}

/// Names as typed, each once.
fn typed(names: &[OsString]) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = names.iter().map(|name| name.clone().into_vec()).collect();
    names.sort();
    names.dedup();
    names
}
