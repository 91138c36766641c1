//! Calls `strongroom_core::source::pattern::fuzz_patterns`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_core::source::pattern::fuzz_patterns(data));
