//! The closing handshake: either side first, both at once, neither, and what handlers hear of it.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use common::{DEADLINE, Guest, Raw, client_frame, serve, start, upgrade_request, wait_until};
use parking_lot::Mutex;
use rwf::controller::Websocket;
use rwf::http::{Route, Server};
use rwf::prelude::*;

/// What handlers were called with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Connection,
    Message(String),
    Close(u16, String),
}

/// Tells what it was called with, and does what the messages ask for.
struct Witness {
    calls: Mutex<Sender<Call>>,
}

impl Witness {
    fn new() -> (Self, Receiver<Call>) {
        let (sender, calls) = channel();
        (Self { calls: Mutex::new(sender) }, calls)
    }

    fn tell(&self, call: Call) {
        let _ = self.calls.lock().send(call);
    }
}

#[async_trait]
impl WebsocketController for Witness {
    async fn handle_connection(&self, _: &SessionId) -> Result<(), Error> {
        self.tell(Call::Connection);
        Ok(())
    }

    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        let text = message.as_text().unwrap_or_default().to_owned();
        self.tell(Call::Message(text.clone()));
        match text.as_str() {
            "panic" => panic!("as the client wished"),
            "fail" => Err(Error::new("as the client wished")),
            "ban" => Err(Error::new("banned").with_close(4003, "banned")),
            "close" => {
                Comms::websocket(client).send("last words")?;
                Comms::websocket(client).close(CloseCode::NORMAL, "asked")?;
                assert_eq!(Comms::websocket(client).send("too late"), Err(SendError::Closing));
                Ok(())
            }
            _ => Comms::websocket(client).send(message).map(drop).map_err(Error::from),
        }
    }

    async fn handle_close(
        &self,
        client: &SessionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), Error> {
        assert!(!Comms::websocket(client).is_connected(), "the connection is gone by now");
        self.tell(Call::Close(code.into(), reason.to_owned()));
        Ok(())
    }
}

#[async_trait]
impl Controller for Witness {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(self, request).await
    }
}

fn witness() -> (Vec<Route>, Receiver<Call>) {
    let (witness, calls) = Witness::new();
    (vec![route!("/" => witness)], calls)
}

/// The call of `handle_close`, which has to be the only one.
#[track_caller]
fn close_call(calls: &Receiver<Call>) -> (u16, String) {
    loop {
        match calls.recv_timeout(DEADLINE).expect("handle_close was not called") {
            Call::Close(code, reason) => {
                let more = calls.recv_timeout(Duration::from_millis(50));
                assert!(more.is_err(), "called after handle_close: {more:?}");
                return (code, reason);
            }
            Call::Connection | Call::Message(_) => {}
        }
    }
}

#[test]
fn the_clients_close_is_echoed_with_code_and_reason() {
    for (code, reason) in [(1000, "bye"), (4321, ""), (3000, "grüß Gott")] {
        let (routes, calls) = witness();
        let server = serve(routes);
        let mut client = Raw::open(server.local_addr(), "/");
        client.send_close(code, reason);
        assert_eq!(client.close_frame(), (code, reason.to_owned()));
        client.expect_end();
        drop(client);
        assert_eq!(close_call(&calls), (code, reason.to_owned()));
    }
}

#[test]
fn a_close_without_a_body_is_echoed_without_one() {
    let (routes, calls) = witness();
    let server = serve(routes);
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_frame(0x88, b"");
    assert_eq!(client.close_frame(), (1005, String::new()));
    client.expect_end();
    drop(client);
    assert_eq!(close_call(&calls), (1005, String::new()));
}

#[test]
fn what_came_before_the_close_is_answered_before_it() {
    let (routes, _calls) = witness();
    let server = serve(routes);
    let mut client = Raw::connect(server.local_addr());
    let mut wire = upgrade_request("/", "").into_bytes();
    for number in 0..100 {
        wire.extend(client_frame(0x81, format!("{number}").as_bytes()));
    }
    wire.extend(client_frame(0x89, b"ping"));
    wire.extend(client_frame(0x88, &1000_u16.to_be_bytes()));
    client.send(&wire);
    client.head();
    let mut texts = Vec::new();
    let mut pongs = 0;
    let close = loop {
        let frame = client.frame();
        match frame.first {
            0x81 => texts.push(String::from_utf8(frame.payload).unwrap()),
            0x8a => pongs += 1,
            _ => break frame,
        }
    };
    assert_eq!(close.first, 0x88);
    assert_eq!(pongs, 1);
    assert_eq!(texts, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    client.expect_end();
}

#[test]
fn the_servers_close_comes_after_what_was_sent_and_nothing_comes_after_it() {
    let (routes, calls) = witness();
    let server = serve(routes);
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_text("close");
    assert_eq!(client.text_frame(), "last words");
    assert_eq!(client.close_frame(), (1000, "asked".to_owned()));
    // Our stream is still open: what comes before our own close is not handed out any more.
    client.send_text("ignored");
    client.send_close(1000, "asked");
    client.expect_end();
    drop(client);
    let seen: Vec<_> = std::iter::from_fn(|| calls.recv_timeout(DEADLINE).ok()).take(3).collect();
    assert_eq!(
        seen,
        [
            Call::Connection,
            Call::Message("close".to_owned()),
            Call::Close(1000, "asked".to_owned()),
        ]
    );
}

#[test]
fn closes_that_cross_are_both_heard() {
    let (routes, calls) = witness();
    let server = serve(routes);
    let mut client = Raw::open(server.local_addr(), "/");
    let wire = [client_frame(0x81, b"close"), client_frame(0x88, &4000_u16.to_be_bytes())];
    client.send(&wire.concat());
    assert_eq!(client.text_frame(), "last words");
    let (code, _) = client.close_frame();
    assert_eq!(code, 1000, "the server's own close was first");
    client.expect_end();
    drop(client);
    assert_eq!(close_call(&calls).0, 1000);
}

#[test]
fn a_client_that_never_answers_the_close_is_cut_at_close_timeout() {
    let (routes, calls) = witness();
    let timeout = Duration::from_millis(150);
    let server = start(Server::new(routes).websocket(Websocket::new().close_timeout(timeout)));
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_text("close");
    assert_eq!(client.text_frame(), "last words");
    let began = Instant::now();
    client.close_frame();
    client.expect_end();
    assert_eq!(close_call(&calls), (1000, "asked".to_owned()));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "the connection took {took:?} to end");
}

#[test]
fn a_client_that_floods_after_the_close_is_cut_at_close_timeout() {
    let (routes, calls) = witness();
    let timeout = Duration::from_millis(150);
    let server = start(Server::new(routes).websocket(Websocket::new().close_timeout(timeout)));
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_text("close");
    client.text_frame();
    client.close_frame();
    client.stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let flood = client_frame(0x82, &[0; 60_000]);
    let deadline = Instant::now() + DEADLINE;
    let ended = loop {
        use std::io::Write;
        assert!(Instant::now() < deadline, "the flood was read for {DEADLINE:?}");
        let _ = client.stream.write(&flood);
        if let Some(Call::Close(code, _)) = calls.try_iter().last() {
            break code;
        }
    };
    assert_eq!(ended, 1000);
}

#[test]
fn a_stream_that_ends_without_a_close_is_abnormal() {
    let (routes, calls) = witness();
    let server = serve(routes);
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_text("hello");
    client.text_frame();
    drop(client);
    let (code, reason) = close_call(&calls);
    assert_eq!(code, 1006);
    assert!(!reason.is_empty(), "the reason says what happened");
}

#[test]
fn a_stream_that_is_cut_in_a_frame_is_abnormal() {
    let (routes, calls) = witness();
    let server = serve(routes);
    let mut client = Raw::open(server.local_addr(), "/");
    client.send(&client_frame(0x82, &[1; 70_000])[..40_000]);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.expect_end();
    assert_eq!(close_call(&calls).0, 1006);
}

#[test]
fn a_handler_that_panics_or_fails_closes_its_own_connection_alone() {
    for (text, expected) in [("panic", (1011, "")), ("fail", (1011, "")), ("ban", (4003, "banned"))]
    {
        let (routes, calls) = witness();
        let server = serve(routes);
        let mut other = Raw::open(server.local_addr(), "/");
        other.send_text("here");
        assert_eq!(other.text_frame(), "here");
        let mut client = Raw::open(server.local_addr(), "/");
        client.send_text("before");
        assert_eq!(client.text_frame(), "before");
        client.send_text(text);
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(client.close_frame(), expected, "{text}");
        client.send_close(expected.0, &expected.1);
        client.expect_end();
        drop(client);
        assert_eq!(close_call(&calls), expected, "{text}");
        other.send_text("still there?");
        assert_eq!(other.text_frame(), "still there?");
    }
}

/// Panics or fails in the hook that the path names.
#[derive(Default)]
struct Hooks;

struct Hook(String, Mutex<Option<Sender<u16>>>);

#[async_trait]
impl Controller for Hooks {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let hook = Hook(request.param("hook")?.to_owned(), Mutex::default());
        WebsocketController::handle(&hook, request).await
    }
}

#[async_trait]
impl WebsocketController for Hook {
    async fn handle_connection(&self, _: &SessionId) -> Result<(), Error> {
        match self.0.as_str() {
            "connection-panics" => panic!("as the path says"),
            "connection-fails" => Err(Error::new("as the path says")),
            _ => Ok(()),
        }
    }

    async fn handle_close(&self, _: &SessionId, code: CloseCode, _: &str) -> Result<(), Error> {
        drop(self.1.lock().take());
        match self.0.as_str() {
            "close-panics" => panic!("as the path says"),
            "close-fails" => Err(Error::new(format!("as the path says, after {code}"))),
            _ => Ok(()),
        }
    }
}

#[test]
fn every_hook_may_panic_or_fail() {
    let server = serve(vec![route!("/:hook" => Hooks)]);
    for hook in ["connection-panics", "connection-fails"] {
        let mut client = Raw::open(server.local_addr(), &format!("/{hook}"));
        assert_eq!(client.close_frame().0, 1011, "{hook}");
        client.send_close(1011, "");
        client.expect_end();
    }
    for hook in ["close-panics", "close-fails"] {
        let mut client = Raw::open(server.local_addr(), &format!("/{hook}"));
        client.send_close(1000, "");
        assert_eq!(client.close_frame().0, 1000, "{hook}");
        client.expect_end();
    }
    let mut client = Raw::open(server.local_addr(), "/none");
    client.send_close(1000, "");
    assert_eq!(client.close_frame().0, 1000, "the server goes on");
}

#[test]
fn violations_are_answered_with_their_code_after_what_was_valid() {
    let cases: &[(&str, Vec<u8>, u16)] = &[
        ("unmasked", b"\x81\x02hi".to_vec(), 1002),
        ("reserved bits", client_frame(0xf1, b"x"), 1002),
        ("unknown opcode", client_frame(0x83, b"x"), 1002),
        ("long ping", client_frame(0x89, &[0; 126]), 1002),
        ("wrong text", client_frame(0x81, b"\xc3\x28"), 1007),
        ("long message", client_frame(0x82, &vec![0; (1 << 20) + 1]), 1009),
        ("length 2^63", b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0".to_vec(), 1002),
        ("bad close code", client_frame(0x88, &1006_u16.to_be_bytes()), 1002),
    ];
    for (what, wire, code) in cases {
        let (routes, calls) = witness();
        let server = serve(routes);
        let mut client = Raw::open(server.local_addr(), "/");
        client.send(&client_frame(0x81, b"valid"));
        client.send(wire);
        assert_eq!(client.text_frame(), "valid", "{what}");
        assert_eq!(client.close_frame().0, *code, "{what}");
        client.expect_end();
        drop(client);
        assert_eq!(close_call(&calls).0, *code, "{what}");
    }
}

#[test]
fn impossible_closes_are_refused_and_close_nothing() {
    let (routes, _calls) = witness();
    let server = serve(routes);
    let session = Guest::new();
    let mut client = Raw::open_with(server.local_addr(), "/", &session.cookie());
    let comms = Comms::websocket(session);
    for (code, reason) in [(1005, ""), (1006, ""), (999, ""), (5000, ""), (1000, &*"a".repeat(124))]
    {
        comms.close(code, reason).unwrap_err();
    }
    assert!(comms.is_connected());
    assert_eq!(comms.close(4999, &"a".repeat(123)), Ok(1));
    assert_eq!(comms.close(4999, ""), Ok(0), "only the first close counts");
    assert_eq!(client.close_frame(), (4999, "a".repeat(123)));
    client.send_close(4999, "");
    client.expect_end();
    wait_until("the session is gone", || !comms.is_connected());
}
