//! `forget`: removes snapshots by name. What only they need stays until `prune`.

use anyhow::{Context as _, Result};
use strongroom_core::snapshots::{LoadedSnapshot, SnapshotFilter};
use strongroom_repo::id::SnapshotId;

use crate::{
    app::App,
    error::Code,
    select,
    show::{json::SnapshotJson, text},
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom forget 12ab34cd 56ef7890
  strongroom forget latest --dry-run")]
pub(crate) struct Args {
    /// IDs of snapshots, or how they begin
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,

    /// Only show what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(serde::Serialize)]
struct Removed {
    dry_run: bool,
    remove: Vec<SnapshotJson>,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let repo = app.open()?;
    let mut found: Vec<LoadedSnapshot> = Vec::new();
    for id in &args.ids {
        let wanted = select::find(&repo, id, &SnapshotFilter::default())?;
        if found.iter().all(|found| found.id != wanted.id) {
            found.push(wanted);
        }
    }
    let ids: Vec<SnapshotId> = found.iter().map(|found| found.id).collect();
    if !args.dry_run {
        repo.remove_snapshots(&ids)
            .context("cannot remove the snapshots; none was removed")?;
    }
    if app.show.json {
        let remove = found
            .iter()
            .map(|found| SnapshotJson::new(Some(found.id), &found.record))
            .collect();
        let dry_run = args.dry_run;
        app.show.json(&[Removed { dry_run, remove }])?;
        return Ok(Code::Success);
    }
    let verb = if args.dry_run {
        "would remove"
    } else {
        "removed"
    };
    for LoadedSnapshot {
        id,
        record: snapshot,
        ..
    } in &found
    {
        app.show.note(&format!(
            "{verb} snapshot {} of {} from {}",
            id.short(),
            text::safe(&snapshot.host),
            text::time(snapshot.time, &app.show.zone),
        ))?;
    }
    if !args.dry_run {
        app.show
            .note("`strongroom prune` frees the space that only they took")?;
    }
    Ok(Code::Success)
}
