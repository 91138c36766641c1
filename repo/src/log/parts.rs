//! Reading what entries carry inline. Needs no open log, so that a check may read parts while an
//! append holds the log: a part proves itself by its hash.

use std::sync::Arc;

use super::{
    LogError,
    segment::{Segment, segment_of},
    source::{Read, SINGLES_BEFORE_SEGMENT, read_entry, read_segment},
};
use crate::{backend::Backend, format::log::EntryObject, id::Hash};

/// Reads inline parts.
#[derive(Clone, Debug)]
pub struct PartReader {
    backend: Arc<dyn Backend>,
}

impl PartReader {
    /// A reader of the log in `backend`.
    #[must_use]
    pub const fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// The inline part of entry `seq` whose hash is `hash`: the bytes of an index object or the
    /// inner bytes of a snapshot.
    ///
    /// # Errors
    /// [`LogError::PartLost`] where neither the entry nor its twin has it intact; the store's
    /// error.
    pub fn read(&self, seq: u64, hash: &Hash) -> Result<Vec<u8>, LogError> {
        if let Read::Object(object) = read_entry(self.backend.as_ref(), seq)?
            && let Some(part) = part_of(&object, hash)
        {
            return Ok(part);
        }
        let segment = read_segment(self.backend.as_ref(), segment_of(seq))?;
        let part = segment.and_then(|segment| part_of(segment.entry(seq)?, hash));
        part.ok_or(LogError::PartLost { seq })
    }

    /// Reads many parts, given by entry and hash, and calls `found` for each in the order of the
    /// entries; by segments where that saves reading.
    ///
    /// # Errors
    /// As [`PartReader::read`], for the first part that fails.
    pub fn read_many(
        &self,
        mut wanted: Vec<(u64, Hash)>,
        found: &mut dyn FnMut(&Hash, Vec<u8>),
    ) -> Result<(), LogError> {
        wanted.sort_unstable();
        for group in wanted.chunk_by(|a, b| segment_of(a.0) == segment_of(b.0)) {
            let many = u32::try_from(group.len()).is_ok_and(|len| len >= SINGLES_BEFORE_SEGMENT);
            let segment = match group.first() {
                Some((seq, _)) if many => read_segment(self.backend.as_ref(), segment_of(*seq))?,
                _ => None,
            };
            for (seq, hash) in group {
                let entry = segment
                    .as_ref()
                    .and_then(|segment: &Segment| segment.entry(*seq));
                let part = match entry.and_then(|entry| part_of(entry, hash)) {
                    Some(part) => part,
                    None => self.read(*seq, hash)?,
                };
                found(hash, part);
            }
        }
        Ok(())
    }
}

fn part_of(object: &[u8], hash: &Hash) -> Option<Vec<u8>> {
    let entry = EntryObject::decode(object).ok()?;
    let at = entry
        .head
        .parts
        .iter()
        .position(|part| part.hash == *hash)?;
    entry.parts.get(at).copied().flatten().map(<[u8]>::to_vec)
}
