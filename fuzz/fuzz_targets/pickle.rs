//! Calls `strongroom_chunker::layout::fuzz_pickle`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_chunker::layout::fuzz_pickle(data));
