//! Accepts connections, gives each a thread, and knows which there are.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::http::response::Response;
use crate::http::serve::serve;
use crate::link::{Context, Link};
use crate::os;
use crate::router::Router;
use crate::session::ConnectionId;
use crate::socket::Socket;

/// How long accepting waits for an end when descriptors or threads have run out.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(50);
/// Trouble with accepting is logged at most so often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// When a client that finds the server full may come back, in seconds.
const RETRY_AFTER: &str = "5";

/// A server's connections. The accept thread adds to them, and each connection's thread takes itself off.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) context: Arc<Context>,
    router: Router,
    open: Mutex<HashMap<ConnectionId, Entry>>,
    /// Signalled when a connection ends.
    ended: Condvar,
}

#[derive(Debug)]
struct Entry {
    link: Arc<Link>,
    /// `None` until the thread runs.
    thread: Option<JoinHandle<()>>,
    /// Kept after its end while the server stops, so that its thread can be joined.
    has_ended: bool,
}

thread_local! {
    /// The server whose connection this thread runs, by the address of its `Connections`.
    static SERVED_BY: Cell<usize> = const { Cell::new(0) };
}

impl Connections {
    pub(crate) fn new(context: Arc<Context>, router: Router) -> Arc<Self> {
        Arc::new(Self { context, router, open: Mutex::default(), ended: Condvar::new() })
    }

    /// The accept thread: ends when the server stops, and closes the listener.
    #[expect(clippy::needless_pass_by_value, reason = "the thread owns the listener and closes it")]
    pub(crate) fn accept_all(self: Arc<Self>, listener: TcpListener) {
        let mut logged: Option<Instant> = None;
        while !self.context.is_stopping() {
            let admitted = match listener.accept() {
                Ok(_) if self.context.is_stopping() => return,
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => Err(error),
            };
            let Err(error) = admitted else { continue };
            if self.context.is_stopping() || is_of_the_peer(&error) {
                continue;
            }
            if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                logged = Some(Instant::now());
                log::error!("cannot take a connection, trying on: {error}");
            }
            let mut open = self.open.lock();
            self.ended.wait_for(&mut open, EXHAUSTION_PAUSE);
        }
    }

    /// Gives a connection its thread, or refuses it without one when there are too many.
    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let settings = &self.context.settings;
        let socket = Socket::new(stream, settings.no_delay)?;
        if self.open.lock().len() >= settings.max_connections {
            refuse(&socket, peer, settings.max_connections);
            return Ok(());
        }
        let link = Arc::new(Link::new(socket, peer, Arc::clone(&self.context)));
        let id = link.id;
        let entry = Entry { link: Arc::clone(&link), thread: None, has_ended: false };
        self.open.lock().insert(id, entry);
        let guard = EndGuard { connections: Arc::clone(self), id };
        let thread = thread::Builder::new()
            .name(format!("rwf-{id}"))
            .stack_size(settings.stack_size)
            .spawn(move || {
                SERVED_BY.set(Arc::as_ptr(&guard.connections).addr());
                serve(&link, &guard.connections.router);
            })?;
        if let Some(entry) = self.open.lock().get_mut(&id) {
            entry.thread = Some(thread);
        }
        Ok(())
    }

    /// Whether the calling thread runs a connection of this server.
    pub(crate) fn is_own_thread(&self) -> bool {
        SERVED_BY.get() == std::ptr::from_ref(self).addr()
    }

    /// Ends all connections in good order; see [`Link::end`].
    pub(crate) fn end_all(&self) {
        for link in self.running() {
            link.end();
        }
    }

    /// Cuts all connections that still run.
    pub(crate) fn cut_all(&self) {
        for link in self.running() {
            link.cut();
        }
    }

    fn running(&self) -> Vec<Arc<Link>> {
        let open = self.open.lock();
        open.values().filter(|entry| !entry.has_ended).map(|entry| entry.link.clone()).collect()
    }

    /// Waits until all connections have ended, or the deadline; whether they have.
    pub(crate) fn wait_until_ended(&self, deadline: Instant) -> bool {
        let mut open = self.open.lock();
        while open.values().any(|entry| !entry.has_ended) {
            if self.ended.wait_until(&mut open, deadline).timed_out() {
                return open.values().all(|entry| entry.has_ended);
            }
        }
        true
    }

    /// Joins the threads that have ended since the server began to stop: how many connections ended in good order, how
    /// many were cut, and how many handlers still run.
    pub(crate) fn join_all(&self) -> (usize, usize, usize) {
        let entries: Vec<Entry> = self.open.lock().drain().map(|(_, entry)| entry).collect();
        let (ended, running): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.has_ended);
        let cut = ended.iter().filter(|entry| entry.link.was_cut()).count();
        let closed = ended.len() - cut;
        for thread in ended.into_iter().filter_map(|entry| entry.thread) {
            let _ = thread.join();
        }
        (closed, cut + running.len(), running.len())
    }
}

/// Takes a connection off the list when its thread ends, in whatever way.
#[derive(Debug)]
struct EndGuard {
    connections: Arc<Connections>,
    id: ConnectionId,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let Connections { context, open, ended, .. } = &*self.connections;
        let mut open = open.lock();
        let removed = if context.is_stopping() {
            if let Some(entry) = open.get_mut(&self.id) {
                entry.has_ended = true;
            }
            None
        } else {
            open.remove(&self.id)
        };
        drop(open);
        ended.notify_all();
        drop(removed);
    }
}

/// Whether accepting failed because of the one connection that was to be accepted.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    ) && !os::is_exhaustion(error)
}

fn refuse(socket: &Socket, peer: SocketAddr, limit: usize) {
    log::debug!("refused 503 peer={peer}: there are {limit} connections already");
    let response = Response::service_unavailable().header("Retry-After", RETRY_AFTER);
    // What does not fit into an empty send buffer is no loss: the client is closed either way.
    let _ = socket.write_now(&[IoSlice::new(&response.encode(false, Some("close")))]);
    socket.finish_writing();
    socket.discard_arrived();
}
