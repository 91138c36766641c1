//! Restore: from a snapshot back into a file system.
//!
//! `target` is a root that nothing can leave, `dir` the handles inside it, `place` puts things
//! under names there, `file` writes one file's content, `apply` gives files their metadata. None of
//! them reads a repository.

pub mod apply;
mod at;
pub mod dir;
pub mod file;
mod place;
pub mod target;

#[cfg(test)]
mod tests;
