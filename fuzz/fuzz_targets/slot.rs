//! Calls `strongroom_repo::format::slot::fuzz_slot`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::slot::fuzz_slot(data));
