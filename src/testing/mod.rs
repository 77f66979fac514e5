//! For the tests of programs that use rwf: a server on a port of its own, clients that block, and clients that misbehave.
//! It is there with the feature `testing`, which belongs among the `dev-dependencies`:
//!
//! ```toml
//! [dev-dependencies]
//! rwf = { path = "…", features = ["testing"] }
//! ```
//!
//! ```
//! use rwf::prelude::*;
//! use rwf::testing;
//!
//! fn chat(mut socket: Socket) -> Result<(), Error> {
//!     while let Some(message) = socket.recv()? {
//!         // That somebody else is too slow is no reason for this one to end.
//!         let _ = socket.comms().broadcast(socket.connection_id()).send(message);
//!     }
//!     Ok(())
//! }
//!
//! // In a `#[test]`:
//! let server = testing::serve(vec![route!("/chat" => websocket(chat))]);
//! let mut anna = server.connect("/chat");
//! let mut ben = server.connect("/chat");
//! anna.send("hello");
//! assert_eq!(ben.recv_text(), "hello");
//! anna.expect_nothing();
//! anna.close(1000, "bye");
//! ```
//!
//! What does not happen is a panic that says what was expected, what came instead and on which path, at the line of the
//! test that expected it. Nothing waits for ever: see [`Visitor::timeout`].
//!
//! # Why a handler failed
//!
//! A client does not learn it: it gets a 500, or a close with 1011. The log says it, and cargo shows that with a test that
//! fails where the test has set a logger: with `env_logger` among the `dev-dependencies`, say,
//!
//! ```
//! # use rwf::prelude::*;
//! # fn broken(_: &Request) -> Result<Response, Error> { Err(Error::new("the disk is full")) }
//! # #[cfg(feature = "logger")]
//! let _ = env_logger::builder().is_test(true).try_init();
//! let server = rwf::testing::serve(vec![route!("/broken" => broken)]);
//! assert_eq!(server.get("/broken").status(), 500);  // ERROR … GET /broken 500 …: the disk is full
//! ```
//!
//! in each test. Errors are shown then; `RUST_LOG=rwf=info` shows all requests and WebSockets.
//!
//! # Somebody
//!
//! Each [`TestServer::connect`] is another guest. A [`Visitor`] is one person's browser: its tabs are one session, it
//! keeps the cookies that it is given, and it has the headers of your choice, by which a controller knows its users.
//!
//! ```
//! # use rwf::prelude::*;
//! # fn chat(mut socket: Socket) -> Result<(), Error> { socket.iter().for_each(drop); Ok(()) }
//! # let server = rwf::testing::serve(vec![route!("/chat" => websocket(chat))]);
//! let anna = server.visitor().header("Authorization", "Bearer 42");
//! let (mut phone, mut laptop) = (anna.connect("/chat"), anna.connect("/chat"));
//! server.comms().websocket(anna.session_id()).send("for both")?;
//! assert_eq!((phone.recv_text(), laptop.recv_text()), ("for both".into(), "for both".into()));
//! # Ok::<(), Error>(())
//! ```
//!
//! # Plain HTTP
//!
//! [`TestServer::get`] and [`TestServer::post`] ask the server. A function or a controller needs none: it can be called
//! with a request that [`Request::get`](crate::http::Request::get) builds.
//!
//! # TLS
//!
//! With a server that speaks [TLS](crate::http::Server::tls), the clients do too. They take any certificate, because they know
//! whom they talk to; [`Visitor::tls`] makes them as strict as others are.
//!
//! # Several nodes
//!
//! Two servers of one process are one node of a [cluster](crate::guide::cluster), whose guide says how several nodes are
//! [tested](crate::guide::cluster#tests).
//!
//! # Clients that misbehave
//!
//! A [`TestClient`] that is not told to receive does not read, which the server notices when all buffers are full:
//! [`TestClient::never_read`] makes that soon, and says which setting makes it sooner. [`TestClient::read_slowly`]
//! reads meanwhile, [`TestClient::send_unfinished`] stops in the middle of a frame, [`TestClient::send_bytes`] breaks
//! any rule, [`TestClient::reset`] ends with a reset. A dropped client ends its stream without a close frame, as a
//! browser that crashed. One that is kept after [`TestClient::send_close`] or [`TestClient::expect_close`] leaves its
//! TCP connection open, which no good client does; whether the server ends it is what [`TestClient::expect_end`] waits
//! for.

pub(crate) mod client;
pub(crate) mod cookies;
pub(crate) mod os;
pub(crate) mod response;
pub(crate) mod server;
pub(crate) mod slow;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod visitor;
pub(crate) mod wire;

pub use self::client::TestClient;
pub use self::response::TestResponse;
pub use self::server::{TestServer, serve, start};
pub use self::slow::SlowReader;
pub use self::visitor::Visitor;
