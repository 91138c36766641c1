//! Storing blobs: known? encode, seal, pack, verify, upload, durable, index. [`Writer`] is shared
//! by all workers of a backup; each worker brings its own [`WorkBench`].
//!
//! Two data packs and one metadata pack are open at a time; blobs are spread over the data packs
//! at random, so that a pack's length says nothing of a chunk. Memory held in packs is bounded:
//! see [`WriterOptions::in_flight`]. After an error the writer answers only that it is broken: what
//! a checkpoint has indexed by then is durable, nothing names the rest (invariant I1).

mod delta;
mod open_pack;
mod options;
mod upload;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use delta::Proof;
pub use delta::{Common, DeltaMode};
use open_pack::PackSlots;
pub use options::WriterOptions;
use upload::Uploads;

use crate::{
    backend::{Backend, ObjectName},
    base::BaseReader,
    codec::{Encoder, Hint},
    crypto::{BlobKind, Roots},
    env::Env,
    error::{Error, Result},
    format::index::PackGroup,
    id::{BlobId, DomainId, PackId},
    index::{Found, Index, IndexError},
    pack::Scratch,
    prune::hint::SignOfLife,
};

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: BlobId,
    /// Bytes that it takes in a pack; `None` where it was known before.
    pub added: Option<u32>,
    /// Where the same bytes lie in it and in the blob that it was compared with.
    pub common: Option<Common>,
}

/// What a worker needs for itself: codec contexts and buffers.
pub struct WorkBench {
    encoder: Encoder,
    scratch: Scratch,
    sealed: Vec<u8>,
    bases: BaseReader,
    /// What the last blob and its base have in common.
    common: Option<Common>,
}

/// Says which blob of the repository a new one probably differs little from.
pub type Ancestor<'a> = &'a dyn Fn() -> Option<BlobId>;

/// What a writer has stored so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// New data blobs.
    pub data_blobs: u64,
    /// New metadata blobs.
    pub tree_blobs: u64,
    /// New data blobs that are stored as deltas.
    pub deltas: u64,
    /// Plain bytes of new blobs.
    pub plain_bytes: u64,
    /// Sealed bytes of new blobs.
    pub stored_bytes: u64,
    /// Packs that are durable.
    pub packs: u64,
}

/// Stores blobs.
pub struct Writer {
    shared: Arc<Shared>,
    uploads: Uploads,
    /// Goes when the writer goes, whatever became of the run.
    sign_of_life: Option<SignOfLife>,
}

/// What the workers and the upload threads share.
struct Shared {
    backend: Arc<dyn Backend>,
    env: Env,
    roots: Arc<Roots>,
    domain: DomainId,
    index: Arc<Index>,
    options: WriterOptions,
    seen: [Mutex<HashSet<BlobId>>; SEEN_SHARDS],
    relied: Mutex<HashSet<PackId>>,
    /// Packs of the repository on which nothing can rest: lost, cut off, or recorded as damaged.
    lost: Mutex<HashSet<PackId>>,
    has_damage: bool,
    relies_on_bases: bool,
    slots: PackSlots,
    stats: Counters,
    broken: AtomicBool,
    failure: Mutex<Option<Error>>,
}

const SEEN_SHARDS: usize = 16;

#[derive(Default)]
struct Counters {
    data_blobs: AtomicU64,
    tree_blobs: AtomicU64,
    deltas: AtomicU64,
    plain_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    packs: AtomicU64,
}

/// What a writer works with.
pub(crate) struct WriterParts {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) env: Env,
    pub(crate) roots: Arc<Roots>,
    pub(crate) domain: DomainId,
    pub(crate) index: Arc<Index>,
    /// Packs of which the log says that copies in them are bad.
    pub(crate) damaged: HashSet<PackId>,
    pub(crate) sign_of_life: Option<SignOfLife>,
    /// Whether a run relies on the bases of deltas: always, but in a test of what else would
    /// happen.
    pub(crate) relies_on_bases: bool,
}

impl Writer {
    /// A writer that deduplicates against `parts.index`.
    pub(crate) fn new(parts: WriterParts, options: WriterOptions) -> Self {
        let WriterParts {
            backend,
            env,
            roots,
            domain,
            index,
            damaged,
            sign_of_life,
            relies_on_bases,
        } = parts;
        let shared = Arc::new(Shared {
            backend,
            env,
            roots,
            domain,
            index,
            options,
            seen: std::array::from_fn(|_| Mutex::default()),
            relied: Mutex::default(),
            has_damage: !damaged.is_empty(),
            relies_on_bases,
            lost: Mutex::new(damaged),
            slots: PackSlots::default(),
            stats: Counters::default(),
            broken: AtomicBool::new(false),
            failure: Mutex::default(),
        });
        let uploads = Uploads::start(&shared);
        Self {
            shared,
            uploads,
            sign_of_life,
        }
    }

    /// The tools of one worker.
    ///
    /// # Errors
    /// [`Error::Codec`] where there is no memory for them.
    pub fn bench(&self) -> Result<WorkBench> {
        let encoder = Encoder::new(self.shared.options.level)?;
        Ok(WorkBench {
            encoder,
            scratch: Scratch::new()?,
            sealed: Vec::new(),
            bases: BaseReader::new()?,
            common: None,
        })
    }

    /// The id that `plain` has, or will have once it is stored.
    #[must_use]
    pub fn id(&self, kind: BlobKind, plain: &[u8]) -> BlobId {
        self.shared.roots.blob_id(kind, plain)
    }

    /// Stores a blob unless the repository or this run has it.
    ///
    /// # Errors
    /// [`Error::WriterBroken`] after any failure, of this call or of another thread's; what it
    /// was is told once, by [`Writer::failure`].
    pub fn put(
        &self,
        bench: &mut WorkBench,
        kind: BlobKind,
        hint: Hint,
        plain: &[u8],
    ) -> Result<Stored> {
        self.put_like(bench, kind, hint, plain, &|| None)
    }

    /// The same for a blob that is probably much like another of the repository; `ancestor` is
    /// asked which, if the blob is new. It is stored as a delta where that is worth it
    /// ([`DeltaMode`]).
    ///
    /// # Errors
    /// As [`Writer::put`].
    pub fn put_like(
        &self,
        bench: &mut WorkBench,
        kind: BlobKind,
        hint: Hint,
        plain: &[u8],
        ancestor: Ancestor<'_>,
    ) -> Result<Stored> {
        let shared = &*self.shared;
        shared.check_working()?;
        let _fuse = Fuse(shared);
        let id = shared.roots.blob_id(kind, plain);
        if !shared.claim(&id) {
            return Ok(Stored {
                id,
                added: None,
                common: None,
            });
        }
        let new = NewBlob {
            kind,
            hint,
            id,
            plain,
        };
        let result = shared.store(bench, &new, ancestor, &self.uploads);
        let result = result.map_err(|error| shared.fail(error));
        Ok(Stored {
            id,
            added: Some(result?),
            common: bench.common.take(),
        })
    }

    /// What broke the writer, if something did; told once.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        lock(&self.shared.failure).take()
    }

    /// The cause behind a [`Error::WriterBroken`], any other error as it is.
    #[must_use]
    pub fn cause(&self, error: Error) -> Error {
        match error {
            Error::WriterBroken => self.failure().unwrap_or(error),
            error => error,
        }
    }

    /// Whether the log says of any pack that it is damaged: then what a snapshot before refers to
    /// may have to be stored anew.
    #[must_use]
    pub fn knows_of_damage(&self) -> bool {
        self.shared.has_damage
    }

    /// Whether a blob is known to the repository or this run; if so the snapshot to come relies
    /// on it.
    #[must_use]
    pub fn rely_on(&self, id: &BlobId) -> bool {
        self.shared.is_seen(id) || self.shared.rely(id)
    }

    /// What was stored so far.
    #[must_use]
    pub fn stats(&self) -> WriterStats {
        let stats = &self.shared.stats;
        WriterStats {
            data_blobs: stats.data_blobs.load(Ordering::Relaxed),
            tree_blobs: stats.tree_blobs.load(Ordering::Relaxed),
            deltas: stats.deltas.load(Ordering::Relaxed),
            plain_bytes: stats.plain_bytes.load(Ordering::Relaxed),
            stored_bytes: stats.stored_bytes.load(Ordering::Relaxed),
            packs: stats.packs.load(Ordering::Relaxed),
        }
    }

    /// The packs that are durable and not yet taken for an index. From here on the run relies on
    /// them like on any pack of the repository: once indexed they can be swept before its
    /// snapshot is there, and nothing of them is stored again.
    #[must_use]
    pub fn take_durable(&self) -> Vec<PackGroup> {
        let groups = self.uploads.take_durable();
        lock(&self.shared.relied).extend(groups.iter().map(|group| group.id));
        groups
    }

    /// To be called now and then while a run goes on, so that a prune goes on believing that it
    /// does.
    pub fn show_life(&self) {
        if let Some(sign) = &self.sign_of_life {
            sign.renew();
        }
    }

    /// Sealed bytes of durable packs that are not yet taken for an index.
    #[must_use]
    pub fn unindexed_bytes(&self) -> u64 {
        self.uploads.unindexed_bytes()
    }

    /// Closes the open packs, waits until all packs are durable, and returns what is not yet
    /// taken for an index.
    ///
    /// # Errors
    /// The first failure of any upload.
    pub fn flush(&self, bench: &mut WorkBench) -> Result<Vec<PackGroup>> {
        let closed = self.shared.close_open_packs(bench, &self.uploads);
        let done = closed
            .and_then(|()| self.uploads.wait())
            .and_then(|()| self.shared.check_working());
        done.map_err(|error| self.cause(self.shared.fail(error)))?;
        Ok(self.take_durable())
    }

    /// The packs on whose blobs this run relies: those of the repository that it found blobs in,
    /// and its own that were taken for an index.
    #[must_use]
    pub fn relied_packs(&self) -> HashSet<PackId> {
        lock(&self.shared.relied).clone()
    }
}

/// Breaks the writer where a thread panics in the middle of storing something: what it had in hand
/// is lost, and nobody shall wait for it.
struct Fuse<'a>(&'a Shared);

impl Drop for Fuse<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::ThreadLost);
        }
    }
}

impl Shared {
    fn check_working(&self) -> Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(Error::WriterBroken);
        }
        Ok(())
    }

    /// Notes the first failure; from then on the writer answers that it is broken.
    fn fail(&self, error: Error) -> Error {
        self.broken.store(true, Ordering::Relaxed);
        if !matches!(error, Error::WriterBroken) {
            lock(&self.failure).get_or_insert(error);
        }
        Error::WriterBroken
    }

    /// True where the blob must be stored by the caller: nobody has it, and nobody else will.
    fn claim(&self, id: &BlobId) -> bool {
        !self.is_seen(id) && !self.rely(id) && lock(self.shard(id)).insert(*id)
    }

    fn is_seen(&self, id: &BlobId) -> bool {
        lock(self.shard(id)).contains(id)
    }

    /// Whether the repository has the blob in a pack that is there; if so the run relies on it.
    fn rely(&self, id: &BlobId) -> bool {
        match self.index.find(id) {
            Ok(Some(found)) if self.rely_on_copy(&found) => return true,
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(error) => return cannot_say(id, &error),
        }
        match self.index.copies(id) {
            Ok(copies) => copies.iter().any(|found| self.rely_on_copy(found)),
            Err(error) => cannot_say(id, &error),
        }
    }

    /// A delta is relied on together with a whole copy of its base.
    fn rely_on_copy(&self, found: &Found) -> bool {
        let Some(base) = found.entry.base.as_ref().filter(|_| self.relies_on_bases) else {
            return self.rely_on_pack(found);
        };
        let has_base = match self.index.copies(base) {
            Ok(copies) => copies
                .iter()
                .any(|copy| copy.entry.base.is_none() && self.rely_on_pack(copy)),
            Err(error) => cannot_say(base, &error),
        };
        has_base && self.rely_on_pack(found)
    }

    /// A pack that was lost or cut off since it was indexed is no reason not to store a blob
    /// again; the store is asked once for each pack.
    fn rely_on_pack(&self, found: &Found) -> bool {
        let Some(pack) = self.index.pack(found.pack) else {
            return false;
        };
        if lock(&self.relied).contains(&pack.id) {
            return true;
        }
        let mut lost = lock(&self.lost);
        if lost.contains(&pack.id) {
            return false;
        }
        match self.backend.len(&ObjectName::Pack(pack.id)) {
            Ok(len) if len == pack.len => {
                lock(&self.relied).insert(pack.id);
                return true;
            }
            Ok(_) => tracing::warn!(pack = %pack.id, "this pack has another length than it had"),
            Err(error) => tracing::warn!(%error, "storing blobs again that may be known"),
        }
        lost.insert(pack.id);
        false
    }

    /// Notes that what is stored depends on a pack.
    fn rely_on(&self, pack: PackId) {
        lock(&self.relied).insert(pack);
    }

    fn shard(&self, id: &BlobId) -> &Mutex<HashSet<BlobId>> {
        let [first, ..] = &self.seen;
        let [byte, ..] = id.as_bytes();
        self.seen
            .get(usize::from(*byte) % SEEN_SHARDS)
            .unwrap_or(first)
    }

    fn store(
        &self,
        bench: &mut WorkBench,
        new: &NewBlob<'_>,
        ancestor: Ancestor<'_>,
        uploads: &Uploads,
    ) -> Result<u32> {
        bench.common = None;
        let delta = self.encode_delta(bench, new, ancestor);
        let (codec, proof) = match delta {
            Some((codec, proof)) => (codec, Some(proof)),
            None => {
                let codec = bench
                    .encoder
                    .encode(new.hint, new.plain, &mut bench.sealed)?;
                (codec, None)
            }
        };
        let len = self.seal_into_pack(bench, new, codec, proof.as_ref(), uploads)?;
        let stats = &self.stats;
        let blobs = if new.kind.is_metadata() {
            &stats.tree_blobs
        } else {
            &stats.data_blobs
        };
        blobs.fetch_add(1, Ordering::Relaxed);
        stats
            .deltas
            .fetch_add(u64::from(proof.is_some()), Ordering::Relaxed);
        let plain_len = u64::try_from(new.plain.len()).unwrap_or(u64::MAX);
        stats.plain_bytes.fetch_add(plain_len, Ordering::Relaxed);
        stats
            .stored_bytes
            .fetch_add(u64::from(len), Ordering::Relaxed);
        Ok(len)
    }
}

/// A blob to be stored.
struct NewBlob<'a> {
    kind: BlobKind,
    hint: Hint,
    id: BlobId,
    plain: &'a [u8],
}

/// Where the index cannot say, the blob is stored once more: that is always right.
fn cannot_say(id: &BlobId, error: &IndexError) -> bool {
    tracing::warn!(%error, blob = %id, "storing a blob that may be known");
    false
}

/// Locks; a panicked holder leaves plain data behind, which stays usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
