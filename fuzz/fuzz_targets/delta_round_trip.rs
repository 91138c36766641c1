//! Calls `strongroom_repo::codec::fuzz_delta_round_trip`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom_repo::codec::fuzz_delta_round_trip(data));
