//! Controllers: what a program writes to serve its routes, and what they are given.

pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod executor;
pub(crate) mod function;
pub(crate) mod http;
pub(crate) mod rates;
pub(crate) mod request;
pub(crate) mod request_builder;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod socket;
pub(crate) mod websocket;

pub use self::error::Error;
pub use self::events::{Event, Events, events};
pub use self::function::{Endpoint, websocket};
pub use self::http::Controller;
pub use self::socket::{Iter, RecvError, RecvTimeoutError, Socket, TryRecvError};
pub use self::websocket::WebsocketController;
pub use crate::base::rate::Rate;
pub use crate::websocket::settings::{Overflow, Websocket};
