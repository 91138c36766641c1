//! Calls `strongroom_core::format::snapshot::fuzz_snapshot`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_core::format::snapshot::fuzz_snapshot(data));
