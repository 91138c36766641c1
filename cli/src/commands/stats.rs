//! `stats`: how much there is.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use strongroom_core::stats::{CodecSum, Stats, StatsMode, stats};
use strongroom_repo::{codec::Codec, id::SnapshotId};

use crate::{
    app::App,
    args::FilterArgs,
    error::{Cancelled, Code},
    select,
    show::text,
    signals::Requests,
    threads,
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom stats
  strongroom stats --mode raw-data
  strongroom stats --mode files-by-contents latest")]
pub(crate) struct Args {
    /// IDs of snapshots, or how they begin; all where none is given
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// What to count
    #[arg(long, value_name = "MODE", default_value = "restore-size")]
    mode: Mode,

    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// What restoring every snapshot would write
    RestoreSize,
    /// Files that differ in content, each once
    FilesByContents,
    /// Blobs of files, once for each path
    BlobsPerFile,
    /// Blobs as they are stored, each once
    RawData,
}

impl From<Mode> for StatsMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::RestoreSize => Self::RestoreSize,
            Mode::FilesByContents => Self::FilesByContents,
            Mode::BlobsPerFile => Self::BlobsPerFile,
            Mode::RawData => Self::RawData,
        }
    }
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let filter = select::filter(app, &args.filter)?;
    let repo = app.open()?;
    let (ids, code) = if args.ids.is_empty() {
        let (found, code) = select::matching(app, &repo, &filter);
        (found.iter().map(|found| found.id).collect(), code)
    } else {
        let mut ids = BTreeSet::<SnapshotId>::new();
        for id in &args.ids {
            ids.insert(select::find(&repo, id, &filter)?.id);
        }
        (ids, Code::Success)
    };
    let requests = Requests::listen().context("cannot listen to signals")?;
    let workers = threads::for_work();
    let result = stats(&repo, &ids, args.mode.into(), workers, &requests.cancel);
    if requests.cancel.load(Ordering::Relaxed) {
        return Err(Cancelled::default().into());
    }
    let stats = result.context("cannot count")?;
    if app.show.json {
        app.show.json(&summary(args.mode, &stats))?;
    } else {
        show_stats(app, args.mode, &stats)?;
    }
    if stats.problems > 0 {
        let problems = text::count(stats.problems, "page or blob", "pages or blobs");
        app.show
            .warn(&format!("{problems} cannot be read: the numbers lack them"));
        return Ok(Code::Incomplete);
    }
    Ok(code)
}

fn summary(mode: Mode, stats: &Stats) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
    put("total_size", stats.size.into());
    put("snapshots_count", stats.snapshots.into());
    if mode != Mode::RawData {
        put("total_file_count", stats.files.into());
    }
    if matches!(mode, Mode::BlobsPerFile | Mode::RawData) {
        put("total_blob_count", stats.blobs.into());
    }
    if mode == Mode::RawData {
        put("total_uncompressed_size", stats.plain.into());
        put("compression_ratio", stats.compression_ratio().into());
        put("compression_space_saving", stats.space_saving().into());
        // Everything is stored in the one format that there is.
        put("compression_progress", 100.into());
        let sum = |sum: &CodecSum| {
            json!({
                "blob_count": sum.blobs,
                "size": sum.size,
                "uncompressed_size": sum.plain,
            })
        };
        let codecs = used(stats).map(|(codec, of)| (codec.name().to_owned(), sum(of)));
        put("codecs", Value::Object(codecs.collect()));
        put("saved_by_deltas", stats.saved_by_deltas.into());
        put("pinned_by_deltas", sum(&stats.pinned));
    }
    Value::Object(out)
}

/// The codecs that blobs have.
fn used(stats: &Stats) -> impl Iterator<Item = (Codec, &CodecSum)> {
    let sums = stats.codecs.iter().zip(0_u8..);
    sums.filter_map(|(sum, byte)| Some((Codec::try_from(byte).ok()?, sum)))
        .filter(|(_, sum)| sum.blobs > 0)
}

fn show_codecs(app: &App, stats: &Stats) -> Result<()> {
    let blobs = |sum: &CodecSum| text::count(sum.blobs, "blob", "blobs");
    for (codec, sum) in used(stats) {
        let (size, plain) = (text::size(sum.size), text::size(sum.plain));
        let line = format!("  {:<12} {size} of {plain} in {}", codec.name(), blobs(sum));
        app.show.line(&line)?;
    }
    if stats.saved_by_deltas > 0 {
        let saved = text::size(stats.saved_by_deltas);
        app.show
            .line(&format!("deltas     {saved} less than without"))?;
    }
    if stats.pinned.blobs > 0 {
        let (size, blobs) = (text::size(stats.pinned.size), blobs(&stats.pinned));
        let line = format!("pinned     {size} in {blobs} that only deltas need");
        app.show.line(&line)?;
    }
    Ok(())
}

fn show_stats(app: &App, mode: Mode, stats: &Stats) -> Result<()> {
    let line = |name: &str, value: String| app.show.line(&format!("{name:<10} {value}"));
    line("snapshots", text::grouped(stats.snapshots))?;
    if mode != Mode::RawData {
        line("files", text::grouped(stats.files))?;
    }
    if matches!(mode, Mode::BlobsPerFile | Mode::RawData) {
        line("blobs", text::grouped(stats.blobs))?;
    }
    line("size", text::size(stats.size))?;
    if mode == Mode::RawData {
        line("plain", text::size(stats.plain))?;
        let ratio = format!(
            "{:.2}x, {:.1} % saved",
            stats.compression_ratio(),
            stats.space_saving().max(0.0)
        );
        line("ratio", ratio)?;
        show_codecs(app, stats)?;
    }
    Ok(())
}
