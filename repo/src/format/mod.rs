//! Stored forms, one file per kind: wire struct, encode, decode, bounds, golden bytes, damage
//! test. Specified in `docs/format-v1.md`; nothing here reads or writes a file, and nothing here
//! holds a key. Decoders take untrusted bytes: they never panic and allocate within bounds.

pub mod config;
pub mod cursor;
pub mod frame;
pub mod index;
pub mod keyring;
pub mod log;
pub mod log_body;
pub mod pack;
pub mod record;
pub mod slot;

/// Format version of every object this program writes.
pub const VERSION: u8 = 1;

/// Bytes that are not what they should be. `what` names the structure, in the words of
/// `docs/format-v1.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside the structure.
    #[error("{what} is cut short")]
    Truncated {
        /// The structure.
        what: &'static str,
    },
    /// Bytes are left over after the structure.
    #[error("{what} has {extra} bytes too many")]
    Trailing {
        /// The structure.
        what: &'static str,
        /// How many bytes are left.
        extra: usize,
    },
    /// The structure does not begin with its magic bytes: another kind of file, or overwritten.
    #[error("{what} does not begin with its magic bytes")]
    BadMagic {
        /// The structure.
        what: &'static str,
    },
    /// Written by a version that this program does not know.
    #[error("{what} has version {found}; this program knows version 1: use a newer strongroom")]
    UnknownVersion {
        /// The structure.
        what: &'static str,
        /// The version found.
        found: u8,
    },
    /// A tag, kind or critical extension that this program does not know.
    #[error("{what} has an unknown tag {tag}")]
    UnknownTag {
        /// The structure.
        what: &'static str,
        /// The tag found.
        tag: u64,
    },
    /// A number outside its bounds.
    #[error("{what} is {value}, which is out of range")]
    OutOfRange {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A checksum or a hash does not match.
    #[error("the checksum of {what} does not match")]
    Checksum {
        /// What is covered by the checksum.
        what: &'static str,
    },
    /// The bytes decode, but are not the one canonical encoding of what they say.
    #[error("{what} is malformed")]
    Malformed {
        /// The structure.
        what: &'static str,
    },
}

impl DecodeError {
    /// Whether a newer version of this program may have written it: then it is no damage.
    #[must_use]
    pub const fn is_newer(&self) -> bool {
        matches!(self, Self::UnknownTag { .. } | Self::UnknownVersion { .. })
    }
}
