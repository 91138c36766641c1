//! Reading one particular copy of a blob, before another copy of it goes.

use crate::{
    backend::ObjectName,
    base::BaseReader,
    codec::Decoder,
    crypto::ObjectKey,
    error::Result,
    format::cursor::to_usize,
    id::PackId,
    index::{Found, Index},
    pack::open_blob,
    repository::Repository,
};

/// Reads particular copies.
pub(super) struct CopyReader<'a> {
    repo: &'a Repository,
    decoder: Decoder,
    sealed: Vec<u8>,
    plain: Vec<u8>,
    bases: BaseReader,
}

impl<'a> CopyReader<'a> {
    pub(super) fn new(repo: &'a Repository) -> Result<Self> {
        Ok(Self {
            repo,
            decoder: Decoder::new()?,
            sealed: Vec::new(),
            plain: Vec::new(),
            bases: BaseReader::new()?,
        })
    }

    /// Whether exactly this copy gives the blob that its id says.
    pub(super) fn reads(&mut self, index: &Index, pack: PackId, copy: &Found) -> bool {
        self.read(index, pack, copy).is_some()
    }

    /// The plain bytes of exactly this copy, where they are what its id says.
    pub(super) fn read(&mut self, index: &Index, pack: PackId, copy: &Found) -> Option<&[u8]> {
        let info = index.pack(copy.pack)?;
        let (roots, domain) = (self.repo.roots(), self.repo.domain());
        let key = ObjectKey::open(roots, domain, info.header).ok()?;
        let entry = &copy.entry;
        let base = match &entry.base {
            None => None,
            Some(base) => {
                let base = self.bases.load(self.repo.base_source(index), base);
                Some(base.ok()?.plain.as_slice())
            }
        };
        self.sealed.resize(to_usize(entry.sealed_len), 0);
        let (offset, name) = (u64::from(entry.offset), ObjectName::Pack(pack));
        let backend = self.repo.backend();
        backend.read_stored(&name, offset, &mut self.sealed).ok()?;
        let (sealed, decoder) = (&mut self.sealed, &mut self.decoder);
        let plain = open_blob(&key, entry, sealed, base, decoder, &mut self.plain).ok()?;
        (roots.blob_id(entry.kind, plain) == entry.id).then_some(plain)
    }
}
