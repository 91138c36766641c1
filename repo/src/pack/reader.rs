//! Taking stored packs apart: the table of contents with every check that a key holder can make,
//! and the check that anyone can make without a key.

use xxhash_rust::xxh3::xxh3_128;

use crate::{
    backend::{Backend, BackendError, ObjectName},
    codec::CodecError,
    crypto::{ObjectKey, Roots, SealError, SealHeader, SealKind},
    format::{
        DecodeError,
        cursor::{Reader, to_usize},
        index::PackGroup,
        pack::{SHARD_SUM_LEN, TRAILER_LEN, Trailer, decode_toc, pack_id},
    },
    id::{DomainId, PackId},
};

/// Why a pack cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The store failed, or has no such pack.
    #[error("the pack cannot be read")]
    Backend(#[from] BackendError),
    /// The bytes are not a pack.
    #[error("the pack is damaged")]
    Decode(#[from] DecodeError),
    /// The seal does not hold.
    #[error("the pack is damaged")]
    Seal(#[from] SealError),
    /// The seal holds, but its content cannot be decoded.
    #[error("the blob cannot be decoded")]
    Codec(#[from] CodecError),
    /// The bytes are a pack, but not the one of this name.
    #[error("the pack's content does not match its name")]
    WrongName,
    /// Some shards do not match their checksums.
    #[error("{count} of {total} shards are damaged, the first is shard {first}")]
    Shards {
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first damaged one.
        first: usize,
    },
    /// The length is not what the trailer says.
    #[error("the pack is {found} bytes long, its trailer says {expected}")]
    Length {
        /// Length of the object.
        found: u64,
        /// Length that the trailer says.
        expected: u64,
    },
}

/// Reads a pack's table of contents and checks it against the pack's name. Reads only header and
/// tail.
///
/// # Errors
/// [`PackError`].
pub fn read_group(
    backend: &dyn Backend,
    roots: &Roots,
    domain: DomainId,
    id: PackId,
) -> Result<PackGroup, PackError> {
    let name = ObjectName::Pack(id);
    let len = backend.len(&name)?;
    let trailer = read_trailer(backend, &name, len)?;
    let mut header = [0; SealHeader::LEN];
    backend.read_at(&name, 0, &mut header)?;
    let mut toc = vec![0; to_usize(trailer.toc_len)];
    backend.read_at(&name, u64::from(trailer.toc_offset), &mut toc)?;
    let mut sums = vec![0; to_usize(trailer.shard_count) * SHARD_SUM_LEN];
    backend.read_at(&name, u64::from(trailer.covered_len()), &mut sums)?;
    if pack_id(&header, &toc, &trailer, &sums) != id {
        return Err(PackError::WrongName);
    }
    open_group(&header, &mut toc, &trailer, roots, domain, id)
}

fn read_trailer(backend: &dyn Backend, name: &ObjectName, len: u64) -> Result<Trailer, PackError> {
    let truncated = DecodeError::Truncated { what: "pack" };
    let at = len.checked_sub(TRAILER_LEN as u64).ok_or(truncated)?;
    let mut bytes = [0; TRAILER_LEN];
    backend.read_at(name, at, &mut bytes)?;
    let trailer = Trailer::decode(&bytes)?;
    if trailer.pack_len() != len {
        return Err(PackError::Length {
            found: len,
            expected: trailer.pack_len(),
        });
    }
    Ok(trailer)
}

pub(crate) fn open_group(
    header: &[u8],
    toc: &mut [u8],
    trailer: &Trailer,
    roots: &Roots,
    domain: DomainId,
    id: PackId,
) -> Result<PackGroup, PackError> {
    let mut reader = Reader::new(header, "pack header");
    let header = SealHeader::read(&mut reader)?;
    reader.finish()?;
    if header.kind != SealKind::Pack {
        let tag = header.kind as u64;
        return Err(DecodeError::UnknownTag {
            what: "pack header",
            tag,
        }
        .into());
    }
    let key = ObjectKey::open(roots, domain, header.clone())?;
    let (entries, ext) = decode_toc(key.open_toc(toc)?, trailer.toc_offset)?;
    Ok(PackGroup {
        id,
        len: trailer.pack_len(),
        header,
        entries,
        ext,
    })
}

/// What frames the blobs of a pack: what its tail says, checked against its name.
pub(crate) struct Frame<'a> {
    pub(crate) trailer: Trailer,
    pub(crate) sealed_toc: &'a [u8],
    sums: &'a [u8],
    padding: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the `tail` of a pack apart, which begins at `start` of it, at its table of contents or
    /// before.
    pub(crate) fn check(
        id: PackId,
        header: &[u8],
        tail: &'a [u8],
        start: u32,
    ) -> Result<Self, PackError> {
        let truncated = DecodeError::Truncated { what: "pack" };
        let found = u64::from(start) + u64::try_from(tail.len()).unwrap_or(u64::MAX);
        let (rest, trailer) = tail
            .split_at_checked(tail.len().saturating_sub(TRAILER_LEN))
            .ok_or(truncated)?;
        let trailer = Trailer::decode(trailer)?;
        if trailer.pack_len() != found {
            return Err(PackError::Length {
                found,
                expected: trailer.pack_len(),
            });
        }
        let place = |offset: u32| offset.checked_sub(start).map(to_usize).ok_or(truncated);
        let (covered, sums) = rest
            .split_at_checked(place(trailer.covered_len())?)
            .ok_or(truncated)?;
        let (sealed_toc, padding) = covered
            .get(place(trailer.toc_offset)?..)
            .and_then(|toc| toc.split_at_checked(to_usize(trailer.toc_len)))
            .ok_or(truncated)?;
        if pack_id(header, sealed_toc, &trailer, sums) != id {
            return Err(PackError::WrongName);
        }
        Ok(Self {
            trailer,
            sealed_toc,
            sums,
            padding,
        })
    }

    /// Compares neighbouring shards, the first of them number `first`, with their checksums.
    pub(crate) fn check_shards(&self, first: usize, shards: &[u8]) -> Result<(), PackError> {
        let sums = self.sums.chunks_exact(SHARD_SUM_LEN).enumerate();
        let mut damaged = sums
            .skip(first)
            .zip(shards.chunks(to_usize(self.trailer.shard_size)))
            .filter(|((_, sum), shard)| xxh3_128(shard).to_le_bytes() != **sum)
            .map(|((number, _), _)| number);
        let Some(first) = damaged.next() else {
            return Ok(());
        };
        Err(PackError::Shards {
            count: 1 + damaged.count(),
            total: to_usize(self.trailer.shard_count),
            first,
        })
    }

    /// Padding holds nothing.
    pub(crate) fn check_padding(&self) -> Result<(), PackError> {
        if self.padding.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let what = "pack padding";
        Err(DecodeError::Malformed { what }.into())
    }
}

/// Checks the bytes of a whole pack without a key: name, lengths, padding, every shard.
///
/// # Errors
/// [`PackError`] saying what is damaged.
pub fn check_bytes(id: PackId, pack: &[u8]) -> Result<Trailer, PackError> {
    let truncated = DecodeError::Truncated { what: "pack" };
    let header = pack.get(..SealHeader::LEN).ok_or(truncated)?;
    let frame = Frame::check(id, header, pack, 0)?;
    let trailer = frame.trailer;
    let covered = pack
        .get(..to_usize(trailer.covered_len()))
        .ok_or(truncated)?;
    frame.check_shards(0, covered)?;
    frame.check_padding()?;
    Ok(trailer)
}

/// Body of the fuzz target: no bytes panic. A name hides all behind it from a fuzzer, and checksums
/// most of the rest. So the bytes are read under a wrong name, under their own where they have one,
/// and as content and lengths of a pack around which the name and the checksums are made.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_pack_bytes(data: &[u8]) {
    let _ = check_bytes(PackId::new([0; 32]), data);
    if let Some(id) = own_name(data) {
        let _ = check_bytes(id, data);
    }
    let pack = with_right_sums(data);
    let Some(id) = own_name(&pack) else {
        return;
    };
    let Ok(trailer) = check_bytes(id, &pack) else {
        return;
    };
    let covered = to_usize(trailer.covered_len());
    let padding = pack.get(covered - to_usize(trailer.padding)..covered);
    assert!(padding.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0)));
    // Its tail alone says the same.
    let (Some(header), Some(tail)) = (
        pack.get(..SealHeader::LEN),
        pack.get(to_usize(trailer.toc_offset)..),
    ) else {
        return;
    };
    let frame = Frame::check(id, header, tail, trailer.toc_offset);
    assert!(frame.is_ok_and(|frame| frame.check_padding().is_ok()));
}

/// The name that bytes have which end like a pack.
#[cfg(any(test, feature = "testing"))]
fn own_name(pack: &[u8]) -> Option<PackId> {
    let header = pack.get(..SealHeader::LEN)?;
    let (rest, trailer) = pack.split_last_chunk::<TRAILER_LEN>()?;
    let trailer = Trailer::decode(trailer).ok()?;
    let (covered, sums) = rest.split_at_checked(to_usize(trailer.covered_len()))?;
    let behind = covered.get(to_usize(trailer.toc_offset)..)?;
    let sealed_toc = behind.get(..to_usize(trailer.toc_len))?;
    Some(pack_id(header, sealed_toc, &trailer, sums))
}

/// A pack with the lengths that stand in the first bytes of `data` and the content that follows,
/// cut or filled up with zeros. One checksum is bent where the last of the numbers says so.
#[cfg(any(test, feature = "testing"))]
fn with_right_sums(data: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(data, "fuzz input");
    let mut number = || u32::from(reader.u16().unwrap_or(0));
    let (toc_offset, toc_len, padding) = (number() % 3000, number() % 600, number() % 3000);
    let shard_size = 512 << (number() % 8);
    let bent = to_usize(number());
    let covered = toc_offset + toc_len + padding;
    let trailer = Trailer {
        toc_offset,
        toc_len,
        padding,
        shard_size,
        shard_count: covered.div_ceil(shard_size),
    };
    let mut pack = reader.rest().to_vec();
    pack.resize(to_usize(covered), 0);
    let mut sums: Vec<u8> = pack
        .chunks(to_usize(shard_size))
        .flat_map(|shard| xxh3_128(shard).to_le_bytes())
        .collect();
    if let Some(byte) = bent.checked_sub(1).and_then(|at| sums.get_mut(at)) {
        *byte ^= 1;
    }
    pack.extend_from_slice(&sums);
    pack.extend_from_slice(&trailer.encode());
    pack
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::{BackendErrorKind, MemBackend},
        codec::{Codec, Decoder},
        crypto::{EpochKey, SecretKey},
        id::{BlobId, EpochId},
        pack::{
            FinishedPack, Scratch, VerifyError,
            forged::{Claim, forge},
            open_blob,
        },
    };

    const DOMAIN: DomainId = DomainId::new([3; 16]);

    fn root(byte: u8) -> EpochKey {
        EpochKey {
            epoch: EpochId::new([1; 16]),
            key: SecretKey::new([byte; 32]),
        }
    }

    fn roots(byte: u8) -> Roots {
        let key = SecretKey::new([0; 32]);
        Roots::new(key.clone(), key, vec![root(byte)], vec![root(byte)])
    }

    fn pack() -> FinishedPack {
        let id = BlobId::new([7; 32]);
        forge(&root(1), DOMAIN, &[Claim::stored(id, &[5; 3000])])
    }

    /// What is said of these bytes under the name of `pack`.
    fn read(pack: &FinishedPack, bytes: &[u8], roots: &Roots) -> Result<PackGroup, PackError> {
        let (store, id) = (MemBackend::new(), pack.group.id);
        store.replace(ObjectName::Pack(id), bytes.to_vec());
        read_group(&store, roots, DOMAIN, id)
    }

    #[test]
    fn a_pack_that_is_whole_says_what_is_in_it() {
        let pack = pack();
        assert_eq!(read(&pack, &pack.bytes, &roots(1)).unwrap(), pack.group);
        check_bytes(pack.group.id, &pack.bytes).unwrap();
    }

    #[test]
    fn seeds_of_the_fuzz_target_get_past_the_name() {
        let frame = include_bytes!("../../../fuzz/corpus/pack_bytes/frame");
        let shards = check_bytes(own_name(frame).unwrap(), frame);
        assert!(
            matches!(shards, Err(PackError::Shards { .. })),
            "{shards:?}"
        );
        let made = |seed| {
            let pack = with_right_sums(seed);
            check_bytes(own_name(&pack).unwrap(), &pack)
        };
        let whole = made(include_bytes!("../../../fuzz/corpus/pack_bytes/whole"));
        assert_eq!(whole.unwrap().shard_count, 3);
        let bent = made(include_bytes!("../../../fuzz/corpus/pack_bytes/bent"));
        let second = matches!(
            bent,
            Err(PackError::Shards {
                count: 1,
                first: 1,
                ..
            })
        );
        assert!(second, "{bent:?}");
        let padded = made(include_bytes!("../../../fuzz/corpus/pack_bytes/padded"));
        let padding = matches!(
            padded,
            Err(PackError::Decode(DecodeError::Malformed { .. }))
        );
        assert!(padding, "{padded:?}");
    }

    #[test]
    fn what_is_wrong_with_a_pack_is_told_apart() {
        let pack = pack();
        let (id, whole) = (pack.group.id, pack.bytes.to_vec());
        let missing = read_group(&MemBackend::new(), &roots(1), DOMAIN, id).err();
        assert!(
            matches!(&missing, Some(PackError::Backend(error))
                if error.kind == BackendErrorKind::NotFound),
            "{missing:?}"
        );
        let mut no_trailer = whole.clone();
        *no_trailer.last_mut().unwrap() ^= 1;
        let (read_bent, bent) = (
            read(&pack, &no_trailer, &roots(1)).err(),
            check_bytes(id, &no_trailer).err(),
        );
        assert!(matches!(read_bent, Some(PackError::Decode(_))));
        assert!(matches!(bent, Some(PackError::Decode(_))), "{bent:?}");
        let longer = [&[0], whole.as_slice()].concat();
        let (read_long, long) = (
            read(&pack, &longer, &roots(1)).err(),
            check_bytes(id, &longer).err(),
        );
        assert!(matches!(read_long, Some(PackError::Length { .. })));
        let (len, more) = (whole.len() as u64, longer.len() as u64);
        assert!(
            matches!(long, Some(PackError::Length { found, expected })
                if found == more && expected == len),
            "{long:?}"
        );
        let other = PackId::new([9; 32]);
        let renamed = check_bytes(other, &whole).err();
        assert!(matches!(renamed, Some(PackError::WrongName)), "{renamed:?}");
        let mut flipped = whole.clone();
        flipped[200] ^= 1;
        let shard = check_bytes(id, &flipped).err();
        assert!(
            matches!(shard, Some(PackError::Shards { count: 1, first: 0, total }) if total > 1),
            "{shard:?}"
        );
        let foreign = read(&pack, &whole, &roots(2)).err();
        assert!(
            matches!(foreign, Some(PackError::Seal(SealError::WrongKey))),
            "{foreign:?}"
        );
    }

    #[test]
    fn a_blob_that_was_sealed_badly_is_told_from_one_that_was_altered() {
        let id = BlobId::new([7; 32]);
        let mut claim = Claim::stored(id, b"no frame");
        claim.codec = Codec::Zstd.to_byte();
        let pack = forge(&root(1), DOMAIN, &[claim]);
        let entry = pack.group.entries.first().unwrap();
        let start = to_usize(entry.offset);
        let sealed = &pack.bytes[start..start + to_usize(entry.sealed_len)];
        let open = |mut sealed: Vec<u8>| {
            let (mut decoder, mut scratch) = (Decoder::new().unwrap(), Vec::new());
            open_blob(
                &pack.key,
                entry,
                &mut sealed,
                None,
                &mut decoder,
                &mut scratch,
            )
            .map(<[u8]>::to_vec)
        };
        let badly = open(sealed.to_vec());
        assert!(
            matches!(badly, Err(PackError::Codec(CodecError::NotAFrame))),
            "{badly:?}"
        );
        let mut altered = sealed.to_vec();
        altered[0] ^= 1;
        let altered = open(altered);
        assert!(
            matches!(altered, Err(PackError::Seal(SealError::Altered))),
            "{altered:?}"
        );
    }

    #[test]
    fn a_pack_that_does_not_hold_what_it_says_is_not_stored() {
        let pack = pack();
        let verified = pack.verify(&roots(1), &mut Scratch::new().unwrap());
        let error = crate::error::Error::from(verified.unwrap_err());
        assert!(
            matches!(error, crate::error::Error::Verify(VerifyError { blob, pack: of })
                if blob == BlobId::new([7; 32]) && of == pack.group.id),
            "{error:?}"
        );
    }
}
