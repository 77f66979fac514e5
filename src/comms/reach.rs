//! Reaches any session, from anywhere: who is meant, and what is done with them.

use std::fmt;
use std::sync::Arc;

use crate::comms::registry::{self, Registry, Target};
use crate::comms::session::{ConnectionId, SessionId};
use crate::comms::topics::SubscribeError;
use crate::websocket::close::{Cause, Close, CloseCode, InvalidClose};
use crate::websocket::frame::Frame;
use crate::websocket::message::Message;
use crate::websocket::outbox::Outbox;
use crate::websocket::sender::NotTaken;

/// Who is meant: one session, one connection, a topic's subscribers, or everybody. Made anywhere in the program, from
/// any thread.
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
/// # Ok(())
/// # }
/// ```
///
/// It reaches over all endpoints and all servers of the process. Where some are to be apart, let their connections
/// [subscribe](Self::subscribe) to a topic of their own.
///
/// What one thread sends to one connection arrives in that order. Sends of different threads have no order among them.
#[derive(Debug, Clone)]
pub struct Comms {
    target: Target,
}

impl Comms {
    /// All connections of a session: every tab of a visitor, or of a user by number, name or UUID. A text is a name: for
    /// a [`SessionId`] that was written as text, parse it.
    #[must_use]
    pub fn websocket(session: impl Into<SessionId>) -> Self {
        Self { target: Target::Session(session.into()) }
    }

    /// One connection, which is one tab; [`Request::connection_id`](crate::http::Request::connection_id) names it. It is
    /// reached from `handle_connection` on.
    #[must_use]
    pub fn connection(connection: impl Into<ConnectionId>) -> Self {
        Self { target: Target::Connection(connection.into()) }
    }

    /// All connections that have [subscribed](Self::subscribe) to a topic: a name of up to 255 bytes, `room:7` say, which
    /// exists while anybody has subscribed to it.
    #[must_use]
    pub fn topic(name: impl Into<String>) -> Self {
        Self { target: Target::Topic(name.into()) }
    }

    /// Everyone who is connected, except one session.
    #[must_use]
    pub fn broadcast(session: impl Into<SessionId>) -> Self {
        Self { target: Target::AllBut(session.into()) }
    }

    /// Everyone who is connected.
    #[must_use]
    pub fn notify() -> Self {
        Self { target: Target::All }
    }

    /// Sends a message; to how many connections it is on its way. Zero when nobody is connected, which is no error.
    ///
    /// The message is queued, and written when the client takes it: a slow client delays neither the caller nor the
    /// other receivers. One whose outbox is full is closed with 1013, or left out, as its endpoint's
    /// [`Overflow`](crate::controller::Overflow) says. The exception is a handler that sends to its own connection:
    /// it waits for room, up to the write timeout, so that a client that floods is held back rather than cut off. Hold
    /// no lock there that other handlers need.
    ///
    /// # Errors
    ///
    /// There are receivers, and none could take it: [`SendError`] says why. Passed on with `?` in a handler, it ends that
    /// handler, and leaves its connection open.
    pub fn send(&self, message: impl Into<Message>) -> Result<usize, SendError> {
        let frame = Frame::message(message.into());
        registry::with_outboxes(&self.target, |outboxes| {
            let mut taken = 0;
            let mut error = SendError::Closing;
            let mut send = |outbox: &Arc<Outbox>| match outbox.send(&frame) {
                Ok(()) => taken += 1,
                Err(NotTaken::Full) => error = SendError::Full,
                Err(NotTaken::Closing) => {}
            };
            // A handler may have to wait for its own client; the others do not wait with it.
            let mut own = None;
            for outbox in outboxes {
                if outbox.is_read_by_this_thread() {
                    own = Some(outbox);
                } else {
                    send(outbox);
                }
            }
            own.into_iter().for_each(send);
            if taken == 0 && !outboxes.is_empty() { Err(error) } else { Ok(taken) }
        })
    }

    /// Has those who are meant, and are connected now, get what is sent to a [topic](Self::topic) from here on; for how
    /// many of them that is new. It ends with their connections.
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
        Registry::global().subscribe(&self.target, topic)
    }

    /// Ends what [`subscribe`](Self::subscribe) began; for how many connections.
    #[expect(clippy::must_use_candidate, reason = "how many it were is mostly of no interest")]
    pub fn unsubscribe(&self, topic: &str) -> usize {
        Registry::global().unsubscribe(&self.target, topic)
    }

    /// Closes: what is queued goes out first, then the close frame. How many connections this call began to close.
    ///
    /// # Errors
    ///
    /// The code may not be sent, or the reason is longer than 123 bytes (RFC 6455 §5.5, §7.4.2). Nothing is closed.
    pub fn close(&self, code: impl Into<CloseCode>, reason: &str) -> Result<usize, InvalidClose> {
        let close = Close::checked(code.into(), reason)?;
        let seals = |outbox: &&Arc<Outbox>| outbox.seal(close.clone(), Cause::Program);
        Ok(registry::with_outboxes(&self.target, |outboxes| outboxes.iter().filter(seals).count()))
    }

    /// Whether anybody who is meant is connected and not closing.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        registry::with_outboxes(&self.target, |outboxes| {
            outboxes.iter().any(|outbox| !outbox.is_sealed())
        })
    }
}

/// Why no receiver could take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// As much as the settings allow already waits for each of the receivers: they are too slow.
    Full,
    /// All receivers are being closed.
    Closing,
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
