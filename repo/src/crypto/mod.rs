//! The one door to cryptography: key types, blob ids, sealing. Specified in `docs/format-v1.md`,
//! "Sealing" and "Keys". No other module of the project names a cipher or derives a key.
//!
//! Secrets have no `Debug`, are zeroized on drop and never leave this crate but as a blob id or
//! the chunker's key.

mod aead;
mod identity;
mod keys;
mod object;
mod password;
mod seal;
mod sign;

pub(crate) use aead::{open_once, seal_once};
pub(crate) use identity::wrap;
pub use identity::{Identity, PublicIdentity, WrapError, Wrapped};
pub use keys::{BlobKind, EpochKey, Roots, SecretKey};
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub use object::fuzz_sealed;
pub use object::{open_object, seal_object};
pub use password::KdfParams;
pub(crate) use password::slot_key;
pub use seal::{
    ObjectKey, SealError, SealHeader, SealKind, SegmentInfo, SegmentNumber, TAG_LEN, TOC_SEGMENT,
};
pub use sign::{SIGNATURE_LEN, Signer, verify_signature};
