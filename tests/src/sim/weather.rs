//! What goes wrong in a simulation, and how often.

use strongroom_repo::backend::{
    BackendErrorKind,
    testing::{Call, CallKind},
};

use super::random::Random;

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Faults in a thousand operations.
    faults: u64,
    /// Crashes of clients in ten thousand operations.
    crashes: u64,
    /// Power cuts in ten thousand operations.
    power_cuts: u64,
    /// In a thousand operations, how often the same client goes on.
    pub(super) stay: u64,
    /// In ten thousand operations, how often a client stands still for long.
    pub(super) naps: u64,
}

impl Weather {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut one_of = |from: &[u64]| random.pick(from).copied().unwrap_or(0);
        Self {
            faults: one_of(&[0, 0, 2, 10, 30]),
            crashes: one_of(&[0, 5, 20, 60]),
            power_cuts: one_of(&[0, 0, 5, 20]),
            stay: one_of(&[0, 500, 900, 970, 990]),
            naps: one_of(&[0, 20, 100]),
        }
    }
}

impl Weather {
    /// What becomes of an operation.
    pub(super) fn draw(self, random: &mut Random, call: &Call) -> Strike {
        let (chance, fault) = (random.below(10_000), random.permille(self.faults));
        let kind = match random.below(4) {
            0 => BackendErrorKind::NoSpace,
            1 => BackendErrorKind::Denied,
            _ => BackendErrorKind::Io,
        };
        let which = random.below(8);
        if chance < self.power_cuts {
            return Strike::PowerCut;
        }
        if chance < self.power_cuts + self.crashes {
            return Strike::Crash {
                after: which & 1 == 0,
            };
        }
        if !fault {
            return Strike::None;
        }
        match (call.kind, which) {
            (CallKind::Put, 0) => Strike::Unknown(Fate::Lost),
            (CallKind::Put, 1 | 2) => Strike::Unknown(Fate::Done),
            (CallKind::Put, 3 | 4) => Strike::Unknown(Fate::Late),
            (CallKind::List, 0..=4) => Strike::PartialList,
            (CallKind::ReadAt | CallKind::ReadAll, 0..=2) => Strike::FlipRead,
            (call, 5 | 6) if call.is_write() => Strike::FailAfter,
            _ => Strike::Fail(kind),
        }
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strike {
    None,
    Fail(BackendErrorKind),
    FailAfter,
    Unknown(Fate),
    Crash { after: bool },
    PowerCut,
    PartialList,
    FlipRead,
}

/// What becomes of a put whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Done,
    Late,
}

impl Strike {
    /// For people.
    pub(super) fn tale(self) -> String {
        match self {
            Self::None => String::new(),
            other => format!("<- {other:?}"),
        }
    }
}
