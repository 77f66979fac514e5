//! WebSockets (RFC 6455): messages, and why a connection is closed.

pub(crate) mod batch;
pub(crate) mod close;
pub(crate) mod compression;
pub(crate) mod decoder;
#[cfg(feature = "deflate")]
pub(crate) mod deflate;
#[cfg(feature = "deflate")]
pub(crate) mod deflater;
#[cfg(feature = "deflate")]
pub(crate) mod extensions;
pub(crate) mod frame;
pub(crate) mod handshake;
pub(crate) mod header;
#[cfg(feature = "deflate")]
pub(crate) mod inflater;
pub(crate) mod lag;
pub(crate) mod latest;
pub(crate) mod marks;
pub(crate) mod message;
pub(crate) mod outbox;
pub(crate) mod outbox_state;
pub(crate) mod pace;
pub(crate) mod pings;
pub(crate) mod prepared;
pub(crate) mod questions;
pub(crate) mod reader;
pub(crate) mod room;
pub(crate) mod sender;
pub(crate) mod settings;
pub(crate) mod traffic;
pub(crate) mod writer;

pub use self::close::{Cause, CloseCode, Closed, InvalidClose};
#[cfg(feature = "json")]
pub use self::message::ReadJson;
pub use self::message::{Message, Outgoing, Text};
pub use bytes::Bytes;
