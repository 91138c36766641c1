//! Is an entry what the parent snapshot says? Pure: compares a stat with a stored entry.

use strongroom_repo::env::Timestamp;

use crate::{
    format::{
        snapshot::Summary,
        tree::{Body, TreeEntry},
    },
    node::{Copied, NodeKind, Wal},
    source::{
        meta::{FileType, Stat},
        sqlite::Beside,
        walk::Entry,
    },
};

/// How much of the parent's entry still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    /// All of it.
    Everything,
    /// The content, not the metadata.
    Content,
    /// Nothing that is known.
    Nothing,
}

/// Nanoseconds by which the clock of a file system may be coarse that keeps such times, or differ
/// from the machine's.
const TICK: i128 = 100_000_000;
/// The same where times are whole milliseconds: those are kept by file systems with ticks of up to
/// two seconds.
const LONG_TICK: i128 = 2_000_000_000;
/// Nanoseconds by which the clock of a file server may be ahead of the machine's: what it says was
/// changed later than that after it was read was given that time by somebody.
const AHEAD: i128 = 3_600_000_000_000;

/// When the run was at work that made the parent snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    began: Timestamp,
    ended: Timestamp,
}

impl Span {
    pub(super) const fn of(parent: &Summary) -> Self {
        Self {
            began: parent.start,
            ended: parent.end,
        }
    }

    /// Whether content that was read in this time can be told from all that comes later by the
    /// time of its last change. Where it was changed just before it was read, it may have been
    /// changed again just after, in the same tick of the file system's clock: then neither time
    /// moves.
    pub(super) fn tells(self, changed: Timestamp) -> bool {
        let nanos =
            |time: Timestamp| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
        let is_coarse = changed.nanos.is_multiple_of(1_000_000);
        let tick = if is_coarse { LONG_TICK } else { TICK };
        // The clock may have been set back meanwhile.
        let (began, ended) = (self.began.min(self.ended), self.ended.max(self.began));
        nanos(changed) + tick < nanos(began) || nanos(changed) > nanos(ended) + AHEAD
    }
}

/// Compares an entry that the walk found with the parent's entry of the same name.
///
/// The kernel changes ctime with every change of content or metadata, so equal size, mtime and
/// ctime mean that nothing changed, if those times [tell](Span::tells) anything; with
/// `ignore_ctime` size and mtime decide on the content alone and metadata is read again.
pub(super) fn compare(found: &Entry, before: &TreeEntry, parent: Span, ignore_ctime: bool) -> Same {
    let (stat, meta) = (&found.stat, &before.node.meta);
    // What is written to a device leaves no trace in its times.
    if found.is_device() {
        return Same::Nothing;
    }
    if !same_type(stat, before) || stat.mtime != meta.mtime {
        return Same::Nothing;
    }
    let is_file = stat.file_type == FileType::Regular;
    if is_file && !parent.tells(stat.mtime) {
        return Same::Nothing;
    }
    if stat.ctime == meta.ctime && parent.tells(stat.ctime) {
        if found.link() == meta.link && meta.atime.is_none() {
            return Same::Everything;
        }
        return Same::Content;
    }
    if ignore_ctime {
        Same::Content
    } else {
        Same::Nothing
    }
}

/// Whether the content that the parent has of a file may be taken over, as far as databases go:
/// what should be a copy and what should be the file's own bytes is so there too, and what belongs
/// to a database beside it has not changed since a copy was made.
pub(super) fn same_database(
    before: Option<&Copied>,
    beside: &Beside,
    is_copied: bool,
    parent: Span,
) -> bool {
    if !is_copied {
        return before.is_none();
    }
    let tells = |wal: &Wal| parent.tells(wal.mtime);
    let wal = before.and_then(|before| before.wal);
    !beside.has_journal && wal == beside.wal && wal.as_ref().is_none_or(tells)
}

fn same_type(stat: &Stat, before: &TreeEntry) -> bool {
    match (&before.node.kind, stat.file_type) {
        (NodeKind::File { size }, FileType::Regular) => {
            let copied = before.node.meta.copied;
            let size = copied.map_or(*size, |copied| copied.size);
            size == stat.size && matches!(before.body, Body::File(_))
        }
        (NodeKind::Dir, FileType::Dir)
        | (NodeKind::Symlink { .. }, FileType::Symlink)
        | (NodeKind::Fifo, FileType::Fifo)
        | (NodeKind::Socket, FileType::Socket) => true,
        (NodeKind::BlockDevice(number), FileType::BlockDevice)
        | (NodeKind::CharDevice(number), FileType::CharDevice) => *number == stat.special,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_tells_if_no_change_after_the_reading_can_have_it_too() {
        let at = |secs, nanos| Timestamp { secs, nanos };
        let (began, ended) = (at(1000, 500_000_005), at(2000, 500_000_005));
        let span = Span { began, ended };
        for (secs, nanos) in [
            (0, 0),
            (998, 500_000_000),
            (1000, 400_000_004),
            (5600, 500_000_006),
            (i64::MAX, 999_999_999),
            (i64::MIN, 0),
        ] {
            assert!(span.tells(at(secs, nanos)), "{secs}.{nanos}");
        }
        for (secs, nanos) in [
            (998, 501_000_000),
            (1000, 400_000_005),
            (1000, 400_000_000),
            (1500, 0),
            (2000, 600_000_006),
            (2002, 501_000_000),
            (5600, 500_000_005),
        ] {
            assert!(!span.tells(at(secs, nanos)), "{secs}.{nanos}");
        }
        // The clock was set back meanwhile.
        let span = Span {
            began: ended,
            ended: began,
        };
        assert!(span.tells(at(1000, 400_000_004)) && span.tells(at(5600, 500_000_006)));
        assert!(!span.tells(at(1000, 400_000_005)) && !span.tells(at(5600, 500_000_005)));
    }
}
