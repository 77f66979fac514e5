//! Reaches any session from anywhere: chooses connections, and sends to them, closes them or subscribes them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::deadline;
use crate::comms::registry::{self, Peer, Receivers, Registry, Target};
use crate::comms::session::{ConnectionId, ServerId, SessionId};
use crate::comms::topics::SubscribeError;
use crate::websocket::close::{Cause, Close, CloseCode, InvalidClose};
use crate::websocket::frame::Frame;
use crate::websocket::message::Message;
use crate::websocket::outbox::Outbox;
use crate::websocket::sender::{NotTaken, Patience};

/// The connections that are meant: those of one session, one alone, a topic's subscribers, or all. It can be made
/// anywhere in the program, on any thread.
///
/// ```
/// use rwf::prelude::*;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // All the tabs of user 42. Nobody is connected here, so nobody gets it.
/// assert_eq!(Comms::websocket(42).send("hey there")?, 0);
///
/// Comms::notify().send("to everyone")?;
/// Comms::broadcast(42).send("to everyone but user 42")?;
/// Comms::websocket(42).close(CloseCode::NORMAL, "see you")?;
///
/// // Whoever has subscribed, until it unsubscribes or leaves.
/// Comms::websocket(42).subscribe("room:7")?;
/// Comms::topic("room:7").send("to all in the room")?;
/// Comms::topic("room:7").except(42).send("to all others in the room")?;
/// # Ok(())
/// # }
/// ```
///
/// It reaches the connections of all endpoints and all servers of the process. To keep those of one server apart, begin
/// with [`ServerHandle::comms`](crate::http::ServerHandle::comms) or [`Request::comms`](crate::http::Request::comms);
/// to keep those of one endpoint apart, let them [subscribe](Self::subscribe) to a topic of their own.
///
/// What one thread sends to one connection arrives in that order. Sends of different threads have no order among them.
#[derive(Debug, Clone)]
pub struct Comms {
    receivers: Receivers,
}

impl Comms {
    /// All connections of a session: every tab of a visitor, or of a user by number, name or UUID. A text is a name: for
    /// a [`SessionId`] that was written as text, parse it.
    #[must_use]
    pub fn websocket(session: impl Into<SessionId>) -> Self {
        Self::to(Target::Session(session.into()))
    }

    /// One connection, which is one tab; [`Request::connection_id`](crate::http::Request::connection_id) names it. It is
    /// reached from `handle_connection` on.
    #[must_use]
    pub fn connection(connection: impl Into<ConnectionId>) -> Self {
        Self::to(Target::Connection(connection.into()))
    }

    /// The connection whose handler calls this: the one tab that a message came from, where
    /// [`websocket`](Self::websocket) reaches all tabs of its session.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// #[derive(Default, macros::WebsocketController)]
    /// struct Calculator;
    ///
    /// #[async_trait]
    /// impl WebsocketController for Calculator {
    ///     async fn handle_message(&self, _client: &SessionId, message: Message) -> Result<(), Error> {
    ///         let number: u64 = message.as_text().unwrap_or_default().parse()?;
    ///         Comms::here()?.send((number * 2).to_string())?;
    ///         Ok(())
    ///     }
    /// }
    /// # assert!(Comms::here().is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// The calling thread runs no handler of a WebSocket.
    pub fn here() -> Result<Self, NotInHandler> {
        registry::own_connection().map(Self::connection).ok_or(NotInHandler)
    }

    /// All connections that have [subscribed](Self::subscribe) to a topic: a name of up to 255 bytes, `room:7` say, which
    /// exists while anybody has subscribed to it.
    #[must_use]
    pub fn topic(name: impl Into<String>) -> Self {
        Self::to(Target::Topic(name.into()))
    }

    /// Everyone who is connected, except one session or one connection.
    #[must_use]
    pub fn broadcast(except: impl Into<Recipient>) -> Self {
        Self::notify().except(except)
    }

    /// Everyone who is connected.
    #[must_use]
    pub fn notify() -> Self {
        Self::to(Target::All)
    }

    /// The same receivers, except one session or one connection. More can be left out by calling it again.
    #[must_use]
    pub fn except(mut self, recipient: impl Into<Recipient>) -> Self {
        self.receivers.except.push(recipient.into().0);
        self
    }

    fn to(target: Target) -> Self {
        Self { receivers: target.into() }
    }

    /// Sends a message, and returns to how many connections it is on its way. When nobody is connected these are none,
    /// which is no error.
    ///
    /// The message is queued, and written when the client takes it: a slow client delays neither the caller nor the
    /// other receivers. One whose outbox is full is closed with 1013, or left out, as its endpoint's
    /// [`Overflow`](crate::controller::Overflow) says. The exception is a handler that sends to its own connection:
    /// it waits for room, up to the write timeout, so that a client that floods is held back rather than cut off. Hold
    /// no lock there that other handlers need, or use [`try_send`](Self::try_send).
    ///
    /// # Errors
    ///
    /// There are receivers, and none could take it: [`SendError`] says why. Passed on with `?` in a method of a controller,
    /// it ends that method, and leaves its connection open. In a function of a [`Socket`](crate::controller::Socket) it ends
    /// the function, and with it the connection, which is right where the receivers are this client: where they are others,
    /// log the error, or pass over it with `let _ =`.
    pub fn send(&self, message: impl Into<Message>) -> Result<usize, SendError> {
        self.send_with(message.into(), Patience::Settings)
    }

    /// Sends a message like [`send`](Self::send), and never waits, not even in a handler that sends to its own
    /// connection. A receiver whose outbox is full is left out, and not closed.
    ///
    /// For what has to be sent while a lock is held, so that the order of what the lock guards is the order in which
    /// everybody gets it:
    ///
    /// ```
    /// use rwf::prelude::*;
    /// use std::sync::{Mutex, PoisonError};
    ///
    /// static HISTORY: Mutex<Vec<String>> = Mutex::new(Vec::new());
    ///
    /// fn say(text: &str) -> Result<usize, SendError> {
    ///     let mut history = HISTORY.lock().unwrap_or_else(PoisonError::into_inner);
    ///     history.push(text.to_owned());
    ///     // Under `send` a handler could wait here for its own client, and everybody else for the lock.
    ///     Comms::topic("chat").try_send(text)
    /// }
    /// # assert_eq!(say("hello"), Ok(0));
    /// ```
    ///
    /// # Errors
    ///
    /// There are receivers, and none could take it.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<usize, SendError> {
        self.send_with(message.into(), Patience::Until(None))
    }

    /// Sends a message like [`send`](Self::send), and waits up to `timeout`, in all, for receivers whose outboxes are
    /// full. One that stays full is left out, and not closed.
    ///
    /// For a thread that produces faster than clients take: a file, a log, a stream.
    ///
    /// ```
    /// use rwf::prelude::*;
    /// use std::time::Duration;
    ///
    /// fn stream(to: ConnectionId, parts: impl Iterator<Item = Vec<u8>>) -> Result<(), SendError> {
    ///     let comms = Comms::connection(to);
    ///     for part in parts {
    ///         comms.send_timeout(part, Duration::from_secs(30))?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// There are receivers, and none could take it.
    pub fn send_timeout(
        &self,
        message: impl Into<Message>,
        timeout: Duration,
    ) -> Result<usize, SendError> {
        self.send_with(message.into(), Patience::Until(Some(deadline::after(timeout))))
    }

    fn send_with(&self, message: Message, patience: Patience) -> Result<usize, SendError> {
        let frame = Frame::message(message);
        if let Some(own) = registry::own_outbox(&self.receivers) {
            return own.send_with(&frame, patience).map(|()| 1).map_err(SendError::from);
        }
        match self.deliver(&frame, patience) {
            Outcome { queued: 0, refused, .. } if !refused.is_empty() => Err(SendError::Full),
            Outcome { queued: 0, closing, .. } if closing > 0 => Err(SendError::Closing),
            Outcome { queued, .. } => Ok(queued),
        }
    }

    /// Sends a message like [`send`](Self::send), and says what became of it for each receiver: for a sender who has to
    /// know whom it left out.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// let outcome = Comms::topic("prices").send_to_each("42");
    /// for connection in &outcome.refused {
    ///     log::info!("{connection} has an old price");
    /// }
    /// assert_eq!((outcome.queued, outcome.closing), (0, 0));
    /// ```
    pub fn send_to_each(&self, message: impl Into<Message>) -> Outcome {
        self.deliver(&Frame::message(message.into()), Patience::Settings)
    }

    #[inline(never)]
    fn deliver(&self, frame: &Frame, patience: Patience) -> Outcome {
        let members = Registry::global().find(&self.receivers);
        let mut outcome = Outcome::default();
        // Those whom this thread may wait for come last, so that the others do not wait with them.
        let mut late = SmallVec::<[_; 1]>::new();
        for member @ (connection, outbox) in &members {
            match patience {
                Patience::Settings if outbox.is_read_by_this_thread() => late.push(member),
                Patience::Settings => outcome.note(*connection, outbox.send(frame)),
                Patience::Until(_) => match outbox.send_with(frame, Patience::Until(None)) {
                    Err(NotTaken::Full) => late.push(member),
                    result => outcome.note(*connection, result),
                },
            }
        }
        for (connection, outbox) in late {
            outcome.note(*connection, outbox.send_with(frame, patience));
        }
        outcome
    }

    /// Subscribes the connections that are meant, of those that there are now, to a [topic](Self::topic): from here on
    /// they get what is sent to it, until they [unsubscribe](Self::unsubscribe) or end. Returns how many had not
    /// subscribed before.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// struct Chat { room: String, tab: ConnectionId }
    ///
    /// #[async_trait]
    /// impl WebsocketController for Chat {
    ///     async fn handle_connection(&self, _client: &SessionId) -> Result<(), Error> {
    ///         Comms::connection(self.tab).subscribe(&self.room)?;
    ///         Ok(())
    ///     }
    ///
    ///     async fn handle_message(&self, _client: &SessionId, message: Message) -> Result<(), Error> {
    ///         Comms::topic(&self.room).send(message)?;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The name is longer than 255 bytes, or a connection has
    /// [`max_topics`](crate::controller::Websocket::max_topics) already; the others are subscribed nevertheless.
    pub fn subscribe(&self, topic: &str) -> Result<usize, SubscribeError> {
        Registry::global().subscribe(&self.receivers, topic)
    }

    /// Ends the subscriptions of the connections that are meant to a topic. Returns how many had one.
    #[expect(clippy::must_use_candidate, reason = "how many it were is mostly of no interest")]
    pub fn unsubscribe(&self, topic: &str) -> usize {
        Registry::global().unsubscribe(&self.receivers, topic)
    }

    /// Closes the connections that are meant: what is queued goes out first, then the close frame. Returns how many
    /// this call began to close.
    ///
    /// # Errors
    ///
    /// The code may not be sent, or the reason is longer than 123 bytes (RFC 6455 §5.5, §7.4.2). Nothing is closed.
    pub fn close(&self, code: impl Into<CloseCode>, reason: &str) -> Result<usize, InvalidClose> {
        let close = Close::checked(code.into(), reason)?;
        let members = Registry::global().find(&self.receivers);
        let seals = |outbox: &Arc<Outbox>| outbox.seal(close.clone(), Cause::Program);
        Ok(members.iter().filter(|(_, outbox)| seals(outbox)).count())
    }

    /// Whether any of the connections that are meant is open, and not being closed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let members = Registry::global().find(&self.receivers);
        members.iter().any(|(_, outbox)| !outbox.is_sealed())
    }
}

/// The clients of one server: what [`Comms`] reaches of the whole process, made with
/// [`ServerHandle::comms`](crate::http::ServerHandle::comms), [`Request::comms`](crate::http::Request::comms) or
/// [`Socket::comms`](crate::controller::Socket::comms).
///
/// ```
/// use rwf::http::{self, Server};
/// use rwf::prelude::*;
///
/// # fn main() -> Result<(), http::Error> {
/// # fn chat(_: Socket) -> Result<(), Error> { Ok(()) }
/// let public = Server::new(vec![route!("/chat" => websocket(chat))]).bind("127.0.0.1:0").spawn()?;
/// let staff = Server::new(vec![route!("/chat" => websocket(chat))]).bind("127.0.0.1:0").spawn()?;
/// // The staff does not get it.
/// let _ = public.comms().notify().send("we close at six");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ServerComms {
    server: ServerId,
}

impl ServerComms {
    pub(crate) fn new(server: ServerId) -> Self {
        Self { server }
    }

    /// All connections of a session, like [`Comms::websocket`].
    #[must_use]
    pub fn websocket(self, session: impl Into<SessionId>) -> Comms {
        self.of_server(Comms::websocket(session))
    }

    /// One connection, like [`Comms::connection`].
    #[must_use]
    pub fn connection(self, connection: impl Into<ConnectionId>) -> Comms {
        self.of_server(Comms::connection(connection))
    }

    /// The subscribers of a topic, like [`Comms::topic`].
    #[must_use]
    pub fn topic(self, name: impl Into<String>) -> Comms {
        self.of_server(Comms::topic(name))
    }

    /// Everyone except one session or one connection, like [`Comms::broadcast`].
    #[must_use]
    pub fn broadcast(self, except: impl Into<Recipient>) -> Comms {
        self.of_server(Comms::broadcast(except))
    }

    /// Everyone, like [`Comms::notify`].
    #[must_use]
    pub fn notify(self) -> Comms {
        self.of_server(Comms::notify())
    }

    fn of_server(self, mut comms: Comms) -> Comms {
        comms.receivers.server = Some(self.server);
        comms
    }
}

/// A session, or one connection: what [`Comms::except`] leaves out. Made from whatever a session is made from, and from
/// a [`ConnectionId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(Peer);

impl<S: Into<SessionId>> From<S> for Recipient {
    fn from(session: S) -> Self {
        Self(Peer::Session(session.into()))
    }
}

impl From<ConnectionId> for Recipient {
    fn from(connection: ConnectionId) -> Self {
        Self(Peer::Connection(connection))
    }
}

/// What became of a message to many: [`Comms::send_to_each`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// To so many connections it is on its way.
    pub queued: usize,
    /// Those whose outboxes were full: they did not get it. Where the endpoint's
    /// [`Overflow`](crate::controller::Overflow) says so they are being closed for it.
    pub refused: Vec<ConnectionId>,
    /// So many were being closed already.
    pub closing: usize,
}

impl Outcome {
    fn note(&mut self, connection: ConnectionId, sent: Result<(), NotTaken>) {
        match sent {
            Ok(()) => self.queued += 1,
            Err(NotTaken::Full) => self.refused.push(connection),
            Err(NotTaken::Closing) => self.closing += 1,
        }
    }
}

/// Why no receiver could take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// As much as the settings allow already waits for each of the receivers, or for some and the others are being
    /// closed: they are too slow.
    Full,
    /// All receivers are being closed.
    Closing,
}

impl From<NotTaken> for SendError {
    fn from(reason: NotTaken) -> Self {
        match reason {
            NotTaken::Full => Self::Full,
            NotTaken::Closing => Self::Closing,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the receiver is too slow: its outbox is full",
            Self::Closing => "the receiver's connection is being closed",
        })
    }
}

impl std::error::Error for SendError {}

/// [`Comms::here`] was called on a thread that runs no handler of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "there is one reason: programs compare with it")]
pub struct NotInHandler;

impl fmt::Display for NotInHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this thread runs no handler of a WebSocket, which `Comms::here` could reach")
    }
}

impl std::error::Error for NotInHandler {}
