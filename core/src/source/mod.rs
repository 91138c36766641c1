//! Where a backup's files come from: which ones (`targets`, `walk`, `filter`, `pattern`, `lists`),
//! what they are (`meta`) and what is in them (`read`; of block devices `device`, of databases a
//! copy, by `sqlite`); and what is known of servers (`postgres`).
//!
//! Everything about files but SQLite itself works on directory descriptors, never on whole paths,
//! so that paths longer than the system's limit work and a directory swapped for a link cannot lead
//! elsewhere. What must stay true: an unchanged file costs one system call, memory does not grow
//! with the number of files outside the current path, and nothing that could not be read goes
//! unreported.

mod device;
mod dir;
mod entry;
pub mod filter;
mod frame;
mod glob;
pub mod lists;
pub mod meta;
pub mod pattern;
pub mod postgres;
pub mod read;
pub mod sqlite;
pub mod targets;
pub mod walk;

pub use filter::{Filter, FilterRules};
pub use meta::{Accounts, FileType, MetadataReader, Stat};
pub use read::{Change, Extent, SourceFile};
pub use targets::Targets;
pub use walk::{Entry, Event, Walk};
