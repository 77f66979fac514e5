//! One connection of a server, for people who look at what is going on.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::base::shown::Shown;
use crate::comms::client::Client;
use crate::comms::session::{ConnectionId, SessionId};
use crate::controller::connection::Connection;
use crate::controller::slowest::Call;
use crate::controller::stats::Volume;
use crate::net::peer::Peer;

/// One connection of a server, as it was when [`ServerHandle::connections`](crate::http::ServerHandle::connections) was
/// called.
///
/// `Display` is one line with what there is of `connection`, `session`, `route`, `path`, `peer`, `age`, `in`, `in_bytes`,
/// `out`, `out_bytes`, `waiting`, `waiting_bytes`, `round_trip`, `handler`, `call`, `running`, as the log writes them.
///
/// ```
/// use rwf::http::Server;
/// use rwf::prelude::*;
///
/// # fn chat(mut socket: Socket) -> Result<(), Error> { socket.iter().for_each(drop); Ok(()) }
/// # fn main() -> Result<(), rwf::http::Error> {
/// let server = Server::new(vec![route!("/chat" => websocket(chat))]).bind("127.0.0.1:0").spawn()?;
/// for connection in server.connections() {
///     println!("{connection}");
///     if connection.waiting.bytes > 100_000 {
///         server.kick(connection.id, "you are too slow");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its number.
    pub id: ConnectionId,
    /// Whose it is, if it is a WebSocket.
    pub session: Option<SessionId>,
    /// The route of its WebSocket, or of its last request, as it was written; none before the first request.
    pub route: Option<String>,
    /// The path of its last request, as it was sent.
    pub path: Option<String>,
    /// The other end of the connection.
    pub peer: Peer,
    /// When it was accepted.
    pub since: SystemTime,
    /// How long that is ago.
    pub age: Duration,
    /// How long the answer to the last ping took that was measured, as
    /// [`Client::round_trip`](crate::comms::Client::round_trip).
    pub round_trip: Option<Duration>,
    /// What waits for the client to take it.
    pub waiting: Volume,
    /// What came over its WebSocket.
    pub received: Volume,
    /// What went out over its WebSocket.
    pub sent: Volume,
    /// The handler that runs now, if any does.
    pub handler: Option<RunningHandler>,
    client: Option<Client>,
}

/// A handler that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningHandler {
    /// The name of the controller's type or of the function.
    pub name: &'static str,
    /// What it was called for.
    pub call: Call,
    /// For how long it has run, by a clock that may be a second behind.
    pub time: Duration,
}

impl ConnectionInfo {
    /// `routes` are the routes' paths.
    pub(crate) fn of(connection: &Connection, routes: &[String]) -> Self {
        let (age, traffic) = (connection.age(), connection.traffic().unwrap_or_default());
        let volume = |messages, bytes| Volume { messages, bytes };
        let client = connection.client();
        let request = connection.request();
        let handler = connection.handler().and_then(|(call, time)| {
            let name = request.as_ref()?.name;
            let name = connection.handler_name().unwrap_or(name);
            // The clock of handlers may be behind that of connections.
            Some(RunningHandler { name, call, time: time.min(age) })
        });
        Self {
            id: connection.id,
            session: client.as_ref().map(|client| client.session_id().clone()),
            route: request.as_ref().and_then(|request| routes.get(request.route?).cloned()),
            path: request.map(|request| request.path),
            peer: connection.peer(),
            since: SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
            age,
            round_trip: connection.websocket().and_then(|outbox| outbox.round_trip()),
            waiting: volume(traffic.waiting_messages, traffic.waiting_bytes),
            received: volume(traffic.received_messages, traffic.received_bytes),
            sent: volume(traffic.sent_messages, traffic.sent_bytes),
            handler,
            client,
        }
    }

    /// The client, to send to, if it is a WebSocket.
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }
}

impl fmt::Display for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection={}", self.id)?;
        if let Some(session) = &self.session {
            write!(f, " session={}", Shown::field(session))?;
        }
        if let Some(route) = &self.route {
            write!(f, " route={}", Shown::value(route))?;
        }
        if let Some(path) = &self.path {
            write!(f, " path={}", Shown::value(path))?;
        }
        write!(f, " peer={} age={:.1?}", self.peer, self.age)?;
        if self.session.is_some() {
            let Self { received, sent, waiting, .. } = self;
            write!(f, " in={} in_bytes={}", received.messages, received.bytes)?;
            write!(f, " out={} out_bytes={}", sent.messages, sent.bytes)?;
            write!(f, " waiting={} waiting_bytes={}", waiting.messages, waiting.bytes)?;
        }
        if let Some(round_trip) = self.round_trip {
            write!(f, " round_trip={round_trip:.1?}")?;
        }
        if let Some(RunningHandler { name, call, time }) = &self.handler {
            write!(f, " handler={name} call={call} running={time:.1?}")?;
        }
        Ok(())
    }
}
