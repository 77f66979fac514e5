//! Who watches whose presence, and what the watches have yet to tell.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

#[cfg(feature = "redis")]
use crate::comms::bell::Bell;
use crate::comms::changes::{Changes, Member};
use crate::comms::receivers::{Receivers, Target};
use crate::comms::session::{ConnectionId, ServerId, SessionId};

/// Whose presence is watched.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) receivers: Receivers,
    /// Their presence in the topics whose names begin so, and not in the target alone.
    pub(crate) prefix: Option<String>,
}

/// A watch of whose presence it is, and of what changes.
#[derive(Debug)]
pub(crate) struct Watch {
    scope: Scope,
    state: Mutex<State>,
    /// Signalled when there is something to tell, or it is over.
    changed: Condvar,
    /// Of a thread that serves many watches.
    #[cfg(feature = "redis")]
    bell: Option<Bell>,
}

#[derive(Debug, Default)]
struct State {
    changes: Changes,
    /// Nothing more happens; what did is told still.
    is_over: bool,
}

/// A connection, as far as watches are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tab<'a> {
    pub(crate) connection: ConnectionId,
    pub(crate) session: &'a SessionId,
    pub(crate) server: ServerId,
}

/// The watches of a registry, by what they watch.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    of_topics: HashMap<String, Vec<Arc<Watch>>>,
    of_prefixes: Vec<Arc<Watch>>,
    of_connections: Vec<Arc<Watch>>,
    /// The servers that are not over. There is nothing to watch of any other.
    servers: HashSet<ServerId>,
    /// Those that have something new to tell. They are woken when the registry's lock is released.
    changed: Vec<Arc<Watch>>,
}

impl Watch {
    pub(crate) fn new(scope: Scope) -> Self {
        Self {
            scope,
            state: Mutex::default(),
            changed: Condvar::new(),
            #[cfg(feature = "redis")]
            bell: None,
        }
    }

    /// One that a thread looks at, with others, when its bell rings.
    #[cfg(feature = "redis")]
    pub(crate) fn with_bell(scope: Scope, bell: Bell) -> Self {
        Self { bell: Some(bell), ..Self::new(scope) }
    }

    /// How much there is to tell now, for the thread that has heard the bell.
    #[cfg(feature = "redis")]
    pub(crate) fn look(&self) -> usize {
        self.bell.iter().for_each(Bell::hear);
        self.state.lock().changes.len()
    }

    /// The next change, if there is one.
    #[cfg(feature = "redis")]
    pub(crate) fn try_next(&self) -> Option<(Member, bool)> {
        self.state.lock().changes.next()
    }

    /// Notes that a session that is watched has come on another node, or has gone there.
    #[cfg(feature = "redis")]
    pub(crate) fn note_elsewhere(&self, member: Member, is_there: bool) {
        let changes = &mut self.state.lock().changes;
        if is_there { changes.add(member) } else { changes.remove(member) }
    }

    /// Whether it sees those on other nodes too.
    #[cfg(feature = "redis")]
    pub(crate) fn is_of_all_nodes(&self) -> bool {
        let Receivers { is_local, server, .. } = &self.scope.receivers;
        !is_local && server.is_none()
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Waits for the next change: who it is, and whether it has come. `None` when it is over.
    pub(crate) fn next(&self) -> Option<(Member, bool)> {
        let mut state = self.state.lock();
        loop {
            let change = state.changes.next();
            if change.is_some() || state.is_over {
                return change;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Notes that a connection has come into the topic, or without one at all, or has gone; whether that is watched.
    pub(crate) fn note(&self, tab: Tab<'_>, topic: Option<&Arc<str>>, is_there: bool) -> bool {
        if !self.is_of(tab, topic) {
            return false;
        }
        let member = Member { topic: topic.cloned(), session: tab.session.clone() };
        let changes = &mut self.state.lock().changes;
        if is_there {
            changes.add(member)
        } else {
            changes.remove(member)
        }
        true
    }

    fn is_of(
        &self,
        Tab { connection, session, server }: Tab<'_>,
        topic: Option<&Arc<str>>,
    ) -> bool {
        let Scope { receivers, prefix } = &self.scope;
        let is_watched = match (topic, prefix, &receivers.target) {
            (Some(topic), Some(prefix), _) => topic.starts_with(prefix),
            (Some(topic), None, Target::Topic(watched)) => **topic == **watched,
            (None, None, Target::Session(watched)) => watched == session,
            (None, None, Target::Connection(watched)) => *watched == connection,
            (None, None, Target::All) => true,
            _ => false,
        };
        is_watched && receivers.admits(connection, session, server)
    }

    /// Ends it: all that it watched have gone, which is told still.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.changes.remove_all();
        state.is_over = true;
        drop(state);
        self.wake();
    }

    /// Ends it for one who wants to know nothing more.
    pub(crate) fn abandon(&self) {
        let ended = State { changes: Changes::default(), is_over: true };
        drop(mem::replace(&mut *self.state.lock(), ended));
        self.wake();
    }

    /// Has what is new told.
    pub(crate) fn wake(&self) {
        self.changed.notify_one();
        #[cfg(feature = "redis")]
        self.bell.iter().for_each(Bell::ring);
    }
}

impl Watches {
    pub(crate) fn is_empty(&self) -> bool {
        self.of_topics.is_empty() && self.of_prefixes.is_empty() && self.of_connections.is_empty()
    }

    /// Those that see all nodes.
    #[cfg(feature = "redis")]
    pub(crate) fn of_all_nodes(&self) -> impl Iterator<Item = &Arc<Watch>> {
        let others = self.of_prefixes.iter().chain(&self.of_connections);
        self.of_topics.values().flatten().chain(others).filter(|watch| watch.is_of_all_nodes())
    }

    pub(crate) fn add(&mut self, watch: &Arc<Watch>) {
        let watches = match &watch.scope {
            Scope { prefix: Some(_), .. } => &mut self.of_prefixes,
            Scope { receivers: Receivers { target: Target::Topic(topic), .. }, .. } => {
                self.of_topics.entry(topic.clone()).or_default()
            }
            _ => &mut self.of_connections,
        };
        watches.push(Arc::clone(watch));
    }

    pub(crate) fn remove(&mut self, watch: &Arc<Watch>) {
        self.take(|other| Arc::ptr_eq(other, watch));
    }

    /// Whether it is of one server alone, which is over.
    pub(crate) fn is_over(&self, watch: &Watch) -> bool {
        watch.scope.receivers.server.is_some_and(|server| !self.servers.contains(&server))
    }

    /// There is a new server.
    pub(crate) fn begin(&mut self, server: ServerId) {
        self.servers.insert(server);
    }

    /// A server is over: removes the watches of that one alone.
    pub(crate) fn end(&mut self, server: ServerId) -> Vec<Arc<Watch>> {
        self.servers.remove(&server);
        self.take(|watch| watch.scope.receivers.server == Some(server))
    }

    fn take(&mut self, is_meant: impl Fn(&Arc<Watch>) -> bool) -> Vec<Arc<Watch>> {
        let mut taken = Vec::new();
        let mut take_from = |watches: &mut Vec<Arc<Watch>>| {
            taken.extend(watches.extract_if(.., |watch| is_meant(watch)));
        };
        self.of_topics.values_mut().for_each(&mut take_from);
        take_from(&mut self.of_prefixes);
        take_from(&mut self.of_connections);
        self.of_topics.retain(|_, watches| !watches.is_empty());
        taken
    }

    /// Notes that a connection has come into the topic, or without one at all, or has gone.
    pub(crate) fn note(&mut self, tab: Tab<'_>, topic: Option<&Arc<str>>, is_there: bool) {
        let (of_topic, others) = match topic {
            Some(topic) => (self.of_topics.get(&**topic), &self.of_prefixes),
            None => (None, &self.of_connections),
        };
        for watch in of_topic.into_iter().flatten().chain(others) {
            let is_new = |watch| !self.changed.iter().any(|other| Arc::ptr_eq(other, watch));
            if watch.note(tab, topic, is_there) && is_new(watch) {
                self.changed.push(Arc::clone(watch));
            }
        }
    }

    /// Those that are to be woken.
    pub(crate) fn take_changed(&mut self) -> Vec<Arc<Watch>> {
        mem::take(&mut self.changed)
    }
}
