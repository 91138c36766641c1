//! Calls `strongroom_repo::crypto::fuzz_sealed`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::crypto::fuzz_sealed(data));
