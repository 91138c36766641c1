//! A pack's table of contents, its trailer and its name.
//!
//! ```text
//! pack    = sealing header 94 | sealed segments, back to back | sealed table of contents |
//!           zero padding | shard checksums | trailer
//! toc     = version=1 | u32 count | count entries | ext            (plain, inside the seal)
//! entry   = kind | codec | flags (1 = base follows) | 0 | u32 segment | u32 offset |
//!           u32 sealed length | u32 plain length | id 32 [| base id 32]
//! trailer = "STRONGPK" version=1 0 0 0 | u32 toc offset | u32 sealed toc length | u32 padding |
//!           u32 shard size | u32 shard count | u32 0 | XXH3-64 of the trailer before it
//! name    = BLAKE3(header | sealed toc | u32 padding | shard checksums | trailer)
//! ```
//!
//! Entries stand in the order of their offsets, without gaps. Shards divide everything from the
//! header through the padding; a checksum is XXH3-128, little-endian.

use super::{DecodeError, cursor::Reader, record::Ext};
use crate::{
    crypto::{BlobKind, SealHeader, SegmentInfo, TAG_LEN},
    id::{BlobId, PackId},
    limits::{MAX_BLOB_LEN, MAX_PACK_LEN, MAX_PACK_SEGMENTS},
};

const TRAILER_MAGIC: &[u8; 8] = b"STRONGPK";
const TOC: &str = "table of contents";
const TRAILER: &str = "pack trailer";
const HAS_BASE: u8 = 1;

/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 8 + 4 + 6 * 4 + 8;
/// Bytes of one shard checksum.
pub const SHARD_SUM_LEN: usize = 16;

/// Where a blob lies in its pack, and what is needed to open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// What the blob holds.
    pub kind: BlobKind,
    /// Codec byte; a codec that this program does not know is met only when decoding.
    pub codec: u8,
    /// The blob it is a delta against.
    pub base: Option<BlobId>,
    /// Segment number.
    pub segment: u32,
    /// Offset of the sealed bytes in the pack.
    pub offset: u32,
    /// Length of the sealed bytes, tag included.
    pub sealed_len: u32,
    /// Length of the plain bytes.
    pub plain_len: u32,
    /// The blob's id.
    pub id: BlobId,
}

impl BlobEntry {
    /// What the seal of this blob's segment binds.
    #[must_use]
    pub const fn segment_info(&self) -> SegmentInfo {
        SegmentInfo {
            kind: Some(self.kind),
            id: self.id,
            plain_len: self.plain_len,
            codec: self.codec,
            base: self.base,
        }
    }

    /// The offset of the first byte behind the blob.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset as u64 + self.sealed_len as u64
    }

    /// Appends the stored form.
    pub fn put(&self, out: &mut Vec<u8>) {
        let flags = if self.base.is_some() { HAS_BASE } else { 0 };
        out.extend_from_slice(&[self.kind as u8, self.codec, flags, 0]);
        for number in [self.segment, self.offset, self.sealed_len, self.plain_len] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(self.id.as_bytes());
        if let Some(base) = &self.base {
            out.extend_from_slice(base.as_bytes());
        }
    }

    /// Reads the stored form and checks each field's bounds.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = BlobKind::try_from(reader.u8()?)?;
        let codec = reader.u8()?;
        let flags = reader.u8()?;
        if flags & !HAS_BASE != 0 || reader.u8()? != 0 {
            return Err(DecodeError::UnknownTag {
                what: "blob flags",
                tag: u64::from(flags),
            });
        }
        let segment = reader.u32_up_to(MAX_PACK_SEGMENTS - 1, "segment number")?;
        let offset = reader.u32_up_to(MAX_PACK_LEN, "blob offset")?;
        let sealed_len = reader.u32_up_to(MAX_PACK_LEN, "sealed length")?;
        let plain_len = reader.u32_up_to(MAX_BLOB_LEN, "plain length")?;
        let id = BlobId::new(reader.array()?);
        let base = if flags & HAS_BASE == 0 {
            None
        } else {
            Some(BlobId::new(reader.array()?))
        };
        if u64::from(sealed_len) < TAG_LEN as u64 {
            let value = u64::from(sealed_len);
            return Err(DecodeError::OutOfRange {
                what: "sealed length",
                value,
            });
        }
        Ok(Self {
            kind,
            codec,
            base,
            segment,
            offset,
            sealed_len,
            plain_len,
            id,
        })
    }
}

/// Encodes a table of contents.
///
/// # Errors
/// [`DecodeError::OutOfRange`] for more entries than a pack may have.
pub fn encode_toc(entries: &[BlobEntry], ext: &Ext) -> Result<Vec<u8>, DecodeError> {
    let value = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    let count = u32::try_from(entries.len())
        .ok()
        .filter(|count| *count <= MAX_PACK_SEGMENTS)
        .ok_or(DecodeError::OutOfRange {
            what: "blob count",
            value,
        })?;
    let mut out = vec![super::VERSION];
    out.extend_from_slice(&count.to_le_bytes());
    for entry in entries {
        entry.put(&mut out);
    }
    ext.put(&mut out)?;
    Ok(out)
}

/// Reads a table of contents. Entries lie back to back behind the header, up to `toc_offset`, and
/// every segment number occurs once.
///
/// # Errors
/// [`DecodeError`].
pub fn decode_toc(toc: &[u8], toc_offset: u32) -> Result<(Vec<BlobEntry>, Ext), DecodeError> {
    let mut reader = Reader::new(toc, TOC);
    reader.version()?;
    let count = reader.u32_up_to(MAX_PACK_SEGMENTS, "blob count")?;
    let entries = read_entries(&mut reader, count)?;
    let ext = Ext::read(&mut reader, &[], TOC)?;
    reader.finish()?;
    check_layout(&entries, toc_offset)?;
    Ok((entries, ext))
}

/// Reads `count` entries; allocates no more than the bytes that are there can hold.
///
/// # Errors
/// [`DecodeError`].
pub fn read_entries(reader: &mut Reader<'_>, count: u32) -> Result<Vec<BlobEntry>, DecodeError> {
    const SMALLEST: usize = 4 + 16 + 32;
    let fits = reader.rest().len() / SMALLEST;
    let mut entries = Vec::with_capacity(fits.min(super::cursor::to_usize(count)));
    for _ in 0..count {
        entries.push(BlobEntry::read(reader)?);
    }
    Ok(entries)
}

/// Checks that entries lie back to back from the header to `toc_offset`.
fn check_layout(entries: &[BlobEntry], toc_offset: u32) -> Result<(), DecodeError> {
    let malformed = DecodeError::Malformed { what: TOC };
    let mut seen = vec![false; entries.len()];
    let mut at = SealHeader::LEN as u64;
    for entry in entries {
        let slot = seen
            .get_mut(super::cursor::to_usize(entry.segment))
            .ok_or(malformed)?;
        if u64::from(entry.offset) != at || std::mem::replace(slot, true) {
            return Err(malformed);
        }
        at = entry.end();
    }
    if at == u64::from(toc_offset) {
        Ok(())
    } else {
        Err(malformed)
    }
}

/// The last bytes of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Offset of the sealed table of contents.
    pub toc_offset: u32,
    /// Its sealed length.
    pub toc_len: u32,
    /// Zero bytes behind it.
    pub padding: u32,
    /// Bytes of a shard.
    pub shard_size: u32,
    /// Number of shards.
    pub shard_count: u32,
}

impl Trailer {
    /// A trailer for a pack whose table of contents ends at `end`, padded to its bucket.
    #[must_use]
    pub fn for_pack(toc_offset: u32, toc_len: u32) -> Self {
        let end = toc_offset + toc_len;
        let padded = bucket(end);
        let shard_size = shard_size(padded);
        Self {
            toc_offset,
            toc_len,
            padding: padded - end,
            shard_size,
            shard_count: padded.div_ceil(shard_size),
        }
    }

    /// Length of what the shards cover: header through padding.
    #[must_use]
    pub const fn covered_len(&self) -> u32 {
        self.toc_offset + self.toc_len + self.padding
    }

    /// Length of the whole pack.
    #[must_use]
    pub const fn pack_len(&self) -> u64 {
        self.covered_len() as u64
            + self.shard_count as u64 * SHARD_SUM_LEN as u64
            + TRAILER_LEN as u64
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = TRAILER_MAGIC.to_vec();
        out.extend_from_slice(&[super::VERSION, 0, 0, 0]);
        for number in [
            self.toc_offset,
            self.toc_len,
            self.padding,
            self.shard_size,
            self.shard_count,
            0,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let sum = xxhash_rust::xxh3::xxh3_64(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the stored form; all numbers agree with each other.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let malformed = DecodeError::Malformed { what: TRAILER };
        let mut reader = Reader::new(bytes, TRAILER);
        reader.magic(TRAILER_MAGIC)?;
        reader.version()?;
        if reader.array::<3>()? != [0; 3] {
            return Err(malformed);
        }
        let toc_offset = reader.u32_up_to(MAX_PACK_LEN, "toc offset")?;
        let toc_len = reader.u32_up_to(MAX_PACK_LEN, "toc length")?;
        let padding = reader.u32_up_to(MAX_PACK_LEN, "padding")?;
        let found = Self {
            toc_offset,
            toc_len,
            padding,
            shard_size: reader.u32()?,
            shard_count: reader.u32()?,
        };
        if reader.u32()? != 0 {
            return Err(malformed);
        }
        let sum = reader.u64()?;
        reader.finish()?;
        let covered = bytes.get(..TRAILER_LEN - 8).ok_or(malformed)?;
        if xxhash_rust::xxh3::xxh3_64(covered) != sum {
            return Err(DecodeError::Checksum { what: TRAILER });
        }
        // How much padding is the writer's choice; the shards follow from it.
        let covered = u64::from(toc_offset) + u64::from(toc_len) + u64::from(padding);
        let fits = covered <= u64::from(MAX_PACK_LEN)
            && found.shard_size.is_power_of_two()
            && (512..=65536).contains(&found.shard_size);
        if !fits || u64::from(found.shard_count) != covered.div_ceil(found.shard_size.into()) {
            return Err(malformed);
        }
        Ok(found)
    }
}

/// From this length on a pack counts as full: how long it is tells of its last blob only.
const FULL: u32 = 16 << 20;
/// Distance of the lengths that full packs have.
const FULL_STEP: u32 = 64 << 10;

/// Rounds a length up to the next that packs may have: steps of 64 KiB for full packs, whose
/// number and target say more than their lengths; Padmé's for the rest, where the length could
/// tell how little was stored.
#[must_use]
pub const fn bucket(len: u32) -> u32 {
    if len < FULL {
        padme(len)
    } else {
        len.next_multiple_of(FULL_STEP)
    }
}

/// Rounds a length up to its Padmé bucket (Nikitin et al., "Reducing Metadata Leakage from
/// Encrypted Files and Communication with PURBs", PoPETs 2019): at most log2 log2 significant
/// bits stay.
#[must_use]
const fn padme(len: u32) -> u32 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let significant = exponent.ilog2() + 1;
    let mask = (1_u32 << exponent.saturating_sub(significant)) - 1;
    (len + mask) & !mask
}

/// Bytes of a shard of a pack whose padded length is `covered`: about a thousandth of it.
const fn shard_size(covered: u32) -> u32 {
    let size = covered.div_ceil(1024).next_power_of_two();
    if size < 512 {
        512
    } else if size > 65536 {
        65536
    } else {
        size
    }
}

/// The name of a pack, from the parts that it is made of.
#[must_use]
pub fn pack_id(header: &[u8], sealed_toc: &[u8], trailer: &Trailer, shard_sums: &[u8]) -> PackId {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(header)
        .update(sealed_toc)
        .update(&trailer.padding.to_le_bytes())
        .update(shard_sums)
        .update(&trailer.encode());
    PackId::new(hasher.finalize().into())
}

/// Body of the fuzz target: no bytes panic, and what decodes encodes to the same bytes.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_pack(data: &[u8]) {
    if let Ok(trailer) = Trailer::decode(data) {
        assert_eq!(trailer.encode(), data);
    }
    let Some((offset, toc)) = data.split_first_chunk::<4>() else {
        return;
    };
    if let Ok((entries, ext)) = decode_toc(toc, u32::from_le_bytes(*offset)) {
        assert_eq!(encode_toc(&entries, &ext).as_deref(), Ok(toc));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> Vec<BlobEntry> {
        let first = BlobEntry {
            kind: BlobKind::Data,
            codec: 2,
            base: None,
            segment: 1,
            offset: 94,
            sealed_len: 20,
            plain_len: 300,
            id: BlobId::new([7; 32]),
        };
        let second = BlobEntry {
            kind: BlobKind::Tree,
            base: Some(BlobId::new([8; 32])),
            segment: 0,
            offset: 114,
            ..first
        };
        vec![first, second]
    }

    #[test]
    fn golden_bytes() {
        let toc = encode_toc(&entries(), &Ext::default()).unwrap();
        let mut expected = vec![1, 2, 0, 0, 0];
        expected.extend_from_slice(&[
            1, 2, 0, 0, 1, 0, 0, 0, 94, 0, 0, 0, 20, 0, 0, 0, 44, 1, 0, 0,
        ]);
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&[
            2, 2, 1, 0, 0, 0, 0, 0, 114, 0, 0, 0, 20, 0, 0, 0, 44, 1, 0, 0,
        ]);
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&[8; 32]);
        expected.extend_from_slice(&[0, 0]);
        assert_eq!(toc, expected);
        assert_eq!(decode_toc(&toc, 134).unwrap(), (entries(), Ext::default()));
        let trailer = Trailer::for_pack(134, 50).encode();
        assert_eq!(trailer.len(), TRAILER_LEN);
        assert_eq!(
            trailer[..36],
            *b"STRONGPK\x01\0\0\0\x86\0\0\0\x32\0\0\0\x08\0\0\0\0\x02\0\0\x01\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn gaps_overlaps_and_doubled_segments_are_refused() {
        let toc = encode_toc(&entries(), &Ext::default()).unwrap();
        assert!(decode_toc(&toc, 133).is_err());
        let mut gap = entries();
        gap[1].offset += 1;
        let mut doubled = entries();
        doubled[1].segment = 1;
        let mut beyond = entries();
        beyond[1].segment = 2;
        for bad in [gap, doubled, beyond] {
            let toc = encode_toc(&bad, &Ext::default()).unwrap();
            assert_eq!(
                decode_toc(&toc, 134),
                Err(DecodeError::Malformed { what: TOC })
            );
        }
    }

    #[test]
    fn a_count_that_lies_allocates_nothing_and_is_refused() {
        let mut toc = encode_toc(&[], &Ext::default()).unwrap();
        toc[1..5].copy_from_slice(&65536_u32.to_le_bytes());
        assert!(decode_toc(&toc, 94).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_trailer_is_noticed() {
        let trailer = Trailer::for_pack(1000, 50).encode();
        for bit in 0..trailer.len() * 8 {
            let mut damaged = trailer.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Trailer::decode(&damaged).is_err(), "{bit}");
        }
    }

    proptest! {
        #[test]
        fn padding_is_small_and_buckets_stay_where_they_are(len in 64_u32..(1 << 30)) {
            let padded = bucket(len);
            prop_assert!(padded >= len);
            prop_assert!(u64::from(padded - len) * 100 <= u64::from(len) * 12);
            prop_assert!(len < FULL || padded - len < FULL_STEP);
            prop_assert_eq!(bucket(padded), padded);
            prop_assert!(bucket(len + 1) >= padded);
        }

        #[test]
        fn shards_cover_every_length(offset in 94_u32..(1 << 29), toc in 16_u32..10_000) {
            let trailer = Trailer::for_pack(offset, toc);
            prop_assert!(trailer.shard_count <= 16384 + 1);
            prop_assert!(u64::from(trailer.shard_count) * u64::from(trailer.shard_size)
                >= u64::from(trailer.covered_len()));
            prop_assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
        }

        #[test]
        fn decoding_never_panics(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_pack(&data);
        }
    }
}
