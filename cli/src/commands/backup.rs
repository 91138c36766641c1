//! `backup`: saves files, standard input, or what a command prints.

use std::{
    ffi::{OsStr, OsString},
    num::NonZeroUsize,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::tz::TimeZone;
use strongroom_core::{
    archive::{About, BackupOptions, BackupReport, backup},
    format::snapshot::Snapshot,
    snapshots::{SnapshotFilter, latest_parent},
    source::{
        filter::{Filter as Excludes, FilterRules},
        lists,
        meta::Accounts,
        targets::Targets,
    },
};
use strongroom_repo::{id::SnapshotId, repository::Repository};

use super::stream;
use crate::{
    app::{App, PROGRAM},
    args::GroupBy,
    env::{self, User},
    error::{Cancelled, Code, Hint},
    select::{self, tag_list},
    show::{
        Level,
        json::{Message, SummaryJson},
        progress::{self, Work},
        text,
    },
    signals::Requests,
    units::{Moment, Size},
};

const EXCLUDE: &str = "What to leave out";
const SOURCE: &str = "What to save";
const SNAPSHOT: &str = "About the snapshot";
const CHANGE: &str = "What counts as unchanged";

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom backup /srv --exclude '*.tmp' --exclude-caches
  strongroom backup --files-from list.txt --tag nightly
  strongroom backup --stdin-filename shop.sql --stdin-from-command -- pg_dump shop

A file that cannot be read is told of and left out; the exit code is 3 then.")]
pub(crate) struct Args {
    /// Files and folders; with --stdin-from-command the command and its arguments
    #[arg(value_name = "PATH", help_heading = SOURCE)]
    paths: Vec<OsString>,

    /// Save the paths in this file, one a line; wildcards are expanded
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    files_from: Vec<PathBuf>,

    /// Save the paths in this file, one a line, taken as they are
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    files_from_verbatim: Vec<PathBuf>,

    /// Save the paths in this file, each ended by a NUL byte
    #[arg(long, value_name = "FILE", help_heading = SOURCE)]
    files_from_raw: Vec<PathBuf>,

    /// Save standard input as one file
    #[arg(long, help_heading = SOURCE, conflicts_with_all = ["paths", "files_from", "files_from_verbatim", "files_from_raw", "stdin_from_command"])]
    stdin: bool,

    /// Name of that file
    #[arg(long, value_name = "NAME", default_value = "stdin", help_heading = SOURCE)]
    stdin_filename: OsString,

    /// Save what a command prints as one file; where it fails there is no snapshot
    #[arg(long, requires = "paths", help_heading = SOURCE, conflicts_with_all = ["files_from", "files_from_verbatim", "files_from_raw"])]
    stdin_from_command: bool,

    #[command(flatten)]
    exclude: ExcludeArgs,

    #[command(flatten)]
    about: AboutArgs,

    #[command(flatten)]
    change: ChangeArgs,

    /// Store nothing, only tell what would be
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Threads that read, compress and encrypt [env: STRONGROOM_READ_CONCURRENCY] [default: one a core]
    #[arg(long, value_name = "N")]
    read_concurrency: Option<NonZeroUsize>,

    /// Do not count the files first: the time that is left is not known then
    #[arg(long)]
    no_scan: bool,
}

#[derive(clap::Args, Debug)]
struct ExcludeArgs {
    /// Leave out what matches this pattern
    #[arg(short, long, value_name = "PATTERN", help_heading = EXCLUDE)]
    exclude: Vec<OsString>,

    /// The same, whether letters are small or capital
    #[arg(long, value_name = "PATTERN", help_heading = EXCLUDE)]
    iexclude: Vec<OsString>,

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

/// Runs it.
pub(crate) fn run(app: &App, args: Args) -> Result<Code> {
    let base = env::working_directory().context("cannot tell the working directory")?;
    let rules = args.exclude.rules(app)?;
    Excludes::compile(&rules)?;
    let is_stream = args.stdin || args.stdin_from_command;
    let targets = if is_stream {
        stream_target(&args.stdin_filename)?
    } else {
        targets(app, &args, &base)?
    };
    let about = args.about(app)?;
    let reads_lists_from_stdin = args.lists().any(|file| file == Path::new("-"));
    let repo = app.open_with(args.stdin || reads_lists_from_stdin)?;
    let paths = if is_stream {
        targets
            .iter()
            .map(|name| [b"/", name.as_slice()].concat())
            .collect()
    } else {
        Targets::resolve(&base, &targets).absolute_paths().to_vec()
    };
    let parent = parent(&repo, &args.change, &about, &paths)?;
    if let Some((id, snapshot)) = &parent
        && app.show.level >= Level::Verbose
    {
        let time = text::time(snapshot.time, &app.show.zone);
        app.show.note(&format!(
            "comparing with snapshot {} from {time}",
            id.short()
        ))?;
        app.show.flush()?;
    }
    let mut writer = app.writer_options(repo.config().pack_target)?;
    writer.dry_run = args.dry_run;
    let options = BackupOptions {
        targets,
        base,
        filter: rules,
        parent,
        about,
        writer,
        workers: args.workers(app)?,
        accounts: Accounts::load(Path::new("/etc/passwd"), Path::new("/etc/group")),
        with_atime: args.change.with_atime,
        ignore_ctime: args.change.ignore_ctime || app.switch_variable("IGNORE_CTIME")?,
        skip_if_unchanged: args.about.skip_if_unchanged,
        count_first: !args.no_scan && !is_stream && progress::is_seen(app),
    };
    let requests = Requests::listen().context("cannot listen to signals")?;
    let (result, elapsed) = progress::watch(app, Work::Backup, &requests, |meter| {
        let cancel = requests.cancel.as_ref();
        let result = if args.stdin {
            stream::save_stdin(&repo, &options, meter, &requests)
        } else if args.stdin_from_command {
            stream::save_command(&repo, &options, &args.paths, meter, &requests)
        } else {
            backup(&repo, &options, meter, cancel).map_err(Into::into)
        };
        (result, meter.elapsed())
    })?;
    if requests.cancel.load(Ordering::Relaxed) && result.is_err() {
        return Err(Cancelled.into());
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
    fn lists(&self) -> impl Iterator<Item = &PathBuf> {
        self.files_from
            .iter()
            .chain(&self.files_from_verbatim)
            .chain(&self.files_from_raw)
    }

    fn workers(&self, app: &App) -> Result<usize> {
        let given = match self.read_concurrency {
            Some(number) => Some(number),
            None => app.typed_variable::<NonZeroUsize>("READ_CONCURRENCY")?,
        };
        Ok(given.map_or_else(
            || thread::available_parallelism().map_or(1, NonZeroUsize::get),
            NonZeroUsize::get,
        ))
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

impl ExcludeArgs {
    fn rules(&self, app: &App) -> Result<FilterRules> {
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

fn bytes_of(text: impl AsRef<OsStr>) -> Vec<u8> {
    text.as_ref().as_bytes().to_vec()
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

fn stream_target(name: &OsStr) -> Result<Vec<Vec<u8>>> {
    let name = name.as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    ensure!(
        !name.is_empty() && !name.contains(&b'/'),
        "--stdin-filename must be the name of a file, without folders"
    );
    Ok(vec![name.to_vec()])
}

/// The paths typed and those in lists.
fn targets(app: &App, args: &Args, base: &Path) -> Result<Vec<Vec<u8>>> {
    let mut targets: Vec<_> = args.paths.iter().map(bytes_of).collect();
    for file in &args.files_from {
        for pattern in read_list(file, &|data| lists::parse_patterns(data))? {
            let found = lists::expand_wildcards(base, &pattern)?;
            if found.is_empty() {
                app.show
                    .warn(&format!("{} matches no file", text::name(&pattern)));
            }
            targets.extend(found);
        }
    }
    for file in &args.files_from_verbatim {
        targets.extend(read_list(file, &|data| lists::parse_verbatim(data))?);
    }
    for file in &args.files_from_raw {
        targets.extend(read_list(file, &|data| lists::parse_raw(data))?);
    }
    if targets.is_empty() {
        bail!("nothing to save: give files or folders");
    }
    let resolved = Targets::resolve(base, &targets);
    if resolved.is_empty() {
        let missing: Vec<_> = resolved.missing().map(ToString::to_string).collect();
        return Err(Hint::of("check how the paths are written")
            .on(anyhow::anyhow!("nothing to save: {}", missing.join("; "))));
    }
    Ok(targets)
}

type Parse<'a> = &'a dyn Fn(&[u8]) -> strongroom_core::Result<Vec<Vec<u8>>>;

fn read_list(file: &Path, parse: Parse<'_>) -> Result<Vec<Vec<u8>>> {
    let what = || format!("cannot use the list of files {}", file.display());
    let data = if file == Path::new("-") {
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut data).with_context(what)?;
        data
    } else {
        std::fs::read(file).with_context(what)?
    };
    parse(&data).with_context(what)
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
