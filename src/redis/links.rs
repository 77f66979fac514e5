//! What a node has to Redis: a connection, or one to each master of a Redis Cluster, which looks the same from above.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use crate::redis::dialer::Dialer;
use crate::redis::fault::Fault;
use crate::redis::health::Health;
use crate::redis::link::{Link, NoLink};
use crate::redis::node::NodeId;
use crate::redis::observers::Arrivals;
use crate::redis::queue::Load;
use crate::redis::settings::Settings;
use crate::redis::shards::Shards;
use crate::redis::tally::Tally;
use crate::redis::threads::Threads;
use crate::redis::writer::Posted;

pub(crate) enum Links {
    One(Arc<Link>, Mutex<Threads>),
    Shards(Arc<Shards>),
}

impl Links {
    /// Connects, to a Redis Cluster as such. `channel` is this node's own, `common` those that it hears in any case.
    pub(crate) fn start(
        dialer: Dialer,
        node: NodeId,
        channel: &str,
        common: &[String],
        settings: Settings,
        arrivals: Arc<dyn Arrivals>,
    ) -> Result<Self, NoLink> {
        let (to, will) = (dialer.clone(), Arc::clone(&arrivals));
        let link = Link::new(to, node, channel, settings.clone(), will, None, Arc::default());
        link.subscriptions.want(channel);
        common.iter().for_each(|channel| link.subscriptions.want(channel));
        match link.start() {
            Ok(threads) => Ok(Self::One(link, Mutex::new(threads))),
            Err(NoLink::Fault(fault)) if fault == Fault::redis_cluster(true) => {
                Shards::start(dialer, node, channel, common, settings, arrivals).map(Self::Shards)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a message to the nodes that hear a channel.
    pub(crate) fn post(&self, channel: &str, content: Vec<u8>) -> Posted {
        self.post_for(channel, content, None)
    }

    /// Does the same, and tells `asker` how many nodes hear it, this one included.
    pub(crate) fn post_for(
        &self,
        channel: &str,
        content: Vec<u8>,
        asker: Option<Sender<u64>>,
    ) -> Posted {
        match self {
            Self::One(link, _) => link.post(channel, content, asker),
            Self::Shards(shards) => shards.post(channel, content, asker),
        }
    }

    /// From now on the channel is to be heard. Redis is told of it after a [`ring`](Self::ring).
    pub(crate) fn want(&self, channel: &str) {
        match self {
            Self::One(link, _) => link.subscriptions.want(channel),
            Self::Shards(shards) => shards.want(channel),
        }
    }

    /// Nobody wants to hear it any more.
    pub(crate) fn unwant(&self, channel: &str) {
        match self {
            Self::One(link, _) => link.subscriptions.unwant(channel),
            Self::Shards(shards) => shards.unwant(channel),
        }
    }

    /// There is something new that is to be heard, or not to be.
    pub(crate) fn ring(&self) {
        match self {
            Self::One(link, _) => link.writer.ring(),
            Self::Shards(shards) => shards.ring(),
        }
    }

    /// Waits until Redis has confirmed the subscription to a channel, if it is there.
    pub(crate) fn wait_until_held(&self, channel: &str) {
        match self {
            Self::One(link, _) => link.wait_until_held(channel),
            Self::Shards(shards) => shards.wait_until_held(channel),
        }
    }

    /// Whether what a channel goes through is there.
    pub(crate) fn is_up_for(&self, channel: &str) -> bool {
        match self {
            Self::One(link, _) => link.writer.is_up(),
            Self::Shards(shards) => shards.is_up_for(channel),
        }
    }

    /// Whether it is, and little waits there, for what may as well be said later.
    pub(crate) fn has_room_for(&self, channel: &str) -> bool {
        match self {
            Self::One(link, _) => link.writer.has_room(),
            Self::Shards(shards) => shards.has_room_for(channel),
        }
    }

    /// How many channels are to be heard.
    pub(crate) fn subscriptions(&self) -> usize {
        match self {
            Self::One(link, _) => link.subscriptions.len(),
            Self::Shards(shards) => shards.subscriptions(),
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        match self {
            Self::One(link, _) => &link.status.tally,
            Self::Shards(shards) => &shards.tally,
        }
    }

    pub(crate) fn health(&self) -> Health {
        match self {
            Self::One(link, _) => link.status.health(),
            Self::Shards(shards) => shards.health(),
        }
    }

    pub(crate) fn load(&self) -> Load {
        match self {
            Self::One(link, _) => link.load(),
            Self::Shards(shards) => shards.load(),
        }
    }

    /// Ends it, when what was posted is confirmed, or after `patience`. So much was not, which
    /// [`note_left_behind`](Self::note_left_behind) tells.
    #[must_use]
    pub(crate) fn stop(&self, patience: Duration) -> u64 {
        match self {
            Self::One(link, threads) => {
                let threads = std::mem::take(&mut *threads.lock());
                link.stop(threads, patience)
            }
            Self::Shards(shards) => shards.stop(patience),
        }
    }

    pub(crate) fn note_left_behind(&self, count: u64) {
        match self {
            Self::One(link, _) => link.status.note_left_behind(count),
            Self::Shards(shards) => shards.note_left_behind(count),
        }
    }
}
