//! WebSockets (RFC 6455): messages, and why a connection is closed.

pub(crate) mod batch;
pub(crate) mod close;
pub(crate) mod decoder;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod header;
pub(crate) mod message;
pub(crate) mod outbox;
pub(crate) mod outbox_state;
pub(crate) mod pace;
pub(crate) mod reader;
pub(crate) mod sender;
pub(crate) mod settings;
pub(crate) mod writer;

pub use self::close::{Cause, CloseCode, Closed, InvalidClose};
pub use self::message::{Message, Text};
pub use bytes::Bytes;
