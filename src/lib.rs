//! WebSocket servers in plain, blocking Rust.
mod error;
mod executor;
mod link;
mod os;
mod reaper;
mod router;
mod server;
mod settings;
mod socket;

pub mod comms;
pub mod controller;
pub mod http;
pub mod prelude;
pub mod session;
pub mod websocket;

pub use crate::executor::block_on;
pub use rwf_macros as macros;
pub use rwf_macros::{main, route};
pub use uuid::Uuid;
