//! The list of a server's connections, and ending one of them.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, SystemTime};

use common::{
    Guest, Raw, STYLES, echo, echo_in_every_style, get, serve, start, status, wait_until,
};
use parking_lot::Mutex;
use rwf::controller::Websocket;
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;
use rwf::stats::{Call, ConnectionInfo};
use rwf::websocket::Cause;

/// The only connection that there is, once there is just one and `condition` holds for it.
#[track_caller]
fn only(server: &ServerHandle, condition: impl Fn(&ConnectionInfo) -> bool) -> ConnectionInfo {
    let mut found = None;
    wait_until("there is one connection, as expected", || {
        let mut all = server.connections();
        found = all.pop().filter(|one| all.is_empty() && condition(one));
        found.is_some()
    });
    found.unwrap_or_else(|| unreachable!())
}

#[test]
fn a_websocket_is_listed_with_what_went_over_it_in_every_style() {
    for style in STYLES {
        let server = serve(echo_in_every_style());
        let guest = Guest::new();
        let mut client = Raw::open_with(server.local_addr(), style, &guest.cookie());
        client.send_text("hello");
        assert_eq!(client.text_frame(), "hello");
        let info = only(&server, |info| info.sent.messages == 1 && info.handler.is_none());
        assert_eq!(info.session, Some(guest.session()), "{style}");
        assert_eq!((info.route.as_deref(), info.path.as_deref()), (Some(style), Some(style)));
        assert_eq!(info.peer, client.stream.local_addr().unwrap(), "{style}");
        assert!(info.since <= SystemTime::now() && info.age < common::DEADLINE, "{info:?}");
        let volumes = (info.received.messages, info.received.bytes, info.sent.bytes);
        assert_eq!(volumes, (1, 11, 7), "{style}");
        assert_eq!((info.waiting.messages, info.waiting.bytes), (0, 0), "{style}");
        let line = info.to_string();
        let begin = format!(
            "connection={} session={guest} route={style} path={style} peer={} age=",
            info.id, info.peer
        );
        assert!(line.starts_with(&begin), "{line}");
        let end = " in=1 in_bytes=11 out=1 out_bytes=7 waiting=0 waiting_bytes=0";
        assert!(line.ends_with(end), "{line}");
        info.client().unwrap().send("and more").unwrap();
        assert_eq!(client.text_frame(), "and more", "{style}");
        drop(client);
        wait_until("it is gone", || server.connections().is_empty());
        assert!(!info.client().unwrap().is_connected(), "{style}");
    }
}

#[test]
fn what_runs_is_told_with_its_time() {
    let (release, released) = channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let of_busy = Arc::clone(&released);
    let slow = move |_: &Request| {
        let _ = released.lock().recv();
        Ok(Response::new())
    };
    let busy = move |mut socket: Socket| {
        while let Some(message) = socket.recv()? {
            let _ = of_busy.lock().recv();
            socket.send(message)?;
        }
        Ok(())
    };
    let server = start(
        Server::new(vec![route!("/slow/:id" => slow), route!("/busy" => websocket(busy))])
            .handler_warning(Duration::from_millis(40)),
    );
    let mut client = Raw::connect(server.local_addr());
    let info = only(&server, |_| true);
    assert_eq!((info.route, info.path, info.session), (None, None, None), "nothing has come yet");
    client.send(get("/slow/\u{9b}7?token=secret").as_bytes());
    // Longer than the warning, which changes nothing of this.
    let long = Duration::from_millis(200);
    let runs = |info: &ConnectionInfo, call| {
        info.handler.as_ref().is_some_and(|run| run.call == call && run.time > long)
    };
    let info = only(&server, |info| runs(info, Call::Request));
    assert_eq!(info.route.as_deref(), Some("/slow/:id"));
    let handler = info.handler.as_ref().unwrap();
    assert!(handler.name.starts_with("what_runs_is_told"), "{handler:?}");
    let line = info.to_string();
    assert!(line.contains(r" path=/slow/\u{9b}7 peer="), "{line}");
    assert!(line.contains(" call=request running=") && !line.contains("secret"), "{line}");
    release.send(()).unwrap();
    assert_eq!(status(&client.response().0), 200);
    only(&server, |info| info.handler.is_none());
    drop(client);

    let mut client = Raw::open(server.local_addr(), "/busy");
    client.send_text("a");
    only(&server, |info| runs(info, Call::Message));
    release.send(()).unwrap();
    client.text_frame();
    only(&server, |info| info.handler.is_none());
}

#[test]
fn what_waits_and_the_round_trip_are_told() {
    let settings = Websocket::new().ping_interval(Duration::from_millis(50));
    let server = start(Server::new(vec![route!("/" => websocket(echo))]).websocket(settings));
    let guest = Guest::new();
    let mut client = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    assert_eq!(only(&server, |_| true).round_trip, None);
    let ping = client.frame();
    client.send_frame(0x8a, &ping.payload);
    let info = only(&server, |info| info.round_trip.is_some());
    assert!(info.to_string().contains(" round_trip="), "{info}");
    let part = Message::binary(vec![0; 100 << 10]);
    while server.connections()[0].waiting.messages < 3 {
        Comms::websocket(guest).send(&part).unwrap();
    }
    assert!(server.connections()[0].waiting.bytes > 300 << 10);
}

#[test]
fn a_kick_ends_one_connection_in_every_style() {
    for style in STYLES {
        let server = serve(echo_in_every_style());
        let mut client = Raw::open(server.local_addr(), style);
        let mut other = Raw::open(server.local_addr(), style);
        let first = &server.connections()[0];
        assert_eq!(first.peer, client.stream.local_addr().unwrap(), "the older is the first");
        assert!(server.kick(first.id, "enough"), "{style}");
        assert_eq!(client.close_frame(), (1008, "enough".to_owned()), "{style}");
        client.send_close(1008, "");
        client.expect_end();
        drop(client);
        wait_until("it is gone", || server.connections().len() == 1);
        assert!(!server.kick(first.id, "again"), "{style}");
        assert_eq!(server.stats().closed_for(Cause::Program), 1, "{style}");
        other.send_text("unharmed");
        assert_eq!(other.text_frame(), "unharmed", "{style}");
    }
}

#[test]
fn a_kick_cuts_a_connection_that_is_no_websocket_and_a_client_that_does_not_answer() {
    let settings = Websocket::new().close_timeout(Duration::from_millis(100));
    let server = start(Server::new(vec![route!("/" => websocket(echo))]).websocket(settings));
    let mut client = Raw::connect(server.local_addr());
    client.ask(&get("/none"));
    assert!(server.kick(only(&server, |_| true).id, "enough"));
    client.expect_end();
    wait_until("it is gone", || server.connections().is_empty());

    let long = "x".repeat(200);
    let mut silent = Raw::open(server.local_addr(), "/");
    assert!(server.kick(only(&server, |_| true).id, &long));
    let (code, reason) = silent.close_frame();
    assert_eq!((code.into(), reason.len()), (CloseCode::POLICY_VIOLATION, 123));
    wait_until("it is cut", || server.connections().is_empty());
}

#[test]
fn servers_list_and_kick_their_own() {
    let [one, two] = [(); 2].map(|()| serve(vec![route!("/" => websocket(echo))]));
    let mut client = Raw::open(one.local_addr(), "/");
    assert!(two.connections().is_empty());
    let id = only(&one, |_| true).id;
    assert!(!two.kick(id, "not yours"));
    client.send_text("unharmed");
    assert_eq!(client.text_frame(), "unharmed");
}

#[test]
fn whoever_looks_and_kicks_while_clients_come_and_go_holds_up_nobody() {
    let (server, ended) = (serve(echo_in_every_style()), AtomicUsize::new(0));
    thread::scope(|scope| {
        let (server, ended) = (&server, &ended);
        for number in 0..50 {
            scope.spawn(move || {
                for round in 0..3 {
                    let mut client = Raw::open(server.local_addr(), STYLES[number % 3]);
                    client.send_text("hello");
                    // A kick may come first.
                    let _ = client.try_frame();
                    if round == 0 {
                        server.connections().iter().for_each(|info| drop(info.to_string()));
                    }
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for kicker in 0..4 {
            scope.spawn(move || {
                wait_until("all have come and gone", || {
                    for info in server.connections().iter().skip(kicker).step_by(4) {
                        if info.received.messages > 0 {
                            server.kick(info.id, "enough");
                        }
                    }
                    ended.load(Ordering::Relaxed) == 150
                });
            });
        }
    });
    wait_until("all are gone", || server.connections().is_empty());
    assert_eq!(server.stats().websockets.ever, 150);
}
