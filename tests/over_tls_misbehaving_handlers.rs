//! Misbehaving handlers over TLS, alone in a process: one of them closes all that it finds there.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "misbehaving_handlers.rs"]
mod misbehaving_handlers;
