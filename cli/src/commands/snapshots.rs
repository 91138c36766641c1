//! `snapshots`: what there is to restore.

use anyhow::Result;
use strongroom_core::snapshots::LoadedSnapshot;

use crate::{
    app::App,
    args::{FilterArgs, GroupBy, GroupKey},
    error::Code,
    select::{self, GroupName},
    show::{
        json::{SnapshotJson, lossy},
        table::{Column, Table},
        text,
    },
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom snapshots --host db1 --latest 1
  strongroom snapshots --tag nightly,prod --json")]
pub(crate) struct Args {
    /// IDs of snapshots, or how they begin; all where none is given
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// Leave out paths and sizes
    #[arg(short, long)]
    compact: bool,

    /// Show only the last N of every host and set of paths
    #[arg(long, value_name = "N")]
    latest: Option<usize>,

    /// One table for each host, set of paths or list of tags
    #[arg(
        short,
        long,
        value_name = "BY",
        default_value = "",
        hide_default_value = true
    )]
    group_by: GroupBy,

    #[command(flatten)]
    filter: FilterArgs,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let filter = select::filter(app, &args.filter)?;
    let repo = app.open()?;
    let (mut found, code) = if args.ids.is_empty() {
        select::matching(app, &repo, &filter)
    } else {
        let mut found = Vec::new();
        for id in &args.ids {
            found.push(select::find(&repo, id, &filter)?);
        }
        found.retain(|loaded| filter.matches(&loaded.record));
        (found, Code::Success)
    };
    if let Some(latest) = args.latest {
        found = keep_latest(found, latest);
    }
    if app.show.json {
        show_json(app, args, found)?;
        return Ok(code);
    }
    if args.group_by.0.is_empty() {
        show_table(app, args, &found)?;
    } else {
        for (name, group) in select::group(found, &args.group_by.0) {
            app.show
                .line(&format!("snapshots for {}:", describe(&name)))?;
            show_table(app, args, &group)?;
            app.show.line("")?;
        }
    }
    Ok(code)
}

fn keep_latest(found: Vec<LoadedSnapshot>, latest: usize) -> Vec<LoadedSnapshot> {
    let mut kept: Vec<LoadedSnapshot> = Vec::new();
    for (_, mut group) in select::group(found, &[GroupKey::Host, GroupKey::Paths]) {
        let from = group.len().saturating_sub(latest);
        kept.extend(group.drain(from..));
    }
    kept.sort_by_key(|found| (found.record.time, found.id));
    kept
}

fn describe(name: &GroupName) -> String {
    let mut parts = Vec::new();
    if let Some(host) = &name.host {
        parts.push(format!("host {}", text::safe(host)));
    }
    if let Some(tags) = &name.tags {
        parts.push(match tags.as_slice() {
            [] => "no tags".to_owned(),
            tags => format!("tags {}", text::safe(&tags.join(","))),
        });
    }
    if let Some(paths) = &name.paths {
        let paths: Vec<_> = paths.iter().map(|path| text::name(path)).collect();
        parts.push(format!("paths {}", paths.join(", ")));
    }
    parts.join(", ")
}

#[derive(serde::Serialize)]
struct GroupJson {
    group_key: GroupKeyJson,
    snapshots: Vec<SnapshotJson>,
}

#[derive(serde::Serialize)]
struct GroupKeyJson {
    hostname: String,
    paths: Option<Vec<String>>,
    tags: Option<Vec<String>>,
}

fn show_json(app: &App, args: &Args, found: Vec<LoadedSnapshot>) -> Result<()> {
    let record = |found: &LoadedSnapshot| SnapshotJson::new(Some(found.id), &found.record);
    if args.group_by.0.is_empty() {
        let all: Vec<_> = found.iter().map(record).collect();
        app.show.json(&all)?;
    } else {
        let groups: Vec<_> = select::group(found, &args.group_by.0)
            .into_iter()
            .map(|(name, group)| GroupJson {
                group_key: GroupKeyJson {
                    hostname: name.host.unwrap_or_default(),
                    paths: name
                        .paths
                        .map(|paths| paths.iter().map(|path| lossy(path)).collect()),
                    tags: name.tags,
                },
                snapshots: group.iter().map(record).collect(),
            })
            .collect();
        app.show.json(&groups)?;
    }
    Ok(())
}

fn show_table(app: &App, args: &Args, found: &[LoadedSnapshot]) -> Result<()> {
    let short = [
        Column::text("ID"),
        Column::text("Time"),
        Column::flexible("Host"),
        Column::flexible("Tags"),
    ];
    let long = [Column::wide("Paths", 3), Column::number("Size")];
    let mut table = if args.compact {
        Table::new(&short)
    } else {
        Table::new(&[short.as_slice(), &long].concat())
    };
    for LoadedSnapshot {
        id,
        record: snapshot,
        ..
    } in found
    {
        let mut cells = vec![
            id.short(),
            text::time(snapshot.time, &app.show.zone),
            text::safe(&snapshot.host),
            text::safe(&snapshot.tags.join(",")),
        ];
        if !args.compact {
            let paths: Vec<_> = snapshot.paths.iter().map(|path| text::name(path)).collect();
            cells.push(paths.join("\n"));
            cells.push(text::size(snapshot.summary.total_bytes));
        }
        table.row(cells);
    }
    if !found.is_empty() {
        app.show.table(&table)?;
    }
    let number = u64::try_from(table.len())?;
    app.show.note(&text::count(number, "snapshot", "snapshots"))
}
