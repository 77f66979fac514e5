//! Accepts connections, gives each a thread, and keeps a list of those that are open.

use std::collections::{HashMap, hash_map};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::contained::contained;
use crate::comms::session::ConnectionId;
use crate::controller::connection::{Connection, Context};
use crate::http::response::Response;
use crate::net::os::Acceptor;
use crate::net::stream::Stream;
use crate::server::pool::Pool;
use crate::server::router::Router;
use crate::server::serve::serve;

/// How long accepting waits for some connection to end when descriptors or threads have run out.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(50);
/// Trouble with accepting is logged at most so often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// How long a refusal may take to be written. The send buffer of a new connection is empty, and takes it at once.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(10);
/// When a client that finds the server full may come back, in seconds.
const RETRY_AFTER: &str = "5";

/// A server's connections. The accept thread adds to them, and each connection's thread takes itself off.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) context: Arc<Context>,
    router: Router,
    pool: Arc<Pool>,
    open: Mutex<Open>,
    /// Signalled when a connection ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    entries: HashMap<ConnectionId, Entry>,
    /// How many connections an address has.
    peers: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    connection: Arc<Connection>,
    /// Kept after its end while the server stops, for the report.
    has_ended: bool,
}

impl Connections {
    pub(crate) fn new(context: Arc<Context>, router: Router) -> Arc<Self> {
        let pool = Pool::new(context.settings.stack_size, context.settings.spare_threads);
        Arc::new(Self { context, router, pool, open: Mutex::default(), ended: Condvar::new() })
    }

    /// The accept thread: ends when the server stops, and closes the listener.
    #[expect(clippy::needless_pass_by_value, reason = "the thread owns the listener and closes it")]
    pub(crate) fn accept_all(self: Arc<Self>, acceptor: Acceptor) {
        self.context.watchdog.adopt_thread();
        let mut logged: Option<Instant> = None;
        while !self.context.is_stopping() {
            // A panic that comes with one connection, of the program's logger say, must not concern the others.
            contained(|| self.accept_one(&acceptor, &mut logged));
        }
    }

    fn accept_one(self: &Arc<Self>, acceptor: &Acceptor, logged: &mut Option<Instant>) {
        let admitted = match acceptor.accept(&self.context.stop) {
            Ok(_) if self.context.is_stopping() => return,
            Ok((stream, peer)) => self.admit(stream, peer),
            Err(error) if is_transient(&error) => return,
            Err(error) => Err(error),
        };
        let Err(error) = admitted else { return };
        if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            contained(|| log::error!("cannot take a connection, trying on: {error}"));
        }
        let mut open = self.open.lock();
        self.ended.wait_for(&mut open, EXHAUSTION_PAUSE);
    }

    /// Gives a connection its thread, or refuses it without one when there are too many.
    fn admit(self: &Arc<Self>, stream: TcpStream, mut peer: SocketAddr) -> io::Result<()> {
        // To a listener on an IPv6 address IPv4 clients come as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
        peer.set_ip(peer.ip().to_canonical());
        let settings = &self.context.settings;
        let Ok(stream) = Stream::new(stream, settings.no_delay) else {
            // The client has left already.
            return Ok(());
        };
        if self.is_full(peer.ip()) {
            refuse(&stream, peer);
            return Ok(());
        }
        let connection = Arc::new(Connection::new(stream, peer, Arc::clone(&self.context)));
        let stream = Arc::clone(&connection.stream);
        let id = connection.id;
        let entry = Entry { connection: Arc::clone(&connection), has_ended: false };
        self.open.lock().add(id, entry);
        let guard = EndGuard { connections: Arc::clone(self), id };
        let run = move || {
            guard.connections.context.watchdog.adopt_thread();
            serve(&connection, &guard.connections.router);
            // A controller may have kept the request, and with it the socket.
            connection.stream.cut();
        };
        self.pool.run(run).inspect_err(|_| refuse(&stream, peer))
    }

    /// Whether there are as many connections as there may be, in all or of this address.
    fn is_full(&self, peer: IpAddr) -> bool {
        let settings = &self.context.settings;
        let open = self.open.lock();
        open.entries.len() >= settings.max_connections
            || (open.peers.get(&peer).is_some_and(|has| *has >= settings.max_connections_per_peer)
                && !settings.trusted_proxies.contains(&peer))
    }

    /// Warns once of each handler that has run for `handler_warning`. The watchdog calls this once in every `interval`,
    /// by which the clock may have been behind when a handler began.
    pub(crate) fn warn_of_long_handlers(&self, interval: Duration) {
        let limit = self.context.settings.handler_warning;
        self.context.advance_clock();
        for connection in self.running() {
            if !connection.handler_takes_long(limit.saturating_add(interval)) {
                continue;
            }
            let (task, peer) = (connection.task(), connection.peer);
            let warn = move || {
                log::warn!("a handler has run for {limit:?} and still does: {task} peer={peer}");
            };
            // The logger may block, and the watchdog may not. Without a thread the next round tries again.
            let thread = thread::Builder::new().name("rwf-warning".to_owned());
            if thread.spawn(|| contained(warn)).is_ok() {
                connection.note_warning();
            }
        }
    }

    /// Ends all connections in good order; see [`Connection::end`].
    pub(crate) fn end_all(&self) {
        for connection in self.running() {
            connection.end();
        }
    }

    /// Cuts all connections that still run.
    pub(crate) fn cut_all(&self) {
        for connection in self.running() {
            connection.cut();
        }
    }

    fn running(&self) -> Vec<Arc<Connection>> {
        let open = self.open.lock();
        let running = open.entries.values().filter(|entry| !entry.has_ended);
        running.map(|entry| Arc::clone(&entry.connection)).collect()
    }

    /// Waits until all connections have ended, or the deadline; whether they have.
    pub(crate) fn wait_until_ended(&self, deadline: Instant) -> bool {
        let mut open = self.open.lock();
        while open.entries.values().any(|entry| !entry.has_ended) {
            if self.ended.wait_until(&mut open, deadline).timed_out() {
                return open.entries.values().all(|entry| entry.has_ended);
            }
        }
        true
    }

    /// Joins the threads, but for those whose handlers still run: how many connections ended in good order since the
    /// server began to stop, how many were cut, and how many handlers still run.
    pub(crate) fn join_all(&self) -> (usize, usize, usize) {
        let entries = std::mem::take(&mut self.open.lock().entries);
        let (ended, running): (Vec<_>, Vec<_>) =
            entries.into_values().partition(|entry| entry.has_ended);
        let cut = ended.iter().filter(|entry| entry.connection.was_lost()).count();
        self.pool.stop(running.len());
        (ended.len() - cut, cut + running.len(), running.len())
    }
}

impl Open {
    fn add(&mut self, id: ConnectionId, entry: Entry) {
        *self.peers.entry(entry.connection.peer.ip()).or_default() += 1;
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: &ConnectionId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        if let hash_map::Entry::Occupied(mut peer) = self.peers.entry(entry.connection.peer.ip()) {
            *peer.get_mut() -= 1;
            if *peer.get() == 0 {
                peer.remove();
            }
        }
        Some(entry)
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
            if let Some(entry) = open.entries.get_mut(&self.id) {
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

/// Whether `accept` failed for no lasting reason: the one connection that it was about to return has failed, a stop
/// woke it, or another server, which shares the listener, was faster.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

fn refuse(stream: &Stream, peer: SocketAddr) {
    contained(|| log::debug!("refused 503 peer={peer}: there are too many connections"));
    let response = Response::service_unavailable().header("Retry-After", RETRY_AFTER);
    let (head, body) = response.encode(false, Some("close"));
    let _ = stream.write_all([&head, body], REFUSAL_TIMEOUT);
    stream.finish_writing();
    stream.discard_arrived();
}
