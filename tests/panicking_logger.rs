//! A program's logger that panics at every line, and errors whose texts panic: the server goes on.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use common::{DEADLINE, Echo, Guest, Raw, answer, get, header, serve, start, status, wait_until};
use parking_lot::Mutex;
use rwf::controller::Websocket;
use rwf::http::Server;
use rwf::prelude::*;

/// How many lines it was asked to write.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Panics, as one does that prints to a pipe whose reader has left.
struct Panicking;

impl log::Log for Panicking {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        ASKED.fetch_add(1, Ordering::SeqCst);
        panic!("no line of the log can be written: {}", record.args());
    }

    fn flush(&self) {}
}

fn set_logger() {
    if log::set_logger(&Panicking).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

/// An error with a text that cannot be had.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("the text of this error panics");
    }
}

impl std::error::Error for Unspeakable {}

/// Fails at each message, and tells what it is closed with.
struct Failing(Mutex<Sender<CloseCode>>);

#[async_trait]
impl Controller for Failing {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(self, request).await
    }
}

#[async_trait]
impl WebsocketController for Failing {
    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        match message.as_text() {
            Some("unspeakable") => Err(Unspeakable.into()),
            _ => Err(Error::new("as the message says")),
        }
    }

    async fn handle_close(&self, _: &SessionId, code: CloseCode, _: &str) -> Result<(), Error> {
        self.0.lock().send(code)?;
        Ok(())
    }
}

#[test]
fn an_error_that_cannot_be_told_closes_its_own_websocket_and_handle_close_is_called() {
    set_logger();
    let (closed, closes) = channel();
    let server = serve(vec![
        route!("/fail" => Failing(Mutex::new(closed))),
        route!("/unspeakable" => answer(|_| Err(Unspeakable.into()))),
        route!("/echo" => Echo),
    ]);
    let mut other = Raw::open(server.local_addr(), "/echo");
    for message in ["unspeakable", "plain"] {
        let mut client = Raw::open(server.local_addr(), "/fail");
        client.send_text(message);
        assert_eq!(client.close_frame().0, 1011, "{message}");
        client.send_close(1011, "");
        client.expect_end();
        drop(client);
        let code = closes.recv_timeout(DEADLINE);
        assert_eq!(code, Ok(CloseCode::INTERNAL_ERROR), "what handle_close gets for {message}");
    }
    let mut client = Raw::connect(server.local_addr());
    assert_eq!(status(&client.ask(&get("/unspeakable")).0), 500);
    assert_eq!(status(&client.ask(&get("/nowhere")).0), 404, "the connection goes on");
    other.send_text("still there?");
    assert_eq!(other.text_frame(), "still there?");
    assert!(ASKED.load(Ordering::SeqCst) > 0, "the logger was not asked");
}

#[test]
fn a_logger_that_panics_stops_neither_accepting_nor_the_watchdog_nor_the_shutdown() {
    set_logger();
    let server = start(
        Server::new(vec![
            route!("/slow" => answer(|_| {
                std::thread::sleep(Duration::from_millis(300));
                Ok(Response::new())
            })),
            route!("/echo" => Echo),
        ])
        .max_connections(1)
        .handler_warning(Duration::from_millis(40))
        .websocket(Websocket::new().close_timeout(Duration::from_millis(200))),
    );
    let address = server.local_addr();
    let session = Guest::new();
    let cookie = session.cookie();
    let mut client = Raw::connect(address);
    // The watchdog warns of it, and is needed after that.
    assert_eq!(status(&client.ask(&get("/slow")).0), 200);
    for _ in 0..3 {
        let (head, _) = Raw::connect(address).response();
        assert_eq!(status(&head), 503, "the server is full");
        assert_eq!(header(&head, "retry-after"), Some("5"));
    }
    client.send(b"nonsense\r\n\r\n");
    assert_eq!(status(&client.response().0), 400);
    drop(client);
    let mut client = None;
    wait_until("there is room for another connection", || {
        let mut next = Raw::connect(address);
        next.send(common::upgrade_request("/echo", &cookie).as_bytes());
        let is_open = matches!(next.try_head(), Ok(Some(head)) if status(&head) == 101);
        client = is_open.then_some(next);
        is_open
    });
    let mut client = client.unwrap();
    client.send_text("hey there");
    assert_eq!(client.text_frame(), "hey there");
    // It does not answer the close, so that the watchdog has to cut it.
    assert_eq!(Comms::websocket(session).close(4000, "enough"), Ok(1));
    assert_eq!(client.close_frame().0, 4000);
    client.expect_end();
    server.shutdown().unwrap();
}
