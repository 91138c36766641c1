//! `backup`: saves files, standard input, what a command prints, or databases.

use std::{ffi::OsString, num::NonZeroUsize, path::Path, sync::atomic::Ordering};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use jiff::tz::TimeZone;
use strongroom_core::{
    archive::{About, BackupOptions, BackupReport, BaseTree, FIRST_CHECKPOINT, backup},
    format::snapshot::Snapshot,
    snapshots::{SnapshotFilter, latest_parent},
    source::{filter::Filter as Excludes, meta::Accounts, targets::Targets},
    view::View,
};
use strongroom_repo::{
    format::log::EntryKind, id::SnapshotId, repository::Repository, writer::DeltaMode,
};

use super::{
    excludes::ExcludeArgs,
    postgres::save::PostgresArgs,
    sqlite::SqliteArgs,
    stream,
    targets::{SourceArgs, stream_target},
};
use crate::{
    app::{App, PROGRAM},
    args::GroupBy,
    env::{self, User},
    error::{Cancelled, Code},
    select::{self, tag_list},
    show::{
        Level,
        json::{Message, SummaryJson},
        progress::{self, Work},
        text,
    },
    signals::Requests,
    threads,
    units::Moment,
};

const SNAPSHOT: &str = "About the snapshot";
const CHANGE: &str = "What counts as unchanged";
const DELTA: &str = "What is stored as a difference";

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom backup /srv --exclude '*.tmp' --exclude-caches
  strongroom backup --files-from list.txt --tag nightly
  strongroom backup /srv --sqlite
  strongroom backup --read-devices /dev/vg/shop-snapshot
  strongroom backup --postgres postgresql://backup@db1 --database shop --tag db1
  strongroom backup --stdin-filename shop.sql --stdin-from-command -- mysqldump shop

A file that cannot be read is told of and left out; the exit code is 3 then.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    postgres: PostgresArgs,

    #[command(flatten)]
    exclude: ExcludeArgs,

    #[command(flatten)]
    sqlite: SqliteArgs,

    #[command(flatten)]
    about: AboutArgs,

    #[command(flatten)]
    change: ChangeArgs,

    #[command(flatten)]
    delta: DeltaArgs,

    /// Store nothing, only tell what would be
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Threads that read, compress and encrypt [env: STRONGROOM_READ_CONCURRENCY]
    /// [default: one a core]
    #[arg(long, value_name = "N")]
    read_concurrency: Option<NonZeroUsize>,

    /// Do not count the files first: the time that is left is not known then
    #[arg(long)]
    no_scan: bool,
}

#[derive(clap::Args, Debug)]
struct AboutArgs {
    /// Tags; can be given several times
    #[arg(long, value_name = "TAG[,TAG]", help_heading = SNAPSHOT)]
    tag: Vec<String>,

    /// Host to note [env: STRONGROOM_HOST] [default: this machine's name]
    #[arg(short = 'H', long, value_name = "HOST", help_heading = SNAPSHOT)]
    host: Option<String>,

    /// Time to note, such as '2026-11-21 03:05:40' [default: now]
    #[arg(long, value_name = "TIME", help_heading = SNAPSHOT)]
    time: Option<String>,

    /// Make no snapshot where nothing differs from the parent
    #[arg(long, help_heading = SNAPSHOT)]
    skip_if_unchanged: bool,
}

#[derive(clap::Args, Debug)]
struct ChangeArgs {
    /// Snapshot to compare with [default: the latest of the same host and paths]
    #[arg(long, value_name = "ID", help_heading = CHANGE)]
    parent: Option<String>,

    /// Read all files, whatever the parent says
    #[arg(short, long, help_heading = CHANGE, conflicts_with = "parent")]
    force: bool,

    /// What the parent has in common with the new snapshot
    #[arg(short, long, value_name = "BY", default_value = "host,paths", help_heading = CHANGE)]
    group_by: GroupBy,

    /// Trust size and time of change of the content alone [env: STRONGROOM_IGNORE_CTIME]
    #[arg(long, help_heading = CHANGE)]
    ignore_ctime: bool,

    /// Save the time of last access; files are then rarely the same as in the parent
    #[arg(long, help_heading = CHANGE)]
    with_atime: bool,
}

#[derive(clap::Args, Debug)]
struct DeltaArgs {
    /// When to store what changed in a file as its difference from what was there before
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = DELTA)]
    delta: Delta,

    /// Snapshot, or a folder or file in it, that files without a predecessor may descend from; can
    /// be given several times
    #[arg(long, value_name = "ID[:PATH]", help_heading = DELTA)]
    base: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Delta {
    /// Where what was there before is near, as it is in a folder of this machine
    Auto,
    /// Never: everything that is new is stored whole
    Never,
    /// Wherever it has to be fetched from
    Always,
}

impl From<Delta> for DeltaMode {
    fn from(delta: Delta) -> Self {
        match delta {
            Delta::Auto => Self::Auto,
            Delta::Never => Self::Never,
            Delta::Always => Self::Always,
        }
    }
}

/// Names of files, as bytes.
type Paths = Vec<Vec<u8>>;

/// Runs it.
pub(crate) fn run(app: &App, args: Args) -> Result<Code> {
    let base = env::working_directory().context("cannot tell the working directory")?;
    let rules = args.exclude.rules(app)?;
    Excludes::compile(&rules)?;
    args.postgres.check()?;
    let (targets, paths) = args.what(app, &base)?;
    let databases = args.sqlite.options(app, &base)?;
    let about = args.about(app)?;
    let repo = app.open_with(args.source.takes_stdin())?;
    if !args.dry_run {
        repo.require(EntryKind::AddSnapshot)?;
    }
    let parent = parent(&repo, &args.change, &about, &paths)?;
    if let Some(parent) = &parent {
        tell_parent(app, parent)?;
    }
    let mut writer = app.writer_options(repo.config().pack_target)?;
    writer.dry_run = args.dry_run;
    writer.delta = args.delta.delta.into();
    let bases = bases(&repo, &args.delta.base)?;
    let options = BackupOptions {
        targets,
        base,
        filter: rules,
        parent,
        bases,
        about,
        writer,
        workers: args.workers(app)?,
        accounts: Accounts::load(Path::new("/etc/passwd"), Path::new("/etc/group")),
        read_devices: args.source.read_devices,
        with_atime: args.change.with_atime,
        ignore_ctime: args.change.ignore_ctime || app.switch_variable("IGNORE_CTIME")?,
        skip_if_unchanged: args.about.skip_if_unchanged,
        count_first: !args.no_scan && !args.is_stream() && progress::is_seen(app),
        checkpoint: FIRST_CHECKPOINT,
        databases,
    };
    let requests = Requests::listen().context("cannot listen to signals")?;
    let (result, elapsed) = progress::watch(app, Work::Backup, &requests, |meter| {
        let cancel = requests.cancel.as_ref();
        let result = if args.source.stdin {
            stream::save_stdin(&repo, &options, meter, &requests)
        } else if args.source.stdin_from_command {
            stream::save_command(&repo, &options, &args.source.paths, meter, &requests)
        } else if args.postgres.is_given() {
            args.postgres.save(app, &repo, &options, meter, &requests)
        } else {
            backup(&repo, &options, meter, cancel).map_err(Into::into)
        };
        (result, meter.elapsed())
    })?;
    if requests.cancel.load(Ordering::Relaxed) && result.is_err() {
        let kept = "there is no new snapshot, but the next backup uses what was stored so far";
        return Err(Cancelled::and(kept).into());
    }
    let report = result.context("the backup failed; there is no new snapshot")?;
    show_report(app, &args, &report, elapsed)?;
    Ok(if report.errors > 0 {
        Code::Incomplete
    } else {
        Code::Success
    })
}

impl Args {
    /// Whether it is streams that are saved, not files.
    const fn is_stream(&self) -> bool {
        self.source.is_stream() || self.postgres.is_given()
    }

    /// The targets, and the paths that the snapshot is found by.
    fn what(&self, app: &App, base: &Path) -> Result<(Paths, Paths)> {
        if self.postgres.is_given() {
            return Ok((Vec::new(), self.postgres.paths()));
        }
        if self.source.is_stream() {
            let targets = stream_target(&self.source.stdin_filename)?;
            let path = |name: &Vec<u8>| [b"/", name.as_slice()].concat();
            let paths = targets.iter().map(path).collect();
            return Ok((targets, paths));
        }
        let targets = self.source.targets(app, base)?;
        let resolved = Targets::resolve(base, &targets);
        Ok((targets, resolved.absolute_paths().to_vec()))
    }

    fn workers(&self, app: &App) -> Result<usize> {
        let given = match self.read_concurrency {
            Some(number) => Some(number),
            None => app.typed_variable::<NonZeroUsize>("READ_CONCURRENCY")?,
        };
        Ok(given.map_or_else(threads::for_work, NonZeroUsize::get))
    }

    fn about(&self, app: &App) -> Result<About> {
        let User { name, uid, gid } = User::current();
        let time = match self.about.time.as_deref() {
            None | Some("now") => None,
            Some(text) => Some(Moment::parse(text, &TimeZone::system())?.0),
        };
        let mut tags: Vec<_> = self
            .about
            .tag
            .iter()
            .flat_map(|list| tag_list(list))
            .collect();
        tags.sort();
        tags.dedup();
        let excludes = self.exclude.exclude.iter().chain(&self.exclude.iexclude);
        Ok(About {
            time,
            host: app.host(self.about.host.as_deref())?,
            user: name,
            uid,
            gid,
            tags,
            excludes: excludes
                .map(|pattern| pattern.to_string_lossy().into_owned())
                .collect(),
            program: PROGRAM.to_owned(),
        })
    }
}

fn tell_parent(app: &App, (id, snapshot): &(SnapshotId, Snapshot)) -> Result<()> {
    if app.show.level < Level::Verbose {
        return Ok(());
    }
    let time = text::time(snapshot.time, &app.show.zone);
    let id = id.short();
    app.show
        .note(&format!("comparing with snapshot {id} from {time}"))?;
    app.show.flush()
}

/// The snapshot to compare with.
fn parent(
    repo: &Repository,
    args: &ChangeArgs,
    about: &About,
    paths: &[Vec<u8>],
) -> Result<Option<(SnapshotId, Snapshot)>> {
    let found = if args.force {
        None
    } else if let Some(parent) = &args.parent {
        Some(select::find(repo, parent, &SnapshotFilter::default())?)
    } else {
        let before = about.time.unwrap_or_else(|| repo.env().now());
        let by = (&args.group_by).into();
        latest_parent(repo, &about.host, paths, &about.tags, by, before)
    };
    Ok(found.map(|found| (found.id, found.record)))
}

/// The trees and files that may be descended from.
fn bases(repo: &Repository, given: &[OsString]) -> Result<Vec<BaseTree>> {
    let base = |text: &OsString| {
        let text = text.as_encoded_bytes();
        let mut parts = text.splitn(2, |byte| *byte == b':');
        let id = str::from_utf8(parts.next().unwrap_or_default());
        let id = id.context("--base begins with the ID of a snapshot")?;
        let path = parts.next();
        let found = select::find(repo, id, &SnapshotFilter::default())?;
        let view = View::open(repo, &found.record)?;
        let entry = view.lookup_typed(path.unwrap_or(b"/"))?;
        Ok(BaseTree { entry })
    };
    given.iter().map(base).collect()
}

#[derive(serde::Serialize)]
struct Summary {
    dry_run: bool,
    #[serde(flatten)]
    counts: SummaryJson,
    total_duration: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_id: Option<String>,
    error_count: u64,
    excluded_count: u64,
}

fn show_report(
    app: &App,
    args: &Args,
    report: &BackupReport,
    elapsed: std::time::Duration,
) -> Result<()> {
    let summary = &report.summary;
    if app.show.json {
        let body = Summary {
            dry_run: args.dry_run,
            counts: summary.into(),
            total_duration: elapsed.as_secs_f64(),
            snapshot_id: report.snapshot.map(SnapshotId::to_hex),
            error_count: report.errors,
            excluded_count: report.excluded,
        };
        return app.show.json(&Message::new("summary", body));
    }
    let would = if args.dry_run { "would be " } else { "" };
    let counts = |new, changed, same| {
        format!(
            "{} new, {} changed, {} unchanged",
            text::grouped(new),
            text::grouped(changed),
            text::grouped(same)
        )
    };
    let files = counts(
        summary.files_new,
        summary.files_changed,
        summary.files_unmodified,
    );
    let dirs = counts(
        summary.dirs_new,
        summary.dirs_changed,
        summary.dirs_unmodified,
    );
    let note = |line: String| app.show.note(&line);
    note(format!("files    {files}"))?;
    note(format!("folders  {dirs}"))?;
    note(format!(
        "size     {} in {}",
        text::size(summary.total_bytes),
        text::count(summary.total_files, "file", "files")
    ))?;
    note(format!(
        "added    {} {would}new, {} {would}stored",
        text::size(summary.data_added),
        text::size(summary.data_added_packed)
    ))?;
    note(format!(
        "time     {}, {}",
        text::span(elapsed),
        text::rate(summary.total_bytes, elapsed)
    ))?;
    if report.errors > 0 {
        let problems = text::count(report.errors, "problem", "problems");
        note(format!("missing  {problems}: the snapshot is incomplete"))?;
    }
    match report.snapshot {
        Some(id) => note(format!("snapshot {} saved", id.short())),
        None if args.dry_run => note("nothing was stored: this was a dry run".to_owned()),
        None => note("nothing differs from the parent: no snapshot was made".to_owned()),
    }
}
