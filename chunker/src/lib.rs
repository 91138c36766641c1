//! From bytes to chunks: where content is cut, and what its structure is.
//!
//! Pure: no I/O, no threads, no clock, no randomness, no secrets but the chunking key. The rule of
//! a repository is a [`Chunker`]; the same content gives the same cuts whether it is cut whole
//! ([`Chunker::cut_all`]), as it arrives ([`Stream`]) or in segments by many workers
//! ([`Chunker::scan`], [`Selector`]). [`layout`] says which parts of a file are tensors, and which
//! files change in blocks, that [`Chunker::mark_blocks`] and [`BlockSelector`] cut.
//!
//! ```
//! use strongroom_chunker::{Chunker, ChunkerKind, ChunkerParams, Selector};
//!
//! let params = ChunkerParams::new(64, 256, 1024)?;
//! let chunker = Chunker::new(ChunkerKind::Gear, params, &[7; 32]);
//! let numbers = (0..5000u32).map(|i| i.wrapping_mul(2_654_435_761));
//! let content: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
//!
//! let mut whole = Vec::new();
//! chunker.cut_all(&content, &mut whole);
//!
//! // The same by two workers, of which the second needs the 63 bytes before its half.
//! let (left, right) = content.split_at(10_000);
//! let first = chunker.scan(&[], left, 0);
//! let second = chunker.scan(&left[10_000 - 63..], right, 10_000);
//! let (mut selector, mut cuts) = (Selector::new(&params), Vec::new());
//! selector.feed(&first, 10_000, false, &mut cuts);
//! selector.feed(&second, 20_000, true, &mut cuts);
//! assert!(cuts.iter().eq(whole.iter().map(|&cut| cut as u64).collect::<Vec<_>>().iter()));
//! # Ok::<(), strongroom_chunker::ParamsError>(())
//! ```

mod blocks;
mod chunker;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod gear;
mod lanes;
pub mod layout;
#[cfg(test)]
mod oracle;
mod parallel;
mod params;
mod scan;

pub use blocks::{BLOCK_AVG, BLOCK_MAX, BLOCK_MIN, BlockMarks, BlockSelector};
pub use chunker::{Chunker, Stream};
pub use gear::WINDOW;
pub use parallel::{Candidates, LEAD, Selector};
pub use params::{ChunkerKind, ChunkerParams, ParamsError, UnknownChunker};
