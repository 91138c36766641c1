//! Calls `strongroom_repo::format::keyring::fuzz_keyring`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::keyring::fuzz_keyring(data));
