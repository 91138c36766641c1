//! Reading the blobs that deltas rest on: whole copies only, so that no delta is ever decoded with
//! the help of another (docs/invariants.md, I16). Bases that were read last are kept for a while,
//! since neighbouring deltas often share one.
//!
//! Not here: which blob becomes a base (`writer::delta`), and reading many blobs at once
//! (`repository::read`). Every base is compared with its id, like any blob.

use std::collections::VecDeque;

use crate::{
    aligned::AlignedBuf,
    backend::{Backend, ObjectName},
    codec::Decoder,
    crypto::{ObjectKey, Roots},
    error::{Error, Result},
    format::cursor::to_usize,
    id::{BlobId, DomainId, PackId},
    index::{Found, Index},
    pack::{open_blob, reader::PackError},
};

/// Plain bytes of bases that one reader keeps.
const MAX_KEPT: usize = 8 << 20;

/// What blobs are read with.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) roots: &'a Roots,
    pub(crate) domain: DomainId,
    pub(crate) index: &'a Index,
}

/// Reads bases; one for each thread.
pub(crate) struct BaseReader {
    decoder: Decoder,
    sealed: AlignedBuf,
    plain: Vec<u8>,
    /// The last ones, the newest in front.
    kept: VecDeque<Base>,
}

/// A base that was read.
pub(crate) struct Base {
    pub(crate) id: BlobId,
    /// The pack of the copy that it came from.
    pub(crate) pack: PackId,
    pub(crate) plain: Vec<u8>,
}

impl BaseReader {
    /// A reader that has read nothing.
    ///
    /// # Errors
    /// No memory for a decoder.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            decoder: Decoder::new()?,
            sealed: AlignedBuf::new(),
            plain: Vec::new(),
            kept: VecDeque::new(),
        })
    }

    /// Reads a base, from whichever whole copy is good.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] where there is no whole copy, or why the first cannot be read where
    /// none can.
    pub(crate) fn load(&mut self, source: Source<'_>, id: &BlobId) -> Result<&Base> {
        if let Some(at) = self.kept.iter().position(|base| base.id == *id) {
            let base = self.kept.remove(at);
            return self.keep(base.ok_or(Error::MissingBlob { blob: *id })?);
        }
        let mut failure = None;
        for found in source.index.copies(id)? {
            if found.entry.base.is_some() {
                continue;
            }
            match self.load_copy(source, &found) {
                Ok(base) => return self.keep(base),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or(Error::MissingBlob { blob: *id }))
    }

    fn load_copy(&mut self, source: Source<'_>, found: &Found) -> Result<Base> {
        let (blob, entry) = (found.entry.id, &found.entry);
        let info = source
            .index
            .pack(found.pack)
            .ok_or(Error::MissingBlob { blob })?;
        let pack = info.id;
        let key = ObjectKey::open(source.roots, source.domain, info.header).map_err(|source| {
            let source = PackError::Seal(source);
            Error::Pack { pack, source }
        })?;
        let sealed = self.sealed.room(to_usize(entry.sealed_len));
        let (name, offset) = (ObjectName::Pack(pack), u64::from(entry.offset));
        source.backend.read_at(&name, offset, sealed)?;
        let (decoder, scratch) = (&mut self.decoder, &mut self.plain);
        let plain = open_blob(&key, entry, sealed, None, decoder, scratch)
            .map_err(|source| Error::Blob { blob, pack, source })?;
        if source.roots.blob_id(entry.kind, plain) != blob {
            return Err(Error::WrongBlob { blob, pack });
        }
        Ok(Base {
            id: blob,
            pack,
            plain: plain.to_vec(),
        })
    }

    /// Keeps a base in front of the others, as many of which go as are too much then.
    fn keep(&mut self, base: Base) -> Result<&Base> {
        let blob = base.id;
        self.kept.push_front(base);
        let mut held = 0;
        let count = self.kept.iter().take_while(|base| {
            held += base.plain.len();
            held <= MAX_KEPT
        });
        let count = count.count().max(1);
        self.kept.truncate(count);
        self.kept.front().ok_or(Error::MissingBlob { blob })
    }
}
