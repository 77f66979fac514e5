//! The opening handshake over real sockets: what opens a WebSocket, what does not, and what a controller can decide.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::{
    DEADLINE, Echo, Guest, Raw, answer, get, header, new_secret, status, upgrade_request,
    wait_until,
};
use rwf::controller::Websocket;
use rwf::http::{Route, Server, ServerHandle};
use rwf::prelude::*;

/// The hosts that these tests ask for, beside the loopback names.
fn with_hosts(server: Server) -> Server {
    ["server.example.com", "server.example", "x"]
        .into_iter()
        .fold(server, |server, host| server.allow_host(host))
}

fn serve(routes: Vec<Route>) -> ServerHandle {
    start(Server::new(routes))
}

fn start(server: Server) -> ServerHandle {
    common::start(with_hosts(server))
}

/// What a good request has.
const GOOD: &[(&str, &str)] = &[
    ("Host", "server.example"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

/// The good request with another first line, and with `values` for the headers of that name.
fn changed(line: &str, name: &str, values: &[&str]) -> String {
    let others = GOOD.iter().copied().filter(|(key, _)| !key.eq_ignore_ascii_case(name));
    let fields = others.chain(values.iter().map(|value| (name, *value)));
    let fields: String = fields.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line}\r\n{fields}\r\n")
}

fn connect(server: &ServerHandle) -> Raw {
    Raw::connect(server.local_addr())
}

/// An echo with settings, which counts the connections that were opened.
#[derive(Default)]
struct Endpoint {
    settings: Option<fn(Websocket) -> Websocket>,
    opened: Arc<AtomicUsize>,
}

impl Endpoint {
    fn with(settings: fn(Websocket) -> Websocket) -> Self {
        Self { settings: Some(settings), ..Self::default() }
    }
}

#[async_trait]
impl WebsocketController for Endpoint {
    fn websocket(&self, defaults: Websocket) -> Websocket {
        self.settings.map_or_else(|| defaults.clone(), |change| change(defaults.clone()))
    }

    async fn handle_connection(&self, _: &SessionId) -> Result<(), Error> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(message)?;
        Ok(())
    }
}

#[async_trait]
impl Controller for Endpoint {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(self, request).await
    }
}

// What is let in.

#[test]
fn the_sample_of_the_rfc_is_answered_with_its_accept_key() {
    let server = serve(vec![route!("/chat" => Echo)]);
    let mut client = connect(&server);
    client.send(
        b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://server.example.com\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Extensions: x-unknown; a=1\r\n\r\n",
    );
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for (name, expected) in [
        ("Upgrade", Some("websocket")),
        ("Connection", Some("Upgrade")),
        ("Sec-WebSocket-Accept", Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        ("Sec-WebSocket-Protocol", None),
        ("Sec-WebSocket-Extensions", None),
        ("Content-Length", None),
        ("Transfer-Encoding", None),
    ] {
        assert_eq!(header(&head, name), expected, "{name} in {head}");
    }
    client.send_text("hello");
    assert_eq!(client.text_frame(), "hello");
}

#[test]
fn lists_of_tokens_in_any_case_and_order_are_understood() {
    let server = serve(vec![route!("/" => Echo)]);
    let line = "GET / HTTP/1.1";
    for (name, values) in [
        ("Upgrade", &["WebSocket"][..]),
        ("Upgrade", &["h2c, WEBSOCKET"]),
        ("Upgrade", &["h2c", "websocket"]),
        ("UPGRADE", &["websocket"]),
        ("Connection", &["upgrade"]),
        ("Connection", &["keep-alive, Upgrade"]),
        ("Connection", &["UPGRADE\t,\tkeep-alive"]),
        ("connection", &["keep-alive", "upgrade"]),
        ("Connection", &[", ,Upgrade,"]),
        ("sec-websocket-key", &["dGhlIHNhbXBsZSBub25jZQ=="]),
        ("SEC-WEBSOCKET-VERSION", &["13"]),
        ("Sec-WebSocket-Protocol", &[""]),
    ] {
        let mut client = connect(&server);
        client.send(changed(line, name, values).as_bytes());
        assert_eq!(status(&client.head()), 101, "{name}: {values:?}");
    }
}

#[test]
fn a_request_in_any_number_of_segments_opens_a_websocket() {
    let server = serve(vec![route!("/" => Echo)]);
    let request = upgrade_request("/", "");
    for pieces in 1..=40 {
        let mut client = connect(&server);
        for piece in request.as_bytes().chunks(request.len().div_ceil(pieces)) {
            client.send(piece);
        }
        assert_eq!(status(&client.head()), 101, "in {pieces} pieces");
        client.send_text("hello");
        assert_eq!(client.text_frame(), "hello", "in {pieces} pieces");
    }
}

#[test]
fn a_websocket_may_be_opened_after_other_requests() {
    let server = serve(vec![
        route!("/" => Echo),
        route!("/page" => answer(|_| Ok(Response::new().text("page")))),
    ]);
    let mut client = connect(&server);
    assert_eq!(client.ask(&get("/page")).1, "page");
    client.send(format!("{}{}", get("/page"), upgrade_request("/", "")).as_bytes());
    assert_eq!(client.response().1, "page");
    assert_eq!(status(&client.head()), 101);
    client.send_text("hello");
    assert_eq!(client.text_frame(), "hello");
}

#[test]
fn the_client_of_tungstenite_gets_its_messages_back() {
    use tungstenite::client::client;
    use tungstenite::stream::MaybeTlsStream;

    let server = serve(vec![route!("/echo" => Echo)]);
    let url = format!("ws://{}/echo", server.local_addr());
    let (mut socket, response) = tungstenite::connect(&url).unwrap();
    assert_eq!(response.status(), 101);
    let MaybeTlsStream::Plain(stream) = socket.get_ref() else { panic!("there is no TLS") };
    stream.set_read_timeout(Some(DEADLINE)).unwrap();

    let stream = TcpStream::connect(server.local_addr()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let (mut other, _) = client(&url, stream).unwrap();

    let long = "grüße ".repeat(20_000);
    for text in ["hello", "", &long] {
        socket.send(tungstenite::Message::text(text)).unwrap();
        other.send(tungstenite::Message::binary(text.to_owned())).unwrap();
        assert_eq!(socket.read().unwrap(), tungstenite::Message::text(text));
        assert_eq!(other.read().unwrap(), tungstenite::Message::binary(text.to_owned()));
    }
    socket.close(None).unwrap();
    assert!(matches!(socket.read(), Ok(tungstenite::Message::Close(_))), "the close is echoed");
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
}

// What is not.

/// What is wrong, the first line, the changed header, and the status with a header that belongs to it.
type Wrong = (
    &'static str,
    &'static str,
    (&'static str, &'static [&'static str]),
    u16,
    Option<(&'static str, &'static str)>,
);

const LINE: &str = "GET / HTTP/1.1";

const WRONG: &[Wrong] = &[
    ("POST", "POST / HTTP/1.1", ("X", &[]), 405, Some(("Allow", "GET"))),
    ("HEAD", "HEAD / HTTP/1.1", ("X", &[]), 405, Some(("Allow", "GET"))),
    ("OPTIONS", "OPTIONS / HTTP/1.1", ("X", &[]), 405, Some(("Allow", "GET"))),
    ("HTTP/1.0", "GET / HTTP/1.0", ("X", &[]), 400, None),
    ("HTTP/2", "GET / HTTP/2.0", ("X", &[]), 505, None),
    ("no Host", LINE, ("Host", &[]), 400, None),
    ("two Hosts", LINE, ("Host", &["server.example", "server.example"]), 400, None),
    ("no Upgrade", LINE, ("Upgrade", &[]), 426, Some(("Upgrade", "websocket"))),
    ("another protocol", LINE, ("Upgrade", &["h2c"]), 426, Some(("Upgrade", "websocket"))),
    ("almost websocket", LINE, ("Upgrade", &["websockets"]), 426, Some(("Upgrade", "websocket"))),
    ("two words", LINE, ("Upgrade", &["web socket"]), 426, Some(("Upgrade", "websocket"))),
    ("no Connection", LINE, ("Connection", &[]), 400, None),
    ("not an upgrade", LINE, ("Connection", &["keep-alive"]), 400, None),
    ("almost an upgrade", LINE, ("Connection", &["not-upgrade, upgraded"]), 400, None),
    (
        "no version",
        LINE,
        ("Sec-WebSocket-Version", &[]),
        426,
        Some(("Sec-WebSocket-Version", "13")),
    ),
    (
        "a draft",
        LINE,
        ("Sec-WebSocket-Version", &["8"]),
        426,
        Some(("Sec-WebSocket-Version", "13")),
    ),
    (
        "a list of versions",
        LINE,
        ("Sec-WebSocket-Version", &["13, 8"]),
        426,
        Some(("Sec-WebSocket-Version", "13")),
    ),
    (
        "a version with a zero",
        LINE,
        ("Sec-WebSocket-Version", &["013"]),
        426,
        Some(("Sec-WebSocket-Version", "13")),
    ),
    ("two versions", LINE, ("Sec-WebSocket-Version", &["13", "13"]), 400, None),
    ("no key", LINE, ("Sec-WebSocket-Key", &[]), 400, None),
    ("an empty key", LINE, ("Sec-WebSocket-Key", &[""]), 400, None),
    ("a short key", LINE, ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZQ=="]), 400, None),
    ("a long key", LINE, ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZSE="]), 400, None),
    ("a key without padding", LINE, ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ"]), 400, None),
    (
        "a key that is no base64",
        LINE,
        ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25j!!=="]),
        400,
        None,
    ),
    (
        "a key with stray bits",
        LINE,
        ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZR=="]),
        400,
        None,
    ),
    (
        "two keys",
        LINE,
        ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="]),
        400,
        None,
    ),
    ("no subprotocol", LINE, ("Sec-WebSocket-Protocol", &["a b"]), 400, None),
    ("a quoted subprotocol", LINE, ("Sec-WebSocket-Protocol", &["chat, \"x\""]), 400, None),
    ("a foreign page", LINE, ("Origin", &["http://evil.example"]), 403, None),
    ("a page in a sandbox", LINE, ("Origin", &["null"]), 403, None),
    ("another port", LINE, ("Origin", &["http://server.example:8080"]), 403, None),
    ("a longer name", LINE, ("Origin", &["http://server.example.evil.example"]), 403, None),
    ("a subdomain", LINE, ("Origin", &["http://a.server.example"]), 403, None),
    ("this host as a user", LINE, ("Origin", &["http://server.example@evil.example"]), 403, None),
    ("this host as a path", LINE, ("Origin", &["http://evil.example/server.example"]), 403, None),
    ("no scheme", LINE, ("Origin", &["server.example"]), 403, None),
    ("an empty origin", LINE, ("Origin", &[""]), 403, None),
    ("two origins", LINE, ("Origin", &["http://server.example", "http://evil.example"]), 400, None),
    (
        "a list of origins",
        LINE,
        ("Origin", &["http://server.example, http://evil.example"]),
        403,
        None,
    ),
];

#[test]
fn what_is_wrong_with_a_request_has_its_status_and_never_opens_a_websocket() {
    let endpoint = Endpoint::default();
    let opened = Arc::clone(&endpoint.opened);
    let server = serve(vec![route!("/" => endpoint)]);
    for (what, line, (name, values), expected, companion) in WRONG {
        let mut client = connect(&server);
        client.send(changed(line, name, values).as_bytes());
        let head = client.head();
        assert_eq!(status(&head), *expected, "{what}: {head}");
        if let Some((name, value)) = companion {
            assert_eq!(header(&head, name), Some(*value), "{what}: {head}");
        }
        assert_eq!(header(&head, "sec-websocket-accept"), None, "{what}: {head}");
        assert!(
            header(&head, "connection").is_some_and(|it| it.contains("close")),
            "{what}: {head}"
        );
        // Its body, and then the end; after HEAD the end at once.
        let body = client.rest();
        let length = header(&head, "content-length").unwrap().parse::<usize>().unwrap();
        assert_eq!(body.len(), if *what == "HEAD" { 0 } else { length }, "{what}: {head}");
    }
    assert_eq!(opened.load(Ordering::SeqCst), 0, "a refused request opened a WebSocket");

    let mut client = connect(&server);
    client.send(changed(LINE, "X", &[]).as_bytes());
    assert_eq!(status(&client.head()), 101, "the request that all the others are made from");
    wait_until("it is opened", || opened.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_request_with_a_body_opens_no_websocket() {
    let server = serve(vec![route!("/" => Echo)]);
    for (field, body) in
        [("Content-Length: 4", "body"), ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n")]
    {
        let mut client = connect(&server);
        let request = upgrade_request("/", &format!("{field}\r\n"));
        client.send(format!("{request}{body}").as_bytes());
        assert_eq!(status(&client.response().0), 400, "{field}");
        client.expect_end();
    }
}

#[test]
fn every_426_names_the_protocol_to_upgrade_to() {
    // RFC 9110 §15.5.22: a 426 has an Upgrade header; §7.8: whoever sends one says so in Connection.
    let server = serve(vec![route!("/" => Echo)]);
    for (name, values) in [("Upgrade", &[][..]), ("Sec-WebSocket-Version", &["8"])] {
        let mut client = connect(&server);
        client.send(changed(LINE, name, values).as_bytes());
        let (head, _) = client.response();
        assert_eq!(header(&head, "upgrade"), Some("websocket"), "wrong {name}: {head}");
        let connection = header(&head, "connection").unwrap_or_default().to_lowercase();
        assert!(connection.contains("upgrade"), "wrong {name}: {head}");
    }
}

#[test]
fn a_setting_of_an_endpoint_that_makes_no_sense_is_a_500() {
    let server = serve(vec![
        route!("/" => Endpoint::with(|defaults| defaults.ping_timeout(Duration::ZERO))),
    ]);
    let mut client = connect(&server);
    let (head, body) = client.ask(&upgrade_request("/", ""));
    assert_eq!((status(&head), body.as_str()), (500, "Internal Server Error"), "{head}");
}

// What a controller decides.

#[test]
fn the_first_subprotocol_that_the_client_offers_and_the_endpoint_speaks_is_taken() {
    let server = start(
        Server::new(vec![
            route!("/" => Endpoint::with(|defaults| defaults.subprotocols(["chat.v2", "chat.v1"]))),
            route!("/none" => Endpoint::default()),
            route!("/defaults" => Endpoint::default()),
            route!("/cleared" => Endpoint::with(|defaults| defaults.subprotocols([""; 0]))),
        ])
        .websocket(Websocket::new().subprotocols(["default"])),
    );
    let cases: &[(&str, &[&str], Option<&str>)] = &[
        ("/", &[], None),
        ("/", &["chat.v1"], Some("chat.v1")),
        ("/", &["chat.v1, chat.v2"], Some("chat.v1")),
        ("/", &["chat.v3,\tchat.v2, chat.v1"], Some("chat.v2")),
        ("/", &["chat.v3", "chat.v1", "chat.v2"], Some("chat.v1")),
        ("/", &["chat.v3, chat"], None),
        ("/", &["CHAT.V1"], None),
        ("/", &["default"], None),
        ("/defaults", &["chat.v1, default"], Some("default")),
        ("/cleared", &["default"], None),
    ];
    for (path, offered, expected) in cases {
        let mut client = connect(&server);
        let line = format!("GET {path} HTTP/1.1");
        client.send(changed(&line, "Sec-WebSocket-Protocol", offered).as_bytes());
        let head = client.head();
        assert_eq!(status(&head), 101, "{path} with {offered:?}");
        assert_eq!(header(&head, "sec-websocket-protocol"), *expected, "{path} with {offered:?}");
    }
}

#[test]
fn pages_of_this_host_and_of_listed_origins_are_let_in() {
    let server = start(
        Server::new(vec![
            route!("/defaults" => Endpoint::default()),
            route!("/more" => Endpoint::with(|defaults| defaults.allow_origin("http://more.example:81"))),
            route!("/own" => Endpoint::with(|_| Websocket::new())),
            route!("/any" => Endpoint::with(Websocket::allow_any_origin)),
        ])
        .websocket(Websocket::new().allow_origin("https://friend.example")),
    );
    let cases = [
        ("/defaults", "http://server.example", 101),
        ("/defaults", "https://server.example", 101),
        ("/defaults", "http://SERVER.example:80", 101),
        ("/defaults", "https://friend.example", 101),
        ("/defaults", "HTTPS://Friend.example:443", 101),
        ("/defaults", "http://friend.example", 403),
        ("/defaults", "https://friend.example:444", 403),
        ("/defaults", "http://more.example:81", 403),
        ("/more", "http://more.example:81", 101),
        ("/more", "https://friend.example", 101),
        ("/more", "http://server.example", 101),
        ("/more", "http://evil.example", 403),
        ("/own", "https://friend.example", 403),
        ("/own", "http://server.example", 101),
        ("/any", "http://evil.example", 101),
        ("/any", "null", 101),
    ];
    for (path, origin, expected) in cases {
        let mut client = connect(&server);
        client.send(changed(&format!("GET {path} HTTP/1.1"), "Origin", &[origin]).as_bytes());
        assert_eq!(status(&client.head()), expected, "{origin} at {path}");
    }
}

#[test]
fn a_page_of_this_host_counts_when_it_came_by_https_or_nothing_here_did() {
    let proxy: std::net::IpAddr = [127, 0, 0, 1].into();
    let routes = || {
        vec![
            route!("/" => Echo),
            route!("/app" => Endpoint::with(|defaults| {
                defaults.allow_origin("capacitor://server.example").allow_origin("null")
            })),
        ]
    };
    let behind_proxy = start(Server::new(routes()).trust_proxy(proxy));
    let open = serve(routes());
    let (plain, tls) = ("X: y", "X-Forwarded-Proto: https");
    for (server, scheme, path, origin, expected) in [
        (&open, plain, "/", "http://server.example", 101),
        (&open, plain, "/", "https://server.example", 101),
        (&open, plain, "/", "HTTPS://server.example", 101),
        (&open, plain, "/", "capacitor://server.example", 403),
        (&open, plain, "/", "ionic://server.example", 403),
        (&open, plain, "/", "ws://server.example", 403),
        (&open, plain, "/", "file://", 403),
        (&open, plain, "/", "null", 403),
        (&open, plain, "/app", "capacitor://server.example", 101),
        (&open, plain, "/app", "ionic://server.example", 403),
        (&open, plain, "/app", "null", 101),
        // Anybody may claim to have come by TLS; it proves nothing.
        (&open, tls, "/", "http://server.example", 101),
        (&behind_proxy, plain, "/", "http://server.example", 101),
        (&behind_proxy, plain, "/", "https://server.example", 101),
        (&behind_proxy, tls, "/", "https://server.example", 101),
        (&behind_proxy, tls, "/", "http://server.example", 403),
        (&behind_proxy, tls, "/", "capacitor://server.example", 403),
        (&behind_proxy, tls, "/app", "capacitor://server.example", 101),
    ] {
        let mut client = connect(server);
        let line = format!("GET {path} HTTP/1.1\r\n{scheme}");
        client.send(changed(&line, "Origin", &[origin]).as_bytes());
        assert_eq!(status(&client.head()), expected, "{origin} at {path} with {scheme}");
    }
}

#[test]
fn the_names_of_this_machine_are_one_host_and_its_ports_are_not() {
    let server = serve(vec![route!("/" => Echo)]);
    for (host, origin, expected) in [
        ("localhost:8000", "http://127.0.0.1:8000", 101),
        ("127.0.0.1:8000", "http://[::1]:8000", 101),
        ("[::1]:8000", "http://LOCALHOST:8000", 101),
        ("localhost:8000", "http://127.0.0.1:8001", 403),
        ("localhost:8000", "http://127.0.0.1", 403),
        ("localhost:8000", "http://localhost.evil.example:8000", 403),
        ("localhost:8000", "http://127.0.0.1.evil.example:8000", 403),
        ("server.example:8000", "http://localhost:8000", 403),
        ("[::ffff:127.0.0.1]:8000", "http://localhost:8000", 101),
        ("localhost", "capacitor://localhost", 403),
    ] {
        let mut client = connect(&server);
        let request = changed(LINE, "Origin", &[origin]).replace("server.example", host);
        client.send(request.as_bytes());
        assert_eq!(status(&client.head()), expected, "a page of {origin} at {host}");
    }
}

#[test]
fn the_101_of_a_new_visitor_alone_carries_the_session_cookie() {
    let (sender, sessions) = mpsc::channel();
    let server = serve(vec![route!("/" => Watch(sender))]);
    let mut client = connect(&server);
    client.send(upgrade_request("/", "").as_bytes());
    let head = client.head();
    let session = sessions.recv_timeout(DEADLINE).unwrap();
    let secret = new_secret(&head).unwrap_or_else(|| panic!("no cookie in {head}"));
    assert_eq!(SessionId::from_cookie(secret).as_ref(), Some(&session), "{head}");
    let expected = format!("rwf_session={secret}; Path=/; HttpOnly; SameSite=Lax");
    assert_eq!(header(&head, "set-cookie"), Some(expected.as_str()), "{head}");

    let mut client = connect(&server);
    client.send(upgrade_request("/", &format!("Cookie: rwf_session={secret}\r\n")).as_bytes());
    let head = client.head();
    assert_eq!((status(&head), header(&head, "set-cookie")), (101, None), "{head}");
    assert_eq!(sessions.recv_timeout(DEADLINE).unwrap(), session, "the same visitor again");
}

#[test]
fn the_101_to_a_user_brings_no_cookie_unless_the_guest_was_asked_for() {
    let server = serve(vec![route!("/private" => Private), route!("/guest" => FromGuest)]);
    for (path, has_cookie) in [("/private?user=45", false), ("/guest", true)] {
        let mut client = connect(&server);
        client.send(upgrade_request(path, "").as_bytes());
        let head = client.head();
        assert_eq!(
            (status(&head), new_secret(&head).is_some()),
            (101, has_cookie),
            "{path}: {head}"
        );
    }
}

#[test]
fn a_websocket_that_is_refused_begins_no_session() {
    let server = serve(vec![route!("/" => Echo)]);
    for (headers, expected) in [("Origin: http://evil.example\r\n", 403), ("Expect: x\r\n", 417)] {
        let (head, _) = connect(&server).ask(&upgrade_request("/", headers));
        assert_eq!((status(&head), header(&head, "set-cookie")), (expected, None), "{head}");
    }
    let (head, _) = connect(&server).ask(&get("/"));
    assert_eq!((status(&head), header(&head, "set-cookie")), (426, None), "{head}");
}

#[test]
fn without_session_cookies_each_websocket_is_a_session_of_its_own() {
    let (sender, sessions) = mpsc::channel();
    let routes = vec![route!("/" => Watch(sender)), route!("/private" => Private)];
    let server = start(Server::new(routes).no_session_cookie());
    let guest = Guest::new();
    let open = || {
        let mut client = connect(&server);
        client.send(upgrade_request("/", &guest.cookie()).as_bytes());
        let head = client.head();
        assert_eq!((status(&head), header(&head, "set-cookie")), (101, None), "{head}");
        (client, sessions.recv_timeout(DEADLINE).unwrap())
    };
    let ((mut first, one), (_second, other)) = (open(), open());
    assert!(one != other && one != guest.session(), "{one}, {other}, {guest}");
    assert_eq!(Comms::websocket(&one).send("to one"), Ok(1));
    assert_eq!(first.text_frame(), "to one");

    let _user = Raw::open(server.local_addr(), "/private?user=46");
    assert_eq!(Comms::websocket(46).send("a user is a user"), Ok(1));
}

/// Opens a WebSocket for a user whose guest session it has looked at.
#[derive(Default)]
struct FromGuest;

#[async_trait]
impl Controller for FromGuest {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let user = format!("once {}", request.session_id());
        WebsocketController::handle(&Echo, &request.with_session(user)).await
    }
}

/// Tells who connects.
#[derive(macros::WebsocketController)]
struct Watch(mpsc::Sender<SessionId>);

#[async_trait]
impl WebsocketController for Watch {
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        self.0.send(client.clone())?;
        Ok(())
    }
}

/// Per-connection state, as in the design: made for one connection from its request.
struct Room {
    name: String,
    messages: AtomicUsize,
}

impl Room {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), messages: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl WebsocketController for Room {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        let number = self.messages.fetch_add(1, Ordering::SeqCst) + 1;
        let text = message.as_text().unwrap_or_default();
        Comms::websocket(client).send(format!("{number} in {}: {text}", self.name))?;
        Ok(())
    }
}

#[derive(Default)]
struct Rooms;

#[async_trait]
impl Controller for Rooms {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(&Room::new(request.param("room")?), request).await
    }
}

#[test]
fn a_controller_made_for_one_connection_has_its_path_parameter_and_its_own_state() {
    let server = serve(vec![route!("/rooms/:room" => Rooms)]);
    let mut blue = Raw::open(server.local_addr(), "/rooms/blue%20room");
    let mut red = Raw::open(server.local_addr(), "/rooms/red");
    for number in 1..=3 {
        for (client, name) in [(&mut blue, "blue room"), (&mut red, "red")] {
            client.send_text("hello");
            assert_eq!(client.text_frame(), format!("{number} in {name}: hello"));
        }
    }
    let (head, _) = connect(&server).ask(&get("/rooms/red"));
    assert_eq!(status(&head), 426, "a request that opens no WebSocket still has its answer");
}

/// Lets in who has a token, as the user whose number it is.
#[derive(Default)]
struct Private;

#[async_trait]
impl Controller for Private {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let Some(user) = request.query("user").and_then(|user| user.parse::<i64>().ok()) else {
            return Ok(Response::forbidden());
        };
        WebsocketController::handle(&Echo, &request.with_session(user)).await
    }
}

#[test]
fn a_user_is_reached_by_number_and_a_stranger_is_kept_out() {
    let server = serve(vec![route!("/private" => Private)]);
    let (head, _) = connect(&server).ask(&upgrade_request("/private", ""));
    assert_eq!(status(&head), 403, "{head}");

    // Numbers that no other test of this process takes.
    let mut tabs = [(); 2].map(|()| Raw::open(server.local_addr(), "/private?user=42"));
    let mut other = Raw::open(server.local_addr(), "/private?user=43");
    assert_eq!(Comms::websocket(42).send("to 42").unwrap(), 2);
    assert_eq!(Comms::websocket(43).send("to 43").unwrap(), 1);
    assert_eq!(Comms::websocket(44).send("to nobody").unwrap(), 0);
    for tab in &mut tabs {
        assert_eq!(tab.text_frame(), "to 42");
    }
    assert_eq!(other.text_frame(), "to 43");
    other.send_text("and back");
    assert_eq!(other.text_frame(), "and back", "the handlers' client is the user too");
}

/// Answers a request by a push to the visitor's WebSockets, with the lines that the design shows.
#[derive(Default)]
struct Push;

#[async_trait]
impl Controller for Push {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let session_id = request.session_id();
        let websocket = Comms::websocket(&session_id);
        websocket.send("hey there")?;
        Ok(Response::no_content())
    }
}

#[test]
fn a_request_pushes_to_the_websockets_of_its_visitor() {
    let server = serve(vec![route!("/socket" => Echo), route!("/push" => Push)]);
    let cookie = Guest::new().cookie();
    let mut tabs = [(); 2].map(|()| Raw::open_with(server.local_addr(), "/socket", &cookie));
    let mut other = Raw::open(server.local_addr(), "/socket");
    let request = format!("POST /push HTTP/1.1\r\nHost: x\r\n{cookie}\r\n");
    assert_eq!(status(&connect(&server).ask(&request).0), 204);
    for tab in &mut tabs {
        assert_eq!(tab.text_frame(), "hey there");
    }
    other.send_text("mine");
    assert_eq!(other.text_frame(), "mine", "another visitor got it too");
}

/// Without the derive: what the design says is equal to it.
#[derive(Default)]
struct ByHand;

#[async_trait]
impl WebsocketController for ByHand {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(message)?;
        Ok(())
    }
}

#[async_trait]
impl Controller for ByHand {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(self, request).await
    }
}

#[test]
fn a_controller_written_by_hand_serves_like_a_derived_one() {
    let server = serve(vec![route!("/by-hand" => ByHand), route!("/derived" => Echo)]);
    for path in ["/by-hand", "/derived"] {
        let mut client = Raw::open(server.local_addr(), path);
        client.send_text("hello");
        assert_eq!(client.text_frame(), "hello", "{path}");
        client.send_close(1000, "bye");
        assert_eq!(client.close_frame(), (1000, "bye".to_owned()), "{path}");
        client.expect_end();
        assert_eq!(status(&connect(&server).ask(&get(path)).0), 426, "{path}");
    }
}

/// A page for browsers, and the WebSocket that it opens, at one path.
#[derive(Default)]
struct PageAndSocket;

#[async_trait]
impl Controller for PageAndSocket {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        if request.header("Upgrade").is_none() {
            return Ok(Response::new().html("<script>new WebSocket(location)</script>"));
        }
        WebsocketController::handle(&Echo, request).await
    }
}

#[test]
fn a_page_and_a_websocket_may_share_a_path() {
    let server = serve(vec![route!("/" => PageAndSocket)]);
    let mut client = connect(&server);
    let (head, body) = client.ask(&get("/"));
    assert!(status(&head) == 200 && body.contains("WebSocket"), "{head}{body}");
    client.send(upgrade_request("/", "").as_bytes());
    assert_eq!(status(&client.head()), 101, "on the connection that brought the page");
    client.send_text("hello");
    assert_eq!(client.text_frame(), "hello");
}

/// Opens the WebSocket of a request twice, and returns the first or the second outcome.
struct Twice {
    returns_second: bool,
    second: mpsc::Sender<Result<(), String>>,
}

#[async_trait]
impl Controller for Twice {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let first = WebsocketController::handle(&Echo, request).await;
        let second = WebsocketController::handle(&Echo, &request.clone()).await;
        let outcome = second.as_ref().map(drop).map_err(ToString::to_string);
        self.second.send(outcome)?;
        if self.returns_second { second } else { first }
    }
}

#[test]
fn a_request_opens_one_websocket_and_no_second() {
    for returns_second in [false, true] {
        let (second, outcomes) = mpsc::channel();
        let server = serve(vec![route!("/" => Twice { returns_second, second })]);
        let mut client = Raw::open(server.local_addr(), "/");
        client.send_text("hello");
        assert_eq!(client.text_frame(), "hello");
        client.send_close(1000, "");
        client.close_frame();
        client.expect_end();
        drop(client);
        let error = outcomes.recv_timeout(DEADLINE).unwrap().unwrap_err();
        assert!(error.contains("already"), "{error}");
    }
}

#[test]
fn a_request_kept_past_its_answer_opens_no_websocket() {
    let (sender, requests) = mpsc::channel();
    let server = serve(vec![route!("/" => answer(move |request| {
        sender.send(request.clone())?;
        Ok(Response::new().text("answered"))
    }))]);
    let mut client = connect(&server);
    assert_eq!(client.ask(&upgrade_request("/", "")).1, "answered");
    let request = requests.recv_timeout(DEADLINE).unwrap();
    let late = rwf::block_on(WebsocketController::handle(&Echo, &request));
    assert!(late.is_err(), "a WebSocket was opened behind an answer");
    assert_eq!(client.ask(&get("/")).1, "answered", "the connection goes on with HTTP");
}
