//! HTTP: the server, requests and responses.

pub(crate) mod cookie;
pub(crate) mod headers;
pub(crate) mod host;
pub(crate) mod method;
pub(crate) mod origin;
pub(crate) mod parser;
pub(crate) mod path;
pub(crate) mod peer;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod serve;
pub(crate) mod status;

pub use self::cookie::{Cookie, SameSite};
pub use self::method::{Method, UnknownMethod};
pub use self::request::Request;
pub use self::response::Response;
pub use self::status::Status;
pub use crate::error::Error;
pub use crate::router::Route;
pub use crate::server::builder::Server;
pub use crate::server::handle::{Report, ServerHandle};
