//! One connection as its server sees it: the socket, and how to end it in good order.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::deadline;
use crate::base::shown::Shown;
use crate::comms::client::Client;
use crate::comms::session::{ConnectionId, ServerId, SessionId};
use crate::controller::counters::Counters;
use crate::controller::rates::Rates;
use crate::controller::settings::Settings;
use crate::controller::slowest::Call;
use crate::http::method::Method;
use crate::net::os::Stop;
use crate::net::peer::Peer;
use crate::net::stream::Stream;
use crate::net::watchdog::Watchdog;
use crate::websocket::close::{Cause, Close, CloseCode};
use crate::websocket::outbox::Outbox;
use crate::websocket::traffic::Traffic;

/// How long a client that has its last answer and sends on without a pause is read from after a stop.
const STOP_LINGER: Duration = Duration::from_secs(1);
/// No handler runs.
const NO_HANDLER: u64 = 0;
/// Set where the log tells already of the handler that runs.
const WARNED: u64 = 1 << 63;
/// Above the time when the handler began stands what it was called for.
const CALL_SHIFT: u32 = 60;
const MILLIS: u64 = (1 << CALL_SHIFT) - 1;
/// A client that is quiet for so long after a stop has nothing on its way.
const STOP_QUIET: Duration = Duration::from_millis(100);

/// What all connections of a server share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) id: ServerId,
    /// By themselves, for requests, which a program may keep for longer than the server is there.
    pub(crate) settings: Arc<Settings>,
    pub(crate) watchdog: Watchdog,
    /// What is left of the limits that clients have together.
    pub(crate) rates: Rates,
    pub(crate) counters: Counters,
    is_stopping: AtomicBool,
    /// Told when the server stops, after the flag is set.
    pub(crate) stop: Stop,
    began: Instant,
    /// The milliseconds since then, as the watchdog last looked: reading a clock for each handler would cost more.
    clock: AtomicU64,
}

impl Context {
    /// `routes` are the paths of the routes, as they were written.
    pub(crate) fn new(id: ServerId, settings: Settings, routes: Vec<String>) -> io::Result<Self> {
        let (settings, watchdog) = (Arc::new(settings), Watchdog::default());
        let (is_stopping, stop) = (AtomicBool::new(false), Stop::new()?);
        let (began, clock) = (Instant::now(), AtomicU64::new(1));
        Ok(Self {
            id,
            settings,
            watchdog,
            rates: Rates::default(),
            counters: Counters::new(routes),
            is_stopping,
            stop,
            began,
            clock,
        })
    }

    /// Sets the clock by which handlers are timed, which only the watchdog does.
    pub(crate) fn advance_clock(&self) {
        self.clock.store(self.now(), Ordering::Relaxed);
    }

    /// The milliseconds since it began, at least one.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(MILLIS).clamp(1, MILLIS)
    }

    /// From now on connections end as soon as they can do so in good order.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.stop.tell();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }
}

/// One connection, from `accept` to its end.
///
/// In this order in memory: what each message needs stands first, as in the [`Outbox`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Connection {
    pub(crate) context: Arc<Context>,
    pub(crate) id: ConnectionId,
    /// When the handler that runs now began, by the context's clock, and for what it was called; or [`NO_HANDLER`].
    handler_began: AtomicU64,
    /// The other end of the socket.
    socket_peer: Peer,
    /// Whose connection it is, as a proxy has said.
    told_peer: OnceLock<Peer>,
    /// Whether it came to a listener on a loopback address.
    pub(crate) is_on_loopback: bool,
    pub(crate) stream: Arc<Stream>,
    since: Instant,
    /// Set when the connection becomes a WebSocket.
    upgraded: OnceLock<Upgraded>,
    /// The request that is served, or was last.
    request: Mutex<Option<Begun>>,
    /// What has gone over the WebSocket, once it has ended.
    final_traffic: OnceLock<Box<Traffic>>,
    was_lost: AtomicBool,
    /// Whether the client has its last answer: it is not lost any more.
    is_answered: AtomicBool,
}

/// A request that is being served.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// The number of its route.
    pub(crate) route: Option<usize>,
    /// The name of its controller.
    pub(crate) name: &'static str,
    /// When its head was there.
    pub(crate) at: Instant,
}

/// What a connection has as a WebSocket.
#[derive(Debug)]
struct Upgraded {
    outbox: Arc<Outbox>,
    session: SessionId,
    /// The name of the program's part.
    name: &'static str,
}

impl Connection {
    pub(crate) fn new(
        stream: Stream,
        peer: Peer,
        is_on_loopback: bool,
        context: Arc<Context>,
    ) -> Self {
        Self {
            id: ConnectionId::next(),
            socket_peer: peer,
            told_peer: OnceLock::new(),
            is_on_loopback,
            stream: Arc::new(stream),
            context,
            since: Instant::now(),
            upgraded: OnceLock::new(),
            request: Mutex::new(None),
            final_traffic: OnceLock::new(),
            was_lost: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
            handler_began: AtomicU64::new(NO_HANDLER),
        }
    }

    /// Who is at the other end, as far as is known.
    pub(crate) fn peer(&self) -> Peer {
        *self.told_peer.get().unwrap_or(&self.socket_peer)
    }

    /// A proxy has said whose connection it is.
    pub(crate) fn note_peer(&self, peer: Peer) {
        let _ = self.told_peer.set(peer);
    }

    /// A request begins to be served.
    pub(crate) fn begin_request(&self, begun: Begun) {
        self.context.counters.note_request(self.id, begun.route);
        *self.request.lock() = Some(begun);
    }

    /// The 101 was written.
    pub(crate) fn note_handshake(&self) {
        let began = self.request.lock().as_ref().map(|request| request.at);
        if let Some(began) = began {
            self.context.counters.note_handshake(self.id, began.elapsed());
        }
    }

    /// The handler of that name is done.
    pub(crate) fn note_handler(&self, name: &'static str, call: Call, took: Duration) {
        if let Some(route) = self.route() {
            self.context.counters.note_handler(self.id, route, name, call, took);
        }
    }

    /// The number of the route of the request that is served, or was last.
    pub(crate) fn route(&self) -> Option<usize> {
        self.request.lock().as_ref()?.route
    }

    /// The outbox, if it is a WebSocket.
    pub(crate) fn websocket(&self) -> Option<&Arc<Outbox>> {
        let upgraded = self.upgraded.get();
        upgraded.map(|upgraded| &upgraded.outbox).filter(|outbox| outbox.has_started())
    }

    /// What has gone over the WebSocket, if it is one.
    pub(crate) fn traffic(&self) -> Option<Traffic> {
        match self.final_traffic.get() {
            Some(traffic) => Some((**traffic).clone()),
            None => self.websocket().map(|outbox| outbox.traffic()),
        }
    }

    /// The connection has ended: what has gone over its WebSocket, and why that was closed, if it was one. Whoever asks
    /// for its traffic later gets the same, even if another thread's write is just given up.
    pub(crate) fn note_end(&self) -> Option<(Traffic, Cause)> {
        let outbox = self.websocket()?;
        let traffic = self.final_traffic.get_or_init(|| Box::new(outbox.traffic()));
        let cause = outbox.closed().map_or(Cause::Lost, |closed| closed.cause);
        Some(((**traffic).clone(), cause))
    }

    /// The request that is served, or was last.
    pub(crate) fn request(&self) -> Option<Begun> {
        self.request.lock().clone()
    }

    /// The client of the WebSocket, if it is one.
    pub(crate) fn client(&self) -> Option<Client> {
        let outbox = self.websocket()?;
        let session = self.upgraded.get()?.session.clone();
        Some(Client::new(self.id, session, outbox))
    }

    /// The name of the WebSocket's handlers, if it is one.
    pub(crate) fn handler_name(&self) -> Option<&'static str> {
        self.upgraded.get().map(|upgraded| upgraded.name)
    }

    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// What the handlers work on, for people.
    pub(crate) fn task(&self) -> String {
        if let Some(Upgraded { outbox, .. }) = self.upgraded.get() {
            return outbox.label.to_string();
        }
        let request = self.request().map(|Begun { method, path, .. }| (method, path));
        let request = request.map(|(method, path)| format!("{method} {} ", Shown::value(path)));
        format!("{}connection={}", request.unwrap_or_default(), self.id)
    }

    /// A handler begins to run, on the connection's own thread.
    pub(crate) fn enter_handler(&self, call: Call) {
        let now = self.context.clock.load(Ordering::Relaxed);
        self.handler_began.store((call as u64) << CALL_SHIFT | now, Ordering::Relaxed);
    }

    /// What the handler that runs was called for, and how long ago.
    pub(crate) fn handler(&self) -> Option<(Call, Duration)> {
        let began = self.handler_began.load(Ordering::Relaxed);
        if began == NO_HANDLER {
            return None;
        }
        let call = Call::ALL[((began & !WARNED) >> CALL_SHIFT) as usize];
        Some((call, Duration::from_millis(self.context.now().saturating_sub(began & MILLIS))))
    }

    /// The handler has returned, or waits for a message.
    pub(crate) fn leave_handler(&self) {
        self.handler_began.store(NO_HANDLER, Ordering::Relaxed);
    }

    /// Whether a handler has run for `time`, by the clock, and the log does not tell of it yet.
    pub(crate) fn handler_takes_long(&self, time: Duration) -> bool {
        let now = self.context.clock.load(Ordering::Relaxed);
        let began = self.handler_began.load(Ordering::Relaxed);
        began != NO_HANDLER
            && began & WARNED == 0
            && Duration::from_millis(now.saturating_sub(began & MILLIS)) >= time
    }

    /// The log tells of the handler that takes long.
    pub(crate) fn note_warning(&self) {
        // The next handler may have begun by now; at worst that one is not warned of in its turn.
        let warned = |began| (began != NO_HANDLER).then_some(began | WARNED);
        let _ = self.handler_began.fetch_update(Ordering::Relaxed, Ordering::Relaxed, warned);
    }

    /// The connection is about to become a WebSocket. Whether the server does not stop meanwhile: it sets its flag
    /// before it goes through the connections, so that one of the two sees the other.
    pub(crate) fn upgrade(
        &self,
        outbox: &Arc<Outbox>,
        session: &SessionId,
        name: &'static str,
    ) -> bool {
        let (outbox, session) = (Arc::clone(outbox), session.clone());
        let _ = self.upgraded.set(Upgraded { outbox, session, name });
        !self.context.is_stopping()
    }

    /// Ends the connection in good order: a WebSocket is closed with 1001, and a wait for a request is ended.
    pub(crate) fn end(&self) {
        match self.upgraded.get() {
            Some(Upgraded { outbox, .. }) => {
                let close = Close::new(CloseCode::GOING_AWAY, "the server shuts down");
                outbox.seal(close, Cause::Shutdown);
            }
            None => self.stream.help_to_stop(),
        }
    }

    /// Ends the connection because somebody wants it: a WebSocket is closed with 1008, and anything else is cut.
    pub(crate) fn kick(&self, reason: &str) {
        match self.upgraded.get() {
            Some(Upgraded { outbox, .. }) => {
                let close = Close::new(CloseCode::POLICY_VIOLATION, reason);
                outbox.seal(close, Cause::Program);
            }
            None => self.cut(),
        }
    }

    /// Ends the stream behind the last answer and reads on until the client ends too, or `timeout`: closing with unread
    /// input would send a reset, which can eat the answer. A stop shortens it, and waits only for what is on its way.
    pub(crate) fn linger(&self, timeout: Duration) {
        self.is_answered.store(true, Ordering::SeqCst);
        self.stream.finish_within(timeout);
        let mut deadline = deadline::after(timeout);
        let mut is_stopping = false;
        let mut discarded = Vec::with_capacity(4096);
        loop {
            if !is_stopping && self.context.is_stopping() {
                is_stopping = true;
                deadline = deadline.min(deadline::after(STOP_LINGER));
            }
            let remaining = deadline::until(deadline);
            if remaining.is_zero() {
                return;
            }
            discarded.clear();
            let (stop, timeout) = if is_stopping {
                (None, remaining.min(STOP_QUIET))
            } else {
                (Some(&self.context.stop), remaining)
            };
            // Nobody wants to know what it is, and TLS may have failed.
            let read = self.stream.read_beneath_tls(stop, &mut discarded, timeout);
            match read {
                Ok(1..) => {}
                // It was the stop, or a part of something.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                _ => return,
            }
        }
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        if !self.is_answered.load(Ordering::SeqCst) {
            self.note_loss();
        }
        self.stream.cut();
    }

    /// Remembers that the connection did not end in good order.
    pub(crate) fn note_loss(&self) {
        self.was_lost.store(true, Ordering::SeqCst);
    }

    /// Whether it did not.
    pub(crate) fn was_lost(&self) -> bool {
        self.was_lost.load(Ordering::SeqCst)
    }
}
