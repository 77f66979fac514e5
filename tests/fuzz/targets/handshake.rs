//! Requests into the opening handshake, under several settings.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rwf::fuzz::handshake(data));
