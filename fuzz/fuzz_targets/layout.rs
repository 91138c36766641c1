//! Calls `strongroom_chunker::layout::fuzz_layout`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_chunker::layout::fuzz_layout(data));
