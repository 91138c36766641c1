//! How a writer stores blobs.

use super::DeltaMode;
use crate::{codec::Level, limits::DEFAULT_PACK_TARGET};

/// How blobs are stored.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// How hard to compress.
    pub level: Level,
    /// When blobs are stored as what differs from another one.
    pub delta: DeltaMode,
    /// Whether every pack is opened again and compared before it is uploaded.
    pub verify: bool,
    /// Pack size aimed at, in bytes.
    pub pack_target: u32,
    /// Bytes of finished packs that may wait for the store.
    pub in_flight: usize,
    /// Whether blobs are only counted, not stored (`--dry-run`).
    pub dry_run: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            level: Level::Auto,
            delta: DeltaMode::Auto,
            verify: true,
            pack_target: DEFAULT_PACK_TARGET,
            in_flight: 64 << 20,
            dry_run: false,
        }
    }
}
