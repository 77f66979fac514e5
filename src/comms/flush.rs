//! Waits until clients have received what was sent to them.

use std::fmt;
use std::time::{Duration, Instant};

use crate::base::deadline;
#[cfg(feature = "redis")]
use crate::comms::asking::{NotAsked, Round};
use crate::comms::client::Client;
use crate::comms::entries::Outboxes;
#[cfg(feature = "redis")]
use crate::comms::envelope::Letter;
use crate::comms::reach::Comms;
#[cfg(feature = "redis")]
use crate::comms::receivers::Receivers;
use crate::comms::registry::Registry;
use crate::comms::session::ConnectionId;
#[cfg(feature = "redis")]
use crate::comms::wire::{Reader, Writer};
#[cfg(feature = "redis")]
use crate::redis::node::NodeId;
use crate::websocket::marks::NotReceived;
use crate::websocket::room::NotTaken;

/// How much sooner than the node that asks others give up, so that what they say gets there in time.
#[cfg(feature = "redis")]
const ON_THE_WAY: Duration = Duration::from_millis(200);

impl Comms {
    /// Waits until all that was sent before has been received by those who are meant, no longer than `timeout`. Returns how
    /// many they are.
    ///
    /// Each gets a ping behind what waits for it, and its pong says that all before has arrived: at the client's WebSocket
    /// library, not yet at its user. Pongs are read while no handler of theirs runs: two handlers that wait for each other's
    /// clients wait until `timeout`. They are read with the client's messages, so that one which is held back, by a
    /// [rate](crate::controller::Websocket::message_rate) or a full channel of [`events`](crate::events()), answers late.
    ///
    /// In a [cluster](crate::guide::cluster) each node waits for those who are there, and says which of them have not
    /// received all.
    ///
    /// ```
    /// use rwf::prelude::*;
    /// use std::time::Duration;
    ///
    /// fn warn_before_restart() {
    ///     let _ = Comms::notify().send("we are back in a minute");
    ///     if let Err(error) = Comms::notify().flush(Duration::from_secs(2)) {
    ///         log::warn!("not all were warned: {error}");
    ///     }
    /// }
    /// # warn_before_restart();
    /// ```
    ///
    /// # Errors
    ///
    /// [`FlushError`] names those who have not received all; or the calling thread runs a handler of one that is meant,
    /// which could not read the pong while it waits.
    pub fn flush(&self, timeout: Duration) -> Result<usize, FlushError> {
        let members = Registry::global().find(&self.receivers);
        if is_own_handler(&members) {
            return Err(FlushError::OwnHandler);
        }
        let deadline = deadline::after(timeout);
        #[cfg(feature = "redis")]
        match Flushing::begin(&self.receivers, !members.is_empty(), deadline) {
            Ok(elsewhere) => {
                let here = flush(&members, deadline);
                return elsewhere.finish(here, deadline);
            }
            Err(NotAsked::Alone) => {
                return flush(&members, deadline).done().and(Err(FlushError::Alone));
            }
            Err(NotAsked::NotMeant) => {}
        }
        flush(&members, deadline).done()
    }
}

impl Client {
    /// Waits until it has received all that was sent to it before, like [`Comms::flush`].
    ///
    /// # Errors
    ///
    /// It has not received all in time, or has left; or the calling thread runs its handlers.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        let members = self.members();
        if is_own_handler(&members) {
            return Err(FlushError::OwnHandler);
        }
        flush(&members, deadline::after(timeout)).done().and_then(|count| match count {
            0 => Err(FlushError::Missing { behind: Vec::new(), gone: vec![self.connection_id()] }),
            _ => Ok(()),
        })
    }
}

/// Whether the calling thread runs the handler of one that is meant, whose answer it could not read.
pub(super) fn is_own_handler(members: &Outboxes) -> bool {
    members.iter().any(|(_, outbox)| outbox.is_read_by_this_thread())
}

/// What became of those who were to receive all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    pub(crate) count: usize,
    pub(crate) behind: Vec<ConnectionId>,
    pub(crate) gone: Vec<ConnectionId>,
}

impl Flushed {
    fn done(self) -> Result<usize, FlushError> {
        let Self { count, behind, gone } = self;
        if behind.is_empty() && gone.is_empty() {
            return Ok(count);
        }
        Err(FlushError::Missing { behind, gone })
    }
}

/// What one node says to another.
#[cfg(feature = "redis")]
impl Flushed {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.number(self.count as u64);
        for connections in [&self.behind, &self.gone] {
            writer.length(connections.len());
            for connection in connections {
                writer.number(connection.node().number());
                writer.number(connection.number());
            }
        }
        writer.0
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let count = usize::try_from(reader.number()?).ok()?;
        let mut connections = || {
            let mut connections = Vec::new();
            for _ in 0..reader.length()? {
                let node = NodeId::from_number(reader.number()?);
                connections.push(ConnectionId::on(node, reader.number()?));
            }
            Some(connections)
        };
        Some(Self { count, behind: connections()?, gone: connections()? })
    }
}

/// Waits for those who are here.
pub(crate) fn flush(members: &Outboxes, deadline: Instant) -> Flushed {
    let (mut behind, mut gone) = (Vec::new(), Vec::new());
    let (mut marks, mut full) = (Vec::with_capacity(members.len()), Vec::new());
    // Whoever has no room for a ping comes last, so that the others do not wait with it.
    for (connection, outbox) in members {
        match outbox.mark(None) {
            Ok(mark) => marks.push((*connection, outbox, mark)),
            Err(NotTaken::Full) => full.push((*connection, outbox)),
            Err(NotTaken::Closing) => gone.push(*connection),
        }
    }
    for (connection, outbox) in full {
        match outbox.mark(Some(deadline)) {
            Ok(mark) => marks.push((connection, outbox, mark)),
            Err(NotTaken::Full) => behind.push(connection),
            Err(NotTaken::Closing) => gone.push(connection),
        }
    }
    for (connection, outbox, mark) in marks {
        match outbox.wait_until_received(mark, deadline) {
            Ok(()) => {}
            Err(NotReceived::Behind) => behind.push(connection),
            Err(NotReceived::Closing) => gone.push(connection),
        }
    }
    Flushed { count: members.len(), behind, gone }
}

/// Those on other nodes, who are waited for there.
#[cfg(feature = "redis")]
struct Flushing(Round);

#[cfg(feature = "redis")]
impl Flushing {
    fn begin(receivers: &Receivers, is_here: bool, deadline: Instant) -> Result<Self, NotAsked> {
        // The others are to say whom they wait for in vain before this node waits in vain for them.
        let time = deadline::until(deadline);
        let time = time - (time / 8).min(ON_THE_WAY);
        let time = time.as_millis().try_into().unwrap_or(u64::MAX);
        let round = Round::begin(receivers, is_here, |number| Letter::Flush { number, time })?;
        Ok(Self(round))
    }

    /// Waits for what they say, and adds it up.
    fn finish(self, here: Flushed, deadline: Instant) -> Result<usize, FlushError> {
        let Self(mut round) = self;
        let (mut all, mut nodes) = (here, 0);
        while let Some(reply) = round.next(deadline) {
            match Flushed::read(&reply) {
                Some(Flushed { count, behind, gone }) => {
                    all.count = all.count.saturating_add(count);
                    all.behind.extend(behind);
                    all.gone.extend(gone);
                }
                // It has no thread to wait.
                None => nodes += 1,
            }
        }
        nodes += round.missing();
        match all {
            _ if nodes == 0 => all.done(),
            Flushed { behind, gone, .. } => Err(FlushError::Unanswered { nodes, behind, gone }),
        }
    }
}

/// Why not all are known to have received what was sent: [`Comms::flush`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushError {
    /// These have not.
    Missing {
        /// They have not answered in time.
        behind: Vec<ConnectionId>,
        /// They were being closed, or left meanwhile.
        gone: Vec<ConnectionId>,
    },
    /// The calling thread runs a handler of a connection that is meant: that connection is not read meanwhile.
    OwnHandler,
    /// The [cluster](crate::guide::cluster)'s Redis is away: those who are here have received all, and of others it is not known.
    /// With the feature `redis`.
    #[cfg(feature = "redis")]
    Alone,
    /// Nodes of the cluster have not said in time who has received all. With the feature `redis`.
    #[cfg(feature = "redis")]
    Unanswered {
        /// How many nodes; one, where it is not known how many were asked.
        nodes: u64,
        /// Those who have not answered in time, as far as it is known.
        behind: Vec<ConnectionId>,
        /// Those who were being closed, or left meanwhile, as far as it is known.
        gone: Vec<ConnectionId>,
    },
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { behind, gone } => write!(
                f,
                "{} connections have not received all in time, and {} have left",
                behind.len(),
                gone.len()
            ),
            Self::OwnHandler => f.write_str(
                "a handler cannot wait for its own client, whose answer is read after the handler: \
                 use another thread",
            ),
            #[cfg(feature = "redis")]
            Self::Alone => f.write_str(
                "those who are here have received all, and other nodes cannot be asked: Redis is away",
            ),
            #[cfg(feature = "redis")]
            Self::Unanswered { nodes, behind, gone } => write!(
                f,
                "{nodes} nodes have not said in time who has received all; of the others {} connections \
                 have not, and {} have left",
                behind.len(),
                gone.len()
            ),
        }
    }
}

impl std::error::Error for FlushError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "redis")]
    #[test]
    fn what_a_node_says_is_read_as_it_is_written() {
        let connection = |number| ConnectionId::on(NodeId::random(), number);
        let flushed = Flushed {
            count: 7,
            behind: vec![connection(1), connection(2)],
            gone: vec![connection(3)],
        };
        let bytes = flushed.write();
        for length in 0..bytes.len() {
            assert_eq!(Flushed::read(&bytes[..length]), None, "cut at {length}");
        }
        assert_eq!(Flushed::read(&bytes), Some(flushed));
    }
}
