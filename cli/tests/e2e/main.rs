//! The program on real files, from the first backup to the last restore, and through what happens
//! to backups on the way: files that change, signals, kills, full disks, damage, wrong keys. What
//! single commands say is tested in `transcripts`; what the engine does at every cut, there.
//!
//! What only root may do is left out, in the open, where the tests run as a user; those of block
//! devices need root and fail without it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test binary: to fail loudly is its job"
)]

mod bad_devices;
mod bench;
mod changing;
mod damage;
mod deltas;
mod devices;
mod disk;
mod failing_disk;
mod full_disk;
mod interrupted;
mod large;
mod loops;
mod messages;
mod postgres;
mod refused;
mod round_trip;
mod runs;
#[path = "../transcripts/sandbox.rs"]
#[expect(dead_code, reason = "shared with the transcripts, which use all of it")]
mod sandbox;
mod scale;
mod space;
mod sqlite;
mod syscalls;
mod tree;
