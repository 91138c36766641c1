//! Stored forms of trees, file content and snapshots, as plain bytes of blobs and snapshot
//! records; sealing and packing them is `strongroom-repo`'s. Specified in `docs/format-v1.md`.

mod copied;
pub mod extents;
mod levels;
pub mod snapshot;
pub mod tree;
