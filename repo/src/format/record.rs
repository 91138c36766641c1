//! The envelope of every sealed record, and the one place that knows bincode.
//!
//! ```text
//! record = version=1 | fields | ext        fields and ext in bincode 2 standard configuration
//! ext    = sequence of (u16 tag, bytes), tags ascending; top bit of a tag = critical
//! ```
//!
//! A field is added as an extension: unknown ones without the critical bit are kept and passed
//! on, an unknown critical one is an error. The encoding is canonical: what decodes is encoded
//! again and compared, so that overlong integers and bytes left over are refused.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    DecodeError, VERSION,
    cursor::{Reader, put_bytes},
};
use crate::limits::MAX_META_LEN;

/// Extension fields of a record or entry, in ascending order of tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ext(Vec<(u16, Vec<u8>)>);

impl Ext {
    /// The top bit of a tag: who does not know it must not read on.
    pub const CRITICAL: u16 = 0x8000;

    /// Sets a field, keeping the order.
    pub fn set(&mut self, tag: u16, bytes: Vec<u8>) {
        match self.0.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                if let Some(field) = self.0.get_mut(at) {
                    field.1 = bytes;
                }
            }
            Err(at) => self.0.insert(at, (tag, bytes)),
        }
    }

    /// The field `tag`, if present.
    #[must_use]
    pub fn find(&self, tag: u16) -> Option<&[u8]> {
        let at = self.0.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.0.get(at).map(|(_, bytes)| bytes.as_slice())
    }

    /// Whether there is no field.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the fields in the fixed layout of hand-written structures: `u16` count, then per
    /// field `u16` tag, `u32` length, bytes.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] for too many fields or a field of 4 GiB.
    pub fn put(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let value = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
        let count = u16::try_from(self.0.len()).map_err(|_| DecodeError::OutOfRange {
            what: "extension count",
            value,
        })?;
        out.extend_from_slice(&count.to_le_bytes());
        for (tag, bytes) in &self.0 {
            out.extend_from_slice(&tag.to_le_bytes());
            put_bytes(out, bytes, "extension")?;
        }
        Ok(())
    }

    /// Reads what [`Ext::put`] wrote, and checks it as [`Ext::check`] does.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn read(
        reader: &mut Reader<'_>,
        known: &[u16],
        what: &'static str,
    ) -> Result<Self, DecodeError> {
        let count = reader.u16()?;
        let mut fields = Vec::new();
        for _ in 0..count {
            let tag = reader.u16()?;
            fields.push((tag, reader.bytes(MAX_META_LEN, "extension")?.to_vec()));
        }
        let ext = Self(fields);
        ext.check(known, what)?;
        Ok(ext)
    }

    /// Checks the order, and that every critical tag is among `known`.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] for a wrong order, [`DecodeError::UnknownTag`] for an unknown
    /// critical tag; both name `what`.
    pub fn check(&self, known: &[u16], what: &'static str) -> Result<(), DecodeError> {
        if !self.0.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(DecodeError::Malformed { what });
        }
        for (tag, _) in &self.0 {
            if tag & Self::CRITICAL != 0 && !known.contains(tag) {
                return Err(DecodeError::UnknownTag {
                    what,
                    tag: u64::from(*tag),
                });
            }
        }
        Ok(())
    }
}

/// Largest record, encoded: bounds what decoding allocates.
pub const MAX_RECORD_LEN: usize = 64 << 20;

/// Encodes a record.
///
/// # Errors
/// [`DecodeError::OutOfRange`] where it would be larger than [`MAX_RECORD_LEN`],
/// [`DecodeError::Malformed`] where the type cannot be encoded.
pub fn encode<T: Serialize>(
    fields: &T,
    ext: &Ext,
    what: &'static str,
) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![VERSION];
    bincode::serde::encode_into_std_write((fields, ext), &mut out, bincode::config::standard())
        .map_err(|_| DecodeError::Malformed { what })?;
    if out.len() > MAX_RECORD_LEN {
        let value = u64::try_from(out.len()).unwrap_or(u64::MAX);
        return Err(DecodeError::OutOfRange { what, value });
    }
    Ok(out)
}

/// Decodes a record. The caller checks what the fields mean, and calls [`Ext::check`] where it
/// knows critical tags of its own; this function has none.
///
/// # Errors
/// [`DecodeError`] for anything but one canonical record of version 1 without unknown critical
/// extensions.
pub fn decode<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
) -> Result<(T, Ext), DecodeError> {
    decode_knowing(bytes, &[], what)
}

/// Like [`decode`], for a record whose critical extensions `known` this program understands.
///
/// # Errors
/// As [`decode`].
pub fn decode_knowing<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    known: &[u16],
    what: &'static str,
) -> Result<(T, Ext), DecodeError> {
    if bytes.len() > MAX_RECORD_LEN {
        let value = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        return Err(DecodeError::OutOfRange { what, value });
    }
    let (version, rest) = bytes.split_first().ok_or(DecodeError::Truncated { what })?;
    if *version != VERSION {
        return Err(DecodeError::UnknownVersion {
            what,
            found: *version,
        });
    }
    let config = bincode::config::standard().with_limit::<MAX_RECORD_LEN>();
    let ((fields, ext), used): ((T, Ext), usize) = bincode::serde::decode_from_slice(rest, config)
        .map_err(|_| DecodeError::Malformed { what })?;
    if used != rest.len() {
        return Err(DecodeError::Trailing {
            what,
            extra: rest.len().saturating_sub(used),
        });
    }
    ext.check(known, what)?;
    let mut compare = CompareWriter { rest, equal: true };
    bincode::serde::encode_into_std_write(
        (&fields, &ext),
        &mut compare,
        bincode::config::standard(),
    )
    .map_err(|_| DecodeError::Malformed { what })?;
    if !compare.equal || !compare.rest.is_empty() {
        return Err(DecodeError::Malformed { what });
    }
    Ok((fields, ext))
}

/// Compares what is written with the bytes it was given, without keeping it.
struct CompareWriter<'a> {
    rest: &'a [u8],
    equal: bool,
}

impl std::io::Write for CompareWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.rest.split_at_checked(bytes.len()) {
            Some((head, tail)) if head == bytes => self.rest = tail,
            _ => self.equal = false,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Body of the fuzz target: no input panics, and what decodes has exactly one encoding.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_record(data: &[u8]) {
    type Sample = (u64, Vec<(String, Vec<u8>)>, Option<i64>);
    if let Ok((fields, ext)) = decode::<Sample>(data, "sample") {
        assert_eq!(encode(&fields, &ext, "sample").as_deref(), Ok(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sample = (u64, String);

    fn sample() -> Sample {
        (300, "ab".to_owned())
    }

    #[test]
    fn golden_bytes() {
        let mut ext = Ext::default();
        ext.set(2, vec![9]);
        let bytes = encode(&sample(), &ext, "sample").unwrap();
        assert_eq!(bytes, [1, 251, 44, 1, 2, b'a', b'b', 1, 2, 1, 9]);
        assert_eq!(decode::<Sample>(&bytes, "sample"), Ok((sample(), ext)));
    }

    #[test]
    fn overlong_numbers_and_bytes_left_over_are_refused() {
        let overlong = [1, 252, 44, 1, 0, 0, 2, b'a', b'b', 0];
        assert_eq!(
            decode::<Sample>(&overlong, "sample"),
            Err(DecodeError::Malformed { what: "sample" })
        );
        let trailing = [1, 251, 44, 1, 2, b'a', b'b', 0, 0];
        assert_eq!(
            decode::<Sample>(&trailing, "sample"),
            Err(DecodeError::Trailing {
                what: "sample",
                extra: 1
            })
        );
    }

    #[test]
    fn unknown_extensions_survive_and_unknown_critical_ones_are_refused() {
        let mut ext = Ext::default();
        ext.set(77, b"later".to_vec());
        let bytes = encode(&sample(), &ext, "sample").unwrap();
        let (fields, kept) = decode::<Sample>(&bytes, "sample").unwrap();
        assert_eq!(encode(&fields, &kept, "sample").unwrap(), bytes);
        ext.set(Ext::CRITICAL | 1, Vec::new());
        let bytes = encode(&sample(), &ext, "sample").unwrap();
        assert_eq!(
            decode::<Sample>(&bytes, "sample"),
            Err(DecodeError::UnknownTag {
                what: "sample",
                tag: 0x8001
            })
        );
        assert!(decode_knowing::<Sample>(&bytes, &[0x8001], "sample").is_ok());
    }

    #[test]
    fn a_newer_version_and_a_huge_length_are_refused() {
        assert_eq!(
            decode::<Sample>(&[2], "sample"),
            Err(DecodeError::UnknownVersion {
                what: "sample",
                found: 2
            })
        );
        let huge = [1, 0, 253, 255, 255, 255, 255, 255, 255, 255, 127];
        assert!(decode::<Sample>(&huge, "sample").is_err());
    }
}
