//! Reaches any session from anywhere: chooses connections, and sends to them, closes them or subscribes them.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::base::deadline;
use crate::comms::crossing;
use crate::comms::entries::Outboxes;
use crate::comms::outcome::{NotInHandler, Outcome, SendError};
use crate::comms::receivers::{Peer, Receivers, Target};
use crate::comms::registry::{self, Registry};
use crate::comms::session::{ConnectionId, ServerId, SessionId};
use crate::comms::topics::SubscribeError;
use crate::websocket::close::{Cause, Close, CloseCode, InvalidClose};
use crate::websocket::message::Outgoing;
use crate::websocket::outbox::Outbox;
use crate::websocket::prepared::PreparedMessage;
use crate::websocket::room::{NotTaken, Patience};
use crate::websocket::sender::Place;

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
    pub(super) receivers: Receivers,
}

impl Comms {
    /// All connections of a session: every tab of a visitor, or of a user by number, name or UUID. A text is a name: for
    /// a [`SessionId`] that was written as text, parse it.
    #[doc(alias("session", "user"))]
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
    #[doc(alias("room", "group", "publish"))]
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
    #[doc(alias("all", "everyone", "broadcast"))]
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

    pub(super) fn to(target: Target) -> Self {
        Self { receivers: target.into() }
    }

    /// The same receivers, of this process alone, where it is in a cluster. With the feature `redis`.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn on_this_node(mut self) -> Self {
        self.receivers.is_local = true;
        self
    }

    pub(crate) fn of_server(mut self, server: ServerId) -> Self {
        self.receivers.server = Some(server);
        self
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
    #[doc(alias = "backpressure")]
    pub fn send(&self, message: impl Into<Outgoing>) -> Result<usize, SendError> {
        self.send_with(message.into(), Patience::Settings)
    }

    /// Sends the newest value of a `key`: for a client that cannot keep up it replaces the value that still waits under that
    /// key, so that what the client gets is new, and what waits does not grow. For prices, positions, progress: where nobody
    /// wants to know what was.
    ///
    /// It takes the old value's place; else it is sent like any other message, in order with those. Keys are each
    /// connection's own. What the system and the network hold already is not replaced:
    /// [`Websocket::max_lag`](crate::controller::Websocket::max_lag) and
    /// [`Websocket::max_unsent_bytes`](crate::controller::Websocket::max_unsent_bytes) keep that small.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// fn show_price(symbol: &str, price: f64) {
    ///     // Ten times, and a slow client gets the last one alone.
    ///     for step in 0..10 {
    ///         let price = price + f64::from(step);
    ///         let _ = Comms::topic("prices").send_latest(symbol, format!("{symbol} {price}"));
    ///     }
    /// }
    /// # show_price("ACME", 7.5);
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_latest(&self, key: &str, message: impl Into<Outgoing>) -> Result<usize, SendError> {
        self.send_in(Place::Key(key), message.into(), Patience::Settings)
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
    #[doc(alias = "backpressure")]
    pub fn try_send(&self, message: impl Into<Outgoing>) -> Result<usize, SendError> {
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
        message: impl Into<Outgoing>,
        timeout: Duration,
    ) -> Result<usize, SendError> {
        self.send_with(message.into(), Patience::Until(Some(deadline::after(timeout))))
    }

    fn send_with(&self, message: Outgoing, patience: Patience) -> Result<usize, SendError> {
        self.send_in(Place::Last, message, patience)
    }

    fn send_in(
        &self,
        place: Place<'_>,
        message: Outgoing,
        patience: Patience,
    ) -> Result<usize, SendError> {
        let message = PreparedMessage::new(message);
        if let Some(own) = registry::own_if_all(&self.receivers) {
            return own
                .outbox
                .send_in(place, &message, patience)
                .map(|_| 1)
                .map_err(SendError::from);
        }
        match self.deliver(place, &message, patience) {
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
    pub fn send_to_each(&self, message: impl Into<Outgoing>) -> Outcome {
        self.deliver(Place::Last, &PreparedMessage::new(message), Patience::Settings)
    }

    #[inline(never)]
    fn deliver(&self, place: Place<'_>, message: &PreparedMessage, patience: Patience) -> Outcome {
        let members = Registry::global().find(&self.receivers);
        deliver(&members, place, message, patience, |outcome| {
            crossing::send(&self.receivers, &members, place, message, patience, outcome);
        })
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
    /// While many are subscribed at once, as by `Comms::notify().subscribe(..)`, all sends wait for that: about a microsecond
    /// for each.
    ///
    /// # Errors
    ///
    /// The name is longer than 255 bytes, or a connection has
    /// [`max_topics`](crate::controller::Websocket::max_topics) already; the others are subscribed nevertheless.
    pub fn subscribe(&self, topic: &str) -> Result<usize, SubscribeError> {
        let result = Registry::global().subscribe(&self.receivers, topic);
        crossing::subscribe(&self.receivers, topic);
        result
    }

    /// Ends the subscriptions of the connections that are meant to a topic. Returns how many had one.
    #[expect(clippy::must_use_candidate, reason = "how many it were is mostly of no interest")]
    pub fn unsubscribe(&self, topic: &str) -> usize {
        let count = Registry::global().unsubscribe(&self.receivers, topic);
        crossing::unsubscribe(&self.receivers, topic);
        count
    }

    /// Closes the connections that are meant: what is queued goes out first, then the close frame. Returns how many
    /// this call began to close.
    ///
    /// # Errors
    ///
    /// The code may not be sent, or the reason is longer than 123 bytes (RFC 6455 §5.5, §7.4.2). Nothing is closed.
    #[doc(alias = "disconnect")]
    pub fn close(&self, code: impl Into<CloseCode>, reason: &str) -> Result<usize, InvalidClose> {
        let close = Close::checked(code.into(), reason)?;
        let members = Registry::global().find(&self.receivers);
        let count = seal(&members, &close);
        crossing::close(&self.receivers, &members, close);
        Ok(count)
    }

    /// Whether any of the connections that are meant is open, and not being closed. In a [cluster](crate::guide::cluster#what-is-asked)
    /// other nodes are asked where none is here.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let members = Registry::global().find(&self.receivers);
        members.iter().any(|(_, outbox)| !outbox.is_sealed())
            || crossing::is_connected(&self.receivers)
    }
}

/// Sends a message to connections, each as patient as it says. `meanwhile` is called when those have it who do not make others
/// wait.
pub(super) fn deliver(
    members: &Outboxes,
    place: Place<'_>,
    message: &PreparedMessage,
    patience: Patience,
    meanwhile: impl FnOnce(&mut Outcome),
) -> Outcome {
    let mut outcome = Outcome::default();
    // Those whom this thread may wait for come last, so that the others do not wait with them.
    let mut late = SmallVec::<[_; 1]>::new();
    for member @ (connection, outbox) in members {
        match patience {
            Patience::Settings if outbox.is_read_by_this_thread() => late.push(member),
            Patience::Settings => {
                outcome.note(*connection, outbox.send_in(place, message, patience));
            }
            Patience::Until(_) => match outbox.send_in(place, message, Patience::Until(None)) {
                Err(NotTaken::Full) => late.push(member),
                result => outcome.note(*connection, result),
            },
        }
    }
    meanwhile(&mut outcome);
    for (connection, outbox) in late {
        outcome.note(*connection, outbox.send_in(place, message, patience));
    }
    outcome
}

/// Closes connections; how many were not being closed.
pub(super) fn seal(members: &Outboxes, close: &Close) -> usize {
    let seals = |outbox: &Arc<Outbox>| outbox.seal(close.clone(), Cause::Program);
    members.iter().filter(|(_, outbox)| seals(outbox)).count()
}

/// A session, or one connection: what [`Comms::except`] leaves out, say. Made from whatever a session is made from, and from
/// a [`ConnectionId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(pub(super) Peer);

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
