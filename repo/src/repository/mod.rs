//! Where backend, keys, configuration, log and index meet. [`Repository::create`] and
//! [`Repository::open`] make one; `read` gives blobs and records back; `commit` is how snapshots
//! and indexes come to exist; `access` changes who may open it. What a snapshot's record says is
//! not known here.

mod access;
mod commit;
mod create;
mod open;
mod parts;
mod read;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

pub use access::{KeyInfo, NewKey};
pub use commit::NewSnapshot;
pub use create::CreateOptions;
pub use read::{BlobReader, Take, Wanted};

use crate::{
    backend::{Backend, ObjectKind},
    crypto::{BlobKind, Roots},
    env::Env,
    error::{Error, Result},
    format::{config::ConfigBody, log::EntryKind},
    id::{BlobId, DomainId, IndexId, RepoId, SnapshotId},
    index::Index,
    keys::OpenedSlot,
    log::{
        Log, LogError,
        state::{SnapshotState, State},
    },
    mutant::Mutant,
    prune::hint::SignOfLife,
    writer::{Writer, WriterOptions, WriterParts},
};

/// An open repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    env: Env,
    repo: RepoId,
    domain: DomainId,
    config: ConfigBody,
    config_inner: Vec<u8>,
    roots: Arc<Roots>,
    me: OpenedSlot,
    log: Mutex<Log>,
    index: RwLock<Arc<Index>>,
    /// Live index objects that cannot be used, and why.
    lost_indexes: Mutex<BTreeMap<IndexId, Error>>,
    options: OpenOptions,
    #[cfg(any(test, feature = "testing"))]
    pub(crate) mutant: Option<Mutant>,
}

/// What opens a repository.
pub enum Secret {
    /// A password; one key derivation for every slot that is tried.
    Password(Vec<u8>),
    /// A slot that was opened before.
    Opened(Box<OpenedSlot>),
}

/// How a repository is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Folder for what this client remembers of repositories; without it rollbacks go unnoticed.
    pub state_dir: Option<PathBuf>,
    /// Folder for what can be computed again; without it everything is.
    pub cache_dir: Option<PathBuf>,
    /// Goes on although the log does not extend what this client remembers.
    pub allow_rollback: bool,
    /// Hex prefix of the slot to try first.
    pub key_hint: Option<String>,
}

impl Repository {
    /// The identity of the repository.
    #[must_use]
    pub const fn id(&self) -> RepoId {
        self.repo
    }

    /// Where it is, for messages.
    #[must_use]
    pub fn location(&self) -> String {
        self.backend.location()
    }

    /// How it is written.
    #[must_use]
    pub const fn config(&self) -> &ConfigBody {
        &self.config
    }

    /// The key of the chunker.
    #[must_use]
    pub fn chunker_key(&self) -> &[u8; 32] {
        self.roots.chunker_key().expose()
    }

    /// The id that plain bytes have as a blob of this kind, by which content read elsewhere is
    /// compared with what is stored.
    #[must_use]
    pub fn blob_id(&self, kind: BlobKind, plain: &[u8]) -> BlobId {
        self.roots.blob_id(kind, plain)
    }

    /// The store.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Time and randomness.
    #[must_use]
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// Where blobs are, as of the last [`Repository::refresh`] or commit.
    #[must_use]
    pub fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of what the log says, as of the last [`Repository::refresh`] or commit.
    #[must_use]
    pub fn state(&self) -> State {
        self.log().state().clone()
    }

    /// The live snapshots, with what the log says of each.
    #[must_use]
    pub fn snapshots(&self) -> BTreeMap<SnapshotId, SnapshotState> {
        self.log().state().snapshots.clone()
    }

    /// Sees that whoever opened the repository may append entries of a kind: better before the work
    /// that they are about than after it.
    ///
    /// # Errors
    /// [`LogError::NotLive`] or [`LogError::NotAllowed`].
    pub fn require(&self, kind: EntryKind) -> Result<()> {
        let me = self.slot_id();
        let role = self.lock_log().state().keys.role(&me);
        let role = role.ok_or(LogError::NotLive(me))?;
        if !role.may_write(kind) {
            return Err(LogError::NotAllowed { role, kind }.into());
        }
        Ok(())
    }

    /// Whether whoever opened the repository may append entries of a kind.
    #[must_use]
    pub fn may_append(&self, kind: EntryKind) -> bool {
        self.require(kind).is_ok()
    }

    /// Reads what others have appended, and the indexes that came with it.
    ///
    /// # Errors
    /// The log or an index cannot be read.
    pub fn refresh(&self) -> Result<()> {
        self.log().refresh()?;
        self.load_index()
    }

    /// A writer that deduplicates against the index as it is now. Only one run's blobs go through
    /// it; [`Repository::commit`] ends it.
    #[must_use]
    pub fn writer(&self, options: WriterOptions) -> Writer {
        let label = self.me.identity.public().slot_id().short();
        let sign_of_life = (!options.dry_run)
            .then(|| {
                let label = format!("key {label}");
                SignOfLife::show(&self.backend, &self.env, label, self.tail())
            })
            .flatten();
        let parts = WriterParts {
            backend: Arc::clone(&self.backend),
            env: self.env.clone(),
            roots: Arc::clone(&self.roots),
            domain: self.domain,
            index: self.index(),
            damaged: self.log().state().bad.packs().into_iter().collect(),
            sign_of_life,
            relies_on_bases: !self.is(Mutant::BasesUnrelied),
        };
        Writer::new(parts, options)
    }

    /// Whether a rule is broken on purpose.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    #[cfg(not(any(test, feature = "testing")))]
    #[expect(clippy::unused_self, reason = "the test build asks the repository")]
    pub(crate) const fn is(&self, _: Mutant) -> bool {
        false
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_index(&self, index: Index, lost: BTreeMap<IndexId, Error>) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
        *self
            .lost_indexes
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = lost;
    }

    /// Remembers how far the log was seen. A failure is told to the trace only: the repository
    /// itself is well.
    ///
    /// Only what lasts is remembered: an entry of somebody else's that a power cut takes away
    /// would look like a rollback ever after. Where it cannot be made to last, that is the entry
    /// before the newest, which its successor's writer has seen to.
    fn remember(&self) {
        let log = self.log();
        let run = self.env.run();
        if let Some(folder) = &self.options.state_dir {
            let memory = match self.backend.barrier(ObjectKind::Log) {
                Ok(()) => Some(log.memory()),
                Err(error) => {
                    tracing::debug!(%error, "the newest entry is not remembered");
                    log.memory_before()
                }
            };
            let forget = self.options.allow_rollback;
            let saved = memory.map_or(Ok(()), |memory| memory.save(folder, run, forget));
            if let Err(error) = saved {
                tracing::warn!(%error, "what was seen of the repository could not be remembered");
            }
        }
        if let Some(folder) = &self.options.cache_dir
            && let Err(error) = crate::log::seen::save_state(folder, run, log.state())
        {
            tracing::debug!(%error, "the state of the log could not be cached");
        }
    }

    fn swept(&self) -> HashSet<crate::id::PackId> {
        self.log().state().swept.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests;
