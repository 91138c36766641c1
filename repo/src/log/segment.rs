//! `logseg/<k>`: the exact objects of entries (k-1)*1024+1 to k*1024 in one object, so that a new
//! client reads history quickly. A twin, never an authority: every entry is verified as if it
//! had been read alone, and a segment that is missing, damaged or too large is done without.
//!
//! ```text
//! "STRONGLS" version=1 0 0 0 | k u64 | count u32 | per entry: u32 length, bytes | BLAKE3 32
//! ```

use std::ops::Range;

use crate::{
    format::{
        DecodeError, VERSION,
        cursor::{Reader, put_bytes, to_u32},
    },
    limits::LOG_SEGMENT_ENTRIES,
};

const MAGIC: &[u8; 8] = b"STRONGLS";
const WHAT: &str = "log segment";
const HASH_LEN: usize = 32;

/// Largest segment written or read; a larger one is not made.
pub const MAX_SEGMENT_LEN: u32 = 256 << 20;

/// The segment that holds entry `seq`.
#[must_use]
pub const fn segment_of(seq: u64) -> u64 {
    seq.saturating_sub(1) / LOG_SEGMENT_ENTRIES + 1
}

/// The numbers of the entries in segment `k`.
#[must_use]
pub const fn entries_of(k: u64) -> Range<u64> {
    let first = k
        .saturating_sub(1)
        .saturating_mul(LOG_SEGMENT_ENTRIES)
        .saturating_add(1);
    first..first.saturating_add(LOG_SEGMENT_ENTRIES)
}

/// Encodes segment `k` out of the objects of its entries.
///
/// # Errors
/// [`DecodeError::OutOfRange`] where it would be larger than [`MAX_SEGMENT_LEN`].
pub fn encode(k: u64, entries: &[Vec<u8>]) -> Result<Vec<u8>, DecodeError> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&k.to_le_bytes());
    out.extend_from_slice(&to_u32(entries.len(), WHAT)?.to_le_bytes());
    for entry in entries {
        put_bytes(&mut out, entry, WHAT)?;
    }
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    let len = to_u32(out.len(), WHAT)?;
    if len > MAX_SEGMENT_LEN {
        return Err(DecodeError::OutOfRange {
            what: WHAT,
            value: u64::from(len),
        });
    }
    Ok(out)
}

/// A segment, read.
#[derive(Debug)]
pub struct Segment {
    first: u64,
    bytes: Vec<u8>,
    entries: Vec<Range<usize>>,
}

impl Segment {
    /// Reads segment `k`.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but an intact, full segment of that number.
    pub fn decode(k: u64, bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let cut = DecodeError::Truncated { what: WHAT };
        let (body, hash) = bytes.split_last_chunk::<HASH_LEN>().ok_or(cut)?;
        let mut reader = Reader::new(body, WHAT);
        reader.magic(MAGIC)?;
        reader.version()?;
        let reserved: [u8; 3] = reader.array()?;
        if blake3::hash(body) != *hash {
            return Err(DecodeError::Checksum { what: WHAT });
        }
        let (number, count) = (reader.u64()?, reader.u32()?);
        if reserved != [0; 3] || number != k || u64::from(count) != LOG_SEGMENT_ENTRIES {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            let len = reader.bytes(MAX_SEGMENT_LEN, WHAT)?.len();
            let end = body.len().saturating_sub(reader.rest().len());
            entries.push(end.saturating_sub(len)..end);
        }
        reader.finish()?;
        Ok(Self {
            first: entries_of(k).start,
            bytes,
            entries,
        })
    }

    /// The object of entry `seq`, if it is in this segment.
    #[must_use]
    pub fn entry(&self, seq: u64) -> Option<&[u8]> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.bytes.get(self.entries.get(at)?.clone())
    }
}

/// Body of the fuzz target: no bytes make reading panic, and what is read is what was written. The
/// hash hides all behind it from a fuzzer, so the bytes are also read with the right one appended,
/// and as the entries of a segment whose head and hash are made.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_log_segment(data: &[u8]) {
    for bytes in [data.to_vec(), hashed(data), headed(data)] {
        let Ok(segment) = Segment::decode(1, bytes.clone()) else {
            continue;
        };
        let entries: Vec<Vec<u8>> = entries_of(1)
            .filter_map(|seq| segment.entry(seq).map(<[u8]>::to_vec))
            .collect();
        assert!(encode(1, &entries).is_ok_and(|again| again == bytes));
        for beyond in [0, LOG_SEGMENT_ENTRIES + 1, u64::MAX] {
            assert_eq!(segment.entry(beyond), None);
        }
    }
}

/// `body` with its hash behind it.
#[cfg(any(test, feature = "testing"))]
fn hashed(body: &[u8]) -> Vec<u8> {
    [body, blake3::hash(body).as_bytes()].concat()
}

/// Segment 1 with `entries` behind its head, and empty entries behind these as far as it takes to
/// make it full.
#[cfg(any(test, feature = "testing"))]
fn headed(entries: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(entries, WHAT);
    let mut missing = LOG_SEGMENT_ENTRIES;
    while missing > 0 && reader.bytes(MAX_SEGMENT_LEN, WHAT).is_ok() {
        missing -= 1;
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&1_u64.to_le_bytes());
    let count = u32::try_from(LOG_SEGMENT_ENTRIES).unwrap_or(0);
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(entries);
    out.extend((0..missing).flat_map(|_| 0_u32.to_le_bytes()));
    hashed(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Vec<u8>> {
        (0..1024_u32).map(|n| n.to_string().into_bytes()).collect()
    }

    #[test]
    fn entries_are_found_by_their_numbers() {
        let bytes = encode(3, &sample()).unwrap();
        let segment = Segment::decode(3, bytes.clone()).unwrap();
        assert_eq!(segment.entry(2049), Some(&b"0"[..]));
        assert_eq!(segment.entry(3072), Some(&b"1023"[..]));
        assert_eq!(segment.entry(3073), None);
        assert_eq!(segment.entry(2048), None);
        assert!(Segment::decode(4, bytes).is_err());
        assert_eq!(
            (segment_of(1), segment_of(1024), segment_of(1025)),
            (1, 1, 2)
        );
        assert_eq!(entries_of(2), 1025..2049);
        fuzz_log_segment(&encode(1, &sample()).unwrap());
    }

    #[test]
    fn seeds_of_the_fuzz_target_get_past_the_hash() {
        let unhashed = include_bytes!("../../../fuzz/corpus/log_segment/unhashed");
        Segment::decode(1, hashed(unhashed)).unwrap();
        let entries = include_bytes!("../../../fuzz/corpus/log_segment/entries");
        let segment = Segment::decode(1, headed(entries)).unwrap();
        assert_eq!(segment.entry(2), Some(&b"second"[..]));
        assert_eq!(segment.entry(1024), Some(&b""[..]));
        let cut = Segment::decode(1, headed(&entries[..entries.len() - 1]));
        assert!(matches!(
            cut,
            Err(DecodeError::Trailing { .. } | DecodeError::Truncated { .. })
        ));
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(1, &sample()).unwrap();
        assert_eq!(&bytes[..12], b"STRONGLS\x01\0\0\0");
        assert_eq!(&bytes[12..24], [1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]);
        assert_eq!(&bytes[24..29], [1, 0, 0, 0, b'0']);
        let (body, hash) = bytes.split_at(bytes.len() - 32);
        assert_eq!(blake3::hash(body).as_bytes(), hash);
    }

    #[test]
    fn any_damage_and_any_other_count_is_refused() {
        let bytes = encode(1, &sample()).unwrap();
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 4;
            assert!(Segment::decode(1, bent).is_err(), "byte {at}");
        }
        for len in (0..bytes.len()).step_by(97) {
            assert!(Segment::decode(1, bytes[..len].to_vec()).is_err());
        }
        let short = encode(1, &sample()[..1023]).unwrap();
        assert!(Segment::decode(1, short).is_err());
    }
}
