//! Controllers: what a program writes to serve its routes.

pub(crate) mod error;
pub(crate) mod http;
pub(crate) mod websocket;

pub use self::error::Error;
pub use self::http::Controller;
pub use self::websocket::WebsocketController;
pub use crate::websocket::settings::{Overflow, Websocket};
