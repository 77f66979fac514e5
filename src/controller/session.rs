//! The life of a WebSocket inside of `handle`: opened, served by the program, closed, and read to its end.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::base::contained::contained;
use crate::base::rule::Unfit;
use crate::base::shown::Shown;
use crate::comms::outcome::SendError;
use crate::comms::registry::{self, Outer, Registration, Registry};
use crate::comms::session::SessionId;
use crate::controller::connection::Connection;
use crate::controller::error::Error;
use crate::controller::refusal::Refusal;
use crate::controller::request::{Request, Upgrade};
use crate::controller::slowest::Call;
use crate::http::response::Response;
use crate::net::os;
use crate::websocket::close::{Cause, Close, CloseCode, Closed};
use crate::websocket::compression::Agreement;
use crate::websocket::handshake;
use crate::websocket::outbox::Outbox;
use crate::websocket::reader::{Outcome, Reader};
use crate::websocket::sender::Done;
use crate::websocket::settings::Websocket;

/// An open WebSocket. The program gets it together with its reader, as a [`Socket`](super::socket::Socket), which gives
/// the reader back when it is dropped.
///
/// In this order in memory: what each message needs stands first, as in the [`Outbox`].
#[repr(C)]
pub(crate) struct Session {
    pub(crate) connection: Arc<Connection>,
    pub(crate) outbox: Arc<Outbox>,
    /// What the log calls the program's part.
    name: &'static str,
    /// The number of its route.
    route: usize,
    pub(crate) client: SessionId,
    pub(crate) request: Request,
    pub(crate) subprotocol: Option<String>,
    /// Until it is over for the program; none where the session has too many connections.
    registration: Cell<Option<Registration<'static>>>,
    /// Whose handlers the thread ran before; until it is over.
    outer: Cell<Option<Outer>>,
    /// While no socket has it.
    reader: Cell<Option<Box<Reader>>>,
    /// Why it is closed, once it is over for the program.
    closed: OnceCell<Closed>,
    began: Instant,
}

/// Opens a WebSocket on the request's connection and runs it to its end: `settings` makes its settings of the server's,
/// `serve` is what the program does with it, and returns how it shall be closed if it is open still. `name` is what the log
/// calls the program's part.
pub(crate) fn run(
    request: &Request,
    settings: impl FnOnce(Websocket) -> Websocket,
    name: &'static str,
    serve: impl FnOnce(&Rc<Session>) -> Close,
) -> Result<Response, Error> {
    match begin(request, settings, name)? {
        Begun::Open(session) => session.finish(serve(&session)),
        Begun::TooMany(session) => session
            .finish(Close::new(CloseCode::TRY_AGAIN_LATER, "too many connections of this session")),
        Begun::Refused(response) => return Ok(*response),
    }
    Ok(Response::over())
}

/// How a request for a WebSocket was taken.
enum Begun {
    Open(Rc<Session>),
    /// Open as well, as only so it can be closed with a reason: its session has too many already.
    TooMany(Rc<Session>),
    Refused(Box<Response>),
}

/// Opens a WebSocket, or answers why not.
///
/// Apart, and so its parts: a connection keeps the pages that its stack has once needed, and this ends where the program's
/// part begins.
#[inline(never)]
fn begin(
    request: &Request,
    settings: impl FnOnce(Websocket) -> Websocket,
    name: &'static str,
) -> Result<Begun, Error> {
    let settings = settings(request.settings().websocket.clone());
    begin_with(request, &settings, name)
}

fn begin_with(request: &Request, settings: &Websocket, name: &'static str) -> Result<Begun, Error> {
    let (opening, agreement) = match opening(request, settings)? {
        Opening::Accepted(head, agreement) => (head, agreement),
        Opening::Refused(response) => return Ok(Begun::Refused(response)),
    };
    let upgrade = request.take_upgrade()?;
    let client = request.session_id();
    let outbox = outbox(request, &client, settings, opening, agreement, &upgrade.connection);
    if !upgrade.connection.upgrade(&outbox, &client, name) {
        upgrade.connection.context.counters.note_refusal(Refusal::Shutdown);
        request.restore_upgrade(upgrade);
        return Ok(Begun::Refused(Box::new(Response::service_unavailable())));
    }
    let (session, is_registered) =
        Session::open(request, client, settings, outbox, agreement, upgrade, name);
    contained(|| session.log_begin());
    if !is_registered {
        let counters = &session.connection.context.counters;
        counters.note_refusal(Refusal::MaxConnectionsPerSession);
        return Ok(Begun::TooMany(session));
    }
    session.name_thread();
    session.connection.enter_handler(Call::Connection);
    Ok(Begun::Open(session))
}

/// The answer to a request for a WebSocket.
enum Opening {
    /// With the head of the 101, and what it says about compression.
    Accepted(Vec<u8>, Option<Agreement>),
    Refused(Box<Response>),
}

#[inline(never)]
fn opening(request: &Request, settings: &Websocket) -> Result<Opening, Error> {
    let subprotocol = request.subprotocol(&settings.subprotocols);
    let handshake::Opening { response: opening, agreement } =
        match handshake::accept(request.parsed(), request.is_secure(), subprotocol, settings) {
            Ok(opening) => opening,
            Err(rejection) => {
                let response = rejection.response();
                request.note_refusal(Refusal::of_handshake(response.status_code()));
                return Ok(Opening::Refused(Box::new(response)));
            }
        };
    if let Err(Unfit { name, reason }) = settings.check() {
        return Err(Error::new(format!("the setting `{name}` of this endpoint {reason}")));
    }
    // The session begins with the WebSocket, and its cookie goes out with the 101.
    let _ = request.session_id();
    let opening = match request.visitor_cookie() {
        Some(cookie) => opening.cookie(cookie),
        None => opening,
    };
    let opening = request.add_headers_to(opening);
    if let Some(what) = opening.invalid() {
        return Err(Error::new(format!("the 101 cannot be sent: {what}")));
    }
    Ok(Opening::Accepted(opening.encode_upgrade(), agreement))
}

/// The outbox of a connection, with the head of its 101.
#[inline(never)]
fn outbox(
    request: &Request,
    client: &SessionId,
    settings: &Websocket,
    opening: Vec<u8>,
    agreement: Option<Agreement>,
    connection: &Connection,
) -> Arc<Outbox> {
    let (stream, context) = (Arc::clone(&connection.stream), &connection.context);
    let label = format!(
        "connection={} session={} path={}",
        connection.id,
        Shown::field(client),
        Shown::value(request.path())
    );
    if let Some(bytes) = settings.max_unsent_bytes {
        stream.limit_unsent(bytes);
    }
    let process_bytes = context.settings.max_queued_bytes;
    let watchdog = context.watchdog.clone();
    Outbox::new(stream, watchdog, settings, process_bytes, opening, agreement, label.into())
}

impl Session {
    /// Registers the connection, then sends the 101. Whether it is registered: its session may have too many already. It is
    /// opened then all the same, as only a WebSocket can be closed with a reason.
    #[inline(never)]
    fn open(
        request: &Request,
        client: SessionId,
        settings: &Websocket,
        outbox: Arc<Outbox>,
        agreement: Option<Agreement>,
        upgrade: Upgrade,
        name: &'static str,
    ) -> (Rc<Self>, bool) {
        let Upgrade { connection, rest } = upgrade;
        let context = &connection.context;
        // Before the 101: when the client has seen that, what is sent to its session reaches it.
        let registration = Registry::global().register(
            context.id,
            client.clone(),
            connection.id,
            outbox.clone(),
            context.settings.max_connections_per_session,
        );
        let outer = registration.as_ref().map(|registration| {
            registration.wait_until_reachable();
            registration.enter()
        });
        let is_registered = registration.is_some();
        outbox.start();
        connection.note_handshake();
        let buckets = context.rates.of_session(&client, settings);
        // Every request that a controller gets has a route.
        let route = connection.route().unwrap_or(usize::MAX);
        let stream = Arc::clone(&connection.stream);
        let reader = Reader::new(stream, outbox.clone(), settings, agreement, buckets, rest);
        let session = Self {
            subprotocol: request.subprotocol(&settings.subprotocols).map(str::to_owned),
            request: request.clone(),
            client,
            connection,
            outbox,
            registration: Cell::new(registration),
            outer: Cell::new(outer),
            reader: Cell::new(Some(Box::new(reader))),
            closed: OnceCell::new(),
            name,
            route,
            began: Instant::now(),
        };
        (Rc::new(session), is_registered)
    }

    /// The parts of path and session that tell threads apart, in the 15 bytes that systems show.
    #[inline(never)]
    fn name_thread(&self) {
        let path = Shown::value(self.request.path()).to_string();
        let (path, client) = (path.trim_start_matches('/'), Shown::value(&self.client).to_string());
        os::name_thread(&format!("{path:.6} {client:.8}"));
    }

    /// Takes the reader; the second time it is gone.
    pub(crate) fn take_reader(&self) -> Option<Box<Reader>> {
        self.reader.take()
    }

    /// Gives back what [`take_reader`](Self::take_reader) took.
    pub(crate) fn restore_reader(&self, reader: Box<Reader>) {
        self.reader.set(Some(reader));
    }

    /// Ends it for the program: nothing can be sent to it any more. Why it was closed, as whoever was first said.
    pub(crate) fn end(&self, reader: &mut Reader) -> &Closed {
        self.closed.get_or_init(|| {
            drop(self.registration.take());
            reader.close()
        })
    }

    /// Why it was closed, once it is over for the program.
    pub(crate) fn closed(&self) -> Option<&Closed> {
        self.closed.get()
    }

    /// The program's part is done with `call`.
    #[inline(never)]
    pub(crate) fn note_handler(&self, call: Call, began: Instant) {
        let Connection { id, context, .. } = &*self.connection;
        context.counters.note_handler(*id, self.route, self.name, call, began.elapsed());
    }

    /// What is left of the queue and of TCP ends.
    #[inline(never)]
    fn finish(&self, close: Close) {
        self.connection.leave_handler();
        self.outbox.seal(close, Cause::Program);
        drop(self.registration.take());
        if let Some(outer) = self.outer.take() {
            registry::leave_own(outer);
        }
        let Some(mut reader) = self.take_reader() else {
            // The program has kept the socket, so that nobody reads what the client still says.
            self.outbox.wait_until_done();
            return self.connection.cut();
        };
        let closed = self.end(&mut reader);
        let outcome = reader.finish();
        if !outcome.is_clean {
            self.connection.note_loss();
        }
        contained(|| self.log_end(&outcome, closed));
    }

    /// Calls the program: its error or panic becomes the close of this connection and a line in the log.
    pub(crate) fn guard(
        &self,
        what: &str,
        call: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Box<Ended>> {
        // The error is the program's code too, in its text and in its end.
        match contained(|| call().map_err(Failure::of)) {
            Some(Ok(())) => Ok(()),
            Some(Err(failure)) => Err(self.report(what, Some(failure))),
            None => Err(self.report(what, None)),
        }
    }

    /// Logs why the program's code ended early, `None` for a panic.
    #[inline(never)]
    fn report(&self, method: &str, failure: Option<Box<Failure>>) -> Box<Ended> {
        let (level, what, ended) = match failure.map(|failure| *failure) {
            // A receiver that is too slow or leaves has its own connection closed, not that of whoever sends to it.
            Some(Failure { text, is_send_error: true, close, .. }) => {
                let ended = Ended { close, is_send_error: true };
                (log::Level::Info, format!("could not send: {text}"), ended)
            }
            Some(Failure { text, is_chosen, close, .. }) => {
                // A client may leave while its handler answers.
                let is_expected = is_chosen || self.outbox.is_sealed();
                let level = if is_expected { log::Level::Info } else { log::Level::Error };
                (level, format!("failed: {text}"), Ended { close, is_send_error: false })
            }
            None => {
                let close = Close::new(CloseCode::INTERNAL_ERROR, "");
                let what = "panicked; its connection is closed".to_owned();
                (log::Level::Error, what, Ended { close, is_send_error: false })
            }
        };
        contained(|| {
            log::log!(
                target: "rwf::websocket",
                level,
                "{method} of {} {what}",
                self.outbox.label
            )
        });
        Box::new(ended)
    }

    #[inline(never)]
    fn log_begin(&self) {
        let (label, connection) = (&self.outbox.label, &self.connection);
        log::info!(
            target: "rwf::websocket",
            "websocket connected {label} controller={} peer={}",
            Shown::name(self.name),
            connection.peer()
        );
    }

    #[inline(never)]
    fn log_end(&self, outcome: &Outcome, closed: &Closed) {
        let Outcome { received, done: Done { sent, unsent, dropped, replaced, .. }, .. } = outcome;
        let unless_zero = |name, count| match count {
            0 => String::new(),
            _ => format!(" {name}={count}"),
        };
        let lost = unless_zero("lost", *unsent as u64);
        let dropped = unless_zero("dropped", *dropped);
        let replaced = unless_zero("replaced", *replaced);
        log::info!(
            target: "rwf::websocket",
            "websocket closed {} code={} reason={:?} by={} after={:.3?} \
             in={received} out={sent}{lost}{dropped}{replaced} cause={}",
            self.outbox.label,
            closed.code,
            Shown::value(&closed.reason),
            closed.cause.by(),
            self.began.elapsed(),
            closed.cause,
        );
    }
}

/// How the program's code ended early.
pub(crate) struct Ended {
    /// The close that this asks for.
    pub(crate) close: Close,
    /// It passed on what a send failed with.
    pub(crate) is_send_error: bool,
}

/// What the program's code failed with.
struct Failure {
    text: String,
    is_send_error: bool,
    is_chosen: bool,
    close: Close,
}

impl Failure {
    /// Apart, like [`Session::report`], so that the frames of those who call handlers stay small: a connection keeps the
    /// pages that its stack has once needed.
    #[inline(never)]
    #[expect(clippy::needless_pass_by_value, reason = "its end is the program's code too")]
    fn of(error: Error) -> Box<Self> {
        Box::new(Self {
            text: Shown::text(&error).to_string(),
            is_send_error: error.is::<SendError>(),
            is_chosen: error.is_chosen(),
            close: error.close(),
        })
    }
}
