//! What a sender learns from its clients: that they have received all, what they answer, how far they are.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Guest, Raw, join, serve, start, wait_until};
use parking_lot::Mutex;
use rwf::comms::{FlushError, RequestError};
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// More than the systems of both sides hold for a client that does not read.
const FILLER: usize = 24 << 20;
const SOON: Duration = Duration::from_millis(100);

/// Tells its client what it receives.
fn repeats(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(format!("received {message:?}"))?;
    }
    Ok(())
}

/// A server of one endpoint, and its client of session 7.
fn one(settings: Websocket) -> (ServerHandle, Raw) {
    let as_seven = |request: &Request| request.with_session(7).upgrade(repeats);
    let settings = settings.close_timeout(5 * SOON);
    let server = start(Server::new(vec![route!("/" => as_seven)]).websocket(settings));
    let raw = Raw::open(server.local_addr(), "/");
    (server, raw)
}

/// Answers pings until `raw` ends, and hands on everything else.
fn reading(mut raw: Raw) -> (thread::JoinHandle<Raw>, std::sync::mpsc::Receiver<String>) {
    let (tell, told) = channel();
    let thread = thread::spawn(move || {
        loop {
            let frame = raw.frame();
            match frame.first {
                0x89 => raw.send_frame(0x8a, &frame.payload),
                0x88 => return raw,
                _ => tell.send(String::from_utf8(frame.payload).unwrap()).unwrap(),
            }
        }
    });
    (thread, told)
}

#[test]
fn a_flush_returns_when_the_client_has_received_all() {
    let (server, mut raw) = one(Websocket::new().outbox_bytes(2 * FILLER));
    let comms = server.comms().websocket(7);
    let client = server.comms().websocket(7);
    let flushing = thread::spawn(move || {
        comms.send(vec![0; FILLER]).unwrap();
        comms.send("the last").unwrap();
        let result = comms.flush(Duration::MAX);
        (result, Instant::now())
    });
    thread::sleep(SOON);
    assert!(!flushing.is_finished(), "the client has read nothing");
    assert_eq!(raw.frame().payload.len(), FILLER);
    assert_eq!(raw.text_frame(), "the last");
    let ping = raw.frame();
    assert_eq!(ping.first, 0x89, "a ping comes behind the messages");
    assert!(!flushing.is_finished(), "the client has not answered");
    let answered = Instant::now();
    raw.send_frame(0x8a, &ping.payload);
    let (result, returned) = join("the flush", flushing);
    assert_eq!(result, Ok(1));
    assert!(returned > answered);
    assert_eq!(client.try_send("on"), Ok(1));
}

#[test]
fn a_flush_names_those_who_are_behind_and_those_who_are_gone() {
    let (server, mut slow) = one(Websocket::new());
    let (reads, _told) = reading(Raw::open(server.local_addr(), "/"));
    let mut leaves = Raw::open(server.local_addr(), "/");
    let comms = server.comms().websocket(7);
    wait_until("all are there", || comms.try_send("hello") == Ok(3));
    let ids: Vec<_> =
        comms.members().clients().iter().map(|client| client.connection_id()).collect();
    let flushing = {
        let comms = comms.clone();
        thread::spawn(move || comms.flush(Duration::MAX))
    };
    while leaves.frame().first != 0x89 {}
    drop(leaves);
    let ping = loop {
        let frame = slow.frame();
        if frame.first == 0x89 {
            break frame;
        }
    };
    slow.send_frame(0x8a, &ping.payload);
    let missing = FlushError::Missing { behind: vec![], gone: vec![ids[2]] };
    assert_eq!(join("the flush", flushing), Err(missing));
    assert!(!server.comms().connection(ids[2]).is_connected());

    let missing = FlushError::Missing { behind: vec![ids[0]], gone: vec![] };
    wait_until("the slow one alone is behind", || comms.flush(SOON) == Err(missing.clone()));
    assert!(server.comms().connection(ids[0]).is_connected(), "it was closed for that");
    drop(slow);
    wait_until("the one who reads is alone", || comms.flush(DEADLINE) == Ok(1));
    assert_eq!(server.comms().websocket(8).flush(DEADLINE), Ok(0), "nobody is there");
    drop(server);
    drop(join("the client", reads));
}

#[test]
fn a_mark_outlives_the_messages_that_are_dropped_before_it() {
    let settings = Websocket::new().outbox_bytes(2 * FILLER).outbox_messages(5);
    let (server, mut raw) = one(settings.overflow(Overflow::DropOldest));
    let comms = server.comms().websocket(7);
    comms.send(vec![0; FILLER]).unwrap();
    comms.send("dropped").unwrap();
    let flushing = {
        let comms = comms.clone();
        thread::spawn(move || comms.flush(Duration::MAX))
    };
    let mut number = 0;
    while comms.send_to_each(number.to_string()).dropped < 1 || number < 100 {
        number += 1;
    }
    assert_eq!(raw.frame().payload.len(), FILLER);
    let (reads, _told) = reading(raw);
    assert_eq!(join("the flush", flushing), Ok(1));
    drop(server);
    drop(join("the client", reads));
}

#[test]
fn the_round_trip_is_that_of_a_ping() {
    let (server, mut raw) = one(Websocket::new());
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let hands_out = move |socket: Socket| {
        let tell: Sender<Client> = tell.lock().clone();
        tell.send(socket.client())?;
        repeats(socket)
    };
    let settings = Websocket::new().ping_interval(Duration::from_millis(50));
    let quiet = start(Server::new(vec![route!("/" => websocket(hands_out))]).websocket(settings));
    let mut pinged = Raw::open(quiet.local_addr(), "/");
    let client = told.recv_timeout(DEADLINE).unwrap();
    assert_eq!(client.round_trip(), None);
    let ping = pinged.frame();
    thread::sleep(SOON);
    pinged.send_frame(0x8a, &ping.payload);
    wait_until("the round trip is known", || client.round_trip().is_some());
    let round_trip = client.round_trip().unwrap();
    assert!(round_trip >= SOON && round_trip < DEADLINE, "{round_trip:?}");
    // Unasked pongs, and such with wrong payloads, say nothing (RFC 6455 §5.5.3).
    for payload in [&b""[..], b"unasked", &[0xff; 8], &[0; 125]] {
        raw.send_frame(0x8a, payload);
    }
    assert!(matches!(server.comms().websocket(7).flush(SOON), Err(FlushError::Missing { .. })));
}

#[test]
fn a_question_is_answered_by_the_client_that_was_asked() {
    let (server, mut raw) = one(Websocket::new());
    let comms = server.comms().websocket(7);
    let ask = |question: Message| {
        let comms = comms.clone();
        thread::spawn(move || comms.request(question, DEADLINE))
    };
    let first = ask("Delete it?\nReally?".into());
    let question = raw.text_frame();
    let (head, text) = question.split_once('\n').unwrap();
    let number: u64 = head.strip_prefix("rwf-question ").unwrap().parse().unwrap();
    assert_eq!(text, "Delete it?\nReally?");
    // Meanwhile everything else goes on; another question is another number, and what is no answer is a message.
    let second = ask(vec![0, 159, 146, 150].into());
    let question = raw.frame();
    assert_eq!(question.first, 0x82);
    let head = format!("rwf-question {}\n", number + 1);
    assert_eq!(question.payload, [head.as_bytes(), &[0, 159, 146, 150]].concat());
    for (sent, received) in [
        ("hello", r#"received Text("hello")"#),
        ("rwf-answer", r#"received Text("rwf-answer")"#),
        ("rwf-answer 1 ", r#"received Text("rwf-answer 1 ")"#),
        ("rwf-answer 1\r", r#"received Text("rwf-answer 1\r")"#),
        ("rwf-answer +1\nno", r#"received Text("rwf-answer +1\nno")"#),
        ("rwf-answer x\nno", r#"received Text("rwf-answer x\nno")"#),
        ("rwf-answer \nno", r#"received Text("rwf-answer \nno")"#),
    ] {
        raw.send_text(sent);
        assert_eq!(raw.text_frame(), received);
    }
    raw.send_frame(0x82, &[format!("rwf-answer {}\n", number + 1).as_bytes(), &[7, 8, 9]].concat());
    assert_eq!(join("the second", second), Ok(vec![7, 8, 9].into()));
    assert!(!first.is_finished());
    raw.send_text(&format!("rwf-answer {number}\nyes,\nreally"));
    assert_eq!(join("the first", first), Ok("yes,\nreally".into()));
    // Once more, and numbers that nobody has asked.
    for number in [number, number + 1000, u64::MAX] {
        raw.send_text(&format!("rwf-answer {number}\nyes"));
    }
    raw.send_text("next");
    assert_eq!(raw.text_frame(), r#"received Text("next")"#, "late answers are no messages");
}

#[test]
fn an_answer_may_be_empty_and_its_first_line_ends_as_lines_do() {
    let (server, mut raw) = one(Websocket::new());
    let comms = server.comms().websocket(7);
    for (behind_number, answer) in [
        ("", ""),
        ("\n", ""),
        ("\r\n", ""),
        ("\nyes", "yes"),
        ("\r\nyes\r\nyes", "yes\r\nyes"),
        ("\n\r\n", "\r\n"),
    ] {
        for first in [0x81, 0x82] {
            let comms = comms.clone();
            let asking = thread::spawn(move || comms.request("?", DEADLINE));
            let question = raw.text_frame();
            let number = question.split([' ', '\n']).nth(1).unwrap();
            let sent = format!("rwf-answer {number}{behind_number}");
            raw.send_frame(first, sent.as_bytes());
            let expected = match first {
                0x81 => Message::from(answer),
                _ => Message::from(answer.as_bytes().to_vec()),
            };
            assert_eq!(join("the question", asking), Ok(expected), "to {sent:?}");
        }
    }
}

#[test]
fn a_client_that_was_never_asked_may_write_what_it_likes() {
    let (_server, mut raw) = one(Websocket::new());
    raw.send_text("rwf-answer 1\nyes");
    assert_eq!(raw.text_frame(), r#"received Text("rwf-answer 1\nyes")"#);
}

#[test]
fn the_first_tab_that_answers_is_heard() {
    let (server, mut silent) = one(Websocket::new());
    let mut answers = Raw::open(server.local_addr(), "/");
    let leaves = Raw::open(server.local_addr(), "/");
    let comms = server.comms().websocket(7);
    wait_until("all are there", || comms.try_send("hello") == Ok(3));
    let asking = thread::spawn(move || comms.request("who?", DEADLINE));
    drop(leaves);
    while !answers.text_frame().starts_with("rwf-question") {}
    let question = loop {
        let text = silent.text_frame();
        if text.starts_with("rwf-question") {
            break text;
        }
    };
    let number: u64 = question.split([' ', '\n']).nth(1).unwrap().parse().unwrap();
    answers.send_text(&format!("rwf-answer {number}\nme"));
    assert_eq!(join("the question", asking), Ok("me".into()));
    silent.send_text(&format!("rwf-answer {number}\nme too"));
    silent.send_text("hello");
    assert_eq!(silent.text_frame(), r#"received Text("hello")"#);
}

#[test]
fn a_question_without_an_answer_says_why() {
    let (server, mut raw) = one(Websocket::new());
    let comms = server.comms().websocket(7);
    assert_eq!(server.comms().websocket(8).request("?", DEADLINE), Err(RequestError::NotConnected));
    assert_eq!(comms.request("?", SOON), Err(RequestError::Timeout));
    assert_eq!(comms.request("?", Duration::ZERO), Err(RequestError::Timeout));
    let ask = || {
        let comms = comms.clone();
        thread::spawn(move || comms.request("?", Duration::MAX))
    };
    let read = |raw: &mut Raw| {
        let text = raw.text_frame();
        assert!(text.starts_with("rwf-question "), "{text}");
    };
    (0..2).for_each(|_| read(&mut raw));
    let asking = ask();
    read(&mut raw);
    raw.send_close(1000, "");
    assert_eq!(join("the question to one who leaves", asking), Err(RequestError::Closed));

    let mut raw = Raw::open(server.local_addr(), "/");
    wait_until("it is there", || comms.is_connected());
    let asking = ask();
    read(&mut raw);
    drop(raw);
    assert_eq!(join("the question to one who is lost", asking), Err(RequestError::Closed));

    let mut raw = Raw::open(server.local_addr(), "/");
    wait_until("it is there", || comms.is_connected());
    let asking = ask();
    read(&mut raw);
    drop(server);
    assert_eq!(join("the question at the shutdown", asking), Err(RequestError::Shutdown));
    assert_eq!(comms.request("?", DEADLINE), Err(RequestError::NotConnected));
}

#[test]
fn a_full_outbox_takes_no_question() {
    let settings = Websocket::new().outbox_bytes(1000).overflow(Overflow::Refuse);
    let (server, _raw) = one(settings);
    let comms = server.comms().websocket(7);
    comms.send(vec![0; FILLER]).unwrap();
    let error = comms.request("?", DEADLINE).unwrap_err();
    assert_eq!(error, RequestError::NotSent(SendError::Full));
    assert!(matches!(comms.flush(SOON), Err(FlushError::Missing { .. })));
}

#[test]
fn a_handler_that_asks_its_own_client_gets_an_error_and_no_deadlock() {
    #[derive(Default, macros::WebsocketController)]
    struct Asks;
    #[async_trait]
    impl WebsocketController for Asks {
        async fn handle_message(&self, client: &SessionId, _: Message) -> Result<(), Error> {
            let own = Comms::websocket(client);
            assert_eq!(own.request("?", DEADLINE), Err(RequestError::OwnHandler));
            assert_eq!(own.flush(DEADLINE), Err(FlushError::OwnHandler));
            own.send("asked")?;
            Ok(())
        }
    }
    let asks = |mut socket: Socket| {
        while socket.recv()?.is_some() {
            let own = socket.client();
            assert_eq!(own.request("?", DEADLINE), Err(RequestError::OwnHandler));
            assert_eq!(own.flush(DEADLINE), Err(FlushError::OwnHandler));
            socket.send("asked")?;
        }
        Ok(())
    };
    let server = serve(vec![route!("/controller" => Asks), route!("/function" => websocket(asks))]);
    for path in ["/controller", "/function"] {
        let mut raw = Raw::open(server.local_addr(), path);
        raw.send_text("go");
        assert_eq!(raw.text_frame(), "asked");
    }
}

#[test]
fn many_threads_ask_one_client_at_once() {
    let (server, raw) = one(Websocket::new());
    let (reads, questions) = reading(raw);
    let asking: Vec<_> = (0..8)
        .map(|thread| {
            let comms = server.comms().websocket(7);
            thread::spawn(move || {
                for round in 0..100 {
                    let question = format!("{thread} {round}");
                    comms.flush(DEADLINE).unwrap();
                    assert_eq!(comms.request(&question, SOON / 100), Err(RequestError::Timeout));
                }
            })
        })
        .collect();
    for _ in 0..800 {
        assert!(questions.recv_timeout(DEADLINE).unwrap().starts_with("rwf-question"));
    }
    asking.into_iter().for_each(|asking| join("a thread", asking));
    drop(server);
    drop(join("the client", reads));
}

#[test]
fn one_who_takes_nothing_keeps_a_flush_from_nobody_else_who_is_full() {
    let settings = Websocket::new().outbox_bytes(1).overflow(Overflow::Refuse);
    let listens = |mut socket: Socket| {
        socket.iter().for_each(drop);
        Ok(())
    };
    let server = start(Server::new(vec![route!("/" => websocket(listens))]).websocket(settings));
    let length = FILLER;
    let [(stuck, stuck_raw), (_, mut raw)] = [(); 2].map(|()| {
        let guest = Guest::new();
        let raw = Raw::open_with(server.local_addr(), "/", &guest.cookie());
        assert_eq!(Comms::websocket(guest).send(vec![0; length]), Ok(1));
        assert_eq!(Comms::websocket(guest).send("too much"), Err(SendError::Full));
        (Comms::websocket(guest).members().clients()[0].connection_id(), raw)
    });
    let comms = server.comms().notify();
    let flushing = thread::spawn(move || comms.flush(Duration::MAX));
    assert_eq!(raw.frame().payload.len(), length);
    let ping = raw.frame();
    raw.send_frame(0x8a, &ping.payload);
    drop(stuck_raw);
    let missing = FlushError::Missing { behind: vec![], gone: vec![stuck] };
    assert_eq!(join("the flush", flushing), Err(missing));
}
