//! The stored form of a table: its header, and where its sections start.
//!
//! ```text
//! header   4096: "STRONGIX" version=1 0 0 0 | repo id 16 | u32 entries | u32 packs |
//!          u32 index objects | u32 bases | u32 flags (1 = a pack occurs twice) |
//!          XXH3-64 of the sums | zeros | XXH3-64 of the header before it
//! covered  index object ids, 32 each, ascending
//! packs    148 each, ascending: pack id 32 | u64 length | sealing header 94 | u32 index object |
//!          u32 first place in order | u32 blobs | 0 0
//! fan-out  u32 first entry of each bucket (top bits of the id), and the number of entries
//! entries  36 each, by id: id 0..16 | u32 pack | u32 offset | u32 sealed length |
//!          u32 plain length | u16 segment | kind (top bit: has a base) | codec
//! tails    id 16..32 of each entry
//! order    u32 entry numbers, by pack and offset
//! filter   see `filter`
//! bases    36 each, ascending: u32 entry | base id 32
//! sums     XXH3-64 of every 4096-byte block between header and sums, seeded with its number
//! ```
//!
//! Each section starts at a multiple of 4096; the gaps are zeros. Where a section starts follows
//! from the counts. The layout is that of a cache, not of the repository: it may change, with the
//! version and the suffix of the file name.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    filter::{FILTER_BLOCK, blocks_for},
    row::{ENTRY_LEN, PACK_LEN, TAIL_LEN},
};
use crate::{
    format::{DecodeError, cursor::Reader},
    id::{BlobId, IndexId, RepoId},
};

/// Bytes that are checked at a time.
pub(super) const BLOCK: u64 = 4096;
/// Bytes of the header: one block.
pub(super) const HEADER_LEN: usize = 4096;
/// Bytes of a base: entry number and id.
pub(super) const BASE_LEN: usize = 4 + BlobId::LEN;
/// Most entries of a table: entry numbers are `u32`.
pub(super) const MAX_ENTRIES: u64 = u32::MAX as u64 - 1;

const MAGIC: &[u8; 8] = b"STRONGIX";
const HAS_DUPLICATES: u32 = 1;
pub(super) const WHAT: &str = "index table";
pub(super) const MALFORMED: DecodeError = DecodeError::Malformed { what: WHAT };
pub(super) const CHECKSUM: DecodeError = DecodeError::Checksum { what: WHAT };

/// Numbers from which the layout of a table follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) entries: u32,
    pub(super) packs: u32,
    pub(super) covered: u32,
    pub(super) bases: u32,
    /// Whether a pack stands in the table twice, since two index objects name it.
    pub(super) duplicates: bool,
}

impl Counts {
    /// How many top bits of an id choose its bucket: about 32 entries a bucket.
    pub(super) fn fan_bits(&self) -> u32 {
        (self.entries / 32).checked_ilog2().unwrap_or(0)
    }

    /// The bucket of an id.
    pub(super) fn bucket(&self, id: &BlobId) -> u32 {
        let [b0, b1, b2, b3, ..] = *id.as_bytes();
        let top = u64::from(u32::from_be_bytes([b0, b1, b2, b3]));
        // Below 2^fan_bits.
        u32::try_from((top << self.fan_bits()) >> 32).unwrap_or(0)
    }

    /// The header block.
    pub(super) fn encode(&self, repo: RepoId, sums: u64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[crate::format::VERSION, 0, 0, 0]);
        out.extend_from_slice(repo.as_bytes());
        let flags = if self.duplicates { HAS_DUPLICATES } else { 0 };
        for number in [self.entries, self.packs, self.covered, self.bases, flags] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&sums.to_le_bytes());
        out.resize(HEADER_LEN - 8, 0);
        let sum = xxh3_64(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the header block of a table of `repo`; also the checksum of the sums.
    pub(super) fn decode(header: &[u8], repo: RepoId) -> Result<(Self, u64), DecodeError> {
        let mut reader = Reader::new(header, WHAT);
        reader.magic(MAGIC)?;
        reader.version()?;
        let (covered, sum) = header.split_last_chunk::<8>().ok_or(MALFORMED)?;
        if xxh3_64(covered) != u64::from_le_bytes(*sum) {
            return Err(CHECKSUM);
        }
        if reader.array::<3>()? != [0; 3] || reader.array()? != *repo.as_bytes() {
            return Err(MALFORMED);
        }
        let entries = reader.u32_up_to(u32::MAX - 1, "entry count")?;
        let packs = reader.u32_up_to(u32::MAX - 1, "pack count")?;
        let covered = reader.u32()?;
        let bases = reader.u32_up_to(entries, "base count")?;
        let flags = reader.u32_up_to(HAS_DUPLICATES, "flags")?;
        let duplicates = flags == HAS_DUPLICATES;
        let sums = reader.u64()?;
        let counts = Self {
            entries,
            packs,
            covered,
            bases,
            duplicates,
        };
        Ok((counts, sums))
    }
}

/// Where the sections start, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) covered: u64,
    pub(super) packs: u64,
    pub(super) fan: u64,
    pub(super) entries: u64,
    pub(super) tails: u64,
    pub(super) order: u64,
    pub(super) filter: u64,
    pub(super) bases: u64,
    pub(super) sums: u64,
    pub(super) end: u64,
}

impl Layout {
    /// The layout of a table. Counts are 32 bits wide, so nothing overflows.
    pub(super) fn of(counts: &Counts) -> Self {
        let mut at = HEADER_LEN as u64;
        let mut section = |len: u64| {
            let start = at;
            at += len.next_multiple_of(BLOCK);
            start
        };
        let entries = u64::from(counts.entries);
        let covered = section(u64::from(counts.covered) * IndexId::LEN as u64);
        let packs = section(u64::from(counts.packs) * PACK_LEN as u64);
        let fan = section(((1 << counts.fan_bits()) + 1) * 4);
        let entries_at = section(entries * ENTRY_LEN as u64);
        let tails = section(entries * TAIL_LEN as u64);
        let order = section(entries * 4);
        let filter = section(u64::from(blocks_for(counts.entries)) * FILTER_BLOCK as u64);
        let bases = section(u64::from(counts.bases) * BASE_LEN as u64);
        let sums = at;
        let blocks = (sums - HEADER_LEN as u64) / BLOCK;
        Self {
            covered,
            packs,
            fan,
            entries: entries_at,
            tails,
            order,
            filter,
            bases,
            sums,
            end: sums + blocks * 8,
        }
    }
}

/// The checksum of a block; `number` counts from 0 behind the header.
pub(super) fn block_sum(block: &[u8], number: u64) -> u64 {
    xxh3_64_with_seed(block, number)
}

const _: () = {
    assert!(BLOCK == HEADER_LEN as u64);
    assert!(HEADER_LEN.is_multiple_of(FILTER_BLOCK));
    // As the table above says.
    assert!(ENTRY_LEN == 36 && BASE_LEN == 36 && PACK_LEN == 148);
};
