//! `restore`: files of a snapshot back into a folder, one of them onto a device, or databases into
//! their server.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use strongroom_core::{
    format::tree::Body,
    restore::{self, RestoreOptions, RestoreReport, restore},
    view::View,
};

use super::{
    excludes::patterns,
    postgres::load::{Choice, PostgresArgs},
    restore_onto::{self, OntoArgs},
};
use crate::{
    app::App,
    args::FilterArgs,
    error::{Cancelled, Code},
    select::{self, Wanted},
    show::{
        json::Message,
        progress::{self, Work},
        text,
    },
    signals::Requests,
    threads,
};

const SELECT: &str = "What to restore";
const HOW: &str = "How to restore";
/// The arguments that only a restore of files into a folder can have.
pub(super) const FILES_ONLY: [&str; 11] = [
    "target",
    "include",
    "iinclude",
    "include_file",
    "iinclude_file",
    "exclude",
    "iexclude",
    "exclude_file",
    "iexclude_file",
    "overwrite",
    "sparse",
];

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom restore latest --target /tmp/restored
  strongroom restore 12ab34cd:/srv/models --target /srv/models --overwrite if-changed
  strongroom restore latest --target / --include /etc/hosts --host db1
  strongroom restore latest:/dev/vg/shop --to-device /dev/vg/new --yes --verify
  strongroom restore latest --postgres postgresql://postgres@db2 --database shop

A file appears under its name only once it is whole. What could not be restored is told of, and
the exit code is 1 then.")]
pub(crate) struct Args {
    /// The snapshot: its ID or how it begins, `latest`, or either with :FOLDER; with --to-device
    /// :FILE
    #[arg(value_name = "SNAPSHOT[:FOLDER]")]
    snapshot: OsString,

    /// Folder that gets the files; it is made where there is none
    #[arg(
        short,
        long,
        value_name = "FOLDER",
        required_unless_present_any = ["to_device", "postgres"]
    )]
    target: Option<PathBuf>,

    #[command(flatten)]
    postgres: PostgresArgs,

    /// Only what matches this pattern, and all that is below it
    #[arg(short, long, value_name = "PATTERN", help_heading = SELECT)]
    include: Vec<OsString>,

    /// The same, whether letters are small or capital
    #[arg(long, value_name = "PATTERN", help_heading = SELECT)]
    iinclude: Vec<OsString>,

    /// Only what matches a pattern in this file
    #[arg(long, value_name = "FILE", help_heading = SELECT)]
    include_file: Vec<PathBuf>,

    /// The same, whether letters are small or capital
    #[arg(long, value_name = "FILE", help_heading = SELECT)]
    iinclude_file: Vec<PathBuf>,

    /// Leave out what matches this pattern
    #[arg(short, long, value_name = "PATTERN", help_heading = SELECT)]
    exclude: Vec<OsString>,

    /// The same, whether letters are small or capital
    #[arg(long, value_name = "PATTERN", help_heading = SELECT)]
    iexclude: Vec<OsString>,

    /// Leave out what matches a pattern in this file
    #[arg(long, value_name = "FILE", help_heading = SELECT)]
    exclude_file: Vec<PathBuf>,

    /// The same, whether letters are small or capital
    #[arg(long, value_name = "FILE", help_heading = SELECT)]
    iexclude_file: Vec<PathBuf>,

    /// What to do about files that are there already
    #[arg(long, value_name = "WHEN", default_value = "always", help_heading = HOW)]
    overwrite: Overwrite,

    /// Turn blocks of zeros into holes; holes of the snapshot are restored in any case
    #[arg(long, help_heading = HOW)]
    sparse: bool,

    /// Read every restored file back and compare it
    #[arg(long, help_heading = HOW)]
    verify: bool,

    /// Change nothing, only tell what would be
    #[arg(short = 'n', long, help_heading = HOW)]
    dry_run: bool,

    #[command(flatten)]
    onto: OntoArgs,

    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Overwrite {
    /// Replace them
    Always,
    /// Replace them where size or time differ
    IfChanged,
    /// Replace them where the snapshot's are younger
    IfNewer,
    /// Leave them alone
    Never,
}

impl From<Overwrite> for restore::Overwrite {
    fn from(overwrite: Overwrite) -> Self {
        match overwrite {
            Overwrite::Always => Self::Always,
            Overwrite::IfChanged => Self::IfChanged,
            Overwrite::IfNewer => Self::IfNewer,
            Overwrite::Never => Self::Never,
        }
    }
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let wanted = Wanted::parse(&args.snapshot)?;
    let filter = select::filter(app, &args.filter)?;
    if args.postgres.is_given() {
        let choice = Choice {
            wanted: &wanted,
            filter: &filter,
            dry_run: args.dry_run,
        };
        return args.postgres.load(app, &choice);
    }
    let given = args.target.as_deref().or(args.onto.to_device.as_deref());
    let target = given.unwrap_or(Path::new(""));
    let options = args.options(app, target)?;
    ensure!(!target.as_os_str().is_empty(), "--target must not be empty");
    let repo = app.open()?;
    let found = select::find(&repo, &wanted.id, &filter)?;
    let entry = View::open(&repo, &found.record)?.lookup_typed(&wanted.folder)?;
    if let Some(device) = &args.onto.to_device {
        let how = restore_onto::How {
            dry_run: args.dry_run,
            verify: args.verify,
        };
        let what = (&found, &wanted, &entry);
        return restore_onto::run(app, &args.onto, device, &how, &repo, what);
    }
    let Body::Dir(tree) = entry.body else {
        bail!(
            "{} is not a folder: restore it with --include",
            text::name(&wanted.folder)
        );
    };
    if !app.show.json {
        app.show.note(&format!(
            "restoring snapshot {} of {} from {} to {}",
            found.id.short(),
            text::safe(&found.record.host),
            text::time(found.record.time, &app.show.zone),
            target.display(),
        ))?;
        app.show.flush()?;
    }
    let requests = Requests::listen().context("cannot listen to signals")?;
    let (result, elapsed) = progress::watch(app, Work::Restore, &requests, |meter| {
        if wanted.folder.is_empty() && args.takes_all() {
            // The engine learns on the way how much there is; the snapshot tells at once.
            let summary = &found.record.summary;
            meter.set_total(summary.total_files, summary.total_bytes);
        }
        let result = restore(&repo, tree, &options, meter, &requests.cancel);
        (result, meter.elapsed())
    })?;
    if requests.cancel.load(Ordering::Relaxed) && result.is_err() {
        let kept = "files that were whole by then stay, nothing is half written";
        return Err(Cancelled::and(kept).into());
    }
    let report = result.with_context(|| format!("cannot restore to {}", target.display()))?;
    if !args.takes_all() && report.total_files + report.dirs + report.problems == 0 {
        app.show
            .warn("nothing in the snapshot matches the patterns");
    }
    show_report(app, args, &report, elapsed)?;
    ensure!(
        report.problems == 0,
        "{} during the restore, told above",
        text::count(report.problems, "problem", "problems")
    );
    Ok(Code::Success)
}

impl Args {
    /// Whether no pattern leaves files out.
    fn takes_all(&self) -> bool {
        let patterns = [&self.include, &self.iinclude, &self.exclude, &self.iexclude];
        let files = [
            &self.include_file,
            &self.iinclude_file,
            &self.exclude_file,
            &self.iexclude_file,
        ];
        patterns.iter().all(|given| given.is_empty()) && files.iter().all(|given| given.is_empty())
    }

    fn options(&self, app: &App, target: &Path) -> Result<RestoreOptions> {
        Ok(RestoreOptions {
            include: patterns(app, &self.include, &self.include_file)?,
            iinclude: patterns(app, &self.iinclude, &self.iinclude_file)?,
            exclude: patterns(app, &self.exclude, &self.exclude_file)?,
            iexclude: patterns(app, &self.iexclude, &self.iexclude_file)?,
            overwrite: self.overwrite.into(),
            sparse: self.sparse,
            verify: self.verify,
            dry_run: self.dry_run,
            // Whoever may not give files away would fail with every single one.
            owner: rustix::process::geteuid().is_root(),
            workers: threads::for_reading(),
            ..RestoreOptions::new(target.to_owned())
        })
    }
}

#[derive(serde::Serialize)]
struct Summary {
    dry_run: bool,
    seconds_elapsed: u64,
    total_duration: f64,
    total_files: u64,
    files_restored: u64,
    files_skipped: u64,
    files_deleted: u64,
    files_verified: u64,
    total_bytes: u64,
    bytes_restored: u64,
    bytes_skipped: u64,
    error_count: u64,
}

fn show_report(app: &App, args: &Args, report: &RestoreReport, elapsed: Duration) -> Result<()> {
    if app.show.json {
        let body = Summary {
            dry_run: args.dry_run,
            seconds_elapsed: elapsed.as_secs(),
            total_duration: elapsed.as_secs_f64(),
            total_files: report.total_files,
            files_restored: report.files_restored,
            files_skipped: report.files_skipped,
            files_deleted: 0,
            files_verified: report.files_verified,
            total_bytes: report.total_bytes,
            bytes_restored: report.bytes_restored,
            bytes_skipped: report.bytes_skipped,
            error_count: report.problems,
        };
        return app.show.json(&Message::new("summary", body));
    }
    let (restored, left) = if args.dry_run {
        ("would restore", "would leave")
    } else {
        ("restored", "left    ")
    };
    let files = |files, bytes| {
        format!(
            "{} of {}",
            text::count(files, "file", "files"),
            text::size(bytes)
        )
    };
    let note = |line: String| app.show.note(&line);
    note(format!(
        "{restored} {} in {}",
        files(report.files_restored, report.bytes_restored),
        text::count(report.dirs, "folder", "folders")
    ))?;
    if report.files_skipped > 0 {
        let skipped = files(report.files_skipped, report.bytes_skipped);
        note(format!("{left} {skipped} as they are"))?;
    }
    if args.verify && !args.dry_run {
        let verified = text::count(report.files_verified, "file", "files");
        note(format!("verified {verified}, read back and compared"))?;
    }
    note(format!(
        "time     {}, {}",
        text::span(elapsed),
        text::rate(report.bytes_restored, elapsed)
    ))
}
