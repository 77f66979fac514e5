//! Requests that a program builds itself, to call its controllers as functions: in tests above all.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use crate::controller::request::Request;
use crate::http::cookie::Cookie;
use crate::http::headers::{Headers, is_field_value, is_token};
use crate::http::method::Method;
use crate::http::parser::Parsed;
use crate::http::path::{self, Parameters};
use crate::net::peer::Peer;

/// A request in the making, for tests of controllers and for programs that call their controllers themselves: made by
/// [`Request::get`], [`Request::post`] or [`Request::builder`].
///
/// A controller is a function of its request, so that a test of it needs neither a server nor a socket:
///
/// ```
/// use rwf::prelude::*;
///
/// struct Rooms;
///
/// #[async_trait]
/// impl Controller for Rooms {
///     async fn handle(&self, request: &Request) -> Result<Response, Error> {
///         if request.session_id().is_guest() {
///             return Ok(Response::unauthorized());
///         }
///         let page = request.query("page").unwrap_or("1");
///         Ok(Response::new().text(format!("{}, page {page}", request.param("room")?)))
///     }
/// }
///
/// let request = Request::get("/rooms/blue?page=2")
///     .header("Accept", "text/plain")
///     .param("room", "blue")
///     .build();
///
/// let response = rwf::block_on(Rooms.handle(&request))?;
/// assert_eq!(response.status_code(), 401);
///
/// let response = rwf::block_on(Rooms.handle(&request.with_session("alice")))?;
/// assert_eq!(response.body_bytes(), b"blue, page 2");
/// # Ok::<(), Error>(())
/// ```
///
/// What is not said is as if a client on this machine had sent the request to a server with the default settings: HTTP/1.1,
/// `Host: localhost`, from 127.0.0.1, and by a guest whom nobody knows, unless
/// [`with_session`](Request::with_session) or a session cookie says otherwise.
///
/// There is no connection behind it. A WebSocket endpoint, of whatever style, answers a request that opens no WebSocket as
/// on a server, with 426 say, and one that would open it with an error: a test of what a WebSocket does
/// has a server, and clients, of `rwf::testing`, with the feature `testing`.
///
/// # Panics
///
/// Where no client could send what is said, and no server would give it to a controller: a path that does not begin with
/// `/`, a header with a line end. That is a mistake in the program or its test.
#[derive(Clone)]
#[must_use = "`build` makes the request"]
pub struct RequestBuilder {
    parsed: Parsed,
    parameters: Parameters,
    peer: Peer,
}

impl Request {
    /// Begins a `GET` of `target`, a path with or without a query: `/rooms/blue?page=2`. For tests;
    /// [`RequestBuilder`] has an example.
    ///
    /// # Panics
    ///
    /// Like [`builder`](Self::builder).
    #[track_caller]
    pub fn get(target: &str) -> RequestBuilder {
        Self::builder(Method::Get, target)
    }

    /// Begins a `POST` to `target`, like [`get`](Self::get).
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// let request =
    ///     Request::post("/rooms").header("Content-Type", "application/json").body("{}").build();
    /// assert_eq!(request.text()?, "{}");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`builder`](Self::builder).
    #[track_caller]
    pub fn post(target: &str) -> RequestBuilder {
        Self::builder(Method::Post, target)
    }

    /// Begins a request of any method, like [`get`](Self::get).
    ///
    /// ```
    /// use rwf::http::{Method, Request};
    ///
    /// let request = Request::builder(Method::Delete, "/rooms/blue").build();
    /// assert_eq!((request.method(), request.path()), (Method::Delete, "/rooms/blue"));
    /// ```
    ///
    /// # Panics
    ///
    /// `target` is none that reaches a controller: its path begins with `/`, its escapes are whole and mean UTF-8, and
    /// spaces, control characters and `#` are written as escapes.
    #[track_caller]
    pub fn builder(method: Method, target: &str) -> RequestBuilder {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        assert!(
            path.starts_with('/'),
            "the request's target {target:?} has to begin with `/`; its host is a header"
        );
        let is_wrong = |c: &char| c.is_whitespace() || c.is_control() || *c == '#';
        if let Some(wrong) = target.chars().find(is_wrong) {
            panic!(
                "the request's target {target:?} has {wrong:?}, which is sent as an escape, as `%20`"
            );
        }
        assert!(
            path::segments(path).is_some(),
            "the request's target {target:?} has an escape that cannot be decoded"
        );
        let mut headers = Headers::default();
        headers.append("Host", "localhost");
        RequestBuilder {
            parsed: Parsed {
                method,
                path: path.to_owned(),
                query: query.to_owned(),
                is_http_11: true,
                headers,
                body: Vec::new(),
            },
            parameters: Parameters::new(),
            peer: Peer::Tcp((Ipv4Addr::LOCALHOST, 0).into()),
        }
    }
}

impl RequestBuilder {
    /// Sets a header, in place of those of the same name.
    ///
    /// # Panics
    ///
    /// No header can have this name or this value.
    #[track_caller]
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.parsed.headers.remove(name);
        self.append_header(name, value)
    }

    /// Adds a header beside those of the same name.
    ///
    /// # Panics
    ///
    /// No header can have this name or this value.
    #[track_caller]
    pub fn append_header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let value = value.as_ref();
        assert!(
            is_token(name) && is_field_value(value),
            "no request can have the header {name:?}: {value:?}"
        );
        self.parsed.headers.append(name, value);
        self
    }

    /// Adds a cookie.
    ///
    /// # Panics
    ///
    /// No cookie can have this name or this value.
    #[track_caller]
    pub fn cookie(self, name: &str, value: &str) -> Self {
        assert!(
            Cookie::new(name, value).is_valid(),
            "no request can have the cookie {name:?}: {value:?}"
        );
        // A client sends all of them in one header (RFC 6265 §5.4).
        let cookies = match self.parsed.headers.get("Cookie") {
            Some(others) => format!("{others}; {name}={value}"),
            None => format!("{name}={value}"),
        };
        self.header("Cookie", cookies)
    }

    /// Sets the value of a path parameter, decoded: what the route of the controller would have taken out of the path.
    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.parameters.retain(|(key, _)| key != name);
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body, and its `Content-Length`.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.parsed.body = body.into();
        let length = self.parsed.body.len().to_string();
        self.header("Content-Length", length)
    }

    /// Sets who sends it: what [`Request::peer_addr`] says.
    pub fn peer_addr(self, peer: impl Into<SocketAddr>) -> Self {
        self.peer(peer.into())
    }

    /// Sets who sends it: what [`Request::peer`] says, over a Unix socket for example.
    pub fn peer(mut self, peer: impl Into<Peer>) -> Self {
        self.peer = peer.into();
        self
    }

    /// The request.
    #[must_use]
    pub fn build(self) -> Request {
        Request::without_connection(self.parsed, self.parameters, self.peer)
    }
}

/// Shows no headers: credentials are among them.
impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("method", &self.parsed.method)
            .field("path", &self.parsed.path)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comms::session::SessionId;
    use crate::http::parser::{Parser, Step};
    use crate::http::rejection::RequestLimits;
    use std::panic::{UnwindSafe, catch_unwind};

    /// What a server makes of a request that it reads.
    fn parsed(bytes: &[u8]) -> Parsed {
        let limits = RequestLimits { max_head_size: 1000, max_headers: 10, max_body_size: 1000 };
        let mut parser = Parser::new(limits);
        let append = |buffer: &mut Vec<u8>| {
            buffer.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        parser.fill(append).unwrap();
        match parser.next() {
            Ok(Step::Request(parsed)) => *parsed,
            other => panic!("{other:?} of {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn a_built_request_is_what_a_server_makes_of_the_same_request_on_the_wire() {
        let plain = parsed(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(*Request::get("/").build().parsed(), plain);

        let full = parsed(
            "POST /ä/b%20c?d=e+f&g=?/ HTTP/1.1\r\nAccept: text/html\r\nHost: chat.example\r\n\
             X-Tag: 1\r\nx-tag: ü\r\nCookie: a=1; b=2\r\nContent-Length: 3\r\n\r\nbö"
                .as_bytes(),
        );
        let built = Request::post("/ä/b%20c?d=e+f&g=?/")
            .header("host", "other.example")
            .header("Accept", "text/html")
            .header("Host", "chat.example")
            .append_header("X-Tag", "1")
            .append_header("x-tag", "ü")
            .cookie("a", "1")
            .cookie("b", "2")
            .body("a body that is replaced")
            .body("bö")
            .build();
        assert_eq!(*built.parsed(), full);
        let pairs: Vec<_> = built.queries().collect();
        assert_eq!(pairs, [("d", "e f"), ("g", "?/")]);
        assert_eq!(
            (built.query_string(), Request::get("/").build().query_string()),
            ("d=e+f&g=?/", "")
        );
    }

    #[test]
    fn what_is_not_said_is_as_of_an_unknown_client_on_this_machine() {
        let request = Request::get("/").build();
        assert_eq!(request.header("Host"), Some("localhost"));
        assert_eq!(request.peer_addr(), "127.0.0.1:0".parse().unwrap());
        assert_eq!(request.client_ip(), Ipv4Addr::LOCALHOST);
        assert!(!request.is_secure() && request.body().is_empty());

        let mapped: SocketAddr = "[::ffff:10.0.0.1]:7".parse().unwrap();
        let request = Request::get("/").peer_addr(mapped).build();
        assert_eq!(request.peer_addr(), "10.0.0.1:7".parse().unwrap(), "as of a server's peers");
    }

    #[test]
    fn a_built_request_has_one_session_for_its_life() {
        let (request, other) = (Request::get("/").build(), Request::get("/").build());
        let session = request.session_id();
        assert!(session.is_guest());
        assert_eq!(
            (request.session_id(), request.clone().session_id()),
            (session.clone(), session)
        );
        assert_ne!(request.session_id(), other.session_id());
        assert_ne!(request.connection_id(), other.connection_id());
        assert_eq!(request.with_session(42).session_id(), SessionId::from(42));

        let secret = "3f2b8c1e-7d4a-4c5b-9e6f-1a2b3c4d5e6f";
        let visitor = Request::get("/").cookie("rwf_session", secret).build();
        assert_eq!(Some(visitor.session_id()), SessionId::from_cookie(secret));
    }

    #[test]
    fn path_parameters_are_those_that_were_given_last() {
        let request = Request::get("/").param("room", "red").param("room", "blue").build();
        assert_eq!(request.param("room").unwrap(), "blue");
        let error = request.param("page").unwrap_err().to_string();
        assert!(error.contains("`:page`"), "{error}");
    }

    #[test]
    fn what_no_controller_could_be_given_panics_and_says_why() {
        fn expect_panic<R>(call: impl FnOnce() -> R + UnwindSafe, parts: [&str; 2]) {
            let Err(payload) = catch_unwind(call) else { panic!("no panic about {parts:?}") };
            let text = payload.downcast_ref::<String>().expect("a panic with values has a String");
            assert!(parts.iter().all(|part| text.contains(part)), "{text:?} without {parts:?}");
        }
        for (target, why) in [
            ("rooms", "begin with `/`"),
            ("", "begin with `/`"),
            ("?a", "begin with `/`"),
            ("http://localhost/", "begin with `/`"),
            ("/a b", "' '"),
            ("/a?b c", "' '"),
            ("/a\r\nX: y", r"'\r'"),
            ("/a#b", "'#'"),
            ("/%", "cannot be decoded"),
            ("/%ff", "cannot be decoded"),
        ] {
            expect_panic(|| Request::get(target), [&format!("{target:?}"), why]);
        }
        for (name, value) in [("", "a"), ("a b", "c"), ("a", "b\r\nc: d"), ("a:", "b")] {
            let shown = format!("{name:?}: {value:?}");
            expect_panic(|| Request::get("/").header(name, value), ["header", &shown]);
            expect_panic(|| Request::get("/").append_header(name, value), ["header", &shown]);
        }
        for (name, value) in [("", "a"), ("a", "b; c=d"), ("a b", "c"), ("a", "b\n")] {
            let shown = format!("{name:?}: {value:?}");
            expect_panic(|| Request::get("/").cookie(name, value), ["cookie", &shown]);
        }
    }

    #[test]
    fn what_is_shown_has_no_credentials() {
        let builder = Request::get("/?token=hush").cookie("a", "hush").header("X", "hush");
        let shown = format!("{builder:?} {:?}", builder.clone().build());
        assert!(shown.contains("GET") || shown.contains("Get"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
    }
}
