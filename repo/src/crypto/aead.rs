//! AES-256-GCM: `ring` does the work, `aes-gcm` is the oracle that the tests hold it against.
//! Nonces are the caller's business (`seal`): one key per object, a counter inside it.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::keys::SecretKey;

/// Bytes of an authentication tag.
pub(super) const TAG_LEN: usize = 16;

/// A key ready for use. `ring` cannot wipe its key schedule, so it lives only as long as its
/// object does.
pub(super) struct Aead(LessSafeKey);

/// Sealing or opening failed: a forged or damaged ciphertext, or one that is too long.
#[derive(Debug)]
pub(super) struct AeadError;

impl Aead {
    pub(super) fn new(key: &SecretKey) -> Result<Self, AeadError> {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| AeadError)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Encrypts in place and appends the tag.
    pub(super) fn seal(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), AeadError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .seal_in_place_append_tag(nonce, Aad::from(aad), buffer)
            .map_err(|_| AeadError)
    }

    /// Checks the tag and decrypts in place; the plain bytes are the returned front part.
    pub(super) fn open<'a>(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], AeadError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place(nonce, Aad::from(aad), sealed)
            .map_err(|_| AeadError)
    }
}

/// Seals secrets under a key that is used this once: its salt is fresh at every write.
pub(crate) fn seal_once(key: &SecretKey, aad: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(plain.len() + TAG_LEN);
    out.extend_from_slice(plain);
    Aead::new(key)
        .and_then(|aead| aead.seal([0; 12], aad, &mut out))
        .ok()?;
    Some(out)
}

/// Opens what [`seal_once`] sealed; `None` where key, data or associated data differ.
pub(crate) fn open_once(key: &SecretKey, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let len = Aead::new(key)
        .and_then(|aead| Ok(aead.open([0; 12], aad, &mut buffer)?.len()))
        .ok()?;
    buffer.truncate(len);
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ring_and_the_oracle_seal_the_same_bytes_and_open_each_other(
            key: [u8; 32],
            nonce: [u8; 12],
            aad in proptest::collection::vec(any::<u8>(), 0..200),
            plain in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let ours = Aead::new(&SecretKey::new(key)).unwrap();
            let oracle = Aes256Gcm::new(&key.into());
            let mut sealed = plain.clone();
            ours.seal(nonce, &aad, &mut sealed).unwrap();
            let mut expected = plain.clone();
            oracle.encrypt_in_place(&nonce.into(), &aad, &mut expected).unwrap();
            prop_assert_eq!(&sealed, &expected);
            prop_assert_eq!(ours.open(nonce, &aad, &mut expected).unwrap(), &plain[..]);
            oracle.decrypt_in_place(&nonce.into(), &aad, &mut sealed).unwrap();
            prop_assert_eq!(&sealed, &plain);
        }
    }

    #[test]
    fn a_flipped_bit_in_key_nonce_data_or_associated_data_is_refused() {
        let ours = Aead::new(&SecretKey::new([1; 32])).unwrap();
        let mut sealed = b"plain".to_vec();
        ours.seal([2; 12], b"aad", &mut sealed).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ours.open([2; 12], b"aad", &mut damaged).is_err());
        }
        assert!(ours.open([3; 12], b"aad", &mut sealed.clone()).is_err());
        assert!(ours.open([2; 12], b"aae", &mut sealed.clone()).is_err());
        let other = Aead::new(&SecretKey::new([9; 32])).unwrap();
        assert!(other.open([2; 12], b"aad", &mut sealed).is_err());
    }
}
