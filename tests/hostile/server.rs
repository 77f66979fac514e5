//! The server that `tests/memory.rs`, `tests/backlog.rs` and `tests/soak` treat badly, in a process of its own, so that
//! its memory, threads and descriptors are its own.
//!
//! Arguments are settings, `name=value`; times are in milliseconds. It prints its address, answers the commands on its
//! input with a line each, logs errors (or the level `RUST_LOG`) to its error output, and runs until its input ends:
//!
//! - `notify COUNT BYTES` sends so many binary messages to everyone: `taken=… refused=…`
//! - `shutdown`: `closed=… cut=… running=…`

use std::env;
use std::error::Error as StdError;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use bytes::Bytes;
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// Answers every message on the connection that it came from.
struct Echo(ConnectionId);

#[async_trait]
impl WebsocketController for Echo {
    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        Comms::connection(self.0).send(message)?;
        Ok(())
    }
}

/// `/echo`, and `/users/:user` for a client with a session that others can name.
#[derive(Default)]
struct Echoes;

#[async_trait]
impl Controller for Echoes {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let echo = Echo(request.connection_id());
        match request.param("user") {
            Ok(user) => {
                let user: i64 = user.parse()?;
                WebsocketController::handle(&echo, &request.with_session(user)).await
            }
            Err(_) => WebsocketController::handle(&echo, request).await,
        }
    }
}

/// Takes messages and says nothing.
#[derive(Default, macros::WebsocketController)]
struct Sink;

#[async_trait]
impl WebsocketController for Sink {}

/// `/push/:user/:text` sends a text to a user; the answer is how many connections took it.
#[derive(Default)]
struct Push;

#[async_trait]
impl Controller for Push {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let user: i64 = request.param("user")?.parse()?;
        let taken = Comms::websocket(user).send(request.param("text")?)?;
        Ok(Response::new().text(taken.to_string()))
    }
}

/// `/hello` is plain HTTP.
#[derive(Default)]
struct Hello;

#[async_trait]
impl Controller for Hello {
    async fn handle(&self, _: &Request) -> Result<Response, Error> {
        Ok(Response::new().text("hello"))
    }
}

/// `/page` is one body for all who ask.
struct Page(Bytes);

#[async_trait]
impl Controller for Page {
    async fn handle(&self, _: &Request) -> Result<Response, Error> {
        Ok(Response::new().bytes(self.0.clone()))
    }
}

/// Logs without the features that a logger would need.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

fn main() -> Result<(), Box<dyn StdError>> {
    let level = env::var("RUST_LOG").ok().and_then(|level| level.parse().ok());
    log::set_max_level(level.unwrap_or(log::LevelFilter::Error));
    log::set_logger(&Stderr)?;
    let routes = vec![
        route!("/echo" => Echoes),
        route!("/users/:user" => Echoes),
        route!("/sink" => Sink),
        route!("/push/:user/:text" => Push),
        route!("/hello" => Hello),
        route!("/page" => Page(vec![b'x'; 16 << 20].into())),
    ];
    let mut server = Server::new(routes).bind("127.0.0.1:0");
    let mut websocket = Websocket::new();
    for argument in env::args().skip(1) {
        (server, websocket) = set(&argument, server, websocket)?;
    }
    let server = server.websocket(websocket).spawn()?;
    say(&server.local_addr().to_string())?;
    for line in io::stdin().lock().lines() {
        say(&obey(&server, &line?)?)?;
    }
    server.shutdown()?;
    Ok(())
}

fn set(
    argument: &str,
    server: Server,
    websocket: Websocket,
) -> Result<(Server, Websocket), Box<dyn StdError>> {
    let (name, value) = argument.split_once('=').ok_or("arguments are name=value")?;
    let number = || value.parse::<usize>();
    let time = || value.parse().map(Duration::from_millis);
    Ok(match name {
        "open_timeout" => (server.open_timeout(time()?), websocket),
        "shutdown_timeout" => (server.shutdown_timeout(time()?), websocket),
        "max_connections" => (server.max_connections(number()?), websocket),
        "backlog" => (server.backlog(value.parse()?), websocket),
        "max_message_size" => (server, websocket.max_message_size(number()?)),
        "outbox_bytes" => (server, websocket.outbox_bytes(number()?)),
        "outbox_messages" => (server, websocket.outbox_messages(number()?)),
        "overflow" if value == "refuse" => (server, websocket.overflow(Overflow::Refuse)),
        "ping_interval" => (server, websocket.ping_interval(time()?)),
        "ping_timeout" => (server, websocket.ping_timeout(time()?)),
        "write_timeout" => (server, websocket.write_timeout(time()?)),
        "close_timeout" => (server, websocket.close_timeout(time()?)),
        _ => return Err(format!("no such setting: {argument}").into()),
    })
}

fn obey(server: &ServerHandle, line: &str) -> Result<String, Box<dyn StdError>> {
    let words: Vec<_> = line.split(' ').collect();
    match words.as_slice() {
        ["notify", count, bytes] => {
            let (mut taken, mut refused) = (0, 0);
            for _ in 0..count.parse()? {
                // A payload of its own each time, so that what is kept of it counts.
                match Comms::notify().send(vec![7_u8; bytes.parse()?]) {
                    Ok(count) => taken += count,
                    Err(_) => refused += 1,
                }
            }
            Ok(format!("taken={taken} refused={refused}"))
        }
        ["shutdown"] => {
            let report = server.shutdown()?;
            Ok(format!("closed={} cut={} running={}", report.closed, report.cut, report.running))
        }
        _ => Err(format!("no such command: {line}").into()),
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
