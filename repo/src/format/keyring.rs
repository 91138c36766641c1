//! The keyring: the role bundles, wrapped to every live recipient, and one more copy of the
//! configuration. Stored framed three times as `keyring/<n>`; the log names its hash.
//!
//! ```text
//! inner  = record of Keyring
//! bundle = record of Bundle, wrapped by HPKE with
//!          info = "strongroom v1 keyring" | repo id | domain id | u64 number | role | slot id
//! ```

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{
    DecodeError,
    record::{self, Ext},
    slot::Role,
};
use crate::{
    crypto::{EpochKey, Roots, SecretKey},
    id::{DomainId, EpochId, RepoId, SlotId},
};

const WHAT: &str = "keyring";

/// A keyring as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// The repository.
    pub repo: RepoId,
    /// The domain.
    pub domain: DomainId,
    /// Its number, from 1.
    pub number: u64,
    /// The inner bytes of the configuration.
    pub config: Vec<u8>,
    /// A bundle for every live recipient.
    pub bundles: Vec<WrappedBundle>,
}

/// A role bundle wrapped to one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedBundle {
    /// The recipient.
    pub slot: SlotId,
    /// Role byte.
    pub role: u8,
    /// HPKE encapsulated key.
    pub encapsulated: [u8; 32],
    /// HPKE ciphertext.
    pub sealed: Vec<u8>,
}

impl Keyring {
    /// The canonical inner bytes.
    ///
    /// # Errors
    /// As [`record::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        record::encode(self, &Ext::default(), WHAT)
    }

    /// Reads the inner bytes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(inner: &[u8]) -> Result<Self, DecodeError> {
        Ok(record::decode(inner, WHAT)?.0)
    }
}

/// What binds a wrapped bundle to its place.
#[must_use]
pub fn bundle_info(
    repo: RepoId,
    domain: DomainId,
    number: u64,
    role: Role,
    slot: SlotId,
) -> Vec<u8> {
    let mut out = b"strongroom v1 keyring".to_vec();
    out.extend_from_slice(repo.as_bytes());
    out.extend_from_slice(domain.as_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    out.push(role as u8);
    out.extend_from_slice(slot.as_bytes());
    out
}

/// The keys of an owner or reader.
#[derive(Serialize, Deserialize)]
struct Bundle {
    id: [u8; 32],
    cdc: [u8; 32],
    meta: Vec<(EpochId, [u8; 32])>,
    data: Vec<(EpochId, [u8; 32])>,
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.id.zeroize();
        self.cdc.zeroize();
        for (_, key) in self.meta.iter_mut().chain(&mut self.data) {
            key.zeroize();
        }
    }
}

/// Encodes the bundle of an owner or reader.
///
/// # Errors
/// As [`record::encode`].
pub(crate) fn encode_bundle(roots: &Roots) -> Result<Zeroizing<Vec<u8>>, DecodeError> {
    let plain = |epochs: &[EpochKey]| {
        epochs
            .iter()
            .map(|root| (root.epoch, *root.key.expose()))
            .collect::<Vec<_>>()
    };
    let bundle = Bundle {
        id: *roots.id_root().expose(),
        cdc: *roots.chunker_key().expose(),
        meta: plain(roots.meta_epochs()),
        data: plain(roots.data_epochs()),
    };
    record::encode(&bundle, &Ext::default(), "key bundle").map(Zeroizing::new)
}

/// Reads the bundle of an owner or reader.
///
/// # Errors
/// [`DecodeError`]; a bundle without an epoch is [`DecodeError::Malformed`].
pub(crate) fn decode_bundle(bytes: &[u8]) -> Result<Roots, DecodeError> {
    const WHAT: &str = "key bundle";
    let (bundle, _) = record::decode::<Bundle>(bytes, WHAT)?;
    let secret = |epochs: &[(EpochId, [u8; 32])]| {
        epochs
            .iter()
            .map(|(epoch, key)| EpochKey {
                epoch: *epoch,
                key: SecretKey::new(*key),
            })
            .collect::<Vec<_>>()
    };
    if bundle.meta.is_empty() || bundle.data.is_empty() {
        return Err(DecodeError::Malformed { what: WHAT });
    }
    Ok(Roots::new(
        SecretKey::new(bundle.id),
        SecretKey::new(bundle.cdc),
        secret(&bundle.meta),
        secret(&bundle.data),
    ))
}

/// Body of the fuzz target: no bytes panic, and what decodes encodes to the same bytes.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_keyring(data: &[u8]) {
    if let Ok((keyring, ext)) = record::decode::<Keyring>(data, WHAT) {
        assert_eq!(record::encode(&keyring, &ext, WHAT).as_deref(), Ok(data));
    }
    let _ = decode_bundle(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> Roots {
        let root = |byte| EpochKey {
            epoch: EpochId::new([byte; 16]),
            key: SecretKey::new([1; 32]),
        };
        Roots::new(
            SecretKey::new([2; 32]),
            SecretKey::new([3; 32]),
            vec![root(4), root(5)],
            vec![root(6)],
        )
    }

    #[test]
    fn a_bundle_comes_back_whole_and_is_golden() {
        let bytes = encode_bundle(&roots()).unwrap();
        let mut expected = vec![1];
        expected.extend_from_slice(&[2; 32]);
        expected.extend_from_slice(&[3; 32]);
        for (count, epochs) in [(2, &[4_u8, 5][..]), (1, &[6][..])] {
            expected.push(count);
            for epoch in epochs {
                expected.extend_from_slice(&[*epoch; 16]);
                expected.extend_from_slice(&[1; 32]);
            }
        }
        expected.push(0);
        assert_eq!(bytes.as_slice(), expected);
        let back = decode_bundle(&bytes).unwrap();
        assert_eq!(encode_bundle(&back).unwrap(), bytes);
    }

    #[test]
    fn a_bundle_without_an_epoch_is_refused() {
        let none = Roots::new(
            SecretKey::new([2; 32]),
            SecretKey::new([3; 32]),
            vec![],
            vec![],
        );
        assert!(decode_bundle(&encode_bundle(&none).unwrap()).is_err());
    }

    #[test]
    fn a_keyring_comes_back_and_no_cut_is_accepted() {
        let keyring = Keyring {
            repo: RepoId::new([1; 16]),
            domain: DomainId::new([2; 16]),
            number: 300,
            config: vec![5],
            bundles: vec![WrappedBundle {
                slot: SlotId::new([3; 32]),
                role: 1,
                encapsulated: [4; 32],
                sealed: vec![6, 7],
            }],
        };
        let bytes = keyring.encode().unwrap();
        assert_eq!(Keyring::decode(&bytes), Ok(keyring));
        for len in 0..bytes.len() {
            assert!(Keyring::decode(&bytes[..len]).is_err());
        }
    }
}
