//! The trait for WebSocket endpoints: its methods are called with what a socket receives.

use std::rc::Rc;

use async_trait::async_trait;

use crate::comms::session::SessionId;
use crate::controller::error::Error;
use crate::controller::executor::block_on;
use crate::controller::http::name_of;
use crate::controller::request::Request;
use crate::controller::session::{self, Session};
use crate::controller::socket::Socket;
use crate::http::response::Response;
use crate::websocket::close::{Cause, Close, CloseCode, Closed};
use crate::websocket::message::Message;
use crate::websocket::settings::Websocket;

/// Serves the WebSockets of a route. `#[derive(macros::WebsocketController)]` makes the type a
/// [`Controller`](crate::controller::Controller) as well, so that a route takes it.
///
/// They are told the session, and `Comms::websocket(client)` reaches all its tabs. The one tab that a message came from is
/// [`Comms::here()?`](crate::comms::Comms::here).
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
/// An error from a method closes the connection, with 1011 unless the error
/// [says otherwise](Error::with_close); so does a panic. Other connections notice nothing. The exception is a
/// [`SendError`](crate::comms::SendError) that is passed on with `?`: that a receiver is too slow ends the handler and is logged, and closes the
/// receiver's connection, if any.
///
/// The compiler's "lifetime parameters or bounds do not match the trait declaration" means that `#[async_trait]` is missing
/// before the `impl`, or `async` before a method. An endpoint without either is a function: see [`Socket`].
// The compiler shows the next line to whoever leaves the attribute or `async` out.
#[async_trait] // the `impl` needs this attribute too, and each of its methods is an `async fn`
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
    /// The request's connection was used already, or the request was [built](Request::get) without one.
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let settings = |defaults| self.websocket(defaults);
        session::run(request, settings, name_of::<Self>(), |session| serve(self, session))
    }
}

/// The handlers, one after the other, until one fails or there are no more messages; then `handle_close`.
fn serve<C: WebsocketController + ?Sized>(controller: &C, session: &Rc<Session>) -> Close {
    let client = &session.client;
    let mut socket = Socket::new(session);
    let begin = || block_on(controller.handle_connection(client));
    let begun = call(session, "handle_connection", begin);
    let served = begun.and_then(|()| receive(controller, session, &mut socket));
    if let Err(close) = served {
        session.outbox.seal(close, Cause::Program);
    }
    if let Some(Closed { code, reason, .. }) = socket.end() {
        // For the program it is over now; what is left of the queue and of TCP ends behind its back.
        let close = || block_on(controller.handle_close(client, *code, reason));
        let _ = session.guard("handle_close", close);
    }
    Close::new(CloseCode::NORMAL, "")
}

/// Hands the messages over, until a handler fails or there are no more.
///
/// Apart, so that the frame below the handlers stays small: at thousands of connections each line of a stack is out of
/// the caches by the next message.
#[inline(never)]
fn receive<C: WebsocketController + ?Sized>(
    controller: &C,
    session: &Session,
    socket: &mut Socket,
) -> Result<(), Close> {
    while let Some(message) = socket.recv_any() {
        call(session, "handle_message", || {
            block_on(controller.handle_message(&session.client, message))
        })?;
    }
    Ok(())
}

/// Calls a handler. What a send failed with ends the handler, and leaves its connection open.
fn call(
    session: &Session,
    method: &str,
    handler: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Close> {
    match session.guard(method, handler) {
        Err(ended) if !ended.is_send_error => Err(ended.close),
        _ => Ok(()),
    }
}
