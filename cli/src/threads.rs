//! How many threads do the work, where nobody says.

use std::{num::NonZeroUsize, thread};

/// One a core, for work on what is in memory or soon will be.
pub(crate) fn for_work() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// For work that reads packs from the disk past its cache: two more, so that the disk has
/// something to do while the cores have.
pub(crate) fn for_reading() -> usize {
    for_work() + 2
}
