//! HTTP: the server, requests and responses.

pub(crate) mod body;
#[cfg(feature = "tls")]
pub(crate) mod client_certificate;
pub(crate) mod cookie;
pub(crate) mod credentials;
pub(crate) mod file;
pub(crate) mod head;
pub(crate) mod headers;
pub(crate) mod host;
#[cfg(feature = "json")]
pub(crate) mod json;
pub(crate) mod media_type;
pub(crate) mod method;
pub(crate) mod origin;
pub(crate) mod parser;
pub(crate) mod path;
pub(crate) mod peer;
pub(crate) mod proxy_header;
pub(crate) mod range;
pub(crate) mod rejection;
pub(crate) mod representation;
pub(crate) mod response;
pub(crate) mod status;
pub(crate) mod validators;

#[cfg(feature = "tls")]
pub use self::client_certificate::ClientCertificate;
pub use self::cookie::{Cookie, SameSite};
pub use self::credentials::constant_time_eq;
#[cfg(feature = "json")]
pub use self::json::JsonError;
pub use self::method::{Method, UnknownMethod};
pub use self::peer::Proxy;
pub use self::response::Response;
pub use self::status::Status;
pub use crate::controller::request::Request;
pub use crate::controller::request_builder::RequestBuilder;
pub use crate::net::listener::{Accepted, Listener, LocalAddr};
pub use crate::net::peer::{Peer, PeerCredentials};
pub use crate::server::builder::Server;
pub use crate::server::error::Error;
pub use crate::server::handle::{Report, ServerHandle};
pub use crate::server::router::Route;
#[cfg(feature = "tls")]
pub use crate::server::tls::Tls;
