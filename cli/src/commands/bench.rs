//! `bench`: what a disk and this machine can do, and which of them a backup will wait for. What is
//! measured and judged is the engine's; here is what people read of it.

use std::{path::PathBuf, str::FromStr, sync::atomic::Ordering, time::Duration};

use anyhow::{Context as _, Error, Result, anyhow};
use serde::Serialize;
use strongroom_core::{
    bench::{
        Bottleneck, Content, Disk, DiskPart, Handling, Job, LEAST_SIZE, Measured, Pace, Stage,
        Stages, StagesOptions, Verdict, disk, judge, stages,
    },
    error::Error as CoreError,
};
use strongroom_repo::{
    backend::Location, codec::Level, limits::DEFAULT_PACK_TARGET, writer::WriterOptions,
};

use crate::{
    app::App,
    error::{Cancelled, Code, Hint},
    show::{
        json::Message,
        table::{Column, Table},
        text,
    },
    signals::Requests,
    threads,
    units::Size,
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom bench /mnt/usb
  strongroom -r /mnt/backup/strongroom bench --compression better
  strongroom bench --size 4G --seconds 3 /mnt/backup

The disk is measured with one large file and some small ones, none of which has a name: nothing
is left behind. The processor is measured with made-up data, on all cores at once. The global
options --compression, --pack-size and --no-extra-verify are taken into account.")]
pub(crate) struct Args {
    /// Folder on the disk to measure; that of the repository where one is given, else this one
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,

    /// How much to write to the disk and read back, 1 MiB or more
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    size: DiskSize,

    /// How long to measure each stage of the processor's work
    #[arg(long, value_name = "SECONDS", default_value = "1")]
    seconds: Seconds,
}

/// Bytes enough to tell something about a disk.
#[derive(Clone, Copy, Debug)]
struct DiskSize(u64);

impl FromStr for DiskSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<Size>() {
            Ok(Size(size)) if size >= LEAST_SIZE => Ok(Self(size)),
            Ok(_) => Err("at least 1 MiB is needed".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A short time, perhaps less than a second.
#[derive(Clone, Copy, Debug)]
struct Seconds(Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = text.parse().ok().filter(|s| (0.0..=3600.0).contains(s));
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.map(Self)
            .ok_or("not a number of seconds from 0 to 3600")
    }
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let dir = folder(app, args)?;
    let settings = app.writer_options(DEFAULT_PACK_TARGET)?;
    let cores = threads::for_work();
    let requests = Requests::listen().context("cannot listen to signals")?;
    let stopped = |error| {
        if requests.cancel.load(Ordering::Relaxed) {
            return Cancelled::default().into();
        }
        explained(error)
    };
    let disk = disk(&dir, args.size.0, &requests.cancel).map_err(stopped)?;
    if !app.show.json {
        show_disk(app, &dir.to_string_lossy(), args.size.0, &disk)?;
    }
    let options = StagesOptions {
        level: settings.level,
        cores,
        time: args.seconds.0,
    };
    let stages = stages(options, &requests.cancel).map_err(stopped)?;
    let measured = Measured {
        disk,
        stages,
        pack_target: settings.pack_target,
        verify: settings.verify,
    };
    if app.show.json {
        let about = summary(&dir.to_string_lossy(), args, &settings, &measured, cores);
        app.show.json(&Message::new("bench", about))?;
    } else {
        show_stages(app, &measured.stages, settings.level, cores)?;
        show_verdicts(app, &measured, cores)?;
    }
    Ok(Code::Success)
}

/// The folder to measure.
fn folder(app: &App, args: &Args) -> Result<PathBuf> {
    if let Some(dir) = &args.dir {
        return Ok(dir.clone());
    }
    Ok(match app.given_location()? {
        Some(Location::Local(folder)) => folder,
        None => PathBuf::from("."),
    })
}

fn explained(error: CoreError) -> Error {
    match error {
        CoreError::BenchNoRoom { dir, wanted, free } => {
            Hint::of("write less with --size").on(anyhow!(
                "{} has room for {}: too little to write {}",
                dir.display(),
                text::size(free),
                text::size(wanted)
            ))
        }
        error => error.into(),
    }
}

/// The contents, as they are called and as programs call them; those that are stored as
/// differences last.
const CONTENTS: [(Content, &str, &str); 5] = [
    (Content::Noise, "incompressible data", "incompressible"),
    (Content::Text, "text", "text"),
    (Content::Weights, "model weights", "model_weights"),
    (Content::Changed, "changed text", "changed_text"),
    (Content::Tuned, "tuned weights", "tuned_weights"),
];
/// How many of them are stored whole.
const WHOLE: usize = 3;

fn content_words(content: Content) -> (&'static str, &'static str) {
    let found = CONTENTS.iter().find(|(of, ..)| *of == content);
    found.map_or(("", ""), |(_, words, name)| (*words, *name))
}

fn job_words(job: Job) -> String {
    match job {
        Job::Backup(content) => format!("backup of new {}", content_words(content).0),
        Job::Duplicates => "backup of duplicates".to_owned(),
        Job::Restore(content) => format!("restore of {}", content_words(content).0),
    }
}

/// A stage, as it is called and as programs call it.
const fn stage_words(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::Read => ("reading files from the page cache", "read"),
        Stage::Cut => ("cutting", "cut"),
        Stage::Hash => ("ids", "hash"),
        Stage::Encode => ("compression", "encode"),
        Stage::Seal => ("sealing", "seal"),
        Stage::Pack => ("packing", "pack"),
        Stage::Verify => ("verifying", "verify"),
        Stage::Open => ("opening", "open"),
        Stage::Decode => ("decompression", "decode"),
        Stage::Write => ("writing files to the page cache", "write"),
    }
}

const fn part_words(part: DiskPart) -> (&'static str, &'static str) {
    match part {
        DiskPart::Write => ("writing", "write"),
        DiskPart::Sync => ("syncing each pack", "fsync"),
        DiskPart::Read => ("reading", "read"),
    }
}

fn rate(rate: u64) -> String {
    format!("{}/s", text::size(rate))
}

/// Milliseconds with two decimals.
fn millis(time: Duration) -> String {
    let micros = time.as_micros();
    format!("{}.{:02} ms", micros / 1000, micros / 10 % 100)
}

fn show_disk(app: &App, dir: &str, size: u64, disk: &Disk) -> Result<()> {
    let way = if disk.in_memory {
        "in memory, not on a disk"
    } else if disk.direct {
        "past the page cache"
    } else {
        "through the page cache, written out and dropped"
    };
    app.show.line(&format!(
        "{} at {}, {way}\n",
        text::size(size),
        text::name(dir.as_bytes())
    ))?;
    let mut table = Table::new(&[Column::text("Disk"), Column::number("")]);
    for (name, value) in [
        ("writing in a row", rate(disk.write.per_second())),
        ("reading in a row", rate(disk.read.per_second())),
        ("a small file and its fsync", millis(disk.fsync)),
    ] {
        table.row(vec![name.to_owned(), value]);
    }
    app.show.table(&table)?;
    app.show.line("")?;
    // The rest takes seconds.
    app.show.flush()
}

/// What each stage does with which content, in the order of a backup and then a restore.
fn stage_rows(stages: &Stages) -> Vec<(Stage, Option<Content>, Pace)> {
    let noise = &stages.noise;
    let of_content = |stage, content| {
        let work = stages.handling(content);
        let time = match stage {
            Stage::Encode => work.encode,
            Stage::Verify => work.verify,
            _ => work.decode,
        };
        (stage, Some(content), work.pace(time))
    };
    let by_content = |stage, count| {
        let contents = CONTENTS.iter().take(count);
        contents.map(move |(content, ..)| of_content(stage, *content))
    };
    let mut rows = vec![
        (Stage::Read, None, stages.read),
        (Stage::Cut, None, stages.cut),
        (Stage::Hash, None, noise.pace(noise.hash)),
    ];
    rows.extend(by_content(Stage::Encode, CONTENTS.len()));
    rows.extend([
        (Stage::Seal, None, noise.pace(noise.seal)),
        (Stage::Pack, None, noise.pace(noise.pack)),
    ]);
    rows.extend(by_content(Stage::Verify, WHOLE));
    rows.push((Stage::Open, None, noise.pace(noise.open)));
    rows.extend(by_content(Stage::Decode, CONTENTS.len()));
    rows.push((Stage::Write, None, stages.write));
    rows
}

/// Whether a rate means anything: what is stored as it is needs no decompression.
fn is_work(stages: &Stages, stage: Stage, content: Option<Content>) -> bool {
    let stored_plain = |content| {
        let work = stages.handling(content);
        work.stored == work.plain
    };
    stage != Stage::Decode || !content.is_some_and(stored_plain)
}

fn show_stages(app: &App, stages: &Stages, level: Level, cores: usize) -> Result<()> {
    let mut table = Table::new(&[
        Column::text("Processor"),
        Column::number("of each core"),
        Column::number("becomes"),
    ]);
    for (stage, content, pace) in stage_rows(stages) {
        let of = content.map(|content| content_words(content).0);
        let words = stage_words(stage).0;
        let becomes = match content {
            Some(content) if stage == Stage::Encode => {
                let work = stages.handling(content);
                text::percent(work.stored, work.plain)
            }
            _ => String::new(),
        };
        let rate = if is_work(stages, stage, content) {
            rate(pace.per_second())
        } else {
            "none needed".to_owned()
        };
        let name = of.map_or_else(|| words.to_owned(), |of| format!("{words}, {of}"));
        table.row(vec![name, rate, becomes]);
    }
    app.show.table(&table)?;
    let cores = text::count(u64::try_from(cores).unwrap_or(u64::MAX), "core", "cores");
    app.show.line(&format!(
        "\n{cores} at work at once; compression: {}\n",
        level_name(level)
    ))
}

fn show_verdicts(app: &App, measured: &Measured, cores: usize) -> Result<()> {
    let mut table = Table::new(&[
        Column::text("Job"),
        Column::number("at most"),
        Column::flexible("waits for"),
    ]);
    for job in Job::ALL {
        let verdict = judge(measured, job, cores);
        table.row(vec![job_words(job), rate(verdict.rate), waits_for(verdict)]);
    }
    app.show.table(&table)
}

fn waits_for(verdict: Verdict) -> String {
    match verdict.bottleneck {
        Bottleneck::Disk(part) => format!("the disk: {}", part_words(part).0),
        Bottleneck::Processor(stage) => format!(
            "the processor: {}, {} of its time",
            stage_words(stage).0,
            text::percent(verdict.share, 1000)
        ),
    }
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Off => "off",
        Level::Fastest => "fastest",
        Level::Auto => "auto",
        Level::Better => "better",
        Level::Max => "max",
    }
}

#[derive(Serialize)]
struct Summary {
    dir: String,
    cores: usize,
    compression: &'static str,
    pack_size: u32,
    verify: bool,
    disk: DiskJson,
    stages: Vec<StageJson>,
    jobs: Vec<JobJson>,
}

#[derive(Serialize)]
struct DiskJson {
    size: u64,
    direct: bool,
    write_rate: u64,
    read_rate: u64,
    fsync_seconds: f64,
}

#[derive(Serialize)]
struct StageJson {
    stage: &'static str,
    content: Option<&'static str>,
    rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_share: Option<f64>,
}

#[derive(Serialize)]
struct JobJson {
    job: &'static str,
    content: &'static str,
    rate: u64,
    bound_by: &'static str,
    part: &'static str,
    disk_rate: Option<u64>,
    processor_rate: u64,
    largest_stage: &'static str,
    largest_share: f64,
}

fn summary(
    dir: &str,
    args: &Args,
    settings: &WriterOptions,
    measured: &Measured,
    cores: usize,
) -> Summary {
    let (disk, stages) = (&measured.disk, &measured.stages);
    let rows = stage_rows(stages).into_iter();
    Summary {
        dir: dir.to_owned(),
        cores,
        compression: level_name(settings.level),
        pack_size: measured.pack_target,
        verify: measured.verify,
        disk: DiskJson {
            size: args.size.0,
            direct: disk.direct,
            write_rate: disk.write.per_second(),
            read_rate: disk.read.per_second(),
            fsync_seconds: disk.fsync.as_secs_f64(),
        },
        stages: rows
            .map(|(stage, content, pace)| StageJson {
                stage: stage_words(stage).1,
                content: content.map(|content| content_words(content).1),
                rate: is_work(stages, stage, content).then(|| pace.per_second()),
                stored_share: content
                    .filter(|_| stage == Stage::Encode)
                    .map(|content| stored_share(stages.handling(content))),
            })
            .collect(),
        jobs: Job::ALL
            .map(|job| job_message(job, judge(measured, job, cores)))
            .into(),
    }
}

/// In ten thousandths.
fn stored_share(work: &Handling) -> f64 {
    let share = work.stored.saturating_mul(10_000) / work.plain.max(1);
    f64::from(u32::try_from(share).unwrap_or(u32::MAX)) / 10_000.0
}

fn job_message(job: Job, verdict: Verdict) -> JobJson {
    let (job, content) = match job {
        Job::Backup(content) => ("backup", content_words(content).1),
        Job::Duplicates => ("backup", "duplicates"),
        Job::Restore(content) => ("restore", content_words(content).1),
    };
    let (bound_by, part) = match verdict.bottleneck {
        Bottleneck::Disk(part) => ("disk", part_words(part).1),
        Bottleneck::Processor(stage) => ("processor", stage_words(stage).1),
    };
    JobJson {
        job,
        content,
        rate: verdict.rate,
        bound_by,
        part,
        disk_rate: verdict.disk_rate,
        processor_rate: verdict.processor_rate,
        largest_stage: stage_words(verdict.stage).1,
        largest_share: f64::from(u32::try_from(verdict.share).unwrap_or(1000)) / 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_seconds_have_bounds() {
        assert!("1M".parse::<DiskSize>().is_ok());
        for text in ["1023K", "0", "much"] {
            assert!(text.parse::<DiskSize>().is_err(), "{text}");
        }
        for (text, millis) in [("0", 0), ("0.5", 500), ("2", 2000)] {
            assert_eq!(
                text.parse::<Seconds>().unwrap().0,
                Duration::from_millis(millis)
            );
        }
        for text in ["-1", "NaN", "inf", "3601", "soon", ""] {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_narrow_place_is_told_in_words() {
        let verdict = |bottleneck| Verdict {
            bottleneck,
            rate: 1,
            disk_rate: Some(1),
            processor_rate: 2,
            stage: Stage::Encode,
            share: 625,
        };
        let cases = [
            (Bottleneck::Disk(DiskPart::Write), "the disk: writing"),
            (
                Bottleneck::Disk(DiskPart::Sync),
                "the disk: syncing each pack",
            ),
            (
                Bottleneck::Processor(Stage::Encode),
                "the processor: compression, 62.5 % of its time",
            ),
        ];
        for (bottleneck, words) in cases {
            assert_eq!(waits_for(verdict(bottleneck)), words);
        }
        assert_eq!(millis(Duration::from_micros(4_256)), "4.25 ms");
        assert_eq!(millis(Duration::from_micros(9)), "0.00 ms");
    }
}
