//! The filter of a table: says for most unknown blobs that they are unknown, at the price of one
//! cache line. A blocked Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient
//! Bloom Filters", 2007): all bits of an id lie in one block of 512 bits, 10 bits an entry, 7 bits
//! set, about 1.3 % false positives. It can be filled in any order and with a count known in
//! advance, which a streaming merge needs.
//!
//! Ids are keyed hashes, so their own bytes serve as hash values; other bytes than the fan-out
//! takes. Ids that are not random make it say "perhaps" more often, never "no" wrongly.

use crate::{format::cursor::to_usize, id::BlobId};

/// Bytes of a block: a cache line.
pub(super) const FILTER_BLOCK: usize = 64;
const BLOCK_BITS: u64 = 512;
const BITS_PER_ENTRY: u64 = 10;
const PROBES: u32 = 7;

/// Number of blocks for so many entries; at least one.
pub(super) fn blocks_for(entries: u32) -> u32 {
    let blocks = (u64::from(entries) * BITS_PER_ENTRY).div_ceil(BLOCK_BITS);
    u32::try_from(blocks).unwrap_or(u32::MAX).max(1)
}

/// Where an id stands: its block, and the bits in it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Number of the block.
    pub(super) block: u32,
    bits: u64,
}

impl Place {
    /// The place of `id` in a filter of so many blocks.
    pub(super) fn of(id: &BlobId, blocks: u32) -> Self {
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            b0,
            b1,
            b2,
            b3,
            _,
            _,
            _,
            _,
            rest @ ..,
        ] = id.as_bytes();
        let spread = u64::from(u32::from_le_bytes([*b0, *b1, *b2, *b3]));
        // Below `blocks`, which is a u32.
        let block = u32::try_from((spread * u64::from(blocks)) >> 32).unwrap_or(0);
        let [b0, b1, b2, b3, b4, b5, b6, b7, ..] = *rest;
        let bits = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        Self { block, bits }
    }

    /// The bits: byte of the block and mask.
    fn probes(self) -> impl Iterator<Item = (usize, u8)> {
        (0..PROBES).map(move |probe| {
            let bit = (self.bits >> (probe * 9)) % BLOCK_BITS;
            // Below 64.
            let byte = usize::try_from(bit / 8).unwrap_or(0);
            (byte, 1 << (bit % 8))
        })
    }

    /// Whether the id may be among those that were added; `block` is its block.
    pub(super) fn is_in(self, block: &[u8]) -> bool {
        self.probes()
            .all(|(byte, mask)| block.get(byte).is_none_or(|byte| byte & mask != 0))
    }
}

/// A filter being filled.
pub(super) struct FilterBuilder {
    blocks: u32,
    bytes: Vec<u8>,
}

impl FilterBuilder {
    /// An empty filter for so many entries.
    pub(super) fn new(entries: u32) -> Self {
        let blocks = blocks_for(entries);
        let bytes = vec![0; to_usize(blocks) * FILTER_BLOCK];
        Self { blocks, bytes }
    }

    /// Adds an id.
    pub(super) fn add(&mut self, id: &BlobId) {
        let place = Place::of(id, self.blocks);
        let start = to_usize(place.block) * FILTER_BLOCK;
        for (byte, mask) in place.probes() {
            if let Some(byte) = self.bytes.get_mut(start + byte) {
                *byte |= mask;
            }
        }
    }

    /// The stored form: the blocks, back to back.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> BlobId {
        BlobId::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn what_was_added_is_found_and_little_else() {
        let count = 50_000;
        let mut filter = FilterBuilder::new(count);
        for number in 0..count {
            filter.add(&id(number));
        }
        let is_in = |id: &BlobId| {
            let place = Place::of(id, filter.blocks);
            let start = to_usize(place.block) * FILTER_BLOCK;
            place.is_in(&filter.bytes()[start..start + FILTER_BLOCK])
        };
        assert!((0..count).all(|number| is_in(&id(number))));
        let wrong = (count..3 * count)
            .filter(|number| is_in(&id(*number)))
            .count();
        assert!(wrong < 2 * to_usize(count) / 50, "{wrong} false positives");
    }

    #[test]
    fn a_filter_for_nothing_has_one_block_that_says_no() {
        let filter = FilterBuilder::new(0);
        assert_eq!(filter.bytes().len(), FILTER_BLOCK);
        assert!(!Place::of(&id(1), filter.blocks).is_in(filter.bytes()));
    }
}
