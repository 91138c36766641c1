//! Who may open the repository: listing, adding and removing keys, changing a password. Every
//! change of who is live is one log entry (`KeyChange`) that names a new keyring.

use std::collections::BTreeMap;

use super::{
    Repository,
    create::{put_keyring, put_slot, slot_keys},
    open::read_slots,
};
use crate::{
    backend::{ObjectKind, ObjectName},
    crypto::{Identity, KdfParams, PublicIdentity},
    env::Timestamp,
    error::{Error, Result},
    format::{
        log::EntryKind,
        log_body::{Body, KeyList, SlotKeys},
        slot::{Role, Slot},
    },
    id::{SlotId, SlotObjectId},
    keys::{KeyringPlace, SlotLabel, is_signed, make_slot, with_password},
    log::{AppendError, Draft, LogError, state::State},
};

/// A key as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Whose it is.
    pub slot: SlotId,
    /// The object that holds it.
    pub object: SlotObjectId,
    /// For people.
    pub label: String,
    /// What the holder may do.
    pub role: Role,
    /// When it was made.
    pub created: Timestamp,
    /// Whether this run opened the repository with it.
    pub current: bool,
    /// Whether the log lists it: one that is not opens nothing.
    pub live: bool,
}

/// Shown in place of a label that no owner has signed.
const UNSIGNED: &str = "(not signed by an owner)";

/// A key about to be.
#[derive(Clone, Debug)]
pub struct NewKey<'a> {
    /// For people, such as `user@host`.
    pub label: String,
    /// What the holder may do.
    pub role: Role,
    /// The password.
    pub password: &'a [u8],
    /// Its cost.
    pub kdf: KdfParams,
}

/// Whether an entry may be in the log although appending it failed.
const fn may_have_happened(error: &Error) -> bool {
    matches!(
        error,
        Error::Log(LogError::Uncertain { .. } | LogError::Faithless { .. })
    )
}

impl Repository {
    /// All keys whose slot can be read.
    ///
    /// # Errors
    /// The store failed.
    pub fn keys(&self) -> Result<Vec<KeyInfo>> {
        let live = self.log().state().keys.slots.clone();
        let mine = self.me.identity.public().slot_id();
        let mut keys = Vec::new();
        for (object, slot) in read_slots(self.backend.as_ref())? {
            let slot = match slot {
                Ok(slot) => slot,
                // The others can still be listed and removed.
                Err(error) if error.is_damage() => {
                    let object = ObjectName::Key(object);
                    tracing::warn!(%error, %object, "a key cannot be read: run `check`");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let label = if self.is_vouched_for(&slot, &live)? {
                slot.identity.label.clone()
            } else {
                UNSIGNED.to_owned()
            };
            let id = slot.identity.public.slot_id();
            let listed = live
                .get(&id)
                .map(|keys| Role::try_from(keys.role))
                .transpose()?;
            keys.push(KeyInfo {
                slot: id,
                object,
                label,
                role: listed.unwrap_or(slot.identity.role),
                created: slot.identity.created,
                current: id == mine,
                live: listed.is_some(),
            });
        }
        keys.sort_by_key(|key| (key.created, key.object));
        Ok(keys)
    }

    /// Whether an owner signed what the slot says of itself.
    fn is_vouched_for(&self, slot: &Slot, live: &BTreeMap<SlotId, SlotKeys>) -> Result<bool> {
        let is_owner =
            |keys: &SlotKeys| keys.role == Role::Owner as u8 && keys.ed25519 == slot.signer;
        let by_owner = slot.signer == self.me.anchor.owner || live.values().any(is_owner);
        Ok(by_owner && is_signed(slot)?)
    }

    /// Adds a key with an identity of its own.
    ///
    /// # Errors
    /// This client is no owner, or the store or the log failed.
    pub fn add_key(&self, new: NewKey<'_>) -> Result<SlotId> {
        let identity = Identity::generate(&self.env)?;
        let me = &self.me;
        let label = SlotLabel {
            role: new.role,
            label: new.label,
        };
        let slot = make_slot(
            &self.env,
            &identity,
            label,
            &me.identity,
            me.anchor,
            new.password,
            new.kdf,
        )?;
        // The slot first: a live key without a slot could never be used.
        let object = put_slot(self.backend.as_ref(), &slot)?;
        let id = identity.public().slot_id();
        let added = self.change_keys(&mut |slots| {
            slots.push(slot_keys(new.role, &identity));
            Ok(())
        });
        if let Err(error) = added {
            if !may_have_happened(&error)
                && let Err(error) = self.backend.delete(&ObjectName::Key(object))
            {
                tracing::debug!(%error, "a slot that opens nothing could not be removed");
            }
            return Err(error);
        }
        Ok(id)
    }

    /// Makes an identity live without a password and so without a slot, for tests that are not
    /// about passwords.
    ///
    /// # Errors
    /// As [`Repository::add_key`].
    #[cfg(any(test, feature = "testing"))]
    #[doc(hidden)]
    pub fn add_identity(&self, role: Role, identity: &Identity) -> Result<SlotId> {
        let id = identity.public().slot_id();
        self.change_keys(&mut |slots| {
            slots.retain(|keys| keys.slot != id);
            slots.push(slot_keys(role, identity));
            Ok(())
        })?;
        Ok(id)
    }

    /// Removes a key; it opens nothing from then on. The keys of the repository stay the same: a
    /// holder who kept them can read what is stored later, too.
    ///
    /// # Errors
    /// [`Error::NoKey`], [`Error::OwnKey`], or this client is no owner.
    pub fn remove_key(&self, slot: SlotId) -> Result<()> {
        if slot == self.me.identity.public().slot_id() {
            return Err(Error::OwnKey { slot });
        }
        let objects: Vec<_> = self
            .keys()?
            .into_iter()
            .filter(|key| key.slot == slot)
            .map(|key| key.object)
            .collect();
        if self.log().state().keys.slots.contains_key(&slot) {
            self.change_keys(&mut |slots| {
                // An owner stays: the one who signs this.
                slots.retain(|keys| keys.slot != slot);
                Ok(())
            })?;
        } else if objects.is_empty() {
            return Err(Error::NoKey { slot });
        }
        for object in objects {
            self.backend.delete(&ObjectName::Key(object))?;
        }
        self.backend.barrier(ObjectKind::Key)?;
        Ok(())
    }

    /// Changes the password of the key that this run was opened with.
    ///
    /// # Errors
    /// [`Error::NoKey`] where its slot is gone, or the store failed.
    pub fn change_password(&self, password: &[u8], kdf: KdfParams) -> Result<()> {
        let mine = self.me.identity.public().slot_id();
        let mut old = Vec::new();
        let mut current = None;
        for (object, slot) in read_slots(self.backend.as_ref())? {
            if let Ok(slot) = slot
                && slot.identity.public.slot_id() == mine
            {
                old.push(object);
                current = Some(slot);
            }
        }
        let current = current.ok_or(Error::NoKey { slot: mine })?;
        let changed = with_password(&self.env, current, &self.me, password, kdf)?;
        put_slot(self.backend.as_ref(), &changed)?;
        for object in old {
            self.backend.delete(&ObjectName::Key(object))?;
        }
        self.backend.barrier(ObjectKind::Key)?;
        Ok(())
    }

    /// Writes a keyring for the slots as `change` leaves them, and appends the key change.
    fn change_keys(&self, change: &mut dyn FnMut(&mut Vec<SlotKeys>) -> Result<()>) -> Result<()> {
        let mut log = self.log();
        let appended = log.append(EntryKind::KeyChange, &mut |state: &State| {
            let mut slots: Vec<SlotKeys> = state.keys.slots.values().cloned().collect();
            change(&mut slots)?;
            let (keyring, keyring_hash) = self.new_keyring(state.keys.keyring, &slots)?;
            let (repo, domain) = (self.repo, self.domain);
            let list = KeyList {
                repo,
                domain,
                keyring,
                keyring_hash,
                slots,
            };
            Ok::<_, Error>(Draft::from(Body::KeyChange(list)))
        });
        match appended {
            Ok(_) => Ok(()),
            Err(AppendError::Refused(error)) => Err(error),
            Err(AppendError::Log(error)) => Err(error.into()),
        }
    }

    /// Stores a keyring under the next free number above `last`.
    fn new_keyring(&self, last: u64, slots: &[SlotKeys]) -> Result<(u64, crate::id::Hash)> {
        let recipients = slots
            .iter()
            .map(|keys| {
                let public = PublicIdentity {
                    wrap: keys.x25519,
                    sign: keys.ed25519,
                };
                Ok((Role::try_from(keys.role)?, public))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut number = last;
        loop {
            number += 1;
            let place = KeyringPlace {
                repo: self.repo,
                domain: self.domain,
                number,
            };
            let stored = put_keyring(
                &self.env,
                self.backend.as_ref(),
                place,
                &self.config_inner,
                &self.roots,
                &recipients,
            )?;
            if let Some(hash) = stored {
                return Ok((number, hash));
            }
        }
    }
}
