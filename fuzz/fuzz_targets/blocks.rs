//! Calls `strongroom_chunker::fuzz::fuzz_blocks`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_chunker::fuzz::fuzz_blocks(data));
