//! Telling without printing: an [`Observer`] hears of progress and of everything that a run can
//! live with. Called from several threads at once.

use crate::error::Error;

/// What became of an entry compared with the parent snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The parent does not have it.
    New,
    /// It differs from the parent's.
    Changed,
    /// It is as in the parent.
    Unchanged,
}

/// An entry that was saved or restored.
#[derive(Clone, Copy, Debug)]
pub struct Done<'a> {
    /// Its path in the snapshot.
    pub path: &'a [u8],
    /// Compared with the parent.
    pub action: Action,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length of a file in bytes.
    pub size: u64,
    /// Sealed bytes that were new.
    pub added: u64,
}

/// Hears of a run.
pub trait Observer: Send + Sync {
    /// There are so many files and bytes to do; said again as more are found.
    fn total(&self, _files: u64, _bytes: u64) {}
    /// Work on a file begins; its path in the snapshot.
    fn started(&self, _path: &[u8]) {}
    /// So many more bytes of files are done.
    fn advanced(&self, _bytes: u64) {}
    /// An entry is done.
    fn finished(&self, _done: &Done<'_>) {}
    /// Something went wrong with one entry; the run goes on.
    fn problem(&self, _error: &Error) {}
}

/// Hears and says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Keeps what it hears, for tests.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Default)]
pub struct Recorder {
    problems: std::sync::Mutex<Vec<String>>,
    started: std::sync::Mutex<Vec<Vec<u8>>>,
}

#[cfg(any(test, feature = "testing"))]
impl Recorder {
    /// The problems so far, as text.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock();
        problems.map(|told| told.clone()).unwrap_or_default()
    }

    /// The paths of the files that were read so far, in the order in which that began.
    #[must_use]
    pub fn started(&self) -> Vec<Vec<u8>> {
        let started = self.started.lock();
        started.map(|paths| paths.clone()).unwrap_or_default()
    }
}

#[cfg(any(test, feature = "testing"))]
impl Observer for Recorder {
    fn started(&self, path: &[u8]) {
        if let Ok(mut started) = self.started.lock() {
            started.push(path.to_vec());
        }
    }

    fn problem(&self, error: &Error) {
        if let Ok(mut problems) = self.problems.lock() {
            problems.push(error.to_string());
        }
    }
}
