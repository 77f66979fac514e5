//! The names that most programs need: `use rwf::prelude::*;`

#[cfg(feature = "redis")]
pub use crate::cluster::Cluster;
pub use crate::comms::{Client, Comms, SendError};
pub use crate::controller::{
    Controller, Error, Event, RecvTimeoutError, Socket, TryRecvError, WebsocketController,
    websocket,
};
pub use crate::http::{Request, Response};
pub use crate::session::{ConnectionId, SessionId};
#[cfg(feature = "json")]
pub use crate::websocket::ReadJson;
pub use crate::websocket::{CloseCode, Message};
pub use crate::{macros, route};
pub use async_trait::async_trait;
pub use log;
