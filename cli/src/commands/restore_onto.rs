//! `restore --to-device`: one file of a snapshot onto a block device, or into a file that is there.

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use strongroom_core::{
    error::{Error as CoreError, RestoreAction},
    format::tree::{Body, TreeEntry},
    restore::onto::{Image, OntoOptions, OntoReport, restore_onto},
    snapshots::LoadedSnapshot,
};
use strongroom_repo::repository::Repository;

use super::restore::FILES_ONLY;
use crate::{
    app::App,
    error::{Cancelled, Code, Hint},
    select::Wanted,
    show::{
        json::Message,
        progress::{self, Work},
        text,
    },
    signals::Requests,
    threads,
};

const HOW: &str = "Onto a device";

/// What can be typed.
#[derive(clap::Args, Debug)]
pub(super) struct OntoArgs {
    /// Write the one file that SNAPSHOT:FILE names over this block device or existing file, where
    /// it differs; with --yes
    #[arg(
        long,
        value_name = "DEVICE",
        help_heading = HOW,
        conflicts_with_all = FILES_ONLY,
        conflicts_with = "postgres",
    )]
    pub(super) to_device: Option<std::path::PathBuf>,

    /// Yes, overwrite what is there
    #[arg(
        long,
        help_heading = HOW,
        requires = "to_device",
        conflicts_with_all = FILES_ONLY,
    )]
    yes: bool,

    /// Even where it is mounted or otherwise in use
    #[arg(
        long,
        help_heading = HOW,
        requires = "to_device",
        conflicts_with_all = FILES_ONLY,
    )]
    force: bool,
}

/// What the rest of the command line says.
pub(super) struct How {
    pub(super) dry_run: bool,
    pub(super) verify: bool,
}

/// Runs it.
pub(super) fn run(
    app: &App,
    args: &OntoArgs,
    device: &Path,
    how: &How,
    repo: &Repository,
    (found, wanted, entry): (&LoadedSnapshot, &Wanted, &TreeEntry),
) -> Result<Code> {
    let Body::File(content) = &entry.body else {
        let what = [
            b"/",
            wanted.folder.strip_prefix(b"/").unwrap_or(&wanted.folder),
        ]
        .concat();
        let what = text::name(&what);
        return Err(Hint::of("name one: SNAPSHOT:/path/of/file")
            .on(anyhow!("{what} is not a file, and --to-device writes one")));
    };
    let options = OntoOptions {
        device: device.to_owned(),
        dry_run: how.dry_run,
        force: args.force,
        verify: how.verify,
        workers: threads::for_reading(),
    };
    if !args.yes && !how.dry_run {
        let hint = "-n tells how much would be written; add --yes to write it";
        return Err(Hint::of(hint).on(anyhow!(
            "this would overwrite {}: nothing was written",
            device.display()
        )));
    }
    let image = Image {
        path: &wanted.folder,
        content,
        size: entry.node.size(),
    };
    tell_start(app, device, how, found, &wanted.folder)?;
    let requests = Requests::listen().context("cannot listen to signals")?;
    let (result, elapsed) = progress::watch(app, Work::Restore, &requests, |meter| {
        let result = restore_onto(repo, image, &options, meter, &requests.cancel);
        (result, meter.elapsed())
    })?;
    if requests.cancel.load(Ordering::Relaxed) && result.is_err() {
        let kept = if how.dry_run {
            "nothing was written"
        } else {
            "what is there now is partly old and partly new: run the command again"
        };
        return Err(Cancelled::and(kept).into());
    }
    let report = match result {
        Ok(report) => report,
        Err(error) => return Err(explained(error, device)),
    };
    show_report(app, device, how, &report, elapsed)?;
    if report.problems > 0 {
        bail!(
            "{} during the restore, told above",
            text::count(report.problems, "problem", "problems")
        );
    }
    ensure!(
        !how.verify || how.dry_run || report.verified == report.size,
        "not everything was read back"
    );
    Ok(Code::Success)
}

fn tell_start(
    app: &App,
    device: &Path,
    how: &How,
    found: &LoadedSnapshot,
    file: &[u8],
) -> Result<()> {
    if app.show.json {
        return Ok(());
    }
    app.show.note(&format!(
        "{} {} of snapshot {} from {} {} {}",
        if how.dry_run {
            "comparing"
        } else {
            "restoring"
        },
        text::name(file),
        found.id.short(),
        text::time(found.record.time, &app.show.zone),
        if how.dry_run { "with" } else { "onto" },
        device.display(),
    ))?;
    app.show.flush()
}

fn explained(error: CoreError, device: &Path) -> anyhow::Error {
    let hint = match &error {
        CoreError::DeviceInUse { .. } => Some("unmount it, or add --force if you are sure"),
        CoreError::DeviceTooSmall { .. } => {
            Some("use a larger device; a file is made larger by `truncate`")
        }
        CoreError::DeviceRefused {
            action: RestoreAction::Write,
            ..
        } => Some("what is there now is partly old and partly new; see the log of the kernel"),
        _ => None,
    };
    let error =
        anyhow::Error::new(error).context(format!("cannot restore to {}", device.display()));
    match hint {
        Some(hint) => Hint::of(hint).on(error),
        None => error,
    }
}

#[derive(serde::Serialize)]
struct Summary<'a> {
    dry_run: bool,
    device: std::borrow::Cow<'a, str>,
    device_size: u64,
    total_bytes: u64,
    bytes_compared: u64,
    bytes_written: u64,
    bytes_verified: u64,
    error_count: u64,
    total_duration: f64,
}

fn show_report(
    app: &App,
    device: &Path,
    how: &How,
    report: &OntoReport,
    elapsed: Duration,
) -> Result<()> {
    if app.show.json {
        let body = Summary {
            dry_run: how.dry_run,
            device: device.to_string_lossy(),
            device_size: report.device_size,
            total_bytes: report.size,
            bytes_compared: report.compared,
            bytes_written: report.written,
            bytes_verified: report.verified,
            error_count: report.problems,
            total_duration: elapsed.as_secs_f64(),
        };
        return app.show.json(&Message::new("summary", body));
    }
    let would = if how.dry_run { " would be" } else { "" };
    let note = |line: String| app.show.note(&line);
    note(format!("compared {}", text::size(report.compared)))?;
    note(format!(
        "written  {}{would}, {} of it",
        text::size(report.written),
        text::percent(report.written, report.size)
    ))?;
    if report.device_size > report.size {
        let rest = report.device_size - report.size;
        note(format!(
            "beyond   {} behind the end of the file were left as they are",
            text::size(rest)
        ))?;
    }
    if how.verify && !how.dry_run {
        let verified = text::size(report.verified);
        note(format!("verified {verified}, read back and compared"))?;
    }
    note(format!(
        "time     {}, {}",
        text::span(elapsed),
        text::rate(report.compared, elapsed)
    ))
}
