//! Calls `strongroom_repo::format::pack::fuzz_pack`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::format::pack::fuzz_pack(data));
