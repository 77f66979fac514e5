//! Sockets, the system they come from, and the clock that watches them. No protocol.

pub(crate) mod os;
pub(crate) mod stream;
pub(crate) mod watchdog;
