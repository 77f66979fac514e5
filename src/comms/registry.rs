//! Who is connected: kept from a connection's registration to its end, and found from any thread.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
#[cfg(feature = "redis")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

#[cfg(feature = "redis")]
use crate::comms::bell::Bell;
use crate::comms::entries::{Entries, Entry, Outboxes};
#[cfg(feature = "redis")]
use crate::comms::joined::Joined;
use crate::comms::receivers::{Receivers, Target};
use crate::comms::session::{ConnectionId, ServerId, SessionId};
use crate::comms::topics::SubscribeError;
use crate::comms::watches::{Scope, Watch};
use crate::websocket::outbox::Outbox;

/// Which connections each session has. An entry comes with a connection and goes with it; to ask for a session that is
/// not there adds nothing.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(super) entries: RwLock<Entries>,
    /// The cluster that the process is in.
    #[cfg(feature = "redis")]
    joined: RwLock<Option<Arc<Joined>>>,
    /// Whether there is one, for a look without the lock.
    #[cfg(feature = "redis")]
    has_joined: AtomicBool,
}

thread_local! {
    /// The connection whose handlers this thread runs.
    static OWN: RefCell<Option<Rc<Own>>> = const { RefCell::new(None) };
}

/// A connection, for the thread that runs its handlers; shared with its registration.
#[derive(Debug)]
pub(crate) struct Own {
    connection: ConnectionId,
    pub(crate) outbox: Arc<Outbox>,
    session: SessionId,
    server: ServerId,
    /// How many connections the session has.
    count: Arc<AtomicUsize>,
    /// Whether it can be reached still.
    is_registered: Cell<bool>,
}

/// Whose handlers a thread ran when it began to run those of another connection, whose request one of them has upgraded.
#[derive(Debug)]
pub(crate) struct Outer(Option<Rc<Own>>);

/// The connection whose handlers the calling thread runs, if it is all that is meant. Most messages answer the client
/// whose handler sends them: this finds it without a lock and a look-up.
pub(crate) fn own_if_all(receivers: &Receivers) -> Option<Rc<Own>> {
    of_own(|own| own.is_all_of(receivers).then(|| Rc::clone(own))).flatten()
}

/// The connection whose handlers the calling thread runs.
pub(crate) fn own_connection() -> Option<ConnectionId> {
    of_own(|own| own.connection)
}

/// The calling thread runs no handlers of its connection any more, but those it ran before.
pub(crate) fn leave_own(outer: Outer) {
    drop(OWN.replace(outer.0));
}

fn of_own<T>(look: impl FnOnce(&Rc<Own>) -> T) -> Option<T> {
    // While a thread ends, `OWN` may be gone when a destructor of the program's still sends something.
    OWN.try_with(|own| own.borrow().as_ref().map(look)).ok().flatten()
}

impl Own {
    fn is_all_of(&self, receivers: &Receivers) -> bool {
        let Receivers { target, except, server, .. } = receivers;
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

impl Registry {
    /// The one of this process.
    pub(crate) fn global() -> &'static Self {
        static GLOBAL: LazyLock<Registry> = LazyLock::new(Registry::default);
        &GLOBAL
    }

    /// Adds a connection until the guard is dropped, unless its session has `most` to that server already.
    pub(crate) fn register(
        &self,
        server: ServerId,
        session: SessionId,
        connection: ConnectionId,
        outbox: Arc<Outbox>,
        most: usize,
    ) -> Option<Registration<'_>> {
        let entry = Entry { session: session.clone(), server, outbox: Arc::clone(&outbox) };
        let count = self.change(|entries| entries.add(connection, entry, most))?;
        let is_registered = Cell::new(true);
        let own = Own { connection, outbox, session, server, count, is_registered };
        Some(Registration { registry: self, own: Rc::new(own) })
    }

    /// Those who are meant, cloned: they are used when the lock is released.
    pub(crate) fn find(&self, receivers: &Receivers) -> Outboxes {
        self.entries.read().members(receivers)
    }

    pub(crate) fn subscribe(
        &self,
        receivers: &Receivers,
        topic: &str,
    ) -> Result<usize, SubscribeError> {
        self.change(|entries| entries.subscribe(receivers, topic))
    }

    pub(crate) fn unsubscribe(&self, receivers: &Receivers, topic: &str) -> usize {
        self.change(|entries| entries.unsubscribe(receivers, topic))
    }

    /// Begins to watch: those who are there already have come. A watch of a server that is over ends at once.
    pub(crate) fn watch(&self, scope: Scope) -> Arc<Watch> {
        self.begin_watch(Watch::new(scope))
    }

    /// The same, for a thread that looks at the watch when its bell rings.
    #[cfg(feature = "redis")]
    pub(crate) fn watch_with_bell(&self, scope: Scope, bell: Bell) -> Arc<Watch> {
        self.begin_watch(Watch::with_bell(scope, bell))
    }

    fn begin_watch(&self, watch: Watch) -> Arc<Watch> {
        let watch = Arc::new(watch);
        let mut entries = self.entries.write();
        if entries.watches.is_over(&watch) {
            drop(entries);
            watch.end();
            return watch;
        }
        entries.show(&watch);
        entries.watches.add(&watch);
        #[cfg(feature = "redis")]
        if watch.is_of_all_nodes() {
            let joined = entries.interest.joined().cloned();
            joined.iter().for_each(|joined| joined.remote_presence.add(&watch));
            drop(entries);
            joined.iter().for_each(|joined| joined.remote_presence.ring());
        }
        watch
    }

    pub(crate) fn unwatch(&self, watch: &Arc<Watch>) {
        let mut entries = self.entries.write();
        entries.watches.remove(watch);
        #[cfg(feature = "redis")]
        if watch.is_of_all_nodes() {
            let joined = entries.interest.joined().cloned();
            drop(entries);
            joined.iter().for_each(|joined| joined.remote_presence.remove(watch));
        }
    }

    /// There is a new server, which may be watched.
    pub(crate) fn begin_server(&self, server: ServerId) {
        self.entries.write().watches.begin(server);
    }

    /// A server is over, and so are the watches of that one alone.
    pub(crate) fn end_server(&self, server: ServerId) {
        let watches = self.entries.write().watches.end(server);
        watches.iter().for_each(|watch| watch.end());
    }

    /// Changes something under the lock, and then wakes those who watch it.
    fn change<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> T {
        let mut entries = self.entries.write();
        let result = change(&mut entries);
        let watches = entries.watches.take_changed();
        #[cfg(feature = "redis")]
        let joined = entries.interest.take_changed();
        drop(entries);
        watches.iter().for_each(|watch| watch.wake());
        #[cfg(feature = "redis")]
        if let Some(joined) = joined {
            joined.link.ring();
        }
        result
    }

    /// The cluster that the process is in.
    #[cfg(feature = "redis")]
    pub(crate) fn joined(&self) -> Option<Arc<Joined>> {
        if self.has_joined.load(Ordering::Acquire) { self.joined.read().clone() } else { None }
    }

    /// The process has joined a cluster, or leaves it.
    #[cfg(feature = "redis")]
    pub(crate) fn set_joined(&self, joined: Option<Arc<Joined>>) {
        let is_joined = joined.is_some();
        self.change(|entries| entries.share(joined.clone()));
        let before = std::mem::replace(&mut *self.joined.write(), joined);
        self.has_joined.store(is_joined, Ordering::Release);
        drop(before);
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

/// Keeps a connection in its registry.
#[derive(Debug)]
pub(crate) struct Registration<'a> {
    registry: &'a Registry,
    own: Rc<Own>,
}

impl Registration<'_> {
    /// From here on the calling thread runs the handlers of this connection.
    pub(crate) fn enter(&self) -> Outer {
        Outer(OWN.replace(Some(Rc::clone(&self.own))))
    }

    /// Waits until other nodes of the cluster reach the session here, no longer than the cluster's settings say.
    pub(crate) fn wait_until_reachable(&self) {
        #[cfg(feature = "redis")]
        if let Some(joined) = self.registry.joined() {
            joined.link.wait_until_held(&joined.channels.session(&self.own.session));
        }
    }

    fn connection(&self) -> ConnectionId {
        self.own.connection
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let connection = self.connection();
        // `self.own` holds the outbox, so that it is not dropped under the lock, with payloads whose destructors may be
        // the program's.
        self.registry.change(|entries| entries.remove(connection));
        self.own.is_registered.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comms::receivers::Peer;
    use crate::net::stream::Stream;
    use crate::net::watchdog::Watchdog;
    use crate::websocket::settings::Websocket;
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
            None,
            "a tab".into(),
        )
    }

    pub(super) fn register(
        registry: &Registry,
        session: SessionId,
        connection: ConnectionId,
        outbox: Arc<Outbox>,
    ) -> Registration<'_> {
        registry.register(ServerId::next(), session, connection, outbox, usize::MAX).unwrap()
    }

    pub(super) fn all_but(session: impl Into<SessionId>) -> Receivers {
        let except = vec![Peer::Session(session.into())];
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
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::tests::{all_but, outbox, register};
    use super::*;
    use crate::comms::receivers::Peer;

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
