//! The server of a test, which ends with it.

use std::ops::Deref;
use std::time::Duration;

use crate::http::method::Method;
use crate::server::builder::Server;
use crate::server::handle::ServerHandle;
use crate::server::router::Route;
use crate::testing::client::TestClient;
use crate::testing::response::TestResponse;
#[cfg(feature = "tls")]
use crate::testing::tls::any_certificate;
use crate::testing::visitor::Visitor;
use crate::testing::wire::Target;

/// A test that ends, or panics, need not wait for clients that it has forgotten.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// A server for these routes, with the usual settings, on a free port of this machine.
///
/// ```
/// use rwf::prelude::*;
/// # fn chat(mut socket: Socket) -> Result<(), Error> { socket.iter().for_each(drop); Ok(()) }
///
/// let server = rwf::testing::serve(vec![route!("/chat" => websocket(chat))]);
/// let client = server.connect("/chat");
/// client.close(1000, "bye");
/// ```
///
/// Other than usual, its `shutdown_timeout` is a second.
///
/// # Panics
///
/// The server cannot start.
#[track_caller]
pub fn serve(routes: Vec<Route>) -> TestServer {
    start(Server::new(routes).shutdown_timeout(SHUTDOWN_TIMEOUT))
}

/// Starts a server with settings of its own, on a free port of this machine, wherever it was bound to.
///
/// ```
/// use rwf::controller::Websocket;
/// use rwf::http::Server;
/// use rwf::prelude::*;
/// # fn chat(mut socket: Socket) -> Result<(), Error> { socket.iter().for_each(drop); Ok(()) }
///
/// let settings = Websocket::new().max_message_size(10);
/// let server = Server::new(vec![route!("/chat" => websocket(chat))]).websocket(settings);
/// let server = rwf::testing::start(server);
/// let mut client = server.connect("/chat");
/// client.send("more than ten bytes");
/// client.expect_close(1009);
/// ```
///
/// # Panics
///
/// The server cannot start.
#[track_caller]
pub fn start(server: Server) -> TestServer {
    match server.nowhere().bind("127.0.0.1:0").spawn() {
        Ok(handle) => handle.into(),
        Err(error) => panic!("the server cannot start: {error:?}"),
    }
}

/// A running server that ends with the test: from [`serve`], [`start`], or a [`ServerHandle`].
///
/// It is shut down when it is dropped, also when the test panics. Clients that are declared after it are dropped before.
/// It can do what its [`ServerHandle`] can; what it can do beside is that of a new [`visitor`](Self::visitor) each time.
#[derive(Debug)]
#[must_use = "dropping it shuts the server down"]
pub struct TestServer {
    handle: ServerHandle,
}

impl TestServer {
    /// Somebody who has not been here: a guest with a session of its own.
    #[must_use]
    pub fn visitor(&self) -> Visitor {
        let target = Target {
            address: self.local_addr(),
            #[cfg(feature = "tls")]
            tls: self.speaks_tls().then(any_certificate),
        };
        Visitor::new(target, self.session_cookie())
    }

    /// Opens a WebSocket, as a guest of its own: [`Visitor::connect`].
    ///
    /// # Panics
    ///
    /// The server refuses, or the endpoint does not receive.
    #[track_caller]
    pub fn connect(&self, path: &str) -> TestClient {
        self.visitor().connect(path)
    }

    /// Opens a WebSocket, as a guest of its own: [`Visitor::try_connect`].
    ///
    /// # Errors
    ///
    /// The response, if it does not open a WebSocket.
    ///
    /// # Panics
    ///
    /// There is no response, or the endpoint does not receive.
    #[track_caller]
    pub fn try_connect(&self, path: &str) -> Result<TestClient, TestResponse> {
        self.visitor().try_connect(path)
    }

    /// The response to a GET: [`Visitor::get`].
    ///
    /// # Panics
    ///
    /// There is none.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str) -> TestResponse {
        self.visitor().get(path)
    }

    /// The response to a POST with that body: [`Visitor::post`].
    ///
    /// # Panics
    ///
    /// There is none.
    #[track_caller]
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> TestResponse {
        self.visitor().post(path, body)
    }

    /// The response to a request of any method: [`Visitor::request`].
    ///
    /// # Panics
    ///
    /// There is none.
    #[track_caller]
    pub fn request(&self, method: Method, path: &str, body: impl AsRef<[u8]>) -> TestResponse {
        self.visitor().request(method, path, body)
    }
}

/// A server that the test or the program has started by itself.
impl From<ServerHandle> for TestServer {
    fn from(handle: ServerHandle) -> Self {
        Self { handle }
    }
}

impl Deref for TestServer {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}
