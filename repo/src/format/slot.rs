//! A slot: somebody's identity, its secret half sealed by a password.
//!
//! ```text
//! inner    = identity | signer 32 | signature 64 | kdf | commit 32 | u32 length | sealed
//! identity = "STRONGSK" version=1 role 0 0 | i64 s, u32 ns created | u32 length | label |
//!            X25519 public 32 | Ed25519 public 32
//! kdf      = u32 memory KiB | u32 passes | u32 lanes | salt 32
//! sealed   = AES-256-GCM(KEK, nonce 0, AAD = all before the length) of
//!            X25519 secret 32 | Ed25519 secret 32 | repo id 16 | first owner's Ed25519 public 32
//! ```
//!
//! `signature` is by the owner whose Ed25519 key is `signer`, over the identity, so that whoever
//! changes only a password needs no owner. Stored framed three times; the object's name is the
//! hash of the inner bytes.

pub use super::log_body::Role;
use super::{
    DecodeError,
    cursor::{Reader, put_bytes},
};
use crate::{
    crypto::{KdfParams, PublicIdentity},
    env::Timestamp,
    id::RepoId,
    limits::{MAX_LABEL_LEN, MAX_SLOT_LEN},
};

const MAGIC: &[u8; 8] = b"STRONGSK";
const WHAT: &str = "slot";

/// The part of a slot that does not change with the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotIdentity {
    /// What the holder may do.
    pub role: Role,
    /// When the slot was made.
    pub created: Timestamp,
    /// For people, such as `user@host`.
    pub label: String,
    /// The public keys.
    pub public: PublicIdentity,
}

impl SlotIdentity {
    /// The bytes that the owner signs.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] for a label that is too long.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        if self.label.len() > MAX_LABEL_LEN {
            let value = u64::try_from(self.label.len()).unwrap_or(u64::MAX);
            return Err(DecodeError::OutOfRange {
                what: "slot label",
                value,
            });
        }
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[super::VERSION, self.role as u8, 0, 0]);
        out.extend_from_slice(&self.created.secs.to_le_bytes());
        out.extend_from_slice(&self.created.nanos.to_le_bytes());
        put_bytes(&mut out, self.label.as_bytes(), WHAT)?;
        out.extend_from_slice(&self.public.wrap);
        out.extend_from_slice(&self.public.sign);
        Ok(out)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.magic(MAGIC)?;
        reader.version()?;
        let role = Role::try_from(reader.u8()?)?;
        if reader.u16()? != 0 {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        let created = Timestamp {
            secs: reader.i64()?,
            nanos: reader.u32()?,
        };
        let max = u32::try_from(MAX_LABEL_LEN).unwrap_or(u32::MAX);
        let label = std::str::from_utf8(reader.bytes(max, "slot label")?)
            .map_err(|_| DecodeError::Malformed { what: "slot label" })?
            .to_owned();
        let public = PublicIdentity {
            wrap: reader.array()?,
            sign: reader.array()?,
        };
        Ok(Self {
            role,
            created,
            label,
            public,
        })
    }
}

/// A slot as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Whose it is.
    pub identity: SlotIdentity,
    /// Ed25519 key of the owner who signed the identity.
    pub signer: [u8; 32],
    /// Their signature.
    pub signature: [u8; 64],
    /// Cost of the key derivation.
    pub kdf: KdfParams,
    /// Salt of the key derivation, fresh at every write.
    pub salt: [u8; 32],
    /// Commitment to the key that seals the secrets.
    pub commit: [u8; 32],
    /// The sealed secrets.
    pub sealed: Vec<u8>,
}

impl Slot {
    /// What the sealed secrets are bound to: everything in front of them.
    ///
    /// # Errors
    /// As [`SlotIdentity::encode`].
    pub fn associated_data(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = self.identity.encode()?;
        out.extend_from_slice(&self.signer);
        out.extend_from_slice(&self.signature);
        for number in [self.kdf.memory_kib, self.kdf.time, self.kdf.lanes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.commit);
        Ok(out)
    }

    /// The canonical inner bytes.
    ///
    /// # Errors
    /// As [`SlotIdentity::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = self.associated_data()?;
        put_bytes(&mut out, &self.sealed, WHAT)?;
        Ok(out)
    }

    /// Reads the inner bytes. The cost of the key derivation is within its bounds; signature and
    /// commitment are not checked here.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(inner: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(inner, WHAT);
        let identity = SlotIdentity::read(&mut reader)?;
        let signer = reader.array()?;
        let signature = reader.array()?;
        let kdf = KdfParams {
            memory_kib: reader.u32()?,
            time: reader.u32()?,
            lanes: reader.u32()?,
        }
        .check()?;
        let salt = reader.array()?;
        let commit = reader.array()?;
        let sealed = reader.bytes(MAX_SLOT_LEN, WHAT)?.to_vec();
        reader.finish()?;
        Ok(Self {
            identity,
            signer,
            signature,
            kdf,
            salt,
            commit,
            sealed,
        })
    }
}

/// Pins a repository to whoever made it: part of every slot's secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The repository.
    pub repo: RepoId,
    /// The first owner's Ed25519 public key, which must have signed log entry 1.
    pub owner: [u8; 32],
}

/// Body of the fuzz target: no bytes panic, and what decodes encodes to the same bytes.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_slot(data: &[u8]) {
    if let Ok(slot) = Slot::decode(data) {
        assert_eq!(slot.encode().as_deref(), Ok(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample() -> Slot {
        Slot {
            identity: SlotIdentity {
                role: Role::Reader,
                created: Timestamp { secs: -1, nanos: 5 },
                label: "a@b".to_owned(),
                public: PublicIdentity {
                    wrap: [1; 32],
                    sign: [2; 32],
                },
            },
            signer: [3; 32],
            signature: [4; 64],
            kdf: KdfParams::DEFAULT,
            salt: [5; 32],
            commit: [6; 32],
            sealed: vec![7, 8],
        }
    }

    #[test]
    fn golden_bytes() {
        let mut expected = b"STRONGSK\x01\x02\0\0".to_vec();
        expected.extend_from_slice(&[255; 8]);
        expected.extend_from_slice(&[5, 0, 0, 0, 3, 0, 0, 0, b'a', b'@', b'b']);
        for (byte, len) in [(1, 32), (2, 32), (3, 32), (4, 64)] {
            expected.extend_from_slice(&[byte].repeat(len));
        }
        expected.extend_from_slice(&[0, 0, 1, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        expected.extend_from_slice(&[5; 32]);
        expected.extend_from_slice(&[6; 32]);
        expected.extend_from_slice(&[2, 0, 0, 0, 7, 8]);
        assert_eq!(sample().encode().unwrap(), expected);
        assert_eq!(Slot::decode(&expected), Ok(sample()));
    }

    #[test]
    fn a_cost_that_would_eat_the_machine_is_refused() {
        let mut slot = sample();
        slot.kdf.memory_kib = 5 << 20;
        let error = DecodeError::OutOfRange {
            what: "key derivation memory",
            value: 5 << 20,
        };
        assert_eq!(Slot::decode(&slot.encode().unwrap()), Err(error));
    }

    #[test]
    fn no_cut_is_accepted() {
        let bytes = sample().encode().unwrap();
        for len in 0..bytes.len() {
            assert!(Slot::decode(&bytes[..len]).is_err());
            fuzz_slot(&bytes[..len]);
        }
    }
}
