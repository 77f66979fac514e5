//! A running server: where it listens, and how it is stopped.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::Error;
use crate::os;
use crate::server::acceptor::Connections;

/// How long a cut connection's thread may take to notice, before it counts as a handler that goes on.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A running server, from [`Server::spawn`](crate::http::Server::spawn). Dropping it shuts the server down.
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
pub struct ServerHandle {
    local_addr: SocketAddr,
    connections: Arc<Connections>,
    /// To wake the accept thread with.
    listener: Mutex<Option<TcpListener>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    report: Mutex<Option<Report>>,
    stopped: Condvar,
    /// Held by the call of `shutdown` that does the work.
    stopping: Mutex<()>,
}

/// How the connections of a server ended when it was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Connections that ended in good order: WebSockets with a close frame from each side, and HTTP connections with
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
        listener: TcpListener,
        threads: Vec<JoinHandle<()>>,
    ) -> Self {
        Self {
            local_addr,
            connections,
            listener: Mutex::new(Some(listener)),
            threads: Mutex::new(threads),
            report: Mutex::default(),
            stopped: Condvar::new(),
            stopping: Mutex::default(),
        }
    }

    /// Where the server listens: with the port that the system chose, if it was bound to port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Shuts the server down, and waits for that:
    ///
    /// 1. the listener is closed, so that its address is free at once;
    /// 2. requests that are being read are answered with 503, those being answered get their answers, and WebSockets
    ///    are closed with 1001, after all that is queued for them;
    /// 3. what has not ended after [`shutdown_timeout`](crate::http::Server::shutdown_timeout) is cut;
    /// 4. the threads are joined.
    ///
    /// A second call, also from another thread, waits for the first and returns the same report.
    ///
    /// # Errors
    ///
    /// [`Error::FromHandler`] when a handler of this server calls it.
    pub fn shutdown(&self) -> Result<Report, Error> {
        if self.connections.is_own_thread() {
            return Err(Error::FromHandler);
        }
        let _working = self.stopping.lock();
        if let Some(report) = *self.report.lock() {
            return Ok(report);
        }
        let report = self.stop();
        *self.report.lock() = Some(report);
        self.stopped.notify_all();
        Ok(report)
    }

    /// Waits until another thread has shut the server down.
    ///
    /// # Errors
    ///
    /// [`Error::FromHandler`] when a handler of this server calls it.
    pub fn join(&self) -> Result<Report, Error> {
        if self.connections.is_own_thread() {
            return Err(Error::FromHandler);
        }
        let mut report = self.report.lock();
        loop {
            match *report {
                Some(report) => return Ok(report),
                None => self.stopped.wait(&mut report),
            }
        }
    }

    fn stop(&self) -> Report {
        let Connections { context, .. } = &*self.connections;
        let deadline = Instant::now() + context.settings.shutdown_timeout;
        self.stop_accepting();
        let mut threads = std::mem::take(&mut *self.threads.lock()).into_iter();
        if let Some(accepting) = threads.next() {
            let _ = accepting.join();
        }
        self.connections.end_all();
        if !self.connections.wait_until_ended(deadline) {
            self.connections.cut_all();
            self.connections.wait_until_ended(Instant::now() + CUT_GRACE);
        }
        let (closed, cut, running) = self.connections.join_all();
        context.reaper.stop();
        for thread in threads {
            let _ = thread.join();
        }
        let report = Report { closed, cut, running };
        if running > 0 {
            log::warn!("{running} handlers still run; their connections are cut");
        }
        log::info!("stopped listening on {}: {closed} closed, {cut} cut", self.local_addr);
        report
    }

    fn stop_accepting(&self) {
        self.connections.context.stop();
        if let Some(listener) = self.listener.lock().take() {
            os::wake_accept(&listener, self.local_addr);
        }
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        if matches!(self.shutdown(), Err(Error::FromHandler)) {
            // A handler dropped it, and cannot wait for itself: the server stops, and is not waited for.
            self.stop_accepting();
            self.connections.end_all();
            self.connections.context.reaper.stop();
        }
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}
