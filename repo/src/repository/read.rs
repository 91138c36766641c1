//! Reading blobs and snapshot records. Every blob's id is computed again from what was decoded,
//! whatever the caller is about to do with it. A copy that cannot be read is named, and another
//! copy is tried.

mod deltas;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use deltas::{baseless, sealed_in};

use super::Repository;
use crate::{
    aligned::{AlignedBuf, PAGE},
    backend::ObjectName,
    base::{BaseReader, Source},
    codec::Decoder,
    crypto::{BlobKind, ObjectKey, SealKind, open_object},
    error::{Error, Result},
    format::{
        cursor::to_usize,
        frame::{self, FrameKind},
        pack::BlobEntry,
    },
    id::{BlobId, PackId, SnapshotId},
    index::{Found, Index, IndexError, PackNumber},
    limits::MAX_META_LEN,
    log::state::Place,
    pack::{open_blob, reader::PackError},
};

/// Largest gap that is read along rather than skipped, in bytes.
const MAX_GAP: u64 = 64 << 10;
/// Largest single read, in bytes.
const MAX_READ: u64 = 8 << 20;
#[expect(
    clippy::cast_possible_truncation,
    reason = "a page is far smaller than 4 GiB"
)]
const PAGE_LEN: u32 = PAGE as u32;

/// A blob that is wanted, with a number by which the caller knows it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The blob.
    pub id: BlobId,
    /// The caller's number.
    pub tag: u32,
}

/// Takes a blob's plain bytes, with the caller's number.
pub type Take<'a, E> = dyn FnMut(u32, &[u8]) -> Result<(), E> + 'a;

/// Reads blobs; one for each thread.
pub struct BlobReader<'a> {
    repo: &'a Repository,
    index: Arc<Index>,
    decoder: Decoder,
    /// Sealed bytes as they were read.
    sealed: AlignedBuf,
    /// Plain bytes that were decoded.
    plain: Vec<u8>,
    /// For deltas that are read one by one.
    bases: BaseReader,
}

/// Blobs that are wanted, by the packs that they lie in.
type ByPack = BTreeMap<PackNumber, Vec<(BlobEntry, u32)>>;

impl Repository {
    /// A reader over the index as it is now.
    ///
    /// # Errors
    /// No memory for the decoder.
    pub fn reader(&self) -> Result<BlobReader<'_>> {
        let (index, decoder) = (self.index(), Decoder::new()?);
        Ok(BlobReader {
            repo: self,
            index,
            decoder,
            sealed: AlignedBuf::new(),
            plain: Vec::new(),
            bases: BaseReader::new()?,
        })
    }

    /// What bases are read with, by an index.
    pub(crate) fn base_source<'a>(&'a self, index: &'a Index) -> Source<'a> {
        Source {
            backend: self.backend.as_ref(),
            roots: &self.roots,
            domain: self.domain,
            index,
        }
    }

    /// The plain bytes of a snapshot's record; from the copy of it in a pack, where the record
    /// itself is damaged.
    ///
    /// # Errors
    /// There is no such snapshot, or its record is damaged.
    pub fn load_snapshot(&self, id: SnapshotId) -> Result<Vec<u8>> {
        let (record, damage) = self.load_record(id)?;
        if let Some(error) = damage {
            let snapshot = id.short();
            tracing::warn!(%error, %snapshot, "a record is damaged, a copy of it is used");
        }
        Ok(record)
    }

    /// The same; with what is wrong with the record itself, where the bytes are those of the copy.
    pub(crate) fn load_record(&self, id: SnapshotId) -> Result<(Vec<u8>, Option<Error>)> {
        match self.load_own_record(id) {
            Ok(record) => Ok((record, None)),
            Err(error) if !error.is_damage() => Err(error),
            Err(error) => match self.record_in_pack(id) {
                Ok(Some(record)) => Ok((record, Some(error))),
                Ok(None) => Err(error),
                Err(why) => {
                    tracing::debug!(error = %why, "there is no copy of a record");
                    Err(error)
                }
            },
        }
    }

    /// The record as it stands in the log or in its own object.
    pub(crate) fn load_own_record(&self, id: SnapshotId) -> Result<Vec<u8>> {
        let name = ObjectName::Snapshot(id);
        let place = self
            .log()
            .state()
            .snapshots
            .get(&id)
            .map(|snapshot| snapshot.place);
        let inner = match place.ok_or(Error::NoSnapshot { snapshot: id })? {
            Place::Inline(seq) => self.read_part(seq, id.as_bytes())?,
            Place::Own => {
                let object = self.backend.read_all(&name, u64::from(MAX_META_LEN) * 4)?;
                frame::decode(FrameKind::Snapshot, &object)
                    .map_err(|source| Error::damaged(name, source))?
                    .inner
                    .to_vec()
            }
        };
        if blake3::hash(&inner) != *id.as_bytes() {
            return Err(Error::WrongContent { object: name });
        }
        open_object(&self.roots, self.domain, SealKind::Snapshot, &inner).map_err(|source| {
            Error::SealedObject {
                object: name,
                source,
            }
        })
    }

    /// The copy of a record among the blobs that came to be together with the snapshot. Nothing
    /// in it names the snapshot, so it has to be the only one.
    fn record_in_pack(&self, id: SnapshotId) -> Result<Option<Vec<u8>>> {
        let (indexes, live) = {
            let log = self.log();
            (log.indexes_with(&id)?, log.state().indexes.clone())
        };
        let mut records = BTreeSet::new();
        for index in indexes {
            let Some(place) = live.get(&index) else {
                return Ok(None);
            };
            let body = self.read_index(index, *place)?;
            let blobs = body.packs.iter().flat_map(|pack| &pack.entries);
            records.extend(
                blobs
                    .filter(|blob| blob.kind == BlobKind::Snapshot)
                    .map(|blob| blob.id),
            );
        }
        let mut records = records.into_iter();
        match (records.next(), records.next()) {
            (Some(only), None) => self.reader()?.load(&only).map(Some),
            _ => Ok(None),
        }
    }
}

impl BlobReader<'_> {
    /// The index that is read by.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Reads one blob, from whichever copy is good.
    ///
    /// # Errors
    /// [`Error::MissingBlob`], or why the first copy cannot be read where none can.
    pub fn load(&mut self, id: &BlobId) -> Result<Vec<u8>> {
        match self.load_known(id) {
            Err(error) if error.is_missing() => {
                // A prune may have moved it: the log says where to.
                self.repo.refresh()?;
                self.index = self.repo.index();
                self.load_known(id)
            }
            result => result,
        }
    }

    /// Reads one blob by the index as it is.
    fn load_known(&mut self, id: &BlobId) -> Result<Vec<u8>> {
        let (index, copies) = self.consult(|index| index.copies(id))?;
        let mut failure = None;
        for found in copies {
            match self.load_copy(&index, &found) {
                Ok(plain) => return Ok(plain),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(Error::MissingBlob { blob: *id }))
    }

    /// Asks the index; where its local cache turns out to be damaged, a new one. The answer is
    /// good for the index that comes with it.
    fn consult<T>(
        &mut self,
        ask: impl Fn(&Index) -> Result<T, IndexError>,
    ) -> Result<(Arc<Index>, T)> {
        if let Ok(answer) = ask(&self.index) {
            return Ok((Arc::clone(&self.index), answer));
        }
        self.repo.load_index()?;
        self.index = self.repo.index();
        let answer = ask(&self.index)?;
        Ok((Arc::clone(&self.index), answer))
    }

    fn load_copy(&mut self, index: &Index, found: &Found) -> Result<Vec<u8>> {
        let (pack, key) = self.open_pack(index, found.pack)?;
        let sealed = self.sealed.room(to_usize(found.entry.sealed_len));
        let offset = u64::from(found.entry.offset);
        let name = ObjectName::Pack(pack);
        self.repo.backend.read_at(&name, offset, sealed)?;
        let base = match found.entry.base {
            None => None,
            Some(base) => {
                let loaded = self.bases.load(self.repo.base_source(index), &base);
                Some(loaded.map_err(|error| baseless(&found.entry, base, error))?)
            }
        };
        let opening = Opening {
            repo: self.repo,
            decoder: &mut self.decoder,
            pack,
            key: &key,
            base: base.map(|base| base.plain.as_slice()),
        };
        let plain = opening.open(&found.entry, sealed, &mut self.plain)?;
        Ok(plain.to_vec())
    }

    /// Reads many blobs, pack by pack with few large reads, and hands each to `take` with its
    /// caller's number: whole ones in the order in which they lie, then deltas, with the bases that
    /// they rest on. A blob that is wanted several times is decoded once. `failed` is told of every
    /// blob that no copy gives.
    ///
    /// # Errors
    /// What `take` returns.
    pub fn load_many<E>(
        &mut self,
        wanted: &[Wanted],
        take: &mut Take<'_, E>,
        failed: &mut dyn FnMut(u32, Error),
    ) -> Result<(), E> {
        let (mut whole, mut deltas) = (ByPack::new(), ByPack::new());
        let all = |index: &Index| wanted.iter().map(|want| index.find(&want.id)).collect();
        let Ok((index, found)) = self.consult::<Vec<_>>(all) else {
            return self.load_singly(wanted, take, failed);
        };
        for (want, found) in wanted.iter().zip(found) {
            match found {
                Some(found) => {
                    let by_pack = match found.entry.base {
                        None => &mut whole,
                        Some(_) => &mut deltas,
                    };
                    let blobs = by_pack.entry(found.pack).or_default();
                    blobs.push((found.entry, want.tag));
                }
                None => failed(want.tag, Error::MissingBlob { blob: want.id }),
            }
        }
        self.load_whole(&index, whole, take, failed)?;
        self.load_deltas(&index, deltas, take, failed)
    }

    /// Reads blobs that are no deltas, by the packs that they lie in.
    fn load_whole<E>(
        &mut self,
        index: &Index,
        by_pack: ByPack,
        take: &mut Take<'_, E>,
        failed: &mut dyn FnMut(u32, Error),
    ) -> Result<(), E> {
        for (pack, mut blobs) in by_pack {
            blobs.sort_by_key(|(entry, tag)| (entry.offset, *tag));
            let mut rest = blobs.as_slice();
            while !rest.is_empty() {
                let (run, tail) = rest.split_at(run_len(rest));
                self.load_run(index, pack, run, take, failed)?;
                rest = tail;
            }
        }
        Ok(())
    }

    /// Reads blobs one by one, where the index does not answer for all at once.
    fn load_singly<E>(
        &mut self,
        wanted: &[Wanted],
        take: &mut Take<'_, E>,
        failed: &mut dyn FnMut(u32, Error),
    ) -> Result<(), E> {
        for want in wanted {
            match self.load(&want.id) {
                Ok(plain) => take(want.tag, &plain)?,
                Err(error) => failed(want.tag, error),
            }
        }
        Ok(())
    }

    /// One read, and the blobs in it.
    fn load_run<E>(
        &mut self,
        index: &Index,
        pack: PackNumber,
        run: &[(BlobEntry, u32)],
        take: &mut Take<'_, E>,
        failed: &mut dyn FnMut(u32, Error),
    ) -> Result<(), E> {
        let (mut sealed, mut scratch) = (
            std::mem::take(&mut self.sealed),
            std::mem::take(&mut self.plain),
        );
        let mut opened = self.fetch(index, pack, run, &mut sealed);
        let mut result = Ok(());
        for same in run.chunk_by(|(one, _), (other, _)| one.offset == other.offset) {
            let Some((entry, _)) = same.first() else {
                continue;
            };
            let plain = match &mut opened {
                Ok(fetched) => match sealed_in(fetched.bytes, fetched.start, entry) {
                    Some(bytes) => Opening {
                        repo: self.repo,
                        decoder: &mut self.decoder,
                        pack: fetched.pack,
                        key: &fetched.key,
                        base: None,
                    }
                    .open(entry, bytes, &mut scratch)
                    .map_err(Some),
                    None => Err(None),
                },
                // What the store said is said again of each blob, when it is read alone.
                Err(_) => Err(None),
            };
            result = match plain {
                Ok(plain) => same.iter().try_for_each(|(_, tag)| take(*tag, plain)),
                Err(error) => self.rescue(same, error, take, failed),
            };
            if result.is_err() {
                break;
            }
        }
        (self.sealed, self.plain) = (sealed, scratch);
        result
    }

    /// Reads what a run of blobs takes up, in one go.
    fn fetch<'b>(
        &self,
        index: &Index,
        number: PackNumber,
        run: &[(BlobEntry, u32)],
        buffer: &'b mut AlignedBuf,
    ) -> Result<Fetched<'b>> {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else {
            return Err(Error::WriterBroken);
        };
        // Whole pages, which the store can bring past its cache.
        let start = first.offset - first.offset % PAGE_LEN;
        let pack_len = index.pack(number).map_or(0, |pack| pack.len);
        let end = last.end().next_multiple_of(u64::from(PAGE_LEN));
        let end = end.min(pack_len).max(last.end());
        let len = usize::try_from(end - u64::from(start)).unwrap_or(usize::MAX);
        let bytes = buffer.room(len);
        let (pack, key) = self.open_pack(index, number)?;
        let name = ObjectName::Pack(pack);
        self.repo.backend.read_at(&name, u64::from(start), bytes)?;
        Ok(Fetched {
            pack,
            key,
            start,
            bytes,
        })
    }

    /// For a blob that could not be read where it was looked for, because of `error` where
    /// that is known: another copy may do.
    fn rescue<E>(
        &mut self,
        same: &[(BlobEntry, u32)],
        error: Option<Error>,
        take: &mut Take<'_, E>,
        failed: &mut dyn FnMut(u32, Error),
    ) -> Result<(), E> {
        let mut first = error;
        for (entry, tag) in same {
            match (self.load(&entry.id), first.take()) {
                (Ok(plain), _) => take(*tag, &plain)?,
                (Err(_), Some(error)) | (Err(error), None) => failed(*tag, error),
            }
        }
        Ok(())
    }

    fn open_pack(&self, index: &Index, number: PackNumber) -> Result<(PackId, ObjectKey)> {
        let Some(pack) = index.pack(number) else {
            return Err(Error::WriterBroken);
        };
        let id = pack.id;
        let key =
            ObjectKey::open(&self.repo.roots, self.repo.domain, pack.header).map_err(|source| {
                Error::Pack {
                    pack: id,
                    source: PackError::Seal(source),
                }
            })?;
        Ok((id, key))
    }
}

/// A part of a pack.
struct Fetched<'a> {
    pack: PackId,
    key: ObjectKey,
    /// Where in the pack it begins.
    start: u32,
    bytes: &'a mut [u8],
}

/// Opening the blobs of one pack.
struct Opening<'a> {
    repo: &'a Repository,
    decoder: &'a mut Decoder,
    pack: PackId,
    key: &'a ObjectKey,
    base: Option<&'a [u8]>,
}

impl Opening<'_> {
    /// The plain bytes of a blob, in `sealed` or in `scratch`; its id is checked.
    fn open<'b>(
        self,
        entry: &BlobEntry,
        sealed: &'b mut [u8],
        scratch: &'b mut Vec<u8>,
    ) -> Result<&'b [u8]> {
        let (blob, pack) = (entry.id, self.pack);
        let plain = open_blob(self.key, entry, sealed, self.base, self.decoder, scratch)
            .map_err(|source| Error::Blob { blob, pack, source })?;
        if self.repo.roots.blob_id(entry.kind, plain) != blob {
            return Err(Error::WrongBlob { blob, pack });
        }
        Ok(plain)
    }
}

/// How many blobs from the front are read at once.
fn run_len(blobs: &[(BlobEntry, u32)]) -> usize {
    let Some((first, _)) = blobs.first() else {
        return 0;
    };
    let mut end = first.end();
    let mut count = 0;
    for (entry, _) in blobs {
        let near = u64::from(entry.offset) <= end + MAX_GAP;
        let small = entry.end() <= u64::from(first.offset) + MAX_READ;
        if count > 0 && !(near && small) {
            break;
        }
        end = end.max(entry.end());
        count += 1;
    }
    count
}
