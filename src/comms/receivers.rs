//! Who is meant, as a value.

use crate::comms::session::{ConnectionId, ServerId, SessionId};

/// Who is meant: `target`, but for `except`, of one server or of all.
#[derive(Debug, Clone)]
pub(crate) struct Receivers {
    pub(crate) target: Target,
    pub(crate) except: Vec<Peer>,
    pub(crate) server: Option<ServerId>,
    /// Of this process alone, where it is in a cluster.
    #[cfg(feature = "redis")]
    pub(crate) is_local: bool,
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
        Self {
            target,
            except: Vec::new(),
            server: None,
            #[cfg(feature = "redis")]
            is_local: false,
        }
    }
}

impl Receivers {
    /// Whether all whom the target names are meant.
    pub(crate) fn is_whole_target(&self) -> bool {
        self.except.is_empty() && self.server.is_none()
    }

    /// Whether a connection that the target names is of the server that is meant, and none of those left out.
    pub(crate) fn admits(
        &self,
        connection: ConnectionId,
        session: &SessionId,
        server: ServerId,
    ) -> bool {
        let is_left_out = |peer: &Peer| match peer {
            Peer::Session(except) => except == session,
            Peer::Connection(except) => *except == connection,
        };
        self.server.is_none_or(|meant| meant == server) && !self.except.iter().any(is_left_out)
    }
}
