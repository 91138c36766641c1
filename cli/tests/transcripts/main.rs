//! The program as it is used: what it says, in words and as messages, and how it ends. That the
//! engine does the right thing is tested at the engine; here is the hook-up.
#![expect(
    clippy::unwrap_used,
    reason = "a test binary: to fail loudly is its job"
)]

mod errors;
mod help;
mod inspect;
mod repository;
mod sandbox;
mod signals;
