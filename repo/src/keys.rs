//! Slots and keyrings as acts: make a slot for somebody, open one with a password, wrap the keys
//! to every live recipient. What the log says about who is live is not known here.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    crypto::{
        EpochKey, Identity, KdfParams, PublicIdentity, Roots, SecretKey, WrapError, Wrapped,
        open_once, seal_once, slot_key, verify_signature, wrap,
    },
    env::{Env, RandomError},
    format::{
        DecodeError,
        cursor::Reader,
        keyring::{Keyring, WrappedBundle, bundle_info, decode_bundle, encode_bundle},
        slot::{Anchor, Role, Slot, SlotIdentity},
    },
    id::{DomainId, EpochId, RepoId},
};

/// Why a slot or a keyring could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The random generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A bundle could not be wrapped.
    #[error("the keys could not be wrapped to a recipient")]
    Wrap(#[from] WrapError),
    /// A structure cannot be encoded or decoded.
    #[error("a key structure cannot be read")]
    Decode(#[from] DecodeError),
    /// The password opens the slot, but the slot was altered.
    #[error("the slot was altered: its secrets do not match its public keys")]
    SlotAltered,
    /// The keyring has no bundle for this slot, or one that was altered.
    #[error("the keyring holds no usable keys for this slot")]
    NoBundle,
}

/// An identity that a password opened, and what it pins.
#[derive(Clone)]
pub struct OpenedSlot {
    /// The secrets.
    pub identity: Identity,
    /// The repository and its first owner.
    pub anchor: Anchor,
}

const SIGN_CONTEXT: &[u8] = b"strongroom v1 slot";

/// What a new slot says about its holder.
#[derive(Clone, Debug)]
pub struct SlotLabel {
    /// What the holder may do.
    pub role: Role,
    /// For people, such as `user@host`.
    pub label: String,
}

/// Makes a slot for `identity`, signed by `owner`.
///
/// # Errors
/// [`KeyError`] where the random generator fails or a parameter is out of range.
pub fn make_slot(
    env: &Env,
    identity: &Identity,
    label: SlotLabel,
    owner: &Identity,
    anchor: Anchor,
    password: &[u8],
    kdf: KdfParams,
) -> Result<Slot, KeyError> {
    let about = SlotIdentity {
        role: label.role,
        created: env.now(),
        label: label.label,
        public: identity.public(),
    };
    let signature = owner.signer().sign(SIGN_CONTEXT, &about.encode()?);
    let slot = Slot {
        identity: about,
        signer: owner.public().sign,
        signature,
        kdf,
        salt: [0; 32],
        commit: [0; 32],
        sealed: Vec::new(),
    };
    seal_slot(env, slot, identity, anchor, password, kdf)
}

/// The same slot under another password; needs no owner.
///
/// # Errors
/// As [`make_slot`].
pub fn with_password(
    env: &Env,
    slot: Slot,
    opened: &OpenedSlot,
    password: &[u8],
    kdf: KdfParams,
) -> Result<Slot, KeyError> {
    seal_slot(env, slot, &opened.identity, opened.anchor, password, kdf)
}

fn seal_slot(
    env: &Env,
    mut slot: Slot,
    identity: &Identity,
    anchor: Anchor,
    password: &[u8],
    kdf: KdfParams,
) -> Result<Slot, KeyError> {
    slot.kdf = kdf;
    (slot.salt, slot.commit) = ([0; 32], [0; 32]);
    // What is sealed follows from the public keys: where clones of a machine draw the same
    // numbers, one password is still used under one salt for one slot only.
    slot.salt = env.salt(blake3::hash(&slot.associated_data()?).as_bytes())?;
    let (key, commit) = slot_key(password, kdf, &slot.salt)?;
    slot.commit = commit;
    let mut secrets = Zeroizing::new(Vec::with_capacity(SECRETS_LEN));
    secrets.extend_from_slice(identity.secrets().as_slice());
    secrets.extend_from_slice(anchor.repo.as_bytes());
    secrets.extend_from_slice(&anchor.owner);
    let aad = slot.associated_data()?;
    slot.sealed = seal_once(&key, &aad, &secrets).ok_or(KeyError::SlotAltered)?;
    Ok(slot)
}

const SECRETS_LEN: usize = 32 + 32 + 16 + 32;

/// Tries a password on a slot: `None` where it is not the slot's password. Costs one key
/// derivation.
///
/// # Errors
/// [`KeyError::SlotAltered`] where the password is right and the slot is not.
pub fn open_slot(slot: &Slot, password: &[u8]) -> Result<Option<OpenedSlot>, KeyError> {
    let (key, commit) = slot_key(password, slot.kdf, &slot.salt)?;
    if !bool::from(commit.ct_eq(&slot.commit)) {
        return Ok(None);
    }
    let aad = slot.associated_data()?;
    let secrets = open_once(&key, &aad, &slot.sealed).ok_or(KeyError::SlotAltered)?;
    let mut reader = Reader::new(&secrets, "slot secrets");
    let wrap = SecretKey::new(reader.array()?);
    let sign = SecretKey::new(reader.array()?);
    let anchor = Anchor {
        repo: RepoId::new(reader.array()?),
        owner: reader.array()?,
    };
    reader.finish()?;
    let identity = Identity::from_secrets(wrap, sign);
    if identity.public() != slot.identity.public {
        return Err(KeyError::SlotAltered);
    }
    Ok(Some(OpenedSlot { identity, anchor }))
}

/// Whether the owner with Ed25519 key `slot.signer` signed this slot.
///
/// # Errors
/// [`KeyError::Decode`] where the slot cannot be encoded.
pub fn is_signed(slot: &Slot) -> Result<bool, KeyError> {
    let identity = slot.identity.encode()?;
    Ok(verify_signature(
        &slot.signer,
        SIGN_CONTEXT,
        &identity,
        &slot.signature,
    ))
}

/// Fresh roots with one epoch each.
///
/// # Errors
/// The random generator failed.
pub fn fresh_roots(env: &Env) -> Result<Roots, RandomError> {
    let epoch = || -> Result<EpochKey, RandomError> {
        Ok(EpochKey {
            epoch: EpochId::new(env.random()?),
            key: SecretKey::new(env.random()?),
        })
    };
    Ok(Roots::new(
        SecretKey::new(env.random()?),
        SecretKey::new(env.random()?),
        vec![epoch()?],
        vec![epoch()?],
    ))
}

/// Which repository a keyring is for, and its number.
#[derive(Clone, Copy, Debug)]
pub struct KeyringPlace {
    /// The repository.
    pub repo: RepoId,
    /// The domain.
    pub domain: DomainId,
    /// The keyring's number.
    pub number: u64,
}

/// Wraps `roots` to every recipient.
///
/// # Errors
/// [`KeyError`] where the random generator fails or a recipient's key is unusable.
pub fn make_keyring(
    env: &Env,
    place: KeyringPlace,
    config: Vec<u8>,
    roots: &Roots,
    recipients: &[(Role, PublicIdentity)],
) -> Result<Keyring, KeyError> {
    let bundle = encode_bundle(roots)?;
    let bundles = recipients
        .iter()
        .map(|(role, public)| {
            let slot = public.slot_id();
            let info = bundle_info(place.repo, place.domain, place.number, *role, slot);
            let wrapped = wrap(env, public, &info, &bundle)?;
            Ok(WrappedBundle {
                slot,
                role: *role as u8,
                encapsulated: wrapped.encapsulated,
                sealed: wrapped.sealed,
            })
        })
        .collect::<Result<Vec<_>, KeyError>>()?;
    let KeyringPlace {
        repo,
        domain,
        number,
    } = place;
    Ok(Keyring {
        repo,
        domain,
        number,
        config,
        bundles,
    })
}

/// Takes the keys for `identity` out of a keyring.
///
/// # Errors
/// [`KeyError::NoBundle`] where there are none.
pub fn open_keyring(keyring: &Keyring, identity: &Identity) -> Result<Roots, KeyError> {
    let slot = identity.public().slot_id();
    let bundle = keyring
        .bundles
        .iter()
        .find(|bundle| bundle.slot == slot)
        .ok_or(KeyError::NoBundle)?;
    let role = Role::try_from(bundle.role)?;
    let info = bundle_info(keyring.repo, keyring.domain, keyring.number, role, slot);
    let wrapped = Wrapped {
        encapsulated: bundle.encapsulated,
        sealed: bundle.sealed.clone(),
    };
    let plain = identity.unwrap(&info, &wrapped).ok_or(KeyError::NoBundle)?;
    Ok(decode_bundle(&plain)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::testing::{running_dry, seeded};

    fn slot(env: &Env, password: &[u8]) -> (Slot, Identity, Anchor) {
        let owner = Identity::generate(env).unwrap();
        let anchor = Anchor {
            repo: RepoId::new([1; 16]),
            owner: owner.public().sign,
        };
        let label = SlotLabel {
            role: Role::Owner,
            label: "a@b".to_owned(),
        };
        let slot = make_slot(
            env,
            &owner,
            label,
            &owner,
            anchor,
            password,
            KdfParams::DEFAULT,
        )
        .unwrap();
        (slot, owner, anchor)
    }

    #[test]
    fn a_slot_opens_with_its_password_only_and_after_a_change_with_the_new_one_only() {
        let env = seeded(1);
        let (slot, owner, anchor) = slot(&env, b"old");
        assert!(is_signed(&slot).unwrap());
        assert!(open_slot(&slot, b"wrong").unwrap().is_none());
        let opened = open_slot(&slot, b"old").unwrap().unwrap();
        assert_eq!(
            (opened.identity.public(), opened.anchor),
            (owner.public(), anchor)
        );
        let changed =
            with_password(&env, slot.clone(), &opened, b"new", KdfParams::DEFAULT).unwrap();
        assert_eq!(changed.identity, slot.identity);
        assert!(is_signed(&changed).unwrap());
        assert!(open_slot(&changed, b"old").unwrap().is_none());
        assert!(open_slot(&changed, b"new").unwrap().is_some());
    }

    #[test]
    fn cloned_machines_that_take_the_same_password_use_different_salts() {
        // The same generator, the same clock, the same password; the label differs.
        let owner = Identity::generate(&seeded(1)).unwrap();
        let anchor = Anchor {
            repo: RepoId::new([1; 16]),
            owner: owner.public().sign,
        };
        let salts = ["a@b", "a@c"].map(|label| {
            let label = SlotLabel {
                role: Role::Owner,
                label: label.to_owned(),
            };
            let (env, kdf) = (seeded(4), KdfParams::DEFAULT);
            let slot = make_slot(&env, &owner, label, &owner, anchor, b"pw", kdf);
            slot.unwrap().salt
        });
        assert_ne!(salts[0], salts[1]);
    }

    #[test]
    fn an_altered_slot_is_noticed_after_the_right_password() {
        let env = seeded(2);
        let (mut slot, ..) = slot(&env, b"pw");
        slot.identity.role = Role::Reader;
        assert!(!is_signed(&slot).unwrap());
        assert!(matches!(
            open_slot(&slot, b"pw"),
            Err(KeyError::SlotAltered)
        ));
    }

    #[test]
    fn every_recipient_and_nobody_else_opens_the_keyring() {
        let env = seeded(3);
        let people: Vec<_> = (0..3).map(|_| Identity::generate(&env).unwrap()).collect();
        let recipients = [
            (Role::Owner, people[0].public()),
            (Role::Reader, people[1].public()),
        ];
        let roots = fresh_roots(&env).unwrap();
        let place = KeyringPlace {
            repo: RepoId::new([1; 16]),
            domain: DomainId::new([2; 16]),
            number: 1,
        };
        let keyring = make_keyring(&env, place, vec![], &roots, &recipients).unwrap();
        for person in &people[..2] {
            let opened = open_keyring(&keyring, person).unwrap();
            assert_eq!(
                encode_bundle(&opened).unwrap(),
                encode_bundle(&roots).unwrap()
            );
        }
        assert!(matches!(
            open_keyring(&keyring, &people[2]),
            Err(KeyError::NoBundle)
        ));
        let moved = Keyring {
            number: 2,
            ..keyring
        };
        assert!(matches!(
            open_keyring(&moved, &people[0]),
            Err(KeyError::NoBundle)
        ));
    }

    #[test]
    fn a_slot_needs_randomness_and_a_password_that_costs_enough() {
        let owner = Identity::generate(&seeded(1)).unwrap();
        let anchor = Anchor {
            repo: RepoId::new([1; 16]),
            owner: owner.public().sign,
        };
        let make = |env: &Env, kdf| {
            let label = SlotLabel {
                role: Role::Owner,
                label: "a@b".to_owned(),
            };
            make_slot(env, &owner, label, &owner, anchor, b"pw", kdf).err()
        };
        let dry = make(&running_dry(0), KdfParams::DEFAULT);
        assert!(matches!(dry, Some(KeyError::Random(_))), "{dry:?}");
        let cheap = KdfParams {
            memory_kib: 1,
            ..KdfParams::DEFAULT
        };
        let cheap = make(&seeded(2), cheap);
        assert!(
            matches!(
                cheap,
                Some(KeyError::Decode(DecodeError::OutOfRange { .. }))
            ),
            "{cheap:?}"
        );
    }

    #[test]
    fn keys_are_not_wrapped_to_a_recipient_without_a_usable_key() {
        let env = seeded(3);
        let nobody = PublicIdentity {
            wrap: [0; 32],
            ..Identity::generate(&env).unwrap().public()
        };
        let roots = fresh_roots(&env).unwrap();
        let place = KeyringPlace {
            repo: RepoId::new([1; 16]),
            domain: DomainId::new([2; 16]),
            number: 1,
        };
        let made = make_keyring(&env, place, vec![], &roots, &[(Role::Reader, nobody)]);
        assert!(
            matches!(made, Err(KeyError::Wrap(WrapError::BadRecipient))),
            "{made:?}"
        );
    }
}
