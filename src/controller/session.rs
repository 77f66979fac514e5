//! The life of a WebSocket inside of `handle`: opened, served by the program, closed, and read to its end.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::base::contained::contained;
use crate::base::rule::Unfit;
use crate::base::shown::Shown;
use crate::comms::reach::SendError;
use crate::comms::registry::{self, Outer, Registration, Registry};
use crate::comms::session::SessionId;
use crate::controller::connection::Connection;
use crate::controller::error::Error;
use crate::controller::request::{Request, Upgrade};
use crate::http::response::Response;
use crate::net::os;
use crate::websocket::close::{Cause, Close, CloseCode, Closed};
use crate::websocket::handshake;
use crate::websocket::outbox::Outbox;
use crate::websocket::reader::{Outcome, Reader};
use crate::websocket::settings::Websocket;

/// An open WebSocket. The program gets it together with its reader, as a [`Socket`](super::socket::Socket), which gives
/// the reader back when it is dropped.
pub(crate) struct Session {
    pub(crate) request: Request,
    pub(crate) client: SessionId,
    pub(crate) subprotocol: Option<String>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) outbox: Arc<Outbox>,
    /// Until it is over for the program.
    registration: Cell<Option<Registration<'static>>>,
    /// Whose handlers the thread ran before; until it is over.
    outer: Cell<Option<Outer>>,
    /// While no socket has it.
    reader: Cell<Option<Box<Reader>>>,
    /// Why it is closed, once it is over for the program.
    closed: OnceCell<Closed>,
    began: Instant,
}

/// Opens a WebSocket on the request's connection and runs it to its end: `serve` is what the program does with it, and
/// returns how it shall be closed if it is open still. `name` is what the log calls the program's part.
pub(crate) fn run(
    request: &Request,
    settings: &Websocket,
    name: &str,
    serve: impl FnOnce(&Rc<Session>) -> Close,
) -> Result<Response, Error> {
    let opening = match opening(request, settings)? {
        Opening::Accepted(head) => head,
        Opening::Refused(response) => return Ok(response),
    };
    let upgrade = request.take_upgrade()?;
    let client = request.session_id();
    let outbox = outbox(request, &client, settings, opening, &upgrade.connection);
    if !upgrade.connection.upgrade(&outbox) {
        request.restore_upgrade(upgrade);
        return Ok(Response::service_unavailable());
    }
    let (session, connections) = Session::open(request, client, settings, outbox, upgrade);
    contained(|| session.log_begin(name));
    let close = if connections > request.settings().max_connections_per_session {
        Close::new(CloseCode::TRY_AGAIN_LATER, "too many connections of this session")
    } else {
        session.connection.set_task(Arc::clone(&session.outbox.label));
        session.name_thread();
        session.connection.enter_handler();
        serve(&session)
    };
    session.finish(close);
    Ok(Response::over())
}

/// The answer to a request for a WebSocket.
enum Opening {
    /// With the head of the 101.
    Accepted(Vec<u8>),
    Refused(Response),
}

fn opening(request: &Request, settings: &Websocket) -> Result<Opening, Error> {
    let subprotocol = request.subprotocol(&settings.subprotocols);
    let opening =
        match handshake::accept(request.parsed(), request.is_secure(), subprotocol, settings) {
            Ok(opening) => opening,
            Err(rejection) => return Ok(Opening::Refused(rejection.response())),
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
    Ok(Opening::Accepted(opening.encode_upgrade()))
}

/// The outbox of a connection, with the head of its 101.
///
/// Apart, and not within [`Session::open`]: a connection keeps the pages that its stack has once needed.
#[inline(never)]
fn outbox(
    request: &Request,
    client: &SessionId,
    settings: &Websocket,
    opening: Vec<u8>,
    connection: &Connection,
) -> Arc<Outbox> {
    let (stream, context) = (Arc::clone(&connection.stream), &connection.context);
    let label = format!(
        "connection={} session={} path={}",
        connection.id,
        Shown::field(client),
        Shown::value(request.path())
    );
    let process_bytes = context.settings.max_queued_bytes;
    Outbox::new(stream, context.watchdog.clone(), settings, process_bytes, opening, label.into())
}

impl Session {
    /// Registers the connection, then sends the 101; with it, how many connections the client's session has.
    #[inline(never)]
    fn open(
        request: &Request,
        client: SessionId,
        settings: &Websocket,
        outbox: Arc<Outbox>,
        upgrade: Upgrade,
    ) -> (Rc<Self>, usize) {
        let Upgrade { connection, rest } = upgrade;
        let context = &connection.context;
        // Before the 101: when the client has seen that, what is sent to its session reaches it.
        let registration =
            Registry::global().register(context.id, client.clone(), connection.id, outbox.clone());
        let outer = registration.enter();
        outbox.start();
        let connections = registration.connections();
        let buckets = context.rates.of_session(&client, settings);
        let stream = Arc::clone(&connection.stream);
        let reader = Reader::new(stream, outbox.clone(), settings, buckets, rest);
        let session = Self {
            subprotocol: request.subprotocol(&settings.subprotocols).map(str::to_owned),
            request: request.clone(),
            client,
            connection,
            outbox,
            registration: Cell::new(Some(registration)),
            outer: Cell::new(Some(outer)),
            reader: Cell::new(Some(Box::new(reader))),
            closed: OnceCell::new(),
            began: Instant::now(),
        };
        (Rc::new(session), connections)
    }

    /// The parts of path and session that tell threads apart, in the 15 bytes that systems show.
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

    /// What is left of the queue and of TCP ends.
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
        contained(|| log::log!(level, "{method} of {} {what}", self.outbox.label));
        Box::new(ended)
    }

    #[inline(never)]
    fn log_begin(&self, name: &str) {
        let (label, connection) = (&self.outbox.label, &self.connection);
        log::info!("websocket connected {label} controller={name} peer={}", connection.peer);
    }

    #[inline(never)]
    fn log_end(&self, outcome: &Outcome, closed: &Closed) {
        let Outcome { received, sent, unsent, .. } = outcome;
        let lost = match unsent {
            0 => String::new(),
            count => format!(" lost={count}"),
        };
        log::info!(
            "websocket closed {} code={} reason={:?} by={} after={:.3?} \
             in={received} out={sent}{lost} cause={}",
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
