//! Ed25519 signatures: who wrote what. [`Signer`] is a slot's secret half; verification is the
//! strict kind, so that one message has one signature and weak keys are refused. What is signed,
//! and under which context, stands at the structure that carries the signature.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use super::keys::SecretKey;
use crate::id::SlotId;

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// A slot's signing key. Zeroized on drop, never shown.
#[derive(Clone)]
pub struct Signer {
    slot: SlotId,
    key: SigningKey,
}

impl Signer {
    /// The signer of `slot`, whose Ed25519 secret is `secret`.
    #[must_use]
    pub fn new(slot: SlotId, secret: &SecretKey) -> Self {
        Self {
            slot,
            key: SigningKey::from_bytes(secret.expose()),
        }
    }

    /// Whose signature it is.
    #[must_use]
    pub const fn slot(&self) -> SlotId {
        self.slot
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Signs `context || message`.
    #[must_use]
    pub fn sign(&self, context: &[u8], message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(&[context, message].concat()).to_bytes()
    }
}

/// Whether `signature` is the signature of `context || message` under `public`.
#[must_use]
pub fn verify_signature(
    public: &[u8; 32],
    context: &[u8],
    message: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else {
        return false;
    };
    let message = [context, message].concat();
    key.verify_strict(&message, &Signature::from_bytes(signature))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_context_and_message_only() {
        let signer = Signer::new(SlotId::new([1; 32]), &SecretKey::new([2; 32]));
        let other = Signer::new(SlotId::new([1; 32]), &SecretKey::new([3; 32]));
        let signature = signer.sign(b"context", b"message");
        let public = signer.public_key();
        assert!(verify_signature(
            &public, b"context", b"message", &signature
        ));
        assert!(!verify_signature(
            &public, b"contex", b"message", &signature
        ));
        assert!(!verify_signature(
            &public, b"context", b"messagE", &signature
        ));
        let foreign = other.public_key();
        assert!(!verify_signature(
            &foreign, b"context", b"message", &signature
        ));
        for bit in 0..signature.len() * 8 {
            let mut bent = signature;
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify_signature(&public, b"context", b"message", &bent));
        }
    }

    #[test]
    fn a_weak_public_key_verifies_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify_signature(&identity, b"", b"anything", &signature));
    }
}
