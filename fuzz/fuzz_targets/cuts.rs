//! Calls `strongroom_chunker::fuzz::fuzz_cuts`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_chunker::fuzz::fuzz_cuts(data));
