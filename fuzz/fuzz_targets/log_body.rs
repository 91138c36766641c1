//! Calls `strongroom_repo::format::log_body::fuzz_log_body`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::log_body::fuzz_log_body(data));
