//! What is promised of a WebSocket holds for every style of handler: the documented controller, a function, and events.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Guest, Raw, STYLES, client_frame, echo_in_every_style, start, wait_until};
use rwf::controller::Websocket;
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// A server whose endpoints echo, each in its style.
fn serve(settings: Websocket) -> ServerHandle {
    start(Server::new(echo_in_every_style()).websocket(settings))
}

/// Runs `scenario` with each style, on a server of its own.
fn in_every_style(settings: &Websocket, scenario: impl Fn(&ServerHandle, &str)) {
    for style in STYLES {
        let server = serve(settings.clone());
        scenario(&server, style);
        let report = server.shutdown().unwrap();
        assert_eq!(report.running, 0, "{style}: {report:?}");
    }
}

fn open(server: &ServerHandle, style: &str) -> (Raw, Guest) {
    let guest = Guest::new();
    (Raw::open_with(server.local_addr(), style, &guest.cookie()), guest)
}

#[test]
fn replies_come_in_order_and_control_frames_are_answered() {
    in_every_style(&Websocket::new(), |server, style| {
        let (mut client, _) = open(server, style);
        let burst: Vec<u8> = (0..300_u32)
            .flat_map(|number| client_frame(0x81, number.to_string().as_bytes()))
            .chain(client_frame(0x89, b"ping"))
            // A message in two parts, with a ping between them.
            .chain(client_frame(0x01, b"in "))
            .chain(client_frame(0x89, b"between"))
            .chain(client_frame(0x80, b"parts"))
            .collect();
        client.send(&burst);
        let (mut texts, mut pongs) = (Vec::new(), Vec::new());
        while texts.len() < 301 {
            let frame = client.frame();
            let payload = String::from_utf8(frame.payload).unwrap();
            match frame.first {
                0x81 => texts.push(payload),
                0x8a => pongs.push(payload),
                first => panic!("{style}: unexpected {first:#x}"),
            }
        }
        let expected =
            (0..300).map(|number: u32| number.to_string()).chain(["in parts".to_owned()]);
        assert!(texts.into_iter().eq(expected), "{style}: not in order");
        assert_eq!(pongs, ["ping", "between"], "{style}");
        client.send_close(4000, "bye");
        assert_eq!(client.close_frame(), (4000, "bye".to_owned()), "{style}");
        client.expect_end();
    });
}

#[test]
fn what_is_sent_once_the_client_has_seen_the_101_arrives_and_all_of_it_before_a_close() {
    in_every_style(&Websocket::new(), |server, style| {
        let (mut client, guest) = open(server, style);
        assert_eq!(Comms::websocket(guest).send("at once"), Ok(1), "{style}");
        assert_eq!(Comms::websocket(guest).send("last"), Ok(1), "{style}");
        assert_eq!(Comms::websocket(guest).close(4001, "over"), Ok(1), "{style}");
        assert_eq!((client.text_frame(), client.text_frame()), ("at once".into(), "last".into()));
        assert_eq!(client.close_frame(), (4001, "over".to_owned()), "{style}");
        client.send_close(4001, "");
        client.expect_end();
        wait_until("it is gone", || Comms::websocket(guest).send("x") == Ok(0));
    });
}

#[test]
fn a_client_that_breaks_a_rule_is_told_which() {
    let settings = Websocket::new().max_message_size(100);
    in_every_style(&settings, |server, style| {
        for (bytes, code) in [
            (client_frame(0x83, b"no opcode"), 1002),
            (client_frame(0x81, b"\xff"), 1007),
            (client_frame(0x82, &[0; 101]), 1009),
        ] {
            let (mut client, _) = open(server, style);
            client.send(&bytes);
            assert_eq!(client.close_frame().0, code, "{style}");
            client.send_close(code, "");
            client.expect_end();
        }
    });
}

#[test]
fn a_client_that_does_not_read_is_closed_and_delays_nobody() {
    let settings =
        Websocket::new().outbox_bytes(256 << 10).close_timeout(Duration::from_millis(100));
    in_every_style(&settings, |server, style| {
        let (_slow, guest) = open(server, style);
        let (mut other, _) = open(server, style);
        let message = Message::binary(vec![0; 64 << 10]);
        while Comms::websocket(guest).send(&message) == Ok(1) {}
        let began = Instant::now();
        other.send_text("are you there?");
        assert_eq!(other.text_frame(), "are you there?", "{style}");
        assert!(began.elapsed() < Duration::from_secs(1), "{style}: {:?}", began.elapsed());
        wait_until("it is gone", || Comms::websocket(guest).send("x") == Ok(0));
    });
}

#[test]
fn a_silent_client_is_given_up_and_one_that_answers_is_kept() {
    let quick = Duration::from_millis(300);
    let settings = Websocket::new().ping_interval(quick).ping_timeout(quick).close_timeout(quick);
    in_every_style(&settings, |server, style| {
        let (_silent, guest) = open(server, style);
        let (mut healthy, other) = open(server, style);
        let mut answered = 0;
        wait_until("it is gone", || {
            let ping = healthy.frame();
            assert_eq!(ping.first, 0x89, "{style}");
            healthy.send_frame(0x8a, &ping.payload);
            answered += 1;
            answered >= 4 && !Comms::websocket(guest).is_connected()
        });
        assert_eq!(Comms::websocket(other).send("you stay"), Ok(1), "{style}");
    });
}

#[test]
fn the_shutdown_closes_all_in_good_order() {
    for style in STYLES {
        let server = serve(Websocket::new());
        let clients: Vec<_> = (0..5).map(|_| open(&server, style).0).collect();
        thread::scope(|scope| {
            let shutdown = scope.spawn(|| server.shutdown().unwrap());
            for mut client in clients {
                assert_eq!(client.close_frame().0, 1001, "{style}");
                client.send_close(1001, "");
                client.expect_end();
            }
            let report = shutdown.join().unwrap();
            assert_eq!((report.closed, report.cut, report.running), (5, 0, 0), "{style}");
        });
    }
}
