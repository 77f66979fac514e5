//! What a program gets of an open WebSocket: it receives from it and sends to it, on the thread that serves it.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::base::deadline;
use crate::comms::client::Client;
use crate::comms::outcome::SendError;
use crate::comms::server::ServerComms;
use crate::comms::session::{ConnectionId, SessionId};
use crate::controller::request::Request;
use crate::controller::session::Session;
use crate::controller::slowest::Call;
use crate::websocket::close::{Cause, Close, CloseCode, Closed, InvalidClose};
use crate::websocket::message::{Message, Outgoing};
use crate::websocket::prepared::PreparedMessage;
use crate::websocket::reader::{Reader, TimedOut};
use crate::websocket::room::Patience;
use crate::websocket::sender::Place;
use crate::websocket::traffic::COUNTS;

/// One open WebSocket, on the thread that serves it.
///
/// ```
/// use rwf::prelude::*;
///
/// fn echo(mut socket: Socket) -> Result<(), Error> {
///     while let Some(message) = socket.recv()? {
///         socket.send(message)?;
///     }
///     Ok(())
/// }
///
/// let route = route!("/websocket" => websocket(echo));
/// # let _ = route;
/// ```
///
/// The function *is* the connection: its local variables are the connection's state, it may block, and it holds up
/// nobody but its own client. When it returns, the WebSocket is closed, with 1000; after an error with 1011 or what the
/// error [says](crate::controller::Error::with_close), after a panic with 1011. What has to be done then in any case, such
/// as to take the client out of a list, belongs in the destructor of a local value.
///
/// While it does not receive, nothing is read: its client's messages, pings and close wait, and TCP holds the client
/// back. So a function that works on its own receives now and then; waiting with [`recv_timeout`](Self::recv_timeout) is
/// its sleep:
///
/// ```
/// use rwf::prelude::*;
/// use std::time::Duration;
///
/// fn clock(mut socket: Socket) -> Result<(), Error> {
///     let mut seconds: u64 = 0;
///     loop {
///         match socket.recv_timeout(Duration::from_secs(1)) {
///             Ok(message) => log::info!("the client says {message:?}"),
///             Err(RecvTimeoutError::Timeout) => {
///                 seconds += 1;
///                 socket.send(seconds.to_string())?;
///             }
///             // The client has left, or the server shuts down.
///             Err(RecvTimeoutError::Disconnected) => return Ok(()),
///         }
///     }
/// }
/// # let _ = websocket(clock);
/// ```
///
/// The log warns of a function that for [`handler_warning`](crate::http::Server::handler_warning) neither receives nor
/// returns. To send to a client that has left is an error, so that a loop that only sends ends too.
///
/// Other threads send to it through its [`client`](Self::client), or a [`Comms`](crate::comms::Comms) that names its
/// session or connection, also while it waits.
pub struct Socket {
    session: Rc<Session>,
    /// Until it is dropped.
    reader: Option<Box<Reader>>,
    /// Whether [`recv`](Self::recv) has said that there is nothing more.
    has_told_end: bool,
    /// What the program does now, and since when, if that is timed.
    timed: Option<(Call, Instant)>,
}

impl Socket {
    /// The socket of a session, which has one at a time.
    pub(crate) fn new(session: &Rc<Session>) -> Self {
        Self {
            session: Rc::clone(session),
            reader: session.take_reader(),
            has_told_end: false,
            timed: Some((Call::Connection, Instant::now())),
        }
    }

    /// Waits for the next message; `Ok(None)` when the WebSocket is over, in whatever way: [`closed`](Self::closed) says
    /// how.
    ///
    /// # Errors
    ///
    /// It has said `Ok(None)` before. So a loop that does not look for the end ends with `?`.
    #[inline]
    pub fn recv(&mut self) -> Result<Option<Message>, RecvError> {
        let message = self.recv_any();
        if message.is_none() && std::mem::replace(&mut self.has_told_end, true) {
            return Err(RecvError);
        }
        Ok(message)
    }

    /// Like [`recv`](Self::recv), for those who stop at the first `None`.
    pub(crate) fn recv_any(&mut self) -> Option<Message> {
        self.will_receive();
        let message = self.reader.as_mut().and_then(|reader| reader.recv());
        self.has_received(Some(if message.is_some() { Call::Message } else { Call::Close }));
        message
    }

    /// The next message if one has arrived whole, without waiting.
    ///
    /// # Errors
    ///
    /// There is none, or the WebSocket is over.
    pub fn try_recv(&mut self) -> Result<Message, TryRecvError> {
        self.recv_timeout(Duration::ZERO).map_err(|error| match error {
            RecvTimeoutError::Timeout => TryRecvError::Empty,
            RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
        })
    }

    /// Waits up to `timeout` for the next message.
    ///
    /// # Errors
    ///
    /// None came, or the WebSocket is over.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message, RecvTimeoutError> {
        self.recv_deadline(deadline::after(timeout))
    }

    /// Waits until `deadline` for the next message.
    ///
    /// # Errors
    ///
    /// None came, or the WebSocket is over.
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<Message, RecvTimeoutError> {
        self.will_receive();
        let received = self.reader.as_mut().map_or(Ok(None), |reader| reader.recv_until(deadline));
        self.has_received(match received {
            Ok(Some(_)) => Some(Call::Message),
            Ok(None) => Some(Call::Close),
            Err(TimedOut) => None,
        });
        match received {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(RecvTimeoutError::Disconnected),
            Err(TimedOut) => Err(RecvTimeoutError::Timeout),
        }
    }

    /// The messages, as they come, until the WebSocket is over.
    ///
    /// The loop has the socket meanwhile: to answer in it, take its [`client`](Self::client) before, or write
    /// `while let Some(message) = socket.recv()?` instead.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// fn echo(mut socket: Socket) -> Result<(), Error> {
    ///     let client = socket.client();
    ///     for message in socket.iter() {
    ///         client.send(message)?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// fn log_all(mut socket: Socket) -> Result<(), Error> {
    ///     for message in socket.iter() {
    ///         log::info!("{message:?}");
    ///     }
    ///     Ok(())
    /// }
    /// # let _ = (websocket(echo), websocket(log_all));
    /// ```
    pub fn iter(&mut self) -> Iter<'_> {
        Iter { socket: self }
    }

    /// The program waits.
    #[inline]
    fn will_receive(&mut self) {
        self.session.connection.leave_handler();
        self.note_handler();
    }

    /// The program goes on, with a message, with the end, or without either. Of messages that have arrived together the
    /// first is timed: a clock costs as much as a good part of a message.
    #[inline]
    fn has_received(&mut self, call: Option<Call>) {
        self.session.connection.enter_handler(call.unwrap_or(Call::Message));
        let mut has_read = || self.reader.as_mut().is_some_and(|reader| reader.has_read());
        if call == Some(Call::Close) {
            self.end();
        } else if COUNTS && call == Some(Call::Message) && has_read() {
            self.timed = Some((Call::Message, Instant::now()));
        }
    }

    /// What the program did is done.
    #[inline]
    fn note_handler(&mut self) {
        if let Some((call, began)) = self.timed.take() {
            self.session.note_handler(call, began);
        }
    }

    /// Ends it for the program: nothing more is received, and nothing can be sent to it.
    #[cold]
    #[inline(never)]
    pub(crate) fn end(&mut self) -> Option<&Closed> {
        if !matches!(self.timed, Some((Call::Close, _))) {
            self.note_handler();
            self.timed = Some((Call::Close, Instant::now()));
        }
        self.reader.as_mut().map(|reader| self.session.end(reader))
    }

    /// Sends a message to this client. It is queued, and written when the client takes it; where the client's outbox is
    /// full, this waits for room, up to the [write timeout](crate::controller::Websocket::write_timeout), so that a client
    /// that floods is held back.
    ///
    /// # Errors
    ///
    /// The client has left or is being closed, or its outbox is full: then it is closed as too slow, unless the
    /// [settings](crate::controller::Overflow) have the message refused.
    #[doc(alias = "backpressure")]
    pub fn send(&self, message: impl Into<Outgoing>) -> Result<(), SendError> {
        self.send_with(message.into(), Patience::Settings)
    }

    /// Sends a message like [`send`](Self::send), and does not wait for room.
    ///
    /// # Errors
    ///
    /// The client has left or is being closed, or its outbox is full; it is not closed for that.
    pub fn try_send(&self, message: impl Into<Outgoing>) -> Result<(), SendError> {
        self.send_with(message.into(), Patience::Until(None))
    }

    /// Sends a message like [`send`](Self::send), and waits up to `timeout` for room.
    ///
    /// # Errors
    ///
    /// The client has left or is being closed, or its outbox stays full; it is not closed for that.
    pub fn send_timeout(
        &self,
        message: impl Into<Outgoing>,
        timeout: Duration,
    ) -> Result<(), SendError> {
        self.send_with(message.into(), Patience::Until(Some(deadline::after(timeout))))
    }

    fn send_with(&self, message: Outgoing, patience: Patience) -> Result<(), SendError> {
        self.send_in(Place::Last, message, patience)
    }

    #[inline]
    fn send_in(
        &self,
        place: Place<'_>,
        message: Outgoing,
        patience: Patience,
    ) -> Result<(), SendError> {
        let sent = self.session.outbox.send_in(place, &PreparedMessage::new(message), patience);
        sent.map(drop).map_err(SendError::from)
    }

    /// Sends the newest value of a key, as [`Comms::send_latest`](crate::comms::Comms::send_latest) does.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_latest(&self, key: &str, message: impl Into<Outgoing>) -> Result<(), SendError> {
        self.send_in(Place::Key(key), message.into(), Patience::Settings)
    }

    /// How many messages were dropped for newer ones, where [`Overflow::DropOldest`](crate::controller::Overflow) says so.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.session.outbox.dropped()
    }

    /// Closes the WebSocket: what is queued goes out first, then the close frame, and nothing is received any more.
    /// Returning does the same with 1000. Only the first close counts.
    ///
    /// # Errors
    ///
    /// The code may not be sent, or the reason is longer than 123 bytes (RFC 6455 §5.5, §7.4.2). Nothing is closed.
    pub fn close(&self, code: impl Into<CloseCode>, reason: &str) -> Result<(), InvalidClose> {
        let close = Close::checked(code.into(), reason)?;
        self.session.outbox.seal(close, Cause::Program);
        Ok(())
    }

    /// The request that opened it.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.session.request
    }

    /// Whose it is: what [`Comms::websocket`](crate::comms::Comms::websocket) reaches, with the session's other tabs.
    #[must_use]
    pub fn session_id(&self) -> &SessionId {
        &self.session.client
    }

    /// This connection: what [`Comms::connection`](crate::comms::Comms::connection) reaches.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.session.connection.id
    }

    /// This client for others: to keep, and to send to from other threads.
    #[must_use]
    pub fn client(&self) -> Client {
        let session = self.session_id().clone();
        Client::new(self.connection_id(), session, &self.session.outbox)
    }

    /// Reaches the clients of this server.
    #[must_use]
    pub fn comms(&self) -> ServerComms {
        self.session.request.comms()
    }

    /// The subprotocol that was agreed on: the first that the client offered of those in the
    /// [settings](crate::controller::Websocket::subprotocols).
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.session.subprotocol.as_deref()
    }

    /// How it was closed, once a receive has said that it is over.
    #[must_use]
    pub fn closed(&self) -> Option<&Closed> {
        self.session.closed()
    }
}

/// Gives the connection back to the thread that serves it: dropping a socket early closes nothing by itself.
impl Drop for Socket {
    fn drop(&mut self) {
        self.note_handler();
        if let Some(reader) = self.reader.take() {
            self.session.restore_reader(reader);
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("connection", &self.connection_id())
            .field("session", self.session_id())
            .field("path", &self.request().path())
            .finish_non_exhaustive()
    }
}

/// The messages of a [`Socket`], as they come; made by [`Socket::iter`].
#[derive(Debug)]
pub struct Iter<'a> {
    socket: &'a mut Socket,
}

impl Iterator for Iter<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        self.socket.recv_any()
    }
}

impl<'a> IntoIterator for &'a mut Socket {
    type Item = Message;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// A WebSocket that is over, of which [`Socket::recv`] has said so already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "as for a channel: programs compare with it")]
pub struct RecvError;

/// Why [`Socket::try_recv`] has no message. There are these two reasons, as for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "as for a channel")]
pub enum TryRecvError {
    /// None has arrived whole.
    Empty,
    /// The WebSocket is over.
    Disconnected,
}

/// Why [`Socket::recv_timeout`] has no message. There are these two reasons, as for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "as for a channel")]
pub enum RecvTimeoutError {
    /// None came in time.
    Timeout,
    /// The WebSocket is over.
    Disconnected,
}

const OVER: &str = "the WebSocket is over";

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the WebSocket is over, as `recv` has said before")
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "no message has arrived",
            Self::Disconnected => OVER,
        })
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no message came in time",
            Self::Disconnected => OVER,
        })
    }
}

impl std::error::Error for RecvError {}
impl std::error::Error for TryRecvError {}
impl std::error::Error for RecvTimeoutError {}
