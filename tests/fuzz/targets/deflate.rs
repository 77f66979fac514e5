//! Bytes into the frame decoder where messages may be compressed, and the way there and back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rwf::fuzz::deflate(data));
