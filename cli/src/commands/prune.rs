//! `prune`: gives back the space that no snapshot needs.

use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result};
use serde_json::json;
use strongroom_core::prune::prune;
use strongroom_repo::{
    format::log::EntryKind,
    prune::{PruneOptions, PrunePlan, PruneProgress, PruneReport, PruneStep, plan::Amount},
};

use crate::{
    app::App,
    error::{Cancelled, Code},
    show::{json::Message, steps::Steps, text},
    signals::Requests,
    threads,
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Backups, restores and checks may run at the same time. What `strongroom forget` removed cannot be
brought back.")]
pub(crate) struct Args {
    /// Only show what would be deleted
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl PruneProgress for Steps<'_> {
    fn advanced(&self, step: PruneStep, done: u64, total: u64) {
        let step = match step {
            PruneStep::Planning => "looking for what nothing needs",
            PruneStep::Verifying => "reading what is about to be the only copy",
            PruneStep::Sweeping => "giving up packs",
            PruneStep::Deleting => "deleting objects",
        };
        Steps::advanced(self, step, done, total);
    }
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let repo = app.open()?;
    if !args.dry_run {
        repo.require(EntryKind::Sweep)?;
    }
    let requests = Requests::listen().context("cannot listen to signals")?;
    let steps = Steps::new(&app.show);
    let dry_run = args.dry_run;
    let workers = threads::for_work();
    let options = PruneOptions {
        dry_run,
        ..PruneOptions::default()
    };
    let result = prune(&repo, options, workers, &steps, &requests.cancel);
    drop(steps);
    if requests.cancel.load(Ordering::Relaxed) && result.is_err() {
        let kept = "no snapshot is touched; the next prune does the rest";
        return Err(Cancelled::and(kept).into());
    }
    let report = result.context("cannot prune; nothing that a snapshot needs was deleted")?;
    if app.show.json {
        app.show
            .json(&Message::new("summary", summary(dry_run, &report)))?;
    } else {
        show_report(app, dry_run, &report)?;
    }
    Ok(Code::Success)
}

/// What a program is told. Packs are not rewritten to save space, so `repack` is always nothing;
/// what is copied out of damaged ones stands apart.
fn summary(dry_run: bool, report: &PruneReport) -> serde_json::Value {
    let plan = &report.plan;
    let total = plan.used.count + plan.duplicate.count + plan.unused.count;
    let total_bytes = plan.used.bytes + plan.duplicate.bytes + plan.unused.bytes;
    let partly = plan.partly_used.len();
    json!({
        "dry_run": dry_run,
        "blobs": {
            "used": plan.used.count,
            "duplicate": plan.duplicate.count,
            "unused": plan.unused.count,
            "total": total,
            "repack": 0,
            "repack_remove": 0,
        },
        "bytes": {
            "used": plan.used.bytes,
            "duplicate": plan.duplicate.bytes,
            "unused": plan.unused.bytes,
            "unreferenced": plan.unreferenced.bytes,
            "total": total_bytes,
            "repack": 0,
            "repack_remove": 0,
            "remove": plan.freed.bytes,
            "remove_total": plan.freed_bytes(),
            "remaining_unused": plan.unused_left,
        },
        "packfiles": {
            "unused": plan.freed.count,
            "partly_used": partly,
            "left_alone": plan.left_alone.count + plan.awaited.count,
            "unreferenced": plan.unreferenced.count,
            "damaged": plan.damaged.count,
            "total": plan.packs.count,
            "keep": plan.packs.count.saturating_sub(plan.freed.count),
            "repack": 0,
            "remove": plan.freed.count,
            "remove_total": plan.freed.count + plan.unreferenced.count,
        },
        "rescued": {
            "blobs": report.rescued.blobs.count,
            "bytes": report.rescued.blobs.bytes,
            "packs": report.rescued.packs,
        },
        "deleted": report.deleted,
        "running": report.running,
    })
}

/// How many of something, with their bytes.
fn sum(amount: Amount, one: &str, many: &str) -> String {
    format!(
        "{} of {}",
        text::count(amount.count, one, many),
        text::size(amount.bytes)
    )
}

/// What stays for the sake of others, and why.
fn show_left_alone(app: &App, report: &PruneReport) -> Result<()> {
    let labels: Vec<_> = report
        .running
        .iter()
        .map(|label| text::safe(label))
        .collect();
    for (left, why) in [
        (report.plan.left_alone, "that no index names"),
        (report.plan.awaited, "that no snapshot needs yet"),
    ] {
        if left.count > 0 {
            app.show.note(&format!(
                "skipped  {} {why}: they may belong to a backup under way ({})",
                sum(left, "pack", "packs"),
                labels.join(", ")
            ))?;
        }
    }
    Ok(())
}

fn show_report(app: &App, dry_run: bool, report: &PruneReport) -> Result<()> {
    let note = |line: String| app.show.note(&line);
    let plan: &PrunePlan = &report.plan;
    if let [_, ..] = report.finished.as_slice() {
        note("finished what an interrupted prune had begun".to_owned())?;
    }
    if report.rescued.packs > 0 {
        note(format!(
            "rescued  {} out of {}",
            sum(report.rescued.blobs, "blob", "blobs"),
            text::count(report.rescued.packs, "damaged pack", "damaged packs")
        ))?;
    }
    note(format!("needed   {}", sum(plan.used, "blob", "blobs")))?;
    note(format!("unneeded {}", sum(plan.unused, "blob", "blobs")))?;
    if plan.duplicate.count > 0 {
        note(format!("twice    {}", sum(plan.duplicate, "blob", "blobs")))?;
    }
    note(format!("to free  {}", sum(plan.freed, "pack", "packs")))?;
    if plan.unreferenced.count > 0 {
        let stray = sum(plan.unreferenced, "pack", "packs");
        note(format!("stray    {stray} of runs that did not end"))?;
    }
    if plan.unused_left > 0 {
        note(format!(
            "left     {} unneeded in packs that are needed otherwise",
            text::size(plan.unused_left)
        ))?;
    }
    if plan.damaged.count > 0 {
        note(format!(
            "damaged  {} that snapshots need: `strongroom check` shows what is lost",
            sum(plan.damaged, "pack", "packs")
        ))?;
    }
    show_left_alone(app, report)?;
    if report.used_reserve {
        let again = if report.reserve_restored {
            "it is set aside again"
        } else {
            "there is no room yet to set it aside again"
        };
        note(format!("the disk was full: the reserve was used, {again}"))?;
    }
    if dry_run {
        return note("nothing was deleted: this was a dry run".to_owned());
    }
    let freed = text::size(plan.freed_bytes());
    match report.deleted {
        0 => note("nothing to delete".to_owned()),
        deleted => {
            let packs = text::count(deleted, "pack", "packs");
            note(format!("deleted {packs}, {freed} are free again"))
        }
    }
}
