//! Clients that never finish their request: each is ended by one deadline, and a healthy client gets in meanwhile.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    DEADLINE, Echo, Raw, Wire, get, raise_descriptor_limit, start, status, upgrade_request,
};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// How much later than promised the end may be noticed: other programs run on the same machine.
const GRACE: Duration = Duration::from_secs(3);
/// Between two bytes of a client that trickles.
const TRICKLE: Duration = Duration::from_millis(25);

fn server() -> Server {
    Server::new(vec![route!("/" => Echo)]).open_timeout(OPEN_TIMEOUT).body_timeout(OPEN_TIMEOUT)
}

/// How the server ended a client that it had enough of.
#[derive(Debug)]
struct End {
    /// From the client's beginning.
    after: Duration,
    /// What it got.
    answer: String,
}

/// Sends what `next` gives every now and then, reads whatever comes, until the server ends the stream.
fn trickle(stream: &Wire, began: Instant, mut next: impl FnMut() -> Vec<u8>) -> End {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let mut stream = stream;
    stream.set_read_timeout(Some(TRICKLE)).unwrap();
    while began.elapsed() < DEADLINE {
        // The server reads no more when it has answered, so that a write may fail before the end is read.
        let _ = stream.write_all(&next());
        match stream.read(&mut buffer) {
            Ok(0) => {
                let answer = String::from_utf8(answer).unwrap();
                return End { after: began.elapsed(), answer };
            }
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => panic!("the stream broke after {:?}: {error}", began.elapsed()),
        }
    }
    panic!("the server let it go on for {DEADLINE:?}");
}

/// `bytes` one by one, and then nothing.
fn one_by_one(bytes: impl Into<Vec<u8>>) -> impl FnMut() -> Vec<u8> {
    let mut bytes = bytes.into().into_iter();
    move || bytes.next().into_iter().collect()
}

#[track_caller]
fn assert_in_time(what: &str, end: &End) {
    assert!(end.after >= OPEN_TIMEOUT, "{what}: ended too early: {end:?}");
    assert!(end.after < OPEN_TIMEOUT + GRACE, "{what}: ended too late: {end:?}");
}

/// Opens a WebSocket and gets its echo, again and again for `time`; how long the rounds took, the shortest first.
fn healthy_rounds(server: SocketAddr, time: Duration) -> Vec<Duration> {
    let end = Instant::now() + time;
    let mut rounds = Vec::new();
    while rounds.len() < 5 || Instant::now() < end {
        let began = Instant::now();
        let mut client = Raw::open(server, "/");
        client.send_text("hello");
        assert_eq!(client.text_frame(), "hello");
        rounds.push(began.elapsed());
    }
    rounds.sort_unstable();
    rounds
}

/// The promise is 100 ms; a busy machine gets a second.
#[track_caller]
fn assert_healthy(what: &str, rounds: &[Duration]) {
    let (median, longest) = (rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
    println!("{what}: in {} rounds median {median:.1?}, longest {longest:.1?}", rounds.len());
    assert!(median < Duration::from_secs(1), "{what}: a healthy client took {median:?} to get in");
}

/// Runs `count` abusive clients with a healthy one beside them.
fn abuse<F>(what: &str, server: &ServerHandle, count: usize, client: F) -> Vec<End>
where
    F: Fn(Wire, Instant) -> End + Sync,
{
    let address = server.local_addr();
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(move || {
                    let began = Instant::now();
                    client(Raw::connect(address).stream, began)
                })
            })
            .collect();
        let rounds = healthy_rounds(address, OPEN_TIMEOUT / 2);
        assert_healthy(what, &rounds);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn a_byte_now_and_then_does_not_extend_the_deadline() {
    let long_head = upgrade_request("/", &format!("X-Long: {}\r\n", "x".repeat(2000)));
    let many_heads = upgrade_request("/", &"X-A: b\r\n".repeat(90));
    let blank_lines = "\r\n".repeat(2000);
    let long_body = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{}",
        "x".repeat(9999)
    );
    for (what, head_length, bytes, expected) in [
        ("a long header", 0, long_head.as_str(), Some(408)),
        ("many headers", 0, many_heads.as_str(), Some(408)),
        ("blank lines", 0, blank_lines.as_str(), None),
        ("a body", long_body.len() - 9999, long_body.as_str(), Some(408)),
    ] {
        let server = start(server());
        let (head, rest) = bytes.split_at(head_length);
        let ends = abuse(what, &server, 20, |mut stream, began| {
            stream.write_all(head.as_bytes()).unwrap();
            trickle(&stream, began, one_by_one(rest))
        });
        for end in &ends {
            // A line end is half of a blank line or none at all, depending on when the deadline strikes.
            let answered = (!end.answer.is_empty()).then(|| status(&end.answer));
            assert!(
                answered == expected || (expected.is_none() && answered == Some(408)),
                "{what}: {end:?}"
            );
            assert_in_time(what, end);
        }
    }
}

#[test]
fn a_byte_now_and_then_on_a_kept_connection_misses_the_deadline_too() {
    let server = start(server());
    let mut client = Raw::connect(server.local_addr());
    client.ask(&get("/none"));
    let request = upgrade_request("/", &format!("X-Long: {}\r\n", "x".repeat(2000)));
    let end = trickle(&client.stream, Instant::now(), one_by_one(request));
    assert_eq!(status(&end.answer), 408, "{end:?}");
    assert_in_time("a second request", &end);
}

#[test]
fn silence_and_half_a_request_are_ended() {
    for (what, bytes, expected) in [
        ("silence", String::new(), None),
        ("a method", "GET".to_owned(), Some(408)),
        ("half a request", upgrade_request("/", "")[..100].to_owned(), Some(408)),
        (
            "all but the last byte",
            upgrade_request("/", "").replace("\r\n\r\n", "\r\n\r"),
            Some(408),
        ),
    ] {
        let server = start(server());
        let ends = abuse(what, &server, 20, |mut stream, began| {
            stream.write_all(bytes.as_bytes()).unwrap();
            trickle(&stream, began, Vec::new)
        });
        for end in &ends {
            let answered = (!end.answer.is_empty()).then(|| status(&end.answer));
            assert_eq!(answered, expected, "{what}: {end:?}");
            assert_in_time(what, end);
        }
    }
}

/// Headers for ever, as fast as they are taken, until the server has ended the stream or cut it; what it answered.
fn flood(mut stream: Wire, began: Instant, piece: &str, limit: usize) -> End {
    let reading = thread::spawn({
        let mut stream = stream.try_clone().unwrap();
        move || {
            let mut answer = Vec::new();
            let ended = stream.read_to_end(&mut answer);
            (String::from_utf8(answer).unwrap(), ended)
        }
    });
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n");
    let mut sent = 0;
    while sent < limit && began.elapsed() < DEADLINE && stream.write_all(piece.as_bytes()).is_ok() {
        sent += piece.len();
    }
    let (answer, ended) = reading.join().unwrap();
    if limit < usize::MAX {
        ended.expect("the answer was followed by a reset");
    }
    End { after: began.elapsed(), answer }
}

#[test]
fn headers_without_end_are_refused_and_the_client_is_cut() {
    let idle_timeout = Duration::from_millis(500);
    for (what, piece) in [
        ("endless short headers", "X-A: b\r\n".repeat(1000)),
        ("an endless header", "x".repeat(8000)),
    ] {
        let server = start(server().idle_timeout(idle_timeout));
        let ends =
            abuse(what, &server, 4, |stream, began| flood(stream, began, &piece, usize::MAX));
        for end in &ends {
            assert_eq!(status(&end.answer), 431, "{what}: {end:?}");
            // It is refused as soon as it is over the limit; then it may go on for the idle timeout, no longer.
            assert!(end.after < idle_timeout + GRACE, "{what}: read for too long: {end:?}");
        }
    }
}

#[test]
fn a_client_that_sends_ten_mebibytes_of_headers_gets_its_431() {
    const SIZE: usize = 10 << 20;
    for (what, piece) in [
        ("10 MiB of short headers", "X-A: b\r\n".repeat(1 << 13)),
        ("a header of 10 MiB", "x".repeat(1 << 16)),
    ] {
        let server = start(server());
        let ends = abuse(what, &server, 4, |stream, began| flood(stream, began, &piece, SIZE));
        for end in &ends {
            assert_eq!(status(&end.answer), 431, "{what}: {end:?}");
        }
    }
}

#[test]
fn a_thousand_idle_connections_before_the_handshake_hold_up_nobody() {
    const COUNT: usize = 1200;
    raise_descriptor_limit();
    // Long enough for all of them to be there at the same time, on a slow machine too.
    let open_timeout = Duration::from_secs(4);
    let server = start(server().open_timeout(open_timeout));
    let address = server.local_addr();
    let began = Instant::now();
    let idle: Vec<_> = (0..COUNT).map(|_| (Instant::now(), Raw::connect(address))).collect();
    assert_healthy(
        &format!("{COUNT} idle connections"),
        &healthy_rounds(address, open_timeout / 4),
    );
    let measured = began.elapsed();
    assert!(measured < open_timeout, "took {measured:?}: the machine is too slow to tell");
    for (began, mut client) in idle {
        client.expect_end();
        let after = began.elapsed();
        assert!(after >= open_timeout, "ended too early, after {after:?}");
        assert!(after < open_timeout + GRACE, "ended too late, after {after:?}");
    }
    Raw::open(address, "/");
}
