//! Skeleton.

pub mod codec;
