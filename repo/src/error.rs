//! The one error type of this crate, and the questions that callers ask of it. Each variant tells
//! this level only; the cause is its source.

use crate::{
    backend::{BackendError, BackendErrorKind, ObjectName},
    codec::CodecError,
    crypto::SealError,
    env::RandomError,
    format::{DecodeError, frame},
    id::{BlobId, PackId, SlotId, SnapshotId},
    index::IndexError,
    keys::KeyError,
    log::{AppendError, LogError, check::Conflict},
    pack::{VerifyError, reader::PackError},
};

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a repository.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no repository at the location.
    #[error("there is no repository at {location}")]
    NoRepository {
        /// Where.
        location: String,
    },
    /// There is a repository at the location already.
    #[error("there is already a repository at {location}")]
    AlreadyExists {
        /// Where.
        location: String,
    },
    /// No slot opens with the password.
    #[error("wrong password: no key opens with it (keys tried: {tried}{})",
        if *.left > 0 { format!(", not tried: {left}") } else { String::new() })]
    WrongPassword {
        /// How many slots were tried.
        tried: usize,
        /// How many were not, since each costs a key derivation.
        left: usize,
    },
    /// There is a repository at the location, but nothing that a password could open.
    #[error("there is no key in the repository at {location}")]
    NoKeys {
        /// Where.
        location: String,
    },
    /// An object cannot be understood.
    #[error("{object} is damaged")]
    DamagedObject {
        /// The object.
        object: ObjectName,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// An object has a form that this version does not know.
    #[error("{object} was written by a newer strongroom")]
    Newer {
        /// The object.
        object: ObjectName,
        /// What is not known.
        #[source]
        source: DecodeError,
    },
    /// An object's seal does not hold.
    #[error("{object} is damaged")]
    SealedObject {
        /// The object.
        object: ObjectName,
        /// Why.
        #[source]
        source: SealError,
    },
    /// An object's bytes do not hash to its name.
    #[error("the content of {object} does not match its name")]
    WrongContent {
        /// The object.
        object: ObjectName,
    },
    /// A pack cannot be read.
    #[error("pack {pack} cannot be read")]
    Pack {
        /// The pack.
        pack: PackId,
        /// Why.
        #[source]
        source: PackError,
    },
    /// A blob cannot be opened or decoded.
    #[error("blob {blob} in pack {pack} cannot be read")]
    Blob {
        /// The blob.
        blob: BlobId,
        /// Its pack.
        pack: PackId,
        /// Why.
        #[source]
        source: PackError,
    },
    /// A delta is there, but the blob that it rests on cannot be read.
    #[error("blob {blob} rests on blob {base}, which cannot be read")]
    Base {
        /// The delta's blob.
        blob: BlobId,
        /// Its base.
        base: BlobId,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// Live index objects are damaged or lost, and what was asked for needs all of them.
    #[error("{object} and {} more cannot be used", count.saturating_sub(1))]
    IndexLost {
        /// The first of them.
        object: ObjectName,
        /// How many there are.
        count: usize,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot {snapshot}")]
    NoSnapshot {
        /// The snapshot.
        snapshot: SnapshotId,
    },
    /// There is no such key.
    #[error("there is no key {}", slot.short())]
    NoKey {
        /// The key.
        slot: SlotId,
    },
    /// Nobody removes the key they came in with.
    #[error("key {} is the one in use: open the repository with another one", slot.short())]
    OwnKey {
        /// The key.
        slot: SlotId,
    },
    /// Objects of a repository are there, but both copies of its configuration are gone.
    #[error("{location} holds objects of a repository, but both copies of its config are lost")]
    ConfigLost {
        /// Where.
        location: String,
    },
    /// The slot that the password opens was made for another repository.
    #[error("the key found at {location} belongs to another repository")]
    ForeignSlot {
        /// Where.
        location: String,
    },
    /// Something that the change relies on is no longer there.
    #[error("the repository changed meanwhile")]
    Conflict(#[from] Conflict),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A blob that something needs is in no pack.
    #[error("blob {blob} is in no pack of this repository")]
    MissingBlob {
        /// The blob.
        blob: BlobId,
    },
    /// A blob came out of its pack with other bytes than its id says.
    #[error("blob {blob} in pack {pack} does not have the content that its id says")]
    WrongBlob {
        /// The blob.
        blob: BlobId,
        /// Its pack.
        pack: PackId,
    },
    /// The store took an object and does not have it.
    #[error("{object} was not stored, and the store does not say why")]
    NotStored {
        /// The object.
        object: ObjectName,
    },
    /// A thread ended in the middle of storing something.
    #[error("a thread ended unexpectedly while it stored something: this is a bug")]
    ThreadLost,
    /// The writer failed earlier.
    #[error("writing stopped after an earlier error")]
    WriterBroken,
    /// The store failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The index cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Keys could not be made or opened.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Encoding failed.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A structure cannot be encoded or decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The random generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A pack does not come back before upload.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl From<AppendError<Conflict>> for Error {
    fn from(error: AppendError<Conflict>) -> Self {
        match error {
            AppendError::Refused(conflict) => Self::Conflict(conflict),
            AppendError::Log(error) => Self::Log(error),
        }
    }
}

impl Error {
    /// What it means that an object cannot be decoded: it is damaged, or newer than this program.
    pub(crate) fn damaged(object: ObjectName, source: DecodeError) -> Self {
        match source {
            // Objects that changed places are no news.
            DecodeError::UnknownTag {
                what: frame::WHAT, ..
            } => Self::DamagedObject { object, source },
            DecodeError::UnknownVersion { .. } | DecodeError::UnknownTag { .. } => {
                Self::Newer { object, source }
            }
            _ => Self::DamagedObject { object, source },
        }
    }

    /// Whether a blob or its pack was not found where the index says.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::MissingBlob { .. } => true,
            Self::Backend(error) => error.is_not_found(),
            Self::Base { source, .. } => source.is_missing(),
            _ => false,
        }
    }

    /// Whether the disk or the quota is full.
    #[must_use]
    pub const fn is_no_space(&self) -> bool {
        matches!(
            self,
            Self::Backend(error) | Self::Log(LogError::Backend(error))
                if matches!(error.kind, BackendErrorKind::NoSpace)
        )
    }

    /// Whether stored bytes are missing or not what they should be, rather than out of reach.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::DamagedObject { .. } | Self::SealedObject { .. } | Self::WrongContent { .. } => {
                true
            }
            Self::Log(LogError::PartLost { .. }) => true,
            Self::Backend(error) => {
                matches!(
                    error.kind,
                    BackendErrorKind::NotFound
                        | BackendErrorKind::TooShort
                        | BackendErrorKind::TooLarge
                )
            }
            _ => false,
        }
    }
}
