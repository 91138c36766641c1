//! The messages for programs. Names and shapes are those of restic where it has them; everything
//! that is not UTF-8 is written with the replacement character, and its exact bytes beside it.
//! These shapes are an interface: fields are added, never renamed.

use serde::Serialize;
use strongroom_core::{
    format::snapshot::{Snapshot, Summary},
    node::{Node, NodeKind},
};
use strongroom_repo::id::SnapshotId;

use super::text::{permissions, rfc3339};

/// A message of a stream, by its type.
#[derive(Serialize)]
pub(crate) struct Message<'a, T: Serialize> {
    pub(crate) message_type: &'a str,
    #[serde(flatten)]
    pub(crate) body: T,
}

impl<'a, T: Serialize> Message<'a, T> {
    /// A message.
    pub(crate) const fn new(message_type: &'a str, body: T) -> Self {
        Self { message_type, body }
    }
}

/// The last line on standard error of a command that failed.
pub(crate) fn exit_error(code: u8, message: &str) -> String {
    #[derive(Serialize)]
    struct ExitError<'a> {
        code: u8,
        message: &'a str,
    }
    line(&Message::new("exit_error", ExitError { code, message }))
}

/// Something that went wrong on the way.
pub(crate) fn error(message: &str, during: &str, item: &str) -> String {
    #[derive(Serialize)]
    struct Inner<'a> {
        message: &'a str,
    }
    #[derive(Serialize)]
    struct Outer<'a> {
        error: Inner<'a>,
        during: &'a str,
        item: &'a str,
    }
    let error = Inner { message };
    let body = Outer {
        error,
        during,
        item,
    };
    line(&Message::new("error", body))
}

/// A message on one line. Texts and numbers cannot fail to be written.
fn line<T: Serialize>(message: &T) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

/// Bytes as text; what is not UTF-8 becomes the replacement character.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exact bytes in hex, where [`lossy`] lost something.
fn exact(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes)
        .is_err()
        .then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A snapshot as `snapshots` and `cat snapshot` print it.
#[derive(Serialize)]
pub(crate) struct SnapshotJson {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    tree: String,
    paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths_hex: Vec<Option<String>>,
    hostname: String,
    username: String,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    excludes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    program_version: String,
    summary: SummaryJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<OriginJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    short_id: Option<String>,
}

#[derive(Serialize)]
struct OriginJson {
    repository: String,
    log_entry: u64,
    first_seen: String,
}

/// What a backup met and stored.
#[derive(Serialize)]
pub(crate) struct SummaryJson {
    backup_start: String,
    backup_end: String,
    files_new: u64,
    files_changed: u64,
    files_unmodified: u64,
    dirs_new: u64,
    dirs_changed: u64,
    dirs_unmodified: u64,
    data_blobs: u64,
    tree_blobs: u64,
    data_added: u64,
    data_added_packed: u64,
    total_files_processed: u64,
    total_bytes_processed: u64,
}

impl From<&Summary> for SummaryJson {
    fn from(summary: &Summary) -> Self {
        Self {
            backup_start: rfc3339(summary.start),
            backup_end: rfc3339(summary.end),
            files_new: summary.files_new,
            files_changed: summary.files_changed,
            files_unmodified: summary.files_unmodified,
            dirs_new: summary.dirs_new,
            dirs_changed: summary.dirs_changed,
            dirs_unmodified: summary.dirs_unmodified,
            data_blobs: summary.data_blobs,
            tree_blobs: summary.tree_blobs,
            data_added: summary.data_added,
            data_added_packed: summary.data_added_packed,
            total_files_processed: summary.total_files,
            total_bytes_processed: summary.total_bytes,
        }
    }
}

impl SnapshotJson {
    /// A snapshot, with its id where the reader does not know it.
    pub(crate) fn new(id: Option<SnapshotId>, snapshot: &Snapshot) -> Self {
        let hex: Vec<_> = snapshot.paths.iter().map(|path| exact(path)).collect();
        Self {
            time: rfc3339(snapshot.time),
            parent: snapshot.parent.map(SnapshotId::to_hex),
            tree: snapshot.tree.to_hex(),
            paths: snapshot.paths.iter().map(|path| lossy(path)).collect(),
            paths_hex: if hex.iter().any(Option::is_some) {
                hex
            } else {
                Vec::new()
            },
            hostname: snapshot.host.clone(),
            username: snapshot.user.clone(),
            uid: snapshot.uid,
            gid: snapshot.gid,
            excludes: snapshot.excludes.clone(),
            tags: snapshot.tags.clone(),
            program_version: snapshot.program.clone(),
            summary: (&snapshot.summary).into(),
            original: snapshot.origin.map(|origin| OriginJson {
                repository: origin.repo.to_hex(),
                log_entry: origin.sequence,
                first_seen: rfc3339(origin.first_seen),
            }),
            id: id.map(SnapshotId::to_hex),
            short_id: id.map(SnapshotId::short),
        }
    }
}

/// A file as `ls` and `cat tree` print it.
#[derive(Serialize)]
pub(crate) struct NodeJson {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    uid: u32,
    gid: u32,
    user: String,
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mode: u16,
    permissions: String,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    atime: Option<String>,
    ctime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    inode: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u32; 2]>,
    /// Of a copy of a database: whether a log was part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_wal: Option<bool>,
}

impl NodeJson {
    /// A node; its path where the reader does not know it.
    pub(crate) fn new(node: &Node, path: Option<&[u8]>) -> Self {
        let meta = &node.meta;
        let (kind, letter) = kind_words(&node.kind);
        Self {
            name: lossy(&node.name),
            name_hex: exact(&node.name),
            kind,
            path: path.map(lossy),
            uid: meta.uid,
            gid: meta.gid,
            user: lossy(&meta.user),
            group: lossy(&meta.group),
            size: match node.kind {
                NodeKind::File { size } => Some(size),
                _ => None,
            },
            mode: meta.mode,
            permissions: permissions(letter, meta.mode),
            mtime: rfc3339(meta.mtime),
            atime: meta.atime.map(rfc3339),
            ctime: rfc3339(meta.ctime),
            inode: meta.link.map(|link| link.inode),
            has_wal: meta.copied.map(|copied| copied.wal.is_some()),
            linktarget: match &node.kind {
                NodeKind::Symlink { target } => Some(lossy(target)),
                _ => None,
            },
            device: match node.kind {
                NodeKind::BlockDevice(n) | NodeKind::CharDevice(n) => Some([n.major, n.minor]),
                _ => None,
            },
        }
    }
}

/// The type of a node: restic's word, and the letter of a listing.
pub(crate) const fn kind_words(kind: &NodeKind) -> (&'static str, char) {
    match kind {
        NodeKind::File { .. } => ("file", '-'),
        NodeKind::Dir => ("dir", 'd'),
        NodeKind::Symlink { .. } => ("symlink", 'l'),
        NodeKind::BlockDevice(_) => ("dev", 'b'),
        NodeKind::CharDevice(_) => ("chardev", 'c'),
        NodeKind::Fifo => ("fifo", 'p'),
        NodeKind::Socket => ("socket", 's'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_error_is_one_line_with_its_code() {
        let line = exit_error(12, "wrong\npassword");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message_type"], "exit_error");
        assert_eq!(value["code"], 12);
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_name_that_is_no_text_keeps_its_bytes_beside_it() {
        let node = Node {
            name: b"a\xff".to_vec(),
            kind: NodeKind::File { size: 3 },
            meta: strongroom_core::node::Metadata::default(),
        };
        let value = serde_json::to_value(NodeJson::new(&node, None)).unwrap();
        assert_eq!(value["name"], "a\u{fffd}");
        assert_eq!(value["name_hex"], "61ff");
        assert_eq!(value["type"], "file");
        assert_eq!(value["size"], 3);
    }
}
