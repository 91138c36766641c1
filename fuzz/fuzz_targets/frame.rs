//! Calls `strongroom_repo::format::frame::fuzz_frame`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::frame::fuzz_frame(data));
