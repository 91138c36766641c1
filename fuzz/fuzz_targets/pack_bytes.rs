//! Calls `strongroom_repo::pack::reader::fuzz_pack_bytes`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::pack::reader::fuzz_pack_bytes(data));
