//! Calls `strongroom_repo::index::fuzz_table`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::index::fuzz_table(data));
