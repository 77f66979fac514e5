//! A running server: where it listens, and how it is stopped.

use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::base::contained::contained;
use crate::base::deadline;
use crate::comms::reach::ServerComms;
use crate::net::os::AcceptWaker;
use crate::server::acceptor::Connections;
use crate::server::error::Error;

/// How long a cut connection's thread may take to notice, before it counts as a handler that goes on.
const CUT_GRACE: Duration = Duration::from_secs(1);

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
    local_addr: SocketAddr,
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
    pub(crate) accepting: JoinHandle<()>,
    pub(crate) waker: AcceptWaker,
    pub(crate) watching: JoinHandle<()>,
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
        local_addr: SocketAddr,
        connections: Arc<Connections>,
        threads: Threads,
    ) -> Self {
        let running = Running {
            local_addr,
            connections,
            stage: Mutex::new(Stage::Running(threads)),
            stopped: Condvar::new(),
        };
        Self { running: Arc::new(running) }
    }

    /// Where the server listens: with the port that the system chose, if it was bound to port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.running.local_addr
    }

    /// Reaches the clients of this server, where [`Comms`](crate::comms::Comms) reaches those of the whole process.
    #[must_use]
    pub fn comms(&self) -> ServerComms {
        ServerComms::new(self.running.connections.context.id)
    }

    /// The name of the session cookie, if there is one.
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
        if running > 0 {
            contained(|| log::warn!("{running} handlers still run; their connections are cut"));
        }
        let address = self.local_addr;
        contained(|| log::info!("stopped listening on {address}: {closed} closed, {cut} cut"));
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

    fn stop(&self, Threads { accepting, waker, watching }: Threads) -> Report {
        let Connections { context, .. } = &*self.connections;
        let deadline = deadline::after(context.settings.shutdown_timeout);
        context.stop();
        if waker.wake() {
            let _ = accepting.join();
        } else {
            let address = self.local_addr;
            contained(|| {
                log::warn!("accepting on {address} ends with the next connection: others took all");
            });
        }
        self.connections.end_all();
        if !self.connections.wait_until_ended(deadline) {
            self.connections.cut_all();
            self.connections.wait_until_ended(deadline::after(CUT_GRACE));
        }
        let (closed, cut, running) = self.connections.join_all();
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
                let address = self.local_addr();
                contained(|| {
                    log::error!("the server on {address} goes on: no thread to stop it: {error}");
                });
            }
        } else {
            self.running.shut_down();
        }
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local_addr = self.local_addr();
        f.debug_struct("ServerHandle").field("local_addr", &local_addr).finish_non_exhaustive()
    }
}
