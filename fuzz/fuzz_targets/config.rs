//! Calls `strongroom_repo::format::config::fuzz_config`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::config::fuzz_config(data));
