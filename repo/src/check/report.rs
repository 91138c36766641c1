//! What a check finds: findings for people, sets for what is done next.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::Verdict;
use crate::{
    backend::{BackendError, ObjectName},
    error::{Error, Result},
    format::DecodeError,
    id::{BlobId, PackId, SlotId},
    index::{Found, Index},
    log::{
        LogError,
        state::{BadCopies, IgnoreReason},
    },
    pack::reader::PackError,
    prune::{
        plan::Amount,
        view::{copies_of, pack_of},
    },
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Nothing is lost, but a reserve is: to be repaired.
    Warning,
    /// Something cannot be read.
    Error,
}

/// Something that a check found.
#[derive(Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object, where it is about one.
    pub object: Option<ObjectName>,
    /// What is wrong with it.
    pub what: Problem,
}

impl Finding {
    /// Whether [`Repository::heal`](crate::repository::Repository::heal) puts it right.
    #[must_use]
    pub const fn is_healable(&self) -> bool {
        match self.what {
            Problem::LogEntry { healable, .. } => healable,
            Problem::Damaged(error) if error.is_newer() => false,
            Problem::Copy | Problem::Missing | Problem::Damaged(_) => {
                matches!(self.object, Some(ObjectName::Config(_)))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object {
            Some(object) => write!(f, "{object}: {}", self.what),
            None => self.what.fmt(f),
        }
    }
}

/// What can be wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The log cannot be verified from its beginning.
    #[error("the commit log cannot be verified")]
    Log(#[source] LogError),
    /// A log entry is damaged or missing, though its content is known.
    #[error("the log entry is {}{}", if *.missing { "missing" } else { "damaged" },
        if *.healable { ", and can be healed" } else { "" })]
    LogEntry {
        /// It is not there at all.
        missing: bool,
        /// What it was is known.
        healable: bool,
    },
    /// A log entry changes nothing.
    #[error("the log entry changes nothing: {0}")]
    Ignored(IgnoreReason),
    /// One of the copies inside an object is damaged; another one is good.
    #[error("one of the three copies in it is damaged")]
    Copy,
    /// An object is missing.
    #[error("it is missing")]
    Missing,
    /// An object differs from the copy of it that is in use.
    #[error("it differs from the copy in use")]
    Differs,
    /// An object's structure is damaged.
    #[error("it is damaged")]
    Damaged(#[source] DecodeError),
    /// An object cannot be read or opened.
    #[error("it cannot be read")]
    Unreadable(#[source] Error),
    /// The record of a snapshot is damaged; the copy of it in a pack is good.
    #[error("it is damaged, but its copy in a pack can be read")]
    Record(#[source] Error),
    /// The store failed.
    #[error("the store cannot read it")]
    Store(#[source] BackendError),
    /// A live key has no object, so its password opens nothing.
    #[error("the object of key {} is lost: its password opens nothing", .0.short())]
    KeyLost(SlotId),
    /// The local index does not say what the index object says.
    #[error("the local index does not have what it says")]
    Cache,
    /// A pack's length is not what the index says.
    #[error("it is {found} bytes long, the index says {expected}")]
    Length {
        /// Bytes of the object.
        found: u64,
        /// Bytes that the index says.
        expected: u64,
    },
    /// A pack does not check out.
    #[error("{good} of {blobs} blobs in it can be read")]
    Pack {
        /// Blobs that can be read all the same.
        good: u32,
        /// Blobs that should be there.
        blobs: u32,
        /// What is wrong.
        #[source]
        source: PackError,
    },
    /// Something in a pack, or in what it rests on, was bad when it was read first; read again all
    /// of it was good.
    #[error("it was read badly at first, and well when it was read again")]
    Unsteady(#[source] Error),
    /// A blob in a pack that is otherwise as it should be.
    #[error("blob {blob} in it cannot be read")]
    Blob {
        /// The blob.
        blob: BlobId,
        /// Why.
        #[source]
        source: PackError,
    },
    /// A delta in a pack that rests on a blob which cannot be read.
    #[error("blob {blob} in it rests on blob {base}, which cannot be read")]
    Base {
        /// The delta's blob.
        blob: BlobId,
        /// Its base.
        base: BlobId,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// A blob's content is not what its id says.
    #[error("blob {blob} in it does not have the content that its id says")]
    WrongBlob {
        /// The blob.
        blob: BlobId,
    },
    /// The pack's own table of contents is not what the index says.
    #[error("its table of contents is not what the index says")]
    TableOfContents,
}

/// What a check found, and how much it looked at.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// Everything found, in the order of the levels.
    pub findings: Vec<Finding>,
    /// Entries of the log.
    pub log_entries: u64,
    /// Live index objects.
    pub indexes: u64,
    /// Packs of the index, with the bytes of their objects.
    pub packs: Amount,
    /// Copies of blobs in them.
    pub blobs: u64,
    /// Packs read whole.
    pub read: Amount,
    /// Blobs opened and compared with their ids.
    pub read_blobs: u64,
    /// Packs that no index names: leftovers, or of backups that go on.
    pub unreferenced: Amount,
    /// Packs that are missing, cut short, or of which nothing can be read.
    pub bad_packs: BTreeSet<PackId>,
    /// Single copies that cannot be read.
    pub bad_blobs: BTreeMap<PackId, BTreeSet<BlobId>>,
    /// What could be recorded: of every pack that is damaged, and of those that were recorded as
    /// damaged before and were read now.
    pub verdicts: BTreeMap<PackId, Verdict>,
    /// Deltas that may be well themselves, and rest on what cannot be read.
    pub baseless: BTreeMap<PackId, BTreeSet<BlobId>>,
    /// The check was interrupted.
    pub cancelled: bool,
}

impl CheckReport {
    /// Number of findings of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let same = |finding: &&Finding| finding.severity == severity;
        self.findings.iter().filter(same).count()
    }

    /// Whether something cannot be read.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Whether any copy was found bad.
    #[must_use]
    pub fn has_bad_copies(&self) -> bool {
        !self.bad_packs.is_empty() || !self.bad_blobs.is_empty() || !self.baseless.is_empty()
    }

    /// Whether the copy of a blob in a pack was found bad.
    #[must_use]
    pub fn is_bad(&self, pack: &PackId, blob: &BlobId) -> bool {
        self.bad_packs.contains(pack)
            || self
                .bad_blobs
                .get(pack)
                .is_some_and(|blobs| blobs.contains(blob))
    }

    /// Whether a blob can be decoded from copies that were found bad neither here nor by an
    /// attestation, unless they were read here and are good: one that is whole, or a delta whose
    /// base has one that is. The same rule as
    /// [`View::decodable`](crate::log::check::View::decodable).
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn is_decodable(&self, index: &Index, attested: &BadCopies, blob: &BlobId) -> Result<bool> {
        for copy in copies_of(index, blob)? {
            if !self.counts(index, attested, &copy) {
                continue;
            }
            let Some(base) = copy.entry.base else {
                return Ok(true);
            };
            let copies = copies_of(index, &base)?;
            let is_whole = |copy: &Found| copy.entry.base.is_none();
            if copies
                .iter()
                .any(|copy| is_whole(copy) && self.counts(index, attested, copy))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn counts(&self, index: &Index, attested: &BadCopies, copy: &Found) -> bool {
        pack_of(index, copy).is_some_and(|pack| {
            let (blob, segment) = (&copy.entry.id, copy.entry.segment);
            let is_good = |verdict: &Verdict| verdict.is_good(segment);
            let baseless = self.baseless.get(&pack);
            // What was just read counts for more than what was recorded some time.
            !baseless.is_some_and(|all| all.contains(blob))
                && !self.is_bad(&pack, blob)
                && (!attested.contains(&pack, segment)
                    || self.verdicts.get(&pack).is_some_and(is_good))
        })
    }

    pub(super) fn push(&mut self, severity: Severity, object: ObjectName, what: Problem) {
        self.findings.push(Finding {
            severity,
            object: Some(object),
            what,
        });
    }
}
