//! From sealed blobs to the bytes of a pack. Pure: no I/O, no choice of what goes in.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::{
    aligned::AlignedBuf,
    codec::{Codec, CodecError, Decoder},
    crypto::{ObjectKey, Roots, SealError},
    format::{
        DecodeError,
        cursor::{to_u32, to_usize},
        index::PackGroup,
        pack::{BlobEntry, Trailer, encode_toc, pack_id, padme},
        record::Ext,
    },
    id::{BlobId, PackId},
    limits::{MAX_PACK_LEN, MAX_PACK_SEGMENTS},
    pack::reader::PackError,
};

/// Upper bound of what one entry takes in a table of contents.
const TOC_ENTRY_MAX: u64 = 4 + 16 + 32 + 32;

/// A pack being filled, in one buffer.
pub struct PackBuilder {
    key: Arc<ObjectKey>,
    bytes: AlignedBuf,
    entries: Vec<BlobEntry>,
}

/// A pack ready to be stored.
pub struct FinishedPack {
    /// Its bytes.
    pub bytes: AlignedBuf,
    /// Its name, and what an index says of it.
    pub group: PackGroup,
    /// The key, for verifying.
    pub key: Arc<ObjectKey>,
}

impl PackBuilder {
    /// An empty pack under `key`, in `buffer`, whose content is dropped and whose memory is
    /// reused.
    #[must_use]
    pub fn new(key: Arc<ObjectKey>, mut buffer: AlignedBuf) -> Self {
        buffer.clear();
        buffer.extend_from_slice(&key.header().encode());
        Self {
            key,
            bytes: buffer,
            entries: Vec::new(),
        }
    }

    /// Number of blobs.
    #[must_use]
    pub const fn blob_count(&self) -> usize {
        self.entries.len()
    }

    /// Length that the pack would have now, but for padding and checksums.
    #[must_use]
    pub fn projected_len(&self) -> u64 {
        self.bytes.len() as u64 + self.entries.len() as u64 * TOC_ENTRY_MAX + 64
    }

    /// Whether a pack should be closed here: in the last quarter before its target where padding
    /// wastes little, at the target anyway.
    #[must_use]
    pub fn is_full(&self, target: u32) -> bool {
        let (len, target) = (self.projected_len(), u64::from(target));
        if len >= target || self.entries.len() as u64 >= u64::from(MAX_PACK_SEGMENTS) {
            return true;
        }
        len >= target - target / 4
            && u32::try_from(len).is_ok_and(|len| u64::from(padme(len) - len) <= target / 256)
    }

    /// Appends a sealed blob. `entry.offset` and `entry.sealed_len` are filled in here.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] where the pack would grow beyond what a pack may be.
    pub fn append(&mut self, mut entry: BlobEntry, sealed: &[u8]) -> Result<(), DecodeError> {
        let grown = self.projected_len() + sealed.len() as u64 + TOC_ENTRY_MAX;
        if grown > u64::from(MAX_PACK_LEN) / 2 {
            return Err(DecodeError::OutOfRange {
                what: "pack length",
                value: grown,
            });
        }
        entry.offset = to_u32(self.bytes.len(), "pack offset")?;
        entry.sealed_len = to_u32(sealed.len(), "sealed length")?;
        self.bytes.extend_from_slice(sealed);
        self.entries.push(entry);
        Ok(())
    }

    /// Seals the table of contents, pads, and computes checksums and name.
    ///
    /// # Errors
    /// [`SealError`] where the key was finished before.
    pub fn finish(mut self) -> Result<FinishedPack, SealError> {
        let mut toc = encode_toc(&self.entries, &Ext::default())?;
        self.key.seal_toc(&mut toc)?;
        let toc_offset = to_u32(self.bytes.len(), "pack length")?;
        let trailer = Trailer::for_pack(toc_offset, to_u32(toc.len(), "toc length")?);
        self.bytes.extend_from_slice(&toc);
        self.bytes
            .resize(self.bytes.len() + to_usize(trailer.padding));
        let sums = shard_sums(&self.bytes, to_usize(trailer.shard_size));
        let id = pack_id(&self.key.header().encode(), &toc, &trailer, &sums);
        self.bytes.extend_from_slice(&sums);
        self.bytes.extend_from_slice(&trailer.encode());
        let group = PackGroup {
            id,
            len: trailer.pack_len(),
            header: self.key.header().clone(),
            entries: self.entries,
            ext: Ext::default(),
        };
        Ok(FinishedPack {
            bytes: self.bytes,
            group,
            key: self.key,
        })
    }
}

impl FinishedPack {
    /// Opens every blob out of the finished bytes and compares its id: what is stored is what
    /// was meant, whatever codec, cipher or memory did meanwhile.
    ///
    /// # Errors
    /// [`VerifyError`] naming the blob that does not come back.
    pub fn verify(&self, roots: &Roots, scratch: &mut Scratch) -> Result<(), VerifyError> {
        let Scratch {
            decoder,
            sealed,
            plain,
        } = scratch;
        for entry in &self.group.entries {
            let bad = || VerifyError {
                blob: entry.id,
                pack: self.group.id,
            };
            let start = to_usize(entry.offset);
            let end = start + to_usize(entry.sealed_len);
            sealed.clear();
            sealed.extend_from_slice(self.bytes.get(start..end).ok_or_else(bad)?);
            let plain = open_blob(&self.key, entry, sealed, decoder, plain).map_err(|_| bad())?;
            if roots.blob_id(entry.kind, plain) != entry.id {
                return Err(bad());
            }
        }
        Ok(())
    }
}

/// What opening blobs needs: kept from pack to pack.
pub struct Scratch {
    decoder: Decoder,
    sealed: Vec<u8>,
    plain: Vec<u8>,
}

impl Scratch {
    /// Empty buffers and a decoder.
    ///
    /// # Errors
    /// No memory for the decoder.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self {
            decoder: Decoder::new()?,
            sealed: Vec::new(),
            plain: Vec::new(),
        })
    }
}

/// Opens and decodes a blob whose sealed bytes are at hand: the plain bytes, in `sealed` or in
/// `scratch`. The id is not checked.
///
/// # Errors
/// [`PackError`] where seal or codec do not hold.
pub fn open_blob<'a>(
    key: &ObjectKey,
    entry: &BlobEntry,
    sealed: &'a mut [u8],
    decoder: &mut Decoder,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], PackError> {
    let encoded = key.open_segment(entry.segment, &entry.segment_info(), sealed)?;
    let codec = Codec::try_from(entry.codec)?;
    Ok(decoder.plain(codec, encoded, to_usize(entry.plain_len), scratch)?)
}

/// A pack that does not come back as it was meant.
#[derive(Debug, thiserror::Error)]
#[error("blob {blob} does not come back out of pack {pack} before upload: bad memory, or a bug")]
pub struct VerifyError {
    /// The blob.
    pub blob: BlobId,
    /// The pack.
    pub pack: PackId,
}

/// XXH3-128 of each shard.
fn shard_sums(bytes: &[u8], shard_size: usize) -> Vec<u8> {
    bytes
        .chunks(shard_size)
        .flat_map(|shard| xxh3_128(shard).to_le_bytes())
        .collect()
}
