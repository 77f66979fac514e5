//! Who is connected: the connections of each session, and the subscribers of each topic.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::comms::session::{ConnectionId, SessionId};
use crate::comms::topics::{SubscribeError, Topics};
use crate::websocket::outbox::Outbox;

/// Who is meant.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Session(SessionId),
    Connection(ConnectionId),
    Topic(String),
    AllBut(SessionId),
    All,
}

/// Which connections a session has. An entry comes with a connection and goes with it; to ask for a session that is
/// not there leaves nothing behind.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: RwLock<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    connections: BTreeMap<ConnectionId, (SessionId, Arc<Outbox>)>,
    sessions: HashMap<SessionId, SessionConnections>,
    topics: Topics,
}

#[derive(Debug, Default)]
struct SessionConnections {
    connections: SmallVec<[(ConnectionId, Arc<Outbox>); 1]>,
    /// The length of `connections`, for a look without the lock.
    count: Arc<AtomicUsize>,
}

/// Mostly one: a visitor with one tab costs no allocation.
type Outboxes = SmallVec<[Arc<Outbox>; 1]>;

thread_local! {
    /// The connection whose handlers this thread runs.
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

#[derive(Debug, Clone)]
struct Own {
    session: SessionId,
    outbox: Arc<Outbox>,
    /// How many connections the session has.
    count: Arc<AtomicUsize>,
}

/// Calls `act` with the outboxes that are meant. Most messages answer the client whose handler sends them: that takes no
/// lock and no look-up.
pub(crate) fn with_outboxes<T>(target: &Target, act: impl Fn(&[Arc<Outbox>]) -> T) -> T {
    // A thread that ends may have lost `OWN` before a destructor of the program's sends its last words.
    let own = OWN.try_with(|own| {
        let own = own.borrow();
        let own = own.as_ref().filter(|own| own.is_all_of(target))?;
        Some(act(slice::from_ref(&own.outbox)))
    });
    own.ok().flatten().unwrap_or_else(|| act(&Registry::global().find(target)))
}

impl Own {
    fn is_all_of(&self, target: &Target) -> bool {
        matches!(target, Target::Session(session) if *session == self.session)
            && self.count.load(Ordering::Acquire) == 1
    }
}

impl SessionConnections {
    fn update_count(&self) -> usize {
        self.count.store(self.connections.len(), Ordering::Release);
        self.connections.len()
    }
}

impl Registry {
    /// The one of this process.
    pub(crate) fn global() -> &'static Self {
        static GLOBAL: LazyLock<Registry> = LazyLock::new(Registry::default);
        &GLOBAL
    }

    /// Adds a connection until the guard is dropped.
    pub(crate) fn register(
        &self,
        session: SessionId,
        connection: ConnectionId,
        outbox: Arc<Outbox>,
    ) -> Registration<'_> {
        let mut entries = self.entries.write();
        entries.connections.insert(connection, (session.clone(), Arc::clone(&outbox)));
        let of_session = entries.sessions.entry(session.clone()).or_default();
        of_session.connections.push((connection, Arc::clone(&outbox)));
        let connections = of_session.update_count();
        let own = Own { session, outbox, count: Arc::clone(&of_session.count) };
        Registration { registry: self, connection, connections, own }
    }

    /// The outboxes that are meant, cloned: they are used when the lock is released.
    fn find(&self, target: &Target) -> Outboxes {
        let mut outboxes = Outboxes::new();
        self.entries.read().visit(target, |_, outbox| outboxes.push(Arc::clone(outbox)));
        outboxes
    }

    pub(crate) fn subscribe(&self, target: &Target, topic: &str) -> Result<usize, SubscribeError> {
        let mut entries = self.entries.write();
        let mut result = Ok(0);
        for (connection, outbox) in entries.members(target) {
            match entries.topics.subscribe(connection, &outbox, topic) {
                Ok(is_new) => result = result.map(|count| count + usize::from(is_new)),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    pub(crate) fn unsubscribe(&self, target: &Target, topic: &str) -> usize {
        let mut entries = self.entries.write();
        let members = entries.members(target).into_iter();
        members.filter(|(connection, _)| entries.topics.unsubscribe(*connection, topic)).count()
    }

    #[cfg(test)]
    fn len(&self) -> (usize, usize) {
        let entries = self.entries.read();
        (entries.connections.len(), entries.sessions.len())
    }

    #[cfg(test)]
    fn topics(&self) -> (usize, usize) {
        self.entries.read().topics.len()
    }
}

impl Entries {
    fn visit(&self, target: &Target, mut visit: impl FnMut(ConnectionId, &Arc<Outbox>)) {
        let connections = self.connections.iter();
        match target {
            Target::Session(session) => {
                let connections = self.sessions.get(session).map(|session| &session.connections);
                connections.into_iter().flatten().for_each(|(id, outbox)| visit(*id, outbox));
            }
            Target::Connection(connection) => {
                let entry = self.connections.get(connection);
                entry.into_iter().for_each(|(_, outbox)| visit(*connection, outbox));
            }
            Target::Topic(topic) => {
                self.topics.subscribers(topic).for_each(|(id, outbox)| visit(id, outbox));
            }
            Target::AllBut(excluded) => connections
                .filter(|(_, (session, _))| session != excluded)
                .for_each(|(id, (_, outbox))| visit(*id, outbox)),
            Target::All => connections.for_each(|(id, (_, outbox))| visit(*id, outbox)),
        }
    }

    fn members(&self, target: &Target) -> Vec<(ConnectionId, Arc<Outbox>)> {
        let mut members = Vec::new();
        self.visit(target, |connection, outbox| members.push((connection, Arc::clone(outbox))));
        members
    }
}

/// Keeps a connection in its registry.
#[derive(Debug)]
pub(crate) struct Registration<'a> {
    registry: &'a Registry,
    connection: ConnectionId,
    connections: usize,
    own: Own,
}

impl Registration<'_> {
    /// From here on the calling thread runs the handlers of this connection.
    pub(crate) fn enter(&self) {
        OWN.set(Some(self.own.clone()));
    }

    /// How many connections the session had when this one was added, with it.
    pub(crate) fn connections(&self) -> usize {
        self.connections
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut entries = self.registry.entries.write();
        // `self` holds its outbox, so none is dropped under the lock, with payloads whose destructors are the program's.
        entries.connections.remove(&self.connection);
        entries.topics.leave(self.connection);
        if let Entry::Occupied(mut entry) = entries.sessions.entry(self.own.session.clone()) {
            entry.get_mut().connections.retain(|(connection, _)| *connection != self.connection);
            if entry.get().update_count() == 0 {
                entry.remove();
            }
        }
        drop(entries);
        OWN.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::stream::Stream;
    use crate::net::watchdog::Watchdog;
    use crate::websocket::settings::Websocket;
    use std::net::{TcpListener, TcpStream};

    pub(super) fn outbox() -> Arc<Outbox> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Arc::new(Stream::new(peer, true).unwrap());
        Outbox::new(stream, Watchdog::default(), &Websocket::new(), usize::MAX, Vec::new())
    }

    #[test]
    fn entries_come_and_go_with_connections() {
        let registry = Registry::default();
        let session = SessionId::from(1);
        assert_eq!(registry.find(&Target::Session(session.clone())).len(), 0);
        assert_eq!(registry.len(), (0, 0), "asking leaves nothing behind");

        let first = ConnectionId::next();
        let one = registry.register(session.clone(), first, outbox());
        let two = registry.register(session.clone(), ConnectionId::next(), outbox());
        let other = registry.register(2.into(), ConnectionId::next(), outbox());
        let count = |target: Target| registry.find(&target).len();
        assert_eq!(count(Target::Session(session.clone())), 2);
        assert_eq!(count(Target::Connection(first)), 1);
        assert_eq!(count(Target::AllBut(session.clone())), 1);
        assert_eq!(count(Target::AllBut(3.into())), 3);
        assert_eq!(count(Target::All), 3);

        drop(one);
        assert_eq!(count(Target::Session(session)), 1);
        assert_eq!(count(Target::Connection(first)), 0);
        drop((two, other));
        assert_eq!(registry.len(), (0, 0));
    }

    #[test]
    fn topics_are_there_while_somebody_has_subscribed() {
        let registry = Registry::default();
        let (a, b) = (ConnectionId::next(), ConnectionId::next());
        let one = registry.register(1.into(), a, outbox());
        let _two = registry.register(2.into(), b, outbox());
        let topic = |name: &str| registry.find(&Target::Topic(name.to_owned())).len();
        assert_eq!(registry.subscribe(&Target::Session(3.into()), "news"), Ok(0), "nobody");
        assert_eq!((topic("news"), registry.topics()), (0, (0, 0)));

        assert_eq!(registry.subscribe(&Target::All, "news"), Ok(2));
        assert_eq!(registry.subscribe(&Target::Connection(a), "news"), Ok(0), "it has already");
        assert_eq!(registry.subscribe(&Target::Connection(a), "sport"), Ok(1));
        assert_eq!((topic("news"), topic("sport"), registry.topics()), (2, 1, (2, 2)));

        assert_eq!(registry.unsubscribe(&Target::All, "sport"), 1);
        assert_eq!((topic("sport"), registry.topics()), (0, (1, 2)));
        assert_eq!(registry.unsubscribe(&Target::All, "sport"), 0);
        drop(one);
        assert_eq!((topic("news"), registry.topics()), (1, (1, 1)));
        assert_eq!(registry.unsubscribe(&Target::Topic("news".to_owned()), "news"), 1);
        assert_eq!(registry.topics(), (0, 0));
    }

    #[test]
    fn a_connection_has_so_many_topics_and_no_more() {
        let registry = Registry::default();
        let _one = registry.register(1.into(), ConnectionId::next(), outbox());
        let subscribe = |topic: &str| registry.subscribe(&Target::All, topic);
        for number in 0..128 {
            assert_eq!(subscribe(&number.to_string()), Ok(1));
        }
        assert_eq!(subscribe("one more"), Err(SubscribeError::TooMany));
        assert_eq!(subscribe("7"), Ok(0), "it has that one");
        assert_eq!(registry.unsubscribe(&Target::All, "7"), 1);
        assert_eq!(subscribe(&"x".repeat(256)), Err(SubscribeError::TooLong));
        assert_eq!(subscribe(&"x".repeat(255)), Ok(1));
    }
}

#[cfg(test)]
mod properties {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::tests::outbox;
    use super::*;

    /// What happens to a registry; a number chooses among what there is.
    #[derive(Debug, Clone)]
    enum Action {
        Register(i64),
        Drop(usize),
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let action = prop_oneof![
            3 => (0..4_i64).prop_map(Action::Register),
            2 => any::<usize>().prop_map(Action::Drop),
        ];
        proptest::collection::vec(action, 0..40)
    }

    type Model = HashMap<ConnectionId, (SessionId, Arc<Outbox>)>;

    /// Compares what the registry finds with what the model holds.
    fn check(registry: &Registry, model: &Model, target: &Target) {
        let found = registry.find(target);
        let expected = model.iter().filter(|(connection, (session, _))| match target {
            Target::Session(wanted) => session == wanted,
            Target::Connection(wanted) => *connection == wanted,
            Target::AllBut(excluded) => session != excluded,
            Target::Topic(_) => unreachable!("checked by itself"),
            Target::All => true,
        });
        let addresses: HashSet<_> = found.iter().map(Arc::as_ptr).collect();
        let expected: HashSet<_> = expected.map(|(_, (_, outbox))| Arc::as_ptr(outbox)).collect();
        assert_eq!(addresses, expected, "{target:?}");
        assert_eq!(found.len(), expected.len(), "{target:?}: one of them twice");
    }

    fn check_all(registry: &Registry, model: &Model, gone: ConnectionId) {
        let sessions = (0..5).map(SessionId::from);
        let targets = sessions
            .flat_map(|session| [Target::Session(session.clone()), Target::AllBut(session)]);
        let connections = model.keys().copied().chain([gone]).map(Target::Connection);
        for target in targets.chain(connections).chain([Target::All]) {
            check(registry, model, &target);
        }
        let sessions: HashSet<_> = model.values().map(|(session, _)| session).collect();
        assert_eq!(registry.len(), (model.len(), sessions.len()), "nothing is left behind");
    }

    #[test]
    fn the_registry_holds_who_is_registered_and_nobody_else() {
        let outboxes: Vec<_> = (0..8).map(|_| outbox()).collect();
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(actions in actions())| {
            let registry = Registry::default();
            let (mut model, mut registrations) = (Model::new(), Vec::new());
            let mut free = outboxes.clone();
            let mut gone = ConnectionId::next();
            for action in actions {
                match action {
                    Action::Register(session) => {
                        let Some(outbox) = free.pop() else { continue };
                        let (session, connection) = (SessionId::from(session), ConnectionId::next());
                        registrations.push(registry.register(session.clone(), connection, outbox.clone()));
                        model.insert(connection, (session, outbox));
                    }
                    Action::Drop(index) if !registrations.is_empty() => {
                        gone = registrations.swap_remove(index % registrations.len()).connection;
                        free.extend(model.remove(&gone).map(|(_, outbox)| outbox));
                    }
                    Action::Drop(_) => {}
                }
                check_all(&registry, &model, gone);
            }
        });
    }
}
