//! From sealed blobs to the bytes of a pack. Pure: no I/O, no choice of what goes in.

use std::{collections::HashMap, sync::Arc};

use xxhash_rust::xxh3::xxh3_128;

use crate::{
    aligned::AlignedBuf,
    codec::{Codec, CodecError, Decoder},
    crypto::{ObjectKey, Roots, SealError},
    format::{
        DecodeError,
        cursor::{to_u32, to_usize},
        index::PackGroup,
        pack::{BlobEntry, Trailer, bucket, encode_toc, pack_id},
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
    proven: HashMap<u32, u128>,
}

/// A pack ready to be stored.
pub struct FinishedPack {
    /// Its bytes.
    pub bytes: AlignedBuf,
    /// Its name, and what an index says of it.
    pub group: PackGroup,
    /// The key, for verifying.
    pub key: Arc<ObjectKey>,
    /// By segment, checksums of encodings that were decoded and compared before they were sealed.
    proven: HashMap<u32, u128>,
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
            proven: HashMap::new(),
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
            && u32::try_from(len).is_ok_and(|len| u64::from(bucket(len) - len) <= target / 1024)
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

    /// Notes that the encoding of this checksum was decoded with its base and is the blob of
    /// `segment`, so that [`FinishedPack::verify`] can do without the base.
    pub fn prove(&mut self, segment: u32, checksum: u128) {
        self.proven.insert(segment, checksum);
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
            proven: self.proven,
        })
    }
}

impl FinishedPack {
    /// Opens every blob out of the finished bytes and compares its id: what is stored is what
    /// was meant, whatever codec, cipher or memory did meanwhile. A delta was decoded and compared
    /// before ([`PackBuilder::prove`]): here its encoding has to be the same as then.
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
            if entry.base.is_some() {
                self.verify_delta(entry, sealed).ok_or_else(bad)?;
                continue;
            }
            let plain =
                open_blob(&self.key, entry, sealed, None, decoder, plain).map_err(|_| bad())?;
            if roots.blob_id(entry.kind, plain) != entry.id {
                return Err(bad());
            }
        }
        Ok(())
    }

    /// Deltas were decoded while their base was at hand; what is sealed has to be what was decoded.
    fn verify_delta(&self, entry: &BlobEntry, sealed: &mut [u8]) -> Option<()> {
        let encoded = self
            .key
            .open_segment(entry.segment, &entry.segment_info(), sealed)
            .ok()?;
        (self.proven.get(&entry.segment) == Some(&xxh3_128(encoded))).then_some(())
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

    /// Decodes a delta and compares it with what it was made from.
    ///
    /// # Errors
    /// [`CodecError::Differs`], or why it cannot be decoded.
    pub(crate) fn compare_delta(
        &mut self,
        codec: Codec,
        encoded: &[u8],
        base: &[u8],
        plain: &[u8],
    ) -> Result<(), CodecError> {
        let (base, out) = (Some(base), &mut self.plain);
        self.decoder
            .decode(codec, encoded, base, plain.len(), out)?;
        if out != plain {
            return Err(CodecError::Differs { codec });
        }
        Ok(())
    }
}

/// Opens and decodes a blob whose sealed bytes are at hand, with the plain bytes of its base where
/// it has one: the plain bytes, in `sealed` or in `scratch`. The id is not checked.
///
/// # Errors
/// [`PackError`] where seal or codec do not hold.
pub fn open_blob<'a>(
    key: &ObjectKey,
    entry: &BlobEntry,
    sealed: &'a mut [u8],
    base: Option<&[u8]>,
    decoder: &mut Decoder,
    scratch: &'a mut Vec<u8>,
) -> Result<&'a [u8], PackError> {
    let encoded = key.open_segment(entry.segment, &entry.segment_info(), sealed)?;
    let codec = Codec::try_from(entry.codec)?;
    Ok(decoder.plain(codec, encoded, base, to_usize(entry.plain_len), scratch)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Encoder, Hint, Level};

    #[test]
    fn a_delta_that_does_not_give_back_what_it_was_made_from_is_not_sealed() {
        let mut base = vec![0; 100_000];
        blake3::Hasher::new().finalize_xof().fill(&mut base);
        let mut plain = base.clone();
        plain[5000] ^= 1;
        let mut encoded = Vec::new();
        let codec = Encoder::new(Level::Auto)
            .unwrap()
            .encode_delta(Hint::Plain, &plain, &base, 50_000, &mut encoded)
            .unwrap()
            .unwrap();
        let mut scratch = Scratch::new().unwrap();
        scratch
            .compare_delta(codec, &encoded, &base, &plain)
            .unwrap();
        // As bad memory would have it.
        plain[6000] ^= 1;
        assert_eq!(
            scratch.compare_delta(codec, &encoded, &base, &plain),
            Err(CodecError::Differs { codec })
        );
    }
}
