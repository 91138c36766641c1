//! [`FaultScript`]: what goes wrong in a run, and at which call. A value that can be compared,
//! shown and made again; [`FaultBackend`](super::fault::FaultBackend) plays it.

use std::fmt;

use super::{
    super::{BackendErrorKind, ObjectKind, ObjectName},
    next_random,
    record::{Call, CallKind},
};

/// Which call a fault strikes: the `nth` (from 1) of those that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Counted from 1.
    pub nth: u64,
    /// Whether calls that cannot change anything are passed over.
    pub writes_only: bool,
    /// Only this method.
    pub call: Option<CallKind>,
    /// Only calls about this kind of object.
    pub object_kind: Option<ObjectKind>,
    /// Only calls about this object.
    pub name: Option<ObjectName>,
}

impl Trigger {
    /// The nth call of all.
    #[must_use]
    pub const fn any(nth: u64) -> Self {
        Self {
            nth,
            writes_only: false,
            call: None,
            object_kind: None,
            name: None,
        }
    }

    /// The nth call that may change something: the steps at which a crash matters.
    #[must_use]
    pub const fn write(nth: u64) -> Self {
        Self {
            writes_only: true,
            ..Self::any(nth)
        }
    }

    /// The nth call of a method.
    #[must_use]
    pub const fn call(call: CallKind, nth: u64) -> Self {
        Self {
            call: Some(call),
            ..Self::any(nth)
        }
    }

    /// Of those, only calls about a kind of object.
    #[must_use]
    pub const fn of_kind(self, kind: ObjectKind) -> Self {
        Self {
            object_kind: Some(kind),
            ..self
        }
    }

    /// Of those, only calls about one object.
    #[must_use]
    pub const fn of_object(self, name: ObjectName) -> Self {
        Self {
            name: Some(name),
            ..self
        }
    }

    pub(super) fn fits(&self, call: &Call) -> bool {
        (!self.writes_only || call.kind.is_write())
            && self.call.is_none_or(|kind| kind == call.kind)
            && (self.object_kind.is_none() || self.object_kind == call.object_kind)
            && (self.name.is_none() || self.name == call.name)
    }
}

/// When in a call the machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// Nothing of the call has happened.
    Before,
    /// All of it has happened, but the answer is lost.
    After,
    /// A put or replacement has left only so many bytes under its name: what a disk does that
    /// reports a sync it has not done. Breaks the contract on purpose; other calls count as
    /// `Before`.
    Torn(u64),
}

/// Lengths worth tearing at, apart from one less than the whole.
pub const TORN_LENS: [u64; 6] = [0, 1, 511, 512, 4095, 4096];

/// What a fault does. Calls it does not suit pass unharmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call fails and has done nothing.
    Fail(BackendErrorKind),
    /// The call fails and has done everything: a lost answer.
    FailAfter(BackendErrorKind),
    /// A put answers [`PutOutcome::Unknown`](crate::backend::PutOutcome::Unknown); another write
    /// fails with `Io`.
    Unknown {
        /// Whether it has happened.
        applied: bool,
    },
    /// The call and every later one fail with
    /// [`Crashed`](super::fault::Crashed).
    Crash(CrashPoint),
    /// A read gives less than asked: `TooShort` for a range, half the bytes for a whole object.
    ShortRead,
    /// A read gives bytes of which one bit (which, follows from the seed) is wrong; the object
    /// itself is sound.
    FlipRead,
    /// The call panics, as a bug in it would; it has done nothing.
    Panic,
    /// A listing leaves out about half of the objects (which, follows from the seed).
    PartialList,
}

impl Effect {
    pub(super) const fn suits(self, call: CallKind) -> bool {
        match self {
            Self::Fail(_) | Self::FailAfter(_) | Self::Crash(_) | Self::Panic => true,
            Self::Unknown { .. } => call.is_write(),
            Self::ShortRead | Self::FlipRead => {
                matches!(call, CallKind::ReadAt | CallKind::ReadAll)
            }
            Self::PartialList => matches!(call, CallKind::List),
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it strikes first.
    pub trigger: Trigger,
    /// What it does.
    pub effect: Effect,
    /// Whether it strikes every fitting call from then on.
    pub lasting: bool,
}

/// A disk of limited size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) bytes: u64,
    pub(super) reserve: u64,
}

/// Everything that goes wrong in a run. Its `Display` is the expression that makes it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultScript {
    pub(super) seed: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) capacity: Option<Capacity>,
}

impl FaultScript {
    /// Nothing goes wrong. `seed` decides what the faults leave open.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            faults: Vec::new(),
            capacity: None,
        }
    }

    /// And this happens once.
    #[must_use]
    pub fn once(mut self, trigger: Trigger, effect: Effect) -> Self {
        self.faults.push(Fault {
            trigger,
            effect,
            lasting: false,
        });
        self
    }

    /// And this happens from then on.
    #[must_use]
    pub fn lasting(mut self, trigger: Trigger, effect: Effect) -> Self {
        self.faults.push(Fault {
            trigger,
            effect,
            lasting: true,
        });
        self
    }

    /// And the disk holds only `bytes`, of which `reserve` are kept in reserve while they are
    /// free. What does not fit fails with `NoSpace`.
    #[must_use]
    pub const fn capacity(mut self, bytes: u64, reserve: u64) -> Self {
        self.capacity = Some(Capacity { bytes, reserve });
        self
    }

    /// A script for each way to crash in a run of `writes` writing calls (see
    /// [`FaultBackend::writes`](super::fault::FaultBackend::writes)): before and after each.
    pub fn crash_points(seed: u64, writes: u64) -> impl Iterator<Item = Self> {
        (1..=writes)
            .flat_map(|nth| [CrashPoint::Before, CrashPoint::After].map(|point| (nth, point)))
            .map(move |(nth, point)| {
                Self::new(seed).once(Trigger::write(nth), Effect::Crash(point))
            })
    }

    /// One fault of any sort at any of `calls` calls, once or lasting, as `seed` says.
    #[must_use]
    pub fn random(seed: u64, calls: u64) -> Self {
        let mut state = seed;
        let mut below = |bound: u64| next_random(&mut state) % bound.max(1);
        let trigger = Trigger::any(1 + below(calls));
        let kind = match below(4) {
            0 => BackendErrorKind::NoSpace,
            1 => BackendErrorKind::Denied,
            2 => BackendErrorKind::ReadOnly,
            _ => BackendErrorKind::Io,
        };
        let effect = match below(8) {
            0 => Effect::Fail(kind),
            1 => Effect::FailAfter(kind),
            2 => Effect::Unknown { applied: true },
            3 => Effect::Unknown { applied: false },
            4 => Effect::Crash(CrashPoint::Before),
            5 => Effect::Crash(CrashPoint::After),
            6 => Effect::FlipRead,
            _ => Effect::ShortRead,
        };
        if below(4) == 0 {
            Self::new(seed).lasting(trigger, effect)
        } else {
            Self::new(seed).once(trigger, effect)
        }
    }
}

impl fmt::Display for FaultScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultScript::new({})", self.seed)?;
        for fault in &self.faults {
            let how = if fault.lasting { "lasting" } else { "once" };
            write!(f, ".{how}({}, Effect::{:?})", fault.trigger, fault.effect)?;
        }
        if let Some(Capacity { bytes, reserve }) = self.capacity {
            write!(f, ".capacity({bytes}, {reserve})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.call {
            Some(call) => write!(f, "Trigger::call(CallKind::{call:?}, {})", self.nth)?,
            None if self.writes_only => write!(f, "Trigger::write({})", self.nth)?,
            None => write!(f, "Trigger::any({})", self.nth)?,
        }
        if let Some(kind) = self.object_kind {
            write!(f, ".of_kind(ObjectKind::{kind:?})")?;
        }
        if let Some(name) = self.name {
            let (kind, file) = (name.kind(), name.file_name());
            write!(
                f,
                ".of_object(ObjectName::parse(ObjectKind::{kind:?}, {file:?}).unwrap())"
            )?;
        }
        Ok(())
    }
}
