//! The index as the checks of the log see it.

use std::cell::RefCell;

use crate::{
    error::{Error, Result},
    format::pack::BlobEntry,
    id::{BlobId, PackId},
    index::{Found, Index, PackInfo},
    log::check::{BlobCopy, Copies},
};

/// All copies of a blob.
pub(crate) fn copies_of(index: &Index, blob: &BlobId) -> Result<Vec<Found>> {
    Ok(index.copies(blob)?)
}

/// The blobs of a pack, by offset.
pub(crate) fn entries_of(index: &Index, pack: &PackInfo) -> Result<Vec<BlobEntry>> {
    Ok(index.entries_of(pack.number)?)
}

/// The pack of a copy.
pub(crate) fn pack_of(index: &Index, found: &Found) -> Option<PackId> {
    index.pack(found.pack).map(|pack| pack.id)
}

/// An index as a source of copies; remembers a failure to look one up, since the checks cannot
/// carry it. Whoever has asked calls [`IndexCopies::finish`] before acting on the answer.
pub(crate) struct IndexCopies<'a> {
    index: &'a Index,
    failure: RefCell<Option<Error>>,
}

impl<'a> IndexCopies<'a> {
    pub(crate) const fn new(index: &'a Index) -> Self {
        Self {
            index,
            failure: RefCell::new(None),
        }
    }

    /// The failure, if looking up failed meanwhile.
    pub(crate) fn finish(&self) -> Result<()> {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }
}

impl Copies for IndexCopies<'_> {
    fn copies(&self, blob: &BlobId, found: &mut dyn FnMut(BlobCopy) -> bool) {
        let copies = match copies_of(self.index, blob) {
            Ok(copies) => copies,
            Err(error) => {
                *self.failure.borrow_mut() = Some(error);
                return;
            }
        };
        for copy in copies {
            let Some(pack) = pack_of(self.index, &copy) else {
                continue;
            };
            let (segment, base) = (copy.entry.segment, copy.entry.base);
            if !found(BlobCopy {
                pack,
                segment,
                base,
            }) {
                return;
            }
        }
    }
}
