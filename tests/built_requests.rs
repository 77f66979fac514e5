//! Requests that a program builds itself: controllers do with them what they do on a server, as far as that goes
//! without a connection.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{Echo, Raw, answer, get, header, serve, status};
use rwf::http::RequestBuilder;
use rwf::prelude::*;

/// The headers of a request that opens a WebSocket.
const HANDSHAKE: &[(&str, &str)] = &[
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

fn with_headers(request: RequestBuilder, headers: &[(&str, &str)]) -> Request {
    let add = |request: RequestBuilder, (name, value): &(&str, &str)| request.header(name, value);
    headers.iter().fold(request, add).build()
}

#[test]
fn a_controller_answers_what_is_built_as_what_is_sent() {
    let controller = || {
        answer(|request| {
            let pairs: Vec<_> = request.queries().collect();
            let text = format!("{} {} {pairs:?}", request.method(), request.path());
            Ok(match request.param("room")? {
                "gone" => Err(Error::new("it is gone").with_status(410))?,
                room => Response::new().text(format!("{text} {room}")),
            })
        })
    };
    let server = serve(vec![route!("/rooms/:room" => controller())]);
    for (target, room, expected) in
        [("/rooms/a%20b?x=1&y=+", "a b", 200), ("/rooms/gone", "gone", 410)]
    {
        let (head, body) = Raw::connect(server.local_addr()).ask(&get(target));
        let request = Request::get(target).param("room", room).build();
        let built = match rwf::block_on(controller().handle(&request)) {
            Ok(response) => {
                assert_eq!(String::from_utf8_lossy(response.body_bytes()), body, "{target}");
                response.status_code()
            }
            Err(error) => error.status(),
        };
        assert_eq!((status(&head), built.code()), (expected, expected), "{target}: {body}");
    }
}

#[test]
fn a_handshake_that_is_built_is_refused_as_one_that_is_sent() {
    let server = serve(vec![route!("/websocket" => Echo)]);
    // What replaces which header of a good handshake, and the status of the answer.
    let cases: &[(&str, &str, u16)] = &[
        ("Upgrade", "h2c", 426),
        ("Connection", "keep-alive", 400),
        ("Sec-WebSocket-Version", "8", 426),
        ("Sec-WebSocket-Key", "short", 400),
        ("Origin", "http://evil.example", 403),
    ];
    for (name, value, expected) in cases {
        let others = HANDSHAKE.iter().filter(|(key, _)| key != name).copied();
        let headers: Vec<_> = others.chain([(*name, *value)]).collect();
        let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines = lines.collect::<String>();
        let sent = format!("GET /websocket HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        let (head, body) = Raw::connect(server.local_addr()).ask(&sent);

        let request = with_headers(Request::get("/websocket"), &headers);
        let built = rwf::block_on(Controller::handle(&Echo, &request)).unwrap();
        assert_eq!((status(&head), built.status_code().code()), (*expected, *expected), "{name}");
        assert_eq!(String::from_utf8_lossy(built.body_bytes()), body, "{name}");
        let version = "Sec-WebSocket-Version";
        assert_eq!(built.header_value(version), header(&head, version), "{name}");
    }
    let post = with_headers(Request::post("/websocket"), HANDSHAKE);
    let refused = rwf::block_on(Controller::handle(&Echo, &post)).unwrap();
    assert_eq!(refused.status_code(), 405);
}

#[test]
fn a_sound_handshake_that_is_built_is_an_error_that_names_what_is_missing() {
    let request = with_headers(Request::get("/websocket"), HANDSHAKE);
    for attempt in ["at first", "once more", "in another session"] {
        let request = match attempt {
            "in another session" => request.with_session(42),
            _ => request.clone(),
        };
        let error = rwf::block_on(Controller::handle(&Echo, &request)).unwrap_err().to_string();
        assert!(error.contains("built without a connection"), "{attempt}: {error}");
        assert!(error.contains("`Server::spawn`"), "it says what to do: {error}");
    }
    assert!(!Comms::websocket(42).is_connected(), "nobody was registered");
    assert_eq!(Comms::connection(request.connection_id()).send("hey there"), Ok(0));
}
