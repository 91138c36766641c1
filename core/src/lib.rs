//! The strongroom engine: sources, archive, snapshots and trees, restore.
//!
//! This crate knows trees, file systems and policies. It does not know ciphers or the bytes of a
//! pack: those are `strongroom-repo`'s. It never prints and never asks the machine for time,
//! randomness or environment.

pub mod archive;
pub mod bench;
pub mod check;
pub mod error;
#[cfg(test)]
mod fixture;
pub mod format;
pub mod inspect;
mod mounts;
pub mod node;
pub mod observer;
pub mod path;
pub mod prune;
mod raw;
pub mod reachable;
pub mod restore;
pub mod snapshots;
pub mod source;
pub mod stats;
pub mod view;

pub use error::{Error, Result};
