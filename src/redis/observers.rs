//! Who observes a connection to Redis: takes what comes, and is told what happens to it.

use std::time::Duration;

use crate::redis::node::NodeId;
use crate::redis::writer::Writer;

/// What takes what comes.
pub(crate) trait Arrivals: Send + Sync {
    /// Takes a message of another node; whether it was understood. Where it `has_more` behind it that has come with it, it
    /// may wait for that, until [`rest`](Self::rest).
    fn arrive(&self, channel: &str, from: NodeId, content: &[u8], has_more: bool) -> bool;

    /// What has come is handled.
    fn rest(&self);

    /// Takes a message of this node, which it has heard itself.
    fn come_home(&self, content: &[u8]);

    /// Is told what happens to the connection. It must not wait.
    fn happen(&self, event: Event);
}

/// What happens to a connection, and to what goes through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Fallen { reason: String },
    Risen { after: Duration },
    Missed { from: NodeId, channel: String, count: u64 },
    Unpublished { count: u64 },
}

/// What decides which channels a connection to a shard of a Redis Cluster brings, where there are others.
pub(crate) trait Overseer: Send + Sync {
    /// The shard has refused the first message that waits for its answer, of those at this writer: it does not have the slot any
    /// more.
    fn refused(&self, writer: &Writer);

    /// The shard has ended or refused a subscription.
    fn ended(&self, channel: &str);

    /// The shard is not there.
    fn away(&self);
}
