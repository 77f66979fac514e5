//! A running server: where it listens, and how it is stopped.

use std::fmt;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::base::contained::contained;
use crate::base::deadline;
#[cfg(feature = "redis")]
use crate::comms::cluster::Member;
use crate::comms::server::{ServerComms, ServerGuard};
use crate::comms::session::ConnectionId;
use crate::controller::overview::ConnectionInfo;
use crate::controller::stats::Stats;
use crate::net::listener::{AcceptWaker, Accepted, LocalAddr};
use crate::server::acceptor::Connections;
use crate::server::error::Error;
use crate::server::process::Counting;
#[cfg(feature = "tls")]
use crate::server::reload;
use crate::server::reload::Reloader;
#[cfg(feature = "tls")]
use crate::server::tls::TlsConfig;

/// How long a cut connection's thread may take to notice, before it counts as a handler that goes on.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// What the log says as the address of a server without a listener.
pub(crate) const NOWHERE: &str = "none";

/// A running server, from [`Server::spawn`](crate::http::Server::spawn). Keep it: dropping it [shuts the server
/// down](Self::shutdown) and waits for that, but for a handler that drops it, which waits for nothing.
///
/// ```
/// use rwf::prelude::*;
/// use rwf::http::Server;
///
/// #[derive(Default, macros::WebsocketController)]
/// struct Echo;
///
/// #[async_trait]
/// impl WebsocketController for Echo {
///     async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
///         Comms::websocket(client).send(message)?;
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), rwf::http::Error> {
/// let server = Server::new(vec![route!("/echo" => Echo)]).bind("127.0.0.1:0").spawn()?;
/// println!("ws://{}/echo", server.local_addr());
/// let report = server.shutdown()?;
/// assert_eq!((report.closed, report.cut), (0, 0));
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it shuts the server down"]
pub struct ServerHandle {
    running: Arc<Running>,
}

struct Running {
    local_addrs: Vec<LocalAddr>,
    connections: Arc<Connections>,
    stage: Mutex<Stage>,
    stopped: Condvar,
}

enum Stage {
    Running(Threads),
    /// A call of `shutdown` does the work.
    Stopping,
    Stopped(Report),
}

/// What has to end with the server.
#[derive(Debug)]
pub(crate) struct Threads {
    pub(crate) accepting: Vec<(JoinHandle<()>, AcceptWaker)>,
    pub(crate) watching: JoinHandle<()>,
    pub(crate) guard: ServerGuard,
    /// While the process is in a cluster for this server.
    #[cfg(feature = "redis")]
    pub(crate) member: Option<Member>,
}

/// How the connections of a server ended when it was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Connections that ended in good order: WebSockets that took their close frame and ended, and HTTP connections with
    /// the answers to their requests, which may be none.
    pub closed: usize,
    /// Connections that did not.
    pub cut: usize,
    /// Those among the cut ones whose handler still runs: a thread cannot be ended from outside.
    pub running: usize,
}

impl ServerHandle {
    pub(crate) fn new(
        local_addrs: Vec<LocalAddr>,
        connections: Arc<Connections>,
        threads: Threads,
    ) -> Self {
        let running = Running {
            local_addrs,
            connections,
            stage: Mutex::new(Stage::Running(threads)),
            stopped: Condvar::new(),
        };
        Self { running: Arc::new(running) }
    }

    /// Where the server listens: with the port that the system chose, if it was bound to port 0. The first address, if it
    /// has several; `0.0.0.0:0`, which nobody has, if it listens on Unix sockets alone, or nowhere.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        let first = self.local_addrs().iter().find_map(LocalAddr::as_tcp);
        first.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// All places where the server listens, in the order in which it was told.
    #[must_use]
    pub fn local_addrs(&self) -> &[LocalAddr] {
        &self.running.local_addrs
    }

    /// Reaches the clients of this server, where [`Comms`](crate::comms::Comms) reaches those of the whole process.
    #[must_use]
    pub fn comms(&self) -> ServerComms {
        ServerComms::new(self.running.connections.context.id)
    }

    /// What is going on in this server: its connections, messages and bytes, by route and in all, what was refused, and
    /// how long things take. After a shutdown it says what there was.
    ///
    /// To ask costs a moment for each open connection, and holds up none of them; any thread may, handlers included.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.running.connections.stats()
    }

    /// The connections that are open, in the order in which they were accepted: for people who look at what is going on.
    ///
    /// To ask costs a moment for each open connection, and holds up none of them; any thread may, handlers included.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.running.connections.list()
    }

    /// Ends one connection of this server: a WebSocket is closed with 1008 and `reason`, of which a close frame holds 123
    /// bytes, behind all that is queued for it; a connection that is no WebSocket is cut. Whether there was one.
    ///
    /// ```
    /// # let server = rwf::http::Server::new(vec![]).bind("127.0.0.1:0").spawn()?;
    /// for connection in server.connections() {
    ///     if connection.peer.ip().is_loopback() {
    ///         server.kick(connection.id, "no local clients");
    ///     }
    /// }
    /// # Ok::<(), rwf::http::Error>(())
    /// ```
    #[doc(alias = "disconnect")]
    pub fn kick(&self, connection: impl Into<ConnectionId>, reason: &str) -> bool {
        self.running.connections.kick(connection.into(), reason)
    }

    /// Takes over a connection that somebody else has accepted: a `TcpStream`, or on Unix a `UnixStream`. `read` is what was
    /// read of it so far, nothing or a part of a request's head or more. It is served on a thread of its own from here
    /// on, just as if the server had accepted it, and nothing of it were read yet: all settings and limits hold, and so does
    /// a [shutdown](Self::shutdown).
    ///
    /// So a program shares its port between this server and another blocking one, or a protocol of its own. It looks at what
    /// a client says first, under a deadline and a limit of its own, and hands over what is for this server:
    ///
    /// ```
    /// use std::io::{self, Read, Write};
    /// use std::net::{TcpListener, TcpStream};
    /// use std::time::Duration;
    /// use rwf::http::{Server, ServerHandle};
    /// use rwf::prelude::*;
    ///
    /// fn greet(mut socket: Socket) -> Result<(), Error> {
    ///     socket.send("welcome")?;
    ///     Ok(())
    /// }
    ///
    /// /// Serves one connection of the program's own port, on a thread of its own.
    /// fn take(mut stream: TcpStream, websockets: &ServerHandle) -> io::Result<()> {
    ///     stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    ///     let mut read = vec![0; 1024];
    ///     let count = stream.read(&mut read)?;
    ///     read.truncate(count);
    ///     if read.starts_with(b"GET /chat ") {
    ///         // A client that it does not take was told so.
    ///         let _ = websockets.serve(stream, read);
    ///         return Ok(());
    ///     }
    ///     stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nThe program's own page.")
    /// }
    ///
    /// let routes = vec![route!("/chat" => websocket(greet))];
    /// let websockets = Server::new(routes).no_listener().spawn()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let client = std::thread::spawn({
    /// #     let address = listener.local_addr()?;
    /// #     move || {
    /// #         let mut client = TcpStream::connect(address).unwrap();
    /// #         let head = "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    /// #             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    /// #         client.write_all(head.as_bytes()).unwrap();
    /// #         let mut received = Vec::new();
    /// #         client.read_to_end(&mut received).unwrap();
    /// #         String::from_utf8_lossy(&received).into_owned()
    /// #     }
    /// # });
    /// # for stream in listener.incoming().take(1) {
    /// #     take(stream?, &websockets)?;
    /// # }
    /// # assert!(client.join().unwrap().contains("welcome"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Nobody else may read, write or shut down the connection any more, through a clone of the stream say. What the program
    /// has set about blocking and timeouts of it does not matter. Over [TLS](crate::http::Server::tls), and from a
    /// [proxy that says whose connection it is](crate::http::Server::proxy_protocol), `read` is what stood on the wire: of
    /// the handshake, or of the proxy's header.
    ///
    /// Where a request was parsed and its bytes are gone, `read` is its head, written again: the request line, the header
    /// lines, an empty line.
    ///
    /// Connections that came in at a loopback address take [loopback names](crate::http::Server::allow_host) only, whatever
    /// the address of the listener was.
    ///
    /// A server that listens too takes them beside; one that is there for them alone has
    /// [no listener](crate::http::Server::no_listener). Any thread may call this, handlers included. It does not wait for
    /// the client.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when there are as many connections as there may be, or when the server shuts down; the client was
    /// answered with 503, or over TLS with the end of the stream. [`Error::System`] when there is no thread for it, with the
    /// same answer. A client that has left meanwhile is no error.
    pub fn serve(
        &self,
        stream: impl Into<Accepted>,
        read: impl Into<Vec<u8>>,
    ) -> Result<(), Error> {
        self.running.connections.take_over(stream.into(), read.into())
    }

    /// Reads the files of its [`Tls`](crate::http::Tls) again, for the connections to come: what SIGHUP does under
    /// [`run`](crate::http::Server::run). Those that are open stay as they are.
    ///
    /// # Errors
    ///
    /// A file is missing or wrong, and everything stays as it was; or there is no file, because the server speaks no TLS or
    /// has a configuration of the program's own.
    #[cfg(feature = "tls")]
    pub fn reload_tls(&self) -> Result<(), Error> {
        reload::read_again(&self.running.connections, &self.address())
    }

    /// What SIGHUP has to do for the server, if that is anything.
    ///
    /// # Errors
    ///
    /// The system gives no thread for it.
    pub(crate) fn reloader(&self) -> io::Result<Option<Reloader>> {
        #[cfg(feature = "tls")]
        if self.running.connections.tls.as_ref().is_some_and(TlsConfig::has_files) {
            let (connections, address) = (Arc::clone(&self.running.connections), self.address());
            let read_again = move || drop(reload::read_again(&connections, &address));
            return Reloader::start(read_again).map(Some);
        }
        Ok(None)
    }

    /// The name of the session cookie, if there is one.
    /// All places where it listens, in one line.
    pub(crate) fn address(&self) -> String {
        self.running.address()
    }

    #[cfg(all(feature = "testing", feature = "tls"))]
    pub(crate) fn speaks_tls(&self) -> bool {
        self.running.connections.tls.is_some()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn session_cookie(&self) -> Option<&str> {
        self.running.connections.context.settings.session_cookie.as_deref()
    }

    /// Shuts the server down, and waits for that:
    ///
    /// 1. the listener is closed, so that its address is free at once, unless others hold it too;
    /// 2. requests that are being read are answered with 503, those being answered get their answers, and WebSockets
    ///    are closed with 1001, after all that is queued for them; what HTTP clients send on after their answers is read
    ///    for up to a second, so that no reset eats these;
    /// 3. what has not ended after [`shutdown_timeout`](crate::http::Server::shutdown_timeout) is cut, and has a second to
    ///    notice;
    /// 4. the threads are joined, but for those of handlers that still run, which the report counts.
    ///
    /// A second call, also from another thread, waits for the first and returns the same report.
    ///
    /// # Errors
    ///
    /// [`Error::FromHandler`] when a thread of this server calls it: a handler, or a logger or destructor that runs there.
    #[doc(alias("graceful", "graceful_shutdown"))]
    pub fn shutdown(&self) -> Result<Report, Error> {
        if self.running.connections.context.watchdog.is_own_thread() {
            return Err(Error::FromHandler);
        }
        Ok(self.running.shut_down())
    }

    /// Waits until another thread has shut the server down.
    ///
    /// # Errors
    ///
    /// [`Error::FromHandler`] when a thread of this server calls it: a handler, or a logger or destructor that runs there.
    pub fn join(&self) -> Result<Report, Error> {
        if self.running.connections.context.watchdog.is_own_thread() {
            return Err(Error::FromHandler);
        }
        Ok(self.running.wait_until_stopped())
    }
}

impl Running {
    fn shut_down(&self) -> Report {
        let mut stage = self.stage.lock();
        let threads = match mem::replace(&mut *stage, Stage::Stopping) {
            Stage::Running(threads) => threads,
            other => {
                *stage = other;
                drop(stage);
                return self.wait_until_stopped();
            }
        };
        drop(stage);
        let report = self.stop(threads);
        *self.stage.lock() = Stage::Stopped(report);
        self.stopped.notify_all();
        let Report { closed, cut, running } = report;
        let address = self.address();
        if running > 0 {
            contained(|| {
                log::warn!(
                    target: "rwf::server",
                    "handlers still run, and their connections are cut running={running} \
                     address={address}"
                );
            });
        }
        contained(|| {
            log::info!(
                target: "rwf::server",
                "stopped listening address={address} closed={closed} cut={cut} running={running}"
            );
        });
        report
    }

    fn wait_until_stopped(&self) -> Report {
        let mut stage = self.stage.lock();
        loop {
            match *stage {
                Stage::Stopped(report) => return report,
                Stage::Running(_) | Stage::Stopping => self.stopped.wait(&mut stage),
            }
        }
    }

    /// All places where it listens, for the log.
    fn address(&self) -> String {
        if self.local_addrs.is_empty() {
            return NOWHERE.to_owned();
        }
        let addresses: Vec<_> = self.local_addrs.iter().map(ToString::to_string).collect();
        addresses.join(",")
    }

    fn stop(&self, threads: Threads) -> Report {
        let Threads { accepting, watching, guard, .. } = threads;
        let Connections { context, .. } = &*self.connections;
        let deadline = deadline::after(context.settings.shutdown_timeout);
        context.stop();
        for ((accepting, waker), address) in accepting.into_iter().zip(&self.local_addrs) {
            if waker.wake() {
                let _ = accepting.join();
                continue;
            }
            contained(|| {
                log::warn!(
                    target: "rwf::server",
                    "accepting ends with the next connection address={address}: others took all"
                );
            });
        }
        self.connections.end_all();
        if !self.connections.wait_until_ended(deadline) {
            self.connections.cut_all();
            self.connections.wait_until_ended(deadline::after(CUT_GRACE));
        }
        let (closed, cut, running) = self.connections.join_all();
        drop(guard);
        // The last that handlers have said to other nodes goes out.
        #[cfg(feature = "redis")]
        drop(threads.member);
        context.watchdog.stop();
        let _ = watching.join();
        Report { closed, cut, running }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        if self.running.connections.context.watchdog.is_own_thread() {
            // A handler dropped it, and cannot wait for itself.
            let running = Arc::clone(&self.running);
            let stopping = thread::Builder::new().name("rwf-shutdown".to_owned());
            if let Err(error) = stopping.spawn(move || running.shut_down()) {
                let address = self.running.address();
                contained(|| {
                    log::error!(
                        target: "rwf::server",
                        "the server goes on address={address}: no thread to stop it: {error}"
                    );
                });
            }
        } else {
            self.running.shut_down();
        }
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local_addrs = self.local_addrs();
        f.debug_struct("ServerHandle").field("local_addrs", &local_addrs).finish_non_exhaustive()
    }
}
