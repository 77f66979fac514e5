//! What the registry holds under its lock: connections, by themselves, by session and by topic, and who watches them.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use crate::comms::interest::Interest;
#[cfg(feature = "redis")]
use crate::comms::joined::Joined;
use crate::comms::receivers::{Receivers, Target};
use crate::comms::session::{ConnectionId, ServerId, SessionId};
use crate::comms::topics::{SubscribeError, Topics};
use crate::comms::watches::{Scope, Tab, Watch, Watches};
use crate::websocket::outbox::Outbox;

#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) connections: BTreeMap<ConnectionId, Entry>,
    pub(crate) sessions: HashMap<SessionId, Tabs>,
    pub(crate) topics: Topics,
    pub(crate) watches: Watches,
    pub(crate) interest: Interest,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) session: SessionId,
    pub(crate) server: ServerId,
    pub(crate) outbox: Arc<Outbox>,
}

/// The connections of a session.
#[derive(Debug, Default)]
pub(crate) struct Tabs {
    pub(crate) members: Outboxes,
    /// The length of `members`, for a look without the lock; more where others may be on other nodes of a cluster.
    count: Arc<AtomicUsize>,
}

/// Connections with their outboxes. Mostly there is one, so one is held without an allocation.
pub(crate) type Outboxes = SmallVec<[(ConnectionId, Arc<Outbox>); 1]>;

impl Tabs {
    fn update_count(&self, is_shared: bool) -> usize {
        let count = if is_shared { usize::MAX } else { self.members.len() };
        self.count.store(count, Ordering::Release);
        self.members.len()
    }
}

impl Entries {
    /// Adds a connection, and returns where it is kept how many its session has; unless the session has `most` to that
    /// server already.
    pub(crate) fn add(
        &mut self,
        connection: ConnectionId,
        entry: Entry,
        most: usize,
    ) -> Option<Arc<AtomicUsize>> {
        if most < usize::MAX && self.count_at(entry.server, &entry.session) >= most {
            return None;
        }
        let tabs = self.sessions.entry(entry.session.clone()).or_default();
        tabs.members.push((connection, Arc::clone(&entry.outbox)));
        let count = tabs.update_count(self.interest.is_shared());
        if count == 1 {
            self.interest.note_session(&entry.session, true);
        }
        let count = Arc::clone(&tabs.count);
        self.connections.insert(connection, entry);
        self.note(connection, None, true);
        Some(count)
    }

    /// How many connections a session has to a server.
    fn count_at(&self, server: ServerId, session: &SessionId) -> usize {
        let members = self.sessions.get(session).map(|tabs| &tabs.members);
        let is_there = |connection| {
            self.connections.get(connection).is_some_and(|entry| entry.server == server)
        };
        members.into_iter().flatten().filter(|(connection, _)| is_there(connection)).count()
    }

    /// Removes a connection, whose outbox somebody else has still.
    pub(crate) fn remove(&mut self, connection: ConnectionId) {
        for topic in self.topics.leave(connection) {
            self.note(connection, Some(&topic), false);
            self.note_if_left(&topic);
        }
        self.note(connection, None, false);
        let Some(entry) = self.connections.remove(&connection) else { return };
        if let hash_map::Entry::Occupied(mut tabs) = self.sessions.entry(entry.session) {
            tabs.get_mut().members.retain(|(id, _)| *id != connection);
            if tabs.get().update_count(self.interest.is_shared()) == 0 {
                let (session, _) = tabs.remove_entry();
                self.interest.note_session(&session, false);
            }
        }
    }

    pub(crate) fn subscribe(
        &mut self,
        receivers: &Receivers,
        topic: &str,
    ) -> Result<usize, SubscribeError> {
        let mut result = Ok(0);
        for (connection, outbox) in self.members(receivers) {
            match self.topics.subscribe(connection, &outbox, topic) {
                Ok(Some(name)) => {
                    self.note(connection, Some(&name), true);
                    if self.topics.count(topic) == 1 {
                        self.interest.note_topic(topic, true);
                    }
                    result = result.map(|count| count + 1);
                }
                Ok(None) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    pub(crate) fn unsubscribe(&mut self, receivers: &Receivers, topic: &str) -> usize {
        let mut count = 0;
        for (connection, _) in self.members(receivers) {
            if let Some(name) = self.topics.unsubscribe(connection, topic) {
                self.note(connection, Some(&name), false);
                self.note_if_left(&name);
                count += 1;
            }
        }
        count
    }

    fn note_if_left(&mut self, topic: &str) {
        if self.topics.count(topic) == 0 {
            self.interest.note_topic(topic, false);
        }
    }

    /// Has a cluster that the process has joined know who is here; `None` when it leaves.
    #[cfg(feature = "redis")]
    pub(crate) fn share(&mut self, joined: Option<Arc<Joined>>) {
        self.interest.set(joined);
        for (session, tabs) in &self.sessions {
            tabs.update_count(self.interest.is_shared());
            self.interest.note_session(session, true);
        }
        for (topic, _) in self.topics.with_prefix("") {
            self.interest.note_topic(topic, true);
        }
        if let Some(joined) = self.interest.joined() {
            self.watches.of_all_nodes().for_each(|watch| joined.remote_presence.add(watch));
        }
    }

    /// Those who are meant, cloned.
    pub(crate) fn members(&self, receivers: &Receivers) -> Outboxes {
        let mut members = Outboxes::new();
        self.visit_meant(receivers, |connection, outbox| {
            members.push((connection, Arc::clone(outbox)));
        });
        members
    }

    /// Calls `visit` for each connection that is meant.
    pub(crate) fn visit_meant(
        &self,
        receivers: &Receivers,
        mut visit: impl FnMut(ConnectionId, &Arc<Outbox>),
    ) {
        let is_whole = receivers.is_whole_target();
        self.visit(&receivers.target, |connection, outbox| {
            if is_whole || self.is_meant(connection, receivers) {
                visit(connection, outbox);
            }
        });
    }

    fn visit(&self, target: &Target, mut visit: impl FnMut(ConnectionId, &Arc<Outbox>)) {
        match target {
            Target::Session(session) => {
                let members = self.sessions.get(session).map(|tabs| &tabs.members);
                members.into_iter().flatten().for_each(|(id, outbox)| visit(*id, outbox));
            }
            Target::Connection(connection) => {
                let entry = self.connections.get(connection);
                entry.into_iter().for_each(|entry| visit(*connection, &entry.outbox));
            }
            Target::Topic(topic) => {
                self.topics.subscribers(topic).for_each(|(id, outbox)| visit(id, outbox));
            }
            Target::All => {
                self.connections.iter().for_each(|(id, entry)| visit(*id, &entry.outbox));
            }
        }
    }

    /// Whether a connection that the target names is of the server that is meant, and none of those left out.
    pub(crate) fn is_meant(&self, connection: ConnectionId, receivers: &Receivers) -> bool {
        let entry = self.connections.get(&connection);
        entry.is_some_and(|entry| receivers.admits(connection, &entry.session, entry.server))
    }

    /// Tells those who watch it that a connection has come into the topic, or without one at all, or leaves.
    fn note(&mut self, connection: ConnectionId, topic: Option<&Arc<str>>, is_there: bool) {
        if self.watches.is_empty() {
            return;
        }
        if let Some(entry) = self.connections.get(&connection) {
            self.watches.note(entry.tab(connection), topic, is_there);
        }
    }

    /// Shows a new watch who is there.
    pub(crate) fn show(&self, watch: &Watch) {
        let show = |connection: ConnectionId, topic: Option<&Arc<str>>| {
            if let Some(entry) = self.connections.get(&connection) {
                watch.note(entry.tab(connection), topic, true);
            }
        };
        let Scope { receivers, prefix } = watch.scope();
        match (prefix, &receivers.target) {
            (Some(prefix), _) => {
                for (topic, subscribers) in self.topics.with_prefix(prefix) {
                    subscribers.for_each(|connection| show(connection, Some(topic)));
                }
            }
            (None, Target::Topic(topic)) => {
                let topic: Arc<str> = topic.as_str().into();
                self.visit_meant(receivers, |connection, _| show(connection, Some(&topic)));
            }
            (None, Target::Session(_) | Target::Connection(_) | Target::All) => {
                self.visit_meant(receivers, |connection, _| show(connection, None));
            }
        }
    }
}

impl Entry {
    fn tab(&self, connection: ConnectionId) -> Tab<'_> {
        Tab { connection, session: &self.session, server: self.server }
    }
}
