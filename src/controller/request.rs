//! A request as controllers see it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::comms::reach::ServerComms;
use crate::comms::session::{ConnectionId, Secret, ServerId, SessionId};
use crate::controller::connection::Connection;
use crate::controller::error::Error;
use crate::controller::settings::Settings;
use crate::http::cookie::{self, Cookie};
use crate::http::method::Method;
use crate::http::origin::is_of_host;
use crate::http::parser::Parsed;
use crate::http::path::{self, Parameters};
use crate::http::peer;

/// A request, whole: head, path parameters and body. A clone is cheap and shares everything.
///
/// Controllers get them from the server; tests [build](Request::get) their own.
#[derive(Clone)]
pub struct Request {
    shared: Arc<Shared>,
    /// Who the controller says it is.
    user: Option<SessionId>,
}

struct Shared {
    parsed: Parsed,
    parameters: Parameters,
    query: Vec<(String, String)>,
    /// Set when somebody asks for it.
    guest: OnceLock<Guest>,
    server: ServerId,
    /// The server's.
    settings: Arc<Settings>,
    connection_id: ConnectionId,
    peer: SocketAddr,
    /// `None` where there is no connection: a program built the request.
    upgrade: Option<Mutex<Option<Upgrade>>>,
}

/// Who a visitor is as long as no controller says so.
struct Guest {
    session: SessionId,
    /// For the cookie of one who came without.
    new_secret: Option<Secret>,
}

/// What makes a connection a WebSocket: the connection, and what the client sent behind its request.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) connection: Arc<Connection>,
    pub(crate) rest: Vec<u8>,
}

impl Request {
    /// A request that arrived on `connection`, with `rest` behind it.
    pub(crate) fn new(
        parsed: Parsed,
        parameters: Parameters,
        connection: &Arc<Connection>,
        rest: Vec<u8>,
    ) -> Self {
        let shared = Shared {
            query: path::query(&parsed.query),
            parameters,
            guest: OnceLock::new(),
            server: connection.context.id,
            settings: Arc::clone(&connection.context.settings),
            connection_id: connection.id,
            peer: connection.peer,
            upgrade: Some(Mutex::new(Some(Upgrade { connection: Arc::clone(connection), rest }))),
            parsed,
        };
        Self { shared: Arc::new(shared), user: None }
    }

    /// A request that came on no connection, as `peer` would send it to a server with the default settings.
    pub(crate) fn without_connection(
        parsed: Parsed,
        parameters: Parameters,
        peer: SocketAddr,
    ) -> Self {
        let shared = Shared {
            query: path::query(&parsed.query),
            parameters,
            guest: OnceLock::new(),
            server: ServerId::next(),
            settings: Arc::default(),
            connection_id: ConnectionId::next(),
            peer,
            upgrade: None,
            parsed,
        };
        Self { shared: Arc::new(shared), user: None }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.shared.parsed.method
    }

    /// The path, as it was sent: not decoded, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.shared.parsed.path
    }

    /// The decoded value of a path parameter: of `room` in the route `/chat/:room`.
    ///
    /// # Errors
    ///
    /// The route has no parameter of that name. That is a mistake in the program, hence a 500.
    pub fn param(&self, name: &str) -> Result<&str, Error> {
        let mut parameters = self.shared.parameters.iter();
        parameters.find(|(key, _)| key == name).map(|(_, value)| value.as_str()).ok_or_else(|| {
            Error::new(format!("the route of {} has no parameter `:{name}`", self.path()))
        })
    }

    /// The decoded value of the first query parameter of that name: of `page` in `/list?page=2`.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.queries().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All decoded query parameters, in order.
    pub fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shared.query.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.shared.parsed.headers.get(name)
    }

    /// All headers, in order. A repeated one comes as often as it was sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shared.parsed.headers.iter()
    }

    /// The value of a cookie.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let mut headers = self.shared.parsed.headers.get_all("Cookie");
        headers.find_map(|header| cookie::find_all(header, name).next())
    }

    /// The body; empty when there is none.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.shared.parsed.body
    }

    /// The body as text.
    ///
    /// # Errors
    ///
    /// The body is not UTF-8. Passed on through `?`, that is a 400.
    pub fn text(&self) -> Result<&str, Error> {
        str::from_utf8(self.body()).map_err(|error| Error::new(error).with_status(400))
    }

    /// Who sent it: the other end of the TCP connection, which may be a proxy. An IPv4 address is one also where the
    /// server listens on an IPv6 address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.shared.peer
    }

    /// The client's address: that of [`peer_addr`](Self::peer_addr), or what `X-Forwarded-For` says where the peer is a
    /// [trusted proxy](crate::http::Server::trust_proxy).
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        peer::client_ip(&self.shared.parsed.headers, self.peer_addr().ip(), self.trusted_proxies())
    }

    /// Whether the client came over TLS, as `X-Forwarded-Proto` of a
    /// [trusted proxy](crate::http::Server::trust_proxy) says.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        peer::is_secure(&self.shared.parsed.headers, self.peer_addr().ip(), self.trusted_proxies())
    }

    fn trusted_proxies(&self) -> &[IpAddr] {
        &self.settings().trusted_proxies
    }

    /// The session it belongs to. For a visitor without a session one begins with this call, and the response brings its
    /// cookie, which the visitor's next requests and WebSockets have; after the response it is too late for that.
    ///
    /// Requests that come at the same time and without a cookie are strangers to each other. Where a page opens several
    /// WebSockets, or posts before one is open, ask here when the page itself is requested.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.user.as_ref().unwrap_or_else(|| &self.guest().session).clone()
    }

    fn guest(&self) -> &Guest {
        self.shared.guest.get_or_init(|| {
            if self.cookie_name().is_none() {
                return Guest { session: SessionId::guest(), new_secret: None };
            }
            let known = self.known_secret();
            let secret = known.unwrap_or_else(Secret::random);
            let new_secret = known.is_none().then_some(secret);
            Guest { session: secret.session(), new_secret }
        })
    }

    /// What the visitor's session cookie holds, if there is a valid one.
    fn known_secret(&self) -> Option<Secret> {
        let name = self.cookie_name()?;
        let headers = self.shared.parsed.headers.get_all("Cookie");
        headers.flat_map(|header| cookie::find_all(header, name)).find_map(Secret::from_cookie)
    }

    fn cookie_name(&self) -> Option<&str> {
        self.settings().session_cookie.as_deref()
    }

    /// The connection it came on: with [`Comms::connection`](crate::comms::Comms::connection) one tab can be reached
    /// alone, from its `handle_connection` on; before that there is nobody to reach.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.shared.connection_id
    }

    /// Reaches the clients of this server, where [`Comms`](crate::comms::Comms) reaches those of the whole process.
    #[must_use]
    pub fn comms(&self) -> ServerComms {
        ServerComms::new(self.shared.server)
    }

    /// The same request in another session, for a controller that found out by itself who the client is.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// struct Private<C>(C);
    ///
    /// # fn user_of(token: &str) -> Option<i64> { token.parse().ok() }
    /// #[async_trait]
    /// impl<C: WebsocketController> Controller for Private<C> {
    ///     async fn handle(&self, request: &Request) -> Result<Response, Error> {
    ///         let Some(user) = request.query("token").and_then(user_of) else {
    ///             return Ok(Response::forbidden());
    ///         };
    ///         WebsocketController::handle(&self.0, &request.with_session(user)).await
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn with_session(&self, session: impl Into<SessionId>) -> Self {
        Self { shared: Arc::clone(&self.shared), user: Some(session.into()) }
    }

    /// The first subprotocol that the client offers and that is in `spoken`: what a WebSocket with these
    /// [`subprotocols`](crate::controller::Websocket::subprotocols) uses (RFC 6455 §4.2.2).
    #[must_use]
    pub fn subprotocol<'a>(&'a self, spoken: &[impl AsRef<str>]) -> Option<&'a str> {
        let mut offered = self.shared.parsed.headers.list("Sec-WebSocket-Protocol");
        offered.find(|offer| spoken.iter().any(|name| name.as_ref() == *offer))
    }

    pub(crate) fn parsed(&self) -> &Parsed {
        &self.shared.parsed
    }

    /// The settings of its server.
    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The cookie that the response has to introduce this visitor with: one who came without, and whose session
    /// somebody has asked for.
    pub(crate) fn visitor_cookie(&self) -> Option<Cookie> {
        let name = self.cookie_name()?;
        let secret = self.shared.guest.get()?.new_secret?;
        // Another site can have a visitor's browser post a form here, which comes without the visitor's own cookie: a
        // new one would take its place.
        let is_forged = !matches!(self.method(), Method::Get | Method::Head) && self.is_foreign();
        (!is_forged).then(|| Cookie::new(name, secret.to_cookie()).secure(self.is_secure()))
    }

    /// Whether a page of another site caused it. Browsers say so in the clear by `Origin` alone.
    fn is_foreign(&self) -> bool {
        let host = self.header("Host").unwrap_or_default();
        let is_foreign = |origin| !is_of_host(origin, host, self.is_secure());
        self.header("Sec-Fetch-Site").is_some_and(|site| site == "cross-site")
            || self.header("Origin").is_some_and(is_foreign)
    }

    /// Takes the connection out of the request.
    ///
    /// # Errors
    ///
    /// Somebody took it before, or there was none.
    pub(crate) fn take_upgrade(&self) -> Result<Upgrade, Error> {
        let Some(upgrade) = &self.shared.upgrade else {
            return Err(Error::new(
                "this request was built without a connection, so that no WebSocket can be opened on it: \
                 to test one, start a server with `Server::spawn` and connect to it",
            ));
        };
        let taken = upgrade.lock().take();
        taken.ok_or_else(|| "the connection of this request is a WebSocket already".into())
    }

    /// Puts back what [`take_upgrade`](Self::take_upgrade) took.
    pub(crate) fn restore_upgrade(&self, upgrade: Upgrade) {
        if let Some(place) = &self.shared.upgrade {
            *place.lock() = Some(upgrade);
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = || self.shared.guest.get().map(|guest| guest.session.clone());
        let known = || self.known_secret().map(Secret::session);
        // To look at a request begins no session.
        let session = self.user.clone().or_else(asked).or_else(known);
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("peer", &self.peer_addr())
            .field("session", &session)
            .finish_non_exhaustive()
    }
}
