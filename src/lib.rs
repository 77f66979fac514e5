//! WebSocket servers in plain, blocking Rust: one thread per connection, no async runtime.
//!
//! A program writes a controller and gives it a route:
//!
//! ```no_run
//! use rwf::http::{self, Server};
//! use rwf::prelude::*;
//!
//! #[derive(Default, macros::WebsocketController)]
//! struct Echo;
//!
//! #[async_trait]
//! impl WebsocketController for Echo {
//!     async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
//!         log::info!("Client {:?} connected to the echo server", client);
//!         Ok(())
//!     }
//!
//!     async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
//!         let comms = Comms::websocket(client);
//!         comms.send(message)?;
//!         Ok(())
//!     }
//! }
//!
//! #[rwf::main]
//! async fn main() -> Result<(), http::Error> {
//!     Server::new(vec![route!("/websocket" => Echo)]).launch().await
//! }
//! ```
//!
//! `Comms::websocket(client)` answers all tabs of that session; `Comms::here()?.send(message)?` answers the one that the
//! message came from. `async` is the syntax of the traits, not a runtime: a handler runs on its connection's own thread and
//! may block. An endpoint can be a plain function as well, which *is* its connection:
//!
//! ```no_run
//! use rwf::http::{self, Server};
//! use rwf::prelude::*;
//!
//! fn echo(mut socket: Socket) -> Result<(), Error> {
//!     while let Some(message) = socket.recv()? {
//!         socket.send(message)?;
//!     }
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), http::Error> {
//!     Server::new(vec![route!("/websocket" => websocket(echo))]).run()
//! }
//! ```
//!
//! # Where to go
//!
//! - [`Socket`](controller::Socket): what a function gets of its WebSocket; [`websocket`](controller::websocket()) makes an
//!   endpoint of it.
//! - [`WebsocketController`](controller::WebsocketController): an endpoint with a method for each event.
//! - [`events`](events()): an endpoint whose messages go to a channel, for a program that has a loop of its own.
//! - [`Comms`](comms::Comms): reaches any session, from handlers, from other threads, from the rest of the program;
//!   [`ServerComms`](comms::ServerComms) those of one server, and a [`Client`](comms::Client) that is kept one connection.
//! - [`Comms::members`](comms::Comms::members): who is there, in a room say; [`Comms::presence`](comms::Comms::presence): who
//!   comes and who goes.
//! - [`Controller`](controller::Controller), [`Request`](http::Request), [`Response`](http::Response): plain HTTP on
//!   the same port, by functions or controllers.
//! - [`StaticFiles`](controller::StaticFiles): the files of a folder, or those that were compiled in.
//! - [`Request::upgrade`](http::Request::upgrade): a look at a request before it becomes a WebSocket.
//! - [`Request::get`](http::Request::get): a request without a server, to test what answers it as a function.
//! - [`Server`](http::Server): where it listens, TCP and Unix sockets, and every limit and timeout; [`run`](http::Server::run) it as a program, or
//!   [`spawn`](http::Server::spawn) it inside one.
//! - [`Websocket`](controller::Websocket): the settings of one endpoint or of all.
//! - [`Stats`](stats::Stats), [`Metrics`](stats::Metrics): what is going on, for people and for Prometheus;
//!   [`connections`](http::ServerHandle::connections) lists who is connected.
//! - [`SessionId`](session::SessionId): who a connection belongs to.
//! - `http::Tls`, with the feature `tls`: `https` and `wss`, with certificates from files that are read again when told to.
//! - `rwf::testing`, with the feature `testing`: a server and its clients, for the tests of a program.
//! - `controller::Deflate`, with the feature `deflate`: how messages are compressed.
//! - `rwf::cluster`, with the feature `redis`: several processes that share their sessions and topics, and the page of the
//!   guide with what that promises and costs.
//! - `Message::json` and `message.json()`, `Request::json` and `Response::json`, with the feature `json`.
//! - [Security](guide::security): what is checked, and how to put a server on the internet.
//! - [systemd](guide::systemd): a server as a service, and its sockets.
//! - [How much memory](guide::memory): what a server takes at most, from its settings.
//! - [The log](guide::logging): its lines, with target, level and meaning.
//!
//! # Life of a connection
//!
//! 1. An accept thread, one for each place where the server listens, takes it and gives it a thread.
//! 2. That thread reads a request, under one deadline, finds its route and calls the controller's `handle`. Most answer,
//!    and the thread reads the next request.
//! 3. `WebsocketController::handle` checks the handshake, takes the socket out of the request, registers the connection
//!    under its session, and sends the 101. A send to the session from here on reaches the client, behind the 101.
//! 4. The same thread is the *reader* now, inside that call: bytes become messages, and each goes to `handle_message`,
//!    or to the function that receives. Pings are answered on the way, and silence is noticed by the read's timeout.
//! 5. Whoever sends to the connection, on whatever thread, writes what the client takes at once, without blocking. What
//!    the client does not take waits in the *outbox*, and a *writer* thread waits with it until it has caught up.
//! 6. Whoever closes first seals the outbox: what waits goes out, then the close frame, then the end of the stream.
//!    `handle_close` is called: for the program the connection is over.
//! 7. The reader reads on until the client ends too. The *watchdog*, one thread per server, cuts what takes too long.
//!    `handle` returns, and the thread ends, or waits a moment for another connection.
//!
//! That `handle` *is* the connection makes a hand-written [`Controller`](controller::Controller) equal to the derive,
//! lets a controller be made for one connection from its request, and keeps a panic on the thread that it concerns.
//!
//! # Other crates in the interface
//!
//! [`websocket::Bytes`] is that of `bytes` 1, [`Uuid`] that of `uuid` 1, [`prelude::log`] is `log` 0.4, and
//! [`prelude::async_trait`] is that of `async-trait` 0.1, [`channel`] is `crossbeam-channel` 0.5: all are re-exported, so
//! that a program need not name them. With the feature `json`, the traits of `serde` 1 are in it too, which a program
//! derives with a `serde` of its own. With the feature `tls`, `Tls::config` takes a `ServerConfig` of `rustls` 0.23, and
//! `Cluster::tls_config` a `ClientConfig`; it is re-exported as well. A new major version of one of these is a new major
//! version of rwf. No other crate's types can be seen.
//!
//! # The house
//!
//! Each folder is a floor. A file imports from the files before it in its own line, and from the floors below;
//! `tests/floors.rs` reads this drawing and holds the source to it. Parsers and protocol rules know no socket: bytes in,
//! values out. `websocket/decoder.rs` says in its first lines why tungstenite's reader does not serve here.
//!
//! ```text
//! testing/     os, tls, wire, response, cookies, slow, client, visitor, server
//!              what the tests of programs are written with; feature `testing`
//! server/      error, pool, router, serve, arrival, process, metrics, tls, acceptor, reload, handle, signals, systemd,
//!              listen, builder
//!              start and stop; the threads of connections; a connection's requests, in order
//! controller/  error, executor, settings, rates, histogram, refusal, slowest, stats, prometheus, counters, connection,
//!              overview, request, request_builder, http, folder, static_files, session, socket, websocket,
//!              function, given, backlog, events
//!              what a program writes, and what it is given; the session inside `handle`
//! comms/       session, receivers, topics, changes, bell, watches, wire, notices, remote_presence, relayed_requests,
//!              survey, joined, envelope, interest, entries, registry, outcome, crossing, reach, server, client,
//!              members, reports, presence_thread, presence, asking, flush, relay, ask, gaps, arrivals, cluster
//!              who is connected, and reaching them
//! websocket/   close, header, message, frame, deflate, extensions, inflater, deflater, compression, prepared,
//!              decoder, batch, latest, pings, lag, questions, traffic,
//!              outbox_state, settings, handshake, outbox, writer, room, marks, sender, pace, reader
//!              RFC 6455; the only writer
//! http/        headers, credentials, cookie, host, method, path, peer, origin, status, rejection, head, body, parser, json,
//!              media_type, range, file, response, validators,
//!              representation, proxy_header, client_certificate
//!              bytes in, values out
//! redis/       node, address, settings, frame, resp, slots, trust, fault, secure, socket, dialer, handshake, read_buffer,
//!              backoff, threads, log_throttle, dialect, sequences, history, parcel, pending, queue, probes,
//!              subscriptions, commands, tally, writer, observers, health, status, reply_handler, link, slot_lookup,
//!              unrouted, routes, shards, links
//!              a connection to Redis that is kept, and what goes through it; feature `redis`
//! net/         peer, socket, os, socket_file, listener, cryptography, ciphertext,
//!              tls_state, tls, stream, watchdog
//!              sockets, and the clock that watches them; no protocol
//! base/        contained, deadline, rate, buckets, rule, shown
//!              what every floor needs
//! ```

// Links to what these features bring lead nowhere without them; with all features, as in CI, each link is checked.
#![cfg_attr(not(all(feature = "redis", feature = "tls")), allow(rustdoc::broken_intra_doc_links))]

mod base;
mod net;
#[cfg(feature = "redis")]
mod redis;
mod server;

/// The checks of the fuzzers, which need what is inside.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../tests/fuzz/checks.rs"]
pub mod fuzz;
/// What the micro-benchmarks call of the inside.
#[cfg(any(test, bench_parts))]
#[doc(hidden)]
#[path = "../tests/bench/parts/internals.rs"]
pub mod parts;

/// Several processes that share their sessions and topics: [`Cluster`](cluster::Cluster). With the feature `redis`.
#[cfg(feature = "redis")]
pub mod cluster {
    pub use crate::comms::cluster::{Cluster, ClusterStatus};
    pub use crate::comms::gaps::Gap;
    pub use crate::comms::outcome::Elsewhere;
    pub use crate::redis::node::NodeId;
}
pub mod comms;
pub mod controller;
pub mod guide;
pub mod http;
pub mod prelude;
#[cfg(feature = "testing")]
pub mod testing;
pub mod websocket;

/// What is going on: [`ServerHandle::stats`](http::ServerHandle::stats) for a server, [`stats()`] for all of the process.
pub mod stats {
    pub use crate::controller::histogram::Histogram;
    pub use crate::controller::overview::{ConnectionInfo, RunningHandler};
    pub use crate::controller::refusal::Refusal;
    pub use crate::controller::slowest::{Call, SlowHandler};
    pub use crate::controller::stats::{Count, RouteStats, Stats, Volume};
    pub use crate::server::metrics::Metrics;
}

/// Who a connection belongs to: sessions, and the connections of one session.
pub mod session {
    #[cfg(feature = "redis")]
    pub use crate::comms::session::ParseConnectionIdError;
    pub use crate::comms::session::{ConnectionId, ParseSessionIdError, SessionId};
}

/// What the macros write.
#[doc(hidden)]
pub mod written {
    pub use crate::controller::given::{Given, Otherwise, Wrapped};
}

pub use crate::controller::events::events;
pub use crate::controller::executor::block_on;
pub use crate::server::process::stats;
pub use crossbeam_channel as channel;
#[cfg(feature = "tls")]
pub use rustls;
pub use rwf_macros as macros;
pub use rwf_macros::{main, route};
pub use uuid::Uuid;

/// The README's programs, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
