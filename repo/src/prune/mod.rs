//! Giving space back: packs of which no live snapshot needs anything are swept by an entry of the
//! log and then deleted. [`plan`] decides and touches nothing; `execute` does it and finishes
//! what others began; [`hint`] tells running backups from leftovers; `rescue`
//! empties damaged packs. Which blobs are needed is the
//! caller's knowledge ([`Reach`]).
//!
//! No hint, clock or listing is part of the safety argument: that is `check_sweep`, asked of
//! exactly the prefix which the entry follows (docs/invariants.md, I1, I6, I7).

mod clean;
mod execute;
pub mod hint;
pub mod plan;
mod rescue;
mod verify;
pub(crate) mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use execute::{PruneOptions, PruneProgress, PruneReport, PruneStep};
pub use plan::{PackUse, PrunePlan};
pub use rescue::Rescued;

use crate::{
    error::Error,
    id::{BlobId, SnapshotId},
};

/// Knows which blobs live snapshots need.
pub trait Reach {
    /// The caller's error.
    type Error: From<Error>;

    /// Adds what these snapshots need, where it is not known yet. A snapshot whose trees cannot
    /// all be read is an error: what hangs below the lost ones would be given up.
    ///
    /// # Errors
    /// A tree cannot be read.
    fn cover(&mut self, snapshots: &BTreeSet<SnapshotId>) -> Result<(), Self::Error>;

    /// Whether a blob is needed.
    fn contains(&self, blob: &BlobId) -> bool;

    /// Calls `each` for every needed blob.
    fn for_each(&self, each: &mut dyn FnMut(&BlobId));
}
