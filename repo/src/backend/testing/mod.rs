//! What tests need of storage: the conformance suite that every backend and decorator passes, the
//! call recorder, and the one fault machine. Nothing here is part of the program.
//!
//! Everything follows from seeds and call numbers; nothing sleeps, nothing asks the clock.

pub mod conformance;
pub mod damage;
pub mod fault;
pub mod history;
mod images;
pub mod record;
pub mod script;

pub use conformance::{Subject, conformance};
pub use damage::{Damage, damage, swap};
pub use fault::{Crashed, FaultBackend};
pub use history::{CrashState, Crashes, Depth, History};
pub use record::{Call, CallKind, RecordBackend};
pub use script::{CrashPoint, Effect, Fault, FaultScript, TORN_LENS, Trigger};

/// One step of a generator whose numbers follow from its state (splitmix64).
pub(crate) fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
