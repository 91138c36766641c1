//! Sealing: one construction for packs and for metadata objects, see `docs/format-v1.md`,
//! "Sealing". Every object has a key of its own, derived from a root and a salt that no other
//! object has; inside an object the segment number is the nonce. [`SegmentNumber`]s are handed
//! out once each, so a nonce cannot be used twice.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use subtle::ConstantTimeEq;

use super::{
    aead::{self, Aead},
    keys::{BlobKind, EpochKey, Roots, SecretKey},
};
use crate::{
    format::{
        DecodeError, VERSION,
        cursor::{Reader, to_u32},
    },
    id::{BlobId, DomainId, EpochId},
    limits::{MAX_KEY_MATERIAL, MAX_PACK_SEGMENTS},
};

/// Bytes that sealing adds to a segment.
pub const TAG_LEN: usize = aead::TAG_LEN;
/// Segment number of a pack's table of contents.
pub const TOC_SEGMENT: u32 = u32::MAX;

/// What is sealed: goes into the key derivation, so one kind can never be taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SealKind {
    /// A pack of blobs.
    Pack = 1,
    /// The body of the configuration.
    Config = 2,
    /// An index.
    Index = 3,
    /// A snapshot record.
    Snapshot = 4,
    /// The body of a log entry.
    LogBody = 5,
    /// An audit record.
    Audit = 6,
}

impl TryFrom<u8> for SealKind {
    type Error = DecodeError;

    fn try_from(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            1 => Self::Pack,
            2 => Self::Config,
            3 => Self::Index,
            4 => Self::Snapshot,
            5 => Self::LogBody,
            6 => Self::Audit,
            _ => {
                return Err(DecodeError::UnknownTag {
                    what: "sealed kind",
                    tag: u64::from(byte),
                });
            }
        })
    }
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The sealed bytes are not what the key holder sealed: damaged, swapped or forged.
    #[error("the sealed bytes were altered")]
    Altered,
    /// Sealed under an epoch whose key this keyring does not hold.
    #[error("sealed under key epoch {0}, which is not in the keyring")]
    UnknownEpoch(EpochId),
    /// The object's key does not match its header: wrong repository, or an altered header.
    #[error("the sealing header does not belong to this repository, or was altered")]
    WrongKey,
    /// More segments than an object may have.
    #[error("too many segments in one object")]
    TooManySegments,
    /// The header or the frame around the sealed bytes cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Compressed bytes inside an authentic object cannot be decompressed.
    #[error("the sealed bytes cannot be decompressed")]
    Decompress,
}

/// The plain header of a sealed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealHeader {
    /// What is sealed.
    pub kind: SealKind,
    /// The epoch of the root key.
    pub epoch: EpochId,
    /// Makes the object's key unique.
    pub salt: [u8; 32],
    /// Commitment to the object's key.
    pub commit: [u8; 32],
}

const MAGIC: &[u8; 8] = b"STRONGSL";
const WHAT: &str = "sealing header";

impl SealHeader {
    /// Bytes of a version 1 header, which has no key material.
    pub const LEN: usize = 8 + 4 + 16 + 32 + 32 + 2;

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, self.kind as u8, KEY_MODE_DERIVED, 0]);
        out.extend_from_slice(self.epoch.as_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.commit);
        out.extend_from_slice(&[0, 0]);
        out
    }

    /// Reads a header off the front of `reader`.
    ///
    /// # Errors
    /// [`DecodeError`]; a key mode other than "derived" is [`DecodeError::UnknownTag`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.magic(MAGIC)?;
        reader.version()?;
        let kind = SealKind::try_from(reader.u8()?)?;
        let key_mode = reader.u8()?;
        if key_mode != KEY_MODE_DERIVED {
            return Err(DecodeError::UnknownTag {
                what: "key mode",
                tag: u64::from(key_mode),
            });
        }
        if reader.u8()? != 0 {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        let epoch = EpochId::new(reader.array()?);
        let salt = reader.array()?;
        let commit = reader.array()?;
        let material = usize::from(reader.u16()?);
        if material > MAX_KEY_MATERIAL {
            let value = u64::try_from(material).unwrap_or(u64::MAX);
            return Err(DecodeError::OutOfRange {
                what: "key material",
                value,
            });
        }
        if material != 0 {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        Ok(Self {
            kind,
            epoch,
            salt,
            commit,
        })
    }
}

/// A header with its key derived from the root: the pack's own key.
const KEY_MODE_DERIVED: u8 = 0;

/// What the associated data of a segment binds beside its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The blob's kind; `None` for metadata objects and tables of contents.
    pub kind: Option<BlobKind>,
    /// The blob's id; zeros where there is no blob.
    pub id: BlobId,
    /// Length of the plain bytes.
    pub plain_len: u32,
    /// Codec byte.
    pub codec: u8,
    /// The blob that a delta was made against.
    pub base: Option<BlobId>,
}

/// A segment number, good for sealing one segment.
#[derive(Debug)]
pub struct SegmentNumber(u32);

impl SegmentNumber {
    /// The number as stored.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.0
    }
}

/// The key of one object, with the header that commits to it.
pub struct ObjectKey {
    header: SealHeader,
    header_hash: [u8; 32],
    aead: Aead,
    next: AtomicU32,
    closed: AtomicBool,
}

impl ObjectKey {
    /// A key for a new object. `salt` must come from [`crate::env::Env::salt`].
    ///
    /// # Errors
    /// [`SealError::WrongKey`] where the cipher refuses the key, which it never does.
    pub fn create(
        root: &EpochKey,
        domain: DomainId,
        kind: SealKind,
        salt: [u8; 32],
    ) -> Result<Self, SealError> {
        let (key, commit) = derive(&root.key, salt, domain, kind);
        Self::new(
            SealHeader {
                kind,
                epoch: root.epoch,
                salt,
                commit,
            },
            &key,
        )
    }

    /// The key of an existing object.
    ///
    /// # Errors
    /// [`SealError::UnknownEpoch`] without its root, [`SealError::WrongKey`] where the
    /// commitment does not match.
    pub fn open(roots: &Roots, domain: DomainId, header: SealHeader) -> Result<Self, SealError> {
        let epochs = match header.kind {
            SealKind::Pack => roots.data_epochs(),
            _ => roots.meta_epochs(),
        };
        let root = epochs
            .iter()
            .find(|root| root.epoch == header.epoch)
            .ok_or(SealError::UnknownEpoch(header.epoch))?;
        let (key, commit) = derive(&root.key, header.salt, domain, header.kind);
        if !bool::from(commit.ct_eq(&header.commit)) {
            return Err(SealError::WrongKey);
        }
        Self::new(header, &key)
    }

    fn new(header: SealHeader, key: &SecretKey) -> Result<Self, SealError> {
        let header_hash = blake3::hash(&header.encode()).into();
        let aead = Aead::new(key).map_err(|_| SealError::WrongKey)?;
        Ok(Self {
            header,
            header_hash,
            aead,
            next: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// The header to store in front of the object.
    #[must_use]
    pub const fn header(&self) -> &SealHeader {
        &self.header
    }

    /// Hands out the next segment number.
    ///
    /// # Errors
    /// [`SealError::TooManySegments`] when the object is full.
    pub fn next_segment(&self) -> Result<SegmentNumber, SealError> {
        let next = |n: u32| (n < MAX_PACK_SEGMENTS).then_some(n + 1);
        let number = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        number
            .map(SegmentNumber)
            .map_err(|_| SealError::TooManySegments)
    }

    /// Seals a segment in place; the buffer grows by [`TAG_LEN`].
    ///
    /// # Errors
    /// [`SealError::Altered`] where the cipher refuses, which it does only beyond 64 GiB.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a number is used up by sealing with it"
    )]
    pub fn seal(
        &self,
        number: SegmentNumber,
        info: &SegmentInfo,
        buffer: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        self.seal_at(number.0, info, buffer)
    }

    /// Seals the table of contents, once.
    ///
    /// # Errors
    /// [`SealError::TooManySegments`] at the second call: its nonce is used up.
    pub fn seal_toc(&self, toc: &mut Vec<u8>) -> Result<(), SealError> {
        if self.closed.swap(true, Ordering::Relaxed) {
            return Err(SealError::TooManySegments);
        }
        let info = SegmentInfo::metadata(to_u32(toc.len(), "table of contents")?, STORED);
        self.seal_at(TOC_SEGMENT, &info, toc)
    }

    /// Opens a sealed table of contents in place.
    ///
    /// # Errors
    /// [`SealError::Altered`] where anything differs from what was sealed.
    pub fn open_toc<'a>(&self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], SealError> {
        let plain_len = sealed
            .len()
            .checked_sub(TAG_LEN)
            .ok_or(SealError::Altered)?;
        let info = SegmentInfo::metadata(to_u32(plain_len, "table of contents")?, STORED);
        self.open_segment(TOC_SEGMENT, &info, sealed)
    }

    fn seal_at(&self, i: u32, info: &SegmentInfo, buf: &mut Vec<u8>) -> Result<(), SealError> {
        let aad = self.associated_data(i, info);
        self.aead
            .seal(nonce(i), &aad, buf)
            .map_err(|_| SealError::Altered)
    }

    /// Opens segment `i` in place and returns its encoded bytes.
    ///
    /// # Errors
    /// [`SealError::Altered`] where anything differs from what was sealed.
    pub fn open_segment<'a>(
        &self,
        i: u32,
        info: &SegmentInfo,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], SealError> {
        let aad = self.associated_data(i, info);
        self.aead
            .open(nonce(i), &aad, sealed)
            .map_err(|_| SealError::Altered)
    }

    fn associated_data(&self, i: u32, info: &SegmentInfo) -> [u8; AAD_LEN] {
        let mut out = [0; AAD_LEN];
        let base = info.base.map_or([0; 32], |base| *base.as_bytes());
        let fields: [&[u8]; 8] = [
            &self.header_hash,
            &[info.kind.map_or(0, |kind| kind as u8)],
            &i.to_be_bytes(),
            info.id.as_bytes(),
            &info.plain_len.to_le_bytes(),
            &[info.codec],
            &[u8::from(info.base.is_some())],
            &base,
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }
}

const AAD_LEN: usize = 32 + 1 + 4 + 32 + 4 + 1 + 1 + 32;

impl SegmentInfo {
    /// What is bound for metadata objects and tables of contents.
    #[must_use]
    pub const fn metadata(plain_len: u32, codec: u8) -> Self {
        Self {
            kind: None,
            id: BlobId::new([0; 32]),
            plain_len,
            codec,
            base: None,
        }
    }
}

fn derive(
    root: &SecretKey,
    salt: [u8; 32],
    domain: DomainId,
    kind: SealKind,
) -> (SecretKey, [u8; 32]) {
    let mut hasher = blake3::Hasher::new_derive_key("strongroom v1 seal");
    hasher
        .update(root.expose())
        .update(&salt)
        .update(domain.as_bytes())
        .update(&[kind as u8]);
    let mut xof = hasher.finalize_xof();
    let (mut key, mut commit) = ([0; 32], [0; 32]);
    xof.fill(&mut key);
    xof.fill(&mut commit);
    (SecretKey::new(key), commit)
}

const fn nonce(i: u32) -> [u8; 12] {
    let [a, b, c, d] = i.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

/// Codec byte of what is sealed as it is.
pub(super) const STORED: u8 = 1;

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use super::*;
    use crate::env::{Clock, Env, Timestamp, testing::SeededRandom};

    const DOMAIN: DomainId = DomainId::new([3; 16]);

    fn root(byte: u8) -> EpochKey {
        EpochKey {
            epoch: EpochId::new([byte; 16]),
            key: SecretKey::new([byte; 32]),
        }
    }

    #[test]
    fn a_table_of_contents_is_sealed_once() {
        let key = ObjectKey::create(&root(1), DOMAIN, SealKind::Pack, [0; 32]).unwrap();
        let mut toc = b"toc".to_vec();
        key.seal_toc(&mut toc).unwrap();
        assert!(key.seal_toc(&mut b"again".to_vec()).is_err());
        assert_eq!(key.open_toc(&mut toc).unwrap(), b"toc");
    }

    /// A clock that goes on by a nanosecond at each look.
    struct Ticking(AtomicU32);

    impl Clock for Ticking {
        fn now(&self) -> Timestamp {
            let nanos = self.0.fetch_add(1, Ordering::Relaxed);
            Timestamp { secs: 1, nanos }
        }
    }

    fn clone_of_a_machine(starts_at: u32) -> Env {
        let clock = Arc::new(Ticking(AtomicU32::new(starts_at)));
        Env::new(clock, SeededRandom::new(1), [1; 32]).unwrap()
    }

    /// Seals `segments` segments in each of `packs` packs; gives the pairs of key and nonce, a key
    /// being known by its commitment, and the sealed bytes of the first segments.
    fn seal_packs(env: &Env, packs: u32, segments: u32) -> (Vec<(u128, u32)>, Vec<Vec<u8>>) {
        let (mut pairs, mut firsts) = (Vec::new(), Vec::new());
        for _ in 0..packs {
            let salt = env.salt(&[0; 32]).unwrap();
            let key = ObjectKey::create(&root(1), DOMAIN, SealKind::Pack, salt).unwrap();
            let (name, _) = key.header().commit.split_first_chunk().unwrap();
            for _ in 0..segments {
                let number = key.next_segment().unwrap();
                pairs.push((u128::from_le_bytes(*name), number.number()));
                let mut sealed = b"the same plain bytes".to_vec();
                let info = SegmentInfo::metadata(20, STORED);
                let first = number.number() == 0;
                key.seal(number, &info, &mut sealed).unwrap();
                if first {
                    firsts.push(sealed);
                }
            }
            let toc = TOC_SEGMENT;
            pairs.push((u128::from_le_bytes(*name), toc));
            key.seal_toc(&mut b"toc".to_vec()).unwrap();
        }
        (pairs, firsts)
    }

    #[test]
    fn a_million_segments_of_cloned_machines_share_no_key_and_nonce() {
        let (mut pairs, mut firsts) = (Vec::new(), Vec::new());
        for machine in 0..4 {
            // The generators of all machines give the same numbers.
            let sealed = seal_packs(&clone_of_a_machine(machine * 7), 2500, 99);
            pairs.extend(sealed.0);
            firsts.extend(sealed.1);
        }
        let sealed = pairs.len();
        assert_eq!(sealed, 1_000_000);
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), sealed);
        let different: HashSet<&Vec<u8>> = firsts.iter().collect();
        assert_eq!(
            different.len(),
            10_000,
            "equal plain bytes never look equal"
        );
    }

    #[test]
    fn clones_with_the_same_clock_share_a_salt_only_for_the_same_content() {
        let (one, other) = (clone_of_a_machine(0), clone_of_a_machine(0));
        for n in 0..1000_u32 {
            let content = |what: u32| *blake3::hash(&what.to_le_bytes()).as_bytes();
            let salts = (one.salt(&content(n)), other.salt(&content(n + 1)));
            assert_ne!(salts.0.unwrap(), salts.1.unwrap());
        }
        // Nothing differs at all: the second machine is the first.
        let (one, other) = (clone_of_a_machine(0), clone_of_a_machine(0));
        assert_eq!(one.salt(&[1; 32]).unwrap(), other.salt(&[1; 32]).unwrap());
    }

    #[test]
    fn segment_numbers_run_out_before_they_repeat() {
        let key = ObjectKey::create(&root(1), DOMAIN, SealKind::Pack, [0; 32]).unwrap();
        for expected in 0..MAX_PACK_SEGMENTS {
            assert_eq!(key.next_segment().unwrap().number(), expected);
        }
        assert!(matches!(
            key.next_segment(),
            Err(SealError::TooManySegments)
        ));
    }
}
