//! The test kit: that it does what its methods say, that its failures tell the story, and that its misbehaving clients
//! misbehave. The same holds over TLS: `tests/over_tls_testing.rs`.

mod common;

use std::cell::Cell;
use std::net::TcpStream;
use std::panic::{self, AssertUnwindSafe, Location, catch_unwind};
use std::sync::Once;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::tls::{HOST, IDENTITY, Identity};
use common::wire::is_over_tls;
use common::{DEADLINE, Echo, Folder, wait_until};
use parking_lot::Mutex;
use rwf::controller::Websocket;
use rwf::http::{Cookie, Method, Route, Server};
use rwf::prelude::*;
use rwf::testing::{self, TestClient, TestServer, Visitor};

/// A chat with rooms, whose members have names. It does what some messages ask for.
fn rooms(request: &Request) -> Result<Response, Error> {
    let room = request.param("room")?;
    let Some(name) = request.header("X-Name") else {
        return Ok(Response::unauthorized().header("X-Why", "no name").text("who is it?\n"));
    };
    request.upgrade(|mut socket| {
        let comms = socket.comms();
        comms.connection(socket.connection_id()).subscribe(room)?;
        while let Some(message) = socket.recv()? {
            match message.as_text() {
                None => socket.send(message)?,
                Some("kick me") => {
                    return Err(Error::new("kicked").with_close(4001, "as you \"like\""));
                }
                Some(text) => {
                    if text == "wait" {
                        thread::sleep(Duration::from_millis(20));
                    }
                    comms.topic(room).send(format!("{name}: {text}"))?;
                }
            }
        }
        Ok(())
    })
}

fn serve(routes: Vec<Route>) -> TestServer {
    if is_over_tls() {
        return start(Server::new(routes).shutdown_timeout(Duration::from_secs(1)));
    }
    testing::serve(routes)
}

fn start(server: Server) -> TestServer {
    testing::start(if is_over_tls() { server.tls(IDENTITY.tls()) } else { server })
}

fn chat() -> TestServer {
    serve(vec![route!("/rooms/:room" => rooms)])
}

fn somebody(server: &TestServer, room: &str) -> TestClient {
    let visitor = server.visitor().header("X-Name", "anna").timeout(Duration::from_secs(5));
    visitor.connect(&format!("/rooms/{room}"))
}

thread_local! {
    /// Whether this thread's panics are looked at, and the line of the last one in this file.
    static LINE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// The message that `action` panics with. The panic has to be shown where the test calls the kit, not inside of that.
#[track_caller]
fn failure<T>(action: impl FnOnce() -> T) -> String {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| match (LINE.get(), info.location()) {
            (Some(_), Some(at)) if at.file() == file!() => LINE.set(Some(at.line())),
            (Some(_), _) => LINE.set(Some(0)),
            (None, _) => usual(info),
        }));
    });
    LINE.set(Some(0));
    let outcome = catch_unwind(AssertUnwindSafe(action));
    let line = LINE.take();
    let panic = outcome.err().expect("nothing failed");
    let here = Location::caller().line();
    assert!(line >= Some(here), "the failure is shown at another place than the call: {panic:?}");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or_default().to_owned(),
    }
}

/// Tells with which messages its clients came and how they ended, and sends what it is told to.
struct Witness(Mutex<Sender<String>>);

impl Witness {
    fn tell(&self, text: String) {
        let _ = self.0.lock().send(text);
    }
}

#[async_trait]
impl WebsocketController for Witness {
    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        self.tell(format!("{message:?}"));
        Ok(())
    }

    async fn handle_close(&self, _: &SessionId, code: CloseCode, why: &str) -> Result<(), Error> {
        self.tell(format!("{code} {why}"));
        Ok(())
    }
}

#[async_trait]
impl Controller for Witness {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(self, request).await
    }
}

fn witnessed(settings: Websocket) -> (TestServer, Receiver<String>) {
    let (sender, told) = channel();
    let routes = vec![route!("/" => Witness(Mutex::new(sender)))];
    (start(Server::new(routes).websocket(settings)), told)
}

#[track_caller]
fn next(told: &Receiver<String>) -> String {
    told.recv_timeout(DEADLINE).expect("the server noticed nothing")
}

#[test]
fn clients_send_and_receive_and_close() {
    let server = chat();
    let (mut anna, mut other) = (somebody(&server, "clients"), somebody(&server, "elsewhere"));
    let mut ben = server.visitor().header("X-Name", "ben").connect("/rooms/clients");
    ben.send("hello");
    assert_eq!(anna.recv_text(), "ben: hello");
    assert_eq!(ben.recv(), Message::from("ben: hello"));
    anna.send(vec![1, 2, 3]);
    assert_eq!(anna.recv_binary(), [1, 2, 3]);
    other.expect_nothing();
    anna.close(1000, "bye");
    ben.send("kick me");
    assert_eq!(ben.expect_close(4001), "as you \"like\"");
}

#[test]
fn long_messages_come_back_whole() {
    let server = serve(vec![route!("/" => Echo)]);
    let mut client = server.connect("/");
    for length in [0, 125, 126, 65_535, 65_536, 1 << 20] {
        let (text, bytes) = ("x".repeat(length), vec![7; length]);
        client.send(&text);
        client.send(&*bytes);
        assert!(client.recv_text() == text, "{length} bytes of text came back changed");
        assert!(client.recv_binary() == bytes, "{length} bytes came back changed");
    }
}

#[test]
fn a_client_is_an_iterator_up_to_the_servers_close() {
    let server = chat();
    let mut anna = somebody(&server, "iterator");
    for text in ["one", "two", "kick me"] {
        anna.send(text);
    }
    let received: Vec<_> = anna.by_ref().collect();
    assert_eq!(received, ["anna: one", "anna: two"]);
    assert_eq!(anna.next(), None, "the end stays the end");
    assert_eq!(anna.expect_close(4001), "as you \"like\"", "and can still be looked at");
}

#[test]
fn the_tabs_of_a_visitor_are_one_session_and_nobody_elses() {
    let server = serve(vec![route!("/" => Echo)]);
    let (anna, ben) = (server.visitor(), server.visitor());
    let (mut phone, mut laptop, mut other) =
        (anna.connect("/"), anna.connect("/"), ben.connect("/"));
    assert_ne!(anna.session_id(), ben.session_id());
    assert_eq!(Comms::websocket(anna.session_id()).send("anna"), Ok(2));
    assert_eq!((phone.recv_text(), laptop.recv_text()), ("anna".into(), "anna".into()));
    other.expect_nothing();
    let clone = anna.clone().header("X-Name", "still anna");
    assert_eq!(clone.session_id(), anna.session_id());
}

#[test]
fn a_visitor_is_known_by_whatever_name_the_servers_cookie_has() {
    fn whoami(request: &Request) -> Result<Response, Error> {
        Ok(Response::new().text(request.session_id().to_string()))
    }
    let server = start(Server::new(vec![route!("/" => whoami)]).session_cookie("mine"));
    let anna = server.visitor();
    assert_eq!(anna.get("/").text(), anna.session_id().to_string());

    let server = start(Server::new(vec![route!("/" => whoami)]).no_session_cookie());
    let anna = server.visitor();
    assert_ne!(anna.get("/").text(), anna.get("/").text());
    assert!(failure(|| anna.session_id()).contains("no session cookie"));
}

#[test]
fn a_visitor_sends_its_headers_and_the_cookies_that_it_was_given() {
    fn log_in(_: &Request) -> Result<Response, Error> {
        Ok(Response::new().cookie(Cookie::new("token", "t")).cookie(Cookie::new("theme", "dark")))
    }
    fn log_out(_: &Request) -> Result<Response, Error> {
        Ok(Response::new().cookie(Cookie::new("token", "").max_age(Duration::ZERO)))
    }
    fn show(request: &Request) -> Result<Response, Error> {
        let cookies = [request.cookie("token"), request.cookie("theme")];
        let headers = [request.header("X-Name"), request.header("Host")];
        Ok(Response::new().text(format!("{cookies:?} {headers:?}")))
    }
    let routes = vec![route!("/in" => log_in), route!("/out" => log_out), route!("/show" => show)];
    let server = serve(routes);
    let anna = server.visitor().header("X-Name", "anna").header("Host", "localhost");
    let anna = anna.cookie("theme", "light");
    let shown = |token: Option<&str>, theme| {
        format!("{:?} {:?}", [token, Some(theme)], [Some("anna"), Some("localhost")])
    };
    assert_eq!(anna.get("/show").text(), shown(None, "light"));
    let _ = anna.get("/in");
    assert_eq!(anna.clone().get("/show").text(), shown(Some("t"), "dark"));
    let _ = anna.get("/out");
    assert_eq!(anna.get("/show").text(), shown(None, "dark"));
    let told = failure(|| anna.clone().header("X", "a\r\nb"));
    assert_eq!(told, r#"no header can be "X": "a\r\nb""#);
}

#[test]
fn requests_of_any_method_are_answered_with_head_and_body() {
    fn describe(request: &Request) -> Result<Response, Error> {
        let (method, length) = (request.method().to_string(), request.body().len());
        let query = request.query("q").unwrap_or_default();
        let response = Response::new().status(201).header("X-Method", method);
        Ok(response.text(format!("{length} bytes for {query}")))
    }
    let server = serve(vec![route!("/*path" => describe)]);
    let response = server.post("/a?q=b", vec![7; 500_000]);
    assert_eq!((response.status().code(), response.text()), (201, "500000 bytes for b"));
    assert_eq!(response.headers().filter(|(name, _)| *name == "X-Method").count(), 1);
    assert_eq!(format!("{response}"), "201 Created: 500000 bytes for b");
    let response = server.request(Method::Head, "/a", "");
    assert_eq!((response.header("x-method"), response.body()), (Some("HEAD"), &[][..]));
    assert_eq!(server.request(Method::Delete, "/a", "").header("X-Method"), Some("DELETE"));
    let too_long = server.post("/a", vec![7; 3 << 20]);
    assert_eq!(too_long.status(), 413, "refused before it was all sent");
}

#[test]
fn a_subprotocol_is_agreed_on() {
    let (server, _) = witnessed(Websocket::new().subprotocols(["v2", "v1"]));
    let client = server.visitor().subprotocol("v0").subprotocol("v1").connect("/");
    assert_eq!(client.subprotocol(), Some("v1"));
    assert_eq!(client.response().status(), 101);
    assert_eq!(server.connect("/").subprotocol(), None);
}

#[test]
fn a_refusal_is_returned_or_told() {
    let server = chat();
    let refusal = server.try_connect("/rooms/refused").unwrap_err();
    assert_eq!((refusal.status().code(), refusal.text()), (401, "who is it?\n"));
    assert_eq!(refusal.header("X-Why"), Some("no name"));
    let told = failure(|| server.connect("/rooms/refused"));
    let expected =
        "/rooms/refused: expected a WebSocket, and the answer was 401 Unauthorized: who is it?";
    assert_eq!(told, format!(r"{expected}\n"));

    let foreign = server.visitor().header("X-Name", "anna").origin("https://evil.example");
    assert_eq!(foreign.try_connect("/rooms/refused").unwrap_err().status(), 403);
    let old = server.visitor().header("X-Name", "anna").header("Sec-WebSocket-Version", "8");
    assert_eq!(old.try_connect("/rooms/refused").unwrap_err().status(), 426);
    assert!(failure(|| server.connect("rooms")).contains("\"rooms\" has to begin with `/`"));
    server.shutdown().unwrap();
    let told = failure(|| server.get("/"));
    assert!(told.starts_with("GET /: no response from 127.0.0.1:"), "{told}");
}

#[test]
fn a_failed_expectation_tells_what_was_expected_and_what_came() {
    let server = chat();
    let mut hasty = somebody(&server, "hasty").timeout(Duration::from_millis(50));
    assert_eq!(
        failure(|| hasty.recv()),
        "/rooms/hasty: expected a message, and nothing came for 50ms"
    );
    assert_eq!(
        failure(|| hasty.next()),
        "/rooms/hasty: expected a message or a close, and nothing came for 50ms"
    );

    let mut anna = somebody(&server, "a");
    anna.send("hey");
    let told = failure(|| anna.recv_binary());
    assert_eq!(
        told,
        "/rooms/a: expected a binary message, and a message came: Text(\"anna: hey\")"
    );
    anna.send(b"\x01");
    let told = failure(|| anna.recv_text());
    assert_eq!(told, "/rooms/a: expected a text, and a message came: Binary(b\"\\x01\")");
    anna.send("hey");
    let told = failure(|| anna.expect_close(1000));
    assert_eq!(
        told,
        "/rooms/a: expected a close with 1000, and a message came: Text(\"anna: hey\")"
    );
    anna.send("y".repeat(2000));
    let told = failure(|| anna.expect_nothing());
    assert!(
        told.starts_with("/rooms/a: expected nothing, and a message came: Text(\"anna: yyy"),
        "{told}"
    );
    assert!(told.len() < 1200 && told.ends_with("…(2014)"), "a long message is cut: {told}");
    assert_eq!(failure(|| anna.send_close(1005, "")).split(": ").nth(1), Some("cannot close"));

    anna.send("kick me");
    let kicked = "the server closed with 4001 \"as you \\\"like\\\"\"";
    let told = failure(|| anna.expect_close(1000));
    assert_eq!(told, format!("/rooms/a: expected a close with 1000, and {kicked}"));
    assert_eq!(failure(|| anna.recv()), format!("/rooms/a: expected a message, and {kicked}"));
    assert_eq!(failure(|| anna.ping()), format!("/rooms/a: expected a pong, and {kicked}"));
    assert_eq!(failure(|| anna.send("a")), format!("/rooms/a: cannot send Text(\"a\"): {kicked}"));
    assert_eq!(failure(|| anna.close(1000, "")), format!("/rooms/a: cannot close: {kicked}"));
}

#[test]
fn a_close_that_nobody_has_seen_yet_explains_why_nothing_can_be_sent() {
    let settings = Websocket::new().close_timeout(Duration::from_millis(50));
    let server = start(Server::new(vec![route!("/rooms/:room" => rooms)]).websocket(settings));
    let mut anna = somebody(&server, "unseen");
    anna.send("kick me");
    // What is sent to a server that has ended meets a reset sooner or later.
    let sending = || {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            anna.send("are you there?");
        }
    };
    let told = catch_unwind(AssertUnwindSafe(sending)).expect_err("all was sent");
    let told = told.downcast_ref::<String>().expect("a text");
    assert!(told.starts_with("/rooms/unseen: cannot send"), "{told}");
}

#[test]
fn a_lost_connection_is_told_from_a_close() {
    let settings = Websocket::new()
        .ping_interval(Duration::from_millis(20))
        .ping_timeout(Duration::from_millis(20))
        .close_timeout(Duration::from_millis(20));
    let (server, told) = witnessed(settings);
    let mut silent = server.connect("/");
    assert!(next(&told).starts_with("1006 "));
    let message = failure(|| silent.recv());
    assert!(
        message.starts_with("/: expected a message, and the connection was lost: "),
        "{message}"
    );
}

#[test]
fn a_client_answers_pings_while_it_waits() {
    let settings = Websocket::new()
        .ping_interval(Duration::from_millis(20))
        .ping_timeout(Duration::from_millis(500));
    let (server, _told) = witnessed(settings);
    let mut client = server.connect("/").timeout(Duration::from_millis(1500));
    assert_eq!(failure(|| client.recv()), "/: expected a message, and nothing came for 1.5s");
    client.close(1000, "still here");
}

#[test]
fn a_wait_ends_with_its_timeout_and_not_before() {
    let server = chat();
    let timeout = Duration::from_millis(200);
    let mut anna = somebody(&server, "timeout").timeout(timeout);
    for wait in [|anna: &mut TestClient| drop(anna.recv()), TestClient::expect_end] {
        let began = Instant::now();
        assert!(
            catch_unwind(AssertUnwindSafe(|| wait(&mut anna))).is_err(),
            "nobody sent anything"
        );
        let took = began.elapsed();
        assert!((timeout..timeout + DEADLINE).contains(&took), "it took {took:?}");
    }
    assert!(failure(|| server.visitor().timeout(Duration::ZERO)).contains("more than zero"));
    assert!(failure(|| anna.timeout(Duration::ZERO)).contains("more than zero"));
    let mut patient =
        server.visitor().header("X-Name", "anna").timeout(Duration::MAX).connect("/rooms/timeout");
    patient.send("never is fine too");
    patient.recv();
}

/// A server whose function receives when the sender is dropped, and not before.
fn busy() -> (TestServer, Sender<()>) {
    let (sender, end) = channel::<()>();
    let end = Mutex::new(end);
    let busy = move |mut socket: Socket| {
        let _ = end.lock().recv_timeout(DEADLINE);
        socket.iter().for_each(drop);
        Ok(())
    };
    (serve(vec![route!("/busy" => websocket(busy))]), sender)
}

#[test]
fn a_client_that_gets_rid_of_nothing_fails_in_time() {
    let (server, busy) = busy();
    let client = server.visitor().connect_at_once("/busy");
    let mut client = client.timeout(Duration::from_millis(200));
    let flood = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..1000 {
            client.send(vec![7; 1 << 20]);
        }
    }));
    drop(busy);
    let panic = flood.expect_err("a gigabyte was sent to nobody");
    let told = panic.downcast_ref::<String>().expect("a text");
    assert!(told.contains("the server took nothing for 200ms"), "{told}");
}

#[test]
fn a_close_waits_no_longer_for_an_endpoint_that_only_sends() {
    let ticker = |socket: Socket| {
        loop {
            socket.send("tick")?;
            thread::sleep(Duration::from_millis(10));
        }
    };
    let server = serve(vec![route!("/ticker" => websocket(ticker))]);
    let client = server.visitor().connect_at_once("/ticker").timeout(Duration::from_millis(300));
    let closing = thread::spawn(move || failure(|| client.close(1000, "")));
    let expected = "/ticker: expected the answer to a close with 1000, and only messages came for 300ms; \
                    does the endpoint receive?";
    assert_eq!(common::join("the close", closing), expected);
}

#[test]
fn a_client_is_there_when_its_endpoint_receives() {
    let (server, busy) = busy();
    let visitor = server.visitor().timeout(Duration::from_secs(1));
    let told = failure(|| visitor.connect("/busy"));
    assert!(told.contains("the endpoint has received nothing for 1s"), "{told}");
    drop(busy);

    let server = chat();
    for number in 0..100 {
        let room = format!("join{number}");
        let (mut anna, mut ben) = (somebody(&server, &room), somebody(&server, &room));
        // Ben is in the room by now.
        anna.send("hello");
        assert_eq!(ben.recv_text(), "anna: hello");
    }
}

#[test]
fn a_client_that_is_sent_away_at_once_is_there_and_told() {
    let server = start(Server::new(vec![route!("/" => Echo)]).max_connections_per_session(1));
    let visitor = server.visitor();
    let _first = visitor.connect("/");
    visitor.connect("/").expect_close(1013);
}

#[test]
fn the_server_ends_with_the_test_even_if_that_panics() {
    let mut address = None;
    let told = failure(|| {
        let server = chat();
        address = Some(server.local_addr());
        let mut anna = somebody(&server, "panic");
        anna.send("hey");
        anna.expect_close(1000)
    });
    assert!(told.contains("expected a close with 1000"), "{told}");
    let refused = TcpStream::connect(address.expect("it was started"));
    assert!(refused.is_err(), "the server still listens");
}

#[test]
fn a_server_that_ends_waits_no_longer_than_a_second_for_forgotten_clients() {
    let server = chat();
    let _forgotten = somebody(&server, "forgotten");
    let began = Instant::now();
    drop(server);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "it took {took:?}");
}

#[test]
fn a_server_can_be_one_that_the_program_started() {
    let handle =
        Server::new(vec![route!("/rooms/:room" => rooms)]).bind("127.0.0.1:0").spawn().unwrap();
    let server = TestServer::from(handle);
    somebody(&server, "program").close(1000, "");
}

#[test]
fn clients_can_be_closed_by_a_shutdown_in_good_order() {
    let server = chat();
    let (mut anna, mut ben) = (somebody(&server, "shutdown"), somebody(&server, "shutdown"));
    let report = thread::scope(|scope| {
        let closing = scope.spawn(move || {
            anna.expect_close(1001);
            ben.expect_close(1001);
        });
        let report = server.shutdown().unwrap();
        closing.join().unwrap();
        report
    });
    assert_eq!((report.closed, report.cut), (2, 0));
}

#[test]
fn a_ping_waits_for_the_handler_and_what_it_sent() {
    let server = chat();
    let (mut anna, mut ben) = (somebody(&server, "ping"), somebody(&server, "ping"));
    for number in 0..100 {
        for _ in 0..3 {
            anna.send(format!("{number}"));
        }
        if number % 20 == 0 {
            anna.send("wait");
            assert!(failure(|| anna.expect_nothing()).contains(&format!("anna: {number}")));
        } else {
            anna.ping();
        }
        let told = failure(|| ben.expect_nothing());
        assert!(told.contains(&format!("\"anna: {number}\"")), "{told}");
        // The rest of them.
        let left =
            |client: &mut TestClient, count| (0..count).for_each(|_| drop(client.recv_text()));
        left(&mut anna, 3);
        left(&mut ben, if number % 20 == 0 { 3 } else { 2 });
        ben.expect_nothing();
    }
}

#[test]
fn a_client_that_never_reads_is_found() {
    let (server, told) = witnessed(Websocket::new().outbox_bytes(64 << 10));
    let visitor = server.visitor();
    let deaf = visitor.connect("/").never_read();
    let mut sent = 0;
    while let Ok(1) = Comms::websocket(visitor.session_id()).send(vec![7; 4 << 10]) {
        sent += 4 << 10;
        assert!(sent < 64 << 20, "64 MiB found room in a client that reads nothing");
    }
    assert_eq!(next(&told), "1013 slow receiver");
    assert_eq!(deaf.received_bytes(), 0);
}

#[test]
fn a_client_reads_as_slowly_as_it_is_told() {
    let (server, told) = witnessed(Websocket::new().outbox_bytes(32 << 20));
    let visitor = server.visitor();
    let began = Instant::now();
    let slow = visitor.connect("/").read_slowly(20_000);
    assert_eq!(Comms::websocket(visitor.session_id()).send(vec![7; 16 << 20]), Ok(1));
    wait_until("the slow client has read 8,000 bytes", || slow.received_bytes() >= 8_000);
    let (bytes, took) = (slow.received_bytes(), began.elapsed());
    let most = 1_000.0 + 20_000.0 * took.as_secs_f64();
    assert!(bytes as f64 <= most, "{bytes} bytes in {took:?}");
    assert!(Comms::websocket(visitor.session_id()).is_connected(), "a slow client is no lost one");
    drop(slow);
    assert!(next(&told).starts_with("1006 "), "it ends when it is dropped");
    assert!(failure(|| visitor.connect("/").read_slowly(0)).contains("`never_read`"));
}

#[test]
fn an_unfinished_message_reaches_no_handler() {
    let settings = Websocket::new()
        .ping_interval(Duration::from_millis(50))
        .ping_timeout(Duration::from_millis(50))
        .close_timeout(Duration::from_millis(50));
    let (server, told) = witnessed(settings);
    let mut client = server.connect("/");
    client.send("whole");
    client.send_unfinished("cut");
    assert_eq!(next(&told), "Text(\"whole\")");
    let end = next(&told);
    assert!(end.starts_with("1006 "), "the client stopped in a frame and said nothing more: {end}");
    client.expect_end();
}

#[test]
fn bytes_of_any_kind_are_sent_as_they_are() {
    let (server, told) = witnessed(Websocket::new());
    let mut client = server.connect("/");
    client.send_bytes(&[0x81, 0x80, 0, 0, 0, 0]);
    assert_eq!(next(&told), "Text(\"\")");
    let unmasked = [0x81, 0x01, b'x'];
    client.send_bytes(&unmasked);
    client.expect_close(1002);
    client.expect_end();
}

#[test]
fn a_reset_a_dropped_client_and_a_close_are_told_apart() {
    let (server, told) = witnessed(Websocket::new());
    server.connect("/").reset();
    let reset = next(&told);
    drop(server.connect("/"));
    let dropped = next(&told);
    server.connect("/").close(4000, "bye");
    assert_eq!(next(&told), "4000 bye");
    assert!(reset.starts_with("1006 ") && dropped.starts_with("1006 "), "{reset}; {dropped}");
    if cfg!(unix) {
        assert!(reset.contains("reset") && !dropped.contains("reset"), "{reset}; {dropped}");
    }
}

#[test]
fn a_client_can_stay_after_the_close() {
    let (sender, told) = channel();
    let routes = vec![route!("/" => Witness(Mutex::new(sender)))];
    let settings = Websocket::new().close_timeout(Duration::MAX);
    let server =
        Server::new(routes).websocket(settings).shutdown_timeout(Duration::from_millis(100));
    let server = start(server);
    let mut staying = server.connect("/");
    staying.send_close(1000, "but I stay");
    assert_eq!(staying.expect_close(1000), "but I stay");
    assert_eq!(next(&told), "1000 but I stay", "for the program it is over");
    let report = server.shutdown().unwrap();
    assert_eq!((report.closed, report.cut), (0, 1), "its TCP connection was still open");
    staying.expect_end();
}

/// Tells what the server knows of a request's way.
fn way(request: &Request) -> Result<Response, Error> {
    let shown = request.client_certificate().is_some();
    Ok(Response::new().text(format!("secure={} shown={shown}", request.is_secure())))
}

fn with_tls(tls: rwf::http::Tls) -> TestServer {
    let routes = vec![route!("/" => way), route!("/echo" => Echo)];
    testing::start(Server::new(routes).allow_host("chat.example").tls(tls))
}

#[test]
fn clients_speak_tls_with_a_server_that_does() {
    let server = with_tls(IDENTITY.tls());
    assert_eq!(server.get("/").text(), "secure=true shown=false");
    let mut client = server.connect("/echo");
    let long = "long ".repeat(100_000);
    client.send(long.as_str());
    assert!(client.recv_text() == long, "a long message over TLS comes back another");
    client.ping();
    client.expect_nothing();
    client.close(1000, "bye");
}

#[test]
fn a_visitor_with_a_configuration_is_as_strict_as_that_and_asks_for_its_host() {
    let chat = Identity::new(&["chat.example"]);
    let folder = Folder::new();
    let files =
        (folder.write("chat.pem", &chat.certificate_pem), folder.write("key.pem", &chat.key_pem));
    let server = with_tls(IDENTITY.tls().name("chat.example", files.0, files.1).unwrap());
    let somebody = |config: rustls::ClientConfig, host| -> Visitor {
        server.visitor().tls(config).header("Host", host)
    };
    assert_eq!(somebody(chat.client(), "chat.example:8443").get("/").status(), 200);
    somebody(IDENTITY.client(), HOST).connect("/echo").close(1000, "");
    for (config, host) in [(chat.client(), HOST), (IDENTITY.client(), "chat.example")] {
        let text = failure(|| somebody(config, host).get("/"));
        assert!(text.contains("no response") && text.contains("certificate"), "{host}: {text}");
    }
    let text = failure(|| somebody(IDENTITY.client(), "no host").get("/"));
    assert!(text.contains("no host can be \"no host\""), "{text}");
}

#[test]
fn a_configuration_for_a_server_without_tls_is_refused() {
    let server = testing::serve(vec![route!("/" => way)]);
    let text = failure(|| server.visitor().tls(IDENTITY.client()));
    assert!(text.contains("speaks no TLS") && text.contains("Server::tls"), "{text}");
    assert_eq!(server.get("/").text(), "secure=false shown=false");
}
