//! Bytes into the HTTP parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rwf::fuzz::request(data));
