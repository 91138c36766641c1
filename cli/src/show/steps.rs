//! Progress of a command that goes through steps: a bar with the step's name on a terminal, a line
//! for each step with `-v`.

use std::{
    io::{self, IsTerminal as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Level, Show, text};

/// Shows steps.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    show: &'a Show,
    bar: Option<ProgressBar>,
    current: Mutex<&'static str>,
}

impl<'a> Steps<'a> {
    /// Nothing is shown yet.
    pub(crate) fn new(show: &'a Show) -> Self {
        let wanted = show.level > Level::Quiet && !show.json && io::stderr().is_terminal();
        let bar = wanted.then(|| {
            let style = ProgressStyle::with_template("[{bar:20}] {msg} {pos}/{len}")
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ");
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(Some(1), target).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self {
            show,
            bar,
            current: Mutex::new(""),
        }
    }

    /// So much of a step is done.
    pub(crate) fn advanced(&self, step: &'static str, done: u64, total: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != step {
            *current = step;
            if self.show.level >= Level::Verbose && !self.show.json && self.bar.is_none() {
                text::to_stderr(step);
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total.max(1));
            bar.set_position(done);
            bar.set_message(step);
        }
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
