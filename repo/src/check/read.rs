//! Reading packs: one pass over the bytes, opened in place. The shards and the name are checked
//! first, then the table of contents against the index, then every blob is opened, decoded and
//! compared with its id. Packs in which all is well take the quick way (`pieces`); the others are
//! read again as a whole, to tell what is wrong with them.

mod pieces;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use self::pieces::Window;
use super::{CheckOptions, CheckProgress, CheckReport, Finding, Problem, Severity, Verdict};
use crate::{
    aligned::AlignedBuf,
    backend::{BackendError, BackendErrorKind, ObjectName},
    base::BaseReader,
    codec::Decoder,
    crypto::{ObjectKey, SealHeader},
    error::{Error, Result},
    format::{DecodeError, cursor::to_usize, pack::BlobEntry},
    id::{BlobId, PackId},
    index::{Index, PackInfo},
    limits::MAX_PACK_LEN,
    pack::{
        open_blob,
        reader::{PackError, check_bytes, open_group},
    },
    prune::view::entries_of,
    repository::Repository,
};

/// What all workers share.
struct Shared<'a> {
    repo: &'a Repository,
    index: &'a Index,
    packs: &'a [PackInfo],
    attested: BTreeSet<PackId>,
    next: AtomicUsize,
    cancel: &'a AtomicBool,
    progress: &'a dyn CheckProgress,
    report: Mutex<&'a mut CheckReport>,
    failure: Mutex<Option<Error>>,
}

/// What came out of one pack.
#[derive(Default)]
struct Outcome {
    findings: Vec<Problem>,
    blobs: u64,
    bad: Vec<BlobId>,
    bad_segments: BTreeSet<u32>,
    /// Deltas whose base cannot be read.
    baseless: Vec<BlobId>,
    /// Those of them of which no more is known than that: they were not opened.
    unproved: BTreeSet<u32>,
    lost: bool,
    /// It is good, but was not at first.
    unsteady: Option<Error>,
}

impl Outcome {
    /// What it says of the pack; nothing where the store only failed to give it.
    fn verdict(&self) -> Option<Verdict> {
        let out_of_reach = |problem: &Problem| match problem {
            Problem::Pack {
                source: PackError::Backend(error),
                ..
            } => !is_damage(error),
            _ => false,
        };
        if self.unsteady.is_some() || self.findings.iter().any(out_of_reach) {
            return None;
        }
        // What is wrong with a base is no damage to the pack of the delta.
        let is_here = |problem: &Problem| !matches!(problem, Problem::Base { .. });
        Some(if self.lost {
            Verdict::Lost
        } else if self.bad_segments.is_empty() && self.findings.iter().any(is_here) {
            Verdict::Frame
        } else if self.bad_segments.is_empty() && self.unproved.is_empty() {
            Verdict::Whole
        } else {
            Verdict::Segments {
                bad: self.bad_segments.clone(),
                unproved: self.unproved.clone(),
            }
        })
    }
}

/// Whether what a store says of an object is damage to it, and not only that it is out of reach.
const fn is_damage(error: &BackendError) -> bool {
    matches!(
        error.kind,
        BackendErrorKind::Io | BackendErrorKind::NotFound | BackendErrorKind::TooShort
    )
}

/// Whether a base is damaged, and not only out of reach.
const fn is_damaged_base(error: &Error) -> bool {
    match error {
        Error::Backend(error) => is_damage(error),
        Error::Pack { .. } | Error::Blob { .. } | Error::WrongBlob { .. } => true,
        _ => false,
    }
}

/// Reads the packs that `options` name.
pub(super) fn read_packs(
    repo: &Repository,
    options: CheckOptions,
    progress: &dyn CheckProgress,
    cancel: &AtomicBool,
    report: &mut CheckReport,
) -> Result<()> {
    let index = repo.index();
    let seed = repo.env().random()?;
    let known_bad = &report.bad_packs;
    let packs = index
        .packs()
        .filter(|pack| !known_bad.contains(&pack.id))
        .collect();
    let about = |pack: &PackInfo| (pack.id, pack.len);
    let packs = options.read_data.choose(packs, about, &seed);
    let bytes = packs.iter().map(|pack| pack.len).sum();
    progress.total(u64::try_from(packs.len()).unwrap_or(u64::MAX), bytes);
    let workers = options.workers.clamp(1, packs.len().max(1));
    let shared = Shared {
        repo,
        index: &index,
        packs: &packs,
        attested: repo.state().bad.packs(),
        next: AtomicUsize::new(0),
        cancel,
        progress,
        report: Mutex::new(report),
        failure: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(|| shared.work());
        }
        shared.work();
    });
    let failure = shared.failure.into_inner();
    failure
        .unwrap_or_else(PoisonError::into_inner)
        .map_or(Ok(()), Err)
}

impl Shared<'_> {
    fn work(&self) {
        let result = PackChecker::new(self.repo, self.index).and_then(|mut checker| {
            while let Some(pack) = self.take() {
                let entries = entries_of(self.index, pack)?;
                let outcome = checker.check(pack, &entries);
                self.note(pack, outcome);
            }
            Ok(())
        });
        if let Err(error) = result {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
            self.next.store(self.packs.len(), Ordering::Relaxed);
        }
    }

    fn take(&self) -> Option<&PackInfo> {
        let next = self.packs.get(self.next.fetch_add(1, Ordering::Relaxed))?;
        if self.cancel.load(Ordering::Relaxed) {
            let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            report.cancelled = true;
            return None;
        }
        Some(next)
    }

    fn note(&self, pack: &PackInfo, outcome: Outcome) {
        self.progress.advanced(pack.len);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.read.add(pack.len);
        report.read_blobs += outcome.blobs;
        let is_news = |verdict: &Verdict| verdict.is_damage() || self.attested.contains(&pack.id);
        if let Some(verdict) = outcome.verdict().filter(is_news) {
            report.verdicts.insert(pack.id, verdict);
        }
        if outcome.lost {
            report.bad_packs.insert(pack.id);
        } else if !outcome.bad.is_empty() {
            let bad = report.bad_blobs.entry(pack.id).or_default();
            bad.extend(outcome.bad);
        }
        if !outcome.baseless.is_empty() {
            let baseless = report.baseless.entry(pack.id).or_default();
            baseless.extend(outcome.baseless);
        }
        let object = Some(ObjectName::Pack(pack.id));
        report
            .findings
            .extend(outcome.unsteady.map(|error| Finding {
                severity: Severity::Warning,
                object,
                what: Problem::Unsteady(error),
            }));
        report
            .findings
            .extend(outcome.findings.into_iter().map(|what| Finding {
                severity: Severity::Error,
                object,
                what,
            }));
    }
}

/// What one worker needs.
struct PackChecker<'a> {
    repo: &'a Repository,
    index: &'a Index,
    decoder: Decoder,
    window: Window,
    plain: Vec<u8>,
    bases: BaseReader,
}

impl<'a> PackChecker<'a> {
    fn new(repo: &'a Repository, index: &'a Index) -> Result<Self> {
        Ok(Self {
            repo,
            index,
            decoder: Decoder::new()?,
            window: Window::default(),
            plain: Vec::new(),
            bases: BaseReader::new()?,
        })
    }

    fn check(&mut self, pack: &PackInfo, entries: &[BlobEntry]) -> Outcome {
        let sound = self.is_sound(pack, entries);
        if let Ok(true) = sound {
            return Outcome {
                blobs: u64::from(pack.blobs),
                ..Outcome::default()
            };
        }
        let mut window = std::mem::take(&mut self.window);
        let mut outcome = self.check_in(&mut window.buffer, pack, entries);
        self.window = window;
        if let (Err(error), Some(Verdict::Whole)) = (sound, outcome.verdict()) {
            outcome.unsteady = Some(error);
        }
        outcome
    }

    fn check_in(
        &mut self,
        buffer: &mut AlignedBuf,
        pack: &PackInfo,
        entries: &[BlobEntry],
    ) -> Outcome {
        let blobs = pack.blobs;
        let lost = |source: PackError| Outcome {
            findings: vec![Problem::Pack {
                good: 0,
                blobs,
                source,
            }],
            lost: true,
            ..Outcome::default()
        };
        if pack.len > u64::from(MAX_PACK_LEN) * 2 {
            let (what, value) = ("pack length", pack.len);
            return lost(DecodeError::OutOfRange { what, value }.into());
        }
        let len = usize::try_from(pack.len).unwrap_or(usize::MAX);
        let bytes = buffer.room(len);
        let name = ObjectName::Pack(pack.id);
        if let Err(error) = self.repo.backend().read_stored(&name, 0, bytes) {
            return lost(error.into());
        }
        let whole = self.check_whole(pack, bytes, entries);
        let (roots, domain) = (self.repo.roots(), self.repo.domain());
        let key = match ObjectKey::open(roots, domain, pack.header.clone()) {
            Ok(key) => key,
            Err(error) => return lost(error.into()),
        };
        let mut outcome = self.check_blobs(&key, bytes, entries);
        match whole {
            Ok(true) => {}
            Ok(false) => outcome.findings.push(Problem::TableOfContents),
            Err(source) => {
                // One finding for the pack, rather than one for each of its blobs.
                let good = u32::try_from(outcome.blobs).unwrap_or(u32::MAX);
                outcome.findings = vec![Problem::Pack {
                    good,
                    blobs,
                    source,
                }];
                outcome.lost = good == 0;
            }
        }
        outcome
    }

    /// Name, shards, and whether the pack itself says what the index says of it.
    fn check_whole(
        &self,
        pack: &PackInfo,
        bytes: &mut [u8],
        entries: &[BlobEntry],
    ) -> Result<bool, PackError> {
        let trailer = check_bytes(pack.id, bytes)?;
        let truncated = DecodeError::Truncated { what: "pack" };
        let header: [u8; SealHeader::LEN] = *bytes
            .first_chunk::<{ SealHeader::LEN }>()
            .ok_or(truncated)?;
        let start = to_usize(trailer.toc_offset);
        let end = start + to_usize(trailer.toc_len);
        let toc = bytes.get_mut(start..end).ok_or(truncated)?;
        let (roots, domain) = (self.repo.roots(), self.repo.domain());
        let group = open_group(&header, toc, &trailer, roots, domain, pack.id)?;
        Ok(group.entries == entries && group.header == pack.header && group.len == pack.len)
    }

    fn check_blobs(&mut self, key: &ObjectKey, bytes: &mut [u8], entries: &[BlobEntry]) -> Outcome {
        let mut outcome = Outcome::default();
        for entry in self.in_order_of_bases(entries) {
            let blob = entry.id;
            let start = to_usize(entry.offset);
            let end = start.saturating_add(to_usize(entry.sealed_len));
            let base = match entry.base {
                None => None,
                Some(base) => match self.bases.load(self.repo.base_source(self.index), &base) {
                    Ok(loaded) => Some(loaded.plain.as_slice()),
                    Err(source) => {
                        // The copy itself may be well: what is wrong lies elsewhere. Nor is
                        // anything wrong where a prune took the base of a delta that nothing
                        // needs; that something does is found out by what needs it.
                        let is_indexed = self.has_whole_copy(&base);
                        let segments = if is_indexed && is_damaged_base(&source) {
                            &mut outcome.bad_segments
                        } else {
                            &mut outcome.unproved
                        };
                        segments.insert(entry.segment);
                        if is_indexed {
                            let source = Box::new(source);
                            outcome.findings.push(Problem::Base { blob, base, source });
                        }
                        outcome.baseless.push(blob);
                        continue;
                    }
                },
            };
            let (decoder, plain) = (&mut self.decoder, &mut self.plain);
            let opened = match bytes.get_mut(start..end) {
                Some(sealed) => open_blob(key, entry, sealed, base, decoder, plain),
                None => Err(DecodeError::Truncated { what: "pack" }.into()),
            };
            let problem = match opened {
                Err(source) => Problem::Blob { blob, source },
                Ok(plain) if self.repo.roots().blob_id(entry.kind, plain) != blob => {
                    Problem::WrongBlob { blob }
                }
                Ok(_) => {
                    outcome.blobs += 1;
                    continue;
                }
            };
            outcome.findings.push(problem);
            outcome.bad.push(blob);
            outcome.bad_segments.insert(entry.segment);
        }
        outcome
    }

    /// Whether the index names a whole copy of a blob, readable or not; also where it cannot tell.
    fn has_whole_copy(&self, blob: &BlobId) -> bool {
        let copies = self.index.copies(blob);
        copies.map_or(true, |copies| {
            copies.iter().any(|copy| copy.entry.base.is_none())
        })
    }

    /// Whole blobs as they lie, then deltas as their bases lie, so that each of those is read once
    /// for all of `entries`.
    fn in_order_of_bases<'e>(&self, entries: &'e [BlobEntry]) -> Vec<&'e BlobEntry> {
        let place = |entry: &&BlobEntry| {
            let found = self.index.find(&entry.base?).ok().flatten()?;
            Some((found.pack, found.entry.offset))
        };
        let mut ordered: Vec<&BlobEntry> = entries.iter().collect();
        if entries.iter().any(|entry| entry.base.is_some()) {
            ordered.sort_by_cached_key(place);
        }
        ordered
    }
}
