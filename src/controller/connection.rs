//! One connection as its server sees it: the socket, and how to end it in good order.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::deadline;
use crate::comms::session::{ConnectionId, ServerId};
use crate::controller::rates::Rates;
use crate::controller::settings::Settings;
use crate::net::os::Stop;
use crate::net::stream::Stream;
use crate::net::watchdog::Watchdog;
use crate::websocket::close::{Cause, Close, CloseCode};
use crate::websocket::outbox::Outbox;

/// How long a client that has its last answer and sends on without a pause is read from after a stop.
const STOP_LINGER: Duration = Duration::from_secs(1);
/// No handler runs.
const NO_HANDLER: u64 = 0;
/// A handler runs of which the log tells already.
const WARNED: u64 = u64::MAX;
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
    /// Where the server listens.
    pub(crate) local_addr: SocketAddr,
    is_stopping: AtomicBool,
    /// Told when the server stops, after the flag is set.
    pub(crate) stop: Stop,
    began: Instant,
    /// The milliseconds since then, as the watchdog last looked: reading a clock for each handler would cost more.
    clock: AtomicU64,
}

impl Context {
    pub(crate) fn new(settings: Settings, local_addr: SocketAddr) -> io::Result<Self> {
        let (settings, watchdog) = (Arc::new(settings), Watchdog::default());
        let (is_stopping, stop) = (AtomicBool::new(false), Stop::new()?);
        let (began, clock) = (Instant::now(), AtomicU64::new(1));
        Ok(Self {
            id: ServerId::next(),
            settings,
            watchdog,
            rates: Rates::default(),
            local_addr,
            is_stopping,
            stop,
            began,
            clock,
        })
    }

    /// Sets the clock by which handlers are timed, which only the watchdog does.
    pub(crate) fn advance_clock(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(WARNED - 1);
        self.clock.store(millis.max(1), Ordering::Relaxed);
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
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) stream: Arc<Stream>,
    pub(crate) context: Arc<Context>,
    /// Set when the connection becomes a WebSocket.
    outbox: OnceLock<Arc<Outbox>>,
    was_lost: AtomicBool,
    /// Whether the client has its last answer: it is not lost any more.
    is_answered: AtomicBool,
    /// When the handler that runs now began, by the context's clock; or [`NO_HANDLER`], or [`WARNED`].
    handler_began: AtomicU64,
    /// What the handlers work on, for people.
    task: Mutex<Arc<str>>,
}

impl Connection {
    pub(crate) fn new(stream: Stream, peer: SocketAddr, context: Arc<Context>) -> Self {
        Self {
            id: ConnectionId::next(),
            peer,
            stream: Arc::new(stream),
            context,
            outbox: OnceLock::new(),
            was_lost: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
            handler_began: AtomicU64::new(NO_HANDLER),
            task: Mutex::new("".into()),
        }
    }

    /// Says what the handlers from here on work on.
    pub(crate) fn set_task(&self, task: Arc<str>) {
        *self.task.lock() = task;
    }

    pub(crate) fn task(&self) -> Arc<str> {
        Arc::clone(&self.task.lock())
    }

    /// A handler begins to run, on the connection's own thread.
    pub(crate) fn enter_handler(&self) {
        let now = self.context.clock.load(Ordering::Relaxed);
        self.handler_began.store(now, Ordering::Relaxed);
    }

    /// The handler has returned, or waits for a message.
    pub(crate) fn leave_handler(&self) {
        self.handler_began.store(NO_HANDLER, Ordering::Relaxed);
    }

    /// Whether a handler has run for `time`, by the clock, and the log does not tell of it yet.
    pub(crate) fn handler_takes_long(&self, time: Duration) -> bool {
        let now = self.context.clock.load(Ordering::Relaxed);
        match self.handler_began.load(Ordering::Relaxed) {
            NO_HANDLER | WARNED => false,
            began => Duration::from_millis(now.saturating_sub(began)) >= time,
        }
    }

    /// The log tells of the handler that takes long.
    pub(crate) fn note_warning(&self) {
        // The next handler may have begun by now; at worst that one is not warned of in its turn.
        self.handler_began.store(WARNED, Ordering::Relaxed);
    }

    /// The connection is about to become a WebSocket. Whether the server does not stop meanwhile: it sets its flag
    /// before it goes through the connections, so that one of the two sees the other.
    pub(crate) fn upgrade(&self, outbox: &Arc<Outbox>) -> bool {
        let _ = self.outbox.set(Arc::clone(outbox));
        !self.context.is_stopping()
    }

    /// Ends the connection in good order: a WebSocket is closed with 1001, and a wait for a request is ended.
    pub(crate) fn end(&self) {
        match self.outbox.get() {
            Some(outbox) => {
                let close = Close::new(CloseCode::GOING_AWAY, "the server shuts down");
                outbox.seal(close, Cause::Shutdown);
            }
            None => self.stream.help_to_stop(),
        }
    }

    /// Ends the stream behind the last answer and reads on until the client ends too, or `timeout`: closing with unread
    /// input would send a reset, which can eat the answer. A stop shortens it, and waits only for what is on its way.
    pub(crate) fn linger(&self, timeout: Duration) {
        self.is_answered.store(true, Ordering::SeqCst);
        self.stream.finish_writing();
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
            let read = if is_stopping {
                self.stream.read(&mut discarded, remaining.min(STOP_QUIET))
            } else {
                self.stream.read_unless(&self.context.stop, &mut discarded, remaining)
            };
            match read {
                Ok(1..) => {}
                // It was the stop.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
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
