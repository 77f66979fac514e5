//! Controllers: what a program writes to serve its routes, and what they are given.

pub(crate) mod backlog;
pub(crate) mod connection;
pub(crate) mod counters;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod executor;
pub(crate) mod folder;
pub(crate) mod function;
pub(crate) mod given;
pub(crate) mod histogram;
pub(crate) mod http;
pub(crate) mod overview;
pub(crate) mod prometheus;
pub(crate) mod rates;
pub(crate) mod refusal;
pub(crate) mod request;
pub(crate) mod request_builder;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod slowest;
pub(crate) mod socket;
pub(crate) mod static_files;
pub(crate) mod stats;
pub(crate) mod websocket;

pub use self::error::Error;
pub use self::events::{Event, Events, events};
pub use self::function::{Endpoint, websocket};
pub use self::http::Controller;
pub use self::socket::{Iter, RecvError, RecvTimeoutError, Socket, TryRecvError};
pub use self::static_files::StaticFiles;
pub use self::websocket::WebsocketController;
pub use crate::base::rate::Rate;
#[cfg(feature = "deflate")]
pub use crate::websocket::deflate::Deflate;
pub use crate::websocket::settings::{Overflow, Websocket};
