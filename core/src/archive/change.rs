//! Is an entry what the parent snapshot says? Pure: compares a stat with a stored entry.

use crate::{
    format::tree::{Body, TreeEntry},
    node::NodeKind,
    source::{
        meta::{FileType, Stat},
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

fn same_type(stat: &Stat, before: &TreeEntry) -> bool {
    match (&before.node.kind, stat.file_type) {
        (NodeKind::File { size }, FileType::Regular) => {
            *size == stat.size && matches!(before.body, Body::File(_))
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
