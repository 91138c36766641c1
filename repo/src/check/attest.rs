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
    /// Some of its segments cannot be read, or were not.
    Segments {
        /// Those that cannot be read, nor what they rest on.
        bad: BTreeSet<u32>,
        /// Deltas of which nothing is known, since their base is gone or out of reach: that one was
        /// not compared with its id takes nothing back that was said of it.
        unproved: BTreeSet<u32>,
    },
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
    /// Whether it says that something is damaged.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Whole => false,
            Self::Segments { bad, .. } => !bad.is_empty(),
            Self::Frame | Self::Lost => true,
        }
    }

    /// Whether the copy in a segment was read and is good; of a delta without its base the report
    /// knows better.
    pub(super) fn is_good(&self, segment: u32) -> bool {
        match self {
            Self::Whole | Self::Frame => true,
            Self::Segments { bad, unproved } => {
                !bad.contains(&segment) && !unproved.contains(&segment)
            }
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
            Self::Segments { bad, unproved } => {
                let stays = |segment: &&u32| known_whole || known_segments.contains(segment);
                let stay = unproved.iter().filter(stays);
                let bad: BTreeSet<u32> = bad.iter().chain(stay).copied().collect();
                let mut findings = Vec::new();
                if known_whole || !known_segments.is_subset(&bad) {
                    findings.push(whole(true));
                }
                if !bad.is_empty() && (known_whole || known_segments != bad) {
                    findings.push(Finding {
                        pack,
                        segments: bad.into_iter().collect(),
                        good: false,
                    });
                }
                findings
            }
            _ => Vec::new(),
        }
    }
}

impl Repository {
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
        match (findings.is_empty(), verdict.is_damage()) {
            (true, _) => continue,
            (false, false) => recorded.good += 1,
            (false, true) => recorded.bad += 1,
        }
        for finding in findings {
            len += PackId::LEN + 8 + finding.segments.len() * 5;
            all.push(finding);
        }
    }
    (all, taken, recorded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACK: PackId = PackId::new([7; 32]);

    /// What is known once `verdicts` were recorded, one after the other.
    fn known(verdicts: &[Verdict]) -> BadCopies {
        let mut known = BadCopies::default();
        for verdict in verdicts {
            let findings = verdict.findings(PACK, &known);
            known.apply(&Attest { findings });
            assert_eq!(verdict.findings(PACK, &known), [], "there is news twice");
        }
        known
    }

    fn segments(bad: &[u32], unproved: &[u32]) -> Verdict {
        let set = |segments: &[u32]| segments.iter().copied().collect();
        Verdict::Segments {
            bad: set(bad),
            unproved: set(unproved),
        }
    }

    #[test]
    fn what_was_not_proved_to_be_good_stays_as_it_was_recorded() {
        let cases = [
            (
                segments(&[1, 2], &[]),
                segments(&[], &[2, 3]),
                (false, vec![2]),
            ),
            (
                segments(&[1, 2], &[]),
                segments(&[3], &[2]),
                (false, vec![2, 3]),
            ),
            (
                segments(&[1, 2], &[]),
                segments(&[1, 3], &[4]),
                (false, vec![1, 3]),
            ),
            (segments(&[1], &[]), segments(&[], &[2]), (false, vec![])),
            (segments(&[1], &[]), Verdict::Whole, (false, vec![])),
            (Verdict::Lost, segments(&[], &[2]), (false, vec![2])),
            (Verdict::Frame, segments(&[3], &[2]), (false, vec![2, 3])),
            (Verdict::Whole, segments(&[], &[2]), (false, vec![])),
            (segments(&[1], &[]), Verdict::Frame, (true, vec![1])),
        ];
        for (first, second, (whole, bad)) in cases {
            let found = known(&[first.clone(), second.clone()]).of(&PACK);
            assert_eq!(
                found,
                (whole, bad.into_iter().collect()),
                "{first:?} {second:?}"
            );
        }
    }

    #[test]
    fn only_what_cannot_be_read_is_damage() {
        assert!(!Verdict::Whole.is_damage() && !segments(&[], &[1]).is_damage());
        for damage in [segments(&[1], &[]), Verdict::Frame, Verdict::Lost] {
            assert!(damage.is_damage(), "{damage:?}");
        }
        let some = segments(&[1], &[2]);
        assert_eq!(
            [1, 2, 3].map(|segment| some.is_good(segment)),
            [false, false, true]
        );
    }
}
