//! Messages there and back: kinds, sizes, fragments, control frames in between.

mod common;

use std::time::{Duration, Instant};

use common::{Echo, Raw, client_frame, serve, upgrade_request};
use rwf::prelude::*;

#[test]
fn texts_and_binaries_come_back_at_every_length_form() {
    let server = serve(vec![route!("/" => Echo)]);
    let mut client = Raw::open(server.local_addr(), "/");
    for length in [0, 1, 125, 126, 4096, 4097, 65_535, 65_536, 1 << 20] {
        let payload = "é".repeat(length).into_bytes()[..length & !1].to_vec();
        for first in [0x81, 0x82] {
            client.send_frame(first, &payload);
            let frame = client.frame();
            assert_eq!(frame.first, first, "{length} bytes");
            assert!(frame.payload == payload, "{length} bytes came back changed");
        }
    }
}

#[test]
fn a_ping_between_fragments_is_answered_at_once() {
    let server = serve(vec![route!("/" => Echo)]);
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_frame(0x01, b"one ");
    client.send_frame(0x89, b"are you there?");
    let pong = client.frame();
    assert_eq!((pong.first, pong.payload.as_slice()), (0x8a, &b"are you there?"[..]));
    client.send_frame(0x00, b"");
    client.send_frame(0x80, b"message");
    assert_eq!(client.text_frame(), "one message");
}

#[test]
fn frames_in_the_segment_of_the_request_are_answered() {
    let server = serve(vec![route!("/" => Echo)]);
    let mut client = Raw::connect(server.local_addr());
    let mut bytes = upgrade_request("/", "").into_bytes();
    bytes.extend(client_frame(0x81, b"early"));
    bytes.extend(client_frame(0x81, b"bird"));
    client.send(&bytes);
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.text_frame(), "early");
    assert_eq!(client.text_frame(), "bird");
}

#[test]
fn a_request_and_frames_in_single_bytes_are_understood() {
    let server = serve(vec![route!("/" => Echo)]);
    let mut client = Raw::connect(server.local_addr());
    for byte in
        [upgrade_request("/", "").into_bytes(), client_frame(0x81, "häh".as_bytes())].concat()
    {
        client.send(&[byte]);
    }
    client.head();
    assert_eq!(client.text_frame(), "häh");
}

/// Answers at once and then goes on for a while.
#[derive(Default, macros::WebsocketController)]
struct Lingering;

#[async_trait]
impl WebsocketController for Lingering {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(message)?;
        std::thread::park_timeout(PAUSE);
        Ok(())
    }
}

const PAUSE: Duration = Duration::from_secs(1);

#[test]
fn an_answer_does_not_wait_for_its_handler_though_more_input_is_there() {
    let server = serve(vec![route!("/" => Lingering)]);
    let mut client = Raw::open(server.local_addr(), "/");
    let began = Instant::now();
    client.send(&client_frame(0x81, b"now").repeat(3));
    for number in 1..=2 {
        assert_eq!(client.text_frame(), "now");
        let took = began.elapsed();
        assert!(took < PAUSE * number - PAUSE / 4, "answer {number} took {took:?}");
    }
}

#[test]
fn a_ping_behind_messages_is_answered_though_no_answer_comes_to_those() {
    let server = serve(vec![route!("/" => Silent)]);
    let mut client = Raw::open(server.local_addr(), "/");
    let burst = [client_frame(0x81, b"?"), client_frame(0x89, b"ping"), client_frame(0x81, b"?")];
    client.send(&burst.concat());
    assert_eq!(client.frame().payload, b"ping");
}

/// Answers nothing.
#[derive(Default, macros::WebsocketController)]
struct Silent;

#[async_trait]
impl WebsocketController for Silent {}

#[test]
fn a_burst_that_ends_in_a_part_of_a_frame_is_answered() {
    let server = serve(vec![route!("/" => Echo)]);
    let mut client = Raw::open(server.local_addr(), "/");
    let last = client_frame(0x81, b"last");
    client.send(&[&client_frame(0x81, b"first").repeat(5), &last[..3]].concat());
    for _ in 0..5 {
        assert_eq!(client.text_frame(), "first");
    }
    client.send(&last[3..]);
    assert_eq!(client.text_frame(), "last");
}

#[test]
fn pipelined_messages_come_back_in_order() {
    let server = serve(vec![route!("/" => Echo)]);
    let mut client = Raw::open(server.local_addr(), "/");
    let texts: Vec<_> = (0..500).map(|number| format!("message {number}")).collect();
    let wire: Vec<_> = texts.iter().flat_map(|text| client_frame(0x81, text.as_bytes())).collect();
    client.send(&wire);
    for text in texts {
        assert_eq!(client.text_frame(), text);
    }
}
