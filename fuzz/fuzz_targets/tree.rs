//! Calls `strongroom_core::format::tree::fuzz_tree`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_core::format::tree::fuzz_tree(data));
