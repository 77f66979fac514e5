//! A request as controllers see it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::comms::server::ServerComms;
use crate::comms::session::{ConnectionId, Secret, ServerId, SessionId};
use crate::controller::connection::Connection;
use crate::controller::error::Error;
use crate::controller::refusal::Refusal;
use crate::controller::settings::Settings;
#[cfg(feature = "tls")]
use crate::http::client_certificate::ClientCertificate;
use crate::http::cookie::{self, Cookie};
use crate::http::credentials;
#[cfg(feature = "json")]
use crate::http::json::{self, JsonError};
use crate::http::method::Method;
use crate::http::origin::is_of_host;
use crate::http::parser::Parsed;
use crate::http::path::{self, Parameters};
use crate::http::peer::{self, Proxy};
use crate::http::response::Response;
use crate::net::peer::Peer;
#[cfg(feature = "tls")]
use crate::net::tls::Tls;

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
    peer: Peer,
    /// Whether the peer speaks TLS.
    has_secure_peer: bool,
    #[cfg(feature = "tls")]
    client_certificate: Option<ClientCertificate>,
    /// What controllers have added to the answer.
    response_headers: Mutex<Vec<(String, String)>>,
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
    #[expect(clippy::boxed_local, reason = "a WebSocket keeps the request, and so not the box")]
    pub(crate) fn new(
        parsed: Box<Parsed>,
        parameters: Parameters,
        connection: &Arc<Connection>,
        rest: Vec<u8>,
    ) -> Self {
        let shared = Shared {
            query: path::query(&parsed.query),
            parameters,
            guest: OnceLock::new(),
            response_headers: Mutex::default(),
            server: connection.context.id,
            settings: Arc::clone(&connection.context.settings),
            connection_id: connection.id,
            peer: connection.peer(),
            has_secure_peer: connection.stream.is_secure(),
            #[cfg(feature = "tls")]
            client_certificate: connection
                .stream
                .tls()
                .and_then(Tls::client_certificate)
                .map(ClientCertificate::new),
            upgrade: Some(Mutex::new(Some(Upgrade { connection: Arc::clone(connection), rest }))),
            parsed: *parsed,
        };
        Self { shared: Arc::new(shared), user: None }
    }

    /// A request that came on no connection, as `peer` would send it to a server with the default settings.
    pub(crate) fn without_connection(parsed: Parsed, parameters: Parameters, peer: Peer) -> Self {
        let shared = Shared {
            query: path::query(&parsed.query),
            parameters,
            guest: OnceLock::new(),
            response_headers: Mutex::default(),
            server: ServerId::next(),
            settings: Arc::default(),
            connection_id: ConnectionId::next(),
            peer,
            has_secure_peer: false,
            #[cfg(feature = "tls")]
            client_certificate: None,
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

    /// The value of the last path parameter: what is left, where the route ends with a `*name`.
    pub(crate) fn last_param(&self) -> Option<&str> {
        self.shared.parameters.last().map(|(_, value)| value.as_str())
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

    /// The query, as it was sent: not decoded, without the `?`; empty where there is none. To pass it on, in a redirect say.
    #[must_use]
    pub fn query_string(&self) -> &str {
        &self.shared.parsed.query
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

    /// The token of an `Authorization: Bearer` header (RFC 6750 §2.1). It is what the client says: compare it with
    /// [`constant_time_eq`](crate::http::constant_time_eq), or look it up. `None` for what is malformed, and where there are
    /// several `Authorization` headers, of which none is trusted.
    ///
    /// ```
    /// use rwf::http::Request;
    ///
    /// let request = Request::get("/").header("Authorization", "Bearer mF_9.B5f-4.1JqM").build();
    /// assert_eq!(request.bearer(), Some("mF_9.B5f-4.1JqM"));
    /// ```
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        credentials::bearer(&self.shared.parsed.headers)
    }

    /// User and password of an `Authorization: Basic` header (RFC 7617 §2), which nobody has compared yet. `None` for what is
    /// malformed or no UTF-8, and where there are several `Authorization` headers, of which none is trusted.
    ///
    /// They travel in the clear but for TLS, and browsers send them along with requests that other sites cause.
    ///
    /// ```
    /// use rwf::http::constant_time_eq;
    /// use rwf::prelude::*;
    ///
    /// # let password = "open sesame";
    /// let request = Request::get("/").header("Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    /// let Some((user, secret)) = request.build().basic_auth() else {
    ///     panic!("answer `Response::unauthorized().challenge(\"Basic\", \"cave\")`");
    /// };
    /// assert!(user == "Aladdin" && constant_time_eq(secret, password));
    /// ```
    #[must_use]
    pub fn basic_auth(&self) -> Option<(String, String)> {
        credentials::basic(&self.shared.parsed.headers)
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

    /// The body's value, which is JSON. With the feature `json`.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order { item: String, count: u32 }
    ///
    /// fn order(request: &Request) -> Result<Response, Error> {
    ///     let Order { item, count } = request.json()?;
    ///     Ok(Response::new().text(format!("{count} of {item}")))
    /// }
    ///
    /// let request = Request::post("/orders").header("Content-Type", "application/json");
    /// let response = order(&request.body(r#"{"item": "tea", "count": 2}"#).build())?;
    /// assert_eq!(response.body_bytes(), b"2 of tea");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The body is no JSON, or that of another value: a 400 when it is passed on through `?`. Or its `Content-Type` is not
    /// `application/json`, which no form of another site can send: a 415. A body over
    /// [`max_body_size`](crate::http::Server::max_body_size) is a 413 before it comes here.
    #[cfg(feature = "json")]
    pub fn json<'a, T: serde_core::Deserialize<'a>>(&'a self) -> Result<T, JsonError> {
        match self.shared.parsed.headers.single("Content-Type") {
            Ok(Some(content_type)) if json::is_json(content_type) => json::read_bytes(self.body()),
            _ => Err(JsonError::media_type(self.header("Content-Type"))),
        }
    }

    /// Who sent it: the other end of the connection, which may be a proxy.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.shared.peer
    }

    /// The address of the [`peer`](Self::peer); `0.0.0.0:0`, which nobody has, over a Unix socket. An IPv4 address is one
    /// also where the server listens on an IPv6 address.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer().addr()
    }

    /// The client's address: that of [`peer_addr`](Self::peer_addr), or what `X-Forwarded-For` says where the peer is a
    /// [trusted proxy](crate::http::Server::trust_proxy).
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        self.client().ip()
    }

    /// The peer, or whom it forwards for, if it is trusted.
    pub(crate) fn client(&self) -> Peer {
        peer::client(&self.shared.parsed.headers, self.peer(), self.trusted_proxies())
    }

    /// Whether the client came over TLS: to this server, or as `X-Forwarded-Proto` of a
    /// [trusted proxy](crate::http::Server::trust_proxy) says.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        let Shared { parsed, has_secure_peer, .. } = &*self.shared;
        let told = peer::is_secure(&parsed.headers, &self.peer(), self.trusted_proxies());
        told.unwrap_or(*has_secure_peer)
    }

    /// The certificate of the client, where the server [asks for one](crate::http::Tls::require_client_certificates). Behind a
    /// proxy it is the proxy's.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// fn whoami(request: &Request) -> Result<Response, Error> {
    ///     let name = request.client_certificate().and_then(|certificate| certificate.common_name());
    ///     Ok(name.map_or_else(Response::forbidden, |name| Response::new().text(name)))
    /// }
    /// # assert_eq!(whoami(&Request::get("/").build()).unwrap().status_code().code(), 403);
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.shared.client_certificate.as_ref()
    }

    fn trusted_proxies(&self) -> &[Proxy] {
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

    /// Adds a header to the answer to this request, whatever that will be: a response, the 101 that opens a WebSocket, or what
    /// an error or a panic of the controller becomes. It is for a controller that stands before another one, and does not
    /// see all of these; others give their [`Response`] its headers. [`Controller`](crate::controller::Controller) has an
    /// example.
    ///
    /// The server's own are left out: those of the handshake, `Sec-WebSocket-` and `Upgrade`, and those of a response that
    /// it sets itself. A name or value that no header can have makes the response a 500 with a line in the log. After a
    /// WebSocket has opened it is too late.
    #[doc(alias = "cors")]
    pub fn append_response_header(&self, name: &str, value: impl Into<String>) {
        let header = (name.to_owned(), value.into());
        self.shared.response_headers.lock().push(header);
    }

    /// Adds what was told to [`append_response_header`](Self::append_response_header).
    pub(crate) fn add_headers_to(&self, response: Response) -> Response {
        let is_of_handshake = |name: &str| {
            let start = name.as_bytes().get(.."Sec-WebSocket-".len());
            name.eq_ignore_ascii_case("Upgrade")
                || start.is_some_and(|start| start.eq_ignore_ascii_case(b"Sec-WebSocket-"))
        };
        let headers = self.shared.response_headers.lock();
        let own = headers.iter().filter(|(name, _)| !is_of_handshake(name));
        own.fold(response, |response, (name, value)| response.append_header(name, value.as_str()))
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

    /// The server that it came to; one that nobody knows where it came to none.
    pub(crate) fn server(&self) -> ServerId {
        self.shared.server
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

    /// It does not become a WebSocket.
    pub(crate) fn note_refusal(&self, reason: Refusal) {
        let Some(upgrade) = &self.shared.upgrade else { return };
        if let Some(upgrade) = &*upgrade.lock() {
            upgrade.connection.context.counters.note_refusal(reason);
        }
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
            .field("peer", &self.peer())
            .field("session", &session)
            .finish_non_exhaustive()
    }
}
