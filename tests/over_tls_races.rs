//! The races over TLS, alone in a process: they count its connections.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "races.rs"]
mod races;
