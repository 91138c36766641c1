//! The bounds of the format that are no single module's: of blobs, packs, sealed objects, the parts
//! of a log entry, slots and passwords. Others stand with what they bound: records
//! (`MAX_RECORD_LEN`), whole log entries (`MAX_ENTRY_LEN`), log segments (`MAX_SEGMENT_LEN`), the
//! packs of a sweep (`MAX_SWEEP_PACKS`). Relations between bounds are checked at compile time at
//! the end of the file.

/// Largest plain blob: bounds every decode buffer.
pub const MAX_BLOB_LEN: u32 = 16 << 20;
/// Most segments (blobs) in a pack: keeps segment numbers far from the reserved one.
pub const MAX_PACK_SEGMENTS: u32 = 1 << 16;
/// Largest pack object, in bytes.
pub const MAX_PACK_LEN: u32 = 1 << 30;
/// Smallest and largest pack target of the configuration, in bytes.
pub const MIN_PACK_TARGET: u32 = 4 << 20;
/// Default pack target on a local disk, in bytes.
pub const DEFAULT_PACK_TARGET: u32 = 32 << 20;
/// Largest sealed metadata object (index, snapshot, log body, config body), plain bytes.
pub const MAX_META_LEN: u32 = 64 << 20;
/// Largest part that may stand inside a log entry, in bytes.
pub const MAX_INLINE_PART: u32 = 64 << 10;
/// Most inline parts in one log entry.
pub const MAX_INLINE_PARTS: usize = 8;
/// Largest head of a log entry, in bytes.
pub const MAX_LOG_HEAD: u32 = 4 << 20;
/// Entries in one `logseg` object.
pub const LOG_SEGMENT_ENTRIES: u64 = 1024;
/// Largest slot object: a slot is a few hundred bytes.
pub const MAX_SLOT_LEN: u32 = 64 << 10;
/// Largest keyring object.
pub const MAX_KEYRING_LEN: u32 = 16 << 20;
/// Most slots whose password is tried: each costs a key derivation.
pub const MAX_SLOTS_TRIED: usize = 20;
/// Most bytes of `key_material` in a sealing header.
pub const MAX_KEY_MATERIAL: usize = 2 << 10;
/// Floor and ceiling of Argon2id memory, in KiB; a repository outside them is refused.
pub const KDF_MEMORY_KIB: std::ops::RangeInclusive<u32> = (64 << 10)..=(4 << 20);
/// Floor and ceiling of Argon2id passes.
pub const KDF_TIME: std::ops::RangeInclusive<u32> = 3..=32;
/// Lanes of Argon2id.
pub const KDF_LANES: std::ops::RangeInclusive<u32> = 1..=64;
/// Longest label of a slot, in bytes.
pub const MAX_LABEL_LEN: usize = 1 << 10;

const _: () = {
    assert!(MAX_BLOB_LEN < MAX_PACK_LEN);
    assert!(MIN_PACK_TARGET <= DEFAULT_PACK_TARGET && DEFAULT_PACK_TARGET <= MAX_PACK_LEN);
    assert!(MAX_INLINE_PART < MAX_LOG_HEAD);
};
