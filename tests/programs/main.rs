//! Programs as their authors would write them, from the documentation, each with its tests: on the test kit alone.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod auth;
mod batch;
mod chat;
mod middleware;
mod question;
