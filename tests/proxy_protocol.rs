//! The header by which a proxy says whose connection it passes on.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use common::{Echo, Raw, answer, get, start, status, upgrade_request, wait_until};
use rwf::controller::Rate;
use rwf::http::{Proxy, Server, ServerHandle};
use rwf::prelude::*;
use rwf::stats::Refusal;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A server whose proxy is this machine.
fn server() -> Server {
    Server::new(vec![
        route!("/" => Echo),
        route!("/peer" => answer(|request| {
            let (peer, client) = (request.peer(), request.client_ip());
            Ok(Response::new().text(format!("{peer} {client}")))
        })),
    ])
    .proxy_protocol(Ipv4Addr::LOCALHOST)
}

fn line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.1 12345 443\r\n").into_bytes()
}

/// Version 2, with what follows the four fixed bytes.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

fn connect(server: &ServerHandle, header: &[u8]) -> Raw {
    let mut client = Raw::connect(server.local_addr());
    client.send(header);
    client
}

fn refused(server: &ServerHandle) -> u64 {
    server.stats().refused_for(Refusal::ProxyHeader)
}

#[test]
fn whose_connection_it_is_counts_for_all_its_requests() {
    let server = start(server());
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb];
    let with_more = [&addresses[..], &[0x04, 0, 3, 0, 0, 0]].concat();
    for header in [line("192.0.2.7"), binary(1, 0x11, &addresses), binary(1, 0x11, &with_more)] {
        let mut client = connect(&server, &header);
        for _ in 0..2 {
            assert_eq!(client.ask(&get("/peer")).1, "192.0.2.7:12345 192.0.2.7");
        }
        wait_until("it is listed", || server.connections().len() == 1);
        assert_eq!(server.connections()[0].peer, "192.0.2.7:12345".parse::<SocketAddr>().unwrap());
        client.send(upgrade_request("/", "").as_bytes());
        assert_eq!(status(&client.head()), 101);
        client.send_text("hello");
        assert_eq!(client.text_frame(), "hello");
        drop(client);
        wait_until("it has gone", || server.connections().is_empty());
    }
    assert_eq!(refused(&server), 0);
}

#[test]
fn the_proxys_own_connections_keep_its_address() {
    let server = start(server());
    let addresses = [0; 12];
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        binary(0, 0, b""),
        binary(0, 0x11, &addresses),
        binary(1, 0, b""),
    ] {
        let mut client = connect(&server, &header);
        let own = client.stream.local_addr().unwrap();
        let (_, body) = client.ask(&get("/peer"));
        assert_eq!(body, format!("{own} 127.0.0.1"), "{header:?}");
    }
}

#[test]
fn header_and_request_may_come_in_pieces_or_as_one() {
    let server = start(server());
    let bytes = [line("192.0.2.7"), get("/peer").into_bytes()].concat();
    let mut at_once = connect(&server, &bytes);
    assert_eq!(at_once.response().1, "192.0.2.7:12345 192.0.2.7");
    let mut in_pieces = Raw::connect(server.local_addr());
    for byte in &bytes {
        in_pieces.send(&[*byte]);
    }
    assert_eq!(in_pieces.response().1, "192.0.2.7:12345 192.0.2.7");
}

#[test]
fn a_proxy_that_says_nothing_or_nonsense_is_closed_without_an_answer() {
    let server = start(server().open_timeout(Duration::from_millis(200)));
    let wrong = [
        get("/peer").into_bytes(),
        b"PROXY TCP4 nonsense\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443".to_vec(),
        binary(1, 0x12, &[0; 12]),
        b"".to_vec(),
        b"\r\n\r\n".to_vec(),
    ];
    for (before, bytes) in (0..).zip(wrong) {
        let mut client = connect(&server, &bytes);
        let began = Instant::now();
        let answered = client.try_head();
        assert!(!matches!(answered, Ok(Some(_))), "{bytes:?} was answered: {answered:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        wait_until("it is counted", || refused(&server) == before + 1);
    }
}

#[test]
fn the_header_and_the_first_head_share_a_deadline() {
    let timeout = Duration::from_millis(300);
    let server = start(server().open_timeout(timeout));
    let mut client = Raw::connect(server.local_addr());
    let began = Instant::now();
    // A byte now and then, and never to the end.
    let bytes = [line("192.0.2.7"), get("/peer").into_bytes()].concat();
    let pause = timeout / 40;
    for byte in &bytes {
        use std::io::Write;
        if client.stream.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(pause);
    }
    let answered = client.try_head();
    let head = answered.ok().flatten();
    assert!(head.as_ref().is_none_or(|head| status(head) == 408), "{head:?}");
    assert!(began.elapsed() < timeout * 6, "{:?}", began.elapsed());
}

#[test]
fn others_have_no_header_and_are_refused_with_one() {
    let other = start(
        Server::new(vec![route!("/peer" => answer(|_| Ok(Response::new())))])
            .proxy_protocol(Ipv4Addr::new(127, 0, 0, 9)),
    );
    assert_eq!(status(&Raw::connect(other.local_addr()).ask(&get("/peer")).0), 200);
    let mut client = connect(&other, &[line("192.0.2.7"), get("/peer").into_bytes()].concat());
    assert_eq!(status(&client.head()), 400);
    let addresses = binary(1, 0x11, &[0; 12]);
    let mut client = connect(&other, &addresses);
    assert_eq!(status(&client.head()), 400);
}

#[test]
fn limits_per_peer_are_those_of_whom_it_says() {
    let rate = Rate::per(2, Duration::from_secs(3600));
    let server = start(server().max_connections_per_peer(2).handshake_rate_per_peer(rate));
    let come = |client: &str| {
        let mut client = connect(&server, &line(client));
        client.send(upgrade_request("/", "").as_bytes());
        (client.try_head().ok().flatten().map_or(503, |head| status(&head)), client)
    };
    let both = [come("192.0.2.7"), come("192.0.2.7")];
    assert_eq!(both.each_ref().map(|(status, _)| *status), [101, 101]);
    assert_eq!(come("192.0.2.7").0, 503, "a third connection");
    assert_eq!(come("192.0.2.8").0, 101, "another client");
    drop(both);
    wait_until("they have gone", || server.connections().is_empty());
    assert_eq!(come("192.0.2.7").0, 429, "a third handshake");
    assert_eq!(server.stats().refused_for(Refusal::MaxConnectionsPerPeer), 1);
    // As many of the proxy's own as it likes, which say nothing yet.
    let silent: Vec<_> = (0..5).map(|_| Raw::connect(server.local_addr())).collect();
    wait_until("they are there", || server.connections().len() == 5);
    drop(silent);
}

#[test]
fn a_stop_does_not_wait_for_headers() {
    let server = start(server());
    let silent: Vec<_> = (0..3).map(|_| connect(&server, b"PROXY ")).collect();
    wait_until("they are there", || server.connections().len() == 3);
    let began = Instant::now();
    let report = server.shutdown().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((report.cut, refused(&server)), (0, 0), "{report:?}");
    drop(silent);
}

#[test]
#[cfg(unix)]
fn a_proxy_may_come_over_a_unix_socket() {
    use common::Wire;
    let folder = common::Folder::new();
    let path = folder.0.join("proxied.sock");
    let server = Server::new(vec![route!("/peer" => answer(|request| {
        Ok(Response::new().text(request.peer().to_string()))
    }))]);
    let _server = server.bind_unix(&path).proxy_protocol(Proxy::Unix).spawn().unwrap();
    let mut client = Raw::from(Wire::Unix(std::os::unix::net::UnixStream::connect(&path).unwrap()));
    client.send(&line("192.0.2.7"));
    assert_eq!(client.ask(&get("/peer")).1, "192.0.2.7:12345");
}
