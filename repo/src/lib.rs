//! Sealed storage for strongroom: formats, crypto, compression codecs, packs, index, commit log
//! and backends.
//!
//! This crate knows blobs, packs, keys and the log. It does not know trees, paths or file
//! systems: which blobs are reachable reaches it as an argument. The bytes it writes are
//! specified in `docs/format-v1.md`.

pub mod aligned;
pub mod backend;
mod base;
pub mod check;
pub mod codec;
pub mod crypto;
pub mod env;
pub mod error;
pub mod format;
pub mod id;
pub mod index;
pub mod keys;
pub mod limits;
pub mod log;
#[doc(hidden)]
pub mod mutant;
pub mod pack;
pub mod prune;
pub mod repository;
pub mod ways;
pub mod writer;
