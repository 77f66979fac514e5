//! Who is there now: the connections and sessions that are meant, counted and listed.

use std::collections::HashSet;

use crate::comms::client::Client;
use crate::comms::crossing;
use crate::comms::entries::Entries;
#[cfg(feature = "redis")]
use crate::comms::envelope::{self, What};
use crate::comms::reach::{Comms, Recipient};
use crate::comms::receivers::{Peer, Receivers, Target};
use crate::comms::registry::Registry;
use crate::comms::session::SessionId;

impl Comms {
    /// Who is meant, of those who are there: to count and to list them.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// let room = Comms::topic("room:7").members();
    /// println!("{} people in {} tabs", room.session_count(), room.client_count());
    /// for session in room.sessions() {
    ///     println!("{session} is there");
    /// }
    /// assert!(!room.contains(42), "nobody is connected here");
    /// ```
    ///
    /// It is a view: each call looks anew. Who comes and goes from then on, [`presence`](Self::presence) tells.
    #[doc(alias = "online")]
    #[must_use]
    pub fn members(&self) -> Members {
        Members { receivers: self.receivers.clone() }
    }
}

/// Who is there, of those whom a [`Comms`] means: made by [`Comms::members`].
///
/// A connection is there from `handle_connection`, or the call of its function, until it is over for its handler: until
/// `handle_close`, or until its [`Socket`](crate::controller::Socket) says that nothing more comes. So one that the program
/// closes is there until its client has answered, for [`close_timeout`](crate::controller::Websocket::close_timeout) at most.
/// [`Comms::presence`] says the same; whether a message would still get through is what [`Client::is_connected`] says.
///
/// In a [cluster](crate::guide::cluster) they are those of all nodes, but for [`clients`](Self::clients): to ask the others
/// takes about as long as a message there and back, and no longer than
/// [`ask_timeout`](crate::guide::cluster#what-is-asked); who does not answer in time is left out.
///
/// It is who is there now. [Watches](Comms::presence) tell of changes a little later, and not of those that cancel each
/// other: a list that is kept up by adding their joins to this one, and taking off their leaves, would soon be wrong. Send the
/// whole list whenever something changes, or keep it by a watch alone.
///
/// A function that greets its client with who is there subscribes first, so that nobody is missed who comes meanwhile:
///
/// ```
/// use rwf::prelude::*;
///
/// fn chat(mut socket: Socket) -> Result<(), Error> {
///     Comms::here()?.subscribe("lobby")?;
///     let names: Vec<_> =
///         Comms::topic("lobby").members().sessions().iter().map(SessionId::to_string).collect();
///     socket.send(format!("here are {}", names.join(", ")))?;
///     while let Some(message) = socket.recv()? {
///         Comms::topic("lobby").send(message)?;
///     }
///     Ok(())
/// }
/// # let _ = websocket(chat);
/// ```
#[derive(Debug, Clone)]
pub struct Members {
    receivers: Receivers,
}

impl Members {
    /// How many connections they are: tabs, where clients are browsers. It takes no longer for many, unless some are
    /// [left out](Comms::except) or those of one server are meant.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.count_here().saturating_add(crossing::count(&self.receivers))
    }

    /// How many sessions they are: visitors and users, however many tabs each has. For a topic, where some are left out, and
    /// in a cluster, the sessions are gone through for it.
    #[must_use]
    pub fn session_count(&self) -> usize {
        if crossing::may_be_elsewhere(&self.receivers) {
            return self.sessions().len();
        }
        self.look(|entries, receivers| match &receivers.target {
            Target::All if receivers.is_whole_target() => entries.sessions.len(),
            Target::Session(_) | Target::Connection(_) => entries.count(receivers).min(1),
            Target::Topic(_) | Target::All => entries.distinct(receivers).len(),
        })
    }

    /// Their connections, to keep: in the order in which they connected. Of a cluster, those of this node.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        self.look(|entries, receivers| {
            let mut clients = Vec::new();
            entries.visit_meant(receivers, |connection, outbox| {
                if let Some(entry) = entries.connections.get(&connection) {
                    clients.push(Client::new(connection, entry.session.clone(), outbox));
                }
            });
            clients
        })
    }

    /// Their sessions, each once, in no particular order.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionId> {
        let here = self.sessions_here();
        let elsewhere = crossing::sessions(&self.receivers);
        if elsewhere.is_empty() {
            return here;
        }
        here.into_iter().chain(elsewhere).collect::<HashSet<_>>().into_iter().collect()
    }

    /// Whether a session, or one connection, is among them.
    #[must_use]
    pub fn contains(&self, who: impl Into<Recipient>) -> bool {
        let Recipient(peer) = who.into();
        self.contains_here(&peer) || crossing::contains(&self.receivers, &peer)
    }

    fn count_here(&self) -> usize {
        self.look(|entries, receivers| entries.count(receivers))
    }

    fn sessions_here(&self) -> Vec<SessionId> {
        self.look(|entries, receivers| entries.distinct(receivers).into_iter().cloned().collect())
    }

    fn contains_here(&self, peer: &Peer) -> bool {
        self.look(|entries, receivers| entries.contains(receivers, peer))
    }

    /// Answers another node's question.
    #[cfg(feature = "redis")]
    pub(crate) fn answer(receivers: Receivers, what: &What) -> Vec<u8> {
        let members = Self { receivers };
        match what {
            What::IsConnected => vec![members.is_connected_here().into()],
            What::Count => (members.count_here() as u64).to_be_bytes().to_vec(),
            What::Sessions => envelope::write_sessions(&members.sessions_here()),
            What::Contains(peer) => vec![members.contains_here(peer).into()],
        }
    }

    #[cfg(feature = "redis")]
    fn is_connected_here(&self) -> bool {
        let members = Registry::global().find(&self.receivers);
        members.iter().any(|(_, outbox)| !outbox.is_sealed())
    }

    fn look<T>(&self, look: impl FnOnce(&Entries, &Receivers) -> T) -> T {
        look(&Registry::global().entries.read(), &self.receivers)
    }
}

impl Entries {
    fn count(&self, receivers: &Receivers) -> usize {
        match &receivers.target {
            Target::All if receivers.is_whole_target() => self.connections.len(),
            Target::Topic(topic) if receivers.is_whole_target() => self.topics.count(topic),
            _ => {
                let mut count = 0;
                self.visit_meant(receivers, |_, _| count += 1);
                count
            }
        }
    }

    fn distinct(&self, receivers: &Receivers) -> HashSet<&SessionId> {
        let mut sessions = HashSet::new();
        self.visit_meant(receivers, |connection, _| {
            sessions.extend(self.connections.get(&connection).map(|entry| &entry.session));
        });
        sessions
    }

    fn contains(&self, receivers: &Receivers, peer: &Peer) -> bool {
        let is_among = |connection| {
            let is_target = match &receivers.target {
                Target::Topic(topic) => self.topics.has_subscribed(connection, topic),
                Target::Connection(meant) => *meant == connection,
                Target::Session(meant) => {
                    self.connections.get(&connection).is_some_and(|entry| entry.session == *meant)
                }
                Target::All => true,
            };
            is_target && self.is_meant(connection, receivers)
        };
        match peer {
            Peer::Connection(connection) => is_among(*connection),
            Peer::Session(session) => {
                let tabs = self.sessions.get(session);
                tabs.is_some_and(|tabs| tabs.members.iter().any(|(id, _)| is_among(*id)))
            }
        }
    }
}
