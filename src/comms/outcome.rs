//! What becomes of a message, and why one cannot be sent.

use std::fmt;

use crate::comms::session::ConnectionId;
use crate::websocket::room::NotTaken;

/// What became of a message to many: [`Comms::send_to_each`](crate::comms::Comms::send_to_each).
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
    /// So many older messages were dropped for it, where [`Overflow::DropOldest`](crate::controller::Overflow) says so.
    pub dropped: usize,
    /// What became of it for those on other nodes of the cluster. With the feature `redis`.
    #[cfg(feature = "redis")]
    pub elsewhere: Elsewhere,
}

/// What became of a message for those who are on other nodes of the cluster.
#[cfg(feature = "redis")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Elsewhere {
    /// It is not for them: the process is in no cluster, or all who are meant are here.
    #[default]
    NotMeant,
    /// It is on its way to Redis.
    Handed,
    /// Redis is away. It is sent when Redis is back within
    /// [`max_waiting_age`](crate::cluster::Cluster::max_waiting_age).
    Waiting,
    /// It does not get there: as much as may wait for Redis does so already.
    Lost,
}

impl Outcome {
    pub(crate) fn note(&mut self, connection: ConnectionId, sent: Result<usize, NotTaken>) {
        match sent {
            Ok(dropped) => {
                self.queued += 1;
                self.dropped += dropped;
            }
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

/// [`Comms::here`](crate::comms::Comms::here) was called on a thread that runs no handler of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "there is one reason: programs compare with it")]
pub struct NotInHandler;

impl fmt::Display for NotInHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this thread runs no handler of a WebSocket, which `Comms::here` could reach")
    }
}

impl std::error::Error for NotInHandler {}
