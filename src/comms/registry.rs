//! Who is connected: the connections of each session, and the subscribers of each topic.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, hash_map};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::comms::session::{ConnectionId, ServerId, SessionId};
use crate::comms::topics::{SubscribeError, Topics};
use crate::websocket::outbox::Outbox;

/// Who is meant: `target`, but for `except`, of one server or of all.
#[derive(Debug, Clone)]
pub(crate) struct Receivers {
    pub(crate) target: Target,
    pub(crate) except: SmallVec<[Peer; 1]>,
    pub(crate) server: Option<ServerId>,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Session(SessionId),
    Connection(ConnectionId),
    Topic(String),
    All,
}

/// A session or one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    Session(SessionId),
    Connection(ConnectionId),
}

impl From<Target> for Receivers {
    fn from(target: Target) -> Self {
        Self { target, except: SmallVec::new(), server: None }
    }
}

/// Which connections each session has. An entry comes with a connection and goes with it; to ask for a session that is
/// not there adds nothing.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: RwLock<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    connections: BTreeMap<ConnectionId, Entry>,
    sessions: HashMap<SessionId, Tabs>,
    topics: Topics,
}

/// A connection.
#[derive(Debug)]
struct Entry {
    session: SessionId,
    server: ServerId,
    outbox: Arc<Outbox>,
}

/// The connections of a session.
#[derive(Debug, Default)]
struct Tabs {
    members: Members,
    /// The length of `members`, for a look without the lock.
    count: Arc<AtomicUsize>,
}

/// Connections with their outboxes. Mostly there is one, so one is held without an allocation.
pub(crate) type Members = SmallVec<[(ConnectionId, Arc<Outbox>); 1]>;

thread_local! {
    /// The connection whose handlers this thread runs.
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// A connection, for the thread that runs its handlers.
#[derive(Debug, Clone)]
struct Own {
    connection: ConnectionId,
    outbox: Arc<Outbox>,
    session: SessionId,
    server: ServerId,
    /// How many connections the session has.
    count: Arc<AtomicUsize>,
    /// Whether it can be reached still; shared with its registration.
    is_registered: Rc<Cell<bool>>,
}

/// Whose handlers a thread ran when it began to run those of another connection, whose request one of them has upgraded.
#[derive(Debug)]
pub(crate) struct Outer(Option<Own>);

/// The connection whose handlers the calling thread runs, if it is all that is meant. Most messages answer the client
/// whose handler sends them: this finds it without a lock and a look-up.
pub(crate) fn own_outbox(receivers: &Receivers) -> Option<Arc<Outbox>> {
    of_own(|own| own.is_all_of(receivers).then(|| Arc::clone(&own.outbox))).flatten()
}

/// The connection whose handlers the calling thread runs.
pub(crate) fn own_connection() -> Option<ConnectionId> {
    of_own(|own| own.connection)
}

/// The calling thread runs no handlers of its connection any more, but those it ran before.
pub(crate) fn leave_own(outer: Outer) {
    drop(OWN.replace(outer.0));
}

fn of_own<T>(look: impl FnOnce(&Own) -> T) -> Option<T> {
    // While a thread ends, `OWN` may be gone when a destructor of the program's still sends something.
    OWN.try_with(|own| own.borrow().as_ref().map(look)).ok().flatten()
}

impl Own {
    fn is_all_of(&self, receivers: &Receivers) -> bool {
        let Receivers { target, except, server } = receivers;
        self.is_registered.get()
            && except.is_empty()
            && server.is_none_or(|server| server == self.server)
            && match target {
                Target::Session(session) => {
                    *session == self.session && self.count.load(Ordering::Acquire) == 1
                }
                Target::Connection(connection) => *connection == self.connection,
                Target::Topic(_) | Target::All => false,
            }
    }
}

impl Tabs {
    fn update_count(&self) -> usize {
        self.count.store(self.members.len(), Ordering::Release);
        self.members.len()
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
        server: ServerId,
        session: SessionId,
        connection: ConnectionId,
        outbox: Arc<Outbox>,
    ) -> Registration<'_> {
        let mut entries = self.entries.write();
        let entry = Entry { session: session.clone(), server, outbox: Arc::clone(&outbox) };
        entries.connections.insert(connection, entry);
        let tabs = entries.sessions.entry(session.clone()).or_default();
        tabs.members.push((connection, Arc::clone(&outbox)));
        let connections = tabs.update_count();
        let count = Arc::clone(&tabs.count);
        let is_registered = Rc::new(Cell::new(true));
        let own = Own { connection, outbox, session, server, count, is_registered };
        Registration { registry: self, connections, own }
    }

    /// Those who are meant, cloned: they are used when the lock is released.
    pub(crate) fn find(&self, receivers: &Receivers) -> Members {
        self.entries.read().members(receivers)
    }

    pub(crate) fn subscribe(
        &self,
        receivers: &Receivers,
        topic: &str,
    ) -> Result<usize, SubscribeError> {
        let mut entries = self.entries.write();
        let mut result = Ok(0);
        for (connection, outbox) in entries.members(receivers) {
            match entries.topics.subscribe(connection, &outbox, topic) {
                Ok(is_new) => result = result.map(|count| count + usize::from(is_new)),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    pub(crate) fn unsubscribe(&self, receivers: &Receivers, topic: &str) -> usize {
        let mut entries = self.entries.write();
        let members = entries.members(receivers).into_iter();
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
    fn members(&self, receivers: &Receivers) -> Members {
        let mut members = Members::new();
        let is_for_all = receivers.except.is_empty() && receivers.server.is_none();
        self.visit(&receivers.target, |connection, outbox| {
            if is_for_all || self.is_meant(connection, receivers) {
                members.push((connection, Arc::clone(outbox)));
            }
        });
        members
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
    fn is_meant(&self, connection: ConnectionId, receivers: &Receivers) -> bool {
        let Some(entry) = self.connections.get(&connection) else { return false };
        let is_left_out = |peer: &Peer| match peer {
            Peer::Session(session) => *session == entry.session,
            Peer::Connection(id) => *id == connection,
        };
        receivers.server.is_none_or(|server| server == entry.server)
            && !receivers.except.iter().any(is_left_out)
    }
}

/// Keeps a connection in its registry.
#[derive(Debug)]
pub(crate) struct Registration<'a> {
    registry: &'a Registry,
    connections: usize,
    own: Own,
}

impl Registration<'_> {
    /// From here on the calling thread runs the handlers of this connection.
    pub(crate) fn enter(&self) -> Outer {
        Outer(OWN.replace(Some(self.own.clone())))
    }

    /// How many connections the session had when this one was added, with it.
    pub(crate) fn connections(&self) -> usize {
        self.connections
    }

    fn connection(&self) -> ConnectionId {
        self.own.connection
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let connection = self.connection();
        let mut entries = self.registry.entries.write();
        // `self.own` holds the outbox, so that it is not dropped under the lock, with payloads whose destructors may be
        // the program's.
        entries.connections.remove(&connection);
        entries.topics.leave(connection);
        if let hash_map::Entry::Occupied(mut tabs) =
            entries.sessions.entry(self.own.session.clone())
        {
            tabs.get_mut().members.retain(|(id, _)| *id != connection);
            if tabs.get().update_count() == 0 {
                tabs.remove();
            }
        }
        drop(entries);
        self.own.is_registered.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::stream::Stream;
    use crate::net::watchdog::Watchdog;
    use crate::websocket::settings::Websocket;
    use smallvec::smallvec;
    use std::net::{TcpListener, TcpStream};

    pub(super) fn outbox() -> Arc<Outbox> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = Arc::new(Stream::new(peer, true).unwrap());
        Outbox::new(
            stream,
            Watchdog::default(),
            &Websocket::new(),
            usize::MAX,
            Vec::new(),
            "a tab".into(),
        )
    }

    pub(super) fn register(
        registry: &Registry,
        session: SessionId,
        connection: ConnectionId,
        outbox: Arc<Outbox>,
    ) -> Registration<'_> {
        registry.register(ServerId::next(), session, connection, outbox)
    }

    pub(super) fn all_but(session: impl Into<SessionId>) -> Receivers {
        let except = smallvec![Peer::Session(session.into())];
        Receivers { except, ..Target::All.into() }
    }

    #[test]
    fn entries_come_and_go_with_connections() {
        let registry = Registry::default();
        let session = SessionId::from(1);
        assert_eq!(registry.find(&Target::Session(session.clone()).into()).len(), 0);
        assert_eq!(registry.len(), (0, 0), "asking leaves nothing behind");

        let first = ConnectionId::next();
        let one = register(&registry, session.clone(), first, outbox());
        let two = register(&registry, session.clone(), ConnectionId::next(), outbox());
        let other = register(&registry, 2.into(), ConnectionId::next(), outbox());
        let count = |target: Target| registry.find(&target.into()).len();
        assert_eq!(count(Target::Session(session.clone())), 2);
        assert_eq!(count(Target::Connection(first)), 1);
        assert_eq!(registry.find(&all_but(&session)).len(), 1);
        assert_eq!(registry.find(&all_but(3)).len(), 3);
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
        let one = register(&registry, 1.into(), a, outbox());
        let _two = register(&registry, 2.into(), b, outbox());
        let topic = |name: &str| registry.find(&Target::Topic(name.to_owned()).into()).len();
        assert_eq!(registry.subscribe(&Target::Session(3.into()).into(), "news"), Ok(0), "nobody");
        assert_eq!((topic("news"), registry.topics()), (0, (0, 0)));

        assert_eq!(registry.subscribe(&Target::All.into(), "news"), Ok(2));
        assert_eq!(
            registry.subscribe(&Target::Connection(a).into(), "news"),
            Ok(0),
            "it has already"
        );
        assert_eq!(registry.subscribe(&Target::Connection(a).into(), "sport"), Ok(1));
        assert_eq!((topic("news"), topic("sport"), registry.topics()), (2, 1, (2, 2)));

        assert_eq!(registry.unsubscribe(&Target::All.into(), "sport"), 1);
        assert_eq!((topic("sport"), registry.topics()), (0, (1, 2)));
        assert_eq!(registry.unsubscribe(&Target::All.into(), "sport"), 0);
        drop(one);
        assert_eq!((topic("news"), registry.topics()), (1, (1, 1)));
        assert_eq!(registry.unsubscribe(&Target::Topic("news".to_owned()).into(), "news"), 1);
        assert_eq!(registry.topics(), (0, 0));
    }

    #[test]
    fn a_connection_has_so_many_topics_and_no_more() {
        let registry = Registry::default();
        let _one = register(&registry, 1.into(), ConnectionId::next(), outbox());
        let subscribe = |topic: &str| registry.subscribe(&Target::All.into(), topic);
        for number in 0..128 {
            assert_eq!(subscribe(&number.to_string()), Ok(1));
        }
        assert_eq!(subscribe("one more"), Err(SubscribeError::TooMany));
        assert_eq!(subscribe("7"), Ok(0), "it has that one");
        assert_eq!(registry.unsubscribe(&Target::All.into(), "7"), 1);
        assert_eq!(subscribe(&"x".repeat(256)), Err(SubscribeError::TooLong));
        assert_eq!(subscribe(&"x".repeat(255)), Ok(1));
    }
}

#[cfg(test)]
mod properties {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::tests::{all_but, outbox, register};
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
    fn check(registry: &Registry, model: &Model, receivers: &Receivers) {
        let found = registry.find(receivers);
        let expected = model.iter().filter(|(connection, (session, _))| {
            let is_left_out = receivers.except.contains(&Peer::Session(session.clone()))
                || receivers.except.contains(&Peer::Connection(**connection));
            !is_left_out
                && match &receivers.target {
                    Target::Session(wanted) => session == wanted,
                    Target::Connection(wanted) => *connection == wanted,
                    Target::Topic(_) => unreachable!("checked by itself"),
                    Target::All => true,
                }
        });
        let addresses: HashSet<_> = found.iter().map(|(_, outbox)| Arc::as_ptr(outbox)).collect();
        let expected: HashSet<_> = expected.map(|(_, (_, outbox))| Arc::as_ptr(outbox)).collect();
        assert_eq!(addresses, expected, "{receivers:?}");
        assert_eq!(found.len(), expected.len(), "{receivers:?}: one of them twice");
    }

    fn check_all(registry: &Registry, model: &Model, gone: ConnectionId) {
        let sessions = (0..5).map(SessionId::from);
        let of_sessions = sessions
            .flat_map(|session| [Target::Session(session.clone()).into(), all_but(session)]);
        let connections = model.keys().copied().chain([gone]);
        let of_connections = connections.flat_map(|connection| {
            let mut all_but_two = all_but(2);
            all_but_two.except.push(Peer::Connection(connection));
            [Target::Connection(connection).into(), all_but_two]
        });
        for receivers in of_sessions.chain(of_connections).chain([Target::All.into()]) {
            check(registry, model, &receivers);
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
                        registrations.push(register(&registry, session.clone(), connection, outbox.clone()));
                        model.insert(connection, (session, outbox));
                    }
                    Action::Drop(index) if !registrations.is_empty() => {
                        gone = registrations.swap_remove(index % registrations.len()).connection();
                        free.extend(model.remove(&gone).map(|(_, outbox)| outbox));
                    }
                    Action::Drop(_) => {}
                }
                check_all(&registry, &model, gone);
            }
        });
    }
}
