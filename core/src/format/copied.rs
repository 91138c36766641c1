//! The extension of a tree entry whose content is a copy of a database.
//!
//! ```text
//! copied = size u64 [ | wal size u64 | wal mtime: seconds i64, nanoseconds u32 ]   little-endian
//! ```

use strongroom_repo::{
    env::Timestamp,
    format::{DecodeError, cursor::Reader},
};

use crate::node::{Copied, Wal};

const WHAT: &str = "copied database";

/// Its tag: whoever does not know it reads on.
pub(super) const TAG: u16 = 1;

/// The bytes of the field.
pub(super) fn encode(copied: &Copied) -> Vec<u8> {
    let mut out = copied.size.to_le_bytes().to_vec();
    if let Some(Wal { size, mtime }) = &copied.wal {
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&mtime.secs.to_le_bytes());
        out.extend_from_slice(&mtime.nanos.to_le_bytes());
    }
    out
}

/// Reads the field.
pub(super) fn decode(bytes: &[u8]) -> Result<Copied, DecodeError> {
    let mut reader = Reader::new(bytes, WHAT);
    let size = reader.u64()?;
    if reader.rest().is_empty() {
        return Ok(Copied { size, wal: None });
    }
    let wal_size = reader.u64()?;
    let secs = reader.i64()?;
    let nanos = reader.u32()?;
    reader.finish()?;
    if nanos >= 1_000_000_000 {
        return Err(DecodeError::Malformed { what: WHAT });
    }
    let mtime = Timestamp { secs, nanos };
    let wal = Some(Wal {
        size: wal_size,
        mtime,
    });
    Ok(Copied { size, wal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_and_every_shorter_or_longer_field() {
        let bare = Copied {
            size: 4096,
            wal: None,
        };
        assert_eq!(encode(&bare), [0, 16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode(&encode(&bare)), Ok(bare));
        let mtime = Timestamp { secs: -2, nanos: 3 };
        let wal = Some(Wal { size: 32, mtime });
        let full = Copied { size: 4096, wal };
        let bytes = encode(&full);
        let mut expected = vec![0, 16, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0xfe];
        expected.extend_from_slice(&[0xff; 7]);
        expected.extend_from_slice(&[3, 0, 0, 0]);
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes), Ok(full));
        for len in (0..bytes.len()).filter(|len| *len != 8) {
            assert!(decode(&bytes[..len]).is_err(), "{len}");
        }
        assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_time_that_is_none_is_refused() {
        let mtime = Timestamp {
            secs: 0,
            nanos: 1_000_000_000,
        };
        let wal = Some(Wal { size: 32, mtime });
        assert!(decode(&encode(&Copied { size: 1, wal })).is_err());
    }
}
