//! What a server's owner has to know beside the interface: security, memory, the log, and more than
//! one machine.

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("systemd.md")]
pub mod systemd {}
#[cfg(feature = "redis")]
#[doc = include_str!("cluster.md")]
pub mod cluster {}

#[doc = include_str!("logging.md")]
pub mod logging {}
