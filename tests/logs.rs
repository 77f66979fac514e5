//! What the log says, and what it does not.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{fmt, fs, io};

use common::tls::TlsWire;
use common::{Guest, Raw, client_frame, get, header, start, status, upgrade_request, wait_until};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rwf::controller::{Rate, Websocket};
use rwf::http::{Server, Tls};
use rwf::prelude::*;

/// Keeps all lines of this process, and apart their targets with their first words.
struct Lines(Mutex<Vec<String>>, Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        let start = text.split(' ').take(2).collect::<Vec<_>>().join(" ");
        self.1.lock().push(format!("{} {start}", record.target()));
        self.0.lock().push(format!("{} {text}", record.level()));
    }

    fn flush(&self) {}
}

/// The logger of this process.
fn logger() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| Lines(Mutex::default(), Mutex::default()));
    if log::set_logger(lines).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
    lines
}

/// The lines so far that contain `part`.
fn lines(part: &str) -> Vec<String> {
    let lines = logger();
    lines.0.lock().iter().filter(|line| line.contains(part)).cloned().collect()
}

/// The only line that contains `part`, once it is there.
fn line(part: &str) -> String {
    wait_until(&format!("the log says {part:?}"), || !lines(part).is_empty());
    let lines = lines(part);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines[0].clone()
}

/// The line about a client that is new since there were `before` of them: systems give a port more than once.
fn next_line(client: &str, before: usize) -> String {
    wait_until(&format!("the log says {client:?} again"), || lines(client).len() > before);
    let mut lines = lines(client);
    assert_eq!(lines.len(), before + 1, "{lines:#?}");
    lines.pop().unwrap_or_default()
}

/// The number in `connection=7` of a line.
#[track_caller]
fn connection(line: &str) -> u64 {
    let (_, rest) = line.split_once(" connection=").unwrap_or_else(|| panic!("{line}"));
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().unwrap_or_else(|_| panic!("{line}"))
}

/// Whether a terminal would take a part of it for anything but text on one line.
fn is_hostile(line: &str) -> bool {
    line.chars().any(|c| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// An error whose cause forges a line and turns a terminal red.
#[derive(Debug)]
struct Forging(io::Error);

impl fmt::Display for Forging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it's \"bad\"\r\nERROR forged")
    }
}

impl std::error::Error for Forging {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

fn forging() -> Error {
    Error::new(Forging(io::Error::other("\u{1b}[31mred\u{85}ERROR forged too")))
}

/// Does what the path says.
#[derive(Default)]
struct Doing;

#[async_trait]
impl Controller for Doing {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        match request.param("what")? {
            "fail" => Err(Error::new("the disk is full")),
            "refuse" => Err(Error::new("no such room").with_status(404)),
            "panic" => panic!("as the path says"),
            "answer" => Ok(Response::new()),
            "forge" => Err(forging()),
            "header" => {
                Ok(Response::new().header("X-Name", request.header("X-Name").unwrap_or_default()))
            }
            _ => WebsocketController::handle(self, request).await,
        }
    }
}

#[async_trait]
impl WebsocketController for Doing {
    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        if message.as_text() == Some("forge") {
            return Err(forging());
        }
        let pause: u64 = message.as_text().unwrap_or_default().parse()?;
        std::thread::park_timeout(Duration::from_millis(pause));
        Ok(())
    }
}

#[test]
fn each_request_is_one_line() {
    lines("");
    let server = start(Server::new(vec![route!("/one/:what" => Doing)]));
    let mut client = Raw::connect(server.local_addr());
    for what in ["answer?token=secret", "fail", "refuse", "panic", "foreign"] {
        let origin = "Origin: http://evil.example";
        client.send(
            format!("GET /one/{what} HTTP/1.1\r\nHost: localhost\r\n{origin}\r\n\r\n").as_bytes(),
        );
        client.response();
    }
    let answer = line("/one/answer");
    assert!(answer.starts_with("INFO GET /one/answer 200 controller=Doing took="), "{answer}");
    let peer = client.stream.local_addr().unwrap();
    let who = format!(" connection={} peer={peer}", connection(&answer));
    assert!(answer.ends_with(&who), "{answer}");
    assert_eq!(lines("secret"), [""; 0], "queries hold tokens");
    let fail = line("/one/fail");
    assert!(fail.starts_with("ERROR GET /one/fail 500"), "{fail}");
    assert!(fail.ends_with("the disk is full"), "{fail}");
    let refuse = line("/one/refuse");
    assert!(refuse.starts_with("INFO ") && refuse.ends_with("no such room"), "{refuse}");
    assert!(line("/one/panic").contains("panicked"));
    assert!(line("/one/foreign").contains("426"));
}

#[test]
fn a_websocket_is_a_line_at_its_beginning_and_one_at_its_end() {
    lines("");
    let server = start(Server::new(vec![route!("/two/:what" => Doing)]));
    let session = Guest::new();
    let cookie = session.cookie();
    let mut client = Raw::open_with(server.local_addr(), "/two/x", &cookie);
    let connected = line(&format!(" session={session} path=/two/x controller="));
    assert!(connected.starts_with("INFO websocket connected connection="), "{connected}");
    assert!(connected.contains("path=/two/x controller=Doing peer=127.0.0.1:"), "{connected}");
    client.send_text("0");
    client.send_close(4000, "a\nb");
    client.close_frame();
    drop(client);
    let connection = connection(&connected);
    let closed = line(&format!("closed connection={connection} session={session}"));
    assert!(closed.contains(r#"path=/two/x code=4000 reason="a\nb" by=client after="#), "{closed}");
    assert!(closed.contains("in=1 out=0"), "{closed}");
    let secret = session.secret.to_string();
    assert!(!format!("{connected}{closed}").contains(&secret), "the log holds the cookie {secret}");
}

#[test]
fn a_client_that_is_held_back_is_named_once() {
    lines("");
    let endpoint = websocket(|mut socket: Socket| {
        while socket.recv()?.is_some() {}
        Ok(())
    });
    let rate = Rate::per_second(100).burst(1);
    let endpoint = endpoint.settings(move |all| all.message_rate(rate));
    let server = start(Server::new(vec![route!("/flooded" => endpoint)]));
    let guest = Guest::new();
    let mut client = Raw::open_with(server.local_addr(), "/flooded", &guest.cookie());
    client.send(&client_frame(0x81, b"again").repeat(10));
    client.send_close(1000, "");
    client.close_frame();
    let held = line(&format!(" session={guest} path=/flooded: it sends more"));
    assert!(held.starts_with("INFO websocket held back connection="), "{held}");
}

#[test]
fn clients_cannot_write_control_characters_into_the_log() {
    lines("");
    let server = start(Server::new(vec![route!("/three/:what" => Doing)]));
    let mut client = Raw::connect(server.local_addr());
    client.send("GET /three/\u{9b}2J\u{202e} HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes());
    client.response();
    let line = line("/three/");
    assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
}

#[test]
fn a_token_that_travels_as_a_subprotocol_stays_out_of_the_log() {
    // A page's WebSocket can send no header but this one, so tokens travel there, also such as are no subprotocol.
    lines("");
    let server = start(Server::new(vec![route!("/six/:what" => Doing)]));
    let token = "Sec-WebSocket-Protocol: chat, c2VjcmV0/dG9rZW4=\r\n";
    let request = upgrade_request("/six/x", token);
    let (_, told) = Raw::connect(server.local_addr()).ask(&request);
    assert!(
        told.contains("the subprotocol at place 2"),
        "the client is told what is wrong: {told}"
    );
    let line = line("/six/x");
    assert!(line.contains("400") && !line.contains("c2VjcmV0"), "{line}");
}

#[test]
fn a_handler_that_runs_long_is_warned_of_once() {
    lines("");
    let server = start(
        Server::new(vec![route!("/four/:what" => Doing)])
            .handler_warning(Duration::from_millis(300)),
    );
    let session = Guest::new();
    let cookie = session.cookie();
    let mut client = Raw::open_with(server.local_addr(), "/four/x", &cookie);
    for _ in 0..20 {
        client.send_text("5");
    }
    client.send_text("1000");
    let warning = line(&format!(" session={session} path=/four/x peer="));
    let expected = "WARN a handler has run for 300ms and still does: connection=";
    assert!(warning.starts_with(expected), "{warning}");
    client.send_close(1000, "");
    client.close_frame();
    line(&format!(" session={session} path=/four/x peer="));
}

#[test]
fn a_function_that_neither_receives_nor_returns_is_warned_of_and_one_that_waits_is_not() {
    lines("");
    let busy = |mut socket: Socket| {
        while let Some(message) = socket.recv()? {
            let millis = message.as_text().unwrap_or_default().parse()?;
            std::thread::sleep(Duration::from_millis(millis));
        }
        Ok(())
    };
    let waiting = |mut socket: Socket| {
        let short = Duration::from_millis(7);
        while socket.recv_timeout(short) != Err(RecvTimeoutError::Disconnected) {}
        Ok(())
    };
    let server = start(
        Server::new(vec![
            route!("/eleven/busy" => websocket(busy)),
            route!("/eleven/waiting" => websocket(waiting)),
        ])
        .handler_warning(Duration::from_millis(60)),
    );
    let mut idle = Raw::open(server.local_addr(), "/eleven/waiting");
    let mut client = Raw::open(server.local_addr(), "/eleven/busy");
    client.send_text("400");
    let warning = line("path=/eleven/busy peer=");
    assert!(warning.starts_with("WARN a handler has run for 60ms and still does: "), "{warning}");
    for client in [&mut client, &mut idle] {
        client.send_close(1000, "");
        client.close_frame();
    }
    line("path=/eleven/waiting code=1000");
    let warned = lines("path=/eleven/waiting peer=");
    assert_eq!(warned, [""; 0], "it was warned of");
}

#[test]
fn a_handler_that_waits_for_its_own_client_is_warned_of() {
    lines("");
    let flood = |socket: Socket| {
        let part = Message::binary(vec![1; 1 << 20]);
        while socket.send(&part).is_ok() {}
        Ok(())
    };
    let settings = Websocket::new().close_timeout(Duration::from_millis(100));
    let server =
        start(Server::new(vec![route!("/twelve" => websocket(flood))]).websocket(settings));
    let _client = Raw::open(server.local_addr(), "/twelve");
    let warning = line("a handler waits for its own client");
    assert!(warning.starts_with("WARN ") && warning.ends_with(" path=/twelve"), "{warning}");
}

#[test]
fn the_lines_of_two_tabs_of_a_session_are_told_apart() {
    lines("");
    let server = start(Server::new(vec![route!("/six/:what" => Doing)]));
    let session = Guest::new();
    let cookie = session.cookie();
    let mut tabs = [(); 2].map(|()| Raw::open_with(server.local_addr(), "/six/x", &cookie));
    let opened = || lines(&format!(" session={session} path=/six/x controller="));
    wait_until("both tabs have their line", || opened().len() == 2);
    let mut numbers: Vec<_> = opened().iter().map(|line| connection(line)).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 2, "{:#?}", opened());
    for tab in &mut tabs {
        tab.send_text("no number");
        assert_eq!(tab.close_frame().0, 1011);
        tab.send_close(1011, "");
        tab.expect_end();
    }
    drop(tabs);
    for number in numbers {
        let who = format!("connection={number} session={session}");
        line(&format!("websocket connected {who}"));
        line(&format!("handle_message of {who} path=/six/x failed"));
        line(&format!("websocket closed {who}"));
    }
}

#[test]
fn the_name_of_a_controller_is_one_value_whatever_it_is() {
    struct Pair<A, B>(PhantomData<(A, B)>);
    #[async_trait]
    impl<A: Send + Sync, B: Send + Sync> Controller for Pair<A, B> {
        async fn handle(&self, _: &Request) -> Result<Response, Error> {
            Ok(Response::new())
        }
    }
    lines("");
    let pair = Pair::<u8, String>(PhantomData);
    let server = start(Server::new(vec![route!("/named/pair" => pair)]));
    let mut client = Raw::connect(server.local_addr());
    for (path, value) in
        [("/named/nobody", "none"), ("/named/pair", "\"Pair<u8, alloc::string::String>\"")]
    {
        client.ask(&get(path));
        let answer = line(path);
        assert!(answer.contains(&format!(" controller={value} took=")), "{answer}");
    }
}

#[test]
fn an_endpoint_has_one_name_in_the_lines_of_its_requests_and_of_its_websockets() {
    fn chat(_: Socket) -> Result<(), Error> {
        Ok(())
    }
    fn enter(request: &Request) -> Result<Response, Error> {
        request.upgrade(|_| Ok(()))
    }
    lines("");
    let in_a_box: Box<dyn Controller> = Box::new(websocket(chat));
    let routes = vec![
        route!("/same/function" => websocket(chat)),
        route!("/same/closure" => websocket(|_| Ok(()))),
        route!("/same/shared" => Arc::new(websocket(chat))),
        route!("/same/boxed" => in_a_box),
        route!("/same/looks" => enter),
        route!("/same/short" => |request: &Request| request.upgrade(|_| Ok(()))),
    ];
    let server = start(Server::new(routes));
    let closure =
        "an_endpoint_has_one_name_in_the_lines_of_its_requests_and_of_its_websockets::{{closure}}";
    for (what, name) in [
        ("function", "chat"),
        ("closure", closure),
        ("shared", "chat"),
        ("boxed", "chat"),
        ("looks", "enter"),
        ("short", closure),
    ] {
        let path = format!("/same/{what}");
        Raw::connect(server.local_addr()).ask(&get(&path));
        let mut client = Raw::open(server.local_addr(), &path);
        client.close_frame();
        let refused = line(&format!("GET {path} 426 "));
        let connected = line(&format!("path={path} controller="));
        for line in [refused, connected] {
            assert!(line.contains(&format!(" controller={name} ")), "{line}");
        }
    }
}

#[test]
fn nothing_that_a_client_sends_makes_a_second_line_or_moves_the_terminal() {
    lines("");
    let server = start(Server::new(vec![route!("/seven/:what" => Doing)]));
    let evil = "\u{9b}2J\u{85}\u{202e}\u{2028}";
    let long = "x".repeat(12_000);
    let plain = |line: &str, headers: &str| format!("{line}\r\nHost: localhost\r\n{headers}\r\n");
    let open = |headers: &str| upgrade_request("/seven/x", headers);
    let with_key = |key: &str| open("").replace("dGhlIHNhbXBsZSBub25jZQ==", key);
    for (what, request) in [
        ("path", plain(&format!("GET /seven/{evil} HTTP/1.1"), "")),
        ("no route", plain(&format!("GET /{evil} HTTP/1.1"), "")),
        ("query", plain(&format!("GET /seven/answer?{evil} HTTP/1.1"), "")),
        ("long path", plain(&format!("GET /seven/{long} HTTP/1.1"), "")),
        ("target", plain(&format!("GET http://{evil}/ HTTP/1.1"), "")),
        ("method", plain(&format!("G{evil}T / HTTP/1.1"), "")),
        ("long method", plain(&format!("{long} / HTTP/1.1"), "")),
        ("version", plain(&format!("GET / HTTP/{evil}"), "")),
        ("first byte", "\u{9b}2J".to_owned()),
        ("header name", plain("GET / HTTP/1.1", &format!("X{evil}: a\r\n"))),
        ("host", format!("GET / HTTP/1.1\r\nHost: {evil}\r\n\r\n")),
        ("foreign host", format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n")),
        ("coding", plain("POST / HTTP/1.1", &format!("Transfer-Encoding: {evil}\r\n"))),
        ("long coding", plain("POST / HTTP/1.1", &format!("Transfer-Encoding: {long}\r\n"))),
        ("length", plain("POST / HTTP/1.1", &format!("Content-Length: {evil}\r\n"))),
        (
            "expectation",
            plain("POST / HTTP/1.1", &format!("Expect: {evil}\r\nContent-Length: 2\r\n")),
        ),
        (
            "chunk",
            plain("POST / HTTP/1.1", &format!("Transfer-Encoding: chunked\r\n\r\n{evil}\r\n")),
        ),
        ("answered header", plain("GET /seven/header HTTP/1.1", &format!("X-Name: a{evil}\r\n"))),
        ("origin", open(&format!("Origin: http://{evil}\r\n"))),
        ("long origin", open(&format!("Origin: http://{long}\r\n"))),
        ("subprotocol", open(&format!("Sec-WebSocket-Protocol: {evil}\r\n"))),
        ("key", with_key(evil)),
        ("long key", with_key(&long)),
        ("WebSocket version", open("").replace("Version: 13", &format!("Version: {evil}"))),
        ("upgrade", open("").replace("Upgrade: websocket", &format!("Upgrade: {evil}"))),
    ] {
        let mut client = Raw::connect(server.local_addr());
        let peer = format!("peer={}", client.stream.local_addr().unwrap());
        let before = lines(&peer).len();
        client.send(request.as_bytes());
        let (head, body) = client.response();
        assert!(!is_hostile(&body), "{what}: {body:?}");
        assert!(!body.contains(&long), "{what}: {body:?}");
        let said = next_line(&peer, before);
        let is_one_of_ours = said.contains(&format!(" connection={} {peer}", connection(&said)));
        assert!(is_one_of_ours, "{what}: {said:?}");
        assert!(!is_hostile(&said), "{what}: {said:?}");
        assert!(said.chars().count() < 1500, "{what}: {} characters", said.chars().count());
        if status(&head) != 200 && body.contains("\\u{9b}") {
            assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"), "{what}: {head}");
        }
    }
    let everything = lines("");
    assert!(!everything.iter().any(|line| line.contains('\n')), "{everything:#?}");
}

#[test]
fn a_value_that_a_request_is_refused_for_is_cut_in_the_log() {
    lines("");
    let server = start(Server::new(vec![route!("/eleven/:what" => Doing)]));
    let long = "x".repeat(12_000);
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
    for (what, request) in [
        ("the Host", format!("GET / HTTP/1.1\r\nHost: /{long}\r\n\r\n")),
        ("the method", format!("x{long} / HTTP/1.1\r\nHost: localhost\r\n\r\n")),
        ("the Transfer-Encoding", post(&format!("Transfer-Encoding: x{long}"))),
        (
            "no Transfer-Encoding",
            post(&format!("Transfer-Encoding: x{long}")).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        ("the Content-Length", post(&format!("Content-Length: x{long}"))),
        ("the expectation", post(&format!("Expect: x{long}\r\nContent-Length: 2"))),
    ] {
        let mut client = Raw::connect(server.local_addr());
        let peer = format!("peer={}", client.stream.local_addr().unwrap());
        let before = lines(&peer).len();
        client.ask(&request);
        let said = next_line(&peer, before);
        let cut = format!("{}…(12001)\"", "x".repeat(255));
        assert!(said.contains(&cut) && !said.contains(&"x".repeat(257)), "{what}: {said}");
    }
}

#[test]
fn a_foreign_origin_is_escaped_in_the_log_and_in_the_answer() {
    lines("");
    let server = start(Server::new(vec![route!("/eight/:what" => Doing)]));
    let mut client = Raw::connect(server.local_addr());
    let origin = "Origin: http://evil.example/\u{9b}2J<script>\r\n";
    let (head, body) = client.ask(&upgrade_request("/eight/x", origin));
    let reason =
        r"pages from http://evil.example/\u{9b}2J<script> may not connect here; see `allow_origin`";
    assert_eq!((status(&head), body.as_str()), (403, reason));
    assert_eq!(header(&head, "content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"));
    let said = line("/eight/x");
    assert!(said.ends_with(&format!(": {reason}")), "{said:?}");
}

#[test]
fn a_controllers_error_is_one_line_whatever_its_text_and_its_causes() {
    lines("");
    let server = start(Server::new(vec![route!("/nine/:what" => Doing)]));
    let text = r#"it's "bad"\r\nERROR forged: \u{1b}[31mred\u{85}ERROR forged too"#;
    Raw::connect(server.local_addr()).ask(&get("/nine/forge"));
    let said = line("/nine/forge");
    assert!(said.ends_with(&format!(": {text}")), "{said:?}");

    let session = Guest::new();
    let cookie = session.cookie();
    let mut client = Raw::open_with(server.local_addr(), "/nine/x", &cookie);
    client.send_text("forge");
    assert_eq!(client.close_frame().0, 1011);
    let said = line(&format!(" session={session} path=/nine/x failed: "));
    assert!(said.starts_with("ERROR handle_message of connection="), "{said:?}");
    assert!(said.ends_with(&format!(" failed: {text}")), "{said:?}");
}

/// What is wrong with it, and where, has the client's words in it.
fn evil_json() -> String {
    let evil = "\u{9b}2J\u{85}\u{202e}\u{2028}\\u001b[31m\\r\\nERROR forged";
    format!("{{\"{evil}\": {{\"{evil}\": [\"{evil}{}\"]}}}}", "x".repeat(12_000))
}

type Nested = HashMap<String, HashMap<String, Vec<u32>>>;

#[test]
fn what_is_wrong_with_a_client_s_json_is_one_line_and_no_error() {
    lines("");
    let body =
        |request: &Request| request.json::<Nested>().map(|_| Response::new()).map_err(Error::new);
    let messages = |mut socket: Socket| {
        socket.recv()?.map(|message| message.json::<Nested>()).transpose()?;
        Ok(())
    };
    let routes = vec![route!("/ten/body" => body), route!("/ten/messages" => websocket(messages))];
    let server = start(Server::new(routes));
    let expect_harmless = |said: &str, shown: &str| {
        assert!(said.starts_with("INFO ") && said.contains("invalid type: string"), "{said:?}");
        assert!(!is_hostile(said) && said.chars().count() < 1500, "{said:?}");
        assert!(!is_hostile(shown) && shown.chars().count() < 1000, "{shown:?}");
        assert!(shown.starts_with("no valid JSON at line 1, column "), "{shown:?}");
    };

    let json = evil_json();
    let length = json.len();
    let (head, answer) = Raw::connect(server.local_addr()).ask(&format!(
        "POST /ten/body HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{json}"
    ));
    assert_eq!((status(&head), header(&head, "x-content-type-options")), (400, Some("nosniff")));
    expect_harmless(&line("POST /ten/body"), &answer);

    let mut client = Raw::open(server.local_addr(), "/ten/messages");
    client.send_text(&json);
    let (code, reason) = client.close_frame();
    assert_eq!(code, 1007);
    expect_harmless(&line("path=/ten/messages failed: "), &reason);
}

#[test]
fn a_close_reason_is_escaped_in_the_log() {
    lines("");
    let server = start(Server::new(vec![route!("/ten/:what" => Doing)]));
    let session = Guest::new();
    let cookie = session.cookie();
    let mut client = Raw::open_with(server.local_addr(), "/ten/\u{9b}2J", &cookie);
    client.send_close(4000, "\r\nERROR \"forged\" \u{9b}2J\u{202e}");
    client.close_frame();
    drop(client);
    let said = line(&format!(" session={session} path=/ten/\\u{{9b}}2J code="));
    let reason = r#" reason="\r\nERROR \"forged\" \u{9b}2J\u{202e}" by=client "#;
    assert!(said.contains(reason), "{said:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn threads_are_named_by_route_and_session() {
    let server = start(Server::new(vec![route!("/five/:what" => Doing)]));
    let session = Guest::new();
    let cookie = session.cookie();
    let mut client = Raw::open_with(server.local_addr(), "/five/x", &cookie);
    client.send_frame(0x89, b"");
    client.frame();
    let name = format!("five/x {:.8}", session.to_string());
    let names: Vec<_> = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .collect();
    assert!(names.iter().any(|comm| comm.trim() == name), "no {name:?} among {names:?}");
}

#[test]
fn each_line_has_a_target_that_stays() {
    lines("");
    let server = start(Server::new(vec![route!("/thirteen/:what" => Doing)]).max_connections(1));
    let mut client = Raw::open(server.local_addr(), "/thirteen/x");
    Raw::connect(server.local_addr()).response();
    client.send_close(1000, "");
    client.close_frame();
    drop(client);
    wait_until("there is room", || server.stats().connections.now == 0);
    Raw::connect(server.local_addr()).ask(&get("/thirteen/answer"));
    server.shutdown().unwrap();
    let targets = logger().1.lock().clone();
    for expected in [
        "rwf::server listening on",
        "rwf::server stopped listening",
        "rwf::connection refused 503",
        "rwf::http GET /thirteen/answer",
        "rwf::websocket websocket connected",
        "rwf::websocket websocket closed",
    ] {
        assert!(targets.iter().any(|target| target == expected), "{expected}: {targets:#?}");
    }
    let known = ["rwf::server ", "rwf::connection ", "rwf::http ", "rwf::websocket "];
    let unknown = targets.iter().find(|target| !known.iter().any(|one| target.starts_with(one)));
    assert_eq!(unknown, None, "handlers log nothing here");
}

/// Panics in place of a certificate.
#[derive(Debug)]
struct Panics;

impl ResolvesServerCert for Panics {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        panic!("there is no certificate");
    }
}

#[test]
fn a_panic_in_the_programs_own_tls_is_a_line_that_names_the_connection() {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Panics));
    let server = start(Server::new(vec![]).tls(Tls::config(config)));
    let wire = TlsWire::connect(server.local_addr()).unwrap();
    let peer = wire.socket.local_addr().unwrap();
    let mut line = String::new();
    wait_until("it is in the log", || {
        let named = lines("a connection panicked").into_iter();
        line = named.filter(|line| line.ends_with(&format!(" peer={peer}"))).collect();
        !line.is_empty()
    });
    assert!(line.starts_with("ERROR ") && connection(&line) > 0, "{line}");
}

#[test]
fn a_server_without_a_listener_says_so() {
    let server = Server::new(vec![]).no_listener().spawn().unwrap();
    assert_eq!(line("what is handed over"), "INFO serving what is handed over address=none");
    server.shutdown().unwrap();
    assert_eq!(
        line("stopped listening address=none"),
        "INFO stopped listening address=none closed=0 cut=0 running=0"
    );
}

#[test]
#[cfg(unix)]
fn a_start_that_waits_for_a_locked_folder_says_so() {
    use rustix::fs::{FlockOperation, flock};
    lines("");
    let folder = common::Folder::new();
    let locked = fs::File::open(&folder.0).unwrap();
    flock(&locked, FlockOperation::LockExclusive).unwrap();
    let server = Server::new(vec![]).bind_unix(folder.0.join("chat.sock")).spawn().unwrap();
    let folder = format!("folder={}: ", folder.0.display());
    let line = line(&folder);
    assert!(line.starts_with("WARN another program keeps a folder locked"), "{line}");
    assert!(line.ends_with("waited 2s, and go on without"), "{line}");
    drop(server);
}

/// The files of the source, as text without comments.
fn sources(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let text = |path| fs::read_to_string(path).unwrap();
    let code = |path| text(path).lines().filter(is_code).collect::<Vec<_>>().join("\n");
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    files.map(code).chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

#[test]
fn each_line_of_the_source_is_in_the_guide() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let guide = fs::read_to_string(source.join("guide/logging.md")).unwrap();
    let mut count = 0;
    for code in sources(&source) {
        for call in ["error", "warn", "info", "debug", "trace", "log"] {
            for rest in code.split(&format!("log::{call}!(")).skip(1) {
                count += 1;
                let rest = rest.trim_start();
                let target = rest.strip_prefix("target: \"").and_then(|rest| rest.split_once('"'));
                let (target, rest) = target.unwrap_or_else(|| panic!("no target: {rest:.80}"));
                let text = rest.split('"').nth(1).unwrap_or_default();
                // Up to the first value; what has its key before it counts without.
                let words = text.split(['{', ':']).next().unwrap_or_default();
                let words = words.rsplit_once(' ').map_or("", |(words, _)| words);
                let is_listed = guide.lines().any(|line| {
                    let listed = keys(line);
                    line.starts_with(&format!("| `{target}` |"))
                        && line.contains(words)
                        && keys(text).iter().all(|key| listed.contains(key))
                });
                assert!(is_listed, "{target}: {words:?} or a key of {text:?} is not in the guide");
            }
        }
    }
    assert!(count > 15, "only {count} lines were found in the source");
}

/// The keys in a text: the words before equals signs.
fn keys(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let (before, _) = text.rsplit_once('=').unwrap_or_default();
    let keys = before.split('=').map(|part| part.rsplit(|c| !is_part(c)).next().unwrap_or(part));
    keys.filter(|key| !key.is_empty()).collect()
}

#[test]
fn the_guide_says_what_each_key_is() {
    let guide = include_str!("../src/guide/logging.md");
    let of_lines: BTreeSet<_> =
        guide.lines().filter(|line| line.starts_with("| `rwf::")).flat_map(keys).collect();
    let (_, values) = guide.split_once("| key | value |").unwrap();
    let names = values.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let named: BTreeSet<_> =
        names.flat_map(|(names, _)| names.split('`').filter(|name| is_key(name))).collect();
    assert_eq!(of_lines, named, "left: the keys of the lines; right: those that are explained");
}

fn is_key(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}
