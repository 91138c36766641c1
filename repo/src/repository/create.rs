//! Making a repository. The configuration is written last: until it is there, there is no
//! repository, and whatever an interrupted attempt left behind is removed by the next one.

use std::sync::{Arc, Mutex, RwLock};

use super::{OpenOptions, Repository, Secret};
use crate::{
    backend::{Backend, BackendErrorKind, ConfigCopy, ObjectKind, ObjectName, PutOutcome},
    crypto::{Identity, KdfParams, Roots, SealKind, seal_object},
    env::Env,
    error::{Error, Result},
    format::{
        DecodeError,
        config::{ConfigBody, ConfigHeader},
        frame::{self, FrameKind},
        log_body::{KeyList, SlotKeys},
        record::{self, Ext},
        slot::{Anchor, Role, Slot},
    },
    id::{DomainId, RepoId, SlotObjectId},
    index::Index,
    keys::{KeyringPlace, OpenedSlot, SlotLabel, fresh_roots, make_keyring, make_slot},
    log::Log,
};

/// How a repository is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// What the configuration says; `created` is filled in.
    pub config: ConfigBody,
    /// Label of the first slot, such as `user@host`.
    pub label: String,
    /// Cost of a password.
    pub kdf: KdfParams,
    /// Folders of the client.
    pub open: OpenOptions,
}

impl Repository {
    /// Sees whether [`Repository::create`] would find a place without a repository, before anybody
    /// is asked for a password.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::ConfigLost`], or the store's error.
    pub fn see_vacant(backend: &dyn Backend) -> Result<()> {
        see_vacant(backend).map(|_| ())
    }

    /// Makes a repository and its first owner.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] where there is one; a store that cannot be written to.
    pub fn create(
        backend: Arc<dyn Backend>,
        env: Env,
        secret: Secret,
        options: CreateOptions,
    ) -> Result<Self> {
        let CreateOptions {
            mut config,
            label,
            kdf,
            open,
        } = options;
        config.created = env.now();
        let unfinished = see_vacant(backend.as_ref())?;
        backend.create_layout()?;
        for name in unfinished {
            backend.delete(&name)?;
        }
        let roots = fresh_roots(&env)?;
        let (repo, domain) = (RepoId::new(env.random()?), DomainId::new(env.random()?));
        let config_inner = config_inner(&env, &roots, repo, domain, &config)?;
        let identity = match &secret {
            Secret::Password(_) => Identity::generate(&env)?,
            Secret::Opened(opened) => opened.identity.clone(),
        };
        let anchor = Anchor {
            repo,
            owner: identity.public().sign,
        };
        if let Secret::Password(password) = &secret {
            let label = SlotLabel {
                role: Role::Owner,
                label,
            };
            let slot = make_slot(&env, &identity, label, &identity, anchor, password, kdf)?;
            put_slot(backend.as_ref(), &slot)?;
        }
        let place = KeyringPlace {
            repo,
            domain,
            number: 1,
        };
        let keys = first_keys(
            &env,
            backend.as_ref(),
            place,
            &config_inner,
            &roots,
            &identity,
        )?;
        let (clone, signer) = (roots.clone(), identity.signer());
        let log = Log::create(Arc::clone(&backend), env.clone(), clone, signer, keys)?;
        put_config(backend.as_ref(), &config_inner)?;
        let this = Self {
            backend,
            env,
            repo,
            domain,
            config,
            config_inner,
            roots: Arc::new(roots),
            me: OpenedSlot { identity, anchor },
            log: Mutex::new(log),
            index: RwLock::new(Arc::new(Index::default())),
            lost_indexes: Mutex::default(),
            options: open,
            #[cfg(any(test, feature = "testing"))]
            mutant: None,
        };
        this.remember();
        Ok(this)
    }
}

/// Stores the first keyring and says what the log is to say of it.
fn first_keys(
    env: &Env,
    backend: &dyn Backend,
    place: KeyringPlace,
    config_inner: &[u8],
    roots: &Roots,
    identity: &Identity,
) -> Result<KeyList> {
    let recipients = [(Role::Owner, identity.public())];
    let hash = put_keyring(env, backend, place, config_inner, roots, &recipients)?;
    Ok(KeyList {
        repo: place.repo,
        domain: place.domain,
        keyring: place.number,
        keyring_hash: hash.ok_or_else(|| exists(backend))?,
        slots: vec![slot_keys(Role::Owner, identity)],
    })
}

fn exists(backend: &dyn Backend) -> Error {
    Error::AlreadyExists {
        location: backend.location(),
    }
}

/// Sees that there is no repository, nor the rest of one that was in use; returns what an
/// interrupted `create` left: without a configuration nothing of it was ever usable.
fn see_vacant(backend: &dyn Backend) -> Result<Vec<ObjectName>> {
    if super::open::read_config(backend)?.is_some() {
        return Err(Error::AlreadyExists {
            location: backend.location(),
        });
    }
    let mut leftovers = Vec::new();
    let mut in_use = false;
    for kind in ObjectKind::ALL {
        let listed = backend.list(kind, &mut |name, _| match name {
            ObjectName::Key(_) | ObjectName::Keyring(1) | ObjectName::Log(1) => {
                leftovers.push(name);
            }
            ObjectName::Hint(_) => {}
            _ => in_use = true,
        });
        match listed {
            // A place where nothing was ever made has no folders.
            Err(error) if error.kind == BackendErrorKind::Unavailable => {}
            listed => listed?,
        }
    }
    if in_use {
        return Err(Error::ConfigLost {
            location: backend.location(),
        });
    }
    Ok(leftovers)
}

fn config_inner(
    env: &Env,
    roots: &Roots,
    repo: RepoId,
    domain: DomainId,
    config: &ConfigBody,
) -> Result<Vec<u8>> {
    let plain = record::encode(config, &Ext::default(), "configuration")?;
    let root = roots
        .meta_epochs()
        .last()
        .ok_or(DecodeError::Malformed { what: "key bundle" })?;
    let salt = env.salt(blake3::hash(&plain).as_bytes())?;
    let sealed_body = seal_object(root, domain, SealKind::Config, salt, &plain)?;
    Ok(ConfigHeader {
        repo,
        domain,
        mandatory: 0,
        optional: 0,
        sealed_body,
    }
    .encode()?)
}

fn put_config(backend: &dyn Backend, inner: &[u8]) -> Result<()> {
    let object = frame::encode(FrameKind::Config, inner, &[])?;
    for kind in [ObjectKind::Key, ObjectKind::Keyring, ObjectKind::Log] {
        backend.barrier(kind)?;
    }
    for copy in [ConfigCopy::Second, ConfigCopy::First] {
        let name = ObjectName::Config(copy);
        if backend.put_if_absent(&name, &[&object])? != PutOutcome::Created
            && backend.read_all(&name, u64::MAX)? != object
        {
            return Err(exists(backend));
        }
    }
    backend.barrier(ObjectKind::Config)?;
    Ok(())
}

/// Reads an object of which the store does not say whether it was stored.
///
/// # Errors
/// [`Error::NotStored`] where it is not there, or the store's own.
pub(super) fn read_back(backend: &dyn Backend, name: &ObjectName) -> Result<Vec<u8>> {
    match backend.read_all(name, u64::MAX) {
        Err(error) if error.is_not_found() => Err(Error::NotStored { object: *name }),
        result => Ok(result?),
    }
}

/// Stores a slot under the hash of its bytes.
pub(super) fn put_slot(backend: &dyn Backend, slot: &Slot) -> Result<SlotObjectId> {
    let inner = slot.encode()?;
    let id = SlotObjectId::new(blake3::hash(&inner).into());
    let name = ObjectName::Key(id);
    let object = frame::encode(FrameKind::Slot, &inner, &[])?;
    if backend.put_if_absent(&name, &[&object])? == PutOutcome::Unknown
        && read_back(backend, &name)? != object
    {
        return Err(Error::NotStored { object: name });
    }
    backend.barrier(ObjectKind::Key)?;
    Ok(id)
}

/// Stores a keyring; its hash, or `None` where the number is taken.
pub(super) fn put_keyring(
    env: &Env,
    backend: &dyn Backend,
    place: KeyringPlace,
    config_inner: &[u8],
    roots: &Roots,
    recipients: &[(Role, crate::crypto::PublicIdentity)],
) -> Result<Option<crate::id::Hash>> {
    let keyring = make_keyring(env, place, config_inner.to_vec(), roots, recipients)?;
    let inner = keyring.encode()?;
    let object = frame::encode(FrameKind::Keyring, &inner, &[])?;
    let name = ObjectName::Keyring(place.number);
    let ours = match backend.put_if_absent(&name, &[&object])? {
        PutOutcome::Created => true,
        PutOutcome::Exists => false,
        PutOutcome::Unknown => read_back(backend, &name)? == object,
    };
    backend.barrier(ObjectKind::Keyring)?;
    Ok(ours.then(|| blake3::hash(&inner).into()))
}

/// A slot's line in the log's key list.
pub(super) fn slot_keys(role: Role, identity: &Identity) -> SlotKeys {
    let public = identity.public();
    SlotKeys {
        slot: public.slot_id(),
        role: role as u8,
        x25519: public.wrap,
        ed25519: public.sign,
    }
}
