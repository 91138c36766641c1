//! `forget`: removes snapshots by name. What only they need stays until `prune`.

use anyhow::{Context as _, Result};
use strongroom_core::{
    error::Error as CoreError,
    snapshots::{self, LoadedSnapshot},
};
use strongroom_repo::{format::log::EntryKind, id::SnapshotId};

use crate::{
    app::App,
    error::{Code, story},
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remove_unreadable: Vec<String>,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let repo = app.open()?;
    if !args.dry_run {
        repo.require(EntryKind::RemoveSnapshots)?;
    }
    let mut ids: Vec<SnapshotId> = Vec::new();
    for id in &args.ids {
        let wanted = select::find_id(&repo, id)?;
        if !ids.contains(&wanted) {
            ids.push(wanted);
        }
    }
    // Read while they are there, and only to tell of them: one that cannot be read can go all the
    // same, since nothing else can be done about it.
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for id in &ids {
        match snapshots::load(&repo, *id) {
            Ok(loaded) => found.push(loaded),
            Err(error) => unreadable.push((*id, error)),
        }
    }
    if !args.dry_run {
        repo.remove_snapshots(&ids)
            .context("cannot remove the snapshots; none was removed")?;
    }
    if app.show.json {
        let remove = found
            .iter()
            .map(|found| SnapshotJson::new(Some(found.id), &found.record))
            .collect();
        let remove_unreadable = unreadable.iter().map(|(id, _)| id.to_hex()).collect();
        let dry_run = args.dry_run;
        app.show.json(&[Removed {
            dry_run,
            remove,
            remove_unreadable,
        }])?;
        return Ok(Code::Success);
    }
    show(app, args, &found, &unreadable)?;
    Ok(Code::Success)
}

fn show(
    app: &App,
    args: &Args,
    found: &[LoadedSnapshot],
    unreadable: &[(SnapshotId, CoreError)],
) -> Result<()> {
    let verb = if args.dry_run {
        "would remove"
    } else {
        "removed"
    };
    for LoadedSnapshot {
        id,
        record: snapshot,
        ..
    } in found
    {
        app.show.note(&format!(
            "{verb} snapshot {} of {} from {}",
            id.short(),
            text::safe(&snapshot.host),
            text::time(snapshot.time, &app.show.zone),
        ))?;
    }
    for (id, error) in unreadable {
        app.show.note(&format!(
            "{verb} snapshot {}, which cannot be read: {}",
            id.short(),
            text::safe(&story(error))
        ))?;
    }
    if !args.dry_run {
        app.show
            .note("`strongroom prune` frees the space that only they took")?;
    }
    Ok(())
}
