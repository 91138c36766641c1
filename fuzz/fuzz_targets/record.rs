//! Calls `strongroom_repo::format::record::fuzz_record`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::record::fuzz_record(data));
