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

/// Checks the bytes of a whole pack without a key: name, lengths, padding, every shard.
///
/// # Errors
/// [`PackError`] saying what is damaged.
pub fn check_bytes(id: PackId, pack: &[u8]) -> Result<Trailer, PackError> {
    let truncated = DecodeError::Truncated { what: "pack" };
    let found = u64::try_from(pack.len()).unwrap_or(u64::MAX);
    let (rest, tail) = pack
        .split_at_checked(pack.len().saturating_sub(TRAILER_LEN))
        .ok_or(truncated)?;
    let trailer = Trailer::decode(tail)?;
    if trailer.pack_len() != found {
        return Err(PackError::Length {
            found,
            expected: trailer.pack_len(),
        });
    }
    let (covered, sums) = rest
        .split_at_checked(to_usize(trailer.covered_len()))
        .ok_or(truncated)?;
    let header = covered.get(..SealHeader::LEN).ok_or(truncated)?;
    let toc_start = to_usize(trailer.toc_offset);
    let toc_end = toc_start + to_usize(trailer.toc_len);
    let toc = covered.get(toc_start..toc_end).ok_or(truncated)?;
    if pack_id(header, toc, &trailer, sums) != id {
        return Err(PackError::WrongName);
    }
    let shards = covered.chunks(to_usize(trailer.shard_size));
    let mut damaged = shards
        .zip(sums.chunks_exact(SHARD_SUM_LEN))
        .enumerate()
        .filter(|(_, (shard, sum))| xxh3_128(shard).to_le_bytes() != **sum)
        .map(|(at, _)| at);
    if let Some(first) = damaged.next() {
        let total = to_usize(trailer.shard_count);
        return Err(PackError::Shards {
            count: 1 + damaged.count(),
            total,
            first,
        });
    }
    if covered
        .get(toc_end..)
        .is_some_and(|padding| padding.iter().any(|byte| *byte != 0))
    {
        return Err(DecodeError::Malformed {
            what: "pack padding",
        }
        .into());
    }
    Ok(trailer)
}

/// Body of the fuzz target: no bytes panic.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_pack_bytes(data: &[u8]) {
    let _ = check_bytes(PackId::new([0; 32]), data);
}
