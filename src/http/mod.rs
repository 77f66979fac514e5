//! HTTP: the server, requests and responses.

pub(crate) mod body;
pub(crate) mod cookie;
pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod host;
pub(crate) mod method;
pub(crate) mod origin;
pub(crate) mod parser;
pub(crate) mod path;
pub(crate) mod peer;
pub(crate) mod rejection;
pub(crate) mod response;
pub(crate) mod status;

pub use self::cookie::{Cookie, SameSite};
pub use self::method::{Method, UnknownMethod};
pub use self::response::Response;
pub use self::status::Status;
pub use crate::controller::request::Request;
pub use crate::controller::request_builder::RequestBuilder;
pub use crate::server::builder::Server;
pub use crate::server::error::Error;
pub use crate::server::handle::{Report, ServerHandle};
pub use crate::server::router::Route;
