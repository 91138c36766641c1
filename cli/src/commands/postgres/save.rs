//! `backup --postgres`: each database as an archive of `pg_dump`, the roles and tablespaces as a
//! script of `pg_dumpall`, one after the other. Where one fails there is no snapshot.

use std::{
    cell::{Cell, RefCell},
    ffi::OsString,
    io,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use strongroom_core::{
    archive::{BackupOptions, BackupReport, OpenStream, StreamSource, Streams, backup_streams},
    observer::Observer,
    path::ArchivePath,
    source::postgres::{Call, DATABASES, FOLDER, GLOBALS, file_of},
};
use strongroom_repo::repository::Repository;

use super::{CONNECT, Server, Url, hinted, names, typed};
use crate::{app::App, child::Program, error::Hint, show::text, signals::Requests};

const HEADING: &str = "Databases of a PostgreSQL server";

/// Which databases are saved.
#[derive(clap::Args, Debug)]
#[group(conflicts_with_all = [
    "paths",
    "files_from",
    "files_from_verbatim",
    "files_from_raw",
    "stdin",
    "stdin_from_command",
])]
pub(in crate::commands) struct PostgresArgs {
    /// Save databases of this server, such as postgresql://USER@HOST:PORT; without a URL of the one
    /// that PGHOST, PGPORT and PGUSER name. Better than in the URL, a password is in PGPASSWORD or
    /// ~/.pgpass
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        default_missing_value = "",
        help_heading = HEADING,
    )]
    postgres: Option<Url>,

    /// Only this database; can be given several times [default: all but templates]
    #[arg(long, value_name = "NAME", requires = "postgres", help_heading = HEADING)]
    database: Vec<OsString>,

    /// Leave out roles and tablespaces, which not everybody can read
    #[arg(long, requires = "postgres", help_heading = HEADING)]
    no_globals: bool,
}

/// How the file of a database may be accessed: as it holds what a server guards.
const MODE: u16 = 0o600;

const GLOBALS_HINT: &str = "connect as a superuser or a member of pg_read_all_data, or leave the \
                            roles out with --no-globals";
const DUMP_HINT: &str = "connect as a superuser, or as a member of pg_read_all_data with BYPASSRLS \
                         who can read all large objects; pg_dump must not be older than the server";

impl PostgresArgs {
    /// Whether databases are saved.
    pub(in crate::commands) const fn is_given(&self) -> bool {
        self.postgres.is_some()
    }

    /// What the snapshot says it was made of: the folder for all, else each database's file.
    pub(in crate::commands) fn paths(&self) -> Vec<Vec<u8>> {
        if self.database.is_empty() {
            return vec![[b"/", FOLDER].concat()];
        }
        let names = typed(&self.database);
        let path = |name: &Vec<u8>| [b"/", FOLDER, b"/", &file_of(name)].concat();
        names.iter().map(path).collect()
    }

    /// Sees early that the URL is one.
    pub(in crate::commands) fn check(&self) -> Result<()> {
        self.postgres
            .as_ref()
            .map_or(Ok(()), |url| url.parse().map(drop))
    }

    /// Saves them.
    pub(in crate::commands) fn save(
        &self,
        app: &App,
        repo: &Repository,
        options: &BackupOptions,
        observer: &dyn Observer,
        requests: &Requests,
    ) -> Result<BackupReport> {
        let url = self.postgres.as_ref().context("no server is given")?;
        let server = Server::new(app, url, requests)?;
        let databases = self.databases(&server)?;
        let run = Dumps {
            server: &server,
            hint: Cell::new(CONNECT),
            said: RefCell::default(),
        };
        let mut sources = Vec::new();
        if !self.no_globals {
            let (what, hint) = ("pg_dumpall --globals-only".to_owned(), GLOBALS_HINT);
            let call = Call::dump_globals(&server.usual);
            sources.push(run.source(GLOBALS, call, what, hint)?);
        }
        for name in &databases {
            let what = format!("pg_dump of database {}", text::name(name));
            let (file, call) = (file_of(name), Call::dump(name));
            sources.push(run.source(&file, call, what, DUMP_HINT)?);
        }
        ensure!(
            !sources.is_empty(),
            "nothing to save: the server has no database"
        );
        let streams = Streams {
            paths: self.paths(),
            sources,
        };
        let result = backup_streams(repo, options, streams, observer, &requests.cancel);
        for line in run.said.take() {
            app.show.warn(&line);
        }
        result.map_err(|error| hinted(error.into(), run.hint.get()))
    }

    /// The databases to save, all of which the server has.
    fn databases(&self, server: &Server<'_>) -> Result<Vec<Vec<u8>>> {
        let found = server.query(DATABASES, &server.usual)?;
        if self.database.is_empty() {
            return Ok(found);
        }
        let wanted = typed(&self.database);
        let missing: Vec<_> = wanted.iter().filter(|name| !found.contains(name)).collect();
        if missing.is_empty() {
            return Ok(wanted);
        }
        let error = anyhow!(
            "the server has no database {} that can be saved",
            names(missing)
        );
        let hint = format!("it has {}", names(&found));
        Err(Hint::of(hint).on(error))
    }
}

/// Dumps under way.
struct Dumps<'a> {
    server: &'a Server<'a>,
    /// What to do if the dump at hand fails.
    hint: Cell<&'static str>,
    /// What dumps that ended well had to say.
    said: RefCell<Vec<String>>,
}

impl Dumps<'_> {
    /// What a program prints as a file of the snapshot.
    fn source(
        &self,
        file: &[u8],
        call: Call,
        what: String,
        hint: &'static str,
    ) -> Result<StreamSource<'_>> {
        let mut path = ArchivePath::root();
        path.push(FOLDER)?;
        path.push(file)?;
        let open = move || {
            self.hint.set(hint);
            let mut command = self.server.command(&call);
            let requests = self.server.requests;
            let started = Program::read_and_listen(&mut command, what.clone(), requests);
            let (program, output) = started.map_err(io::Error::other)?;
            let finish = move || {
                let said = program.finish().map_err(io::Error::other)?;
                let said = said.iter().map(|line| format!("{what}: {line}"));
                self.said.borrow_mut().extend(said);
                Ok(())
            };
            Ok(OpenStream {
                reader: Box::new(output),
                finish: Box::new(finish),
            })
        };
        Ok(StreamSource {
            path,
            mode: MODE,
            open: Box::new(open),
        })
    }
}
