//! Calls `strongroom_repo::format::index::fuzz_index`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::index::fuzz_index(data));
