//! Typed identifiers: every id of the repository is a newtype over a fixed number of bytes, shown
//! as lower-case hex. What an id is computed from stands at its type; nothing here computes one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares an id type over `$n` bytes.
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $n:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; $n]);

        impl $name {
            /// Number of bytes of this id.
            pub const LEN: usize = $n;

            /// Wraps the bytes of an id.
            #[must_use]
            pub const fn new(bytes: [u8; $n]) -> Self {
                Self(bytes)
            }

            /// The bytes of the id.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $n] {
                &self.0
            }

            /// The full id as lower-case hex.
            #[must_use]
            pub fn to_hex(self) -> String {
                hex(&self.0)
            }

            /// The first eight hex digits: enough for people.
            #[must_use]
            pub fn short(self) -> String {
                let mut text = hex(&self.0);
                text.truncate(8);
                text
            }

            /// Parses exactly the full lower-case hex form; anything else is `None`.
            #[must_use]
            pub fn parse_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $n];
                parse_hex(text, &mut bytes)?;
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl From<[u8; $n]> for $name {
            fn from(bytes: [u8; $n]) -> Self {
                Self(bytes)
            }
        }
    };
}

id_type!(
    /// Keyed BLAKE3-256 of a blob's plain bytes, keyed by the blob's kind as well.
    BlobId,
    32
);
id_type!(
    /// BLAKE3-256 over the plain parts of a pack; see docs/format-v1.md, "Pack".
    PackId,
    32
);
id_type!(
    /// BLAKE3-256 of the bytes of an index object.
    IndexId,
    32
);
id_type!(
    /// BLAKE3-256 of the canonical bytes of a snapshot object.
    SnapshotId,
    32
);
id_type!(
    /// Derived from a slot's two public keys: who somebody is, whatever their password.
    SlotId,
    32
);
id_type!(
    /// BLAKE3-256 of the bytes of a slot object: the name under `keys/`.
    SlotObjectId,
    32
);
id_type!(
    /// Identity of the log, and so of the repository.
    RepoId,
    16
);
id_type!(
    /// Identity shared by replicas: goes into key derivation, associated data and blob ids.
    DomainId,
    16
);
id_type!(
    /// Random name of a key epoch.
    EpochId,
    16
);
id_type!(
    /// Random name of one log entry, by which its writer recognises it.
    TxnId,
    16
);
id_type!(
    /// Random name of one run of the program.
    RunId,
    16
);

/// A plain 32-byte BLAKE3 hash, where the hash is not the name of an object.
pub type Hash = [u8; 32];

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn parse_hex(text: &str, out: &mut [u8]) -> Option<()> {
    if text.len() != out.len() * 2 {
        return None;
    }
    for (pair, byte) in text.as_bytes().chunks_exact(2).zip(out) {
        let [high, low] = *pair else { return None };
        *byte = (digit(high)? << 4) | digit(low)?;
    }
    Some(())
}

fn digit(c: u8) -> Option<u8> {
    match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_form_round_trips_and_refuses_anything_else() {
        let id = RunId::new(*b"0123456789abcdef");
        assert_eq!(RunId::parse_hex(&id.to_hex()), Some(id));
        assert_eq!(id.short(), "30313233");
        for bad in ["", "30", &id.to_hex().to_uppercase(), &format!("{id}0")] {
            if bad != id.to_hex() {
                assert_eq!(RunId::parse_hex(bad), None, "{bad}");
            }
        }
        assert_eq!(RunId::parse_hex("é0313233343536373839616263646566"), None);
    }
}
