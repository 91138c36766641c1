//! Calls `strongroom_repo::log::segment::fuzz_log_segment`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::log::segment::fuzz_log_segment(data));
