//! Counting files and bytes ahead of the work, so that progress knows its end.

use super::Run;
use crate::source::{
    meta::FileType,
    walk::{Event, Walk},
};

/// Entries between two reports.
const STEP: u64 = 1000;

/// Walks everything and tells the observer what it adds up to.
pub(super) fn count(run: &Run<'_>, walk: Walk) {
    let (mut files, mut bytes) = (0, 0_u64);
    for event in walk {
        if run.is_over() {
            return;
        }
        if let Event::Entry(entry) = event {
            files += 1;
            if entry.stat.file_type == FileType::Regular {
                bytes = bytes.saturating_add(entry.stat.size);
            }
            if files % STEP == 0 {
                run.observer.total(files, bytes);
            }
        }
    }
    run.observer.total(files, bytes);
}
