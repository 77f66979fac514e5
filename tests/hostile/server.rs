//! The server that `tests/memory.rs`, `tests/backlog.rs` and `tests/soak` treat badly, in a process of its own, so that
//! its memory, threads and descriptors are its own.
//!
//! Arguments are settings, `name=value`; times are in milliseconds. It prints its address, answers the commands on its
//! input with a line each, logs errors (or the level `RUST_LOG`) to its error output, and runs until its input ends:
//!
//! - `notify COUNT BYTES` sends so many binary messages to everyone: `taken=… refused=…`
//! - `watch` begins to watch who is in which topic, and `present` says how many, or what was wrong with a change
//! - `kick ROUTE` ends all connections of a route: how many
//! - `stats` compares what is counted with what was a moment ago, and says what is open: `connections=… websockets=…`, then
//!   `waiting=… writers=…` and how many WebSockets ended: `ended=…`
//! - `shutdown`: `closed=… cut=… running=…`

use std::collections::HashSet;
use std::env;
use std::error::Error as StdError;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rwf::controller::{Deflate, Overflow, Rate, StaticFiles, Websocket};
use rwf::http::{Server, ServerHandle, Tls};
use rwf::prelude::*;
use rwf::stats::{Metrics, Stats};

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

/// `/ticker` subscribes, and sends newest values to all who have, each of its own key.
fn ticker(request: &Request) -> Result<Response, Error> {
    let settings = |settings: Websocket| {
        settings.overflow(Overflow::DropOldest).max_lag(Duration::from_millis(50))
    };
    request.upgrade_with(settings, |mut socket| {
        let (key, prices) = (socket.connection_id().to_string(), Comms::topic("prices"));
        Comms::here()?.subscribe("prices")?;
        for value in 0_u64.. {
            // Full is who cannot keep up, and there is no room for anything then; the next value is as good.
            let _ = prices.send_latest(&key, format!("{key} {value}"));
            match socket.recv_timeout(Duration::from_millis(2)) {
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    })
}

/// `/ask/:user` waits until a user has received all, and answers what the user answers.
fn ask(request: &Request) -> Result<Response, Error> {
    let user: i64 = request.param("user")?.parse()?;
    let comms = Comms::websocket(user);
    let received = comms.flush(Duration::from_secs(10))?;
    let answer = comms.request("who are you?", Duration::from_secs(10))?;
    let name = answer.as_text().unwrap_or("nobody");
    Ok(Response::new().text(format!("{received} {name}")))
}

/// `/limited` echoes, and holds those back who send much; `/strict` closes them.
fn limited(request: &Request) -> Result<Response, Error> {
    let (messages, bytes) = (Rate::per_second(200).burst(50), Rate::per_second(1 << 20));
    let is_strict = request.path() == "/strict";
    let settings = |settings: Websocket| {
        let settings = settings.message_rate(messages).message_rate_per_session(messages);
        let settings = settings.byte_rate(bytes).byte_rate_per_session(bytes);
        if is_strict { settings.max_hold(Duration::ZERO) } else { settings }
    };
    request.upgrade_with(settings, |mut socket| {
        while let Some(message) = socket.recv()? {
            socket.send(message)?;
        }
        Ok(())
    })
}

/// `/sum` adds numbers.
fn sum(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        let numbers: Vec<i64> = message.json()?;
        socket.send(Message::json(&numbers.iter().sum::<i64>())?)?;
    }
    Ok(())
}

/// What is counted, and that it goes on from what was `before`.
fn account(server: &ServerHandle, before: &mut Stats) -> String {
    let stats = server.stats();
    let of_routes: u64 = stats.routes.iter().map(|route| route.websockets.ever).sum();
    let ended: u64 = stats.closed.iter().map(|(_, count)| count).sum();
    let ever = |stats: &Stats| {
        let Stats { connections, websockets, requests, received, sent, dropped, .. } = stats;
        let Stats { replaced, lost, handler_times, handshake_times, .. } = stats;
        let traffic = [received.messages, received.bytes, sent.messages, sent.bytes];
        let counts = [connections.ever, websockets.ever, *requests, *dropped, *replaced, *lost];
        let calls = [handler_times.count(), handshake_times.count()];
        [&traffic[..], &counts, &calls].concat()
    };
    let has_shrunk = ever(&stats).iter().zip(ever(before)).any(|(now, before)| *now < before);
    let is_whole = stats.websockets.ever == of_routes
        && stats.websockets.now + ended == of_routes
        && server.connections().iter().all(|connection| !connection.to_string().is_empty());
    let answer = if has_shrunk || !is_whole {
        format!("{stats:?} after {before:?}")
    } else {
        let Stats { connections, websockets, waiting, writer_threads, .. } = &stats;
        let (connections, websockets, waiting) = (connections.now, websockets.now, waiting.bytes);
        format!(
            "connections={connections} websockets={websockets} waiting={waiting} \
             writers={writer_threads} ended={ended}"
        )
    };
    *before = stats;
    answer
}

/// Who is in which topic, by what a watch says, or what was wrong with that.
type Present = Result<HashSet<(Option<String>, SessionId)>, String>;

fn watch(present: &Arc<Mutex<Present>>) -> io::Result<()> {
    let (changes, present) = (Comms::presence_in("")?, Arc::clone(present));
    thread::Builder::new().name("watch".to_owned()).spawn(move || {
        for change in &changes {
            let mut present = present.lock();
            let who = (change.topic().map(str::to_owned), change.session_id().clone());
            let is_right = present.as_mut().is_ok_and(|present| {
                if change.has_joined() { present.insert(who) } else { present.remove(&who) }
            });
            if !is_right && present.is_ok() {
                *present = Err(format!("it was so before: {change:?}"));
            }
        }
    })?;
    Ok(())
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
        route!("/ticker" => ticker),
        route!("/ask/:user" => ask),
        route!("/limited" => limited),
        route!("/strict" => limited),
        route!("/sum" => websocket(sum)),
        route!("/metrics" => Metrics::new()),
        route!("/files/*path" => StaticFiles::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))),
        route!("/hello" => Hello),
        route!("/page" => Page(vec![b'x'; 16 << 20].into())),
    ];
    // All clients have one address, so that this limit is for counting alone.
    let never = Rate::per_second(1_000_000_000);
    let mut server = Server::new(routes).bind("127.0.0.1:0").handshake_rate_per_peer(never);
    let mut websocket = Websocket::new();
    for argument in env::args().skip(1) {
        (server, websocket) = set(&argument, server, websocket)?;
    }
    let server = server.websocket(websocket).spawn()?;
    say(&server.local_addr().to_string())?;
    let present = Arc::new(Mutex::new(Ok(HashSet::new())));
    let mut before = Stats::default();
    for line in io::stdin().lock().lines() {
        say(&obey(&server, &present, &mut before, &line?)?)?;
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
        "tls" => {
            let files = value.split_once(',').ok_or("tls=CERTIFICATE,KEY")?;
            (server.tls(Tls::files(files.0, files.1)?), websocket)
        }
        "open_timeout" => (server.open_timeout(time()?), websocket),
        "shutdown_timeout" => (server.shutdown_timeout(time()?), websocket),
        "max_connections" => (server.max_connections(number()?), websocket),
        "backlog" => (server.backlog(value.parse()?), websocket),
        "max_message_size" => (server, websocket.max_message_size(number()?)),
        "context_takeover" => {
            (server, websocket.deflate(Deflate::new().context_takeover(number()? > 0)))
        }
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

fn obey(
    server: &ServerHandle,
    present: &Arc<Mutex<Present>>,
    before: &mut Stats,
    line: &str,
) -> Result<String, Box<dyn StdError>> {
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
        ["watch"] => {
            watch(present)?;
            Ok("watching".to_owned())
        }
        ["present"] => Ok(match &*present.lock() {
            Ok(present) => present.len().to_string(),
            Err(fault) => fault.clone(),
        }),
        ["kick", route] => {
            let connections = server.connections().into_iter();
            let of_route = connections.filter(|one| one.route.as_deref() == Some(route));
            let kicked = of_route.filter(|one| server.kick(one.id, "you have been here long"));
            Ok(kicked.count().to_string())
        }
        ["stats"] => Ok(account(server, before)),
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
