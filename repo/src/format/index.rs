//! An index object: what some packs hold, so that one ranged read opens a blob.
//!
//! ```text
//! body  = version=1 | u32 pack count | groups | ext             (plain, inside the seal)
//! group = pack id 32 | u64 pack length | u16 header length | sealing header |
//!         u32 blob count | entries as in the pack's table of contents | ext
//! ```

use super::{
    DecodeError,
    cursor::{Reader, to_u32},
    pack::{BlobEntry, read_entries},
    record::Ext,
};
use crate::{
    crypto::{SealHeader, SealKind},
    id::PackId,
    limits::MAX_PACK_SEGMENTS,
};

const WHAT: &str = "index";

/// What one index object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexBody {
    /// Packs, each in one group.
    pub packs: Vec<PackGroup>,
    /// Extensions.
    pub ext: Ext,
}

/// What one pack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackGroup {
    /// The pack.
    pub id: PackId,
    /// Length of the pack object.
    pub len: u64,
    /// The pack's sealing header, so that a blob opens without reading the pack's front.
    pub header: SealHeader,
    /// The blobs, by offset.
    pub entries: Vec<BlobEntry>,
    /// Extensions.
    pub ext: Ext,
}

impl IndexBody {
    /// The plain bytes.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] for more packs or blobs than the layout can count.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![super::VERSION];
        out.extend_from_slice(&to_u32(self.packs.len(), "pack count")?.to_le_bytes());
        for pack in &self.packs {
            out.extend_from_slice(pack.id.as_bytes());
            out.extend_from_slice(&pack.len.to_le_bytes());
            let header = pack.header.encode();
            let header_len =
                u16::try_from(header.len()).map_err(|_| DecodeError::Malformed { what: WHAT })?;
            out.extend_from_slice(&header_len.to_le_bytes());
            out.extend_from_slice(&header);
            out.extend_from_slice(&to_u32(pack.entries.len(), "blob count")?.to_le_bytes());
            for entry in &pack.entries {
                entry.put(&mut out);
            }
            pack.ext.put(&mut out)?;
        }
        self.ext.put(&mut out)?;
        Ok(out)
    }

    /// Reads the plain bytes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.version()?;
        let count = reader.u32()?;
        let mut packs = Vec::new();
        for _ in 0..count {
            packs.push(PackGroup::read(&mut reader)?);
        }
        let ext = Ext::read(&mut reader, &[], WHAT)?;
        reader.finish()?;
        Ok(Self { packs, ext })
    }
}

impl PackGroup {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = PackId::new(reader.array()?);
        let len = reader.u64()?;
        let header_len = usize::from(reader.u16()?);
        let mut header_reader = Reader::new(reader.take(header_len)?, WHAT);
        let header = SealHeader::read(&mut header_reader)?;
        header_reader.finish()?;
        if header.kind != SealKind::Pack {
            return Err(DecodeError::UnknownTag {
                what: WHAT,
                tag: header.kind as u64,
            });
        }
        let count = reader.u32_up_to(MAX_PACK_SEGMENTS, "blob count")?;
        let entries = read_entries(reader, count)?;
        if entries.iter().any(|entry| entry.end() > len) {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        let ext = Ext::read(reader, &[], WHAT)?;
        Ok(Self {
            id,
            len,
            header,
            entries,
            ext,
        })
    }
}

/// Body of the fuzz target: no bytes panic, and what decodes encodes to the same bytes.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_index(data: &[u8]) {
    if let Ok(index) = IndexBody::decode(data) {
        assert_eq!(index.encode().as_deref(), Ok(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{BlobKind, SealKind},
        id::{BlobId, EpochId},
    };

    fn sample() -> IndexBody {
        let entry = BlobEntry {
            kind: BlobKind::Data,
            codec: 1,
            base: None,
            segment: 0,
            offset: 94,
            sealed_len: 17,
            plain_len: 1,
            id: BlobId::new([3; 32]),
        };
        let header = SealHeader {
            kind: SealKind::Pack,
            epoch: EpochId::new([4; 16]),
            salt: [5; 32],
            commit: [6; 32],
        };
        let pack = PackGroup {
            id: PackId::new([2; 32]),
            len: 1000,
            header,
            entries: vec![entry],
            ext: Ext::default(),
        };
        IndexBody {
            packs: vec![pack],
            ext: Ext::default(),
        }
    }

    #[test]
    fn golden_bytes() {
        let mut expected = vec![1, 1, 0, 0, 0];
        expected.extend_from_slice(&[2; 32]);
        expected.extend_from_slice(&[0xe8, 3, 0, 0, 0, 0, 0, 0, 94, 0]);
        expected.extend_from_slice(&sample().packs[0].header.encode());
        expected.extend_from_slice(&[1, 0, 0, 0]);
        expected.extend_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 94, 0, 0, 0, 17, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend_from_slice(&[3; 32]);
        expected.extend_from_slice(&[0, 0, 0, 0]);
        assert_eq!(sample().encode().unwrap(), expected);
        assert_eq!(IndexBody::decode(&expected).unwrap(), sample());
    }

    #[test]
    fn no_cut_is_accepted_and_a_blob_beyond_its_pack_is_refused() {
        let bytes = sample().encode().unwrap();
        for len in 0..bytes.len() {
            assert!(IndexBody::decode(&bytes[..len]).is_err());
        }
        let mut short = sample();
        short.packs[0].len = 110;
        assert!(IndexBody::decode(&short.encode().unwrap()).is_err());
    }
}
