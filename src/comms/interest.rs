//! Which sessions and topics are here, told to the cluster as they come and go, so that it brings what is sent to them.

use crate::comms::session::SessionId;

#[cfg(feature = "redis")]
use crate::comms::joined::Joined;
#[cfg(feature = "redis")]
use std::sync::Arc;

/// Kept under the registry's lock. What it notes there is told to Redis afterwards.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    #[cfg(feature = "redis")]
    joined: Option<Arc<Joined>>,
    /// Whether something was noted that is to be told.
    #[cfg(feature = "redis")]
    has_changed: bool,
}

#[cfg(feature = "redis")]
impl Interest {
    /// Whether sessions that are here may be on other nodes too.
    pub(crate) fn is_shared(&self) -> bool {
        self.joined.is_some()
    }

    pub(crate) fn set(&mut self, joined: Option<Arc<Joined>>) {
        (self.joined, self.has_changed) = (joined, true);
    }

    /// The first connection of a session has come, or the last one has gone.
    pub(crate) fn note_session(&mut self, session: &SessionId, is_here: bool) {
        let Some(joined) = &self.joined else { return };
        self.has_changed = true;
        if is_here {
            joined.want_session(session);
        } else {
            joined.unwant_session(session);
        }
    }

    /// The first subscriber of a topic has come, or the last one has gone.
    pub(crate) fn note_topic(&mut self, topic: &str, is_here: bool) {
        let Some(joined) = &self.joined else { return };
        self.has_changed = true;
        if is_here {
            joined.want_topic(topic);
        } else {
            joined.unwant_topic(topic);
        }
    }

    pub(crate) fn joined(&self) -> Option<&Arc<Joined>> {
        self.joined.as_ref()
    }

    /// Whom to tell, if something was noted.
    pub(crate) fn take_changed(&mut self) -> Option<Arc<Joined>> {
        if std::mem::take(&mut self.has_changed) { self.joined.clone() } else { None }
    }
}

/// There are no clusters.
#[cfg(not(feature = "redis"))]
impl Interest {
    pub(crate) fn is_shared(&self) -> bool {
        false
    }

    pub(crate) fn note_session(&mut self, _: &SessionId, _: bool) {}

    pub(crate) fn note_topic(&mut self, _: &str, _: bool) {}
}
