//! Who has subscribed to what: names that connections choose to be reached by.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::comms::session::ConnectionId;
use crate::websocket::outbox::Outbox;

/// The longest name of a topic, in bytes. Programs may let clients choose it.
const MAX_NAME: usize = 255;

/// The subscriptions of a registry. A topic is there while somebody has subscribed to it.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// The subscribers of each topic, in the order in which they connected.
    subscribers: HashMap<Arc<str>, BTreeMap<ConnectionId, Arc<Outbox>>>,
    /// The topics of a connection that has any.
    subscriptions: HashMap<ConnectionId, BTreeSet<Arc<str>>>,
}

impl Topics {
    pub(crate) fn subscribers(
        &self,
        topic: &str,
    ) -> impl Iterator<Item = (ConnectionId, &Arc<Outbox>)> {
        self.subscribers.get(topic).into_iter().flatten().map(|(id, outbox)| (*id, outbox))
    }

    /// How many subscribers a topic has.
    pub(crate) fn count(&self, topic: &str) -> usize {
        self.subscribers.get(topic).map_or(0, BTreeMap::len)
    }

    pub(crate) fn has_subscribed(&self, connection: ConnectionId, topic: &str) -> bool {
        self.subscriptions.get(&connection).is_some_and(|topics| topics.contains(topic))
    }

    /// The topics whose names begin so, with their subscribers.
    pub(crate) fn with_prefix(
        &self,
        prefix: &str,
    ) -> impl Iterator<Item = (&Arc<str>, impl Iterator<Item = ConnectionId>)> {
        let topics = self.subscribers.iter().filter(move |(name, _)| name.starts_with(prefix));
        topics.map(|(name, subscribers)| (name, subscribers.keys().copied()))
    }

    /// Subscribes a connection to a topic; the topic's name, unless it had subscribed before.
    pub(crate) fn subscribe(
        &mut self,
        connection: ConnectionId,
        outbox: &Arc<Outbox>,
        topic: &str,
    ) -> Result<Option<Arc<str>>, SubscribeError> {
        if topic.len() > MAX_NAME {
            return Err(SubscribeError::TooLong);
        }
        let count = self.subscriptions.get(&connection).map_or(0, |topics| {
            // To subscribe once more adds no topic.
            if topics.contains(topic) { 0 } else { topics.len() }
        });
        if count >= outbox.max_topics() {
            return Err(SubscribeError::TooMany);
        }
        let name = self.subscribers.get_key_value(topic).map(|(name, _)| Arc::clone(name));
        let name = name.unwrap_or_else(|| topic.into());
        self.subscribers
            .entry(Arc::clone(&name))
            .or_default()
            .insert(connection, Arc::clone(outbox));
        let is_new = self.subscriptions.entry(connection).or_default().insert(Arc::clone(&name));
        Ok(is_new.then_some(name))
    }

    /// Ends a subscription; the topic's name, if there was one.
    pub(crate) fn unsubscribe(
        &mut self,
        connection: ConnectionId,
        topic: &str,
    ) -> Option<Arc<str>> {
        let Entry::Occupied(mut topics) = self.subscriptions.entry(connection) else {
            return None;
        };
        let had = topics.get_mut().take(topic);
        if topics.get().is_empty() {
            topics.remove();
        }
        self.remove(connection, topic);
        had
    }

    /// Ends all subscriptions of a connection; which they were.
    pub(crate) fn leave(&mut self, connection: ConnectionId) -> BTreeSet<Arc<str>> {
        let topics = self.subscriptions.remove(&connection).unwrap_or_default();
        for topic in &topics {
            self.remove(connection, topic);
        }
        topics
    }

    fn remove(&mut self, connection: ConnectionId, topic: &str) {
        if let Some(subscribers) = self.subscribers.get_mut(topic) {
            subscribers.remove(&connection);
            if subscribers.is_empty() {
                self.subscribers.remove(topic);
            }
        }
    }

    /// How many topics there are, and how many connections have any.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.subscribers.len(), self.subscriptions.len())
    }
}

/// Why a connection cannot subscribe to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// It has as many topics as [`max_topics`](crate::controller::Websocket::max_topics) allows.
    TooMany,
    /// The topic's name is longer than 255 bytes.
    TooLong,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "the connection has as many topics as `max_topics` allows",
            Self::TooLong => "the topic's name is longer than 255 bytes",
        })
    }
}

impl std::error::Error for SubscribeError {}
