//! Compression (permessage-deflate, RFC 7692) over real sockets: what is agreed on, what is taken and sent, and what is not.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{
    DEADLINE, Frame, Guest, Raw, STYLES, client_frame, echo_in_every_style, header, join, serve,
    start, status, upgrade_request, wait_until,
};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use rwf::controller::{Deflate, Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// More than the systems of both sides hold for a client that does not read.
const FILLER: usize = 24 << 20;

/// Some text that gets shorter by compressing, each time the same.
fn text(length: usize) -> String {
    let lines =
        (0..).map(|n: usize| format!("{{\"id\":{n},\"name\":\"user {}\"}}\n", n * n % 1009));
    let mut text = String::with_capacity(length + 100);
    for line in lines {
        if text.len() >= length {
            break;
        }
        text += &line;
    }
    text.truncate(length);
    text
}

/// Bytes that do not.
fn noise(length: usize) -> Vec<u8> {
    let mut random = common::Random::new(length as u64);
    (0..length).map(|_| random.number() as u8).collect()
}

/// A client that compresses.
struct Client {
    raw: Raw,
    compress: Compress,
    decompress: Decompress,
    /// Whether its messages and the server's refer to those before them.
    keeps: [bool; 2],
}

impl Client {
    fn open(server: &ServerHandle, path: &str) -> Self {
        Self::open_with(server, path, OFFER)
    }

    fn open_with(server: &ServerHandle, path: &str, headers: &str) -> Self {
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade_request(path, headers).as_bytes());
        let head = raw.head();
        assert_eq!(status(&head), 101, "{head}");
        let answer = header(&head, "sec-websocket-extensions").unwrap_or_else(|| panic!("{head}"));
        assert!(answer.starts_with("permessage-deflate"), "{answer}");
        let bits = |name: &str| {
            let value = answer.split("; ").find_map(|param| param.strip_prefix(name));
            value.map_or(15, |value| value.parse().unwrap())
        };
        Self {
            raw,
            compress: Compress::new_with_window_bits(
                Compression::new(6),
                false,
                bits("client_max_window_bits="),
            ),
            // With so small a window, what refers to more is an error.
            decompress: Decompress::new_with_window_bits(false, bits("server_max_window_bits=")),
            keeps: ["client", "server"]
                .map(|side| !answer.contains(&format!("{side}_no_context_takeover"))),
        }
    }

    fn deflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() * 2 + 100);
        self.compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
        if payload.is_empty() {
            // Nothing is flushed twice (RFC 7692 §7.2.3.6).
            return vec![0];
        }
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
        if !self.keeps[0] {
            self.compress.reset();
        }
        out
    }

    fn send(&mut self, text: &str) {
        let payload = self.deflate(text.as_bytes());
        self.raw.send_frame(0xc1, &payload);
    }

    /// A message, and whether it was compressed.
    #[track_caller]
    fn recv(&mut self) -> (Vec<u8>, bool) {
        let Frame { first, payload } = self.raw.frame();
        match first {
            0x81 | 0x82 => (payload, false),
            0xc1 | 0xc2 => (self.inflate(&payload), true),
            _ => panic!("expected a message: {first:x}, {:?}", String::from_utf8_lossy(&payload)),
        }
    }

    #[track_caller]
    fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let wire = [payload, &TAIL].concat();
        let before = self.decompress.total_in();
        let mut data = Vec::new();
        while data.len() == data.capacity() {
            data.reserve(1 << 20);
            let consumed = (self.decompress.total_in() - before) as usize;
            let rest = &wire[consumed..];
            self.decompress.decompress_vec(rest, &mut data, FlushDecompress::Sync).unwrap();
        }
        assert_eq!(self.decompress.total_in() - before, wire.len() as u64);
        if !self.keeps[1] {
            self.decompress = Decompress::new(false);
        }
        data
    }

    #[track_caller]
    fn recv_text(&mut self) -> String {
        String::from_utf8(self.recv().0).unwrap()
    }
}

fn serve_echo(deflate: impl Into<Option<Deflate>>) -> ServerHandle {
    let settings = Websocket::new().max_message_size(4 << 20).deflate(deflate);
    start(Server::new(echo_in_every_style()).websocket(settings))
}

fn with_context() -> Deflate {
    Deflate::new().context_takeover(true)
}

#[test]
fn an_offer_is_answered_as_the_settings_say() {
    let offer = |params: &str| format!("Sec-WebSocket-Extensions: permessage-deflate{params}\r\n");
    let no_context = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let cases: [(Option<Deflate>, String, Option<&str>); 7] = [
        (Some(Deflate::new()), OFFER.to_owned(), Some(no_context)),
        (Some(with_context()), OFFER.to_owned(), Some("permessage-deflate")),
        (
            Some(with_context().window_bits(10)),
            OFFER.to_owned(),
            Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=10"),
        ),
        (None, OFFER.to_owned(), None),
        (Some(Deflate::new()), String::new(), None),
        (Some(Deflate::new()), offer("; server_max_window_bits=8"), None),
        (
            Some(with_context()),
            offer("; server_max_window_bits=8") + &offer("; server_no_context_takeover"),
            Some("permessage-deflate; server_no_context_takeover"),
        ),
    ];
    for (settings, offer, expected) in cases {
        let server = serve_echo(settings);
        let mut raw = Raw::connect(server.local_addr());
        raw.send(upgrade_request("/function", &offer).as_bytes());
        let head = raw.head();
        assert_eq!(status(&head), 101);
        assert_eq!(header(&head, "sec-websocket-extensions"), expected, "{settings:?}, {offer:?}");
    }
    let server = serve_echo(Deflate::new());
    let malformed = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=\r\n";
    let (head, body) =
        Raw::connect(server.local_addr()).ask(&upgrade_request("/function", malformed));
    assert_eq!(status(&head), 400);
    assert!(body.contains("Sec-WebSocket-Extensions"), "{body}");
}

#[test]
fn messages_are_compressed_both_ways_in_every_style() {
    for settings in
        [Deflate::new(), with_context(), with_context().window_bits(9), Deflate::new().level(9)]
    {
        let server = serve_echo(settings);
        for path in STYLES {
            let mut client = Client::open(&server, path);
            for round in 0..3 {
                for length in [0, 10, 1023, 1024, 5000, 70_000, 1 << 20] {
                    let sent = text(length);
                    client.send(&sent);
                    let (received, is_compressed) = client.recv();
                    let what = format!("{settings:?} {path}, round {round}, {length} bytes");
                    assert!(received == sent.as_bytes(), "{what}");
                    assert_eq!(is_compressed, length >= 1024, "{what}");
                }
                // What does not get shorter goes out as it is, and what a client does not compress is taken.
                let sent = noise(3000);
                client.raw.send_frame(0x82, &sent);
                assert_eq!(client.recv(), (sent, false));
            }
            client.raw.send_close(1000, "bye");
            assert_eq!(client.raw.close_frame(), (1000, "bye".to_owned()));
        }
    }
}

#[test]
fn fragments_of_a_compressed_message_may_be_cut_anywhere_and_have_pings_between_them() {
    for settings in [Deflate::new(), with_context()] {
        let server = serve_echo(settings);
        let mut client = Client::open(&server, "/function");
        for parts in [2, 3, 50] {
            let sent = text(6000) + "äöü€";
            let wire = client.deflate(sent.as_bytes());
            let size = wire.len().div_ceil(parts);
            let mut frames = client_frame(0x41, b"");
            for part in wire.chunks(size) {
                frames.extend(client_frame(0x89, b"between"));
                frames.extend(client_frame(0x00, part));
            }
            frames.extend(client_frame(0x80, b""));
            for piece in frames.chunks(97) {
                client.raw.send(piece);
            }
            for _ in wire.chunks(size) {
                assert_eq!(client.raw.frame(), Frame { first: 0x8a, payload: b"between".to_vec() });
            }
            assert_eq!(client.recv_text(), sent, "{parts} parts");
        }
    }
}

#[test]
fn what_breaks_the_rules_is_closed_with_its_code_and_hurts_nobody_else() {
    let deflated = |data: &[u8]| {
        let mut out = Vec::with_capacity(data.len() + 1000);
        Compress::new(Compression::best(), false)
            .compress_vec(data, &mut out, FlushCompress::Sync)
            .unwrap();
        out.truncate(out.len() - TAIL.len());
        out
    };
    let hello = deflated(b"Hello, hello, hello, hello");
    let json = deflated(text(3000).as_bytes());
    let bomb = deflated(&vec![0; 300 << 20]);
    let in_two = |first: u8, second: u8, wire: &[u8]| {
        let (begin, end) = wire.split_at(wire.len() / 2);
        [client_frame(first, begin), client_frame(second, end)].concat()
    };
    let cases: &[(&str, Vec<u8>, u16)] = &[
        ("RSV1 on a ping", client_frame(0xc9, b""), 1002),
        ("RSV1 on a pong", client_frame(0xca, b""), 1002),
        ("RSV1 on a close", client_frame(0xc8, b"\x03\xe8"), 1002),
        ("RSV2", client_frame(0xa1, b""), 1002),
        ("RSV3 beside RSV1", client_frame(0xd1, &hello), 1002),
        ("RSV1 on a continuation", in_two(0x41, 0xc0, &hello), 1002),
        ("RSV1 on a continuation of a plain message", in_two(0x02, 0xc0, &hello), 1002),
        ("a continuation alone", client_frame(0xc0, &hello), 1002),
        ("another message inside", in_two(0x41, 0xc1, &hello), 1002),
        ("no DEFLATE", client_frame(0xc1, &[0xff; 20]), 1007),
        ("no bytes", client_frame(0xc1, b""), 1007),
        ("cut off", client_frame(0xc1, &json[..json.len() - 5]), 1007),
        ("cut off in parts", in_two(0x41, 0x80, &json[..100]), 1007),
        ("garbage behind it", client_frame(0xc1, &[&json[..], b"garbage"].concat()), 1007),
        ("garbage behind a final block", client_frame(0xc1, b"\x03\0garbage"), 1007),
        ("the context of no message", client_frame(0xc1, &[0xf2, 0, 0x11, 0, 0]), 1007),
        ("no UTF-8", client_frame(0xc1, &deflated(b"abc\xff")), 1007),
        ("no UTF-8 at the end", client_frame(0xc1, &deflated(b"abc\xe2\x82")), 1007),
        ("a bomb", client_frame(0xc2, &bomb), 1009),
        ("a bomb in text", client_frame(0xc1, &bomb), 1009),
        ("a bomb in parts", in_two(0x42, 0x80, &bomb), 1009),
        ("empty blocks", client_frame(0xc2, &b"\0\0\0\xff\xff".repeat(200_000)), 1009),
        (
            "empty blocks in parts",
            [
                client_frame(0x42, &[0]),
                client_frame(0, &b"\0\0\xff\xff\0".repeat(10_000)).repeat(50),
            ]
            .concat(),
            1009,
        ),
    ];
    for settings in [Deflate::new(), with_context()] {
        let endpoint =
            Websocket::new().max_message_size(200_000).max_frame_size(2 << 20).deflate(settings);
        let server = start(Server::new(echo_in_every_style()).websocket(endpoint));
        let mut bystander = Client::open(&server, "/function");
        for (what, wire, code) in cases {
            for size in [wire.len(), 1000] {
                let mut client = Client::open(&server, "/function");
                // A close may come, and the reset with it, before all is sent.
                let mut stream = client.raw.stream.try_clone().unwrap();
                let wire = wire.clone();
                let sender = thread::spawn(move || {
                    let _ = wire
                        .chunks(size)
                        .try_for_each(|part| std::io::Write::write_all(&mut stream, part));
                });
                let (found, reason) = client.raw.close_frame();
                assert_eq!(found, *code, "{what}: {reason}");
                drop(client);
                join("the sender", sender);
            }
        }
        bystander.send("are you there?");
        assert_eq!(bystander.recv_text(), "are you there?");
    }
    let server = serve_echo(None);
    let mut raw = Raw::open_with(server.local_addr(), "/function", OFFER);
    raw.send_frame(0xc1, &hello);
    assert_eq!(raw.close_frame().0, 1002, "where nothing was agreed on");
}

#[test]
fn wrong_text_is_found_before_its_message_is_complete() {
    let server = serve_echo(Deflate::new());
    let mut client = Client::open(&server, "/function");
    let wire = client.deflate(&[text(3000).as_bytes(), b"\xff", &noise(3000)].concat());
    client.raw.send(&client_frame(0x41, &wire)[..wire.len() - 1000]);
    assert_eq!(client.raw.close_frame().0, 1007);
}

#[test]
fn a_message_of_just_the_limit_is_taken_and_one_byte_more_is_not() {
    let settings = Websocket::new().max_message_size(50_000);
    let server = start(Server::new(echo_in_every_style()).websocket(settings));
    let mut client = Client::open(&server, "/function");
    client.send(&text(50_000));
    assert_eq!(client.recv_text(), text(50_000));
    client.send(&text(50_001));
    let (code, reason) = client.raw.close_frame();
    assert_eq!(code, 1009);
    assert!(reason.contains("50000"), "{reason}");
}

#[test]
fn the_reason_of_a_compressed_frame_over_the_limit_says_which_setting_limits_it() {
    for (settings, setting) in [
        (Websocket::new().max_message_size(16_384), "max_message_size 16384"),
        (Websocket::new().max_frame_size(16_384), "max_frame_size 16384"),
    ] {
        let server = start(Server::new(echo_in_every_style()).websocket(settings));
        let mut client = Client::open(&server, "/function");
        client.raw.send(&client_frame(0xc1, &[0; 23_410])[..100]);
        let (code, reason) = client.raw.close_frame();
        let says = reason.contains("compressed frame of 23410 bytes") && reason.contains(setting);
        assert!(code == 1009 && says, "{code} {reason:?}");
    }
}

#[test]
fn a_message_of_just_the_limit_that_does_not_compress_is_taken() {
    let settings = Websocket::new().max_message_size(100_000).outbox_bytes(1 << 20);
    let server = start(Server::new(echo_in_every_style()).websocket(settings));
    let mut client = Client::open(&server, "/function");
    let noise = noise(100_000);
    let compressed = client.deflate(&noise);
    assert!(compressed.len() > noise.len(), "it is to get longer");
    client.raw.send_frame(0xc2, &compressed);
    assert_eq!(client.recv().0, noise);
}

#[test]
fn a_broadcast_is_the_same_for_all_who_agreed_on_the_same_and_plain_for_the_others() {
    let server = serve_echo(Deflate::new());
    let offer = |bits| {
        format!("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}\r\n")
    };
    let mut same: Vec<_> = (0..3).map(|_| Client::open(&server, "/controller")).collect();
    let mut small = Client::open_with(&server, "/controller", &offer(9));
    let mut plain = Raw::open(server.local_addr(), "/controller");
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for round in 0..20 {
        let message = text(2000 + round) + &text(3000);
        assert_eq!(server.comms().notify().send(message.as_str()), Ok(5));
        let frames: Vec<_> = same.iter_mut().map(|client| client.raw.frame()).collect();
        assert!(frames.iter().all(|frame| frame == &frames[0]), "round {round}");
        assert_eq!(frames[0].first, 0xc1);
        assert!(frames[0].payload.len() < message.len() / 2);
        assert!(same[0].inflate(&frames[0].payload) == message.as_bytes());
        assert_eq!(small.recv(), (message.clone().into_bytes(), true), "a window of 512 bytes");
        assert_eq!(plain.text_frame(), message);
        kept.push(frames[0].payload.clone());
    }
}

#[test]
fn a_message_can_be_sent_uncompressed_by_all_that_sends() {
    for settings in [Deflate::new(), with_context()] {
        let send_all = |request: &Request| {
            request.upgrade(|mut socket| {
                let secret = || Message::from(text(3000)).uncompressed();
                let client = socket.client().clone();
                socket.send(secret())?;
                socket.try_send(secret())?;
                socket.send_latest("a", secret())?;
                client.send(secret())?;
                client.send_timeout(secret(), DEADLINE)?;
                client.send_latest("b", secret())?;
                Comms::here()?.send(secret())?;
                Comms::here()?.send_latest("c", secret())?;
                Comms::here()?.try_send(secret())?;
                Comms::here()?.send_to_each(secret());
                socket.send(text(3000))?;
                let asked = thread::spawn(move || client.request(secret(), DEADLINE));
                let ends = socket.recv()?;
                assert_eq!(ends, None, "{:?}", asked.join());
                Ok(())
            })
        };
        let server = start(
            Server::new(vec![route!("/" => send_all)])
                .websocket(Websocket::new().deflate(settings)),
        );
        let mut client = Client::open(&server, "/");
        for number in 0..10 {
            assert_eq!(client.recv(), (text(3000).into_bytes(), false), "the send {number}");
        }
        assert_eq!(client.recv(), (text(3000).into_bytes(), true), "others are");
        let (question, is_compressed) = client.recv();
        assert!(question.starts_with(b"rwf-question ") && !is_compressed);
    }
}

#[test]
fn questions_and_newest_values_are_compressed_too() {
    for settings in [Deflate::new(), with_context()] {
        let server = serve_echo(settings);
        let guest = Guest::new();
        let mut client =
            Client::open_with(&server, "/function", &format!("{OFFER}{}", guest.cookie()));
        assert_eq!(Comms::websocket(guest).send_latest("key", text(4000)), Ok(1));
        assert_eq!(client.recv(), (text(4000).into_bytes(), true));
        let asked =
            thread::spawn(move || Comms::websocket(guest).request(text(4000), DEADLINE).unwrap());
        let (question, is_compressed) = client.recv();
        assert!(is_compressed, "{question:?}");
        let question = String::from_utf8(question).unwrap();
        let (head, body) = question.split_once('\n').unwrap();
        assert_eq!(body, text(4000));
        let number = head.strip_prefix("rwf-question ").unwrap();
        client.send(&format!("rwf-answer {number}\n{}", text(5000)));
        assert_eq!(join("the question", asked), text(5000).as_str());
    }
}

#[test]
fn with_context_messages_refer_to_those_before_them_whoever_sends_them() {
    const THREADS: usize = 4;
    const EACH: usize = 200;
    let server = serve_echo(with_context().threshold(20));
    let guest = Guest::new();
    let mut client = Client::open_with(&server, "/function", &format!("{OFFER}{}", guest.cookie()));
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            thread::spawn(move || {
                for number in 0..EACH {
                    let comms = Comms::websocket(guest);
                    let message = format!("{thread} {number} {}", text(number % 50 * 40));
                    match number % 3 {
                        0 => comms.send(message).unwrap(),
                        1 => comms.send_timeout(message, DEADLINE).unwrap(),
                        _ => comms.send_latest(&format!("{thread} {number}"), message).unwrap(),
                    };
                }
            })
        })
        .collect();
    // What the reader's own handler answers to a burst goes out with the rest.
    let echoes: Vec<_> = (0..EACH).map(|number| format!("echo {number} {}", text(500))).collect();
    for echo in &echoes {
        client.send(echo);
    }
    let mut seen = [0; THREADS + 1];
    let (mut compressed, mut wire) = (0, 0);
    for _ in 0..(THREADS + 1) * EACH {
        let frame = client.raw.frame();
        let message = if frame.first & 0x40 != 0 {
            compressed += 1;
            wire += frame.payload.len();
            String::from_utf8(client.inflate(&frame.payload)).unwrap()
        } else {
            String::from_utf8(frame.payload).unwrap()
        };
        let (who, rest) = message.split_once(' ').unwrap();
        let who = who.parse().unwrap_or(THREADS);
        let (number, rest) = rest.split_once(' ').unwrap();
        assert_eq!(number, seen[who].to_string(), "in order");
        let expected = if who == THREADS { 500 } else { seen[who] % 50 * 40 };
        assert!(rest == text(expected), "{message}");
        seen[who] += 1;
    }
    join("the senders", thread::spawn(move || senders.into_iter().for_each(|s| s.join().unwrap())));
    assert!(compressed > EACH, "{compressed}");
    assert!(
        wire / compressed < 100,
        "{wire} bytes for {compressed} messages that resemble each other"
    );
}

/// A client that does not read, behind more than the systems hold.
fn blocked(settings: Websocket) -> (ServerHandle, Guest, Client) {
    let listens = |mut socket: Socket| {
        socket.iter().for_each(drop);
        Ok(())
    };
    let server = start(Server::new(vec![route!("/" => websocket(listens))]).websocket(settings));
    let guest = Guest::new();
    let client = Client::open_with(&server, "/", &format!("{OFFER}{}", guest.cookie()));
    let filler = Message::from(vec![0; FILLER]).uncompressed();
    assert_eq!(Comms::websocket(guest).send(filler), Ok(1));
    (server, guest, client)
}

#[test]
fn what_waits_counts_for_what_it_is_compressed_to() {
    let settings = Websocket::new()
        .outbox_bytes(FILLER + (1 << 20))
        .overflow(Overflow::Refuse)
        .deflate(Deflate::new());
    let (server, guest, mut client) = blocked(settings);
    let before = server.stats().waiting.bytes;
    for number in 0..50 {
        let message = text(64 << 10) + &number.to_string();
        assert_eq!(Comms::websocket(guest).send(message), Ok(1), "message {number}");
    }
    let waits = server.stats().waiting.bytes - before;
    assert!(waits > 50 * 64 && waits < 50 * (64 << 10) / 2, "{waits} bytes");
    assert_eq!(client.raw.frame().payload.len(), FILLER);
    for number in 0..50 {
        assert_eq!(client.recv_text(), text(64 << 10) + &number.to_string());
    }
    wait_until("nothing waits", || server.stats().waiting.bytes == 0);
}

#[test]
fn with_context_what_is_replaced_or_dropped_before_it_is_written_is_not_referred_to() {
    let settings = Websocket::new()
        .outbox_bytes(FILLER + 30_000)
        .overflow(Overflow::DropOldest)
        .deflate(with_context().threshold(0));
    let (server, guest, mut client) = blocked(settings);
    let comms = Comms::websocket(guest);
    for number in 0..100 {
        assert_eq!(comms.send_latest("key", format!("{number} {}", text(2000))), Ok(1));
        assert_eq!(comms.send(format!("message {number} {}", text(2000))), Ok(1));
    }
    assert_eq!(comms.send("the last"), Ok(1));
    assert_eq!(client.raw.frame().payload.len(), FILLER);
    let mut received = Vec::new();
    while received.last().is_none_or(|last| last != "the last") {
        received.push(client.recv_text());
    }
    assert!(received.len() < 30, "{} were dropped", received.len());
    let values: Vec<_> = received.iter().filter(|text| !text.starts_with("message ")).collect();
    assert_eq!(values.len(), 2, "the newest value and the last message");
    assert_eq!(*values[0], format!("99 {}", text(2000)));
    wait_until("nothing waits", || server.stats().waiting.bytes == 0);
    assert_eq!(comms.send(text(500)), Ok(1));
    assert_eq!(client.recv_text(), text(500));
}

#[test]
fn a_slow_client_gets_all_that_was_compressed_for_it() {
    for settings in [Deflate::new(), with_context()] {
        let settings = Websocket::new().outbox_bytes(64 << 20).deflate(settings);
        let (_server, guest, mut client) = blocked(settings);
        let sender = thread::spawn(move || {
            for number in 0..300 {
                let message = format!("{number} {}", text(number * 50));
                Comms::websocket(guest).send(message).unwrap();
            }
        });
        join("the sender", sender);
        assert_eq!(client.raw.frame().payload.len(), FILLER);
        for number in 0..300 {
            assert_eq!(client.recv_text(), format!("{number} {}", text(number * 50)));
        }
    }
}

#[test]
fn empty_blocks_take_no_longer_than_their_bytes_deserve() {
    let server = serve_echo(Deflate::new());
    let mut client = Client::open(&server, "/function");
    let began = Instant::now();
    for block in [&b"\0\0\0\xff\xff"[..], b"\x01\0\0\xff\xff", b"\x03\0"] {
        let wire = [&block.repeat((512 << 10) / block.len())[..], b"\0"].concat();
        client.raw.send_frame(0xc2, &wire);
        assert_eq!(client.recv(), (Vec::new(), false), "they are no violation");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "half a million empty blocks took {took:?}");
}

#[test]
fn the_smallest_stack_is_enough() {
    for settings in [Deflate::new(), with_context().level(9)] {
        let endpoint = Websocket::new().deflate(settings);
        let server =
            start(Server::new(echo_in_every_style()).websocket(endpoint).stack_size(128 << 10));
        for path in STYLES {
            let mut client = Client::open(&server, path);
            for length in [2000, 200_000, 2000] {
                client.send(&text(length));
                assert_eq!(client.recv(), (text(length).into_bytes(), true), "{path}");
            }
        }
    }
}

#[test]
fn without_an_offer_nothing_is_compressed() {
    let server = serve(echo_in_every_style());
    for path in STYLES {
        let mut raw = Raw::open(server.local_addr(), path);
        raw.send_text(&text(10_000));
        assert_eq!(raw.text_frame(), text(10_000));
    }
}
