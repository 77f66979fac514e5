//! Clients that cannot keep up and want what is new: newest values under a key, and outboxes that drop the oldest.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Guest, Raw, start, wait_until};
use parking_lot::Mutex;
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// More than the systems of both sides hold for a client that does not read.
const FILLER: usize = 24 << 20;

/// A server whose clients wait for their close, and what they were closed with.
fn serve(settings: Websocket) -> (ServerHandle, Receiver<rwf::websocket::Closed>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let listens = move |mut socket: Socket| {
        let tell: Sender<_> = tell.lock().clone();
        socket.iter().for_each(drop);
        tell.send(socket.closed().unwrap().clone())?;
        Ok(())
    };
    (start(Server::new(vec![route!("/" => websocket(listens))]).websocket(settings)), told)
}

/// A client that does not read, with a message before it that blocks what comes behind.
fn blocked(server: &ServerHandle) -> (Guest, Raw) {
    let guest = Guest::new();
    let raw = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    assert_eq!(Comms::websocket(guest).send(vec![0; FILLER]), Ok(1));
    (guest, raw)
}

/// What comes behind the filler, up to the text `last`.
#[track_caller]
fn texts(raw: &mut Raw, last: &str) -> Vec<String> {
    assert_eq!(raw.frame().payload.len(), FILLER);
    let mut texts = Vec::new();
    while texts.last().is_none_or(|text| text != last) {
        texts.push(raw.text_frame());
    }
    texts
}

#[test]
fn the_newest_value_takes_the_place_of_the_one_that_waits() {
    let (server, _) = serve(Websocket::new().outbox_bytes(FILLER + 10_000));
    let (guest, mut raw) = blocked(&server);
    let comms = Comms::websocket(guest);
    for (key, text) in [
        (None, "before"),
        (Some("x"), "x = 1"),
        (None, "between"),
        (Some("y"), "y = 1"),
        (Some("x"), "x = 2"),
        (Some("x"), "x = 3, which is longer"),
        (None, "behind"),
        (Some("y"), "y = 2"),
    ] {
        let sent = match key {
            Some(key) => comms.send_latest(key, text),
            None => comms.send(text),
        };
        assert_eq!(sent, Ok(1));
    }
    let expected = ["before", "x = 3, which is longer", "between", "y = 2", "behind"];
    assert_eq!(texts(&mut raw, "behind"), expected);
    // What has gone out is not replaced any more.
    for text in ["x = 4", "x = 5"] {
        assert_eq!(comms.send_latest("x", text), Ok(1));
        assert_eq!(raw.text_frame(), text);
    }
}

#[test]
fn values_that_are_replaced_take_no_room_and_do_not_delay_those_who_keep_up() {
    let (server, _) = serve(Websocket::new().outbox_bytes(FILLER + 10_000));
    let (slow, mut raw) = blocked(&server);
    let fast = Guest::new();
    let mut reads = Raw::open_with(server.local_addr(), "/", &fast.cookie());
    server.comms().notify().subscribe("prices").unwrap();
    let reading = thread::spawn(move || {
        let mut last = [-1; 10];
        while last != [1999; 10] {
            let text = reads.text_frame();
            let (key, value) = text.split_once(' ').unwrap();
            let (key, value): (usize, i32) = (key.parse().unwrap(), value.parse().unwrap());
            assert!(last[key] < value, "{text:?} after {}", last[key]);
            last[key] = value;
        }
    });
    for value in 0..2000 {
        for key in 0..10 {
            let text = format!("{key} {value}");
            let outcome = Comms::topic("prices").send_latest(&key.to_string(), text);
            assert_eq!(outcome, Ok(2), "round {value}");
        }
    }
    common::join("the one who reads", reading);
    let expected: Vec<_> = (0..10).map(|key| format!("{key} 1999")).collect();
    assert_eq!(texts(&mut raw, "9 1999"), expected);
    assert!(Comms::websocket(slow).is_connected(), "the slow one was closed");
}

#[test]
fn a_value_that_outgrows_the_outbox_is_one_message_too_many() {
    let settings = Websocket::new().outbox_bytes(FILLER + 100_000).overflow(Overflow::Refuse);
    let (server, _) = serve(settings);
    let (guest, mut raw) = blocked(&server);
    let comms = Comms::websocket(guest);
    assert_eq!(comms.send_latest("key", "short"), Ok(1));
    assert_eq!(comms.send_latest("key", "a".repeat(200_000)), Err(SendError::Full));
    assert_eq!(comms.send("the end"), Ok(1));
    assert_eq!(texts(&mut raw, "the end"), ["short", "the end"]);
}

#[test]
fn keys_are_forgotten_when_their_values_have_gone_out() {
    let (server, _) = serve(Websocket::new().outbox_bytes(FILLER + (1 << 20)));
    let (guest, mut raw) = blocked(&server);
    let comms = Comms::websocket(guest);
    let mut expected = Vec::new();
    for number in 0..1000 {
        let text = format!("value of key {number}");
        assert_eq!(comms.send_latest(&number.to_string(), &text), Ok(1));
        expected.push(text);
    }
    assert_eq!(texts(&mut raw, "value of key 999"), expected);
}

#[test]
fn the_oldest_messages_make_room_for_new_ones() {
    let settings = Websocket::new().outbox_bytes(2 * FILLER).outbox_messages(10);
    let settings = settings.overflow(Overflow::DropOldest);
    let (server, closed) = serve(settings);
    let (guest, mut raw) = blocked(&server);
    server.comms().notify().subscribe("ticks").unwrap();
    let mut dropped = 0;
    for tick in 0..1000 {
        let outcome = Comms::topic("ticks").send_to_each(tick.to_string());
        assert_eq!((outcome.queued, outcome.refused.len()), (1, 0), "tick {tick}");
        dropped += outcome.dropped;
    }
    assert_eq!(dropped, 1000 - 9, "one of the ten is being written");
    // This never closes, and drops nothing: the outbox is full.
    assert_eq!(Comms::websocket(guest).try_send("not now"), Err(SendError::Full));
    let expected: Vec<_> = (991..1000).map(|tick| tick.to_string()).collect();
    assert_eq!(texts(&mut raw, "999"), expected);
    assert_eq!(Comms::websocket(guest).close(1000, ""), Ok(1));
    let closed = closed.recv_timeout(DEADLINE).unwrap();
    assert_eq!((closed.dropped, closed.unsent), (991, 0));
}

#[test]
fn what_cannot_be_dropped_lets_one_message_more_wait() {
    let settings = Websocket::new().outbox_bytes(1000).overflow(Overflow::DropOldest);
    let (server, _) = serve(settings);
    let (guest, mut raw) = blocked(&server);
    for text in ["one", "two", "three"] {
        assert_eq!(Comms::websocket(guest).send(text), Ok(1));
    }
    assert_eq!(texts(&mut raw, "three"), ["three"]);
}

#[test]
fn a_handler_does_not_wait_for_its_own_client_where_the_oldest_are_dropped() {
    let settings = Websocket::new().outbox_messages(10).overflow(Overflow::DropOldest);
    let sends = |mut socket: Socket| {
        let asked = socket.recv()?;
        socket.send(vec![0; FILLER])?;
        for number in 0..1000 {
            socket.send(number.to_string())?;
            socket.send_latest("progress", number.to_string())?;
        }
        assert_eq!(asked, Some("go".into()));
        let dropped = socket.dropped();
        assert_eq!(socket.client().dropped(), dropped);
        Comms::websocket("observer").send(dropped.to_string())?;
        socket.recv()?;
        Ok(())
    };
    let observes = |request: &Request| {
        request.with_session("observer").upgrade(|mut socket: Socket| {
            socket.iter().for_each(drop);
            Ok(())
        })
    };
    let routes = vec![route!("/" => websocket(sends)), route!("/observer" => observes)];
    let server = start(Server::new(routes).websocket(settings));
    let mut observer = Raw::open(server.local_addr(), "/observer");
    let began = Instant::now();
    let mut raw = Raw::open(server.local_addr(), "/");
    raw.send_text("go");
    let dropped: usize = observer.text_frame().parse().unwrap();
    assert!(dropped >= 900, "{dropped} dropped");
    assert!(began.elapsed() < Duration::from_secs(9), "it waited for the client");
    assert_eq!(texts(&mut raw, "999").last().unwrap(), "999");
}

#[test]
fn values_and_messages_of_many_threads_are_neither_lost_nor_out_of_order() {
    let (server, _) = serve(Websocket::new().outbox_bytes(64 << 20));
    let guest = Guest::new();
    let mut raw = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    const ROUNDS: usize = 3000;
    const THREADS: usize = 4;
    let senders: Vec<_> = (0..THREADS)
        .map(|thread| {
            thread::spawn(move || {
                let comms = Comms::websocket(guest);
                for round in 0..ROUNDS {
                    let padding = "-".repeat(round % 7 * 300);
                    comms
                        .send_latest(
                            &format!("own {thread}"),
                            format!("v {thread} {round} {padding}"),
                        )
                        .unwrap();
                    comms.send_latest("shared", format!("s 0 {round} {padding}")).unwrap();
                    comms.send(format!("m {thread} {round} {padding}")).unwrap();
                }
            })
        })
        .collect();
    let (mut values, mut messages) = ([None; THREADS], [0; THREADS]);
    let mut reads = 0;
    while messages != [ROUNDS; THREADS] {
        reads += 1;
        if reads % 500 == 0 {
            // So that something waits.
            thread::sleep(Duration::from_millis(20));
        }
        let text = raw.text_frame();
        let mut words = text.split(' ');
        let (kind, thread) = (words.next().unwrap(), words.next().unwrap());
        let (thread, round): (usize, usize) =
            (thread.parse().unwrap(), words.next().unwrap().parse().unwrap());
        match kind {
            "m" => {
                assert_eq!(messages[thread], round, "messages of thread {thread}");
                messages[thread] += 1;
                // The value was sent before, and never waits behind what was sent later.
                assert!(
                    values[thread] >= Some(round),
                    "value {:?} at message {round}",
                    values[thread]
                );
            }
            "v" => {
                assert!(values[thread] < Some(round), "{:?} then {round}", values[thread]);
                values[thread] = Some(round);
            }
            _ => {}
        }
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!(values, [Some(ROUNDS - 1); THREADS]);
    wait_until("nothing waits", || Comms::websocket(guest).try_send("the end") == Ok(1));
    while raw.text_frame() != "the end" {}
}

#[test]
fn keys_take_room_by_their_length() {
    let settings = Websocket::new().outbox_bytes(FILLER + 100_000).overflow(Overflow::Refuse);
    let (server, _) = serve(settings);
    let (guest, mut raw) = blocked(&server);
    let comms = Comms::websocket(guest);
    let long = |number: u32| format!("{} {number}", "k".repeat(40_000));
    let taken: usize = (0..100)
        .map(|number| comms.send_latest(&long(number), number.to_string()).unwrap_or_default())
        .sum();
    assert_eq!(taken, 2, "keys of 40 kB in 100 kB");
    assert_eq!(comms.send_latest(&long(0), "0, newer"), Ok(1));
    assert_eq!(comms.send("the end"), Ok(1));
    assert_eq!(texts(&mut raw, "the end"), ["0, newer", "1", "the end"]);
}
