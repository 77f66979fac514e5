//! Newest values that wait for their client's answers: for no longer than is said, and at nobody's cost.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Guest, Raw, client_frame, join, start, wait_until};
use parking_lot::Mutex;
use rwf::controller::{Overflow, Rate, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;
const HOUR: Duration = Duration::from_secs(3600);

/// A client of an endpoint that has nothing to say, and the one who sends to it.
fn listening(settings: Websocket) -> (ServerHandle, Raw, Comms) {
    let settings = settings.max_lag(Duration::from_millis(50));
    let listens = |mut socket: Socket| {
        socket.iter().for_each(drop);
        Ok(())
    };
    let server = start(Server::new(vec![route!("/" => websocket(listens))]).websocket(settings));
    let guest = Guest::new();
    let raw = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    let comms = Comms::websocket(guest);
    wait_until("it is there", || comms.is_connected());
    (server, raw, comms)
}

/// Fails if the client was closed.
#[track_caller]
fn expect_open(frame: &common::Frame, received: usize) {
    if frame.first == CLOSE {
        let reason = String::from_utf8_lossy(&frame.payload[2..]).into_owned();
        panic!("closed as {reason:?} after {received} messages, each of which it took at once");
    }
}

#[test]
fn the_last_value_reaches_a_silent_client_after_the_ping_timeout() {
    for interval in [None, Some(HOUR)] {
        let timeout = Duration::from_millis(200);
        let settings = Websocket::new().ping_interval(interval).ping_timeout(timeout);
        let (_server, mut raw, comms) = listening(settings);
        comms.send_latest("value", "first").unwrap();
        assert_eq!(raw.text_frame(), "first");
        assert_eq!(raw.frame().first, PING);
        let sent = Instant::now();
        comms.send_latest("value", "last").unwrap();
        // Nothing else happens: it answers nothing and sends nothing.
        assert_eq!(raw.text_frame(), "last", "with a ping interval of {interval:?}");
        assert!(sent.elapsed() >= timeout / 2, "it waited for no answer");
    }
}

#[test]
fn the_last_value_reaches_a_client_whose_handler_takes_its_time() {
    let (arrived, waits) = channel::<()>();
    let waits = Mutex::new(waits);
    let works = move |mut socket: Socket| {
        socket.recv()?;
        for value in 0..5 {
            socket.send_latest("value", value.to_string())?;
        }
        let has_arrived = waits.lock().recv_timeout(DEADLINE).is_ok();
        socket.send(if has_arrived { "in time" } else { "too late" })?;
        Ok(())
    };
    let settings = Websocket::new().max_lag(Duration::from_millis(50)).ping_timeout(HOUR);
    let server = start(Server::new(vec![route!("/" => websocket(works))]).websocket(settings));
    let mut raw = Raw::open(server.local_addr(), "/");
    raw.send_text("work");
    loop {
        let frame = raw.frame();
        match frame.first {
            PING => raw.send_frame(PONG, &frame.payload),
            _ if frame.payload == b"4" => break,
            _ => {}
        }
    }
    arrived.send(()).unwrap();
    loop {
        let frame = raw.frame();
        if frame.first != PING {
            assert_eq!(String::from_utf8_lossy(&frame.payload), "in time");
            break;
        }
    }
}

/// Its pongs stand behind its messages, which are left to TCP.
#[test]
fn values_reach_a_client_that_is_held_back_for_its_rate() {
    for settings in [
        Websocket::new().message_rate(Rate::per(1, HOUR)),
        Websocket::new().byte_rate(Rate::per(1, HOUR)),
    ] {
        let (_server, mut raw, comms) = listening(settings.max_hold(Duration::MAX));
        for _ in 0..2 {
            raw.send_text("hello");
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let sending = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                for value in 0_u64.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    comms.send_latest("price", value.to_string()).unwrap();
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let mut values = 0;
        while values < 100 {
            let frame = raw.frame();
            match frame.first {
                PING => raw.send_frame(PONG, &frame.payload),
                _ => values += 1,
            }
        }
        is_over.store(true, Ordering::Relaxed);
        join("the sender", sending);
    }
}

/// Nothing may stand within a frame (RFC 6455 §5.4), so that it cannot answer before its end.
#[test]
fn values_and_messages_reach_a_client_that_sends_a_long_frame_slowly() {
    let (_server, mut raw, comms) = listening(Websocket::new().outbox_bytes(200_000));
    let mut upload = Raw::from(raw.stream.try_clone().unwrap());
    let (tell, pings) = channel::<Vec<u8>>();
    let (is_over, ends) = channel::<()>();
    let uploading = thread::spawn(move || {
        for part in client_frame(0x82, &vec![1; 1_000_000]).chunks(4000) {
            upload.stream.write_all(part).unwrap();
            // What has come by now is enough.
            if ends.recv_timeout(Duration::from_millis(20)).is_ok() {
                break;
            }
        }
        for ping in pings.try_iter() {
            upload.send_frame(PONG, &ping);
        }
    });
    let sending = thread::spawn(move || {
        for value in 0..100 {
            comms.send_latest("price", value.to_string()).unwrap();
            assert_eq!(comms.send(vec![7; 4000]), Ok(1));
            thread::sleep(Duration::from_millis(5));
        }
        comms.send("the last").unwrap();
    });
    let mut received = 0;
    loop {
        let frame = raw.frame();
        expect_open(&frame, received);
        match frame.first {
            PING => tell.send(frame.payload).unwrap(),
            _ if frame.payload == b"the last" => break,
            _ => received += 1,
        }
    }
    assert!(!uploading.is_finished(), "it could have answered");
    is_over.send(()).unwrap();
    join("the sender", sending);
    join("the upload", uploading);
}

/// A client that answers nothing, and takes all at once: two prices, and a list of 2 MB in 20 messages. Each stands behind
/// the second price, in an outbox of 1 MiB. Returns how many messages it got.
fn messages_behind_a_value(overflow: Overflow) -> usize {
    let settings = Websocket::new().overflow(overflow).ping_timeout(HOUR);
    let (_server, mut raw, comms) = listening(settings);
    comms.send_latest("price", "1").unwrap();
    assert_eq!(raw.text_frame(), "1");
    assert_eq!(raw.frame().first, PING);
    comms.send_latest("price", "2").unwrap();
    let reading = thread::spawn(move || {
        let mut received = 0;
        loop {
            let frame = raw.frame();
            match frame.first {
                PING => {}
                CLOSE if frame.payload[..2] == 1000_u16.to_be_bytes() => return received,
                _ => received += 1,
            }
            expect_open(&frame, received);
        }
    });
    for number in 0..20 {
        assert_eq!(comms.send(vec![7; 100_000]), Ok(1), "message {number}, {overflow:?}");
        thread::sleep(Duration::from_millis(5));
    }
    // What waits goes out before a close.
    assert_eq!(comms.close(1000, ""), Ok(1));
    join("the client", reading)
}

#[test]
fn a_client_that_takes_all_at_once_is_not_slow_though_values_wait_for_it() {
    assert_eq!(messages_behind_a_value(Overflow::Close), 21);
}

#[test]
fn nothing_is_dropped_or_refused_for_values_that_wait() {
    for overflow in [Overflow::DropOldest, Overflow::Refuse] {
        assert_eq!(messages_behind_a_value(overflow), 21, "with the second price, {overflow:?}");
    }
}

#[test]
fn a_sender_that_waits_for_room_waits_for_no_answers() {
    let settings = Websocket::new().outbox_messages(2).ping_timeout(HOUR);
    let (_server, mut raw, comms) = listening(settings);
    comms.send_latest("price", "1").unwrap();
    assert_eq!(raw.text_frame(), "1");
    assert_eq!(raw.frame().first, PING);
    comms.send_latest("price", "2").unwrap();
    let sent: Vec<_> = (0..3).map(|_| comms.send_timeout("a message", DEADLINE)).collect();
    assert_eq!(sent, [Ok(1); 3]);
    assert_eq!(raw.text_frame(), "2");
    assert_eq!(raw.text_frame(), "a message");
}

#[test]
fn the_round_trip_of_an_active_client_is_known_from_the_answers_for_its_values() {
    let (_server, mut raw, comms) = listening(Websocket::new().ping_interval(None));
    let client = comms.members().clients().pop().unwrap();
    assert_eq!(client.round_trip(), None);
    comms.send_latest("price", "1").unwrap();
    assert_eq!(raw.text_frame(), "1");
    let ping = raw.frame();
    assert_eq!(ping.first, PING);
    thread::sleep(Duration::from_millis(30));
    raw.send_frame(PONG, &ping.payload);
    wait_until("it is known", || client.round_trip().is_some());
    let took = client.round_trip().unwrap();
    assert!(took >= Duration::from_millis(30), "{took:?}");
}
