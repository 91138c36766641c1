//! Who somebody is: an X25519 key pair that bundles are wrapped to (HPKE, RFC 9180, base mode,
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM) and an Ed25519 key pair that signs log
//! entries and slots.

use ed25519_dalek::SigningKey;
use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable,
    rand_core::{TryCryptoRng, TryRng},
};
use zeroize::Zeroizing;

use super::{keys::SecretKey, sign::Signer};
use crate::{
    env::{Env, RandomError},
    id::SlotId,
};

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::AesGcm256;

/// The public halves of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicIdentity {
    /// X25519: bundles are wrapped to it.
    pub wrap: [u8; 32],
    /// Ed25519: signatures are checked with it.
    pub sign: [u8; 32],
}

impl PublicIdentity {
    /// The slot id: BLAKE3 of both keys.
    #[must_use]
    pub fn slot_id(&self) -> SlotId {
        let mut hasher = blake3::Hasher::new_derive_key("strongroom v1 slot id");
        hasher.update(&self.wrap).update(&self.sign);
        SlotId::new(hasher.finalize().into())
    }
}

/// The secret halves. Zeroized on drop.
#[derive(Clone)]
pub struct Identity {
    wrap: SecretKey,
    sign: SecretKey,
}

impl Identity {
    /// A fresh identity.
    ///
    /// # Errors
    /// The random generator failed.
    pub fn generate(env: &Env) -> Result<Self, RandomError> {
        Ok(Self {
            wrap: SecretKey::new(env.random()?),
            sign: SecretKey::new(env.random()?),
        })
    }

    /// An identity from its secret bytes.
    #[must_use]
    pub const fn from_secrets(wrap: SecretKey, sign: SecretKey) -> Self {
        Self { wrap, sign }
    }

    /// The secret bytes, for the slot: X25519, then Ed25519.
    pub(crate) fn secrets(&self) -> Zeroizing<[u8; 64]> {
        let mut out = Zeroizing::new([0; 64]);
        let both = self.wrap.expose().iter().chain(self.sign.expose());
        for (to, from) in out.iter_mut().zip(both) {
            *to = *from;
        }
        out
    }

    /// The public halves.
    #[must_use]
    pub fn public(&self) -> PublicIdentity {
        let sign = SigningKey::from_bytes(self.sign.expose())
            .verifying_key()
            .to_bytes();
        let wrap = <Kem as hpke::Kem>::PrivateKey::from_bytes(self.wrap.expose())
            .map_or([0; 32], |key| Kem::sk_to_pk(&key).to_bytes().into());
        PublicIdentity { wrap, sign }
    }

    /// What signs for this identity.
    #[must_use]
    pub fn signer(&self) -> Signer {
        Signer::new(self.public().slot_id(), &self.sign)
    }

    /// Opens what was wrapped to this identity; `None` where it was not, or was altered.
    #[must_use]
    pub fn unwrap(&self, info: &[u8], wrapped: &Wrapped) -> Option<Zeroizing<Vec<u8>>> {
        let key = <Kem as hpke::Kem>::PrivateKey::from_bytes(self.wrap.expose()).ok()?;
        let encapped = <Kem as hpke::Kem>::EncappedKey::from_bytes(&wrapped.encapsulated).ok()?;
        hpke::single_shot_open::<Aead, Kdf, Kem>(
            &OpModeR::Base,
            &key,
            &encapped,
            info,
            &wrapped.sealed,
            &[],
        )
        .ok()
        .map(Zeroizing::new)
    }
}

/// Bytes wrapped to one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// The encapsulated key.
    pub encapsulated: [u8; 32],
    /// The sealed bytes with their tag.
    pub sealed: Vec<u8>,
}

/// Wraps `plain` to the holder of `recipient`.
///
/// # Errors
/// The random generator failed, or the recipient's key is none.
pub(crate) fn wrap(
    env: &Env,
    recipient: &PublicIdentity,
    info: &[u8],
    plain: &[u8],
) -> Result<Wrapped, WrapError> {
    let seed = Zeroizing::new(env.random::<32>()?);
    let mut hasher = blake3::Hasher::new_derive_key("strongroom v1 wrap randomness");
    hasher.update(seed.as_slice()).update(&recipient.wrap);
    let mut random = XofRandom(hasher.finalize_xof());
    let key = <Kem as hpke::Kem>::PublicKey::from_bytes(&recipient.wrap)
        .map_err(|_| WrapError::BadRecipient)?;
    let (encapped, sealed) = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem>(
        &OpModeS::Base,
        &key,
        info,
        plain,
        &[],
        &mut random,
    )
    .map_err(|_| WrapError::BadRecipient)?;
    Ok(Wrapped {
        encapsulated: encapped.to_bytes().into(),
        sealed,
    })
}

/// Why nothing could be wrapped.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The random generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The recipient's public key is not usable.
    #[error("the recipient's public key is not usable")]
    BadRecipient,
}

/// A generator over a BLAKE3 output stream whose seed came from [`Env`].
struct XofRandom(blake3::OutputReader);

impl TryRng for XofRandom {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for XofRandom {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::testing::{running_dry, seeded};

    #[test]
    fn only_the_recipient_opens_and_only_with_the_same_info() {
        let env = seeded(1);
        let (ours, theirs) = (
            Identity::generate(&env).unwrap(),
            Identity::generate(&env).unwrap(),
        );
        let wrapped = wrap(&env, &ours.public(), b"info", b"secret").unwrap();
        assert_eq!(
            ours.unwrap(b"info", &wrapped).unwrap().as_slice(),
            b"secret"
        );
        assert!(ours.unwrap(b"other", &wrapped).is_none());
        assert!(theirs.unwrap(b"info", &wrapped).is_none());
        let mut altered = wrapped.clone();
        altered.sealed[0] ^= 1;
        assert!(ours.unwrap(b"info", &altered).is_none());
        let again = wrap(&env, &ours.public(), b"info", b"secret").unwrap();
        assert_ne!(again, wrapped, "every wrapping has its own randomness");
    }

    #[test]
    fn nothing_is_wrapped_without_randomness_or_to_a_key_that_is_none() {
        let ours = Identity::generate(&seeded(1)).unwrap().public();
        let dry = wrap(&running_dry(0), &ours, b"info", b"secret");
        assert!(matches!(dry, Err(WrapError::Random(_))), "{dry:?}");
        // A point of small order: whatever is wrapped to it, anybody could open.
        let nobody = PublicIdentity {
            wrap: [0; 32],
            ..ours
        };
        let wrapped = wrap(&seeded(2), &nobody, b"info", b"secret");
        assert!(
            matches!(wrapped, Err(WrapError::BadRecipient)),
            "{wrapped:?}"
        );
    }
}
