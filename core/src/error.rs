//! What can go wrong in the engine: one enum, structured, each level telling only its own part.
//! Wording for people, hints and exit codes are the command line's.

mod paths;
mod words;

use std::{ffi::OsString, io, path::PathBuf};

use strongroom_repo::{
    format::DecodeError,
    id::{BlobId, SnapshotId},
};

pub use words::{InUse, ListError, PatternError, RestoreAction, SourceAction};

use crate::{
    path::{InvalidName, abridged},
    source::{read::Change, sqlite::DatabaseError},
};

/// Result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something on a source file.
    #[error("cannot {action} {}", abridged(.path))]
    Source {
        /// What was tried.
        action: SourceAction,
        /// The file as the source names it.
        path: Vec<u8>,
        /// What the system said.
        source: io::Error,
    },
    /// An extended attribute could not be read; the file is saved without it.
    #[error("cannot read attribute {} of {}", abridged(.name), abridged(.path))]
    SourceXattr {
        /// The attribute's full name.
        name: Vec<u8>,
        /// The file as the source names it.
        path: Vec<u8>,
        /// What the system said.
        source: io::Error,
    },
    /// A backup target does not exist.
    #[error("{} does not exist", abridged(.path))]
    TargetMissing {
        /// The target as given.
        path: Vec<u8>,
    },
    /// An entry was listed but gone when it was looked at.
    #[error("{} vanished during the backup", abridged(.path))]
    SourceVanished {
        /// The entry as the source names it.
        path: Vec<u8>,
    },
    /// A name that a file in a snapshot cannot have.
    #[error("'{}' is not a name that a file can have", abridged(.name))]
    InvalidName {
        /// The name.
        name: Vec<u8>,
        /// What is wrong with it.
        source: InvalidName,
    },
    /// A file changed while it was read: what was read is saved.
    #[error("{} {} while it was read: what was read of it is saved", abridged(.path), change)]
    SourceChanged {
        /// The file as the source names it.
        path: Vec<u8>,
        /// In what way.
        change: Change,
    },
    /// A block device could not be read at some place: it is not saved.
    #[error("cannot {action} {} at byte {offset}", abridged(.path))]
    DeviceIo {
        /// What was tried.
        action: SourceAction,
        /// The device as the source names it.
        path: Vec<u8>,
        /// Where, in bytes from its start.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A block device changed its size while it was read: it is not saved.
    #[error("{} had {before} bytes and has {now} now: it is not saved", abridged(.path))]
    DeviceResized {
        /// The device as the source names it.
        path: Vec<u8>,
        /// Its size when it was opened.
        before: u64,
        /// Its size after it was read.
        now: u64,
    },
    /// A block device is saved while a file system on it can be written to.
    #[error(
        "{} is mounted for writing at {}: what is saved of it holds together only if that file \
         system is frozen meanwhile",
        abridged(.path),
        abridged(.at)
    )]
    DeviceMounted {
        /// The device as the source names it.
        path: Vec<u8>,
        /// Where it is mounted.
        at: Vec<u8>,
    },
    /// An entry was a regular file when listed and something else when opened.
    #[error("{} is no longer a regular file", abridged(.path))]
    SourceChangedType {
        /// The entry as the source names it.
        path: Vec<u8>,
    },
    /// A directory was moved while its contents were being read and could not be found again.
    #[error("{} moved away during the backup; the rest of it is not saved", abridged(.path))]
    SourceMoved {
        /// The directory as the source names it.
        path: Vec<u8>,
    },
    /// A directory lies deeper than a snapshot can hold.
    #[error("{} is nested too deeply: at most {limit} levels can be saved", abridged(.path))]
    SourceTooDeep {
        /// The directory as the source names it.
        path: Vec<u8>,
        /// Most levels of a snapshot.
        limit: usize,
    },
    /// The names of one directory exceed what is held in memory.
    #[error("{} holds more than {limit} bytes of names", abridged(.path))]
    SourceTooWide {
        /// The directory as the source names it.
        path: Vec<u8>,
        /// Most bytes of names in a directory.
        limit: u64,
    },
    /// A database could not be copied as it was at one moment; it is not saved.
    #[error("cannot copy the database {}", abridged(.path))]
    Database {
        /// The file as the source names it.
        path: Vec<u8>,
        /// Why.
        source: DatabaseError,
    },
    /// A file was saved as it is although a part of the database is in its write-ahead log.
    #[error(
        "{} is an SQLite database in use: its latest changes are in its write-ahead log, and the \
         two may not fit together when they are restored",
        abridged(.path)
    )]
    ActiveWal {
        /// The database as the source names it.
        path: Vec<u8>,
    },
    /// A database that was asked for is not among the files.
    #[error("the database {} is not among the files that are saved", abridged(.path))]
    DatabaseNotFound {
        /// Its path as given, absolute.
        path: Vec<u8>,
    },
    /// An exclusion marker file stands in a directory, but not with the demanded first bytes.
    #[error("{} does not start as an exclusion marker must: nothing is excluded", abridged(.path))]
    MarkerMismatch {
        /// The marker file as the source names it.
        path: Vec<u8>,
    },
    /// A pattern has no meaning.
    #[error("invalid pattern '{}'", abridged(.pattern))]
    InvalidPattern {
        /// The pattern as given.
        pattern: Vec<u8>,
        /// What is wrong with it.
        source: PatternError,
    },
    /// An exclusion marker is given without a file name or with a path in its place.
    #[error("invalid exclusion marker '{}': it must be NAME or NAME:HEADER", abridged(.marker))]
    InvalidMarker {
        /// The marker as given.
        marker: Vec<u8>,
    },
    /// A list of files or patterns cannot be understood.
    #[error("invalid list of files: {reason}")]
    InvalidList {
        /// What is wrong with it.
        reason: ListError,
    },
    // ---- Restoring into a file system ----
    /// The file system refused an operation on a restored file.
    #[error("cannot {action} {path:?}")]
    Restore {
        /// What was tried.
        action: RestoreAction,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A database is restored beside a log that is not its own: whoever opened it next would apply
    /// that log to it.
    #[error("{path:?} is the log of another state of the database that is restored beside it")]
    ForeignLog {
        /// The log.
        path: PathBuf,
    },
    /// A name that would leave its directory or cannot exist: empty, `.`, `..`, with `/` or NUL.
    #[error("{name:?} in {dir:?} is not a name that a file can have")]
    UnsafeName {
        /// The directory it was to be made in.
        dir: PathBuf,
        /// The name.
        name: OsString,
    },
    /// Something that is not a directory was to be restored where a directory with content is.
    #[error("a directory that is not empty is in the way at {path:?}")]
    DirectoryInTheWay {
        /// The directory.
        path: PathBuf,
    },
    /// A directory in use was moved away and another one put in its place.
    #[error("{path:?} is no longer the directory that was opened there")]
    DirectoryReplaced {
        /// The directory.
        path: PathBuf,
    },
    /// The first name of a hard-linked file is no longer the file that was restored.
    #[error("{path:?} is no longer the file that was restored there")]
    LinkSourceReplaced {
        /// The first name.
        path: PathBuf,
    },
    /// What was just made under a name was exchanged for something else, again and again.
    #[error("something keeps changing {path:?} while it is restored")]
    Unsettled {
        /// The file.
        path: PathBuf,
    },
    /// Content beyond the end that a file is to have.
    #[error("{len} bytes at {offset} lie outside of {path:?}, which has {size} bytes")]
    WriteOutside {
        /// The file.
        path: PathBuf,
        /// Its final length in bytes.
        size: u64,
        /// Where the content was to go.
        offset: u64,
        /// How many bytes it has.
        len: u64,
    },
    /// A regular file or a directory where only nodes without content are made.
    #[error("{path:?} has content and cannot be made as a bare node")]
    NotABareNode {
        /// The file.
        path: PathBuf,
    },
    /// A file of a snapshot could not be restored: under its name there is what was there before.
    #[error("cannot restore /{}", abridged(.path))]
    NotRestored {
        /// The file in the snapshot.
        path: Vec<u8>,
        /// Why.
        source: Box<Self>,
    },
    /// A part of a directory in a snapshot cannot be read.
    #[error("cannot read all of the directory /{} of the snapshot", abridged(.path))]
    DamagedDir {
        /// The directory in the snapshot.
        path: Vec<u8>,
        /// Why.
        source: Box<Self>,
    },
    /// What a file consists of is not as long as the file.
    #[error("the content of /{} has {found} bytes instead of {size}", abridged(.path))]
    WrongLength {
        /// The file in the snapshot.
        path: Vec<u8>,
        /// Its length by its entry, in bytes.
        size: u64,
        /// What its content has, in bytes.
        found: u64,
    },
    /// A restored file reads back other than it was written.
    #[error("/{} differs from the snapshot at byte {offset}", abridged(.path))]
    Differs {
        /// The file in the snapshot.
        path: Vec<u8>,
        /// Beginning of the extent that differs.
        offset: u64,
    },
    /// The first name of a file with several could not be restored.
    #[error("no other name of the same file as /{} could be restored", abridged(.path))]
    NoLinkSource {
        /// The name in the snapshot.
        path: Vec<u8>,
    },
    /// What is to be written onto is neither a block device nor a file.
    #[error("{path:?} is neither a block device nor a regular file")]
    NotADevice {
        /// What it is not.
        path: PathBuf,
    },
    /// A device or file cannot hold what is to be written onto it.
    #[error("{path:?} has {size} bytes, and {wanted} are to be written onto it")]
    DeviceTooSmall {
        /// The device or file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The size of the file in the snapshot.
        wanted: u64,
    },
    /// Somebody else uses a device or file.
    #[error("{path:?} is in use: {by}")]
    DeviceInUse {
        /// The device or file.
        path: PathBuf,
        /// Who.
        by: InUse,
    },
    /// A device could not be read or written at some place.
    #[error("cannot {action} {path:?} at byte {offset}")]
    DeviceRefused {
        /// What was tried.
        action: RestoreAction,
        /// The device or file.
        path: PathBuf,
        /// Where, in bytes from its start.
        offset: u64,
        /// What the system answered.
        source: io::Error,
    },
    /// Some bytes of a file could not be restored: what was there stays there.
    #[error("cannot restore {len} bytes at {offset} of /{}", abridged(.path))]
    PieceNotRestored {
        /// The file in the snapshot.
        path: Vec<u8>,
        /// Where they are in it.
        offset: u64,
        /// How many.
        len: u64,
        /// Why.
        source: Box<Self>,
    },
    /// A restored file lacks something of its metadata.
    #[error(transparent)]
    Metadata(#[from] crate::restore::apply::Problem),
    // ---- Measuring ----
    /// The disk to be measured refused something.
    #[error("cannot {action} {}", .dir.display())]
    Bench {
        /// What was tried.
        action: crate::bench::BenchAction,
        /// The folder on that disk.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is less room than would be written.
    #[error("{} has room for {free} bytes, and {wanted} are to be written", .dir.display())]
    BenchNoRoom {
        /// The folder on the disk to be measured.
        dir: PathBuf,
        /// Bytes to be written.
        wanted: u64,
        /// Bytes that there is room for.
        free: u64,
    },
    /// The page cache cannot be measured.
    #[error("cannot measure the page cache")]
    BenchMemory {
        /// What the system said.
        source: io::Error,
    },
    // ---- The engine itself ----
    /// The repository failed.
    #[error(transparent)]
    Repo(#[from] strongroom_repo::error::Error),
    /// A stored structure cannot be understood.
    #[error("tree, list of extents or snapshot {blob} is damaged")]
    DamagedBlob {
        /// The blob.
        blob: BlobId,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A stored structure cannot be encoded or understood.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A snapshot's record cannot be understood.
    #[error("snapshot {snapshot} is damaged")]
    DamagedSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A tree is damaged where all of it is needed.
    #[error("{} in snapshot {snapshot} is damaged{}", abridged(.path),
        if *.more > 0 { format!(", and {more} more") } else { String::new() })]
    DamagedTree {
        /// The first snapshot that has it.
        snapshot: SnapshotId,
        /// Where in it.
        path: Vec<u8>,
        /// How many more places there are.
        more: u64,
        /// What is wrong there.
        #[source]
        source: Box<crate::reachable::TreeFault>,
    },
    /// The run was interrupted on request.
    #[error("interrupted")]
    Cancelled,
    /// The parameters of the repository's chunker are not usable.
    #[error("the repository asks for a chunker that this program does not have: {reason}")]
    Chunker {
        /// What is wrong.
        reason: String,
    },
    /// No snapshot is meant by what was asked for.
    #[error("no snapshot matches '{wanted}'")]
    NoSnapshot {
        /// What was asked for.
        wanted: String,
    },
    /// Several snapshots are meant by a prefix.
    #[error("'{wanted}' is the beginning of {count} snapshot ids")]
    AmbiguousSnapshot {
        /// What was asked for.
        wanted: String,
        /// How many match.
        count: usize,
    },
    /// There is no such path in a snapshot.
    #[error("there is no /{} in the snapshot", abridged(.path))]
    NoPath {
        /// The path.
        path: Vec<u8>,
    },
    /// A snapshot's directory lies deeper than any that is saved.
    #[error("{} is nested too deeply: at most {limit} levels are read", abridged(.path))]
    TreeTooDeep {
        /// The directory in the snapshot.
        path: Vec<u8>,
        /// Most levels.
        limit: usize,
    },
    /// A worker thread ended unexpectedly.
    #[error("a worker thread ended unexpectedly: this is a bug")]
    WorkerLost,
}

impl Error {
    /// True if everything was saved nevertheless: worth a message, but the backup is complete.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::MarkerMismatch { .. }
                | Self::SourceChanged { .. }
                | Self::ActiveWal { .. }
                | Self::DeviceMounted { .. }
        )
    }
}
