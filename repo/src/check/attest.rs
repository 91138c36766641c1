//! Recording in the log what a check found of packs, so that nobody relies on damaged copies any
//! more: the next backup stores anew what lies in them, and a prune takes them away once nothing
//! needs them. A pack that is whole again is recorded as good.
//!
//! Nothing is deleted by this, and restoring still tries every copy there is: a finding that was
//! wrong costs space, never data.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::Result,
    format::{
        log::EntryKind,
        log_body::{Attest, Body, Finding},
    },
    id::PackId,
    log::{
        AppendError, Draft, LogError,
        state::{BadCopies, State},
    },
    repository::Repository,
};

/// Bytes of findings in one entry, at most; well below what an entry can hold.
const MAX_BODY: usize = 1 << 20;

/// What is to be said of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is as it should be.
    Whole,
    /// Every blob can be read, but what is around them is damaged: nobody could tell what they are
    /// if the index were lost.
    Frame,
    /// These segments cannot be read.
    Segments(BTreeSet<u32>),
    /// It is missing, cut short, or nothing of it can be read.
    Lost,
}

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Packs of which copies are not relied on from now on.
    pub bad: u64,
    /// Packs that are relied on again.
    pub good: u64,
}

impl Verdict {
    /// Whether the copy in a segment was read and is good.
    pub(super) fn is_good(&self, segment: u32) -> bool {
        match self {
            Self::Whole | Self::Frame => true,
            Self::Segments(bad) => !bad.contains(&segment),
            Self::Lost => false,
        }
    }

    /// What has to be said, where so much is known already.
    fn findings(&self, pack: PackId, known: &BadCopies) -> Vec<Finding> {
        let whole = |good| Finding {
            pack,
            segments: Vec::new(),
            good,
        };
        let (known_whole, known_segments) = known.of(&pack);
        match self {
            Self::Whole if known_whole || !known_segments.is_empty() => vec![whole(true)],
            Self::Frame | Self::Lost if !known_whole => vec![whole(false)],
            Self::Segments(bad) if known_whole || known_segments != *bad => {
                let mut findings = Vec::new();
                if known_whole || !known_segments.is_subset(bad) {
                    findings.push(whole(true));
                }
                findings.push(Finding {
                    pack,
                    segments: bad.iter().copied().collect(),
                    good: false,
                });
                findings
            }
            _ => Vec::new(),
        }
    }
}

impl Repository {
    /// Whether whoever opened the repository may append entries of a kind.
    #[must_use]
    pub fn may_append(&self, kind: EntryKind) -> bool {
        let me = self.slot_id();
        let role = self.lock_log().state().keys.role(&me);
        role.is_some_and(|role| role.may_write(kind))
    }

    /// Records what a check found of packs, as far as the log does not say so yet.
    ///
    /// # Errors
    /// The log failed, or the key in use may not record findings.
    pub fn record_verdicts(&self, verdicts: &BTreeMap<PackId, Verdict>) -> Result<Recorded> {
        let mut recorded = Recorded::default();
        let mut rest: Vec<_> = verdicts.iter().collect();
        while !rest.is_empty() {
            let (mut taken, mut now) = (0, Recorded::default());
            let appended = self
                .lock_log()
                .append(EntryKind::Attest, &mut |state: &State| {
                    let findings;
                    (findings, taken, now) = next_entry(&rest, state);
                    if findings.is_empty() {
                        return Err(());
                    }
                    Ok(Draft::from(Body::Attest(Attest { findings })))
                });
            match appended {
                // What is left is known already.
                Err(AppendError::Refused(())) => break,
                Err(AppendError::Log(error)) => return Err(LogError::into(error)),
                Ok(_) => {}
            }
            recorded.bad += now.bad;
            recorded.good += now.good;
            rest.drain(..taken);
        }
        self.settle()?;
        Ok(recorded)
    }
}

/// The findings of the next entry, how many verdicts they cover, and what they amount to.
fn next_entry(verdicts: &[(&PackId, &Verdict)], state: &State) -> (Vec<Finding>, usize, Recorded) {
    let (mut all, mut len, mut taken) = (Vec::new(), 0, 0);
    let mut recorded = Recorded::default();
    for (pack, verdict) in verdicts {
        if len > MAX_BODY {
            break;
        }
        taken += 1;
        // Of a pack that was given up nothing needs to be said.
        if state.swept.contains(*pack) {
            continue;
        }
        let findings = verdict.findings(**pack, &state.bad);
        match (findings.is_empty(), *verdict) {
            (true, _) => continue,
            (false, Verdict::Whole) => recorded.good += 1,
            (false, _) => recorded.bad += 1,
        }
        for finding in findings {
            len += PackId::LEN + 8 + finding.segments.len() * 5;
            all.push(finding);
        }
    }
    (all, taken, recorded)
}
