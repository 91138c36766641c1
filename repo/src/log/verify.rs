//! Whether an object is the entry that it should be: number, chain, writer, signature. Pure; the
//! meaning of an entry is [`super::state`]'s.

use std::ops::Range;

use super::{
    error::{Anchored, Damage, LogError},
    state::{EntryMeta, IgnoreReason, KeyState, Position},
};
use crate::{
    format::{
        DecodeError,
        log::{EntryHead, EntryKind, EntryObject},
        log_body::{Body, Role},
    },
    id::{DomainId, Hash, RepoId},
};

/// What a client knows of a log before it reads it, out of its slot and the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The repository.
    pub repo: RepoId,
    /// The domain.
    pub domain: DomainId,
    /// The Ed25519 key of the first owner, who signed entry 1.
    pub owner: [u8; 32],
}

/// A verified entry on its way to be folded.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) meta: EntryMeta,
    /// The body as stored.
    pub(super) body: Vec<u8>,
    /// The body, where it is readable without a key.
    pub(super) plain: Option<Result<Body, IgnoreReason>>,
    /// Damaged entries right before this one, which it voids.
    pub(super) passed_over: Range<u64>,
}

/// A verified entry, and the key state after it where it changes that.
pub(super) type Step = (Verified, Option<KeyState>);

/// Why an object cannot be taken as an entry.
pub(super) enum Unusable {
    /// It is damaged: a twin may do.
    Damage(Damage),
    /// It is what it is: stop.
    Fatal(LogError),
}

impl From<Damage> for Unusable {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

pub(super) fn unusable(seq: u64, error: DecodeError) -> Unusable {
    if error.is_newer() {
        return Unusable::Fatal(LogError::Newer { seq, source: error });
    }
    Unusable::Damage(Damage::Decode(error))
}

/// Verifies an entry with the key list of the prefix before it. That it follows from that prefix
/// is the caller's business.
pub(super) fn verify_next(
    keys: &KeyState,
    entry: &EntryObject<'_>,
    passed_over: Range<u64>,
) -> Result<Step, Unusable> {
    let head = &entry.head;
    let unknown = Damage::Writer(head.writer);
    let slot = keys.slots.get(&head.writer).ok_or(unknown)?;
    if !entry.signed.is_by(&slot.ed25519) {
        return Err(Damage::Signature.into());
    }
    let role = keys.role(&head.writer).ok_or(unknown)?;
    let meta = meta_of(head, entry.hash(), role);
    let mut verified = Verified {
        meta,
        body: head.body.clone(),
        plain: None,
        passed_over,
    };
    if !head.kind.is_plain() {
        return Ok((verified, None));
    }
    // Only who may write this kind is listened to: nobody else can make the log look newer.
    let may_write = role.may_write(head.kind);
    let body = match Body::decode(head.kind, &head.body) {
        Err(error) if may_write && error.is_newer() => return Err(unusable(head.seq, error)),
        body => body.map_err(|_| IgnoreReason::Body),
    };
    let mut changed = None;
    if let Ok(Body::KeyChange(list)) = &body
        && may_write
    {
        changed = match KeyState::from_list(list, Some(keys)) {
            Err(error) if error.is_newer() => return Err(unusable(head.seq, error)),
            keys => keys.ok(),
        };
    }
    verified.body = Vec::new();
    verified.plain = Some(body);
    Ok((verified, changed))
}

fn meta_of(head: &EntryHead, hash: Hash, role: Role) -> EntryMeta {
    EntryMeta {
        at: Position {
            seq: head.seq,
            hash,
            time: head.time,
        },
        kind: head.kind,
        writer: head.writer,
        role,
        parts: head.parts.clone(),
    }
}

/// Verifies entry 1 against what the slot pins.
pub(super) fn verify_first(anchor: &Anchor, entry: &EntryObject<'_>) -> Result<Step, Unusable> {
    if entry.head.kind != EntryKind::Genesis {
        return Err(Damage::NotGenesis.into());
    }
    let body = Body::decode(EntryKind::Genesis, &entry.head.body);
    let Body::Genesis(list) = body.map_err(|error| unusable(1, error))? else {
        return Err(Damage::NotGenesis.into());
    };
    let wrong = |what| Err(Unusable::Fatal(LogError::WrongLog(what)));
    if list.repo != anchor.repo {
        return wrong(Anchored::Repository);
    }
    if list.domain != anchor.domain {
        return wrong(Anchored::Domain);
    }
    let keys = KeyState::from_list(&list, None).map_err(|error| unusable(1, error))?;
    let slot = keys.slots.get(&entry.head.writer);
    let owner = slot.is_some_and(|slot| slot.ed25519 == anchor.owner)
        && keys.role(&entry.head.writer) == Some(Role::Owner);
    if !owner {
        return wrong(Anchored::Owner);
    }
    if !entry.signed.is_by(&anchor.owner) {
        return Err(Damage::Signature.into());
    }
    let verified = Verified {
        meta: meta_of(&entry.head, entry.hash(), Role::Owner),
        body: Vec::new(),
        plain: Some(Ok(Body::Genesis(list))),
        passed_over: 1..1,
    };
    Ok((verified, Some(keys)))
}
