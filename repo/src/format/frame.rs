//! Objects that must survive damage carry their inner bytes three times (config, keys, keyring,
//! snapshots, heads of log entries). Names and hashes are over the canonical inner bytes, so a
//! copy that checks out is the object, whichever of the three it is.
//!
//! ```text
//! object = frame frame frame inline L L L        L = length of one frame, u32
//! frame  = "STRONGRM" version=1 kind 0 0 | u32 inner length | BLAKE3(inner) | inner
//! ```
//!
//! `inline` is empty but in log entries, where it holds the parts that stand once.

use super::{
    DecodeError,
    cursor::{Reader, to_u32, to_usize},
};

/// What the frame holds: the kind byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The configuration.
    Config = 1,
    /// A slot.
    Slot = 2,
    /// A keyring.
    Keyring = 3,
    /// A snapshot record.
    Snapshot = 4,
    /// The head of a log entry.
    Log = 5,
}

const MAGIC: &[u8; 8] = b"STRONGRM";
const HEADER_LEN: usize = 8 + 4 + 4 + 32;
const TRAILER_LEN: usize = 12;
pub(crate) const WHAT: &str = "object frame";

/// A framed object, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    /// The canonical inner bytes, out of a copy whose checksum matches.
    pub inner: &'a [u8],
    /// What stands once, behind the copies.
    pub inline: &'a [u8],
    /// Whether all copies and the trailer are intact; where not, the object should be healed.
    pub intact: bool,
}

/// Builds the object around `inner` and `inline`.
///
/// # Errors
/// [`DecodeError::OutOfRange`] where `inner` is 4 GiB or more.
pub fn encode(kind: FrameKind, inner: &[u8], inline: &[&[u8]]) -> Result<Vec<u8>, DecodeError> {
    let mut frame = Vec::with_capacity(HEADER_LEN + inner.len());
    frame.extend_from_slice(MAGIC);
    frame.extend_from_slice(&[super::VERSION, kind as u8, 0, 0]);
    frame.extend_from_slice(&to_u32(inner.len(), WHAT)?.to_le_bytes());
    frame.extend_from_slice(blake3::hash(inner).as_bytes());
    frame.extend_from_slice(inner);
    let len = to_u32(frame.len(), WHAT)?.to_le_bytes();
    let mut out = frame.repeat(3);
    for part in inline {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&len.repeat(3));
    Ok(out)
}

/// Takes an object apart: the first copy that checks out is used, wherever damage lies.
///
/// # Errors
/// The reason why the first copy cannot be used, where none can. A copy of a newer version is
/// [`DecodeError::UnknownVersion`].
pub fn decode(kind: FrameKind, object: &[u8]) -> Result<Framed<'_>, DecodeError> {
    let mut first_error = None;
    let lengths = candidate_lengths(object);
    for len in lengths {
        for copy in 0..3 {
            match frame_at(kind, object, copy * len, len) {
                Ok(inner) => {
                    let (inline, intact) = rest_of(object, len);
                    return Ok(Framed {
                        inner,
                        inline,
                        intact,
                    });
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
    }
    Err(first_error.unwrap_or(DecodeError::Truncated { what: WHAT }))
}

/// The frame lengths that the header of the first copy and the three trailer words claim.
fn candidate_lengths(object: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::with_capacity(4);
    let mut push = |len: usize| {
        if len >= HEADER_LEN && !lengths.contains(&len) {
            lengths.push(len);
        }
    };
    if let Some(word) = object.get(12..16) {
        push(word_at(word).saturating_add(HEADER_LEN));
    }
    let trailer = object
        .get(object.len().saturating_sub(TRAILER_LEN)..)
        .unwrap_or_default();
    for word in trailer.chunks_exact(4) {
        push(word_at(word));
    }
    lengths
}

fn word_at(word: &[u8]) -> usize {
    <[u8; 4]>::try_from(word).map_or(0, |word| to_usize(u32::from_le_bytes(word)))
}

fn frame_at(
    kind: FrameKind,
    object: &[u8],
    start: usize,
    len: usize,
) -> Result<&[u8], DecodeError> {
    let truncated = DecodeError::Truncated { what: WHAT };
    let end = start.checked_add(len).ok_or(truncated)?;
    let mut reader = Reader::new(object.get(start..end).ok_or(truncated)?, WHAT);
    reader.magic(MAGIC)?;
    reader.version()?;
    let found = reader.u8()?;
    if found != kind as u8 {
        return Err(DecodeError::UnknownTag {
            what: WHAT,
            tag: u64::from(found),
        });
    }
    if reader.u16()? != 0 {
        return Err(DecodeError::Malformed { what: WHAT });
    }
    let inner_len = to_usize(reader.u32()?);
    let hash = reader.array::<32>()?;
    let inner = reader.take(inner_len)?;
    reader.finish()?;
    if blake3::hash(inner) != hash {
        return Err(DecodeError::Checksum { what: WHAT });
    }
    Ok(inner)
}

/// What lies between the copies and the trailer, and whether copies and trailer are intact.
fn rest_of(object: &[u8], len: usize) -> (&[u8], bool) {
    let copies = object.get(..3 * len).unwrap_or_default();
    let mut frames = copies.chunks_exact(len.max(1));
    let same = match (frames.next(), frames.next(), frames.next()) {
        (Some(a), Some(b), Some(c)) => a == b && b == c,
        _ => false,
    };
    let tail = object.get(3 * len..).unwrap_or_default();
    let (inline, trailer) = tail
        .split_at_checked(tail.len().saturating_sub(TRAILER_LEN))
        .unwrap_or((tail, &[]));
    let words = trailer
        .chunks_exact(4)
        .filter(|word| word_at(word) == len)
        .count();
    (inline, same && words == 3)
}

/// Body of the fuzz target: no input panics, and what decodes encodes to the same inner bytes.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_frame(data: &[u8]) {
    let Ok(framed) = decode(FrameKind::Log, data) else {
        return;
    };
    let again = encode(FrameKind::Log, framed.inner, &[framed.inline]);
    if framed.intact {
        assert_eq!(again.as_deref(), Ok(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_comes_apart_as_it_was_put_together() {
        let object = encode(FrameKind::Log, b"inner", &[b"one", b"two"]).unwrap();
        let framed = decode(FrameKind::Log, &object).unwrap();
        assert_eq!(
            framed,
            Framed {
                inner: b"inner",
                inline: b"onetwo",
                intact: true
            }
        );
        assert_eq!(
            decode(FrameKind::Config, &object),
            Err(DecodeError::UnknownTag { what: WHAT, tag: 5 })
        );
    }

    #[test]
    fn golden_bytes() {
        let object = encode(FrameKind::Config, b"x", &[]).unwrap();
        let mut frame = b"STRONGRM\x01\x01\0\0\x01\0\0\0".to_vec();
        frame.extend_from_slice(blake3::hash(b"x").as_bytes());
        frame.push(b'x');
        let mut expected = frame.repeat(3);
        expected.extend_from_slice(&[49, 0, 0, 0].repeat(3));
        assert_eq!(object, expected);
    }

    #[test]
    fn any_single_damaged_byte_is_survived_and_noticed() {
        let object = encode(FrameKind::Snapshot, b"the inner bytes", &[]).unwrap();
        for at in 0..object.len() {
            let mut damaged = object.clone();
            damaged[at] ^= 0x10;
            let framed = decode(FrameKind::Snapshot, &damaged).unwrap();
            assert_eq!(framed.inner, b"the inner bytes", "byte {at}");
            assert!(!framed.intact, "byte {at}");
        }
    }

    #[test]
    fn two_copies_lost_to_a_burst_are_survived() {
        let object = encode(FrameKind::Snapshot, &[7; 100], &[b"inline"]).unwrap();
        let frame = HEADER_LEN + 100;
        let mut damaged = object.clone();
        damaged[..2 * frame].fill(0);
        let framed = decode(FrameKind::Snapshot, &damaged).unwrap();
        assert_eq!(
            (framed.inner, framed.inline),
            (&[7; 100][..], &b"inline"[..])
        );
        let cut = &object[..frame];
        assert_eq!(decode(FrameKind::Snapshot, cut).unwrap().inner, [7; 100]);
    }

    #[test]
    fn nothing_usable_is_an_error_that_says_why() {
        assert!(decode(FrameKind::Log, &[]).is_err());
        assert!(decode(FrameKind::Log, &[0; 200]).is_err());
        let mut newer = encode(FrameKind::Log, b"x", &[]).unwrap();
        for copy in 0..3 {
            newer[copy * 49 + 8] = 2;
        }
        assert_eq!(
            decode(FrameKind::Log, &newer),
            Err(DecodeError::UnknownVersion {
                what: WHAT,
                found: 2
            })
        );
    }

    #[test]
    fn an_object_without_a_good_copy_is_told_by_its_checksum() {
        let mut object = encode(FrameKind::Snapshot, b"inner", &[]).unwrap();
        let positions: Vec<_> = (0..object.len() - 5)
            .filter(|at| object[*at..].starts_with(b"inner"))
            .collect();
        assert_eq!(positions.len(), 3);
        for at in positions {
            object[at] ^= 1;
        }
        assert_eq!(
            decode(FrameKind::Snapshot, &object),
            Err(DecodeError::Checksum { what: WHAT })
        );
    }
}
