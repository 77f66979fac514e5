//! The clients: honest ones, who panic at anything that is not as promised, and abusive ones, who do not care.
#![allow(clippy::unwrap_used, reason = "a panic is how a client fails")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::net::sockopt::set_socket_linger;

use crate::common::{
    DEADLINE, Frame, Random, Raw, client_frame, get, header, status, upgrade_request,
};

/// A kind of client: its name, how many there are, and what one does until the traffic is over.
type Kind = (&'static str, usize, fn(&Traffic, u64));

pub(crate) const HONEST: &[Kind] = &[
    ("echo", 12, echo),
    ("pipelined echo", 2, pipelined_echo),
    ("pushed", 3, pushed),
    ("keep-alive HTTP", 2, keep_alive),
    ("ticker", 3, ticker),
    ("asked", 2, asked),
    ("within its rate", 2, within_its_rate),
    ("sums", 1, sums),
    ("files", 2, files),
    ("metrics", 1, metrics),
];

pub(crate) const ABUSE: &[Kind] = &[
    ("slow reader", 3, slow_reader),
    ("never reads", 3, never_reads),
    ("pings, never reads", 1, pings_and_never_reads),
    ("flood of connects", 1, flood_of_connects),
    ("garbage frames", 2, garbage_frames),
    ("garbage requests", 2, garbage_requests),
    ("half-open handshakes", 2, half_open_handshakes),
    ("byte by byte", 2, byte_by_byte),
    ("announces and leaves", 1, announces_and_leaves),
    ("vanishes", 2, vanishes),
    ("slow watcher", 2, slow_watcher),
    ("over its rate", 2, over_its_rate),
    ("no JSON", 1, no_json),
    ("kicked", 3, kicked),
];

/// What all clients share.
pub(crate) struct Traffic {
    server: SocketAddr,
    end: Instant,
    /// Rounds of each kind.
    rounds: Mutex<BTreeMap<String, usize>>,
    /// How long honest echoes took.
    latencies: Mutex<Vec<Duration>>,
}

impl Traffic {
    pub(crate) fn new(server: SocketAddr, time: Duration) -> Self {
        Self {
            server,
            end: Instant::now() + time,
            rounds: Mutex::default(),
            latencies: Mutex::default(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Counts a round of the calling client; whether there is time for another.
    fn goes_on(&self) -> bool {
        let name = thread::current().name().unwrap_or_default().to_owned();
        *self.rounds.lock().entry(name).or_default() += 1;
        !self.is_over()
    }

    pub(crate) fn print(&self) {
        for (name, rounds) in &*self.rounds.lock() {
            println!("{name}: {rounds} rounds");
        }
        let mut latencies = self.latencies.lock();
        latencies.sort_unstable();
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        println!(
            "{} honest echoes: median {:.1?}, p99 {:.1?}, longest {:.1?}",
            latencies.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// The next frame but for binary messages, which go to everybody, and pings, which it answers.
fn frame(client: &mut Raw) -> Frame {
    loop {
        let frame = client.frame();
        match frame.first {
            0x82 => {}
            0x89 => client.send_frame(0x8a, &frame.payload),
            _ => return frame,
        }
    }
}

/// The next text.
fn text(client: &mut Raw) -> String {
    let frame = frame(client);
    assert_eq!(frame.first, 0x81, "expected a text: {frame:?}");
    String::from_utf8(frame.payload).unwrap()
}

/// The closing handshake.
fn leave(mut client: Raw) {
    client.send_close(1000, "bye");
    let close = frame(&mut client);
    assert_eq!((close.first, close.payload.as_slice()), (0x88, &b"\x03\xe8bye"[..]));
    client.expect_end();
}

fn echo(traffic: &Traffic, number: u64) {
    let mut random = Random::new(number);
    while traffic.goes_on() {
        let mut client = Raw::open(traffic.server, "/echo");
        let mut latencies = Vec::new();
        for round in 0..100 {
            let message = format!("{round} {}", "x".repeat(random.below(10_000)));
            let began = Instant::now();
            client.send_text(&message);
            assert_eq!(text(&mut client), message, "round {round}");
            latencies.push(began.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
        leave(client);
        traffic.latencies.lock().extend(latencies);
    }
}

fn pipelined_echo(traffic: &Traffic, _: u64) {
    while traffic.goes_on() {
        let mut client = Raw::open(traffic.server, "/echo");
        for _ in 0..20 {
            let messages: Vec<_> = (0..50).map(|number| format!("number {number}")).collect();
            let wire: Vec<_> =
                messages.iter().flat_map(|text| client_frame(0x81, text.as_bytes())).collect();
            client.send(&wire);
            for message in &messages {
                assert_eq!(text(&mut client), *message);
            }
            thread::sleep(Duration::from_millis(10));
        }
        leave(client);
    }
}

/// A user, and a program that reaches it through HTTP.
fn pushed(traffic: &Traffic, number: u64) {
    while traffic.goes_on() {
        let mut user = Raw::open(traffic.server, &format!("/users/{number}"));
        let mut pusher = Raw::connect(traffic.server);
        for push in 0..100 {
            let (head, body) = pusher.ask(&get(&format!("/push/{number}/push-{push}")));
            assert_eq!((status(&head), body.as_str()), (200, "1"), "push {push}");
            assert_eq!(text(&mut user), format!("push-{push}"));
            thread::sleep(Duration::from_millis(5));
        }
        leave(user);
        // It is gone when the answer says so; until then it may be on its way out.
        let deadline = Instant::now() + Duration::from_secs(5);
        while pusher.ask(&get(&format!("/push/{number}/late"))).1 != "0" {
            assert!(Instant::now() < deadline, "a user who has left is still there");
        }
    }
}

fn keep_alive(traffic: &Traffic, _: u64) {
    while traffic.goes_on() {
        let mut client = Raw::connect(traffic.server);
        for _ in 0..100 {
            let (head, body) = client.ask(&get("/hello"));
            assert_eq!((status(&head), body.as_str()), (200, "hello"));
            thread::sleep(Duration::from_millis(3));
        }
    }
}

/// Follows newest values, which only ever get newer.
fn ticker(traffic: &Traffic, _: u64) {
    while traffic.goes_on() {
        let mut client = Raw::open(traffic.server, "/ticker");
        let mut values = BTreeMap::new();
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            let frame = client.frame();
            match frame.first {
                0x81 => {
                    let text = String::from_utf8(frame.payload).unwrap();
                    let (key, value) = text.split_once(' ').unwrap();
                    let value: u64 = value.parse().unwrap();
                    let before = values.insert(key.to_owned(), value);
                    assert!(before < Some(value), "{key}: {value} after {before:?}");
                }
                0x89 => client.send_frame(0x8a, &frame.payload),
                _ => {}
            }
        }
        client.send_close(1000, "bye");
        while client.frame().first != 0x88 {}
        client.expect_end();
    }
}

/// A user, and a program that waits until the user has received all and then asks something.
fn asked(traffic: &Traffic, number: u64) {
    let number = number + 1000;
    while traffic.goes_on() {
        let mut user = Raw::open(traffic.server, &format!("/users/{number}"));
        let mut asker = Raw::connect(traffic.server);
        for _ in 0..50 {
            asker.send(get(&format!("/ask/{number}")).as_bytes());
            let question = text(&mut user);
            let head = question.strip_suffix("\nwho are you?").unwrap();
            let id = head.strip_prefix("rwf-question ").unwrap();
            user.send_text(&format!("rwf-answer {id}\nuser {number}"));
            let (head, body) = asker.response();
            assert_eq!((status(&head), body), (200, format!("1 user {number}")));
        }
        leave(user);
        let deadline = Instant::now() + Duration::from_secs(5);
        while asker.ask(&get(&format!("/push/{number}/late"))).1 != "0" {
            assert!(Instant::now() < deadline, "a user who has left is still there");
        }
    }
}

/// Sends a little less often than it may.
fn within_its_rate(traffic: &Traffic, number: u64) {
    let path = ["/limited", "/strict"][number as usize % 2];
    while traffic.goes_on() {
        let mut client = Raw::open(traffic.server, path);
        for round in 0..100 {
            client.send_text(&round.to_string());
            assert_eq!(text(&mut client), round.to_string());
            thread::sleep(Duration::from_millis(7));
        }
        leave(client);
    }
}

fn sums(traffic: &Traffic, _: u64) {
    while traffic.goes_on() {
        let mut client = Raw::open(traffic.server, "/sum");
        for round in 0..100 {
            client.send_text(&format!("[{round}, 1]"));
            assert_eq!(text(&mut client), (round + 1).to_string());
            thread::sleep(Duration::from_millis(5));
        }
        leave(client);
    }
}

/// Loads a file whole, loads a part of it, and asks whether it has changed.
fn files(traffic: &Traffic, _: u64) {
    const PAGE: &str = include_str!("../../examples/push.html");
    while traffic.goes_on() {
        let mut client = Raw::connect(traffic.server);
        for _ in 0..50 {
            let ask = get("/files/push.html");
            let (head, body) = client.ask(&ask);
            assert_eq!((status(&head), body.as_str()), (200, PAGE));
            let etag = header(&head, "etag").expect("a file without an ETag");
            let with = |line: &str| ask.replacen("\r\n", &format!("\r\n{line}\r\n"), 1);
            let (head, body) = client.ask(&with("Range: bytes=10-19"));
            assert_eq!((status(&head), body.as_str()), (206, &PAGE[10..20]));
            let (head, body) = client.ask(&with(&format!("If-None-Match: {etag}")));
            assert_eq!((status(&head), body.as_str()), (304, ""));
            assert_eq!(status(&client.ask(&get("/files/..%2fCargo.toml")).0), 404);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn metrics(traffic: &Traffic, _: u64) {
    let mut opened = 0;
    while traffic.goes_on() {
        let mut client = Raw::connect(traffic.server);
        for _ in 0..20 {
            let (head, body) = client.ask(&get("/metrics"));
            assert_eq!(status(&head), 200);
            let of_echo = "rwf_websockets_total{route=\"/echo\"} ";
            let count = body.lines().find_map(|line| line.strip_prefix(of_echo)).expect("a route");
            let count: u64 = count.parse().unwrap();
            assert!(count >= opened, "{count} WebSockets after {opened}");
            opened = count;
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Follows newest values, reads little, and answers no pings.
fn slow_watcher(traffic: &Traffic, _: u64) {
    while traffic.goes_on() {
        let Some(mut stream) = connect(traffic) else { continue };
        if stream.write_all(upgrade_request("/ticker", "").as_bytes()).is_err() {
            continue;
        }
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end && is_there(&stream.read(&mut [0; 100])) {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A connection, for those who do not care whether there is one.
fn connect(traffic: &Traffic) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&traffic.server, DEADLINE).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(50))).ok()?;
    Some(stream)
}

/// A WebSocket, for those who do not care.
fn open(traffic: &Traffic) -> Option<TcpStream> {
    open_at(traffic, "/echo")
}

fn open_at(traffic: &Traffic, path: &str) -> Option<TcpStream> {
    let mut stream = connect(traffic)?;
    stream.write_all(upgrade_request(path, "").as_bytes()).ok()?;
    let _ = stream.read(&mut [0; 1000]);
    Some(stream)
}

/// Whether the connection is still there after an operation.
fn is_there(result: &io::Result<usize>) -> bool {
    match result {
        Ok(count) => *count > 0,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
    }
}

/// Reads whatever comes until the end, or for a while.
fn read_to_the_end(stream: &mut TcpStream) {
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end && is_there(&stream.read(&mut [0; 4096])) {}
}

fn slow_reader(traffic: &Traffic, _: u64) {
    let wire = client_frame(0x82, &[7; 32 << 10]);
    while traffic.goes_on() {
        let Some(mut stream) = open(traffic) else { continue };
        let mut at = 0;
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            let written = stream.write(&wire[at..]);
            if !is_there(&written) || !is_there(&stream.read(&mut [0; 4096])) {
                break;
            }
            at = (at + written.unwrap_or(0)) % wire.len();
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Sends `wire` again and again, and reads nothing, until the server has had enough.
fn send_for_ever(traffic: &Traffic, wire: &[u8]) {
    while traffic.goes_on() {
        let Some(mut stream) = open(traffic) else { continue };
        let mut at = 0;
        let end = Instant::now() + Duration::from_secs(6);
        while Instant::now() < end {
            let written = stream.write(&wire[at..]);
            if !is_there(&written) {
                break;
            }
            at = (at + written.unwrap_or(0)) % wire.len();
        }
    }
}

/// Reads what comes, and sends as much as the server takes, on a path where that is limited.
fn over_its_rate(traffic: &Traffic, number: u64) {
    let path = ["/limited", "/strict"][number as usize % 2];
    let wire = client_frame(0x81, b"once more").repeat(100);
    while traffic.goes_on() {
        let Some(mut stream) = open_at(traffic, path) else { continue };
        let end = Instant::now() + Duration::from_secs(2);
        // What is written in part is garbage from there on, which ends it too.
        while Instant::now() < end && is_there(&stream.write(&wire)) {
            if !is_there(&stream.read(&mut [0; 4096])) {
                break;
            }
        }
    }
}

fn no_json(traffic: &Traffic, number: u64) {
    let mut random = Random::new(number);
    while traffic.goes_on() {
        let Some(mut stream) = open_at(traffic, "/sum") else { continue };
        let mut text = b"[1, 2, 3]".to_vec();
        let at = random.below(text.len());
        text[at] = b"[]{}\",:"[random.below(7)];
        if stream.write_all(&client_frame(0x81, &text)).is_ok() {
            read_to_the_end(&mut stream);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Stays until the operator ends it.
fn kicked(traffic: &Traffic, _: u64) {
    while traffic.goes_on() {
        if let Some(mut stream) = open_at(traffic, "/sink") {
            read_to_the_end(&mut stream);
        }
    }
}

fn never_reads(traffic: &Traffic, number: u64) {
    send_for_ever(traffic, &client_frame(0x82, &vec![7; 2000 << number]));
}

fn pings_and_never_reads(traffic: &Traffic, _: u64) {
    send_for_ever(traffic, &client_frame(0x89, &[7; 125]).repeat(100));
}

fn flood_of_connects(traffic: &Traffic, _: u64) {
    while traffic.goes_on() {
        let streams: Vec<_> = (0..200).filter_map(|_| connect(traffic)).collect();
        thread::sleep(Duration::from_millis(100));
        drop(streams);
        thread::sleep(Duration::from_millis(300));
    }
}

fn garbage(random: &mut Random, most: usize) -> Vec<u8> {
    (0..random.below(most)).map(|_| random.number() as u8).collect()
}

fn garbage_frames(traffic: &Traffic, number: u64) {
    let mut random = Random::new(number);
    while traffic.goes_on() {
        let Some(mut stream) = open(traffic) else { continue };
        let garbage = match random.below(3) {
            0 => garbage(&mut random, 4000),
            // Right up to the last frame.
            1 => [client_frame(0x81, b"fine").repeat(20), garbage(&mut random, 100)].concat(),
            _ => client_frame(0x81, &garbage(&mut random, 4000)),
        };
        if stream.write_all(&garbage).is_ok() {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            read_to_the_end(&mut stream);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn garbage_requests(traffic: &Traffic, number: u64) {
    let mut random = Random::new(number + 99);
    while traffic.goes_on() {
        let Some(mut stream) = connect(traffic) else { continue };
        let mut request = upgrade_request("/echo", "").into_bytes();
        match random.below(4) {
            0 => request = garbage(&mut random, 40_000),
            1 => request = "GET / HTTP/1.1\r\nX: y\r\n".repeat(5000).into_bytes(),
            _ => {
                for _ in 0..1 + random.below(4) {
                    let at = random.below(request.len());
                    request[at] = random.number() as u8;
                }
            }
        }
        if stream.write_all(&request).is_ok() {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            read_to_the_end(&mut stream);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn half_open_handshakes(traffic: &Traffic, number: u64) {
    let mut random = Random::new(number);
    let request = upgrade_request("/echo", "");
    while traffic.goes_on() {
        let mut streams: Vec<_> = (0..50).filter_map(|_| connect(traffic)).collect();
        for stream in &mut streams {
            let _ = stream.write(&request.as_bytes()[..random.below(request.len())]);
        }
        for stream in &mut streams {
            read_to_the_end(stream);
        }
    }
}

fn byte_by_byte(traffic: &Traffic, _: u64) {
    let request = upgrade_request("/echo", "");
    while traffic.goes_on() {
        let Some(mut stream) = connect(traffic) else { continue };
        for byte in request.as_bytes() {
            if stream.write_all(&[*byte]).is_err() || traffic.is_over() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn announces_and_leaves(traffic: &Traffic, number: u64) {
    let mut random = Random::new(number);
    let frame = client_frame(0x82, &vec![7; 200 << 10]);
    while traffic.goes_on() {
        let mut streams: Vec<_> = (0..20).filter_map(|_| open(traffic)).collect();
        for stream in &mut streams {
            let _ = stream.write(&frame[..10 + random.below(frame.len() - 10)]);
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Ends without a word: with a reset, in the middle of whatever it was.
fn vanishes(traffic: &Traffic, number: u64) {
    let mut random = Random::new(number);
    let wire = client_frame(0x81, &[b'x'; 2000]).repeat(5);
    while traffic.goes_on() {
        let Some(mut stream) = open(traffic) else { continue };
        let _ = stream.write(&wire[..random.below(wire.len())]);
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        thread::sleep(Duration::from_millis(5));
    }
}
