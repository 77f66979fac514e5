//! Accepts connections, or takes them over, gives each a thread, and keeps a list of those that are open.

use std::collections::{HashMap, hash_map};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::contained::contained;
use crate::base::deadline;
use crate::comms::session::{ConnectionId, ServerId};
use crate::controller::connection::{Connection, Context};
use crate::controller::overview::ConnectionInfo;
use crate::controller::refusal::Refusal;
use crate::controller::settings::Settings;
use crate::controller::stats::Stats;
use crate::http::peer::Proxy;
use crate::http::response::Response;
use crate::net::listener::{Accepted, Acceptor, LocalAddr};
use crate::net::peer::{Owner, Peer};
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::server::arrival;
use crate::server::error::Error;
use crate::server::pool::Pool;
use crate::server::process::{self, Counting};
use crate::server::router::Router;
use crate::server::serve::serve;
#[cfg(feature = "tls")]
use crate::server::tls::TlsConfig;

/// How long accepting waits for some connection to end when descriptors or threads have run out.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(50);
/// Trouble with accepting is logged at most so often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// How long a refusal may take to be written. The send buffer of a new connection is empty, and takes it at once.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(10);
/// When a client that finds the server full may come back, in seconds.
const RETRY_AFTER: &str = "5";

/// A server's connections. Accept threads and those that hand one over add to them, and each connection's thread takes
/// itself off.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) context: Arc<Context>,
    router: Router,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsConfig>,
    pool: Arc<Pool>,
    open: Mutex<Open>,
    /// Signalled when a connection ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    entries: HashMap<ConnectionId, Entry>,
    /// How many connections a peer has.
    peers: HashMap<Owner, usize>,
    /// How many connections there ever were, and what went over those that have ended.
    ended: Stats,
    /// Whether the server has ended, but for handlers that still run.
    is_over: bool,
}

#[derive(Debug)]
struct Entry {
    connection: Arc<Connection>,
    /// Kept after its end while the server stops, for the report.
    has_ended: bool,
}

impl Connections {
    pub(crate) fn new(
        context: Arc<Context>,
        router: Router,
        #[cfg(feature = "tls")] tls: Option<TlsConfig>,
    ) -> Arc<Self> {
        let pool = Pool::new(context.settings.stack_size, context.settings.spare_threads);
        let ended = Stats::new(context.counters.routes());
        let open = Mutex::new(Open { ended, ..Open::default() });
        Arc::new(Self {
            context,
            router,
            #[cfg(feature = "tls")]
            tls,
            pool,
            open,
            ended: Condvar::new(),
        })
    }

    /// The accept thread of one listener, which is at `address`: ends when the server stops, and closes it.
    #[expect(clippy::needless_pass_by_value, reason = "the thread owns the listener and closes it")]
    pub(crate) fn accept_all(self: Arc<Self>, acceptor: Acceptor, address: LocalAddr) {
        self.context.watchdog.adopt_thread();
        let mut logged: Option<Instant> = None;
        while !self.context.is_stopping() {
            // A panic that comes with one connection, of the program's logger say, must not concern the others.
            contained(|| self.accept_one(&acceptor, &address, &mut logged));
        }
    }

    fn accept_one(
        self: &Arc<Self>,
        acceptor: &Acceptor,
        address: &LocalAddr,
        logged: &mut Option<Instant>,
    ) {
        let admitted = match acceptor.accept(&self.context.stop) {
            Ok(_) if self.context.is_stopping() => return,
            Ok((socket, peer)) => self.admit(socket, peer, address.is_loopback(), Vec::new()),
            Err(error) if is_transient(&error) => return,
            Err(source) => Err(Error::System { what: "connection", source }),
        };
        let error = match admitted {
            Ok(()) | Err(Error::Refused { .. }) => return,
            Err(error) => error,
        };
        if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            contained(|| {
                log::error!(
                    target: "rwf::server",
                    "cannot take a connection, trying on address={address}: {error:?}"
                );
            });
        }
        let mut open = self.open.lock();
        self.ended.wait_for(&mut open, EXHAUSTION_PAUSE);
    }

    /// Serves a connection that somebody else has accepted, of which `read` was read so far.
    pub(crate) fn take_over(
        self: &Arc<Self>,
        accepted: Accepted,
        read: Vec<u8>,
    ) -> Result<(), Error> {
        // Without its address the client has left already.
        let Ok((socket, peer, address)) = accepted.into_parts() else { return Ok(()) };
        self.admit(socket, peer, address.is_loopback(), read)
    }

    /// Gives a connection its thread, or refuses it without one.
    fn admit(
        self: &Arc<Self>,
        socket: Socket,
        peer: Peer,
        is_on_loopback: bool,
        read: Vec<u8>,
    ) -> Result<(), Error> {
        let Ok(stream) = Stream::new(socket, self.context.settings.no_delay) else {
            // The client has left already.
            return Ok(());
        };
        let stream = stream.with_read_before(read);
        #[cfg(feature = "tls")]
        let stream = match &self.tls {
            Some(tls) => {
                let state = tls.begin().map_err(|source| Error::System { what: "TLS", source })?;
                stream.with_tls(state)
            }
            None => stream,
        };
        let context = Arc::clone(&self.context);
        let connection = Arc::new(Connection::new(stream, peer, is_on_loopback, context));
        let stream = Arc::clone(&connection.stream);
        let added = self.open.lock().add(&connection);
        if let Err(reason) = added {
            self.refuse(reason, &stream, peer);
            return Err(Error::Refused { reason });
        }
        let guard = EndGuard { connections: Arc::clone(self), connection: Arc::clone(&connection) };
        let run = move || {
            guard.connections.context.watchdog.adopt_thread();
            let Self { context, router, .. } = &*guard.connections;
            let opening = deadline::after(context.settings.open_timeout);
            if guard.connections.learn_peer(&connection, opening) {
                let served = contained(|| serve(&connection, router, opening));
                if served.is_none() {
                    note_panic(&connection);
                }
            }
            // A controller may have kept the request, and with it the socket.
            connection.stream.cut();
        };
        self.pool.run(run).map_err(|source| {
            self.refuse(Refusal::NoThread, &stream, peer);
            Error::System { what: "thread", source }
        })
    }

    /// Learns whose connection it is, where a proxy says so; whether it may stay.
    fn learn_peer(&self, connection: &Connection, deadline: Instant) -> bool {
        let client = match arrival::read_client(connection, deadline) {
            Ok(Some(client)) => Peer::from(client),
            Ok(None) => return true,
            Err(_) if self.context.is_stopping() => return false,
            Err(reason) => {
                arrival::note_failure(connection, &reason);
                return false;
            }
        };
        let mut open = self.open.lock();
        let is_full = open.is_full_of(&client, &self.context.settings);
        open.leave(&connection.peer());
        connection.note_peer(client);
        open.enter(&client);
        drop(open);
        if is_full {
            self.refuse(Refusal::MaxConnectionsPerPeer, &connection.stream, client);
        }
        !is_full
    }

    fn refuse(&self, reason: Refusal, stream: &Stream, peer: Peer) {
        self.context.counters.note_refusal(reason);
        contained(|| {
            log::debug!(target: "rwf::connection", "refused 503 reason={reason} peer={peer}");
        });
        answer_refusal(stream);
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
            let (task, peer) = (connection.task(), connection.peer());
            let warn = move || {
                log::warn!(
                    target: "rwf::connection",
                    "a handler has run for {limit:?} and still does: {task} peer={peer}"
                );
            };
            // The logger may block, and the watchdog may not. Without a thread the next round tries again.
            let thread = thread::Builder::new().name("rwf-warning".to_owned());
            if thread.spawn(|| contained(warn)).is_ok() {
                connection.note_warning();
            }
        }
    }

    /// All connections that are open, in the order in which they were accepted.
    pub(crate) fn list(&self) -> Vec<ConnectionInfo> {
        let mut running = self.running();
        running.sort_by_key(|connection| connection.id);
        let routes = self.context.counters.routes();
        running.iter().map(|connection| ConnectionInfo::of(connection, routes)).collect()
    }

    /// Ends one connection; whether it was there.
    pub(crate) fn kick(&self, id: ConnectionId, reason: &str) -> bool {
        let open = self.open.lock();
        let entry = open.entries.get(&id).filter(|entry| !entry.has_ended);
        let connection = entry.map(|entry| Arc::clone(&entry.connection));
        drop(open);
        if let Some(connection) = &connection {
            connection.kick(reason);
        }
        connection.is_some()
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
        self.open.lock().running()
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
        let mut open = self.open.lock();
        let entries = std::mem::take(&mut open.entries).into_iter();
        let (ended, running): (HashMap<_, _>, HashMap<_, _>) =
            entries.partition(|(_, entry)| entry.has_ended);
        let running_count = running.len();
        (open.entries, open.is_over) = (running, true);
        drop(open);
        let cut = ended.values().filter(|entry| entry.connection.was_lost()).count();
        self.pool.stop(running_count);
        self.retire_if_over();
        (ended.len() - cut, cut + running_count, running_count)
    }

    /// Once the server has ended, the process keeps no more of it than its sums.
    fn retire_if_over(&self) {
        let open = self.open.lock();
        let is_over = open.is_over && open.entries.is_empty();
        drop(open);
        if is_over {
            process::retire(self.context.id);
        }
    }
}

impl Counting for Connections {
    fn id(&self) -> ServerId {
        self.context.id
    }

    /// Those that have ended are taken under the same lock under which they end, so that none is counted twice or
    /// missed.
    fn stats(&self) -> Stats {
        let open = self.open.lock();
        let mut stats = open.ended.clone();
        let running = open.running();
        drop(open);
        stats.connections.now = running.len() as u64;
        for connection in running {
            if let Some(traffic) = connection.traffic()
                && let Some(route) = connection.route()
            {
                stats.note_websocket(route, &traffic, None);
            }
        }
        self.context.counters.add_to(&mut stats);
        stats
    }
}

impl Open {
    fn running(&self) -> Vec<Arc<Connection>> {
        let running = self.entries.values().filter(|entry| !entry.has_ended);
        running.map(|entry| Arc::clone(&entry.connection)).collect()
    }

    /// Adds a connection, unless there are as many as there may be, in all or of its peer.
    ///
    /// None comes once the server stops, which sets its flag before it goes through those that are here.
    fn add(&mut self, connection: &Arc<Connection>) -> Result<(), Refusal> {
        let (settings, peer) = (&connection.context.settings, connection.peer());
        if connection.context.is_stopping() {
            return Err(Refusal::Shutdown);
        }
        if self.entries.len() >= settings.max_connections {
            return Err(Refusal::MaxConnections);
        }
        if !Proxy::is_among(&settings.proxy_protocol, &peer) && self.is_full_of(&peer, settings) {
            return Err(Refusal::MaxConnectionsPerPeer);
        }
        self.ended.connections.ever += 1;
        self.enter(&peer);
        let entry = Entry { connection: Arc::clone(connection), has_ended: false };
        self.entries.insert(connection.id, entry);
        Ok(())
    }

    /// Whether this peer has as many connections as it may have.
    fn is_full_of(&self, peer: &Peer, settings: &Settings) -> bool {
        let count = self.peers.get(&peer.owner()).copied().unwrap_or(0);
        count >= settings.max_connections_per_peer
            && !Proxy::is_among(&settings.trusted_proxies, peer)
    }

    fn enter(&mut self, peer: &Peer) {
        *self.peers.entry(peer.owner()).or_default() += 1;
    }

    fn leave(&mut self, peer: &Peer) {
        if let hash_map::Entry::Occupied(mut count) = self.peers.entry(peer.owner()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn remove(&mut self, id: &ConnectionId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.leave(&entry.connection.peer());
        Some(entry)
    }
}

/// Handlers have their own line: this is code of the program in its configuration of TLS, or a fault of ours.
#[cold]
fn note_panic(connection: &Connection) {
    let (id, peer) = (connection.id, connection.peer());
    contained(|| {
        log::error!(target: "rwf::server", "a connection panicked connection={id} peer={peer}");
    });
}

/// Takes a connection off the list when its thread ends, in whatever way.
#[derive(Debug)]
struct EndGuard {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let Connections { context, open, ended, .. } = &*self.connections;
        let end = self.connection.note_end();
        let mut open = open.lock();
        if let Some((traffic, cause)) = end
            && let Some(route) = self.connection.route()
        {
            open.ended.note_websocket(route, &traffic, Some(cause));
        }
        let removed = if context.is_stopping() && !open.is_over {
            if let Some(entry) = open.entries.get_mut(&self.connection.id) {
                entry.has_ended = true;
            }
            None
        } else {
            open.remove(&self.connection.id)
        };
        drop(open);
        ended.notify_all();
        drop(removed);
        self.connections.retire_if_over();
    }
}

/// Whether `accept` failed for no lasting reason: the one connection that it was about to return has failed, a stop
/// woke it, or another server, which shares the listener, was faster.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

/// A client that speaks TLS gets no answer: a handshake would take a thread.
fn answer_refusal(stream: &Stream) {
    let response = Response::service_unavailable().header("Retry-After", RETRY_AFTER);
    let (head, body) = response.encode(false, Some("close"));
    let _ = stream.write_all([&head, body], REFUSAL_TIMEOUT);
    let _ = stream.finish_writing();
    stream.discard_arrived();
}
