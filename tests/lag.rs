//! Newest values that wait for their client's answers, so that what arrives is new.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Frame, Raw, join, start};
use rwf::controller::Websocket;
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const QUIET: Duration = Duration::from_millis(50);

/// A server of one endpoint that limits the lag, and its client of session 7.
fn one(settings: Websocket) -> (ServerHandle, Raw, Comms) {
    let as_seven = |request: &Request| {
        request.with_session(7).upgrade(|mut socket: Socket| {
            while let Some(message) = socket.recv()? {
                socket.send(message)?;
            }
            Ok(())
        })
    };
    let settings = settings.max_lag(Duration::from_millis(100));
    let server = start(Server::new(vec![route!("/" => as_seven)]).websocket(settings));
    let raw = Raw::open(server.local_addr(), "/");
    let comms = server.comms().websocket(7);
    (server, raw, comms)
}

fn answer(raw: &mut Raw) -> Frame {
    let ping = raw.frame();
    assert_eq!(ping.first, PING, "a ping goes along: {ping:?}");
    raw.send_frame(PONG, &ping.payload);
    ping
}

#[test]
fn a_value_waits_until_the_client_has_answered_for_the_one_before() {
    let (_server, mut raw, comms) = one(Websocket::new());
    comms.send_latest("value", "0").unwrap();
    assert_eq!(raw.text_frame(), "0");
    let ping = raw.frame();
    assert_eq!(ping.first, PING);
    for value in 1..100 {
        assert_eq!(comms.send_latest("value", value.to_string()), Ok(1));
    }
    raw.expect_nothing_for(QUIET);
    raw.send_frame(PONG, &ping.payload);
    assert_eq!(raw.text_frame(), "99");
    answer(&mut raw);
    assert_eq!(comms.send_latest("value", "100"), Ok(1));
    assert_eq!(raw.text_frame(), "100");
}

#[test]
fn what_is_sent_behind_a_value_waits_with_it_and_pings_and_closes_do_not() {
    let (_server, mut raw, comms) = one(Websocket::new());
    comms.send_latest("value", "1").unwrap();
    assert_eq!(raw.text_frame(), "1");
    let ping = raw.frame();
    comms.send("at once").unwrap();
    assert_eq!(raw.text_frame(), "at once", "nothing is before it");
    comms.send_latest("value", "2").unwrap();
    comms.send("behind 2").unwrap();
    comms.send_latest("other", "3").unwrap();
    raw.expect_nothing_for(QUIET);
    raw.send_frame(PING, b"still there?");
    let pong = raw.frame();
    assert_eq!((pong.first, &pong.payload[..]), (PONG, &b"still there?"[..]));
    comms.send_latest("value", "2 again").unwrap();
    raw.send_frame(PONG, &ping.payload);
    let texts: Vec<_> = (0..3).map(|_| raw.text_frame()).collect();
    assert_eq!(texts, ["2 again", "behind 2", "3"]);
    let ping = raw.frame();
    assert_eq!(ping.first, PING);
    // Whatever waits goes out before the close.
    for value in ["4", "5"] {
        comms.send_latest("value", value).unwrap();
    }
    comms.send("bye").unwrap();
    comms.close(1000, "").unwrap();
    let mut texts = Vec::new();
    let close = loop {
        let frame = raw.frame();
        match frame.first {
            0x81 => texts.push(String::from_utf8(frame.payload).unwrap()),
            PING => {}
            _ => break frame,
        }
    };
    assert_eq!((close.first, &texts.last().unwrap()[..]), (0x88, "bye"), "{texts:?}");
    assert!(texts.contains(&"5".to_owned()), "{texts:?}");
}

#[test]
fn a_client_that_answers_no_pings_is_not_waited_for_for_ever() {
    let settings = Websocket::new().ping_timeout(Duration::from_millis(200));
    let (_server, mut raw, comms) = one(settings);
    comms.send_latest("value", "first").unwrap();
    assert_eq!(raw.text_frame(), "first");
    let reading = thread::spawn(move || while raw.frame().payload != b"the end" {});
    let began = Instant::now();
    while !reading.is_finished() {
        assert!(began.elapsed() < DEADLINE, "nothing comes any more");
        comms.send_latest("value", "next").unwrap();
        comms.send_latest("end", "the end").unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    join("the client", reading);
}

#[test]
fn a_client_that_keeps_up_gets_every_value_of_many_keys_and_few_pings() {
    let (server, mut raw, comms) = one(Websocket::new());
    let reading = thread::spawn(move || {
        let (mut values, mut pings) = (Vec::new(), 0);
        loop {
            let frame = raw.frame();
            match frame.first {
                PING => {
                    pings += 1;
                    raw.send_frame(PONG, &frame.payload);
                }
                0x81 if frame.payload == b"the end" => return (values, pings),
                _ => values.push(String::from_utf8(frame.payload).unwrap()),
            }
        }
    });
    let mut sent = Vec::new();
    for value in 0..3000 {
        sent.push(value.to_string());
        comms.send_latest(&format!("key {value}"), value.to_string()).unwrap();
    }
    comms.send("the end").unwrap();
    let (values, pings) = join("the client", reading);
    assert_eq!(values, sent);
    assert!(pings < 2000, "{pings} pings");
    drop(server);
}

#[test]
fn values_messages_and_answers_of_many_threads_end_with_what_is_newest() {
    for _ in 0..5 {
        let (server, mut raw, comms) = one(Websocket::new());
        let reading = thread::spawn(move || {
            let (mut messages, mut last) = ([0; 4], [0; 4]);
            while messages != [500; 4] || last != [499; 4] {
                let frame = raw.frame();
                if frame.first == PING {
                    raw.send_frame(PONG, &frame.payload);
                    continue;
                }
                let text = String::from_utf8(frame.payload).unwrap();
                let numbers: Vec<usize> =
                    text[1..].split(' ').map(|n| n.parse().unwrap()).collect();
                if text.starts_with('m') {
                    assert_eq!(messages[numbers[0]], numbers[1]);
                    messages[numbers[0]] += 1;
                } else {
                    assert!(last[numbers[0]] <= numbers[1], "{} after {last:?}", numbers[1]);
                    last[numbers[0]] = numbers[1];
                }
            }
        });
        let senders: Vec<_> = (0..4)
            .map(|thread| {
                let comms = comms.clone();
                thread::spawn(move || {
                    for round in 0..500 {
                        let text = format!("{thread} {round}");
                        comms.send_latest(&thread.to_string(), format!("v{text}")).unwrap();
                        comms.send(format!("m{text}")).unwrap();
                        if round % 100 == 0 {
                            assert_eq!(comms.flush(DEADLINE), Ok(1));
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| join("a sender", sender));
        join("the client", reading);
        drop(server);
    }
}

#[test]
fn a_handler_that_fills_its_own_outbox_waits_for_no_answers_that_it_alone_could_read() {
    let streams = |mut socket: Socket| {
        for number in 0..3000 {
            Comms::here()?.send_latest("progress", format!("{number} are done"))?;
            socket.send(format!("line {number} {}", "x".repeat(100)))?;
        }
        socket.send("done")?;
        socket.iter().for_each(drop);
        Ok(())
    };
    let settings = Websocket::new()
        .max_lag(Duration::from_millis(100))
        .write_timeout(Duration::from_secs(2))
        .outbox_bytes(100_000);
    let server = start(Server::new(vec![route!("/" => websocket(streams))]).websocket(settings));
    let mut raw = Raw::open(server.local_addr(), "/");
    let mut next = 0;
    loop {
        let Frame { first, payload } = raw.frame();
        let text = String::from_utf8_lossy(&payload);
        match first {
            PING => raw.send_frame(PONG, &payload),
            0x81 if text == "done" => break,
            0x81 if text.starts_with(&format!("line {next} ")) => next += 1,
            0x81 => assert!(text.ends_with(" are done"), "{text:?} in place of line {next}"),
            _ => panic!("closed behind line {next}, although it reads: {text:?}"),
        }
    }
    assert_eq!(next, 3000);
}

#[test]
fn a_flush_waits_for_what_pings_have_overtaken() {
    let (_server, mut raw, comms) = one(Websocket::new().outbox_bytes(10 << 20));
    comms.send_latest("first", "first").unwrap();
    assert_eq!(raw.text_frame(), "first");
    let ping = raw.frame();
    assert_eq!(ping.first, PING);
    for number in 0..20 {
        comms.send_latest(&format!("key {number}"), "a value").unwrap();
        // Nothing else goes out with it.
        comms.send(vec![0; 40 << 10]).unwrap();
    }
    comms.send("last").unwrap();
    let flushing = thread::spawn(move || comms.flush(DEADLINE));
    thread::sleep(QUIET);
    raw.send_frame(PONG, &ping.payload);
    // One value of twenty, a message, and a ping for these alone.
    let ping = loop {
        let frame = raw.frame();
        if frame.first == PING {
            break frame;
        }
    };
    raw.send_frame(PONG, &ping.payload);
    thread::sleep(QUIET);
    assert!(!flushing.is_finished(), "it returned, and the client had not received the last");
    loop {
        let frame = raw.frame();
        match frame.first {
            PING => raw.send_frame(PONG, &frame.payload),
            _ if frame.payload == b"last" => break,
            _ => {}
        }
    }
    // Of the pings behind it one is the flush's.
    while !flushing.is_finished() {
        raw.stream.set_read_timeout(Some(QUIET)).unwrap();
        if let Ok(Some(frame)) = raw.try_frame() {
            raw.send_frame(PONG, &frame.payload);
        }
    }
    assert_eq!(join("the flush", flushing), Ok(1));
}

#[test]
fn a_function_that_sends_and_does_not_receive_waits_for_no_answers_that_it_could_not_see() {
    let sends = |socket: Socket| {
        for value in 0.. {
            if socket.send_latest("value", value.to_string()).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let settings = Websocket::new().max_lag(Duration::from_millis(20));
    let server = start(Server::new(vec![route!("/" => websocket(sends))]).websocket(settings));
    let mut raw = Raw::open(server.local_addr(), "/");
    let began = Instant::now();
    let mut values = 0;
    while values < 100 {
        assert!(began.elapsed() < DEADLINE, "{values} values came");
        let frame = raw.frame();
        match frame.first {
            PING => raw.send_frame(PONG, &frame.payload),
            _ => values += 1,
        }
    }
}

#[test]
fn the_last_value_reaches_a_client_that_talks_and_answers_no_pings() {
    let settings = Websocket::new().ping_timeout(Duration::from_millis(100));
    let (_server, mut raw, comms) = one(settings);
    comms.send_latest("value", "first").unwrap();
    assert_eq!(raw.text_frame(), "first");
    assert_eq!(raw.frame().first, PING);
    comms.send_latest("value", "last").unwrap();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < DEADLINE, "the last value does not come");
        raw.send_frame(PING, b"still there?");
        let frame = raw.frame();
        if frame.first == 0x81 {
            assert_eq!(frame.payload, b"last");
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
