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
//! - [`Controller`](controller::Controller), [`Request`](http::Request), [`Response`](http::Response): plain HTTP on
//!   the same port, by functions or controllers.
//! - [`Request::upgrade`](http::Request::upgrade): a look at a request before it becomes a WebSocket.
//! - [`Request::get`](http::Request::get): a request without a server, to test what answers it as a function.
//! - [`Server`](http::Server): the address, and every limit and timeout; [`run`](http::Server::run) it as a program, or
//!   [`spawn`](http::Server::spawn) it inside one.
//! - [`Websocket`](controller::Websocket): the settings of one endpoint or of all.
//! - [`SessionId`](session::SessionId): who a connection belongs to.
//! - `rwf::testing`, with the feature `testing`: a server and its clients, for the tests of a program.
//! - [Security](guide::security): what is checked, and how to put a server on the internet.
//! - [How much memory](guide::memory): what a server takes at most, from its settings.
//!
//! # Life of a connection
//!
//! 1. The accept thread takes it and gives it a thread.
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
//! [`prelude::async_trait`] is that of `async-trait` 0.1, [`channel`] is `crossbeam-channel` 0.5: all are re-exported, so that a program need not name them. A new
//! major version of one of these is a new major version of rwf. No other crate's types can be seen.
//!
//! # The house
//!
//! Each folder is a floor. A file imports from the files before it in its own line, and from the floors below;
//! `tests/floors.rs` reads this drawing and holds the source to it. Parsers and protocol rules know no socket: bytes in,
//! values out. `websocket/decoder.rs` says in its first lines why tungstenite's reader does not serve here.
//!
//! ```text
//! testing/     os, response, cookies, slow, client, visitor, server
//!              what the tests of programs are written with; feature `testing`
//! server/      error, pool, router, serve, acceptor, handle, signals, builder
//!              start and stop; the threads of connections; a connection's requests, in order
//! controller/  error, executor, settings, rates, connection, request, request_builder, http,
//!              session, socket, websocket, function, events
//!              what a program writes, and what it is given; the session inside `handle`
//! comms/       session, topics, registry, reach, client
//!              who is connected, and reaching them
//! websocket/   close, header, message, decoder, frame, batch, outbox_state, settings, handshake,
//!              outbox, writer, sender, pace, reader
//!              RFC 6455; the only writer
//! http/        headers, cookie, host, method, path, peer, origin, status, rejection, head, body, parser, response
//!              bytes in, values out
//! net/         os, stream, watchdog
//!              sockets, and the clock that watches them; no protocol
//! base/        contained, deadline, rate, buckets, rule, shown
//!              what every floor needs
//! ```

mod base;
mod net;
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

pub mod comms;
pub mod controller;
pub mod guide;
pub mod http;
pub mod prelude;
#[cfg(feature = "testing")]
pub mod testing;
pub mod websocket;

/// Who a connection belongs to: sessions, and the connections of one session.
pub mod session {
    pub use crate::comms::session::{ConnectionId, ParseSessionIdError, SessionId};
}

pub use crate::controller::events::events;
pub use crate::controller::executor::block_on;
pub use crossbeam_channel as channel;
pub use rwf_macros as macros;
pub use rwf_macros::{main, route};
pub use uuid::Uuid;

/// The README's programs, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
