//! Calls `strongroom_core::source::lists::fuzz_lists`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_core::source::lists::fuzz_lists(data));
