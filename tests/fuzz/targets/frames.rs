//! Bytes into the frame decoder, under several limits.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rwf::fuzz::frames(data));
