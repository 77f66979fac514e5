//! Endpoints whose messages go to a channel: what the program's loop gets, and what becomes of clients that it keeps waiting.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Raw, serve, start, wait_until};
use rwf::channel::{bounded, select};
use rwf::controller::{Events, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;
use rwf::websocket::{Cause, Closed};

fn serve_events(capacity: usize) -> (ServerHandle, Events) {
    let (endpoint, events) = rwf::events(capacity);
    (serve(vec![route!("/" => endpoint)]), events)
}

fn open(server: &ServerHandle) -> Raw {
    Raw::open(server.local_addr(), "/")
}

#[track_caller]
fn next(events: &Events) -> Event {
    events.recv_timeout(DEADLINE).expect("no event came")
}

#[track_caller]
fn opened(events: &Events) -> Client {
    match next(events) {
        Event::Opened(client) => client,
        event => panic!("expected a client to open: {event:?}"),
    }
}

#[track_caller]
fn message(events: &Events) -> (Client, String) {
    match next(events) {
        Event::Message(client, message) => (client, message.as_text().unwrap().to_owned()),
        event => panic!("expected a message: {event:?}"),
    }
}

#[track_caller]
fn closed(events: &Events) -> (Client, Closed) {
    match next(events) {
        Event::Closed(client, closed) => (client, closed),
        event => panic!("expected a client to be closed: {event:?}"),
    }
}

#[test]
fn the_events_of_a_client_come_in_order_and_its_handle_reaches_it() {
    let (server, events) = serve_events(8);
    let mut raw = open(&server);
    let client = opened(&events);
    client.send("welcome").unwrap();
    assert_eq!(raw.text_frame(), "welcome");
    raw.send_text("one");
    raw.send_text("two");
    assert_eq!(message(&events), (client.clone(), "one".to_owned()));
    assert_eq!(message(&events), (client.clone(), "two".to_owned()));
    let kept: HashMap<Client, u8> = [(client.clone(), 1)].into();
    raw.send_close(4005, "done");
    let (who, how) = closed(&events);
    assert_eq!((kept.get(&who), how.code, how.cause), (Some(&1), 4005.into(), Cause::Client));
    assert_eq!(client.send("too late"), Err(SendError::Closing));
    assert!(!client.is_connected());
    assert_eq!(client.close(1000, ""), Ok(false));
    assert!(events.is_empty(), "{:?}", events.try_recv());
}

#[test]
fn a_loop_selects_among_events_and_its_own_work() {
    let (server, events) = serve_events(1);
    let (work, to_do) = bounded(1);
    let mut raw = open(&server);
    raw.send_text("message");
    raw.send_close(1000, "");
    work.send(7).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(select! {
            recv(events) -> event => match event.unwrap() {
                Event::Opened(_) => "opened".to_owned(),
                Event::Message(_, message) => message.as_text().unwrap().to_owned(),
                Event::Closed(..) => "closed".to_owned(),
            },
            recv(to_do) -> item => format!("item {}", item.unwrap()),
            default(DEADLINE) => panic!("nothing more came after {seen:?}"),
        });
    }
    seen.sort();
    assert_eq!(seen, ["closed", "item 7", "message", "opened"]);
}

#[test]
fn a_full_channel_holds_back_its_own_clients_and_nobody_else() {
    let (endpoint, events) = rwf::events(2);
    let server = serve(vec![route!("/" => endpoint), route!("/echo" => common::Echo)]);
    let mut flooding = open(&server);
    let client = opened(&events);
    let sender = thread::spawn(move || {
        let text = "x".repeat(1000);
        for _ in 0..50_000 {
            flooding.send_text(&text);
        }
        flooding
    });
    wait_until("the channel is full", || events.len() == 2);
    let mut other = Raw::open(server.local_addr(), "/echo");
    other.send_text("not concerned");
    assert_eq!(other.text_frame(), "not concerned");
    assert!(client.is_connected());
    client.send("you may go on").unwrap();
    for _ in 0..50_000 {
        assert_eq!(message(&events).0, client);
    }
    let mut flooding = common::join("the flood", sender);
    assert_eq!(flooding.text_frame(), "you may go on");
}

#[test]
fn a_client_whose_events_nobody_takes_is_held_back_by_tcp() {
    /// More than the buffers of both ends ever take.
    const FLOOD: usize = 256 << 20;
    let (server, events) = serve_events(1);
    let raw = open(&server);
    let client = opened(&events);
    let wire = common::client_frame(0x81, &[b'x'; 100]).repeat(1000);
    raw.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while let Ok(count) = (&raw.stream).write(&wire[sent % wire.len()..]) {
        sent += count;
        assert!(sent < FLOOD, "the server has taken {sent} bytes of which the program took none");
    }
    assert!(client.is_connected());
    // All that came whole is there, in order, and nothing else.
    let mut others = open(&server);
    others.send_text("the other");
    let mut messages = 0;
    let other = loop {
        match next(&events) {
            Event::Opened(client) => break client,
            Event::Message(from, _) => messages += usize::from(from == client),
            Event::Closed(client, closed) => panic!("{client:?} was closed: {closed:?}"),
        }
    };
    assert!(messages > 1, "several short messages of a client wait");
    assert_ne!(other, client);
}

#[test]
fn clients_that_all_send_more_than_there_is_room_for_are_served_in_turn() {
    const CLIENTS: usize = 50;
    const MESSAGES: usize = 200;
    let (server, events) = serve_events(1);
    let clients: Vec<_> = (0..CLIENTS).map(|_| open(&server)).collect();
    let sending = thread::spawn(move || {
        let mut clients = clients;
        for number in 0..MESSAGES {
            clients.iter_mut().for_each(|client| client.send_text(&number.to_string()));
        }
        clients.iter_mut().for_each(|client| client.send_close(1000, ""));
        clients
    });
    let mut counts: HashMap<Client, usize> = HashMap::new();
    let mut closed = 0;
    while closed < CLIENTS {
        match next(&events) {
            Event::Opened(client) => assert_eq!(counts.insert(client, 0), None, "opened twice"),
            Event::Message(client, message) => {
                let count = counts.get_mut(&client).expect("it was opened");
                assert_eq!(message, count.to_string().as_str(), "in order");
                *count += 1;
            }
            Event::Closed(client, _) => {
                assert_eq!(counts[&client], MESSAGES, "all messages come before the end");
                closed += 1;
            }
        }
    }
    drop(common::join("the clients", sending));
}

/// Which clients were opened, and whether they are closed.
#[derive(Debug, Default)]
struct Seen(HashMap<Client, bool>);

impl Seen {
    #[track_caller]
    fn note(&mut self, event: Event) {
        match event {
            Event::Opened(client) => {
                assert_eq!(self.0.insert(client, false), None, "opened twice");
            }
            Event::Message(client, _) => {
                assert_eq!(self.0.get(&client), Some(&false), "a message of a client not open");
            }
            Event::Closed(client, _) => {
                assert_eq!(self.0.insert(client, true), Some(false), "closed when not open");
            }
        }
    }

    fn are_all_closed(&self) -> bool {
        self.0.values().all(|is_closed| *is_closed)
    }
}

#[test]
fn every_client_that_was_opened_is_closed_once_whatever_happens() {
    for round in 0..5 {
        let (endpoint, events) = rwf::events(4);
        let settings = Websocket::new().close_timeout(Duration::from_millis(200));
        let server = start(Server::new(vec![route!("/" => endpoint)]).websocket(settings));
        let raws: Vec<_> = (0..40).map(|_| open(&server)).collect();
        let clients: Vec<_> = (0..)
            .zip(raws)
            .map(|(number, mut raw)| {
                raw.send_text("hello");
                thread::spawn(move || {
                    // The server may have shut down before this thread runs.
                    let send = |bytes: &[u8]| drop((&raw.stream).write_all(bytes));
                    match number % 4 {
                        0 => {}
                        1 => send(&common::client_frame(0x88, &1000_u16.to_be_bytes())),
                        2 => send(&[0xff]),
                        // Stays to the end.
                        _ => return Some(raw),
                    }
                    None
                })
            })
            .collect();
        let mut seen = Seen::default();
        // For a while the loop takes events; then it is busy with the shutdown, and takes the rest after that.
        for _ in 0..20 {
            seen.note(next(&events));
        }
        let began = Instant::now();
        let report = server.shutdown().unwrap();
        assert_eq!(report.running, 0, "{report:?}");
        assert!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
        drop(server);
        while let Ok(event) = events.recv_timeout(DEADLINE) {
            seen.note(event);
            if seen.are_all_closed() && events.is_empty() {
                // Whoever delivers late ends is done, or has one more.
                match events.recv_timeout(Duration::from_millis(50)) {
                    Ok(event) => seen.note(event),
                    Err(_) => break,
                }
            }
        }
        assert!(!seen.0.is_empty());
        assert!(seen.are_all_closed(), "round {round}: {seen:?}");
        for client in clients {
            drop(common::join("a client", client));
        }
    }
}

#[test]
fn dropping_the_receiver_closes_the_clients_and_those_that_come_later() {
    let (server, events) = serve_events(0);
    let mut quiet = open(&server);
    let client = opened(&events);
    drop(events);
    let reason = "the program takes no more messages";
    assert_eq!(quiet.close_frame(), (1001, reason.to_owned()));
    quiet.send_close(1001, "");
    quiet.expect_end();
    assert!(!client.is_connected());
    let mut late = open(&server);
    assert_eq!(late.close_frame(), (1001, reason.to_owned()));
    late.send_close(1001, "");
    late.expect_end();
    let report = server.shutdown().unwrap();
    assert_eq!((report.cut, report.running), (0, 0), "{report:?}");
}

#[test]
fn a_program_that_takes_no_events_holds_up_no_shutdown() {
    let (endpoint, events) = rwf::events(1);
    let settings = Websocket::new().close_timeout(Duration::from_millis(100));
    let server = start(Server::new(vec![route!("/" => endpoint)]).websocket(settings));
    let mut clients: Vec<_> = (0..10).map(|_| open(&server)).collect();
    for client in &mut clients {
        client.send_text("is anybody there?");
    }
    wait_until("the channel is full", || events.is_full());
    let began = Instant::now();
    let report = server.shutdown().unwrap();
    assert_eq!(report.running, 0, "{report:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[test]
fn a_capacity_may_be_as_large_as_can_be_said() {
    let (server, events) = serve_events(usize::MAX);
    let _client = open(&server);
    opened(&events);
    assert_eq!(events.capacity(), Some(65_536));
}

#[test]
fn a_loop_over_the_events_ends_with_the_server() {
    let (server, events) = serve_events(1);
    let mut client = open(&server);
    let counting = thread::spawn(move || {
        let mut seen = Seen::default();
        (&events).into_iter().for_each(|event| seen.note(event));
        seen
    });
    client.send_close(1000, "");
    assert_eq!(client.close_frame().0, 1000);
    drop(client);
    drop(server);
    let seen = common::join("the loop", counting);
    assert!(seen.0.len() == 1 && seen.are_all_closed(), "{seen:?}");
}

#[test]
fn clients_that_come_and_go_do_not_outrun_the_ends_of_others() {
    const CLIENTS: usize = 16;
    let (endpoint, events) = rwf::events(1);
    let routes = vec![route!("/" => endpoint)];
    let server = start(Server::new(routes).max_connections(CLIENTS));
    let address = server.local_addr();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut raw = Raw::connect(address);
                    // One too many is refused, over TLS before it can send.
                    let _ = raw.stream.write_all(common::upgrade_request("/", "").as_bytes());
                    let _ = raw.try_head();
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let (mut open, mut most) = (0_usize, 0);
        for _ in 0..2000 {
            match next(&events) {
                Event::Opened(_) => open += 1,
                Event::Message(..) => {}
                Event::Closed(..) => open -= 1,
            }
            most = most.max(open);
            // The program takes its time.
            thread::sleep(Duration::from_micros(100));
        }
        is_over.store(true, Ordering::Relaxed);
        drop(events);
        // So many may be there at a time, and as many more before an end is found late.
        assert!(most <= 3 * CLIENTS, "of {CLIENTS} clients {most} were open by the events");
        println!("of {CLIENTS} clients {most} were open by the events");
    });
}

#[test]
fn an_endpoint_of_events_may_have_settings_of_its_own() {
    let (endpoint, events) = rwf::events(1);
    let endpoint = endpoint.settings(|defaults| defaults.max_message_size(3));
    let server = serve(vec![route!("/" => endpoint)]);
    let mut client = open(&server);
    opened(&events);
    client.send_text("four");
    assert_eq!(client.close_frame().0, 1009);
    assert_eq!(closed(&events).1.cause, Cause::Violation);
}
