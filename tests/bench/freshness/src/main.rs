//! How old what a slow client sees is: 1,000 updates a second, a client that takes 20 messages a second, and ten that take
//! all. See `tests/bench/README.md`.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rwf::controller::{Overflow, Websocket};
use rwf::http::Server;
use rwf::prelude::*;
use socket2::{Domain, Socket as RawSocket, Type};
use tungstenite::Message as Received;

/// Between two updates.
const UPDATE: Duration = Duration::from_millis(1);
/// Between two messages that the slow client takes.
const TAKE: Duration = Duration::from_millis(50);
const FAST: usize = 10;

type Setting = fn(Websocket) -> Websocket;
type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let seconds = std::env::args().nth(1).map_or(Ok(10), |text| text.parse())?;
    let time = Duration::from_secs(seconds);
    let cases: [(&str, bool, Setting); 6] = [
        ("send, which drops the oldest", false, |it| it.overflow(Overflow::DropOldest)),
        ("the same, at most 64 KiB in the outbox", false, |it| {
            it.overflow(Overflow::DropOldest).outbox_bytes(64 << 10)
        }),
        ("the same, and 16 KiB in the system", false, |it| {
            it.overflow(Overflow::DropOldest).outbox_bytes(64 << 10).max_unsent_bytes(16 << 10)
        }),
        ("send_latest", true, |it| it),
        ("send_latest, and 16 KiB in the system", true, |it| it.max_unsent_bytes(16 << 10)),
        ("send_latest, max_lag of 50 ms", true, |it| it.max_lag(Duration::from_millis(50))),
    ];
    println!(
        "1,000 updates a second for {seconds} s; ages of what a client of 20 messages a second sees\n"
    );
    println!("| message | receive buffer | how | p50, ms | longest, ms | others get, per second |");
    println!("|---|---|---|---|---|---|");
    for length in [64, 16 << 10] {
        for buffer in [None, Some(16 << 10)] {
            for (name, is_latest, setting) in cases {
                let result = measure(setting(Websocket::new()), is_latest, length, buffer, time)?;
                let shown =
                    buffer.map_or("default".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
                let Ages { p50, longest, rate } = result;
                println!("| {length} B | {shown} | {name} | {p50} | {longest} | {rate} |");
            }
        }
    }
    Ok(())
}

struct Ages {
    p50: u128,
    longest: u128,
    rate: u64,
}

fn measure(
    settings: Websocket,
    is_latest: bool,
    length: usize,
    buffer: Option<usize>,
    time: Duration,
) -> Result<Ages, Error> {
    let listens = |mut socket: Socket| {
        Comms::here()?.subscribe("values")?;
        socket.iter().for_each(drop);
        Ok(())
    };
    let server = Server::new(vec![route!("/" => websocket(listens))])
        .websocket(settings)
        .bind("127.0.0.1:0")
        .spawn()?;
    let began = Instant::now();
    let count = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let address = server.local_addr();
    let fast: Vec<_> = (0..FAST)
        .map(|_| {
            let count = Arc::clone(&count);
            thread::spawn(move || {
                take(address, None, Duration::ZERO, |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                    true
                })
            })
        })
        .collect();
    let stop = Arc::clone(&is_over);
    let slow = thread::spawn(move || {
        let mut ages = Vec::new();
        let seen = |sent| {
            ages.push(began.elapsed().saturating_sub(sent));
            !stop.load(Ordering::Relaxed)
        };
        // It may end with the server.
        let _ = take(address, buffer, TAKE, seen);
        ages
    });
    let padding = "-".repeat(length);
    let values = Comms::topic("values");
    let mut next = began;
    while began.elapsed() < time {
        let text = format!("{} {padding}", began.elapsed().as_micros());
        let _ = if is_latest { values.send_latest("value", text) } else { values.send(text) };
        next += UPDATE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let rate = count.load(Ordering::Relaxed) / FAST as u64 / time.as_secs().max(1);
    is_over.store(true, Ordering::Relaxed);
    let ages = slow.join();
    drop(server);
    fast.into_iter().for_each(|thread| drop(thread.join()));
    let mut ages = ages.map_err(|_| "the slow client panicked")?;
    ages.sort();
    let millis = |age: Option<&Duration>| age.map_or(0, Duration::as_millis);
    Ok(Ages { p50: millis(ages.get(ages.len() / 2)), longest: millis(ages.last()), rate })
}

/// A client that hands on when each message was sent, and pauses after it, until `seen` or the server ends that.
fn take(
    address: SocketAddr,
    receive_buffer: Option<usize>,
    pause: Duration,
    mut seen: impl FnMut(Duration) -> bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = RawSocket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(bytes) = receive_buffer {
        stream.set_recv_buffer_size(bytes)?;
    }
    stream.connect(&address.into())?;
    let (mut client, _) = tungstenite::client(format!("ws://{address}/"), TcpStream::from(stream))?;
    let mut goes_on = true;
    while goes_on {
        if let Received::Text(text) = client.read()? {
            let micros = text.split(' ').next().unwrap_or_default().parse()?;
            goes_on = seen(Duration::from_micros(micros));
            thread::sleep(pause);
        }
    }
    Ok(())
}
