//! The server: accepting connections, serving their requests, and starting and stopping it all.

pub(crate) mod acceptor;
pub(crate) mod arrival;
pub(crate) mod builder;
pub(crate) mod error;
pub(crate) mod handle;
pub(crate) mod listen;
pub(crate) mod metrics;
pub(crate) mod pool;
pub(crate) mod process;
pub(crate) mod reload;
pub(crate) mod router;
pub(crate) mod serve;
pub(crate) mod signals;
pub(crate) mod systemd;
#[cfg(feature = "tls")]
pub(crate) mod tls;
