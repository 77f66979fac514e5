//! The test kit over TLS: the same tests, whose servers and clients speak it, alone in a process for their panics.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "testing.rs"]
mod testing;
