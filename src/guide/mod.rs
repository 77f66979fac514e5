//! What a server's owner has to know beside the interface: security, and memory.

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("memory.md")]
pub mod memory {}
