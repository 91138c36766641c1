//! Opening a repository: configuration, slot, log, keyring, index, in this order, each checked
//! against what came before (docs/format-v1.md, "Opening").

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::{OpenOptions, Repository, Secret};
use crate::{
    backend::{Backend, ConfigCopy, ObjectKind, ObjectName},
    crypto::{Roots, SealKind, open_object},
    env::Env,
    error::{Error, Result},
    format::{
        DecodeError,
        config::{ConfigBody, ConfigHeader},
        frame::{self, FrameKind},
        index::IndexBody,
        keyring::Keyring,
        record,
        slot::Slot,
    },
    id::{IndexId, RepoId, SlotObjectId},
    index::{Index, IndexCache},
    keys::{OpenedSlot, open_keyring, open_slot},
    limits::{MAX_KEYRING_LEN, MAX_META_LEN, MAX_SLOT_LEN, MAX_SLOTS_TRIED},
    log::{
        Anchor, LogHeads, Memory, PartReader, seen,
        state::{Place, State},
    },
};

impl Repository {
    /// Opens a repository.
    ///
    /// # Errors
    /// [`Error::NoRepository`], [`Error::ConfigLost`], [`Error::WrongPassword`], a damaged or
    /// newer repository, or a log that does not extend what this client remembers.
    pub fn open(
        backend: Arc<dyn Backend>,
        env: Env,
        secret: Secret,
        options: OpenOptions,
    ) -> Result<Self> {
        let config_inner =
            read_config(backend.as_ref())?.ok_or_else(|| without_config(backend.as_ref()))?;
        let header = ConfigHeader::decode(&config_inner)
            .map_err(damaged(ObjectName::Config(ConfigCopy::First)))?;
        let me = match secret {
            Secret::Opened(opened) => *opened,
            Secret::Password(password) => {
                let hint = options.key_hint.as_deref();
                find_slot(backend.as_ref(), header.repo, &password, hint)?
            }
        };
        if me.anchor.repo != header.repo {
            return Err(foreign(backend.as_ref()));
        }
        let anchor = Anchor {
            repo: header.repo,
            domain: header.domain,
            owner: me.anchor.owner,
        };
        let memory = match &options.state_dir {
            Some(folder) if !options.allow_rollback => Memory::load(folder, header.repo)?,
            _ => None,
        };
        let cached = options
            .cache_dir
            .as_deref()
            .and_then(|dir| seen::load_state(dir, header.repo));
        let heads = LogHeads::open(Arc::clone(&backend), anchor, cached, memory.as_ref())?;
        let keyring = read_keyring(backend.as_ref(), heads.keys()?)?;
        if keyring.config != config_inner {
            // The plain part of the configuration is signed for by the log, through the keyring.
            return Err(Error::WrongContent {
                object: ObjectName::Config(ConfigCopy::First),
            });
        }
        let roots = open_keyring(&keyring, &me.identity)?;
        let log = heads.unlock(roots.clone(), env.clone(), Some(me.identity.signer()))?;
        let config = read_config_body(&roots, &header, log.state())?;
        let this = Self {
            backend,
            env,
            repo: header.repo,
            domain: header.domain,
            config,
            config_inner,
            roots: Arc::new(roots),
            me,
            log: Mutex::new(log),
            index: RwLock::new(Arc::new(Index::default())),
            lost_indexes: Mutex::default(),
            options,
            #[cfg(any(test, feature = "testing"))]
            mutant: None,
        };
        this.load_index()?;
        this.remember();
        Ok(this)
    }

    /// Brings the index up to what the log says. An index object that is damaged or lost is noted
    /// and left out: what only it knew of is missing then, and nothing else is.
    pub(super) fn load_index(&self) -> Result<()> {
        let mut lost: BTreeMap<IndexId, Error> = BTreeMap::new();
        let mut refreshed = false;
        loop {
            let (live, swept) = {
                let log = self.log();
                let state = log.state();
                (state.indexes.clone(), state.swept.iter().copied().collect())
            };
            lost.retain(|id, _| live.contains_key(id));
            let wanted = live
                .keys()
                .filter(|id| !lost.contains_key(id))
                .copied()
                .collect();
            let mut failed = None;
            let mut load = |id| {
                let place = live.get(&id).copied().unwrap_or(Place::Own);
                self.read_index(id, place)
                    .inspect_err(|_| failed = Some(id))
            };
            let dir = self.options.cache_dir.as_deref();
            match IndexCache::open(dir, self.repo, &wanted, &swept, &mut load) {
                Ok(index) => {
                    self.set_index(index, lost);
                    return Ok(());
                }
                Err(error) if !error.is_damage() => return Err(error),
                // Somebody's prune may have replaced it meanwhile: then the log says so.
                Err(_) if !refreshed => {
                    self.log().refresh()?;
                    refreshed = true;
                }
                Err(error) => {
                    let Some(id) = failed else { return Err(error) };
                    let object = ObjectName::Index(id);
                    tracing::warn!(%error, %object, "an index cannot be used: run `check`");
                    lost.insert(id, error);
                }
            }
        }
    }

    /// Fails where an index object is damaged or lost: for what may delete only with full
    /// knowledge.
    pub(crate) fn demand_whole_index(&self) -> Result<()> {
        let lost = self
            .lost_indexes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match lost.keys().next() {
            None => Ok(()),
            Some(id) => Err(Error::IndexLost {
                object: ObjectName::Index(*id),
                count: lost.len(),
            }),
        }
    }

    /// Reads and checks an index object, wherever it stands.
    pub(super) fn read_index(&self, id: IndexId, place: Place) -> Result<IndexBody> {
        let name = ObjectName::Index(id);
        let object = match place {
            Place::Own => self.backend.read_all(&name, u64::from(MAX_META_LEN) * 2)?,
            Place::Inline(seq) => self.read_part(seq, id.as_bytes())?,
        };
        if blake3::hash(&object) != *id.as_bytes() {
            return Err(Error::WrongContent { object: name });
        }
        let plain =
            open_object(&self.roots, self.domain, SealKind::Index, &object).map_err(|source| {
                Error::SealedObject {
                    object: name,
                    source,
                }
            })?;
        IndexBody::decode(&plain).map_err(damaged(name))
    }

    /// An inline part of a log entry. Goes around the log, which an append may hold now.
    pub(super) fn read_part(&self, seq: u64, hash: &[u8; 32]) -> Result<Vec<u8>> {
        Ok(PartReader::new(Arc::clone(&self.backend)).read(seq, hash)?)
    }
}

/// The inner bytes of the configuration, from the first copy that is usable; `None` where there
/// is none at all.
pub(super) fn read_config(backend: &dyn Backend) -> Result<Option<Vec<u8>>> {
    let mut damage = None;
    for copy in [ConfigCopy::First, ConfigCopy::Second] {
        let name = ObjectName::Config(copy);
        let object = match backend.read_all(&name, u64::from(MAX_META_LEN) * 3) {
            Ok(object) => object,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        match frame::decode(FrameKind::Config, &object) {
            Ok(framed) => return Ok(Some(framed.inner.to_vec())),
            Err(source) => damage = damage.or(Some(Error::damaged(name, source))),
        }
    }
    damage.map_or(Ok(None), Err)
}

/// Why there is no configuration: there is no repository, or a repository lost it.
fn without_config(backend: &dyn Backend) -> Error {
    let mut in_use = false;
    for kind in [ObjectKind::Log, ObjectKind::Index, ObjectKind::Pack] {
        // What cannot be listed is as good as not there; an interrupted `create` leaves entry 1.
        let _ = backend.list(kind, &mut |name, _| in_use |= name != ObjectName::Log(1));
    }
    let location = backend.location();
    if in_use {
        Error::ConfigLost { location }
    } else {
        Error::NoRepository { location }
    }
}

/// The body of the configuration: as it was made, or as the log changed it.
fn read_config_body(roots: &Roots, header: &ConfigHeader, state: &State) -> Result<ConfigBody> {
    let object = ObjectName::Config(ConfigCopy::First);
    let body = match &state.config {
        Some((_, body)) => body.clone(),
        None => open_object(roots, header.domain, SealKind::Config, &header.sealed_body)
            .map_err(|source| Error::SealedObject { object, source })?,
    };
    let (config, _) =
        record::decode::<ConfigBody>(&body, "configuration").map_err(damaged(object))?;
    Ok(config)
}

/// All slots that can be read, by the name of their object.
pub(super) fn read_slots(backend: &dyn Backend) -> Result<BTreeMap<SlotObjectId, Result<Slot>>> {
    let mut names = Vec::new();
    backend.list(ObjectKind::Key, &mut |name, _| names.push(name))?;
    let mut slots = BTreeMap::new();
    for name in names {
        let ObjectName::Key(id) = name else { continue };
        slots.insert(id, read_slot(backend, &name));
    }
    Ok(slots)
}

fn read_slot(backend: &dyn Backend, name: &ObjectName) -> Result<Slot> {
    let bad = damaged(*name);
    let object = backend.read_all(name, u64::from(MAX_SLOT_LEN) * 4)?;
    let framed = frame::decode(FrameKind::Slot, &object).map_err(&bad)?;
    let ObjectName::Key(id) = name else {
        return Err(Error::WrongContent { object: *name });
    };
    if blake3::hash(framed.inner) != *id.as_bytes() {
        return Err(Error::WrongContent { object: *name });
    }
    Slot::decode(framed.inner).map_err(&bad)
}

fn foreign(backend: &dyn Backend) -> Error {
    Error::ForeignSlot {
        location: backend.location(),
    }
}

/// The slot of this repository that the password opens; a hinted one is tried first.
fn find_slot(
    backend: &dyn Backend,
    repo: RepoId,
    password: &[u8],
    hint: Option<&str>,
) -> Result<OpenedSlot> {
    let mut slots: Vec<_> = read_slots(backend)?.into_iter().collect();
    if slots.is_empty() {
        let location = backend.location();
        return Err(Error::NoKeys { location });
    }
    if let Some(hint) = hint {
        slots.sort_by_key(|(_, slot)| {
            !slot
                .as_ref()
                .is_ok_and(|slot| slot.identity.public.slot_id().to_hex().starts_with(hint))
        });
    }
    let left = slots.len().saturating_sub(MAX_SLOTS_TRIED);
    let (mut tried, mut damage) = (0, None);
    for (_, slot) in slots.into_iter().take(MAX_SLOTS_TRIED) {
        tried += 1;
        match slot.and_then(|slot| Ok(open_slot(&slot, password)?)) {
            Ok(Some(opened)) if opened.anchor.repo == repo => return Ok(opened),
            // Of another repository with the same password: the right one may come yet.
            Ok(Some(_)) => damage = damage.or_else(|| Some(foreign(backend))),
            Ok(None) => {}
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    Err(damage.unwrap_or(Error::WrongPassword { tried, left }))
}

/// The keyring that the log names.
fn read_keyring(backend: &dyn Backend, keys: &crate::log::state::KeyState) -> Result<Keyring> {
    let name = ObjectName::Keyring(keys.keyring);
    let bad = damaged(name);
    let object = backend.read_all(&name, u64::from(MAX_KEYRING_LEN) * 4)?;
    let framed = frame::decode(FrameKind::Keyring, &object).map_err(&bad)?;
    if !keys.names_keyring(framed.inner) {
        return Err(Error::WrongContent { object: name });
    }
    let keyring = Keyring::decode(framed.inner).map_err(&bad)?;
    if keyring.repo != keys.repo || keyring.domain != keys.domain || keyring.number != keys.keyring
    {
        return Err(Error::WrongContent { object: name });
    }
    Ok(keyring)
}

/// Says that an object is damaged, or newer than this program.
fn damaged(object: ObjectName) -> impl Fn(DecodeError) -> Error {
    move |source| Error::damaged(object, source)
}
