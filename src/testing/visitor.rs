//! Somebody who uses the server of a test: one person's browser, with cookies and headers.

use std::time::Duration;

use data_encoding::BASE64;

use crate::comms::session::{Secret, SessionId};
use crate::http::headers::{Headers, is_field_value, is_token};
use crate::http::method::Method;
use crate::testing::client::TestClient;
use crate::testing::cookies::Cookies;
use crate::testing::response::{Answered, TestResponse, ask};
use crate::testing::wire::Target;

/// Longer than anything that works takes, also on a busy machine.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// One person's browser: from [`TestServer::visitor`](crate::testing::TestServer::visitor).
///
/// It is a guest with a session of its own from the beginning, to which all its requests and WebSockets belong, unless a
/// controller says that it is somebody else. It keeps the cookies that responses set, and sends them with what comes
/// after. Where controllers know users by a header, give it that header:
///
/// ```
/// use rwf::prelude::*;
///
/// fn greet(request: &Request) -> Result<Response, Error> {
///     let Some(name) = request.header("X-Name") else {
///         return Ok(Response::unauthorized());
///     };
///     Ok(Response::new().text(format!("hello, {name}")))
/// }
///
/// let server = rwf::testing::serve(vec![route!("/" => greet)]);
/// let anna = server.visitor().header("X-Name", "Anna");
/// assert_eq!(anna.get("/").text(), "hello, Anna");
/// assert_eq!(server.get("/").status(), 401);
/// ```
///
/// A clone has the same cookies, and thus the same session, and can have other headers.
#[derive(Debug, Clone)]
pub struct Visitor {
    target: Target,
    /// The name of the server's session cookie.
    session_cookie: Option<String>,
    cookies: Cookies,
    headers: Headers,
    timeout: Duration,
}

impl Visitor {
    pub(crate) fn new(target: Target, session_cookie: Option<&str>) -> Self {
        let cookies = Cookies::default();
        if let Some(name) = session_cookie {
            cookies.set(name, &Secret::random().to_cookie());
        }
        let session_cookie = session_cookie.map(str::to_owned);
        let headers = Headers::default();
        Self { target, session_cookie, cookies, headers, timeout: DEFAULT_TIMEOUT }
    }

    /// Sends this header with all its requests, beside others of the name. It takes the place of one that the kit would
    /// write itself, such as `Host`, `Cookie` or `Sec-WebSocket-Version`.
    ///
    /// # Panics
    ///
    /// No header can have that name or value.
    #[must_use]
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref();
        let is_fit = is_token(name) && is_field_value(value);
        assert!(is_fit, "no header can be {name:?}: {value:?}");
        self.headers.append(name, value);
        self
    }

    /// Speaks TLS as this configuration says: it takes the certificates of its authorities alone, and shows its own where the
    /// server wants one. The host that it asks for (SNI), and for which the certificate has to be, is that of a `Host`
    /// [header](Self::header), or else the address. With the feature `tls`.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use rwf::http::{Server, Tls};
    /// use rwf::prelude::*;
    /// use rwf::rustls::crypto::ring;
    /// use rwf::rustls::{ClientConfig, RootCertStore, ServerConfig};
    ///
    /// fn whoami(request: &Request) -> Result<Response, Error> {
    ///     Ok(Response::new().text(format!("secure: {}", request.is_secure())))
    /// }
    ///
    /// // A certificate made by the `rcgen` crate; `Tls::files` takes those in files.
    /// let made = rcgen::generate_simple_self_signed(["chat.example".to_owned()])?;
    /// let provider = Arc::new(ring::default_provider());
    /// let config = ServerConfig::builder_with_provider(provider.clone())
    ///     .with_safe_default_protocol_versions()?
    ///     .with_no_client_auth()
    ///     .with_single_cert(vec![made.cert.der().clone()], made.signing_key.into())?;
    /// let server = Server::new(vec![route!("/" => whoami)])
    ///     .allow_host("chat.example")
    ///     .tls(Tls::config(config));
    /// let server = rwf::testing::start(server);
    /// assert_eq!(server.get("/").text(), "secure: true");
    ///
    /// let mut roots = RootCertStore::empty();
    /// roots.add(made.cert.der().clone())?;
    /// let strict = ClientConfig::builder_with_provider(provider)
    ///     .with_safe_default_protocol_versions()?
    ///     .with_root_certificates(roots)
    ///     .with_no_client_auth();
    /// let anna = server.visitor().tls(strict).header("Host", "chat.example");
    /// assert_eq!(anna.get("/").text(), "secure: true");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// The server speaks no TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    #[track_caller]
    pub fn tls(mut self, config: impl Into<std::sync::Arc<rustls::ClientConfig>>) -> Self {
        assert!(self.target.tls.is_some(), "the server speaks no TLS: see `Server::tls`");
        self.target.tls = Some(config.into());
        self
    }

    /// Has a cookie, as if a response had set it.
    #[must_use]
    pub fn cookie(self, name: &str, value: &str) -> Self {
        self.cookies.set(name, value);
        self
    }

    /// Sends a bearer token with all its requests (RFC 6750 §2.1).
    ///
    /// # Panics
    ///
    /// No header can have that value.
    #[must_use]
    #[track_caller]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    /// Sends a name and a password with all its requests (RFC 7617).
    #[must_use]
    #[track_caller]
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        let credentials = BASE64.encode(format!("{user}:{password}").as_bytes());
        self.header("Authorization", format!("Basic {credentials}"))
    }

    /// Comes from a page of that origin, such as `https://example.com`, as browsers say.
    ///
    /// # Panics
    ///
    /// No header can have that value.
    #[must_use]
    #[track_caller]
    pub fn origin(self, origin: &str) -> Self {
        self.header("Origin", origin)
    }

    /// Offers a subprotocol when it opens a WebSocket, behind those that were named before.
    ///
    /// # Panics
    ///
    /// No header can have that value.
    #[must_use]
    #[track_caller]
    pub fn subprotocol(self, name: &str) -> Self {
        self.header("Sec-WebSocket-Protocol", name)
    }

    /// How long each call waits, also those of its clients, before it fails: for a response, a message, a close. Default
    /// 10 s.
    ///
    /// # Panics
    ///
    /// It is zero.
    #[must_use]
    #[track_caller]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(!timeout.is_zero(), "`timeout` has to be more than zero");
        self.timeout = timeout;
        self
    }

    /// The session of this guest, by which the program and the test can reach all its tabs. Where a controller says that
    /// the visitor is somebody else, the session is that user's.
    ///
    /// # Panics
    ///
    /// The server knows nobody again
    /// ([`no_session_cookie`](crate::http::Server::no_session_cookie)), or has taken the cookie back.
    #[must_use]
    #[track_caller]
    pub fn session_id(&self) -> SessionId {
        let secret = self.session_cookie.as_deref().and_then(|name| self.cookies.get(name));
        match secret.as_deref().and_then(SessionId::from_cookie) {
            Some(session) => session,
            None => panic!("this visitor has no session cookie, so that nobody knows its session"),
        }
    }

    /// Opens a WebSocket: a tab. It is there when its endpoint receives: what a function does before that is done, a room
    /// joined for example, and `handle_connection` has returned.
    ///
    /// # Panics
    ///
    /// The server refuses, and the message shows its response; or the endpoint does not receive.
    #[track_caller]
    pub fn connect(&self, path: &str) -> TestClient {
        let mut client = self.connect_at_once(path);
        client.wait_until_received();
        client
    }

    /// Opens a WebSocket, and does not wait until its endpoint receives, for one that has something else to do first.
    ///
    /// # Panics
    ///
    /// The server refuses; the message shows its response.
    #[track_caller]
    pub fn connect_at_once(&self, path: &str) -> TestClient {
        match self.open(path) {
            Ok(client) => client,
            Err(response) => panic!("{path}: expected a WebSocket, and the answer was {response}"),
        }
    }

    /// Opens a WebSocket like [`connect`](Self::connect), for a test that expects a refusal:
    ///
    /// ```
    /// # use rwf::prelude::*;
    /// # fn chat(mut socket: Socket) -> Result<(), Error> { socket.iter().for_each(drop); Ok(()) }
    /// let server = rwf::testing::serve(vec![route!("/chat" => websocket(chat))]);
    /// let foreign = server.visitor().origin("https://evil.example");
    /// let refusal = foreign.try_connect("/chat").unwrap_err();
    /// assert_eq!(refusal.status(), 403);
    /// ```
    ///
    /// # Errors
    ///
    /// The response, if it does not open a WebSocket.
    ///
    /// # Panics
    ///
    /// There is no response, or the endpoint does not receive.
    #[track_caller]
    pub fn try_connect(&self, path: &str) -> Result<TestClient, TestResponse> {
        let mut client = self.open(path)?;
        client.wait_until_received();
        Ok(client)
    }

    #[track_caller]
    fn open(&self, path: &str) -> Result<TestClient, TestResponse> {
        let headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            // Any 16 bytes do: these are those of RFC 6455 §1.3.
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let answered = self.ask(Method::Get, path, &headers, &[]);
        if answered.response.status() == 101 {
            Ok(TestClient::new(path, answered, self.timeout))
        } else {
            Err(answered.response)
        }
    }

    /// The response to a GET.
    ///
    /// # Panics
    ///
    /// There is none.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str) -> TestResponse {
        self.request(Method::Get, path, "")
    }

    /// The response to a POST with that body.
    ///
    /// # Panics
    ///
    /// There is none.
    #[track_caller]
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> TestResponse {
        self.request(Method::Post, path, body)
    }

    /// The response to a request of any method, with a body that may be empty.
    ///
    /// # Panics
    ///
    /// There is none.
    #[track_caller]
    pub fn request(&self, method: Method, path: &str, body: impl AsRef<[u8]>) -> TestResponse {
        let body = body.as_ref();
        let length = body.len().to_string();
        let headers = [("Connection", "close"), ("Content-Length", length.as_str())];
        self.ask(method, path, &headers, body).response
    }

    #[track_caller]
    fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answered {
        assert!(path.starts_with('/'), "the path {path:?} has to begin with `/`");
        let address = self.target.address.to_string();
        let cookies = self.cookies.header();
        let ours = [("Host", address.as_str())].into_iter().chain(headers.iter().copied());
        let ours = ours.chain(cookies.iter().map(|cookies| ("Cookie", cookies.as_str())));
        let ours = ours.filter(|(name, _)| self.headers.get(name).is_none());
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in ours.chain(self.headers.iter()) {
            request.extend([name, ": ", value, "\r\n"]);
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        let host = self.headers.get("Host").unwrap_or(&address);
        match ask(&self.target, host, &request, method == Method::Head, self.timeout) {
            Ok(answered) => {
                self.cookies.keep(&answered.response);
                answered
            }
            Err(error) => panic!("{method} {path}: no response from {address}: {error}"),
        }
    }
}
