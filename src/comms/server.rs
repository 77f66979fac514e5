//! Reaches the clients of one server.

use crate::comms::reach::{Comms, Recipient};
use crate::comms::registry::Registry;
use crate::comms::session::{ConnectionId, ServerId, SessionId};

/// The clients of one server: what [`Comms`] reaches of the whole process, made with
/// [`ServerHandle::comms`](crate::http::ServerHandle::comms), [`Request::comms`](crate::http::Request::comms) or
/// [`Socket::comms`](crate::controller::Socket::comms).
///
/// ```
/// use rwf::http::{self, Server};
/// use rwf::prelude::*;
///
/// # fn main() -> Result<(), http::Error> {
/// # fn chat(_: Socket) -> Result<(), Error> { Ok(()) }
/// let public = Server::new(vec![route!("/chat" => websocket(chat))]).bind("127.0.0.1:0").spawn()?;
/// let staff = Server::new(vec![route!("/chat" => websocket(chat))]).bind("127.0.0.1:0").spawn()?;
/// // The staff does not get it.
/// let _ = public.comms().notify().send("we close at six");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ServerComms {
    pub(super) server: ServerId,
}

impl ServerComms {
    pub(crate) fn new(server: ServerId) -> Self {
        Self { server }
    }

    /// All connections of a session, like [`Comms::websocket`].
    #[doc(alias("session", "user"))]
    #[must_use]
    pub fn websocket(self, session: impl Into<SessionId>) -> Comms {
        self.of_server(Comms::websocket(session))
    }

    /// One connection, like [`Comms::connection`].
    #[must_use]
    pub fn connection(self, connection: impl Into<ConnectionId>) -> Comms {
        self.of_server(Comms::connection(connection))
    }

    /// The subscribers of a topic, like [`Comms::topic`].
    #[must_use]
    pub fn topic(self, name: impl Into<String>) -> Comms {
        self.of_server(Comms::topic(name))
    }

    /// Everyone except one session or one connection, like [`Comms::broadcast`].
    #[must_use]
    pub fn broadcast(self, except: impl Into<Recipient>) -> Comms {
        self.of_server(Comms::broadcast(except))
    }

    /// Everyone, like [`Comms::notify`].
    #[doc(alias("all", "everyone", "broadcast"))]
    #[must_use]
    pub fn notify(self) -> Comms {
        self.of_server(Comms::notify())
    }

    fn of_server(self, comms: Comms) -> Comms {
        comms.of_server(self.server)
    }
}

/// A server that has clients, or may have some yet. When it is dropped, watches of that server end.
#[derive(Debug)]
pub(crate) struct ServerGuard(ServerId);

impl ServerGuard {
    /// A new server.
    pub(crate) fn new() -> Self {
        let id = ServerId::next();
        Registry::global().begin_server(id);
        Self(id)
    }

    pub(crate) fn id(&self) -> ServerId {
        self.0
    }
}

impl Drop for ServerGuard {
    fn drop(&mut self) {
        Registry::global().end_server(self.0);
    }
}
