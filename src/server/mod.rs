//! The server: accepting connections, and starting and stopping it all.

pub(crate) mod acceptor;
pub(crate) mod builder;
pub(crate) mod handle;
pub(crate) mod pool;
