//! Calls `strongroom_repo::codec::fuzz_delta`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::codec::fuzz_delta(data));
