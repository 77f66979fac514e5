//! Connections that somebody else has accepted, and read from, and handed over to a running server.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use common::tls::IDENTITY;
use common::{
    DEADLINE, Echo, Raw, Wire, answer, client_frame, get, header, status, upgrade_request,
    wait_until,
};
use rwf::http::{self, Accepted, Proxy, Server, ServerHandle};
use rwf::prelude::*;
use rwf::stats::Refusal;

fn server() -> Server {
    let routes = vec![
        route!("/" => Echo),
        route!("/peer" => answer(|request| {
            let (peer, client) = (request.peer(), request.client_ip());
            Ok(Response::new().text(format!("{peer} {client} {}", request.is_secure())))
        })),
        route!("/length" => answer(|request| {
            Ok(Response::new().text(request.body().len().to_string()))
        })),
    ];
    Server::new(routes).no_listener()
}

/// The kinds of connections that there are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tcp,
    #[cfg(unix)]
    Unix,
}

const KINDS: &[Kind] = &[
    Kind::Tcp,
    #[cfg(unix)]
    Kind::Unix,
];

/// What somebody has accepted.
enum Taken {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Taken {
    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        match self {
            Self::Tcp(stream) => stream.read_exact(&mut bytes).unwrap(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read_exact(&mut bytes).unwrap(),
        }
        bytes
    }
}

impl From<Taken> for Accepted {
    fn from(taken: Taken) -> Self {
        match taken {
            Taken::Tcp(stream) => stream.into(),
            #[cfg(unix)]
            Taken::Unix(stream) => stream.into(),
        }
    }
}

/// A client, and what was accepted of it.
fn pair(kind: Kind) -> (Raw, Taken) {
    match kind {
        Kind::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client.into(), Taken::Tcp(listener.accept().unwrap().0))
        }
        #[cfg(unix)]
        Kind::Unix => {
            let (client, accepted) = UnixStream::pair().unwrap();
            (Wire::Unix(client).into(), Taken::Unix(accepted))
        }
    }
}

/// A client that has sent `bytes`, of which the first `count` were read before the server got it.
fn hand_over(
    server: &ServerHandle,
    kind: Kind,
    bytes: &[u8],
    count: usize,
) -> (Raw, Result<(), http::Error>) {
    let (mut client, mut accepted) = pair(kind);
    client.send(bytes);
    let read = accepted.read(count);
    (client, server.serve(accepted, read))
}

/// The same of a client that is taken.
#[track_caller]
fn handed_over(server: &ServerHandle, kind: Kind, bytes: &[u8], count: usize) -> Raw {
    let (client, served) = hand_over(server, kind, bytes, count);
    served.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    client
}

#[test]
fn a_websocket_opens_wherever_the_other_server_stopped_reading() {
    let server = server().spawn().unwrap();
    let bytes = [upgrade_request("/", "").into_bytes(), client_frame(0x81, b"at once")].concat();
    for &kind in KINDS {
        for count in 0..=bytes.len() {
            let mut client = handed_over(&server, kind, &bytes, count);
            assert_eq!(status(&client.head()), 101, "{kind:?}, {count} bytes");
            assert_eq!(client.text_frame(), "at once", "{kind:?}, {count} bytes");
            client.send_text("later");
            assert_eq!(client.text_frame(), "later", "{kind:?}, {count} bytes");
        }
    }
}

#[test]
fn bodies_and_further_requests_may_have_been_read_too() {
    let server = server().spawn().unwrap();
    let length = 300_000;
    let head =
        format!("POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    let first = [head.as_bytes(), &vec![7; length]].concat();
    let bytes = [first.as_slice(), get("/peer").as_bytes(), get("/length").as_bytes()].concat();
    for &kind in KINDS {
        for count in [0, head.len(), 10_000, first.len(), first.len() + 9, bytes.len()] {
            let (mut client, mut accepted) = pair(kind);
            let mut writing = Raw::from(client.stream.try_clone().unwrap());
            let read = thread::scope(|scope| {
                // The socket does not hold all of it.
                let sending = scope.spawn(|| writing.send(&bytes));
                let read = accepted.read(count);
                server.serve(accepted, read).unwrap();
                assert_eq!(client.response().1, length.to_string(), "{kind:?}, {count} bytes");
                sending.join()
            });
            read.unwrap();
            assert_eq!(status(&client.response().0), 200, "{kind:?}, {count} bytes");
            assert_eq!(client.response().1, "0", "{kind:?}, {count} bytes");
            assert_eq!(client.ask(&get("/length")).1, "0", "what comes later is read");
        }
    }
}

#[test]
fn nonsense_that_was_read_is_refused_as_if_the_server_had_read_it() {
    let server = server().spawn().unwrap();
    let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(20_000));
    for (bytes, expected) in [(&b"\0\0"[..], 400), (long.as_bytes(), 431)] {
        for &kind in KINDS {
            let mut client = handed_over(&server, kind, bytes, bytes.len());
            assert_eq!(status(&client.head()), expected, "{kind:?}");
        }
    }
}

#[test]
fn a_head_that_stays_unfinished_has_its_deadline_from_the_handover_on() {
    let server = server().open_timeout(Duration::from_millis(100)).spawn().unwrap();
    for &kind in KINDS {
        let began = Instant::now();
        let mut client = handed_over(&server, kind, b"GET / HTT", 5);
        assert_eq!(status(&client.head()), 408, "{kind:?}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(100) && took < DEADLINE / 2, "{kind:?}: {took:?}");
    }
}

#[test]
fn it_counts_as_a_connection_of_the_server() {
    for &kind in KINDS {
        let server = server().max_connections(2).spawn().unwrap();
        let request = upgrade_request("/", "");
        let mut clients: Vec<_> =
            (0..2).map(|_| handed_over(&server, kind, request.as_bytes(), request.len())).collect();
        for client in &mut clients {
            assert_eq!(status(&client.head()), 101);
        }
        assert_eq!(server.comms().notify().send("to all"), Ok(2));
        assert_eq!(server.stats().connections.now, 2);
        let (mut third, served) = hand_over(&server, kind, request.as_bytes(), 7);
        let error = served.unwrap_err();
        assert!(
            matches!(error, http::Error::Refused { reason: Refusal::MaxConnections, .. }),
            "{error:?}"
        );
        let told = "refused with 503: there are as many as `max_connections` allows";
        assert!(error.to_string().contains(told), "{error}");
        let head = third.head();
        assert_eq!(status(&head), 503, "{head}");
        assert!(header(&head, "retry-after").is_some(), "{head}");
        assert_eq!(server.stats().refused_for(Refusal::MaxConnections), 1);

        let listed = server.connections();
        if kind == Kind::Tcp {
            let own: Vec<_> = clients.iter().map(|c| c.stream.local_addr().unwrap()).collect();
            assert!(listed.iter().zip(&own).all(|(listed, own)| listed.peer == *own), "{listed:?}");
        }
        assert!(server.kick(listed[0].id, "enough"));
        assert_eq!(clients[0].text_frame(), "to all");
        assert_eq!(clients[0].close_frame(), (1008, "enough".to_owned()));
        drop(clients);
        wait_until("they have left", || server.connections().is_empty());
        assert_eq!(server.stats().connections.ever, 2);
    }
}

#[test]
fn limits_of_a_peer_and_the_word_of_a_proxy_hold() {
    let server = server().max_connections_per_peer(1).spawn().unwrap();
    for &kind in KINDS {
        let request = get("/peer");
        let first = handed_over(&server, kind, request.as_bytes(), 0);
        let (mut second, served) = hand_over(&server, kind, request.as_bytes(), request.len());
        assert!(
            matches!(
                served,
                Err(http::Error::Refused { reason: Refusal::MaxConnectionsPerPeer, .. })
            ),
            "{served:?}"
        );
        assert_eq!(status(&second.head()), 503);
        drop(first);
        wait_until("it has left", || server.connections().is_empty());
    }
    #[cfg(unix)]
    let trusting = self::server().trust_proxy(Proxy::Unix);
    #[cfg(not(unix))]
    let trusting = self::server();
    let trusting = trusting.trust_proxy(std::net::Ipv4Addr::LOCALHOST).spawn().unwrap();
    for &kind in KINDS {
        let request = "GET /peer HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\n\
             X-Forwarded-Proto: https\r\n\r\n";
        let (_, body) = handed_over(&trusting, kind, request.as_bytes(), 30).response();
        assert!(body.ends_with(" 192.0.2.7 true"), "{kind:?}: {body}");
        let (_, body) = handed_over(&server, kind, request.as_bytes(), 30).response();
        assert!(!body.contains("192.0.2.7"), "{kind:?}: {body}");
        wait_until("it has left", || server.connections().is_empty());
    }
}

#[test]
fn a_proxys_header_is_one_wherever_the_other_server_stopped_reading() {
    let server = server().proxy_protocol(std::net::Ipv4Addr::LOCALHOST).spawn().unwrap();
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n";
    let bytes = [header, &get("/peer")].concat();
    for count in 0..=bytes.len() {
        let mut client = handed_over(&server, Kind::Tcp, bytes.as_bytes(), count);
        assert_eq!(client.response().1, "192.0.2.7:12345 192.0.2.7 false", "{count} bytes");
    }
    let request = get("/peer");
    let mut client = handed_over(&server, Kind::Tcp, request.as_bytes(), request.len());
    assert_eq!(client.rest(), b"", "it has no header, and gets no answer");
}

#[test]
fn a_handshake_of_tls_may_have_been_begun_to_be_read() {
    let server = server().tls(IDENTITY.tls()).spawn().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for count in [0, 1, 5, 6, 100] {
        thread::scope(|scope| {
            let accepting = scope.spawn(|| {
                let mut accepted = Taken::Tcp(listener.accept().unwrap().0);
                let read = accepted.read(count);
                server.serve(accepted, read)
            });
            let mut client = Raw::from(common::tls::TlsWire::connect(address).unwrap());
            client.send(get("/peer").as_bytes());
            accepting.join().unwrap().unwrap();
            let (_, body) = client.response();
            assert!(body.ends_with(" 127.0.0.1 true"), "{count} bytes: {body}");
        });
    }
    let mut client = handed_over(&server, Kind::Tcp, get("/peer").as_bytes(), 5);
    assert_eq!(status(&client.head()), 400, "it does not speak TLS");
}

#[test]
fn only_loopback_names_are_hosts_of_what_came_in_at_a_loopback_address() {
    let server = server().spawn().unwrap();
    let request = "GET /peer HTTP/1.1\r\nHost: chat.example\r\n\r\n";
    for &kind in KINDS {
        let expected = if kind == Kind::Tcp { 403 } else { 200 };
        let mut client = handed_over(&server, kind, request.as_bytes(), 3);
        assert_eq!(status(&client.head()), expected, "{kind:?}");
    }
}

#[test]
fn what_was_set_about_blocking_and_timeouts_does_not_matter() {
    let server = server().spawn().unwrap();
    let short = Some(Duration::from_millis(1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for is_nonblocking in [false, true] {
        let mut client = Raw::connect(listener.local_addr().unwrap());
        let (accepted, _) = listener.accept().unwrap();
        accepted.set_nonblocking(is_nonblocking).unwrap();
        accepted.set_read_timeout(short).unwrap();
        accepted.set_write_timeout(short).unwrap();
        server.serve(accepted, Vec::new()).unwrap();
        client.expect_nothing_for(Duration::from_millis(20));
        client.send(upgrade_request("/", "").as_bytes());
        assert_eq!(status(&client.head()), 101);
        client.expect_nothing_for(Duration::from_millis(20));
        // More than the socket holds.
        let message = vec![7; 1 << 20];
        client.send_frame(0x82, &message);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(client.frame().payload, message);
    }
}

#[test]
fn a_handler_may_hand_over() {
    let slot = Arc::new(OnceLock::<Weak<ServerHandle>>::new());
    let routes = vec![
        route!("/" => answer({
            let slot = Arc::clone(&slot);
            move |_| {
                let server = slot.get().and_then(Weak::upgrade).unwrap();
                let request = upgrade_request("/echo", "");
                let mut client = handed_over(&server, Kind::Tcp, request.as_bytes(), 9);
                Ok(Response::new().text(client.head()))
            }
        })),
        route!("/echo" => Echo),
    ];
    let server = Arc::new(Server::new(routes).no_listener().spawn().unwrap());
    slot.set(Arc::downgrade(&server)).unwrap();
    let (_, body) = handed_over(&server, Kind::Tcp, get("/").as_bytes(), 0).response();
    assert_eq!(status(&body), 101);
}

#[test]
fn a_shutdown_closes_it_and_afterwards_none_is_taken() {
    for &kind in KINDS {
        let server = server().spawn().unwrap();
        let request = upgrade_request("/", "");
        let mut client = handed_over(&server, kind, request.as_bytes(), request.len());
        assert_eq!(status(&client.head()), 101);
        let report = thread::scope(|scope| {
            let stopping = scope.spawn(|| server.shutdown());
            assert_eq!(client.close_frame().0, 1001);
            client.send_close(1001, "");
            client.expect_end();
            drop(client);
            stopping.join().unwrap().unwrap()
        });
        assert_eq!((report.closed, report.cut), (1, 0), "{kind:?}");

        let (mut late, served) = hand_over(&server, kind, request.as_bytes(), request.len());
        let error = served.unwrap_err();
        assert!(error.to_string().contains("503: the server shuts down, or has"), "{error}");
        assert_eq!(status(&late.head()), 503, "{kind:?}");
        assert!(server.connections().is_empty());
    }
}

/// What is taken is closed in good order, and what is not is answered; nothing lies between.
#[test]
fn many_that_hand_over_while_the_server_stops_lose_no_connection() {
    for round in 0..20 {
        let server = server().spawn().unwrap();
        let (threads, started) = (8, Barrier::new(9));
        let request = upgrade_request("/", "");
        let (report, taken) = thread::scope(|scope| {
            let handing: Vec<_> = (0..threads)
                .map(|number| {
                    let (server, started, request) = (&server, &started, &request);
                    scope.spawn(move || {
                        let kind = KINDS[number % KINDS.len()];
                        let mut clients = Vec::new();
                        started.wait();
                        let mut refused = loop {
                            let (client, served) =
                                hand_over(server, kind, request.as_bytes(), clients.len() % 99);
                            match served {
                                Ok(()) => clients.push(client),
                                Err(http::Error::Refused { reason: Refusal::Shutdown, .. }) => {
                                    break client;
                                }
                                Err(error) => panic!("{error}"),
                            }
                        };
                        assert_eq!(status(&refused.head()), 503);
                        for client in &mut clients {
                            if status(&client.head()) == 101 {
                                assert_eq!(client.close_frame().0, 1001);
                                client.send_close(1001, "");
                                client.expect_end();
                            }
                        }
                        clients.len()
                    })
                })
                .collect();
            started.wait();
            thread::sleep(Duration::from_micros(round * 500));
            let report = server.shutdown().unwrap();
            let taken: usize = handing.into_iter().map(|thread| thread.join().unwrap()).sum();
            (report, taken)
        });
        assert_eq!((report.closed, report.cut), (taken, 0), "round {round}");
        assert!(server.connections().is_empty(), "round {round}");
    }
}

#[test]
fn a_server_listens_nowhere_only_where_it_is_told_nowhere_else() {
    let server = server().spawn().unwrap();
    assert_eq!(server.local_addrs(), []);
    assert_eq!(server.local_addr(), SocketAddr::from(([0, 0, 0, 0], 0)));
    server.shutdown().unwrap();

    let error = self::server().bind("127.0.0.1:0").spawn().unwrap_err().to_string();
    assert!(error.contains("`no_listener` cannot be where the server is told"), "{error}");
    let error = self::server().run().unwrap_err().to_string();
    assert!(error.contains("`no_listener` needs `spawn`"), "{error}");
}

#[test]
fn a_server_with_a_listener_takes_what_is_handed_over_beside() {
    let server = Server::new(vec![route!("/" => Echo)]).bind("127.0.0.1:0").spawn().unwrap();
    let mut own = Raw::open(server.local_addr(), "/");
    let mut handed = handed_over(&server, Kind::Tcp, upgrade_request("/", "").as_bytes(), 20);
    assert_eq!(status(&handed.head()), 101);
    assert_eq!(server.comms().notify().send("to both"), Ok(2));
    assert_eq!(
        (own.text_frame(), handed.text_frame()),
        ("to both".to_owned(), "to both".to_owned())
    );
}

#[test]
fn a_client_that_has_left_is_no_error() {
    let server = server().spawn().unwrap();
    for &kind in KINDS {
        let (client, accepted) = pair(kind);
        drop(client);
        server.serve(accepted, get("/peer")).unwrap();
    }
    wait_until("they have gone", || server.connections().is_empty());
}
