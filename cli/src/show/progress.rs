//! How far a long command is: a bar on a terminal, `status` messages for programs, a line now and
//! then with `-v` elsewhere, and a line whenever SIGUSR1 asks. [`watch`] runs the engine with an
//! observer that counts; a thread beside it tells.

use std::{
    io::{self, IsTerminal as _},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use strongroom_core::{
    error::Error,
    observer::{Action, Done, Observer},
};

use super::{
    Level, Show, columns,
    json::{self, Message, lossy},
    text,
};
use crate::{
    app::App,
    error::{advice, story},
    signals::Requests,
};

/// What is done, in the words of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Saving files.
    Backup,
    /// Writing files back.
    Restore,
    /// Reading the repository.
    Check,
}

/// Where progress goes.
#[derive(Clone, Debug)]
enum Form {
    Bar(ProgressBar),
    Json,
    Lines,
    None,
}

/// Time between two looks at what signals asked for.
const PATIENCE: Duration = Duration::from_millis(200);
/// Most current files that are named.
const MOST_CURRENT: usize = 4;
/// Cells of a bar where there is room, and fewer than which it has not.
const WIDEST_BAR: usize = 20;
const NARROWEST_BAR: usize = 4;
/// Columns around a bar that neither it nor the words take.
const FRAME: usize = 4;

/// Runs `engine` and tells how far it is.
pub(crate) fn watch<T>(
    app: &App,
    work: Work,
    requests: &Requests,
    engine: impl FnOnce(&Meter<'_>) -> T,
) -> Result<T> {
    let frequency = app.parsed_variable("PROGRESS_FPS", |text| match text.parse::<f64>() {
        Ok(fps) if fps > 0.0 && fps <= 60.0 => Ok(fps),
        _ => Err("not a number above 0 and up to 60".to_owned()),
    })?;
    let meter = Meter::new(&app.show, work, frequency.is_some());
    let interval = frequency.map_or(meter.usual_interval(), |fps| {
        Duration::from_secs_f64(1.0 / fps)
    });
    let (stop, stopped) = mpsc::channel::<()>();
    let result = thread::scope(|scope| {
        let meter = &meter;
        scope.spawn(move || meter.tell(interval, requests, &stopped));
        let result = engine(meter);
        drop(stop);
        result
    });
    Ok(result)
}

/// Whether somebody will see progress, so that counting the work first is worth it.
pub(crate) fn is_seen(app: &App) -> bool {
    let fps = app.vars.own("PROGRESS_FPS").is_some();
    !matches!(form(&app.show, fps), Form::None)
}

fn form(show: &Show, asked: bool) -> Form {
    let wanted = show.level > Level::Quiet || asked;
    if !wanted {
        Form::None
    } else if show.json {
        Form::Json
    } else if io::stderr().is_terminal() {
        Form::Bar(ProgressBar::hidden())
    } else if show.level >= Level::Verbose || asked {
        Form::Lines
    } else {
        Form::None
    }
}

/// Counts what the engine tells.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    show: &'a Show,
    work: Work,
    form: Form,
    start: Instant,
    total_files: AtomicU64,
    total_bytes: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    current: Mutex<Vec<Vec<u8>>>,
}

/// The counts at one moment.
#[derive(Clone, Debug)]
struct Reading {
    work: Work,
    elapsed: Duration,
    total_files: u64,
    total_bytes: u64,
    files: u64,
    bytes: u64,
    errors: u64,
    current: Vec<Vec<u8>>,
}

impl<'a> Meter<'a> {
    fn new(show: &'a Show, work: Work, asked: bool) -> Self {
        let form = match form(show, asked) {
            Form::Bar(_) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                Form::Bar(bar.with_style(style(show.colour, None)))
            }
            other => other,
        };
        Self {
            show,
            work,
            form,
            start: Instant::now(),
            total_files: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            current: Mutex::default(),
        }
    }

    const fn usual_interval(&self) -> Duration {
        match self.form {
            Form::Bar(_) => Duration::from_millis(100),
            Form::Json => Duration::from_millis(250),
            Form::Lines | Form::None => Duration::from_secs(60),
        }
    }

    /// Problems so far.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// There are so many files and bytes to do, or more.
    pub(crate) fn set_total(&self, files: u64, bytes: u64) {
        self.total_files.fetch_max(files, Ordering::Relaxed);
        self.total_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// So many more are done.
    pub(crate) fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self) -> Reading {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            work: self.work,
            elapsed: self.start.elapsed(),
            total_files: self.total_files.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors(),
            current: current.iter().take(MOST_CURRENT).cloned().collect(),
        }
    }

    /// Tells until the engine is done.
    fn tell(&self, interval: Duration, requests: &Requests, stopped: &mpsc::Receiver<()>) {
        let mut next = self.start + interval;
        loop {
            let wait = next.saturating_duration_since(Instant::now()).min(PATIENCE);
            if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            if requests.take_status() {
                self.aside(|| text::to_stderr(&self.read().line()));
            }
            if Instant::now() >= next {
                self.update();
                next = Instant::now() + interval;
            }
        }
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    fn update(&self) {
        let reading = self.read();
        match &self.form {
            Form::Bar(bar) => reading.draw(bar, self.show.colour),
            Form::Lines => text::to_stderr(&reading.line()),
            Form::Json => {
                // Whoever stopped listening does not stop the work.
                let _ = self
                    .show
                    .json(&reading.json())
                    .and_then(|()| self.show.flush());
            }
            Form::None => {}
        }
    }

    /// Runs something that writes lines, with the bar out of the way.
    fn aside(&self, write: impl FnOnce()) {
        match &self.form {
            Form::Bar(bar) => bar.suspend(write),
            _ => write(),
        }
    }

    fn drop_current(&self, path: &[u8]) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = current.iter().position(|other| other == path) {
            current.swap_remove(at);
        }
    }

    fn tell_done(&self, done: &Done<'_>) {
        let word = match (self.work, done.action) {
            (Work::Restore, Action::New) => "restored",
            (Work::Restore, Action::Changed) => "updated",
            (_, Action::New) => "new",
            (_, Action::Changed) => "modified",
            (_, Action::Unchanged) => "unchanged",
        };
        let told = if self.show.json {
            let body = Verbose {
                action: word,
                item: lossy(&absolute(done.path)),
                data_size: done.size,
                data_size_in_repo: done.added,
            };
            self.show.json(&Message::new("verbose_status", body))
        } else {
            let slash = if done.is_dir { "/" } else { "" };
            let mut line = format!("{word:<9} {}{slash}", text::name(&absolute(done.path)));
            if !done.is_dir {
                line.push_str(&format!(", {}", text::size(done.size)));
            }
            if done.added > 0 {
                line.push_str(&format!(", {} stored", text::size(done.added)));
            }
            self.show.line(&line).and_then(|()| self.show.flush())
        };
        // Whoever stopped listening does not stop the work.
        drop(told);
    }
}

impl Observer for Meter<'_> {
    fn total(&self, files: u64, bytes: u64) {
        self.set_total(files, bytes);
    }

    fn started(&self, path: &[u8]) {
        if !matches!(self.form, Form::None) {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            current.push(absolute(path));
        }
    }

    fn advanced(&self, bytes: u64) {
        self.add(0, bytes);
    }

    fn finished(&self, done: &Done<'_>) {
        if !done.is_dir {
            self.add(1, 0);
        }
        if !matches!(self.form, Form::None) {
            self.drop_current(&absolute(done.path));
        }
        if self.show.level == Level::Everything {
            self.aside(|| self.tell_done(done));
        }
    }

    fn problem(&self, error: &Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let words = match advice(error) {
            Some(advice) => format!("{}; {advice}", story(error)),
            None => story(error),
        };
        let line = if self.show.json {
            let during = match self.work {
                Work::Backup => "archival",
                Work::Restore => "restore",
                Work::Check => "check",
            };
            let saved = || error.snapshot_path().map(|path| lossy(&absolute(path)));
            let item = error.source_path().map(lossy).or_else(saved);
            json::error(&words, during, &item.unwrap_or_default())
        } else {
            format!("warning: {}", text::safe(&words))
        };
        self.aside(|| text::to_stderr(&line));
    }
}

/// A path in a snapshot as people know it.
fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path.strip_prefix(b"/").unwrap_or(path)].concat()
}

#[derive(Serialize)]
struct Verbose {
    action: &'static str,
    item: String,
    data_size: u64,
    data_size_in_repo: u64,
}

#[derive(Serialize)]
struct Status {
    seconds_elapsed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_remaining: Option<u64>,
    percent_done: f64,
    total_files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_restored: Option<u64>,
    total_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_restored: Option<u64>,
    error_count: u64,
    current_files: Vec<String>,
}

impl Reading {
    /// Time that is left at the speed so far; `None` where that says nothing.
    fn remaining(&self) -> Option<Duration> {
        let left = self.total_bytes.checked_sub(self.bytes)?;
        if self.bytes == 0 || self.elapsed < Duration::from_secs(2) {
            return None;
        }
        let nanos = self.elapsed.as_nanos() * u128::from(left) / u128::from(self.bytes);
        Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }

    fn json(&self) -> Message<'static, Status> {
        let permille = if self.total_bytes == 0 {
            0
        } else {
            u128::from(self.bytes.min(self.total_bytes)) * 1_000_000 / u128::from(self.total_bytes)
        };
        let restore = self.work == Work::Restore;
        let for_restore = |value| restore.then_some(value);
        let for_others = |value| (!restore).then_some(value);
        let status = Status {
            seconds_elapsed: self.elapsed.as_secs(),
            seconds_remaining: self.remaining().map(|left| left.as_secs()),
            percent_done: f64::from(u32::try_from(permille).unwrap_or(0)) / 1e6,
            total_files: self.total_files,
            files_done: for_others(self.files),
            files_restored: for_restore(self.files),
            total_bytes: self.total_bytes,
            bytes_done: for_others(self.bytes),
            bytes_restored: for_restore(self.bytes),
            error_count: self.errors,
            current_files: self.current.iter().map(|path| lossy(path)).collect(),
        };
        Message::new("status", status)
    }

    /// The counts in words.
    fn words(&self) -> String {
        let mut words = format!("[{}]", text::clock(self.elapsed));
        if self.total_bytes > 0 {
            words.push_str(&format!(
                " {}, {} of {}",
                text::percent(self.bytes, self.total_bytes),
                text::size(self.bytes),
                text::size(self.total_bytes)
            ));
        } else {
            words.push_str(&format!(" {}", text::size(self.bytes)));
        }
        words.push_str(&format!(
            ", {}, {}",
            text::rate(self.bytes, self.elapsed),
            match self.work {
                Work::Check => text::count(self.files, "pack", "packs"),
                _ => text::count(self.files, "file", "files"),
            }
        ));
        if self.errors > 0 {
            words.push_str(&format!(
                ", {}",
                text::count(self.errors, "problem", "problems")
            ));
        }
        if let Some(left) = self.remaining() {
            words.push_str(&format!(", {} left", text::clock(left)));
        }
        words
    }

    /// The counts and a current file on one line.
    fn line(&self) -> String {
        match self.current.first() {
            Some(path) => format!("{}: {}", self.words(), text::name(path)),
            None => self.words(),
        }
    }

    fn draw(&self, bar: &ProgressBar, colour: bool) {
        let columns = columns(io::stderr()).unwrap_or(80);
        let path = self.current.first().map(|path| text::name(path));
        let path = text::fit(&path.unwrap_or_default(), columns.saturating_sub(1));
        bar.set_prefix(path);
        let words = self.words();
        let cells = columns.saturating_sub(words.len() + FRAME).min(WIDEST_BAR);
        bar.set_style(style(colour, (self.total_bytes > 0).then_some(cells)));
        if self.total_bytes > 0 && bar.length() != Some(self.total_bytes) {
            bar.set_length(self.total_bytes);
        }
        bar.set_message(words);
        bar.set_position(self.bytes);
        if self.total_bytes == 0 {
            bar.tick();
        }
    }
}

/// The look of the bar: of so many cells, or of none where they are too few to tell anything, or
/// with no end where that is not known.
fn style(colour: bool, cells: Option<usize>) -> ProgressStyle {
    let path = if colour { "{prefix:.dim}" } else { "{prefix}" };
    let green = if colour { ".green" } else { "" };
    let template = match cells {
        Some(cells @ NARROWEST_BAR..) => format!("[{{bar:{cells}{green}}}] {{wide_msg}}\n{path}"),
        Some(_) => format!("{{wide_msg}}\n{path}"),
        None => format!("{{spinner}} {{wide_msg}}\n{path}"),
    };
    ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading {
            work: Work::Backup,
            elapsed: Duration::from_secs(10),
            total_files: 4,
            total_bytes: 400 << 20,
            files: 1,
            bytes: 100 << 20,
            errors: 0,
            current: vec![b"/a/\x1b[2J".to_vec()],
        }
    }

    #[test]
    fn a_line_tells_share_rate_time_left_and_a_harmless_name() {
        assert_eq!(
            reading().line(),
            "[0:10] 25.0 %, 100 MiB of 400 MiB, 10.0 MiB/s, 1 file, 0:30 left: \"/a/\\x1b[2J\""
        );
    }

    #[test]
    fn a_status_has_the_fields_of_its_work() {
        let backup = serde_json::to_value(reading().json()).unwrap();
        assert_eq!(backup["message_type"], "status");
        assert_eq!(backup["percent_done"], 0.25);
        assert_eq!(backup["files_done"], 1);
        assert_eq!(backup["seconds_remaining"], 30);
        assert!(backup.get("files_restored").is_none());
        let restore = Reading {
            work: Work::Restore,
            ..reading()
        };
        let restore = serde_json::to_value(restore.json()).unwrap();
        assert_eq!(restore["bytes_restored"], 100 << 20);
    }

    #[test]
    fn without_a_total_there_is_no_time_left() {
        let unknown = Reading {
            total_bytes: 0,
            ..reading()
        };
        assert_eq!(unknown.remaining(), None);
        let early = Reading {
            elapsed: Duration::from_secs(1),
            ..reading()
        };
        assert_eq!(early.remaining(), None);
    }
}
