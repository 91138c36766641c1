//! Calls `strongroom_repo::prune::hint::fuzz_hint`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::prune::hint::fuzz_hint(data));
