//! Packs: collecting sealed blobs into the bytes of a pack ([`PackBuilder`]), and taking blobs
//! and tables of contents out of stored ones ([`reader`]). Which blobs go where is `writer`'s
//! business, and what is stored already is `index`'s.

mod builder;
#[cfg(test)]
pub(crate) mod forged;
pub mod reader;

pub use builder::{FinishedPack, PackBuilder, Scratch, VerifyError, open_blob};
