//! From a password to the key that seals a slot: Argon2id (RFC 9106), then BLAKE3 `derive_key`
//! into the key and a commitment to it, so that one ciphertext cannot open under two passwords.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::keys::SecretKey;
use crate::{
    format::DecodeError,
    limits::{KDF_LANES, KDF_MEMORY_KIB, KDF_TIME},
};

/// Cost of Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub time: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfParams {
    /// 64 MiB, 3 passes, 4 lanes: the second recommended option of RFC 9106, and the floor.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 << 10,
        time: 3,
        lanes: 4,
    };

    /// Checks the bounds: below the floor a password is cheap to guess, above the ceiling a
    /// hostile repository would eat the machine.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] naming the parameter.
    pub fn check(self) -> Result<Self, DecodeError> {
        let fields = [
            ("key derivation memory", self.memory_kib, KDF_MEMORY_KIB),
            ("key derivation passes", self.time, KDF_TIME),
            ("key derivation lanes", self.lanes, KDF_LANES),
        ];
        for (what, value, range) in fields {
            if !range.contains(&value) {
                return Err(DecodeError::OutOfRange {
                    what,
                    value: u64::from(value),
                });
            }
        }
        Ok(self)
    }
}

impl Default for KdfParams {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The key that seals a slot, and the commitment stored beside it.
///
/// # Errors
/// [`DecodeError::OutOfRange`] for a cost outside its bounds.
pub(crate) fn slot_key(
    password: &[u8],
    params: KdfParams,
    salt: &[u8; 32],
) -> Result<(SecretKey, [u8; 32]), DecodeError> {
    let refused = DecodeError::Malformed {
        what: "key derivation parameters",
    };
    let params = params.check()?;
    let cost =
        Params::new(params.memory_kib, params.time, params.lanes, Some(32)).map_err(|_| refused)?;
    let mut out = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, cost)
        .hash_password_into(password, salt, out.as_mut_slice())
        .map_err(|_| refused)?;
    let mut hasher = blake3::Hasher::new_derive_key("strongroom v1 slot");
    hasher.update(out.as_slice());
    let mut xof = hasher.finalize_xof();
    let (mut key, mut commit) = ([0; 32], [0; 32]);
    xof.fill(&mut key);
    xof.fill(&mut commit);
    Ok((SecretKey::new(key), commit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_outside_their_bounds_are_refused() {
        let ok = KdfParams::DEFAULT;
        for bad in [
            KdfParams {
                memory_kib: (64 << 10) - 1,
                ..ok
            },
            KdfParams {
                memory_kib: (4 << 20) + 1,
                ..ok
            },
            KdfParams { time: 2, ..ok },
            KdfParams { time: 33, ..ok },
            KdfParams { lanes: 0, ..ok },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
            assert!(slot_key(b"x", bad, &[0; 32]).is_err());
        }
    }
}
