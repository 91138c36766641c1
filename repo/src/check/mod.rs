//! Looking whether all is there, in levels: log, configuration and keys; index objects and packs;
//! and, when asked, every byte of packs. What trees say is `core`'s part. Nothing is changed here;
//! damage becomes a finding, and only a store that does not answer ends the whole. If the caller
//! asks for it, what was found of packs is recorded in the log afterwards (`attest`), and what is
//! known from another copy is put right (`heal`).

mod attest;
mod heal;
mod objects;
mod read;
mod report;
mod size;
mod subset;

#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicBool;

pub use attest::{Recorded, Verdict};
pub use report::{CheckReport, Finding, Problem, Severity};
pub use size::{StoredSize, stored_size};
pub use subset::ReadData;

use crate::{error::Result, repository::Repository};

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// Which packs to read whole.
    pub read_data: ReadData,
    /// Threads that read packs; each holds one pack.
    pub workers: usize,
}

/// Hears how far a check is, from several threads at once.
pub trait CheckProgress: Sync {
    /// So many packs of so many bytes are going to be read.
    fn total(&self, _packs: u64, _bytes: u64) {}
    /// A pack of so many bytes was read.
    fn advanced(&self, _bytes: u64) {}
}

impl CheckProgress for () {}

impl Repository {
    /// Checks everything that needs no knowledge of trees.
    ///
    /// # Errors
    /// The store or the local index failed; damage is a finding.
    pub fn check(
        &self,
        options: CheckOptions,
        progress: &dyn CheckProgress,
        cancel: &AtomicBool,
    ) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let state = objects::check_log(self, &mut report);
        objects::check_segments(self, &mut report)?;
        objects::check_config(self, &mut report)?;
        objects::check_keys(self, &state, &mut report)?;
        objects::check_snapshots(self, &state, &mut report);
        objects::check_indexes(self, &state, &mut report)?;
        objects::check_packs(self, &state, &mut report)?;
        read::read_packs(self, options, progress, cancel, &mut report)?;
        Ok(report)
    }
}
