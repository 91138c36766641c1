//! Is an entry what the parent snapshot says? Pure: compares a stat with a stored entry.

use strongroom_repo::env::Timestamp;

use crate::{
    format::tree::{Body, TreeEntry},
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

/// Compares an entry that the walk found with the parent's entry of the same name.
///
/// The kernel changes ctime with every change of content or metadata, so equal size, mtime and
/// ctime mean that nothing changed; with `ignore_ctime` size and mtime decide on the content
/// alone and metadata is read again.
pub(super) fn compare(found: &Entry, before: &TreeEntry, ignore_ctime: bool) -> Same {
    let (stat, meta) = (&found.stat, &before.node.meta);
    // What is written to a device leaves no trace in its times.
    if found.is_device() {
        return Same::Nothing;
    }
    if !same_type(stat, before) || stat.mtime != meta.mtime {
        return Same::Nothing;
    }
    if stat.ctime == meta.ctime {
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
///
/// A log that was changed less than two seconds before the parent began is not believed: it may
/// have been changed again in the same tick of the file system's clock.
pub(super) fn same_database(
    before: Option<&Copied>,
    beside: &Beside,
    is_copied: bool,
    parent_began: Timestamp,
) -> bool {
    if !is_copied {
        return before.is_none();
    }
    let is_settled = |wal: &Wal| wal.mtime.secs.saturating_add(2) < parent_began.secs;
    let wal = before.and_then(|before| before.wal);
    !beside.has_journal && wal == beside.wal && wal.as_ref().is_none_or(is_settled)
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
