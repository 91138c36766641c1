//! The configuration: who the repository is (plain) and how it is written (sealed).
//!
//! ```text
//! inner = "STRONGCF" version=1 0 0 0 | repo id 16 | domain id 16 |
//!         u64 mandatory features | u64 optional features | u32 body length | body
//! body  = sealed object of kind Config around a record of ConfigBody
//! ```
//!
//! Stored framed three times in each of `config` and `config.2`, and once more inside every
//! keyring.

use serde::{Deserialize, Serialize};

use super::{
    DecodeError,
    cursor::{Reader, put_bytes},
};
use crate::{
    env::Timestamp,
    id::{DomainId, RepoId},
    limits::MAX_META_LEN,
};

const MAGIC: &[u8; 8] = b"STRONGCF";
const WHAT: &str = "configuration";

/// Feature bits that this program understands; v1 has none.
pub const KNOWN_FEATURES: u64 = 0;

/// The configuration as stored, its body still sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigHeader {
    /// Identity of the log.
    pub repo: RepoId,
    /// Identity shared by replicas.
    pub domain: DomainId,
    /// Features that a reader must know.
    pub mandatory: u64,
    /// Features that a reader may ignore.
    pub optional: u64,
    /// The sealed body.
    pub sealed_body: Vec<u8>,
}

impl ConfigHeader {
    /// The canonical inner bytes.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] for a body of 4 GiB.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[super::VERSION, 0, 0, 0]);
        out.extend_from_slice(self.repo.as_bytes());
        out.extend_from_slice(self.domain.as_bytes());
        out.extend_from_slice(&self.mandatory.to_le_bytes());
        out.extend_from_slice(&self.optional.to_le_bytes());
        put_bytes(&mut out, &self.sealed_body, WHAT)?;
        Ok(out)
    }

    /// Reads the inner bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; a mandatory feature that this program does not know is
    /// [`DecodeError::UnknownTag`] with the unknown bits.
    pub fn decode(inner: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(inner, WHAT);
        reader.magic(MAGIC)?;
        reader.version()?;
        if reader.array::<3>()? != [0; 3] {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        let repo = RepoId::new(reader.array()?);
        let domain = DomainId::new(reader.array()?);
        let mandatory = reader.u64()?;
        let optional = reader.u64()?;
        let unknown = mandatory & !KNOWN_FEATURES;
        if unknown != 0 {
            return Err(DecodeError::UnknownTag {
                what: "mandatory feature",
                tag: unknown,
            });
        }
        let sealed_body = reader.bytes(MAX_META_LEN, WHAT)?.to_vec();
        reader.finish()?;
        Ok(Self {
            repo,
            domain,
            mandatory,
            optional,
            sealed_body,
        })
    }
}

/// What is sealed in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigBody {
    /// When the repository was made.
    pub created: Timestamp,
    /// The program that made it, such as `strongroom 0.1.0`.
    pub program: String,
    /// Which chunker: 1 gear, 2 fastcdc. Opaque here.
    pub chunker: u8,
    /// Smallest chunk, in bytes.
    pub chunk_min: u32,
    /// Chunk size aimed at, in bytes.
    pub chunk_avg: u32,
    /// Largest chunk, in bytes.
    pub chunk_max: u32,
    /// Pack size aimed at, in bytes.
    pub pack_target: u32,
}

/// Body of the fuzz target: no bytes panic, and what decodes encodes to the same bytes.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_config(data: &[u8]) {
    if let Ok(config) = ConfigHeader::decode(data) {
        assert_eq!(config.encode().as_deref(), Ok(data));
    }
    let _ = super::record::decode::<ConfigBody>(data, WHAT);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ConfigHeader {
        ConfigHeader {
            repo: RepoId::new([1; 16]),
            domain: DomainId::new([2; 16]),
            mandatory: 0,
            optional: 5,
            sealed_body: vec![9, 9],
        }
    }

    #[test]
    fn golden_bytes() {
        let mut expected = b"STRONGCF\x01\0\0\0".to_vec();
        expected.extend_from_slice(&[1; 16]);
        expected.extend_from_slice(&[2; 16]);
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend_from_slice(&[9, 9]);
        assert_eq!(sample().encode().unwrap(), expected);
        assert_eq!(ConfigHeader::decode(&expected), Ok(sample()));
    }

    #[test]
    fn an_unknown_mandatory_feature_is_refused_by_its_bits() {
        let newer = ConfigHeader {
            mandatory: 4,
            ..sample()
        }
        .encode()
        .unwrap();
        let error = DecodeError::UnknownTag {
            what: "mandatory feature",
            tag: 4,
        };
        assert_eq!(ConfigHeader::decode(&newer), Err(error));
    }

    #[test]
    fn no_cut_is_accepted() {
        let bytes = sample().encode().unwrap();
        for len in 0..bytes.len() {
            assert!(ConfigHeader::decode(&bytes[..len]).is_err());
            fuzz_config(&bytes[..len]);
        }
    }
}
