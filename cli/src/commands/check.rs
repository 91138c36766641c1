//! `check`: is everything there, and can it be read?

use std::{error::Error as StdError, iter::successors, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use strongroom_core::check::{CheckReport, Finding, What, check};
use strongroom_repo::{
    check::{CheckOptions, CheckProgress, ReadData, Recorded, Severity, Verdict},
    format::log::EntryKind,
    id::PackId,
    repository::Repository,
};

use crate::{
    app::App,
    error::{Cancelled, Code, Hint, message},
    show::{
        json::{self, Message},
        progress::{self, Meter, Work},
        text,
    },
    signals::Requests,
    threads,
    units::Subset,
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom check
  strongroom check --read-data
  strongroom check --read-data-subset 1/7   every day another seventh: 1/7, 2/7, ...
  strongroom check --read-data-subset 5%
  strongroom check --read-data --record-damage

Without these options the structure is checked: log, keys, index, the presence and length of
every pack, and all folders of all snapshots. The exit code is 1 where something is damaged.

Nothing is changed, unless --record-damage is given: then the log notes which packs are damaged, so
that the next backup stores anew what lies in them, as far as it still finds it, and the next prune
removes those that nothing needs any more. Log entries and copies of the configuration of which a
whole copy is left are put right at once.")]
pub(crate) struct Args {
    /// Read every pack and check every byte
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,

    /// Read a part of the packs: n/t, x%, or about SIZE bytes at random
    #[arg(long, value_name = "PART")]
    read_data_subset: Option<Subset>,

    /// Note damaged packs in the log, so that no backup relies on them any more, and put right what
    /// is damaged in the log itself
    #[arg(long)]
    record_damage: bool,
}

impl CheckProgress for Meter<'_> {
    fn total(&self, packs: u64, bytes: u64) {
        self.set_total(packs, bytes);
    }

    fn advanced(&self, bytes: u64) {
        self.add(1, bytes);
    }
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let options = CheckOptions {
        read_data: args.read_data(),
        workers: threads::for_reading(),
    };
    let repo = app.open()?;
    // Not after hours of reading.
    if args.record_damage {
        repo.require(EntryKind::Attest)?;
    }
    let requests = Requests::listen().context("cannot listen to signals")?;
    let (result, elapsed) = progress::watch(app, Work::Check, &requests, |meter| {
        let result = check(&repo, options, meter, &requests.cancel);
        (result, meter.elapsed())
    })?;
    if requests.cancel.load(Ordering::Relaxed) {
        return Err(Cancelled::default().into());
    }
    let report = result.context("cannot check the repository")?;
    for finding in &report.findings {
        tell(app, finding);
    }
    let (mut recorded, mut healed) = (Recorded::default(), 0);
    if args.record_damage {
        if is_healable(&report) {
            healed = heal(app, &repo);
        }
        recorded = repo
            .record_verdicts(&report.objects.verdicts)
            .context("cannot record what was found")?;
    }
    if app.show.json {
        let message = Message::new("summary", summary(&report, recorded, healed));
        app.show.json(&message)?;
    } else {
        show_report(app, &report, recorded, healed, elapsed)?;
    }
    if report.has_errors() {
        let errors = error_count(&report);
        let error = anyhow!(
            "the repository is damaged: {}",
            text::count(errors, "error", "errors")
        );
        return Err(Hint::of(remedy(&report, args)).on(error));
    }
    Ok(Code::Success)
}

/// Puts right what can be; how many objects. Where that fails the report counts all the same.
fn heal(app: &App, repo: &Repository) -> u64 {
    match repo.heal() {
        Ok(objects) => u64::try_from(objects.len()).unwrap_or(u64::MAX),
        Err(error) => {
            let why = message(anyhow!(error).chain().map(ToString::to_string));
            let what = "cannot put right what is known from other copies";
            app.show.warn(&format!("{what}: {why}"));
            0
        }
    }
}

fn is_healable(report: &CheckReport) -> bool {
    let healable = |what: &What| matches!(what, What::Object(finding) if finding.is_healable());
    report
        .findings
        .iter()
        .any(|finding| healable(&finding.what))
}

/// What to do about damage.
fn remedy(report: &CheckReport, args: &Args) -> &'static str {
    if args.record_damage {
        return "restore what is needed first; then back up the same paths again, prune, and check \
                once more";
    }
    let in_packs = report.objects.verdicts.values().any(Verdict::is_damage);
    if in_packs {
        return "restore what is needed first; `strongroom check --read-data --record-damage` lets \
                the next backup store anew what lies in damaged packs";
    }
    "restore what is needed first; `strongroom backup` stores anew what it still finds"
}

impl Args {
    fn read_data(&self) -> ReadData {
        match self.read_data_subset {
            _ if self.read_data => ReadData::All,
            None => ReadData::Nothing,
            Some(Subset::Part { number, of }) => ReadData::Part {
                nth: number.get().into(),
                of: of.get().into(),
            },
            Some(Subset::Share(millionths)) => ReadData::Millionths(millionths),
            Some(Subset::Bytes(bytes)) => ReadData::Bytes(bytes),
        }
    }
}

fn error_count(report: &CheckReport) -> u64 {
    let told = u64::try_from(report.count(Severity::Error)).unwrap_or(u64::MAX);
    told.saturating_add(report.untold)
}

/// Most paths shown for a finding.
const SHOWN_PATHS: usize = 10;

/// Tells of a finding and whom it concerns, on standard error.
fn tell(app: &App, finding: &Finding) {
    let words = words(&finding.what);
    if app.show.json {
        if finding.severity > Severity::Note {
            text::to_stderr(&json::error(&words, "check", ""));
        }
        return;
    }
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    if finding.severity == Severity::Note && app.show.level < crate::show::Level::Verbose {
        return;
    }
    text::to_stderr(&format!("{severity}: {}", text::safe(&words)));
    let affected = &finding.affected;
    for (snapshot, path) in affected.paths.iter().take(SHOWN_PATHS) {
        let path = [b"/", path.strip_prefix(b"/").unwrap_or(path)].concat();
        let path = text::name(&path);
        text::to_stderr(&format!(
            "  needed by {path} in snapshot {}",
            snapshot.short()
        ));
    }
    let shown = u64::try_from(affected.paths.len().min(SHOWN_PATHS)).unwrap_or(u64::MAX);
    let all = u64::try_from(affected.paths.len()).unwrap_or(u64::MAX) + affected.more;
    if all > shown {
        let snapshots = u64::try_from(affected.snapshots.len()).unwrap_or(u64::MAX);
        text::to_stderr(&format!(
            "  and by {} more, in {} altogether",
            text::count(all - shown, "path", "paths"),
            text::count(snapshots, "snapshot", "snapshots")
        ));
    }
}

/// A finding with its causes.
fn words(what: &What) -> String {
    let cause: Option<&(dyn StdError + 'static)> = match what {
        What::Object(finding) => finding.what.source(),
        What::Tree(fault) => fault.source(),
        What::Snapshot(error) => error.source(),
        What::Lost(_) => None,
    };
    let causes = successors(cause, |error| (**error).source()).map(ToString::to_string);
    message(std::iter::once(what.to_string()).chain(causes))
}

#[derive(serde::Serialize)]
struct Summary {
    num_errors: u64,
    num_warnings: usize,
    broken_packs: Vec<String>,
    recorded_bad: u64,
    recorded_good: u64,
    healed: u64,
    suggest_repair_index: bool,
    suggest_prune: bool,
    snapshots: u64,
    blobs: u64,
    packs: u64,
    packs_read: u64,
    bytes_read: u64,
}

fn summary(report: &CheckReport, recorded: Recorded, healed: u64) -> Summary {
    let objects = &report.objects;
    let broken = objects.bad_packs.iter().chain(objects.bad_blobs.keys());
    let mut broken: Vec<String> = broken.copied().map(PackId::to_hex).collect();
    broken.sort();
    broken.dedup();
    Summary {
        num_errors: error_count(report),
        num_warnings: report.count(Severity::Warning),
        broken_packs: broken,
        recorded_bad: recorded.bad,
        recorded_good: recorded.good,
        healed,
        suggest_repair_index: false,
        suggest_prune: objects.unreferenced.count > 0,
        snapshots: report.snapshots,
        blobs: report.reachable,
        packs: objects.packs.count,
        packs_read: objects.read.count,
        bytes_read: objects.read.bytes,
    }
}

fn show_report(
    app: &App,
    report: &CheckReport,
    recorded: Recorded,
    healed: u64,
    elapsed: Duration,
) -> Result<()> {
    let objects = &report.objects;
    let note = |line: String| app.show.note(&line);
    note(format!(
        "checked  {}, {}, {}",
        text::count(objects.log_entries, "log entry", "log entries"),
        text::count(objects.indexes, "index", "indexes"),
        text::count(objects.packs.count, "pack", "packs")
    ))?;
    note(format!(
        "trees    {} with {}",
        text::count(report.snapshots, "snapshot", "snapshots"),
        text::count(report.reachable, "blob", "blobs")
    ))?;
    if objects.read.count > 0 {
        note(format!(
            "read     {} of {}, {}",
            text::count(objects.read.count, "pack", "packs"),
            text::size(objects.read.bytes),
            text::rate(objects.read.bytes, elapsed)
        ))?;
    }
    if objects.unreferenced.count > 0 {
        note(format!(
            "stray    {} of {}: leftovers for `strongroom prune`, or of a backup under way",
            text::count(objects.unreferenced.count, "pack", "packs"),
            text::size(objects.unreferenced.bytes)
        ))?;
    }
    for (packs, how) in [(recorded.bad, "damaged"), (recorded.good, "whole again")] {
        if packs > 0 {
            let packs = text::count(packs, "pack", "packs");
            note(format!("recorded {packs} as {how}"))?;
        }
    }
    if healed > 0 {
        let objects = text::count(healed, "object", "objects");
        note(format!("healed   {objects} from other copies"))?;
    }
    note(format!("time     {}", text::span(elapsed)))?;
    if report.has_errors() {
        return Ok(());
    }
    match report.count(Severity::Warning) {
        0 => note("no errors were found".to_owned()),
        _ if healed == 0 && is_healable(report) => note(
            "nothing is lost, but see the warnings; `strongroom check --record-damage` puts right \
             what is known from other copies"
                .to_owned(),
        ),
        _ => note("nothing is lost, but see the warnings".to_owned()),
    }
}
