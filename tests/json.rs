//! JSON in messages and bodies, with the feature `json`: what is read and written, and what happens to what cannot be.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::HashMap;

use common::{Raw, header, serve, start, status};
use rwf::http::{JsonError, Server, ServerHandle};
use rwf::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Move {
    player: String,
    to: Vec<i8>,
}

/// What is wrong with the second of these.
const GOOD: &str = r#"{"player":"anna","to":[1,-2]}"#;
const WRONG: &str = r#"{"player":"anna","to":[1,200]}"#;
const WHY: &str =
    "no valid JSON at line 1, column 28, in `to[1]`: invalid value: integer `200`, expected i8";

/// Doubles a move.
fn doubled(message: &Message) -> Result<Message, JsonError> {
    let Move { player, to } = message.json()?;
    Message::json(&Move { player, to: to.into_iter().map(|by| by * 2).collect() })
}

fn function(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(doubled(&message)?)?;
    }
    Ok(())
}

/// Tells the one tab what is wrong.
fn patient(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(doubled(&message).unwrap_or_else(|error| error.to_string().into()))?;
    }
    Ok(())
}

#[derive(Default, macros::WebsocketController)]
struct Moves;

#[async_trait]
impl WebsocketController for Moves {
    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        Comms::here()?.send(doubled(&message)?)?;
        Ok(())
    }
}

fn unwritable(mut socket: Socket) -> Result<(), Error> {
    socket.recv()?;
    socket.send(Message::json(&HashMap::from([((1, 2), 3)]))?)?;
    Ok(())
}

fn games() -> ServerHandle {
    serve(vec![
        route!("/function" => websocket(function)),
        route!("/patient" => websocket(patient)),
        route!("/controller" => Moves),
        route!("/unwritable" => websocket(unwritable)),
    ])
}

#[test]
fn values_are_read_and_written_in_text_and_binary_messages() {
    let server = games();
    for path in ["/function", "/controller"] {
        let mut client = Raw::open(server.local_addr(), path);
        for kind in [0x81, 0x82] {
            client.send_frame(kind, GOOD.as_bytes());
            assert_eq!(client.text_frame(), r#"{"player":"anna","to":[2,-4]}"#, "{path}");
        }
    }
}

#[test]
fn what_cannot_be_read_closes_its_connection_with_1007_and_says_why() {
    let server = games();
    for path in ["/function", "/controller"] {
        let mut bystander = Raw::open(server.local_addr(), path);
        for (kind, payload, why) in [
            (0x81, WRONG, WHY),
            (0x82, WRONG, WHY),
            (0x81, "", "no valid JSON at line 1, column 0: EOF while parsing a value"),
            (0x81, "{}", "no valid JSON at line 1, column 2: missing field `player`"),
            (0x81, "nonsense", "no valid JSON at line 1, column 2: expected ident"),
        ] {
            let mut client = Raw::open(server.local_addr(), path);
            client.send_frame(kind, payload.as_bytes());
            let (code, reason) = client.close_frame();
            assert_eq!((code, reason.as_str()), (1007, why), "{path}: {payload}");
        }
        bystander.send_text(GOOD);
        bystander.text_frame();
    }
}

#[test]
fn a_close_s_reason_holds_what_fits_of_what_is_wrong() {
    let server = games();
    let mut client = Raw::open(server.local_addr(), "/function");
    client.send_text(
        &format!("{{\"player\":\"a\",\"to\":\"{}\u{1b}\"}}", "ä".repeat(300))
            .replace('\u{1b}', "\\u001b"),
    );
    let (code, reason) = client.close_frame();
    assert_eq!(code, 1007);
    assert!(reason.len() <= 123 && reason.contains("in `to`: invalid type: string"), "{reason}");
}

#[test]
fn the_one_tab_can_be_told_instead_and_stays() {
    let server = games();
    let mut client = Raw::open(server.local_addr(), "/patient");
    client.send_text(WRONG);
    assert_eq!(client.text_frame(), WHY);
    client.send_text(GOOD);
    assert_eq!(client.text_frame(), r#"{"player":"anna","to":[2,-4]}"#);
}

#[test]
fn a_value_that_json_cannot_hold_is_the_program_s_fault() {
    let server = games();
    let mut client = Raw::open(server.local_addr(), "/unwritable");
    client.send_text("{}");
    assert_eq!(client.close_frame(), (1011, String::new()));

    let unwritable = |_: &Request| Ok(Response::new().json(&HashMap::from([((1, 2), 3)])));
    let server = serve(vec![route!("/" => unwritable)]);
    let (head, body) = Raw::connect(server.local_addr()).ask(&common::get("/"));
    assert_eq!((status(&head), body.as_str()), (500, "Internal Server Error"));
}

/// Chooses its answers in spite of what is wrong with the JSON.
fn chosen(request: &Request) -> Result<Response, Error> {
    let read = request.json::<Move>().map_err(|error| Error::new(error).with_status(422));
    read.map(|_| Response::new())
}

fn ask_with(server: &ServerHandle, path: &str, content_type: &str, body: &str) -> (String, String) {
    let length = body.len();
    Raw::connect(server.local_addr()).ask(&format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{content_type}Content-Length: {length}\r\n\r\n{body}"
    ))
}

#[test]
fn a_body_is_read_and_what_is_wrong_with_it_is_answered() {
    let mirror =
        |request: &Request| Ok(Response::new().json(&request.json::<Move>().map_err(Error::new)?));
    let routes = vec![route!("/" => mirror), route!("/chosen" => chosen)];
    let server = start(Server::new(routes).max_body_size(100));
    let json = "Content-Type: application/json\r\n";
    let type_wanted = "the Content-Type has to be application/json, and";

    let (head, body) = ask_with(&server, "/", json, GOOD);
    assert_eq!((status(&head), body.as_str()), (200, GOOD));
    assert_eq!(header(&head, "content-type"), Some("application/json"));
    for (content_type, body, code, answer) in [
        (json, WRONG, 400, WHY.to_owned()),
        (json, "", 400, "no valid JSON at line 1, column 0: EOF while parsing a value".to_owned()),
        ("", GOOD, 415, format!("{type_wanted} is missing")),
        ("Content-Type: text/plain\r\n", GOOD, 415, format!("{type_wanted} is \"text/plain\"")),
        (&json.repeat(2), GOOD, 415, format!("{type_wanted} is \"application/json\"")),
        (json, &" ".repeat(101), 413, "Content Too Large".to_owned()),
    ] {
        let (head, answered) = ask_with(&server, "/", content_type, body);
        assert_eq!((status(&head), answered), (code, answer), "{content_type:?} {body:?}");
        assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"));
    }
    let (head, body) = ask_with(&server, "/chosen", json, WRONG);
    assert_eq!((status(&head), body.as_str()), (422, "Unprocessable Content"));
}

#[test]
fn a_text_that_nests_too_deep_is_refused() {
    let any = |mut socket: Socket| {
        socket.recv()?.map(|message| message.json::<serde_json::Value>()).transpose()?;
        Ok(())
    };
    let server = serve(vec![route!("/" => websocket(any))]);
    for opening in ["[", "{\"a\":"] {
        let mut client = Raw::open(server.local_addr(), "/");
        client.send_text(&opening.repeat(100_000));
        let (code, reason) = client.close_frame();
        assert_eq!(code, 1007);
        assert!(reason.contains("at line 1, column"), "{reason}");
    }
}
