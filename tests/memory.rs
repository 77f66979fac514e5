//! What connections cost, seen from outside: the server is a process of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
#[path = "hostile/process.rs"]
mod process;

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use common::tls::{IDENTITY, TlsWire};
use common::{Folder, Raw, client_frame, get, status, upgrade_request, wait_until};
use flate2::{Compress, Compression, FlushCompress};
use process::{Cost, ServerProcess};
use rustix::net::sockopt::set_socket_linger;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What the allocator may keep or waste, whatever the server does with it.
const SLACK: usize = 4 * MIB;

/// Opens `count` WebSockets, and exchanges a message on each, so that it has all that it needs.
fn open(server: SocketAddr, count: usize) -> Vec<Raw> {
    let mut clients: Vec<_> = (0..count).map(|_| Raw::open(server, "/echo")).collect();
    for client in &mut clients {
        client.send_text("hello");
    }
    for client in &mut clients {
        assert_eq!(client.text_frame(), "hello");
    }
    clients
}

fn kib_each(memory: usize, count: usize) -> f64 {
    memory as f64 / KIB as f64 / count as f64
}

#[test]
fn an_idle_connection_costs_a_few_pages() {
    const COUNT: usize = 1000;
    /// A stack's used pages, the read buffer, the request; with an unoptimized build's larger frames.
    const BOUND: usize = 64 * KIB;
    if !process::has_room_for(COUNT) {
        return;
    }
    let server = ServerProcess::start(&[]);
    // The first connections pay for what all share.
    drop(open(server.address, 10));
    wait_until("the first connections are gone", || server.threads() <= 3);
    let before = server.cost();
    let clients = open(server.address, COUNT);
    let after = server.cost();
    let each = (after.memory - before.memory) / COUNT;
    println!(
        "idle: {:.1} KiB each, {} threads and {} descriptors for {COUNT} connections",
        kib_each(after.memory - before.memory, COUNT),
        after.threads - before.threads,
        after.descriptors - before.descriptors,
    );
    assert!(each < BOUND, "an idle connection takes {each} bytes; {before:?}, then {after:?}");
    assert_eq!(after.threads - before.threads, COUNT, "an idle connection is one thread");
    assert_eq!(after.descriptors - before.descriptors, COUNT, "and one descriptor");
    drop(clients);
}

/// The same over TLS.
fn open_secure(server: SocketAddr, count: usize) -> Vec<Raw> {
    let mut clients: Vec<_> =
        (0..count).map(|_| Raw::from(TlsWire::connect(server).unwrap())).collect();
    for client in &mut clients {
        let (head, _) = client.ask(&upgrade_request("/echo", ""));
        assert_eq!(status(&head), 101, "{head}");
        client.send_text("hello");
        assert_eq!(client.text_frame(), "hello");
    }
    clients
}

#[test]
fn an_idle_connection_over_tls_costs_little_more() {
    const COUNT: usize = 500;
    /// The keys and buffers of rustls, and the stack that a handshake uses; in an unoptimized build too.
    const BOUND: usize = 30 * KIB;
    if !process::has_room_for(COUNT) {
        return;
    }
    let folder = Folder::new();
    let certificate = folder.write("cert.pem", &IDENTITY.certificate_pem);
    let key = folder.write("key.pem", &IDENTITY.key_pem);
    let tls = format!("tls={},{}", certificate.display(), key.display());
    let each = [vec![], vec![tls.as_str()]].map(|settings| {
        let server = ServerProcess::start(&settings);
        let open = if settings.is_empty() { open } else { open_secure };
        drop(open(server.address, 10));
        wait_until("the first connections are gone", || server.threads() <= 3);
        let before = server.cost();
        let clients = open(server.address, COUNT);
        let after = server.cost();
        assert_eq!(after.threads - before.threads, COUNT, "an idle connection is one thread");
        drop(clients);
        (after.memory - before.memory) / COUNT
    });
    let [plain, secure] = each;
    println!("idle: {:.1} KiB each, over TLS {:.1}", kib_each(plain, 1), kib_each(secure, 1));
    assert!(secure < plain + BOUND, "an idle connection takes {plain} bytes, over TLS {secure}");
}

#[test]
fn a_burst_leaves_an_idle_connection_as_small_as_it_was() {
    const COUNT: usize = 300;
    const BURST: usize = 1500;
    /// The allocator keeps some; the queue of an outbox that was full of messages would be 64 KiB more.
    const BOUND: usize = 40 * KIB;
    if !process::has_room_for(COUNT) {
        return;
    }
    let server = ServerProcess::start(&[]);
    let mut clients = open(server.address, COUNT);
    let before = server.memory();
    let burst = client_frame(0x81, b"x").repeat(BURST);
    for client in &mut clients {
        client.send(&burst);
        client.take(3 * BURST);
    }
    let took = server.memory().saturating_sub(before);
    println!("after {BURST} short messages at once: {:.1} KiB more each", kib_each(took, COUNT));
    assert!(took < COUNT * BOUND, "bursts that are over keep {took} bytes on {COUNT} connections");
}

#[test]
fn an_announced_length_costs_nothing_until_its_bytes_come() {
    const COUNT: usize = 1000;
    /// The allocator touches the pages at both ends of what is reserved.
    const BOUND: usize = 16 * KIB;
    const ANNOUNCED: usize = 10 * MIB;
    if !process::has_room_for(COUNT) {
        return;
    }
    let mut server = ServerProcess::start(&["max_message_size=16777216"]);
    let mut clients = open(server.address, COUNT);
    let (before, reserved_before) = (server.memory(), server.address_space());
    let head = client_frame(0x82, &vec![0; ANNOUNCED])[..14].to_vec();
    for client in &mut clients {
        // A ping before the header in the same write: its pong says that the header has been read too.
        client.send(&[client_frame(0x89, b"now"), head.clone()].concat());
    }
    for client in &mut clients {
        assert_eq!(client.frame().payload, b"now");
    }
    let ((), highest) = server.watched(|_| thread::sleep(Duration::from_millis(300)));
    let took = highest.saturating_sub(before);
    println!("10 MiB announced: {:.1} KiB each", kib_each(took, COUNT));
    assert!(
        took < COUNT * BOUND,
        "headers without payload took {took} bytes on {COUNT} connections"
    );

    for client in &mut clients {
        client.send(&[1]);
    }
    let ((), highest) = server.watched(|_| thread::sleep(Duration::from_millis(300)));
    let took = highest.saturating_sub(before);
    println!("10 MiB announced, a byte sent: {:.1} KiB each", kib_each(took, COUNT));
    assert!(took < COUNT * BOUND, "first bytes took {took} bytes on {COUNT} connections");
    // Addresses that are reserved and not used take no memory, but there are systems that count them.
    let reserved = server.address_space().saturating_sub(reserved_before);
    println!("10 MiB announced, a byte sent: {:.1} KiB each reserved", kib_each(reserved, COUNT));
    assert!(reserved < COUNT * ANNOUNCED / 10, "{reserved} bytes were reserved");
}

/// Gives up on clients that do not read after a second and a half.
const IMPATIENT: [&str; 2] = ["write_timeout=1500", "close_timeout=300"];

/// Sends `wire` again and again on all connections, never reading, until the server has ended them all.
fn flood(clients: &[Raw], wire: &[u8]) {
    let patience = Duration::from_secs(90);
    let deadline = Instant::now() + patience;
    let mut positions = vec![Some(0); clients.len()];
    for client in clients {
        client.stream.set_nonblocking(true).unwrap();
    }
    while positions.iter().any(Option::is_some) {
        assert!(Instant::now() < deadline, "clients that never read were served for {patience:?}");
        let mut is_stuck = true;
        for (client, position) in clients.iter().zip(&mut positions) {
            let Some(offset) = *position else { continue };
            match (&client.stream).write(&wire[offset..]) {
                Ok(count) => {
                    is_stuck = false;
                    *position = Some((offset + count) % wire.len());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => *position = None,
            }
        }
        if is_stuck {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn what_is_sent_without_reading_stays_within_the_outbox_bound() {
    const COUNT: usize = 10;
    let floods = [
        // 16 pongs may wait, and 32 be on their way.
        ("pings", client_frame(0x89, &[7; 125]).repeat(400), 48 * 127),
        ("messages of 200 bytes", client_frame(0x81, &[b'x'; 200]).repeat(300), MIB),
        ("messages of 64 KiB", client_frame(0x82, &[7; 64 * KIB]), MIB),
        ("messages of 1 MiB", client_frame(0x82, &vec![7; MIB]), MIB),
    ];
    for (what, wire, bound) in floods {
        let mut server = ServerProcess::start(&IMPATIENT);
        let clients = open(server.address, COUNT);
        let before = server.memory();
        let ((), highest) = server.watched(|_| flood(&clients, &wire));
        let took = highest.saturating_sub(before);
        println!("{what} without reading: {:.1} KiB each", kib_each(took, COUNT));
        // What is in the outbox, the message that finds no room, and the next one on its way in.
        let bound = COUNT * (bound + 2 * wire.len().min(MIB)) + SLACK;
        assert!(took < bound, "{what}: {took} bytes for {COUNT} clients, of at most {bound}");
    }
}

#[test]
fn what_is_pushed_to_clients_that_never_read_stays_within_the_outbox_bound() {
    const COUNT: usize = 10;
    for (what, command) in [
        ("of 500 bytes", "notify 100000 500"),
        ("of 10 KiB", "notify 8000 10240"),
        ("of 1 MiB", "notify 60 1048576"),
    ] {
        let mut server = ServerProcess::start(&IMPATIENT);
        let clients = open(server.address, COUNT);
        let before = server.memory();
        let (answer, highest) = server.watched(|server| server.ask(command));
        let took = highest.saturating_sub(before);
        println!("pushed {what}, never read: {:.1} KiB each; {answer}", kib_each(took, COUNT));
        assert!(!answer.ends_with("refused=0"), "{what}: there was room for all: {answer}");
        // All clients share a message's bytes; still, one may wait for all that fits.
        let bound = COUNT * (MIB + MIB) + SLACK;
        assert!(took < bound, "{what}: {took} bytes for {COUNT} clients, of at most {bound}");
        wait_until("the clients are given up", || server.threads() <= 3);
        drop(clients);
    }
}

/// Some text of that length, compressed as a message of its own.
fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() / 2 + 4096);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(data, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(b"\0\0\xff\xff"), "there was too little room");
    out.truncate(out.len() - 4);
    out
}

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

#[test]
fn a_connection_that_compresses_keeps_what_the_guide_says() {
    const COUNT: usize = 300;
    /// As for any idle connection.
    const IDLE: usize = 64 * KIB;
    if !process::has_room_for(COUNT) {
        return;
    }
    let text: String = (0..600).map(|number| format!("line {} of it\n", number * number)).collect();
    let wire = deflated(text.as_bytes());
    for (setting, bound) in
        [("context_takeover=0", IDLE), ("context_takeover=1", IDLE + 200 * KIB + 5 * 32 * KIB)]
    {
        let server = ServerProcess::start(&[setting]);
        let open = |count: usize| {
            let clients = (0..count).map(|_| Raw::open_with(server.address, "/echo", OFFER));
            let mut clients: Vec<_> = clients.collect();
            for client in &mut clients {
                client.send_frame(0xc1, &wire);
            }
            for client in &mut clients {
                let frame = client.frame();
                assert!(frame.first == 0xc1 && frame.payload.len() < text.len() / 2);
            }
            clients
        };
        // The first connections pay for what all share.
        drop(open(10));
        wait_until("the first connections are gone", || server.threads() <= 3);
        let before = server.memory();
        let clients = open(COUNT);
        let took = server.memory().saturating_sub(before);
        println!("{setting}: {:.1} KiB each", kib_each(took, COUNT));
        assert!(took < COUNT * bound, "{setting}: {took} bytes for {COUNT} connections");
        drop(clients);
    }
}

#[test]
fn a_gigabyte_of_zeros_in_a_megabyte_takes_no_more_than_a_message_may_have() {
    const COUNT: usize = 10;
    let bomb = deflated_zeros(1 << 30);
    assert!(bomb.len() < MIB, "{} bytes", bomb.len());
    let mut server = ServerProcess::start(&[]);
    drop(open(server.address, 10));
    wait_until("the first connections are gone", || server.threads() <= 3);
    let before = server.memory();
    let began = Instant::now();
    let ((), highest) = server.watched(|server| {
        let clients: Vec<_> = (0..COUNT)
            .map(|_| {
                let (address, bomb) = (server.address, bomb.clone());
                thread::spawn(move || {
                    let mut client = Raw::open_with(address, "/echo", OFFER);
                    // It is closed before all is sent.
                    let _ = client.stream.write_all(&client_frame(0xc2, &bomb));
                    assert_eq!(client.close_frame().0, 1009);
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    let took = highest.saturating_sub(before);
    println!("bombs: {:.1} KiB each, in {:?}", kib_each(took, COUNT), began.elapsed());
    // The message, and what it was before it grew; the reader; the inflater.
    let bound = COUNT * (3 * MIB + 128 * KIB) + SLACK;
    assert!(took < bound, "{took} bytes for {COUNT} clients, of at most {bound}");
}

/// So many zeros, compressed in pieces.
fn deflated_zeros(count: usize) -> Vec<u8> {
    let (piece, mut out) = (vec![0; MIB], Vec::with_capacity(2 * MIB));
    let mut compress = Compress::new(Compression::best(), false);
    for _ in 0..count / piece.len() {
        compress.compress_vec(&piece, &mut out, FlushCompress::None).unwrap();
    }
    compress.compress_vec(&[], &mut out, FlushCompress::Sync).unwrap();
    assert_eq!(compress.total_in(), count as u64);
    out.truncate(out.len() - 4);
    out
}

#[test]
fn a_body_that_many_wait_for_is_in_memory_once() {
    const COUNT: usize = 30;
    /// A thread, and the request.
    const EACH: usize = 64 * KIB;
    let mut server = ServerProcess::start(&[]);
    assert_eq!(Raw::connect(server.address).ask(&get("/page")).1.len(), 16 * MIB);
    wait_until("the first connection is gone", || server.threads() <= 3);
    let before = server.memory();
    let (clients, highest) = server.watched(|server| {
        let mut clients: Vec<_> = (0..COUNT).map(|_| Raw::connect(server.address)).collect();
        for client in &mut clients {
            client.send(get("/page").as_bytes());
        }
        // From here on the rest of the body waits for each of them.
        clients.iter_mut().for_each(|client| assert_eq!(status(&client.head()), 200));
        clients
    });
    let took = highest.saturating_sub(before);
    println!("a body of 16 MiB, never read: {:.1} KiB each", kib_each(took, COUNT));
    let bound = COUNT * EACH + SLACK;
    assert!(took < bound, "{took} bytes for {COUNT} clients, of at most {bound}");
    drop(clients);
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    const ROUND: usize = 500;
    const ROUNDS: usize = 20;
    /// A leak of 300 bytes on each connection is seen.
    const TOLERANCE: usize = 3 * MIB;
    if !process::has_room_for(ROUND) {
        return;
    }
    let server = ServerProcess::start(&["close_timeout=1000"]);
    let idle = server.cost();
    // The allocator's pools grow in the first rounds, and are used again in the others.
    let mut settled = idle;
    for _ in 0..4 {
        settled = open_and_close(&server, ROUND, idle);
    }
    let mut after = settled;
    for _ in 0..ROUNDS {
        after = open_and_close(&server, ROUND, idle);
    }
    let kib = [idle, settled, after].map(|cost| cost.memory / KIB);
    println!(
        "idle, after {} and after {} connections: {kib:?} KiB",
        4 * ROUND,
        (4 + ROUNDS) * ROUND
    );
    let grown = after.memory.saturating_sub(settled.memory);
    assert!(grown < TOLERANCE, "{} connections left {grown} bytes behind", ROUND * ROUNDS);
}

/// Opens WebSockets and ends them, each in one of four ways; what the server costs when they are gone.
fn open_and_close(server: &ServerProcess, count: usize, idle: Cost) -> Cost {
    for (number, mut client) in open(server.address, count).into_iter().enumerate() {
        match number % 4 {
            0 => {
                client.send_close(1000, "bye");
                assert_eq!(client.close_frame().0, 1000);
                client.expect_end();
            }
            1 => client.stream.shutdown(Shutdown::Write).unwrap(),
            2 => set_socket_linger(client.stream.tcp(), Some(Duration::ZERO)).unwrap(),
            _ => client.send(&client_frame(0x82, &[7; 20 * KIB])[..5 * KIB]),
        }
    }
    let is_idle = |cost: Cost| (cost.threads, cost.descriptors) == (idle.threads, idle.descriptors);
    wait_until("threads and descriptors are back at what they were", || is_idle(server.cost()));
    server.cost()
}
