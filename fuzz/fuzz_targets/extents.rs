//! Calls `strongroom_core::format::extents::fuzz_extents`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_core::format::extents::fuzz_extents(data));
