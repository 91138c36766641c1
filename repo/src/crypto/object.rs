//! Sealed metadata objects: an index, a snapshot record, the body of a log entry or of the
//! configuration, each in one segment under a key of its own.
//!
//! ```text
//! object = sealing header | codec (1 stored, 2 zstd) | u32 plain length | sealed bytes
//! ```

use super::{
    keys::{EpochKey, Roots},
    seal::{ObjectKey, STORED, SealError, SealHeader, SealKind, SegmentInfo},
};
use crate::{
    codec::decompress_frame,
    format::{
        DecodeError,
        cursor::{Reader, to_u32, to_usize},
    },
    id::DomainId,
    limits::MAX_META_LEN,
};

const WHAT: &str = "sealed object";
const ZSTD: u8 = 2;
const META_LEVEL: i32 = 3;

/// Seals a metadata object: header, codec byte, plain length, sealed bytes.
///
/// # Errors
/// [`SealError::Decode`] where `plain` is larger than a metadata object may be.
pub fn seal_object(
    root: &EpochKey,
    domain: DomainId,
    kind: SealKind,
    salt: [u8; 32],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let plain_len = to_u32(plain.len(), "metadata object")?;
    if plain_len > MAX_META_LEN {
        let value = u64::from(plain_len);
        return Err(DecodeError::OutOfRange {
            what: "metadata object",
            value,
        }
        .into());
    }
    let compressed = zstd::bulk::compress(plain, META_LEVEL).unwrap_or_default();
    let (codec, mut body) = if !compressed.is_empty() && compressed.len() < plain.len() {
        (ZSTD, compressed)
    } else {
        (STORED, plain.to_vec())
    };
    let key = ObjectKey::create(root, domain, kind, salt)?;
    let number = key.next_segment()?;
    key.seal(number, &SegmentInfo::metadata(plain_len, codec), &mut body)?;
    let mut out = key.header().encode();
    out.push(codec);
    out.extend_from_slice(&plain_len.to_le_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

/// Opens a metadata object of the given kind.
///
/// # Errors
/// [`SealError`] for anything that was not sealed as this kind in this repository.
pub fn open_object(
    roots: &Roots,
    domain: DomainId,
    kind: SealKind,
    object: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut reader = Reader::new(object, WHAT);
    let header = SealHeader::read(&mut reader)?;
    if header.kind != kind {
        return Err(DecodeError::UnknownTag {
            what: WHAT,
            tag: header.kind as u64,
        }
        .into());
    }
    let codec = reader.u8()?;
    let plain_len = reader.u32_up_to(MAX_META_LEN, "metadata object")?;
    let mut body = reader.rest().to_vec();
    let key = ObjectKey::open(roots, domain, header)?;
    let plain = key
        .open_segment(0, &SegmentInfo::metadata(plain_len, codec), &mut body)?
        .len();
    body.truncate(plain);
    let wanted = to_usize(plain_len);
    let body = match codec {
        STORED => body,
        ZSTD => decompress_frame(&body, wanted).map_err(|_| SealError::Decompress)?,
        _ => {
            return Err(DecodeError::UnknownTag {
                what: WHAT,
                tag: u64::from(codec),
            }
            .into());
        }
    };
    if body.len() == wanted {
        Ok(body)
    } else {
        Err(SealError::Decompress)
    }
}

/// Body of the fuzz target: no bytes make opening panic.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_sealed(data: &[u8]) {
    use crate::{crypto::SecretKey, id::EpochId};

    let key = SecretKey::new([7; 32]);
    let root = EpochKey {
        epoch: EpochId::new([0; 16]),
        key: key.clone(),
    };
    let roots = Roots::new(key.clone(), key, vec![root.clone()], vec![root]);
    let domain = DomainId::new([0; 16]);
    for kind in [
        SealKind::Config,
        SealKind::Index,
        SealKind::Snapshot,
        SealKind::LogBody,
    ] {
        let _ = open_object(&roots, domain, kind, data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{SecretKey, TAG_LEN},
        id::EpochId,
    };

    const DOMAIN: DomainId = DomainId::new([3; 16]);

    fn root(byte: u8) -> EpochKey {
        EpochKey {
            epoch: EpochId::new([byte; 16]),
            key: SecretKey::new([byte; 32]),
        }
    }

    fn roots(byte: u8) -> Roots {
        let key = SecretKey::new([0; 32]);
        Roots::new(key.clone(), key, vec![root(byte)], vec![root(byte)])
    }

    fn seal(plain: &[u8]) -> Vec<u8> {
        seal_object(&root(1), DOMAIN, SealKind::Index, [9; 32], plain).unwrap()
    }

    #[test]
    fn objects_open_as_the_kind_and_in_the_domain_they_were_sealed_for_only() {
        let object = seal(&[5; 1000]);
        assert!(object.len() < 200, "repetitive bytes are compressed");
        assert_eq!(
            open_object(&roots(1), DOMAIN, SealKind::Index, &object).unwrap(),
            [5; 1000]
        );
        assert!(open_object(&roots(1), DOMAIN, SealKind::Snapshot, &object).is_err());
        let other = DomainId::new([4; 16]);
        assert!(matches!(
            open_object(&roots(1), other, SealKind::Index, &object),
            Err(SealError::WrongKey)
        ));
        assert!(matches!(
            open_object(&roots(2), DOMAIN, SealKind::Index, &object),
            Err(SealError::UnknownEpoch(_))
        ));
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_refused() {
        let object = seal(b"some plain bytes");
        for bit in 0..object.len() * 8 {
            let mut damaged = object.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                open_object(&roots(1), DOMAIN, SealKind::Index, &damaged).is_err(),
                "{bit}"
            );
        }
        for len in 0..object.len() {
            assert!(open_object(&roots(1), DOMAIN, SealKind::Index, &object[..len]).is_err());
        }
    }

    #[test]
    fn golden_bytes() {
        let object = seal(b"plain");
        let hash = blake3::hash(&object);
        let (header, rest) = object.split_at(SealHeader::LEN);
        assert_eq!(&header[..12], b"STRONGSL\x01\x03\0\0");
        assert_eq!(rest.len(), 1 + 4 + 5 + TAG_LEN);
        assert_eq!(
            hash.to_hex().as_str(),
            "851f84dc041f537fe0f34e81119cfbc0316c1fc5ef73ca83b1c9ff7582e67a62",
            "the bytes of a sealed object are the format"
        );
    }

    /// An object whose seal holds, with any bytes inside.
    fn sealed_badly(codec: u8, plain_len: u32, body: &[u8]) -> Vec<u8> {
        let key = ObjectKey::create(&root(1), DOMAIN, SealKind::Index, [9; 32]).unwrap();
        let number = key.next_segment().unwrap();
        let mut body = body.to_vec();
        key.seal(number, &SegmentInfo::metadata(plain_len, codec), &mut body)
            .unwrap();
        let mut out = key.header().encode();
        out.push(codec);
        out.extend_from_slice(&plain_len.to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn what_is_wrong_with_an_object_is_told_apart() {
        let open = |object: &[u8]| open_object(&roots(1), DOMAIN, SealKind::Index, object).err();
        let mut altered = seal(b"plain");
        *altered.last_mut().unwrap() ^= 1;
        let altered = open(&altered);
        assert!(matches!(altered, Some(SealError::Altered)), "{altered:?}");
        let header = open(b"STRONG");
        assert!(matches!(header, Some(SealError::Decode(_))), "{header:?}");
        for (codec, plain_len) in [(ZSTD, 5), (STORED, 6)] {
            let inside = open(&sealed_badly(codec, plain_len, b"plain"));
            assert!(matches!(inside, Some(SealError::Decompress)), "{inside:?}");
        }
        let codec = open(&sealed_badly(77, 5, b"plain"));
        assert!(
            matches!(
                codec,
                Some(SealError::Decode(DecodeError::UnknownTag { tag: 77, .. }))
            ),
            "{codec:?}"
        );
    }
}
