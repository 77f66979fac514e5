//! Healthy clients beside slow ones over TLS, alone in a process: they are sent what is for everybody.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "beside_slow_peers.rs"]
mod beside_slow_peers;
