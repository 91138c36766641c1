//! For tests: packs that are sealed as they should be, and whose content is not what is said of it.
//! Only who holds the keys can make them.

use std::{convert::Infallible, sync::Arc};

use super::{FinishedPack, PackBuilder};
use crate::{
    aligned::AlignedBuf,
    backend::{ObjectName, PutOutcome},
    codec::Codec,
    crypto::{BlobKind, EpochKey, ObjectKey, SealKind},
    format::{
        index::{IndexBody, PackGroup},
        log::EntryKind,
        log_body::{AddPacks, Body},
        pack::BlobEntry,
        record::Ext,
    },
    id::{BlobId, DomainId},
    log::{Draft, state::State},
    repository::Repository,
};

/// A blob, and what its entry says of it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) id: BlobId,
    pub(crate) codec: u8,
    pub(crate) plain_len: u32,
    pub(crate) encoded: Vec<u8>,
}

impl Claim {
    /// A blob that is stored as it is, under an id that need not be its own.
    pub(crate) fn stored(id: BlobId, plain: &[u8]) -> Self {
        Self {
            id,
            codec: Codec::Stored.to_byte(),
            plain_len: u32::try_from(plain.len()).unwrap(),
            encoded: plain.to_vec(),
        }
    }
}

/// A pack of these blobs. Its salt is always the same: one for each pair of a key and a test.
pub(crate) fn forge(root: &EpochKey, domain: DomainId, claims: &[Claim]) -> FinishedPack {
    let key = Arc::new(ObjectKey::create(root, domain, SealKind::Pack, [5; 32]).unwrap());
    let mut builder = PackBuilder::new(Arc::clone(&key), AlignedBuf::new());
    for claim in claims {
        let number = key.next_segment().unwrap();
        let entry = BlobEntry {
            kind: BlobKind::Data,
            codec: claim.codec,
            base: None,
            segment: number.number(),
            offset: 0,
            sealed_len: 0,
            plain_len: claim.plain_len,
            id: claim.id,
        };
        let mut sealed = claim.encoded.clone();
        key.seal(number, &entry.segment_info(), &mut sealed)
            .unwrap();
        builder.append(entry, &sealed).unwrap();
    }
    builder.finish().unwrap()
}

/// Stores such a pack in a repository, with what an index is to say of it.
pub(crate) fn store(
    repo: &Repository,
    claims: &[Claim],
    change: impl FnOnce(&mut PackGroup),
) -> PackGroup {
    let root = repo.roots().data_epochs().last().unwrap();
    let pack = forge(root, repo.domain(), claims);
    let name = ObjectName::Pack(pack.group.id);
    let put = repo.backend().put_if_absent(&name, &[&pack.bytes]).unwrap();
    assert_eq!(put, PutOutcome::Created);
    let mut group = pack.group;
    change(&mut group);
    let body = IndexBody {
        packs: vec![group.clone()],
        ext: Ext::default(),
    };
    let (id, object) = repo.seal_index(&body).unwrap();
    repo.put_index(id, &object).unwrap();
    let indexes = vec![id];
    let body = Body::AddPacks(AddPacks { indexes });
    let mut check = |_: &State| Ok::<_, Infallible>(Draft::from(body.clone()));
    repo.lock_log()
        .append(EntryKind::AddPacks, &mut check)
        .unwrap();
    repo.refresh().unwrap();
    group
}
