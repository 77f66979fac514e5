//! The trait for WebSocket endpoints, and the session that runs inside its `handle`.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::base::contained::contained;
use crate::base::rule::Unfit;
use crate::base::shown::Shown;
use crate::comms::reach::SendError;
use crate::comms::registry::Registry;
use crate::comms::session::SessionId;
use crate::controller::connection::Connection;
use crate::controller::error::Error;
use crate::controller::executor::block_on;
use crate::controller::http::name_of;
use crate::controller::request::{Request, Upgrade};
use crate::http::response::Response;
use crate::net::os;
use crate::websocket::close::{Close, CloseCode};
use crate::websocket::handshake;
use crate::websocket::message::Message;
use crate::websocket::outbox::Outbox;
use crate::websocket::reader::{Outcome, Reader};
use crate::websocket::settings::Websocket;

/// Serves the WebSockets of a route. `#[derive(macros::WebsocketController)]` makes the type a
/// [`Controller`](crate::controller::Controller) as well, so that a route takes it.
///
/// The methods of one connection are called one after the other, on the thread of that connection, and may block: that
/// holds up the messages of this client and nothing else. One value serves all connections. State of one connection
/// belongs in a controller that is made for it:
///
/// ```
/// use rwf::prelude::*;
///
/// struct Room { name: String }
///
/// #[async_trait]
/// impl WebsocketController for Room {
///     async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
///         log::info!("{client} says something in {}", self.name);
///         Comms::broadcast(client).send(message)?;
///         Ok(())
///     }
/// }
///
/// #[derive(Default)]
/// struct Rooms;
///
/// #[async_trait]
/// impl Controller for Rooms {
///     async fn handle(&self, request: &Request) -> Result<Response, Error> {
///         let room = Room { name: request.param("room")?.to_string() };
///         WebsocketController::handle(&room, request).await
///     }
/// }
///
/// let route = route!("/rooms/:room" => Rooms);
/// # let _ = route;
/// ```
///
/// Handlers are told the session, and a send to it reaches all its tabs. Where one tab is meant, the controller made for
/// the connection keeps [`Request::connection_id`] and sends with
/// [`Comms::connection`](crate::comms::Comms::connection).
///
/// An error from a method closes the connection, with 1011 unless the error
/// [says otherwise](Error::with_close); so does a panic. Other connections notice nothing. The exception is a
/// [`SendError`] that is passed on with `?`: that a receiver is too slow ends the handler and is logged, and closes the
/// receiver's connection, if any.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what its WebSockets do",
    note = "write `#[async_trait] impl WebsocketController for {Self} {{ … }}`"
)]
pub trait WebsocketController: Send + Sync {
    /// The settings of this endpoint: `defaults` are the server's.
    fn websocket(&self, defaults: Websocket) -> Websocket {
        defaults
    }

    /// Called when a client has connected, before its first message. What is sent to its session from here on arrives.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        let _ = client;
        Ok(())
    }

    /// Called with each message, whole, in the order in which they came.
    ///
    /// # Errors
    ///
    /// Closes the connection.
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        let _ = (client, message);
        Ok(())
    }

    /// Called once when the connection is over, in whatever way, if `handle_connection` was called: no more messages
    /// come, and nothing can be sent to it. The connection is not among its session's any more.
    ///
    /// That is when the client's close frame or the end of its stream has come, when the connection was given up, or
    /// when the client was found too slow. What is queued and the end of TCP follow behind, for up to `close_timeout`.
    /// After a close that [`Comms::close`](crate::comms::Comms::close) began it is when anything comes from the client,
    /// mostly its answer, or `close_timeout` has passed.
    ///
    /// `code` and `reason` are those of whichever side closed first; [`CloseCode::NO_STATUS`] when the client gave none,
    /// and [`CloseCode::ABNORMAL`], with a reason for people, when the connection broke.
    ///
    /// # Errors
    ///
    /// Are logged.
    async fn handle_close(
        &self,
        client: &SessionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), Error> {
        let _ = (client, code, reason);
        Ok(())
    }

    /// Opens a WebSocket on the request's connection and **runs it to its end**: it returns when the WebSocket is
    /// closed. A request that does not open a WebSocket is answered with the status that RFC 6455 §4.2 wants.
    ///
    /// A [`Controller`](crate::controller::Controller) calls it to make an endpoint by hand, after a look at the
    /// request. It is not meant to be overridden.
    ///
    /// # Errors
    ///
    /// The request's connection was used already.
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        run(self, request)
    }
}

fn run<C: WebsocketController + ?Sized>(
    controller: &C,
    request: &Request,
) -> Result<Response, Error> {
    let context = request.context();
    let settings = controller.websocket(context.settings.websocket.clone());
    let opening = match opening(request, &settings)? {
        Opening::Accepted(head) => head,
        Opening::Refused(response) => return Ok(response),
    };
    let Some(Upgrade { connection, rest }) = request.take_upgrade() else {
        return Err(Error::new("the connection of this request is a WebSocket already"));
    };
    let client = request.session_id();
    let stream = Arc::clone(&connection.stream);
    let watchdog = context.watchdog.clone();
    let process_bytes = context.settings.max_queued_bytes;
    let outbox = Outbox::new(stream.clone(), watchdog, &settings, process_bytes, opening);
    if !connection.upgrade(&outbox) {
        request.restore_upgrade(Upgrade { connection, rest });
        return Ok(Response::service_unavailable());
    }
    // The controller has become a session: from here on its handlers are what runs.
    connection.leave_handler();
    // Before the 101: when the client has seen that, what is sent to its session reaches it.
    let registration = Registry::global().register(client.clone(), connection.id, outbox.clone());
    registration.enter();
    outbox.start();
    let began = Instant::now();
    let path = Shown::value(request.path()).to_string();
    let who = who(&connection, &client);
    contained(|| log_begin(name_of::<C>(), &connection, &who, &path));

    let reader = Reader::new(stream, outbox.clone(), &settings, rest);
    let mut session =
        Session { controller, client: &client, connection: &connection, outbox: &outbox, reader };
    let is_one_too_many = registration.connections() > context.settings.max_connections_per_session;
    if is_one_too_many {
        outbox.seal(Close::new(CloseCode::TRY_AGAIN_LATER, "too many connections of this session"));
    } else {
        connection.set_task(format!("{who} path={path}"));
        os::name_thread(&thread_name(&path, &client));
        if let Err(close) = session.serve() {
            outbox.seal(close);
        }
    }
    drop(registration);
    let close = session.reader.close();
    if !is_one_too_many {
        // For the program it is over now; what is left of the queue and of TCP ends behind its back.
        let Close { code, reason } = &close;
        let _ = guarded(&connection, &outbox, &client, "handle_close", || {
            block_on(controller.handle_close(&client, *code, reason))
        });
    }
    let outcome = session.reader.finish();
    if !outcome.is_clean {
        connection.note_loss();
    }
    contained(|| log_end(&outcome, &close, &who, &path, began));
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

/// The parts of path and session that tell threads apart, in the 15 bytes that systems show.
fn thread_name(path: &str, client: &SessionId) -> String {
    format!("{:.6} {:.8}", path.trim_start_matches('/'), Shown::value(client).to_string())
}

/// What tells the lines of one connection, and of one session, from others.
fn who(connection: &Connection, client: &SessionId) -> String {
    format!("connection={} session={}", connection.id, Shown::field(client))
}

/// An open WebSocket with its controller.
struct Session<'a, C: ?Sized> {
    controller: &'a C,
    client: &'a SessionId,
    connection: &'a Connection,
    outbox: &'a Outbox,
    reader: Reader,
}

impl<C: WebsocketController + ?Sized> Session<'_, C> {
    /// The handlers, one after the other, until one fails or there are no more messages.
    fn serve(&mut self) -> Result<(), Close> {
        let Session { controller, client, connection, outbox, reader } = self;
        guarded(connection, outbox, client, "handle_connection", || {
            block_on(controller.handle_connection(client))
        })?;
        while let Some(message) = reader.recv() {
            guarded(connection, outbox, client, "handle_message", || {
                block_on(controller.handle_message(client, message))
            })?;
        }
        Ok(())
    }
}

/// Calls a handler: its error or panic becomes the close of this connection and a line in the log.
fn guarded(
    connection: &Connection,
    outbox: &Outbox,
    client: &SessionId,
    method: &str,
    call: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Close> {
    connection.enter_handler();
    // The error is the program's code too, in its text and in its end.
    let result = contained(|| call().map_err(Failure::of));
    connection.leave_handler();
    match result {
        Some(Ok(())) => Ok(()),
        Some(Err(failure)) => report(connection, outbox, client, method, Some(&failure)),
        None => report(connection, outbox, client, method, None),
    }
}

/// What a handler failed with.
struct Failure {
    text: String,
    is_send_error: bool,
    is_chosen: bool,
    close: Close,
}

impl Failure {
    /// Apart, like [`report`], so that the frames of those who call handlers stay small: a connection keeps the pages
    /// that its stack has once needed.
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

/// Logs why a handler ended early, `None` for a panic; the close that this asks for.
#[inline(never)]
fn report(
    connection: &Connection,
    outbox: &Outbox,
    client: &SessionId,
    method: &str,
    failure: Option<&Failure>,
) -> Result<(), Close> {
    let (level, what, end) = match failure {
        // A receiver that is too slow or leaves has its own connection closed, not that of whoever sends to it.
        Some(Failure { text, is_send_error: true, .. }) => {
            (log::Level::Info, format!("could not send: {text}"), Ok(()))
        }
        Some(Failure { text, is_chosen, close, .. }) => {
            // A client may leave while its handler answers.
            let is_expected = *is_chosen || outbox.is_sealed();
            let level = if is_expected { log::Level::Info } else { log::Level::Error };
            (level, format!("failed: {text}"), Err(close.clone()))
        }
        None => {
            let what = "panicked; its connection is closed".to_owned();
            (log::Level::Error, what, Err(Close::new(CloseCode::INTERNAL_ERROR, "")))
        }
    };
    contained(|| log::log!(level, "{method} of {} {what}", who(connection, client)));
    end
}

#[inline(never)]
fn log_begin(controller: &str, connection: &Connection, who: &str, path: &str) {
    let peer = connection.peer;
    log::info!("websocket connected {who} path={path} controller={controller} peer={peer}");
}

#[inline(never)]
fn log_end(outcome: &Outcome, close: &Close, who: &str, path: &str, began: Instant) {
    let Outcome { by, received, sent, unsent, .. } = outcome;
    let lost = match unsent {
        0 => String::new(),
        count => format!(" lost={count}"),
    };
    log::info!(
        "websocket closed {who} path={path} code={} reason={:?} by={by} after={:.3?} \
         in={received} out={sent}{lost}",
        close.code,
        Shown::value(&close.reason),
        began.elapsed(),
    );
}
