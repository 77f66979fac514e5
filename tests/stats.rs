//! What is counted: exact when nothing happens meanwhile, and never going down while much does.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Guest, Raw, STYLES, client_frame, echo, echo_in_every_style, get, serve, start, status,
    upgrade_request, wait_until,
};
use rwf::controller::{Overflow, Rate, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;
use rwf::stats::{Call, Refusal, RouteStats, Stats};
use rwf::websocket::Cause;

/// The numbers of a route, one after the other.
fn of(route: &RouteStats) -> [u64; 7] {
    let RouteStats { requests, websockets, received, sent, .. } = route;
    [
        *requests,
        websockets.now,
        websockets.ever,
        received.messages,
        received.bytes,
        sent.messages,
        sent.bytes,
    ]
}

/// Waits until the route has these numbers: a client has its answer before the server's thread is done with it.
#[track_caller]
fn expect(server: &ServerHandle, route: &str, expected: [u64; 7]) {
    let numbers = || of(server.stats().route(route).unwrap_or_else(|| panic!("no {route}")));
    let deadline = Instant::now() + common::DEADLINE;
    while numbers() != expected {
        assert!(Instant::now() < deadline, "{route}: {:?}, not {expected:?}", numbers());
        thread::sleep(Duration::from_millis(1));
    }
}

fn close(mut client: Raw) {
    client.send_close(1000, "");
    client.close_frame();
    client.expect_end();
}

#[test]
fn messages_and_bytes_are_counted_by_route_in_every_style() {
    let server = serve(echo_in_every_style());
    for (place, style) in STYLES.iter().enumerate() {
        let mut client = Raw::open(server.local_addr(), style);
        for _ in 0..3 {
            client.send_text("hello");
            assert_eq!(client.text_frame(), "hello");
        }
        client.send_frame(0x89, b"!");
        client.frame();
        // A frame from a client has four bytes of mask more.
        let (received, sent) = (3 * 11 + 7, 3 * 7 + 3);
        expect(&server, style, [1, 1, 1, 3, received, 3, sent]);
        let stats = server.stats();
        assert_eq!((stats.websockets.now, stats.websockets.ever), (1, place as u64 + 1), "{style}");
        assert_eq!(stats.connections.now, 1, "{style}");
        close(client);
        expect(&server, style, [1, 0, 1, 3, received + 8, 3, sent + 4]);
    }
    let stats = server.stats();
    let routes: Vec<_> = stats.routes.iter().map(|route| &*route.route).collect();
    assert_eq!(routes, STYLES, "in the order in which they were written");
    assert_eq!((stats.connections.now, stats.connections.ever, stats.requests), (0, 3, 3));
    assert_eq!((stats.received.messages, stats.received.bytes), (9, 3 * 48));
    assert_eq!((stats.sent.messages, stats.sent.bytes), (9, 3 * 28));
    assert_eq!(stats.closed_for(Cause::Client), 3);
    assert_eq!(stats.handshake_times.count(), 3);
    assert_eq!(stats.handler_times.count(), 3 * 5, "beginning, three messages and end of each");
    assert_eq!(server.shutdown().unwrap().cut, 0);
    assert_eq!(server.stats(), stats, "the same after the shutdown");
}

#[test]
fn requests_are_counted_with_their_handlers_times() {
    let slow = |_: &Request| {
        thread::sleep(Duration::from_millis(30));
        Ok(Response::new())
    };
    let fast = |_: &Request| Ok(Response::new());
    let server = serve(vec![route!("/slow/:id" => slow), route!("/fast" => fast)]);
    let mut client = Raw::connect(server.local_addr());
    for path in ["/fast", "/slow/1", "/fast", "/none", "/slow/2"] {
        client.ask(&get(path));
    }
    let stats = server.stats();
    assert_eq!((stats.requests, stats.connections.ever), (5, 1));
    assert_eq!(of(stats.route("/slow/:id").unwrap()), [2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(of(stats.route("/fast").unwrap()), [2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(stats.refused_for(Refusal::NotFound), 1);
    let times = &stats.handler_times;
    assert_eq!(times.count(), 4, "what has no route has no handler");
    assert!(times.sum() >= Duration::from_millis(60), "{times:?}");
    let short = times.buckets().find(|(bound, _)| *bound == Duration::from_millis(25)).unwrap();
    assert!(short.1 <= 2, "{:?}", times.buckets().collect::<Vec<_>>());
    let slowest = &stats.slowest[0];
    assert_eq!((&*slowest.route, slowest.call), ("/slow/:id", Call::Request));
    assert!(slowest.took >= Duration::from_millis(30), "{slowest:?}");
    assert!(slowest.handler.starts_with("requests_are_counted"), "{slowest:?}");
}

#[test]
fn a_slow_handler_of_a_websocket_is_found() {
    let slow = |mut socket: Socket| {
        while let Some(message) = socket.recv()? {
            thread::sleep(Duration::from_millis(50));
            socket.send(message)?;
        }
        Ok(())
    };
    let server = serve(vec![route!("/slow" => websocket(slow)), route!("/" => websocket(echo))]);
    let mut client = Raw::open(server.local_addr(), "/slow");
    client.send_text("a");
    client.text_frame();
    wait_until("it is told", || {
        let stats = server.stats();
        let slowest = stats.slowest.first();
        slowest.is_some_and(|slow| slow.route == "/slow" && slow.call == Call::Message)
    });
}

#[test]
fn each_cause_of_a_close_is_counted() {
    let quick = Duration::from_millis(50);
    let settings =
        Websocket::new().close_timeout(quick).outbox_bytes(64 << 10).max_message_size(100);
    let hasty = |defaults: Websocket| defaults.write_timeout(Duration::from_millis(100));
    let pinging = move |defaults: Websocket| defaults.ping_interval(quick).ping_timeout(quick);
    let failing = |mut socket: Socket| {
        socket.recv()?;
        Err(Error::new("as the test wishes"))
    };
    let server = start(
        Server::new(vec![
            route!("/" => websocket(echo)),
            route!("/fail" => websocket(failing)),
            route!("/silent" => websocket(echo).settings(pinging)),
            route!("/stall" => websocket(echo).settings(hasty)),
        ])
        .websocket(settings),
    );
    let wait_for = |cause| {
        let told = || server.stats().closed_for(cause);
        wait_until(&format!("one is closed for {cause:?}"), || told() > 0);
        assert_eq!(told(), 1, "{cause:?}");
    };
    close(Raw::open(server.local_addr(), "/"));
    wait_for(Cause::Client);

    let mut client = Raw::open(server.local_addr(), "/fail");
    client.send_text("a");
    assert_eq!(client.close_frame().0, 1011);
    wait_for(Cause::Program);

    let mut client = Raw::open(server.local_addr(), "/");
    client.send(&client_frame(0x82, &[0; 101]));
    assert_eq!(client.close_frame().0, 1009);
    wait_for(Cause::Violation);

    drop(Raw::open(server.local_addr(), "/"));
    wait_for(Cause::Lost);

    let client = Raw::open(server.local_addr(), "/silent");
    wait_for(Cause::Silent);
    drop(client);

    let guest = Guest::new();
    let client = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    while Comms::websocket(guest).send(Message::binary(vec![0; 16 << 10])) == Ok(1) {}
    wait_for(Cause::SlowReceiver);
    assert!(server.stats().lost > 0, "{:?}", server.stats());
    drop(client);

    let guest = Guest::new();
    let client = Raw::open_with(server.local_addr(), "/stall", &guest.cookie());
    Comms::websocket(guest).send(Message::binary(vec![0; 64 << 20])).unwrap();
    wait_for(Cause::Stalled);
    drop(client);

    let mut client = Raw::open(server.local_addr(), "/");
    thread::scope(|scope| {
        let shutdown = scope.spawn(|| server.shutdown());
        assert_eq!(client.close_frame().0, 1001);
        client.send_close(1001, "");
        client.expect_end();
        shutdown.join().unwrap().unwrap();
    });
    wait_for(Cause::Shutdown);
    let stats = server.stats();
    let closed: u64 = stats.closed.iter().map(|(_, count)| count).sum();
    assert_eq!((stats.websockets.now, stats.websockets.ever, closed), (0, 8, 8), "{stats:?}");
    assert_eq!((stats.waiting.messages, stats.waiting.bytes, stats.writer_threads), (0, 0, 0));
}

#[test]
fn each_reason_to_refuse_is_counted() {
    let server = start(
        Server::new(vec![route!("/" => websocket(echo))])
            .max_connections(4)
            .max_connections_per_session(1)
            .max_head_size(1000)
            .open_timeout(Duration::from_millis(300)),
    );
    let ask = |request: &str| status(&Raw::connect(server.local_addr()).ask(request).0);
    let bad = |request: &str| request.replace("Version: 13", "Version: 8");
    let cases = [
        (get("/none"), 404, Refusal::NotFound),
        (upgrade_request("/", "Origin: http://evil.example\r\n"), 403, Refusal::Origin),
        (bad(&upgrade_request("/", "")), 426, Refusal::Handshake),
        (get("/"), 426, Refusal::Handshake),
        (get("/").replace("localhost", "evil.example"), 403, Refusal::Host),
        (get("no slash"), 400, Refusal::Malformed),
        (get(&format!("/{}", "x".repeat(2000))), 431, Refusal::TooLarge),
        ("GET / HTTP/1.1\r\n".to_owned(), 408, Refusal::Timeout),
    ];
    for (request, code, reason) in cases {
        let before = server.stats().refused_for(reason);
        assert_eq!(ask(&request), code, "{request}");
        assert_eq!(server.stats().refused_for(reason), before + 1, "{reason:?}");
    }
    wait_until("all are gone", || server.stats().connections.now == 0);

    let guest = Guest::new();
    let _first = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    let mut second = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    assert_eq!(second.close_frame().0, 1013);
    assert_eq!(server.stats().refused_for(Refusal::MaxConnectionsPerSession), 1);
    drop(second);
    wait_until("it is gone", || server.stats().connections.now == 1);

    let _others = [(); 3].map(|()| Raw::open(server.local_addr(), "/"));
    let before = server.stats().connections.ever;
    let mut refused = Raw::connect(server.local_addr());
    assert_eq!(status(&refused.response().0), 503);
    let stats = server.stats();
    assert_eq!(stats.refused_for(Refusal::MaxConnections), 1);
    assert_eq!(stats.connections.ever, before, "a refused one is none");

    let routes = || vec![route!("/" => websocket(echo))];
    let server = start(
        Server::new(routes())
            .max_connections_per_peer(1)
            .handshake_rate_per_peer(Rate::per(1, Duration::from_secs(3600))),
    );
    let client = Raw::open(server.local_addr(), "/");
    assert_eq!(status(&Raw::connect(server.local_addr()).response().0), 503);
    assert_eq!(server.stats().refused_for(Refusal::MaxConnectionsPerPeer), 1);
    close(client);
    wait_until("it is gone", || server.stats().connections.now == 0);
    let (head, _) = Raw::connect(server.local_addr()).ask(&upgrade_request("/", ""));
    assert_eq!(status(&head), 429);
    assert_eq!(server.stats().refused_for(Refusal::HandshakeRate), 1);
    wait_until("it is gone", || server.stats().connections.now == 0);

    let mut half = Raw::connect(server.local_addr());
    half.send(b"GET / HTTP/1.1\r\n");
    wait_until("it is there", || server.stats().connections.now == 1);
    server.shutdown().unwrap();
    assert_eq!(status(&half.response().0), 503);
    assert_eq!(server.stats().refused_for(Refusal::Shutdown), 1);
}

#[test]
fn what_waits_and_what_is_dropped_or_replaced_is_counted() {
    let settings = Websocket::new()
        .overflow(Overflow::DropOldest)
        .outbox_bytes(1 << 20)
        .max_unsent_bytes(16 << 10);
    let server = start(Server::new(vec![route!("/" => websocket(echo))]).websocket(settings));
    let guest = Guest::new();
    let mut client = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    let part = Message::binary(vec![0; 100 << 10]);
    let comms = Comms::websocket(guest);
    let mut sent = 0;
    while server.stats().waiting.messages < 5 {
        comms.send(&part).unwrap();
        sent += 1;
    }
    wait_until("a thread waits for it", || server.stats().writer_threads == 1);
    let waiting = server.stats().waiting;
    assert!(waiting.bytes >= waiting.messages * (100 << 10), "{waiting:?}");
    comms.send_latest("key", "old").unwrap();
    comms.send_latest("key", "new").unwrap();
    sent += 2;
    assert_eq!(server.stats().replaced, 1);
    while server.stats().dropped == 0 {
        comms.send(&part).unwrap();
        sent += 1;
    }
    while server.stats().waiting.messages > 0 {
        client.frame();
    }
    wait_until("nothing waits", || server.stats().writer_threads == 0);
    let stats = server.stats();
    assert_eq!(stats.sent.messages + stats.dropped + stats.replaced, sent, "{stats:?}");
    assert_eq!((stats.waiting.messages, stats.waiting.bytes, stats.lost), (0, 0, 0), "{stats:?}");
}

#[test]
fn servers_count_apart_and_the_process_sums_them_also_when_they_have_ended() {
    let routes = || vec![route!("/summed" => websocket(echo)), route!("/other" => websocket(echo))];
    let of_process = || rwf::stats().route("/summed").map_or([0; 7], of);
    let (one, two) = (serve(routes()), serve(routes()));
    assert_eq!(of_process(), [0; 7]);
    let mut client = Raw::open(one.local_addr(), "/summed");
    client.send_text("a");
    client.text_frame();
    expect(&one, "/summed", [1, 1, 1, 1, 7, 1, 3]);
    expect(&two, "/summed", [0; 7]);
    let mut other = Raw::open(two.local_addr(), "/summed");
    other.send_text("a");
    other.text_frame();
    expect(&two, "/summed", [1, 1, 1, 1, 7, 1, 3]);
    assert_eq!(of_process(), [2, 2, 2, 2, 14, 2, 6]);
    close(client);
    expect(&one, "/summed", [1, 0, 1, 1, 15, 1, 7]);
    drop(one);
    assert_eq!(of_process(), [2, 1, 2, 2, 22, 2, 10]);
    close(other);
    expect(&two, "/summed", [1, 0, 1, 1, 15, 1, 7]);
    two.shutdown().unwrap();
    assert_eq!(of_process(), [2, 0, 2, 2, 30, 2, 14]);
    drop(two);
    assert_eq!(of_process(), [2, 0, 2, 2, 30, 2, 14]);
    let routes = rwf::stats().routes;
    assert_eq!(routes.iter().filter(|route| route.route == "/summed").count(), 1);
}

#[test]
fn a_handler_that_outlives_its_server_is_counted_until_it_ends() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = parking_lot::Mutex::new(released);
    let stuck = move |mut socket: Socket| {
        socket.recv()?;
        let _ = released.lock().recv();
        Ok(())
    };
    let server = start(
        Server::new(vec![route!("/outlives" => websocket(stuck))]).shutdown_timeout(Duration::ZERO),
    );
    let mut client = Raw::open(server.local_addr(), "/outlives");
    client.send_text("a");
    expect(&server, "/outlives", [1, 1, 1, 1, 7, 0, 0]);
    assert_eq!(server.shutdown().unwrap().running, 1);
    let of_process = || rwf::stats().route("/outlives").map(|route| route.websockets).unwrap();
    assert_eq!((of_process().now, of_process().ever), (1, 1));
    drop(server);
    assert_eq!((of_process().now, of_process().ever), (1, 1));
    drop(release);
    wait_until("it has ended", || of_process().now == 0);
    assert_eq!(of_process().ever, 1);
}

/// What never goes down.
fn counts(stats: &Stats) -> Vec<u64> {
    let Stats { connections, websockets, requests, received, sent, lost, .. } = stats;
    let mut counts = vec![
        connections.ever,
        websockets.ever,
        *requests,
        received.messages,
        received.bytes,
        sent.messages,
        sent.bytes,
        *lost,
        stats.handshake_times.count(),
        stats.handler_times.count(),
        stats.closed.iter().map(|(_, count)| count).sum(),
        stats.refused.iter().map(|(_, count)| count).sum(),
    ];
    counts.extend(stats.routes.iter().flat_map(|route| {
        let [requests, _, rest @ ..] = of(route);
        std::iter::once(requests).chain(rest)
    }));
    counts
}

#[test]
fn whoever_asks_while_clients_come_and_go_sees_counts_grow() {
    let server = serve(echo_in_every_style());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for asker in 0..4 {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let mut last = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    let stats = if asker % 2 == 0 { server.stats() } else { rwf::stats() };
                    let now = counts(&stats);
                    let goes_down = last.iter().zip(&now).any(|(last, now)| last > now);
                    assert!(!goes_down, "{last:?}, then {now:?}");
                    last = now;
                }
            });
        }
        let clients: Vec<_> = (0..50)
            .map(|number| {
                let address = server.local_addr();
                scope.spawn(move || {
                    for round in 0..4 {
                        let mut client = Raw::open(address, STYLES[(number + round) % 3]);
                        for _ in 0..3 {
                            client.send_text("hello");
                            client.text_frame();
                        }
                        if round % 2 == 0 {
                            close(client);
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a client failed");
    });
    wait_until("all are gone", || server.stats().connections.now == 0);
    let stats = server.stats();
    assert_eq!((stats.websockets.now, stats.websockets.ever), (0, 200));
    assert_eq!((stats.received.messages, stats.sent.messages), (600, 600));
    assert_eq!((stats.closed_for(Cause::Client), stats.closed_for(Cause::Lost)), (100, 100));
}
