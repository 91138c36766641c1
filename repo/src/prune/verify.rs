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

    /// The plain bytes of the copy that was read last.
    pub(super) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// Whether exactly this copy gives the blob that its id says.
    pub(super) fn reads(&mut self, index: &Index, pack: PackId, copy: &Found) -> bool {
        let Some(info) = index.pack(copy.pack) else {
            return false;
        };
        let (roots, domain) = (self.repo.roots(), self.repo.domain());
        let Ok(key) = ObjectKey::open(roots, domain, info.header) else {
            return false;
        };
        let entry = &copy.entry;
        let base = match &entry.base {
            None => None,
            Some(base) => match self.bases.load(self.repo.base_source(index), base) {
                Ok(base) => Some(base.plain.as_slice()),
                Err(_) => return false,
            },
        };
        self.sealed.resize(to_usize(entry.sealed_len), 0);
        let (offset, name) = (u64::from(entry.offset), ObjectName::Pack(pack));
        let backend = self.repo.backend();
        backend.read_at(&name, offset, &mut self.sealed).is_ok()
            && open_blob(
                &key,
                entry,
                &mut self.sealed,
                base,
                &mut self.decoder,
                &mut self.plain,
            )
            .is_ok_and(|plain| roots.blob_id(entry.kind, plain) == entry.id)
    }
}
