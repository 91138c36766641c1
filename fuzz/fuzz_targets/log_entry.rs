//! Calls `strongroom_repo::format::log::fuzz_log_entry`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::log::fuzz_log_entry(data));
