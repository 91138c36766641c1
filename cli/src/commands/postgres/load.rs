//! `restore --postgres`: roles and tablespaces that the server lacks, then each database, read from
//! the repository straight into `pg_restore`.
//!
//! Must stay true: nothing is changed before it is known that nothing is in the way, and a database
//! that holds anything is replaced only on request: it is asked again when its turn comes, as
//! loading those before it may have taken hours.

use std::{ffi::OsString, io, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use strongroom_core::{
    error::Error as CoreError,
    format::{
        extents::Content,
        tree::{Body, TreeEntry},
    },
    node::NodeKind,
    observer::{Action, Done, Observer as _},
    source::postgres::{
        ALL_DATABASES, Call, FOLDER, GLOBALS, HOLDS_ANYTHING, ROLES, TABLESPACES, database_of,
        globals::{self, Existing},
    },
    view::View,
};

use super::{OTHER, Server, Url, hinted, names, typed};
use crate::{
    app::App,
    child::Program,
    commands::restore::FILES_ONLY,
    error::{Cancelled, Code, Hint},
    select::{self, Wanted},
    show::{
        json::Message,
        progress::{self, Meter, Work},
        text,
    },
    signals::Requests,
};

const HEADING: &str = "Databases into a PostgreSQL server";

/// Which databases are loaded, and where.
#[derive(clap::Args, Debug)]
#[group(conflicts_with_all = FILES_ONLY, conflicts_with = "verify")]
pub(in crate::commands) struct PostgresArgs {
    /// Load databases that were saved with `backup --postgres` into this server, such as
    /// postgresql://USER@HOST:PORT; without a URL into the one that PGHOST, PGPORT and PGUSER name
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        default_missing_value = "",
        help_heading = HEADING,
    )]
    postgres: Option<Url>,

    /// Only this database; can be given several times
    #[arg(long, value_name = "NAME", requires = "postgres", help_heading = HEADING)]
    database: Vec<OsString>,

    /// Replace databases that exist: all that they hold is lost
    #[arg(long, requires = "postgres", help_heading = HEADING)]
    clean: bool,

    /// Leave out roles and tablespaces
    #[arg(long, requires = "postgres", help_heading = HEADING)]
    no_globals: bool,
}

/// What of a restore is said elsewhere.
pub(in crate::commands) struct Choice<'a> {
    /// The snapshot, and the folder in it.
    pub(in crate::commands) wanted: &'a Wanted,
    /// Among which snapshots.
    pub(in crate::commands) filter: &'a strongroom_core::snapshots::SnapshotFilter,
    /// Whether nothing is to be changed.
    pub(in crate::commands) dry_run: bool,
}

impl PostgresArgs {
    /// Whether databases are loaded.
    pub(in crate::commands) const fn is_given(&self) -> bool {
        self.postgres.is_some()
    }

    /// Loads them.
    pub(in crate::commands) fn load(&self, app: &App, choice: &Choice<'_>) -> Result<Code> {
        let url = self.postgres.as_ref().context("no server is given")?;
        url.parse()?;
        let repo = app.open()?;
        let found = select::find(&repo, &choice.wanted.id, choice.filter)?;
        let view = View::open(&repo, &found.record)?;
        let saved = Saved::find(&view, &choice.wanted.folder)
            .with_context(|| format!("cannot load snapshot {}", found.id.short()))?
            .only(&typed(&self.database))?;
        let requests = Requests::listen().context("cannot listen to signals")?;
        let server = Server::new(app, url, &requests)?;
        let load = Load {
            app,
            server: &server,
            view: &view,
            replaced: self.look_out(&server, &saved)?,
            clean: self.clean,
        };
        if choice.dry_run {
            load.tell_plan(&saved)?;
            return Ok(Code::Success);
        }
        let (result, elapsed) = progress::watch(app, Work::Restore, &requests, |meter| {
            (load.run(&saved, !self.no_globals, meter), meter.elapsed())
        })?;
        if requests.cancel.load(Ordering::Relaxed) && result.is_err() {
            let kept = "databases that were whole by then stay; the one under way is incomplete";
            return Err(Cancelled::and(kept).into());
        }
        show_report(app, &result?, elapsed)?;
        Ok(Code::Success)
    }

    /// Sees that nothing is in the way; the databases that are to be replaced.
    fn look_out(&self, server: &Server<'_>, saved: &Saved) -> Result<Vec<Vec<u8>>> {
        let existing = server.query(ALL_DATABASES, &server.usual)?;
        let names_of = saved.databases.iter().map(|file| &file.name);
        let there: Vec<_> = names_of.filter(|name| existing.contains(name)).collect();
        let mut held = Vec::new();
        for name in &there {
            if !self.clean && holds_anything(server, name)? {
                held.push(*name);
            }
        }
        if held.is_empty() {
            return Ok(there.into_iter().cloned().collect());
        }
        let error = anyhow!(
            "the server has data in {} of these databases already: {}; nothing was changed",
            held.len(),
            names(held)
        );
        Err(Hint::of(HELD).on(error))
    }
}

/// What to do where a database is in the way.
const HELD: &str = "add --clean to replace them, or choose others with --database";

fn holds_anything(server: &Server<'_>, database: &[u8]) -> Result<bool> {
    Ok(server.query(HOLDS_ANYTHING, database)? != [b"f"])
}

/// What a snapshot has of a server.
#[derive(Default)]
struct Saved {
    globals: Option<File>,
    databases: Vec<File>,
}

/// A file of it.
struct File {
    /// Of the database; of the file for roles and tablespaces.
    name: Vec<u8>,
    path: Vec<u8>,
    content: Content,
    size: u64,
}

impl Saved {
    fn find(view: &View<'_>, folder: &[u8]) -> Result<Self> {
        let folder = if folder.is_empty() { FOLDER } else { folder };
        let nothing = || {
            let error = anyhow!("there are no databases at {}", text::name(folder));
            Hint::of("choose a snapshot that was made with `backup --postgres`").on(error)
        };
        let tree = match view.lookup_typed(folder) {
            Ok(TreeEntry {
                body: Body::Dir(tree),
                ..
            }) => tree,
            Ok(_) | Err(CoreError::NoPath { .. }) => return Err(nothing()),
            Err(error) => return Err(error.into()),
        };
        let mut saved = Self::default();
        for entry in view.entries(tree) {
            let entry = entry?;
            let (Body::File(content), NodeKind::File { size }) = (entry.body, entry.node.kind)
            else {
                continue;
            };
            let database = database_of(&entry.node.name);
            let is_globals = entry.node.name == GLOBALS;
            let file = File {
                path: [folder, b"/", &entry.node.name].concat(),
                name: database.clone().unwrap_or_default(),
                content,
                size,
            };
            if database.is_some() {
                saved.databases.push(file);
            } else if is_globals {
                saved.globals = Some(file);
            }
        }
        if saved.databases.is_empty() && saved.globals.is_none() {
            return Err(nothing());
        }
        Ok(saved)
    }

    /// Of the databases these; all where none is named.
    fn only(mut self, wanted: &[Vec<u8>]) -> Result<Self> {
        let has = |name: &&Vec<u8>| self.databases.iter().any(|file| file.name == **name);
        let missing: Vec<_> = wanted.iter().filter(|name| !has(name)).collect();
        if !missing.is_empty() {
            let error = anyhow!("the snapshot has no database {}", names(missing));
            let has = names(self.databases.iter().map(|file| &file.name));
            return Err(Hint::of(format!("it has {has}")).on(error));
        }
        if !wanted.is_empty() {
            self.databases.retain(|file| wanted.contains(&file.name));
        }
        Ok(self)
    }
}

/// A restore into a server.
struct Load<'a> {
    app: &'a App,
    server: &'a Server<'a>,
    view: &'a View<'a>,
    /// Databases that the server has.
    replaced: Vec<Vec<u8>>,
    /// Whether they are, whatever they hold.
    clean: bool,
}

/// What was loaded.
#[derive(Default)]
struct Report {
    databases: Vec<Vec<u8>>,
    bytes: u64,
    left: Left,
}

/// What the server had already of the roles and tablespaces.
#[derive(Default)]
struct Left {
    /// Their names.
    names: Vec<Vec<u8>>,
    /// How many memberships and rights among them.
    grants: u64,
}

impl Load<'_> {
    fn run(&self, saved: &Saved, with_globals: bool, meter: &Meter<'_>) -> Result<Report> {
        let globals = saved.globals.as_ref().filter(|_| with_globals);
        let files = || globals.into_iter().chain(&saved.databases);
        let count = u64::try_from(files().count()).unwrap_or(u64::MAX);
        meter.set_total(count, files().map(|file| file.size).sum());
        let mut report = Report::default();
        if let Some(file) = globals {
            meter.started(&file.path);
            let loaded = self.load_globals(file, meter);
            report.left = loaded.context("cannot load the roles and tablespaces")?;
            meter.finished(&done(file));
        }
        for file in &saved.databases {
            meter.started(&file.path);
            if let Err(error) = self.load_database(file, meter) {
                let mut what = format!("cannot load database {}", text::name(&file.name));
                if !report.databases.is_empty() {
                    what += &format!("; loaded before: {}", names(&report.databases));
                }
                let hint = "when the cause is gone, choose what is missing with --database, and \
                            replace what is incomplete with --clean";
                return Err(hinted(error.context(what), hint));
            }
            meter.finished(&done(file));
            report.databases.push(file.name.clone());
            report.bytes += file.size;
        }
        Ok(report)
    }

    fn load_database(&self, file: &File, meter: &Meter<'_>) -> Result<()> {
        let usual = self.server.usual.as_slice();
        let connected = if file.name == usual { OTHER } else { usual };
        let replace = self.replaced.contains(&file.name);
        if replace && !self.clean && holds_anything(self.server, &file.name)? {
            let error = anyhow!("meanwhile it was filled by somebody else; it was left as it is");
            return Err(Hint::of(HELD).on(error));
        }
        let call = Call::load(connected, replace);
        let what = format!("pg_restore of database {}", text::name(&file.name));
        let mut feed = |take: &mut Take<'_>| -> Result<()> {
            let mut take = |piece: &[u8]| {
                take(piece)?;
                meter.add(0, u64::try_from(piece.len()).unwrap_or(0));
                Ok::<_, Error>(())
            };
            self.whole(file, &mut take)
        };
        self.feed(&call, what, &mut feed)
    }

    /// Loads the roles and tablespaces that the server lacks; returns those that it has.
    fn load_globals(&self, file: &File, meter: &Meter<'_>) -> Result<Left> {
        let most = globals::MAX_SCRIPT;
        ensure!(file.size <= most, "the script has more than {most} bytes");
        let mut script = Vec::new();
        self.whole(file, &mut |piece| {
            script.extend_from_slice(piece);
            let len = u64::try_from(script.len()).unwrap_or(u64::MAX);
            ensure!(len <= most, "the script has more than {most} bytes");
            Ok(())
        })?;
        let server = self.server;
        let existing = Existing {
            roles: server.query(ROLES, &server.usual)?.into_iter().collect(),
            tablespaces: server
                .query(TABLESPACES, &server.usual)?
                .into_iter()
                .collect(),
        };
        let plan = globals::plan(&script, &existing)?;
        let call = Call::script(&server.usual);
        let what = "psql with roles and tablespaces".to_owned();
        // That a role is a member already is no news.
        let quiet = b"SET client_min_messages = warning;\n";
        self.feed(&call, what, &mut |take| {
            take(quiet).and_then(|()| take(&plan.sql))
        })
        .map_err(|error| hinted(error, "connect as a superuser, or add --no-globals"))?;
        meter.add(0, file.size);
        Ok(Left {
            names: plan.left.into_iter().collect(),
            grants: plan.grants_left,
        })
    }

    /// Hands on a file, which must be as long as its entry says.
    fn whole(&self, file: &File, take: &mut Take<'_>) -> Result<()> {
        let found = self.view.feed(&file.content, take)?;
        if found != file.size {
            let (path, size) = (file.path.clone(), file.size);
            bail!(CoreError::WrongLength { path, size, found });
        }
        Ok(())
    }

    /// Runs a program on what `feed` hands on.
    fn feed(
        &self,
        call: &Call,
        what: String,
        feed: &mut dyn FnMut(&mut Take<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut command = self.server.command(call);
        let (program, mut feeder) = Program::feed(&mut command, what, self.server.requests)?;
        let fed = feed(&mut |piece| Ok(feeder.write(piece).map_err(NotTaken)?));
        drop(feeder);
        let said = match fed {
            Ok(()) => program.finish()?,
            Err(error) => match error.downcast::<NotTaken>() {
                Ok(NotTaken(error)) => return Err(program.finish_after(error).into()),
                Err(error) => return Err(error),
            },
        };
        for line in said {
            self.app.show.warn(&line);
        }
        Ok(())
    }

    fn tell_plan(&self, saved: &Saved) -> Result<()> {
        for file in &saved.databases {
            let verb = if self.replaced.contains(&file.name) {
                "replaced"
            } else {
                "made"
            };
            let (name, size) = (text::name(&file.name), text::size(file.size));
            self.app
                .show
                .note(&format!("database {name}, {size}, would be {verb}"))?;
        }
        Ok(())
    }
}

/// Takes a piece of a file.
type Take<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// The program did not take what it was fed.
#[derive(Debug, thiserror::Error)]
#[error("the program reads no more")]
struct NotTaken(#[source] io::Error);

fn done(file: &File) -> Done<'_> {
    Done {
        path: &file.path,
        action: Action::New,
        is_dir: false,
        size: file.size,
        added: 0,
    }
}

#[derive(serde::Serialize)]
struct Summary {
    total_duration: f64,
    databases: Vec<String>,
    databases_loaded: u64,
    bytes_loaded: u64,
    roles_left: Vec<String>,
    grants_left: u64,
}

fn show_report(app: &App, report: &Report, elapsed: Duration) -> Result<()> {
    let count = u64::try_from(report.databases.len()).unwrap_or(u64::MAX);
    if app.show.json {
        let lossy = |names: &[Vec<u8>]| {
            let name = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
            names.iter().map(name).collect()
        };
        let body = Summary {
            total_duration: elapsed.as_secs_f64(),
            databases: lossy(&report.databases),
            databases_loaded: count,
            bytes_loaded: report.bytes,
            roles_left: lossy(&report.left.names),
            grants_left: report.left.grants,
        };
        return app.show.json(&Message::new("summary", body));
    }
    let note = |line: String| app.show.note(&line);
    note(format!(
        "loaded   {}, {}",
        text::count(count, "database", "databases"),
        text::size(report.bytes)
    ))?;
    let left = &report.left;
    if !left.names.is_empty() {
        let names = names(&left.names);
        note(format!(
            "left     roles and tablespaces that exist: {names}"
        ))?;
    }
    if left.grants > 0 {
        let grants = text::count(left.grants, "grant", "grants");
        note(format!(
            "left     {grants} among roles and tablespaces that exist"
        ))?;
    }
    note(format!(
        "time     {}, {}",
        text::span(elapsed),
        text::rate(report.bytes, elapsed)
    ))
}
