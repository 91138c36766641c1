//! One entry of the commit log: head, signature, inline parts. Bodies are in
//! [`log_body`](super::log_body); the object around the head is a [`frame`].
//!
//! ```text
//! head = "STRONGLG" version=1 kind flags=0 0 | seq u64 | prev 32 | writer 32 | txn 16
//!      | secs i64 | nanos u32 | body mode u8 | body u32 length + bytes
//!      | part count u16, per part: kind u8, length u32, BLAKE3 32
//!      | ext count u16, per field: tag u16, u32 length + bytes | signature 64
//! ```
//!
//! The signature covers everything before it. `prev` and all talk of an entry's hash mean the
//! BLAKE3 of these bytes. A part's hash is the id of the object that it is.

use super::{
    DecodeError, VERSION,
    cursor::{Reader, put_bytes, to_u32, to_usize},
    frame::{self, FrameKind},
};
use crate::{
    crypto::{SIGNATURE_LEN, Signer, verify_signature},
    env::Timestamp,
    id::{Hash, SlotId, TxnId},
    limits::{MAX_INLINE_PART, MAX_INLINE_PARTS, MAX_LOG_HEAD},
};

const MAGIC: &[u8; 8] = b"STRONGLG";
const WHAT: &str = "log entry";
const KIND: &str = "log entry kind";
const CONTEXT: &[u8] = b"strongroom v1 log";
const NANOS_END: u32 = 1_000_000_000;

/// Largest object of a log entry: three heads, the inline parts and what frames them.
pub const MAX_ENTRY_LEN: u64 = 3 * (MAX_LOG_HEAD as u64 + 64) + (MAX_INLINE_PART as u64) * 8 + 64;
const _: () = assert!(MAX_INLINE_PARTS == 8);

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The first entry.
    Genesis = 1,
    /// Index objects that hold new packs.
    AddPacks = 2,
    /// A snapshot, with the index objects that are new with it.
    AddSnapshot = 3,
    /// Snapshots forgotten.
    RemoveSnapshots = 4,
    /// Snapshots taken back.
    RestoreSnapshots = 5,
    /// Packs given up, indexes exchanged.
    Sweep = 6,
    /// A sweep whose deletions are done.
    SweepDone = 7,
    /// Tags, holds and marks of snapshots.
    Annotate = 8,
    /// Snapshots rewritten.
    ReplaceSnapshots = 9,
    /// A new keyring and list of slots.
    KeyChange = 10,
    /// A new configuration.
    ConfigChange = 11,
    /// Packs found good or bad.
    Attest = 12,
    /// Damaged entries passed over.
    Void = 13,
}

impl EntryKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Genesis,
        Self::AddPacks,
        Self::AddSnapshot,
        Self::RemoveSnapshots,
        Self::RestoreSnapshots,
        Self::Sweep,
        Self::SweepDone,
        Self::Annotate,
        Self::ReplaceSnapshots,
        Self::KeyChange,
        Self::ConfigChange,
        Self::Attest,
        Self::Void,
    ];

    /// Whether the body is readable without a key: what a client must know before it can open
    /// the keyring.
    #[must_use]
    pub const fn is_plain(self) -> bool {
        matches!(self, Self::Genesis | Self::KeyChange | Self::Void)
    }
}

impl TryFrom<u8> for EntryKind {
    type Error = DecodeError;

    fn try_from(byte: u8) -> Result<Self, DecodeError> {
        let kind = Self::ALL.into_iter().find(|kind| *kind as u8 == byte);
        kind.ok_or(DecodeError::UnknownTag {
            what: KIND,
            tag: u64::from(byte),
        })
    }
}

/// What an inline part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PartKind {
    /// The bytes of an index object; the hash is its id.
    Index = 1,
    /// The inner bytes of a snapshot object; the hash is its id.
    Snapshot = 2,
}

/// An object that stands inside the entry that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Its bytes, at most [`MAX_INLINE_PART`].
    pub bytes: Vec<u8>,
}

impl Part {
    /// The part's line in the head.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] where it is too large to stand inside an entry.
    pub fn info(&self) -> Result<PartInfo, DecodeError> {
        let len = to_u32(self.bytes.len(), "inline part")?;
        if len > MAX_INLINE_PART {
            return Err(DecodeError::OutOfRange {
                what: "inline part",
                value: u64::from(len),
            });
        }
        Ok(PartInfo {
            kind: self.kind,
            len,
            hash: blake3::hash(&self.bytes).into(),
        })
    }
}

/// An inline part as the head lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// What it is.
    pub kind: PartKind,
    /// Its length in bytes.
    pub len: u32,
    /// BLAKE3 of its bytes.
    pub hash: Hash,
}

/// The head of an entry, without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// What the entry does.
    pub kind: EntryKind,
    /// Its number, from 1.
    pub seq: u64,
    /// The hash of the entry before; zeros in the first.
    pub prev: Hash,
    /// Who signed it.
    pub writer: SlotId,
    /// By which its writer recognises it.
    pub txn: TxnId,
    /// The writer's clock.
    pub time: Timestamp,
    /// The body: a record where [`EntryKind::is_plain`], else a sealed object.
    pub body: Vec<u8>,
    /// What stands behind the head.
    pub parts: Vec<PartInfo>,
    /// Extension fields, tags ascending; the top bit of a tag means critical.
    pub ext: Vec<(u16, Vec<u8>)>,
}

impl EntryHead {
    /// The signed bytes of the head.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] where the head is larger than a head may be or has too many
    /// parts.
    pub fn sign(&self, signer: &Signer) -> Result<Vec<u8>, DecodeError> {
        let mut out = self.encode()?;
        let signature = signer.sign(CONTEXT, &out);
        out.extend_from_slice(&signature);
        if to_u32(out.len(), WHAT)? > MAX_LOG_HEAD {
            let value = u64::try_from(out.len()).unwrap_or(u64::MAX);
            return Err(DecodeError::OutOfRange { what: WHAT, value });
        }
        Ok(out)
    }

    fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[VERSION, self.kind as u8, 0, 0]);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.prev);
        out.extend_from_slice(self.writer.as_bytes());
        out.extend_from_slice(self.txn.as_bytes());
        out.extend_from_slice(&self.time.secs.to_le_bytes());
        out.extend_from_slice(&self.time.nanos.to_le_bytes());
        out.push(u8::from(!self.kind.is_plain()));
        put_bytes(&mut out, &self.body, WHAT)?;
        let count = small_count(self.parts.len(), "inline parts")?;
        if self.parts.len() > MAX_INLINE_PARTS {
            return Err(too_many_parts(count));
        }
        out.extend_from_slice(&count.to_le_bytes());
        for part in &self.parts {
            out.push(part.kind as u8);
            out.extend_from_slice(&part.len.to_le_bytes());
            out.extend_from_slice(&part.hash);
        }
        out.extend_from_slice(&small_count(self.ext.len(), WHAT)?.to_le_bytes());
        for (tag, bytes) in &self.ext {
            out.extend_from_slice(&tag.to_le_bytes());
            put_bytes(&mut out, bytes, WHAT)?;
        }
        Ok(out)
    }

    /// Reads a head; the signature still has to be verified.
    ///
    /// # Errors
    /// [`DecodeError`]; an unknown kind, part or critical extension is
    /// [`DecodeError::UnknownTag`].
    pub fn decode(inner: &[u8]) -> Result<(Self, Signed<'_>), DecodeError> {
        let cut = DecodeError::Truncated { what: WHAT };
        if to_u32(inner.len(), WHAT)? > MAX_LOG_HEAD {
            let value = u64::try_from(inner.len()).unwrap_or(u64::MAX);
            return Err(DecodeError::OutOfRange { what: WHAT, value });
        }
        let (message, signature) = inner.split_last_chunk::<SIGNATURE_LEN>().ok_or(cut)?;
        let mut reader = Reader::new(message, WHAT);
        reader.magic(MAGIC)?;
        reader.version()?;
        let kind = EntryKind::try_from(reader.u8()?)?;
        if reader.u16()? != 0 {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        let seq = reader.u64()?;
        let prev = reader.array()?;
        let writer = SlotId::new(reader.array()?);
        let txn = TxnId::new(reader.array()?);
        let (secs, nanos) = (reader.i64()?, reader.u32()?);
        if nanos >= NANOS_END || reader.u8()? != u8::from(!kind.is_plain()) {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        let head = Self {
            kind,
            seq,
            prev,
            writer,
            txn,
            time: Timestamp { secs, nanos },
            body: reader.bytes(MAX_LOG_HEAD, "log body")?.to_vec(),
            parts: read_parts(&mut reader)?,
            ext: read_ext(&mut reader)?,
        };
        reader.finish()?;
        Ok((head, Signed { message, signature }))
    }
}

fn read_parts(reader: &mut Reader<'_>) -> Result<Vec<PartInfo>, DecodeError> {
    let count = reader.u16()?;
    if usize::from(count) > MAX_INLINE_PARTS {
        return Err(too_many_parts(count));
    }
    let mut parts = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let kind = match reader.u8()? {
            1 => PartKind::Index,
            2 => PartKind::Snapshot,
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "inline part",
                    tag: u64::from(tag),
                });
            }
        };
        let len = reader.u32_up_to(MAX_INLINE_PART, "inline part")?;
        let hash = reader.array()?;
        parts.push(PartInfo { kind, len, hash });
    }
    Ok(parts)
}

fn read_ext(reader: &mut Reader<'_>) -> Result<Vec<(u16, Vec<u8>)>, DecodeError> {
    let count = reader.u16()?;
    let mut ext: Vec<(u16, Vec<u8>)> = Vec::new();
    for _ in 0..count {
        let tag = reader.u16()?;
        let bytes = reader.bytes(MAX_LOG_HEAD, "extension of a log entry")?;
        if ext.last().is_some_and(|(last, _)| *last >= tag) {
            return Err(DecodeError::Malformed { what: WHAT });
        }
        if tag & super::record::Ext::CRITICAL != 0 {
            return Err(DecodeError::UnknownTag {
                what: "extension of a log entry",
                tag: u64::from(tag),
            });
        }
        ext.push((tag, bytes.to_vec()));
    }
    Ok(ext)
}

fn small_count(len: usize, what: &'static str) -> Result<u16, DecodeError> {
    let value = u64::try_from(len).unwrap_or(u64::MAX);
    u16::try_from(len).map_err(|_| DecodeError::OutOfRange { what, value })
}

fn too_many_parts(count: u16) -> DecodeError {
    DecodeError::OutOfRange {
        what: "inline parts",
        value: u64::from(count),
    }
}

/// The signed bytes of a head and the signature.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    message: &'a [u8],
    signature: &'a [u8; SIGNATURE_LEN],
}

impl Signed<'_> {
    /// Whether the entry was signed by the holder of `public`.
    #[must_use]
    pub fn is_by(&self, public: &[u8; 32]) -> bool {
        verify_signature(public, CONTEXT, self.message, self.signature)
    }
}

/// The object of an entry: the signed head three times, the parts once.
///
/// # Errors
/// [`DecodeError::OutOfRange`] where the head is too large for a frame.
pub fn encode_object(inner: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, DecodeError> {
    frame::encode(FrameKind::Log, inner, parts)
}

/// The object of an entry, taken apart.
#[derive(Debug)]
pub struct EntryObject<'a> {
    /// The signed bytes of the head.
    pub inner: &'a [u8],
    /// The head.
    pub head: EntryHead,
    /// The signature, to be verified.
    pub signed: Signed<'a>,
    /// The inline parts in the order of the head; `None` for one that is damaged.
    pub parts: Vec<Option<&'a [u8]>>,
    /// Whether every copy, every part and the trailer are intact.
    pub intact: bool,
}

impl<'a> EntryObject<'a> {
    /// Takes an object apart.
    ///
    /// # Errors
    /// [`DecodeError`] where no copy of the head can be read.
    pub fn decode(object: &'a [u8]) -> Result<Self, DecodeError> {
        let framed = frame::decode(FrameKind::Log, object)?;
        let (head, signed) = EntryHead::decode(framed.inner)?;
        let mut rest = framed.inline;
        let mut parts = Vec::with_capacity(head.parts.len());
        for info in &head.parts {
            let split = rest.split_at_checked(to_usize(info.len));
            let (part, tail) = split.map_or((None, &[][..]), |(part, tail)| (Some(part), tail));
            parts.push(part.filter(|part| blake3::hash(part) == info.hash));
            rest = tail;
        }
        let intact = framed.intact && rest.is_empty() && parts.iter().all(Option::is_some);
        Ok(Self {
            inner: framed.inner,
            head,
            signed,
            parts,
            intact,
        })
    }

    /// The hash by which the next entry names this one.
    #[must_use]
    pub fn hash(&self) -> Hash {
        blake3::hash(self.inner).into()
    }

    /// The object as it was written, where all that it needs is intact.
    #[must_use]
    pub fn healed(&self) -> Option<Vec<u8>> {
        let parts: Option<Vec<&[u8]>> = self.parts.iter().copied().collect();
        encode_object(self.inner, &parts?).ok()
    }
}

/// Body of the fuzz target: no input panics, and a head that decodes encodes to its bytes.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_log_entry(data: &[u8]) {
    if let Ok((head, signed)) = EntryHead::decode(data) {
        assert_eq!(head.encode().as_deref(), Ok(signed.message));
    }
    if let Ok(object) = EntryObject::decode(data)
        && object.intact
    {
        assert_eq!(object.healed().as_deref(), Some(data));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SecretKey;

    fn signer() -> Signer {
        Signer::new(SlotId::new([5; 32]), &SecretKey::new([6; 32]))
    }

    fn part() -> Part {
        Part {
            kind: PartKind::Index,
            bytes: b"an index".to_vec(),
        }
    }

    fn head() -> EntryHead {
        EntryHead {
            kind: EntryKind::AddPacks,
            seq: 7,
            prev: [1; 32],
            writer: SlotId::new([5; 32]),
            txn: TxnId::new([2; 16]),
            time: Timestamp {
                secs: -1,
                nanos: 999_999_999,
            },
            body: b"sealed".to_vec(),
            parts: vec![part().info().unwrap()],
            ext: vec![(3, vec![9])],
        }
    }

    fn object() -> Vec<u8> {
        let inner = head().sign(&signer()).unwrap();
        encode_object(&inner, &[&part().bytes]).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let inner = head().sign(&signer()).unwrap();
        let mut expected = b"STRONGLG\x01\x02\0\0\x07\0\0\0\0\0\0\0".to_vec();
        expected.extend_from_slice(&[1; 32]);
        expected.extend_from_slice(&[5; 32]);
        expected.extend_from_slice(&[2; 16]);
        expected.extend_from_slice(&[255; 8]);
        expected.extend_from_slice(&[0xff, 0xc9, 0x9a, 0x3b]);
        expected.extend_from_slice(b"\x01\x06\0\0\0sealed\x01\0\x01\x08\0\0\0");
        expected.extend_from_slice(blake3::hash(b"an index").as_bytes());
        expected.extend_from_slice(&[1, 0, 3, 0, 1, 0, 0, 0, 9]);
        let (message, signature) = inner.split_at(inner.len() - 64);
        assert_eq!(message, expected);
        assert_eq!(
            blake3::hash(signature).to_hex().as_str(),
            "342c77adf21509d21cb6cba0ece3228d696f02a736f3f49ed77c885252d4f95f",
            "Ed25519 is deterministic: the same key and bytes, the same signature"
        );
    }

    #[test]
    fn an_entry_comes_apart_as_it_was_put_together() {
        let object = object();
        let entry = EntryObject::decode(&object).unwrap();
        assert_eq!(entry.head, head());
        assert!(entry.intact && entry.signed.is_by(&signer().public_key()));
        assert_eq!(entry.parts, [Some(&b"an index"[..])]);
        fuzz_log_entry(&object);
        fuzz_log_entry(entry.inner);
    }

    #[test]
    fn no_bit_of_the_head_can_change_without_breaking_the_signature() {
        let inner = head().sign(&signer()).unwrap();
        for bit in 0..inner.len() * 8 {
            let mut bent = inner.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let accepted = EntryHead::decode(&bent)
                .is_ok_and(|(_, signed)| signed.is_by(&signer().public_key()));
            assert!(!accepted, "bit {bit}");
            fuzz_log_entry(&bent);
        }
        for len in 0..inner.len() {
            let accepted = EntryHead::decode(&inner[..len])
                .is_ok_and(|(_, signed)| signed.is_by(&signer().public_key()));
            assert!(!accepted, "cut to {len}");
        }
    }

    #[test]
    fn every_bit_flip_of_an_object_is_survived_and_noticed() {
        let object = object();
        let pristine = EntryObject::decode(&object).unwrap();
        for bit in 0..object.len() * 8 {
            let mut bent = object.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            let entry = EntryObject::decode(&bent).unwrap();
            assert_eq!(entry.inner, pristine.inner, "bit {bit}");
            assert!(!entry.intact, "bit {bit}");
            match entry.healed() {
                Some(healed) => assert_eq!(healed, object, "bit {bit}"),
                None => assert_eq!(entry.parts, [None], "bit {bit}"),
            }
        }
    }

    #[test]
    fn unknown_kinds_parts_and_critical_extensions_are_refused_as_such() {
        let tag = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut inner = head().encode().unwrap();
            change(&mut inner);
            inner.extend_from_slice(&[0; 64]);
            match EntryHead::decode(&inner) {
                Err(DecodeError::UnknownTag { tag, .. }) => tag,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(tag(&|inner| inner[9] = 14), 14);
        let end = head().encode().unwrap().len();
        assert_eq!(tag(&|inner| inner[end - 6] = 0x80), 0x8003);
        assert_eq!(tag(&|inner| inner[end - 9 - 37] = 3), 3);
    }

    #[test]
    fn a_plain_kind_with_a_sealed_body_is_malformed() {
        let mut inner = head().encode().unwrap();
        inner[9] = EntryKind::Genesis as u8;
        inner.extend_from_slice(&[0; 64]);
        assert_eq!(
            EntryHead::decode(&inner).map(|_| ()),
            Err(DecodeError::Malformed { what: WHAT })
        );
    }

    #[test]
    fn too_many_or_too_large_parts_are_refused_by_the_writer() {
        let mut many = head();
        many.parts = vec![part().info().unwrap(); MAX_INLINE_PARTS + 1];
        assert!(many.sign(&signer()).is_err());
        let large = Part {
            kind: PartKind::Snapshot,
            bytes: vec![0; 65_537],
        };
        assert!(large.info().is_err());
        let mut body = head();
        body.body = vec![0; 4 << 20];
        assert!(body.sign(&signer()).is_err());
    }
}
