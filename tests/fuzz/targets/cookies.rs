//! A Cookie header, and the parts of a Set-Cookie.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rwf::fuzz::cookies(data));
