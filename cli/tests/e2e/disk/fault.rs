//! What goes wrong and when: operations are counted, and from the nth that an effect can befall,
//! or at it alone, the disk does not do what it is asked.

use super::wire;

const IO: i32 = -5;
const NOSPC: i32 = -28;
const ROFS: i32 = -30;

/// What is asked of the disk, as far as it can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Look,
    Open,
    Read,
    List,
    Create,
    Write,
    Allocate,
    Change,
    Sync,
    Close,
    Link,
    Rename,
    Remove,
    MakeFolder,
    FreeSpace,
}

impl Op {
    pub(super) fn of(kind: u32) -> Option<Self> {
        Some(match kind {
            wire::LOOKUP | wire::GETATTR => Self::Look,
            wire::OPEN | wire::OPENDIR => Self::Open,
            wire::READ => Self::Read,
            wire::READDIR => Self::List,
            wire::CREATE => Self::Create,
            wire::WRITE => Self::Write,
            wire::FALLOCATE => Self::Allocate,
            wire::SETATTR => Self::Change,
            wire::FSYNC | wire::FSYNCDIR => Self::Sync,
            wire::FLUSH => Self::Close,
            wire::LINK => Self::Link,
            wire::RENAME | wire::RENAME2 => Self::Rename,
            wire::UNLINK | wire::RMDIR => Self::Remove,
            wire::MKDIR => Self::MakeFolder,
            wire::STATFS => Self::FreeSpace,
            _ => return None,
        })
    }

    fn changes(self) -> bool {
        !matches!(
            self,
            Self::Look | Self::Open | Self::Read | Self::List | Self::FreeSpace
        )
    }
}

/// What a disk does instead of what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// "No space left" for everything that takes some.
    NoSpace,
    /// "Input/output error" for everything.
    Io,
    /// "Read-only file system" for everything that changes something.
    ReadOnly,
    /// Writes take half of their bytes.
    ShortWrite,
    /// Syncs fail, and what was not synced is lost.
    FailedSync,
    /// It is done, and reported as an error all the same.
    LostAnswer,
    /// Nothing is done any more, and of what was not synced nothing is left.
    PowerCut,
}

impl Effect {
    pub(crate) const ALL: [Self; 7] = [
        Self::NoSpace,
        Self::Io,
        Self::ReadOnly,
        Self::ShortWrite,
        Self::FailedSync,
        Self::LostAnswer,
        Self::PowerCut,
    ];

    /// The words by which a person can tell it; none for what no error follows from.
    pub(crate) fn words(self) -> Option<&'static str> {
        match self {
            Self::NoSpace => Some("no space left"),
            Self::ReadOnly => Some("read-only"),
            Self::Io | Self::FailedSync | Self::LostAnswer | Self::PowerCut => {
                Some("input/output error")
            }
            Self::ShortWrite => None,
        }
    }

    fn befalls(self, op: Op) -> bool {
        match self {
            Self::NoSpace => op.changes() && !matches!(op, Op::Remove | Op::Close),
            Self::Io | Self::PowerCut => true,
            Self::ReadOnly => op.changes() && op != Op::Close,
            Self::ShortWrite => op == Op::Write,
            Self::FailedSync => op == Op::Sync,
            Self::LostAnswer => op.changes() && !matches!(op, Op::Sync | Op::Close),
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::NoSpace => Verdict::Refuse(NOSPC),
            Self::Io | Self::FailedSync | Self::PowerCut => Verdict::Refuse(IO),
            Self::ReadOnly => Verdict::Refuse(ROFS),
            Self::ShortWrite => Verdict::Short,
            Self::LostAnswer => Verdict::LoseAnswer,
        }
    }
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) effect: Effect,
    /// Which of the operations that the effect can befall, from 1.
    pub(crate) nth: u64,
    /// From then on, or once.
    pub(crate) lasting: bool,
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Refuse(i32),
    Short,
    LoseAnswer,
}

/// Counts operations, and lets a fault befall them.
#[derive(Clone, Default)]
pub(crate) struct Meter {
    fault: Option<Fault>,
    /// Operations that each effect could have befallen.
    counts: [u64; Effect::ALL.len()],
    /// What failed, from the first on, and what was asked of it.
    struck: Vec<(Op, String)>,
}

impl Meter {
    pub(super) fn new(fault: Option<Fault>) -> Self {
        Self {
            fault,
            ..Self::default()
        }
    }

    /// What happens to the next operation, on `place`.
    pub(super) fn judge(&mut self, op: Op, place: impl FnOnce() -> String) -> Verdict {
        for (effect, count) in Effect::ALL.into_iter().zip(&mut self.counts) {
            *count += u64::from(effect.befalls(op));
        }
        let Some(fault) = self.fault.filter(|fault| fault.effect.befalls(op)) else {
            return Verdict::Pass;
        };
        let count = self.count(fault.effect);
        if count < fault.nth || (count > fault.nth && !fault.lasting) {
            return Verdict::Pass;
        }
        let struck = (op, place());
        if !self.struck.contains(&struck) {
            self.struck.push(struck);
        }
        fault.effect.verdict()
    }

    /// Operations so far that an effect could have befallen.
    pub(crate) fn count(&self, effect: Effect) -> u64 {
        let counts = Effect::ALL.into_iter().zip(self.counts);
        counts
            .filter_map(|(of, count)| (of == effect).then_some(count))
            .sum()
    }

    /// The paths of what failed, from the first on, without repetition.
    pub(crate) fn struck(&self) -> impl Iterator<Item = &str> {
        self.struck.iter().map(|(_, place)| place.as_str())
    }

    /// The first operation that failed, for messages.
    pub(crate) fn first_struck(&self) -> Option<String> {
        let (op, place) = self.struck.first()?;
        Some(format!("{op:?} {place}"))
    }
}
