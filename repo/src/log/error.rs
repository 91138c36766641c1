//! What can go wrong with the log.

use crate::{
    backend::BackendError,
    crypto::SealError,
    env::RandomError,
    format::{DecodeError, log::EntryKind, log_body::Role},
    id::SlotId,
    log::state::IgnoreReason,
};

/// An operation on the log that failed. Nothing was appended unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed.
    #[error("the commit log cannot be accessed")]
    Backend(#[from] BackendError),
    /// There is no log here.
    #[error("there is no commit log: log entry 1 is missing")]
    NoLog,
    /// There is a log already.
    #[error("there is a commit log already")]
    AlreadyExists,
    /// The log was begun by somebody else or for another repository.
    #[error("the commit log is not the one that the keys belong to: {0} differs")]
    WrongLog(Anchored),
    /// An entry cannot be used, and no twin of it either.
    #[error("log entry {seq} is damaged: restore log/{seq:020} from a replica")]
    Damaged {
        /// Its number.
        seq: u64,
        /// What is wrong with it.
        #[source]
        why: Damage,
    },
    /// An entry was written by a newer version.
    #[error("log entry {seq} was written by a newer strongroom")]
    Newer {
        /// Its number.
        seq: u64,
        /// What is not known.
        #[source]
        source: DecodeError,
    },
    /// An entry is missing although a later one exists.
    #[error(
        "log entry {missing} is missing although entry {found} exists: restore log/{missing:020} \
         from a replica; nothing is appended meanwhile"
    )]
    Hole {
        /// The number of the missing entry.
        missing: u64,
        /// A number above it that exists.
        found: u64,
    },
    /// The log does not extend what this client saw before.
    #[error("the repository was rolled back or forked at entry {at}: it ends at entry {tail}")]
    RolledBack {
        /// The first entry known to differ, or the one last seen.
        at: u64,
        /// The last entry there is.
        tail: u64,
    },
    /// An entry's body is sealed under a key that the keyring lacks.
    #[error("the body of log entry {seq} cannot be opened with this keyring")]
    NoKey {
        /// Its number.
        seq: u64,
        /// Which key.
        #[source]
        source: SealError,
    },
    /// The log was opened for reading.
    #[error("no signing key: this access can only read")]
    NoSigner,
    /// The slot that would sign is not among the live ones.
    #[error("slot {0} is no longer one of this repository")]
    NotLive(SlotId),
    /// The slot that would sign may not write this.
    #[error("a key of role {role} may not {}", deed(*.kind))]
    NotAllowed {
        /// Its role.
        role: Role,
        /// The kind.
        kind: EntryKind,
    },
    /// A check returned a body of another kind than was announced.
    #[error("an entry of kind {kind:?} was announced, but its body is of kind {body:?}")]
    WrongKind {
        /// The kind announced.
        kind: EntryKind,
        /// The kind of the body.
        body: EntryKind,
    },
    /// The keyring has no key to seal an entry with.
    #[error("the keyring has no metadata key to seal log entries with")]
    NoEpoch,
    /// An entry, or a file of the client's own state, could not be encoded or sealed.
    #[error("the log entry is too large")]
    TooLarge(#[source] SealError),
    /// No randomness.
    #[error("no randomness for a log entry")]
    Random(#[from] RandomError),
    /// Others were quicker each time.
    #[error("other clients appended first {rounds} times in a row: try again")]
    Crowded {
        /// How often.
        rounds: u32,
    },
    /// Whether the entry was appended is not known: it may be there, or yet appear.
    #[error("it is not known whether log entry {seq} was appended: open the repository again")]
    Uncertain {
        /// The number it would have.
        seq: u64,
        /// What kept the store from saying so, if it said anything.
        #[source]
        source: Option<BackendError>,
    },
    /// The store said "created", but then showed something else.
    #[error(
        "the store does not keep its promise: log entry {seq} was created and then read \
         differently; this store cannot hold a repository"
    )]
    Faithless {
        /// The number of the entry.
        seq: u64,
    },
    /// The entry was appended, but changes nothing.
    #[error("log entry {seq} was appended but does not count")]
    DoesNotCount {
        /// Its number.
        seq: u64,
        /// Why.
        #[source]
        reason: IgnoreReason,
    },
    /// An inline part of an entry is damaged, and its twin too.
    #[error("what log entry {seq} carries inline is damaged or missing")]
    PartLost {
        /// The number of the entry.
        seq: u64,
    },
    /// A file of the client's own state cannot be used.
    #[error("{action} {path}", path = path.display())]
    StateFile {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The client's memory of this repository is damaged.
    #[error("the memory of this repository in {path} is damaged", path = path.display())]
    MemoryDamaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
}

/// What a slot's anchor pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchored {
    /// The repository id.
    Repository,
    /// The domain id.
    Domain,
    /// The first owner.
    Owner,
}

impl std::fmt::Display for Anchored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Repository => "the repository id",
            Self::Domain => "the domain id",
            Self::Owner => "the first owner",
        })
    }
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its bytes cannot be read.
    #[error("its bytes cannot be read")]
    Decode(#[source] DecodeError),
    /// It is larger than an entry can be.
    #[error("it is larger than an entry can be")]
    TooLarge,
    /// It carries another number.
    #[error("it carries number {found}")]
    Number {
        /// The number found.
        found: u64,
    },
    /// It does not follow the entry before.
    #[error("it does not follow from the entry before")]
    Chain,
    /// Its writer is not among the live slots.
    #[error("its writer {0} is not one of this repository")]
    Writer(SlotId),
    /// Its signature is not its writer's.
    #[error("its signature is not its writer's")]
    Signature,
    /// The first entry does not begin a log.
    #[error("it does not begin a log")]
    NotGenesis,
}

impl LogError {
    pub(super) fn too_large(why: impl Into<SealError>) -> Self {
        Self::TooLarge(why.into())
    }
}

/// What entries of a kind are for, as people say it.
const fn deed(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Genesis => "begin a repository",
        EntryKind::AddPacks => "store anything",
        EntryKind::AddSnapshot => "save snapshots",
        EntryKind::RemoveSnapshots => "forget snapshots",
        EntryKind::RestoreSnapshots => "take snapshots back",
        EntryKind::Sweep | EntryKind::SweepDone => "prune",
        EntryKind::Annotate => "annotate snapshots",
        EntryKind::ReplaceSnapshots => "rewrite snapshots",
        EntryKind::KeyChange => "change keys",
        EntryKind::ConfigChange => "change the configuration",
        EntryKind::Attest => "record what a check finds",
        EntryKind::Void => "pass over damaged entries",
    }
}
