//! The one error type of this crate, and the questions that callers ask of it. Each variant tells
//! this level only; the cause is its source.

use crate::{
    backend::{BackendError, ObjectName},
    codec::CodecError,
    crypto::SealError,
    env::RandomError,
    format::DecodeError,
    id::{BlobId, PackId},
    index::IndexError,
    keys::KeyError,
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
    #[error("wrong password, or no key found for it in {tried} slots")]
    WrongPassword {
        /// How many slots were tried.
        tried: usize,
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
