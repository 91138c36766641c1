//! What a table holds, in memory and as bytes: entries and packs. Where rows stand and how they
//! are checked is the business of `table`.

use super::layout::{MALFORMED, WHAT};
use crate::{
    crypto::{BlobKind, SealHeader},
    format::{DecodeError, cursor::Reader, pack::BlobEntry},
    id::{BlobId, PackId},
};

/// Bytes of an id that stand in the entry itself.
pub(super) const PREFIX_LEN: usize = 16;
/// Bytes of an id that stand in the section of tails.
pub(super) const TAIL_LEN: usize = BlobId::LEN - PREFIX_LEN;
/// Bytes of an entry.
pub(super) const ENTRY_LEN: usize = PREFIX_LEN + 4 * 4 + 4;
/// Bytes of a pack.
pub(super) const PACK_LEN: usize = PackId::LEN + 8 + SealHeader::LEN + 3 * 4 + 2;

/// Top bit of the kind byte: the entry has a base. The codec byte is free for all 256 values.
const HAS_BASE: u8 = 0x80;

/// An entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: BlobId,
    /// Number of the pack.
    pub(super) pack: u32,
    pub(super) offset: u32,
    pub(super) sealed_len: u32,
    pub(super) plain_len: u32,
    pub(super) segment: u16,
    pub(super) kind: BlobKind,
    pub(super) codec: u8,
    pub(super) has_base: bool,
}

impl Row {
    /// The row of a blob; `None` for a segment number beyond the format's limit.
    pub(super) fn new(pack: u32, entry: &BlobEntry) -> Option<Self> {
        Some(Self {
            id: entry.id,
            pack,
            offset: entry.offset,
            sealed_len: entry.sealed_len,
            plain_len: entry.plain_len,
            segment: u16::try_from(entry.segment).ok()?,
            kind: entry.kind,
            codec: entry.codec,
            has_base: entry.base.is_some(),
        })
    }

    /// The blob as an index object has it.
    pub(super) fn blob(&self, base: Option<BlobId>) -> BlobEntry {
        BlobEntry {
            kind: self.kind,
            codec: self.codec,
            base,
            segment: u32::from(self.segment),
            offset: self.offset,
            sealed_len: self.sealed_len,
            plain_len: self.plain_len,
            id: self.id,
        }
    }

    /// Appends the two stored halves.
    pub(super) fn put(&self, entries: &mut Vec<u8>, tails: &mut Vec<u8>) {
        let (prefix, tail) = self.id.as_bytes().split_at(PREFIX_LEN);
        entries.extend_from_slice(prefix);
        for number in [self.pack, self.offset, self.sealed_len, self.plain_len] {
            entries.extend_from_slice(&number.to_le_bytes());
        }
        entries.extend_from_slice(&self.segment.to_le_bytes());
        let flag = if self.has_base { HAS_BASE } else { 0 };
        entries.extend_from_slice(&[self.kind as u8 | flag, self.codec]);
        tails.extend_from_slice(tail);
    }

    /// Reads the two stored halves.
    pub(super) fn decode(
        entry: &[u8; ENTRY_LEN],
        tail: &[u8; TAIL_LEN],
    ) -> Result<Self, DecodeError> {
        let mut id = [0; BlobId::LEN];
        let (front, back) = id.split_at_mut(PREFIX_LEN);
        let mut reader = Reader::new(entry, WHAT);
        front.copy_from_slice(reader.take(PREFIX_LEN)?);
        back.copy_from_slice(tail);
        let [pack, offset] = [reader.u32()?, reader.u32()?];
        let [sealed_len, plain_len] = [reader.u32()?, reader.u32()?];
        let segment = reader.u16()?;
        let [kind, codec] = reader.array()?;
        Ok(Self {
            id: BlobId::new(id),
            pack,
            offset,
            sealed_len,
            plain_len,
            segment,
            kind: BlobKind::try_from(kind & !HAS_BASE)?,
            codec,
            has_base: kind & HAS_BASE != 0,
        })
    }
}

/// A pack of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackRow {
    pub(super) id: PackId,
    /// Length of the pack object.
    pub(super) len: u64,
    pub(super) header: SealHeader,
    /// Number of the index object among those covered.
    pub(super) index: u32,
    /// Its first place in the order section.
    pub(super) first: u32,
    /// How many blobs it holds.
    pub(super) blobs: u32,
}

impl PackRow {
    /// Appends the stored form.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.header.encode());
        for number in [self.index, self.first, self.blobs] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[0; 2]);
    }

    /// Reads the stored form.
    pub(super) fn decode(bytes: &[u8; PACK_LEN]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, WHAT);
        let row = Self {
            id: PackId::new(reader.array()?),
            len: reader.u64()?,
            header: SealHeader::read(&mut reader)?,
            index: reader.u32()?,
            first: reader.u32()?,
            blobs: reader.u32()?,
        };
        if reader.array()? != [0; 2] {
            return Err(MALFORMED);
        }
        reader.finish()?;
        Ok(row)
    }
}
