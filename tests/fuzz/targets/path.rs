//! Patterns, a path and a query.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rwf::fuzz::path(data));
