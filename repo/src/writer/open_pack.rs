//! The packs being filled. A blob is sealed outside of every lock: its pack and segment number
//! are reserved first, its bytes are appended after, and a pack is finished by whoever brings its
//! last outstanding blob.

use std::sync::{Arc, Mutex};

use super::{NewBlob, Proof, Shared, WorkBench, lock, upload::Uploads};
use crate::{
    aligned::AlignedBuf,
    codec::Codec,
    crypto::{BlobKind, EpochKey, ObjectKey, SealKind, SegmentNumber},
    error::{Error, Result},
    format::{
        DecodeError,
        cursor::{to_u32, to_usize},
        pack::BlobEntry,
    },
    id::BlobId,
    pack::PackBuilder,
};

/// Bytes by which a pack usually exceeds its target at most: a blob and the table of contents.
const OVERSHOOT: usize = 5 << 20;

/// The open packs: two for data, one for metadata.
#[derive(Default)]
pub(super) struct PackSlots {
    data: [Mutex<Option<Arc<OpenPack>>>; 2],
    metadata: Mutex<Option<Arc<OpenPack>>>,
}

/// A pack being filled by several workers.
struct OpenPack {
    key: Arc<ObjectKey>,
    state: Mutex<PackState>,
}

struct PackState {
    /// `None` once the pack is finished.
    builder: Option<PackBuilder>,
    /// Blobs reserved and not yet appended.
    outstanding: usize,
    /// No more blobs are reserved.
    closing: bool,
}

impl Shared {
    /// Seals the encoded bytes in `bench.sealed` and appends them to an open pack; finishes the
    /// pack where it is full. Returns the sealed length.
    pub(super) fn seal_into_pack(
        &self,
        bench: &mut WorkBench,
        new: &NewBlob<'_>,
        codec: Codec,
        delta: Option<&Proof>,
        uploads: &Uploads,
    ) -> Result<u32> {
        let slot = self.slot(new.kind, &new.id);
        let (pack, number) = self.reserve(slot, &new.id, uploads)?;
        let mut entry = BlobEntry {
            kind: new.kind,
            codec: codec.to_byte(),
            base: delta.map(|delta| delta.base),
            segment: number.number(),
            offset: 0,
            sealed_len: 0,
            plain_len: to_u32(new.plain.len(), "blob length")?,
            id: new.id,
        };
        pack.key
            .seal(number, &entry.segment_info(), &mut bench.sealed)?;
        entry.sealed_len = to_u32(bench.sealed.len(), "sealed length")?;
        let mut state = lock(&pack.state);
        let builder = state.builder.as_mut().ok_or(Error::WriterBroken)?;
        builder.append(entry, &bench.sealed)?;
        if let Some(delta) = delta {
            builder.prove(entry.segment, delta.checksum);
        }
        let full = builder.is_full(self.options.pack_target);
        state.outstanding -= 1;
        drop(state);
        if full {
            let mut current = lock(slot);
            if current
                .as_ref()
                .is_some_and(|open| Arc::ptr_eq(open, &pack))
            {
                *current = None;
            }
            drop(current);
            lock(&pack.state).closing = true;
        }
        self.finish_if_done(&pack, bench, uploads)?;
        Ok(entry.sealed_len)
    }

    /// Closes what is open: data packs and metadata in one pack where all of it is small, each of
    /// their own otherwise.
    pub(super) fn close_open_packs(&self, bench: &mut WorkBench, uploads: &Uploads) -> Result<()> {
        let [first, second] = &self.slots.data;
        for slot in [first, second, &self.slots.metadata] {
            let Some(pack) = lock(slot).take() else {
                continue;
            };
            {
                let mut state = lock(&pack.state);
                state.closing = true;
                if state.outstanding != 0 {
                    // Whoever was to bring the rest failed.
                    return Err(Error::WriterBroken);
                }
            }
            self.finish_if_done(&pack, bench, uploads)?;
        }
        Ok(())
    }

    fn slot(&self, kind: BlobKind, id: &BlobId) -> &Mutex<Option<Arc<OpenPack>>> {
        if kind.is_metadata() {
            return &self.slots.metadata;
        }
        // A blob's keyed id is as random as any coin.
        let [first, second] = &self.slots.data;
        let [.., byte] = id.as_bytes();
        if byte & 1 == 0 { first } else { second }
    }

    fn reserve(
        &self,
        slot: &Mutex<Option<Arc<OpenPack>>>,
        first_blob: &BlobId,
        uploads: &Uploads,
    ) -> Result<(Arc<OpenPack>, SegmentNumber)> {
        let mut current = lock(slot);
        let pack = match &*current {
            Some(pack) => Arc::clone(pack),
            None => {
                let pack = Arc::new(self.new_pack(first_blob, uploads.buffer())?);
                *current = Some(Arc::clone(&pack));
                pack
            }
        };
        let number = pack.key.next_segment()?;
        lock(&pack.state).outstanding += 1;
        Ok((pack, number))
    }

    fn new_pack(&self, first_blob: &BlobId, mut buffer: AlignedBuf) -> Result<OpenPack> {
        buffer.clear();
        buffer.reserve(to_usize(self.options.pack_target) + OVERSHOOT);
        let salt = self.env.salt(first_blob.as_bytes())?;
        let root = self.data_root()?;
        let key = Arc::new(ObjectKey::create(root, self.domain, SealKind::Pack, salt)?);
        let builder = Some(PackBuilder::new(Arc::clone(&key), buffer));
        let state = PackState {
            builder,
            outstanding: 0,
            closing: false,
        };
        Ok(OpenPack {
            key,
            state: Mutex::new(state),
        })
    }

    fn data_root(&self) -> Result<&EpochKey> {
        let malformed = DecodeError::Malformed { what: "key bundle" };
        self.roots
            .data_epochs()
            .last()
            .ok_or(Error::Decode(malformed))
    }

    fn finish_if_done(
        &self,
        pack: &OpenPack,
        bench: &mut WorkBench,
        uploads: &Uploads,
    ) -> Result<()> {
        let mut state = lock(&pack.state);
        if !state.closing || state.outstanding != 0 {
            return Ok(());
        }
        let Some(builder) = state.builder.take() else {
            return Ok(());
        };
        drop(state);
        let finished = builder.finish()?;
        if self.options.verify {
            finished.verify(&self.roots, &mut bench.scratch)?;
        }
        uploads.send(finished)
    }
}
