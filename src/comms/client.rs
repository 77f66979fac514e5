//! One client that can be kept: sends to it and closes it, from any thread.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use smallvec::smallvec;

use crate::base::deadline;
use crate::comms::entries::Outboxes;
use crate::comms::outcome::SendError;
use crate::comms::session::{ConnectionId, SessionId};
use crate::websocket::close::{Cause, Close, CloseCode, InvalidClose};
use crate::websocket::message::Outgoing;
use crate::websocket::outbox::Outbox;
use crate::websocket::prepared::PreparedMessage;
use crate::websocket::room::Patience;
use crate::websocket::sender::Place;

/// One connection, to keep: small, cheap to clone, and usable from any thread, also in maps as a key. To keep it keeps
/// nothing of the connection alive.
///
/// [`Event`](crate::controller::Event)s tell which client they are of; [`Socket::client`](crate::controller::Socket::client)
/// makes one for others.
///
/// ```
/// use rwf::prelude::*;
/// use std::collections::HashMap;
///
/// fn send_scores(players: &HashMap<Client, u32>) {
///     for (player, score) in players {
///         // One that has left meanwhile is no reason to stop.
///         let _ = player.send(format!("your score is {score}"));
///     }
/// }
/// # send_scores(&HashMap::new());
/// ```
#[derive(Clone)]
pub struct Client {
    connection: ConnectionId,
    session: SessionId,
    outbox: Weak<Outbox>,
}

impl Client {
    pub(crate) fn new(connection: ConnectionId, session: SessionId, outbox: &Arc<Outbox>) -> Self {
        Self { connection, session, outbox: Arc::downgrade(outbox) }
    }

    /// What it is sent through, unless it is gone.
    pub(super) fn outbox(&self) -> Option<Arc<Outbox>> {
        self.outbox.upgrade()
    }

    /// The same, as those who are asked something.
    pub(super) fn members(&self) -> Outboxes {
        self.outbox().map_or(smallvec![], |outbox| smallvec![(self.connection, outbox)])
    }

    /// This connection, which is one tab.
    #[must_use]
    pub fn connection_id(&self) -> ConnectionId {
        self.connection
    }

    /// Whose it is.
    #[must_use]
    pub fn session_id(&self) -> &SessionId {
        &self.session
    }

    /// Sends a message, as [`Comms::send`](crate::comms::Comms::send) does.
    ///
    /// # Errors
    ///
    /// The client has left or is being closed, or its outbox is full: then it is closed as too slow, unless the
    /// [settings](crate::controller::Overflow) have the message refused.
    #[doc(alias = "backpressure")]
    pub fn send(&self, message: impl Into<Outgoing>) -> Result<(), SendError> {
        self.send_with(message.into(), Patience::Settings)
    }

    /// Sends a message like [`send`](Self::send), and never waits.
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
        let outbox = self.outbox.upgrade().ok_or(SendError::Closing)?;
        let message = PreparedMessage::new(message);
        outbox.send_in(Place::Last, &message, patience).map(drop).map_err(SendError::from)
    }

    /// Sends the newest value of a key, as [`Comms::send_latest`](crate::comms::Comms::send_latest) does.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_latest(&self, key: &str, message: impl Into<Outgoing>) -> Result<(), SendError> {
        let outbox = self.outbox.upgrade().ok_or(SendError::Closing)?;
        let message = PreparedMessage::new(message);
        let sent = outbox.send_in(Place::Key(key), &message, Patience::Settings);
        sent.map(drop).map_err(SendError::from)
    }

    /// How many messages to it were dropped for newer ones, where
    /// [`Overflow::DropOldest`](crate::controller::Overflow) says so; 0 when it is gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.outbox.upgrade().map_or(0, |outbox| outbox.dropped())
    }

    /// Closes it: what is queued goes out first, then the close frame. Whether this call began to close it.
    ///
    /// # Errors
    ///
    /// The code may not be sent, or the reason is longer than 123 bytes (RFC 6455 §5.5, §7.4.2). Nothing is closed.
    pub fn close(&self, code: impl Into<CloseCode>, reason: &str) -> Result<bool, InvalidClose> {
        let close = Close::checked(code.into(), reason)?;
        Ok(self.outbox.upgrade().is_some_and(|outbox| outbox.seal(close, Cause::Program)))
    }

    /// Whether it is connected and not being closed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.outbox.upgrade().is_some_and(|outbox| !outbox.is_sealed())
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.connection == other.connection
    }
}

impl Eq for Client {}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.connection.hash(state);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("connection", &self.connection)
            .field("session", &self.session)
            .finish()
    }
}
