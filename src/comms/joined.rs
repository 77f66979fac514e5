//! The cluster that this process is in: its channels, and what is sent through them.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::base::deadline;
use crate::comms::receivers::Target;
use crate::comms::relayed_requests::RelayedRequests;
use crate::comms::remote_presence::RemotePresence;
use crate::comms::session::SessionId;
use crate::comms::survey::Survey;
use crate::redis::links::Links;
use crate::redis::node::NodeId;
use crate::redis::writer::Posted;

/// A cluster that this process has joined.
pub(crate) struct Joined {
    pub(crate) link: Links,
    pub(crate) node: NodeId,
    pub(crate) channels: Channels,
    /// What other nodes are being asked, and how long they may take.
    pub(crate) survey: Arc<Survey>,
    pub(crate) ask_timeout: Duration,
    pub(crate) max_message_size: usize,
    /// Whom this node watches on others.
    pub(crate) remote_presence: Arc<RemotePresence>,
    /// What others have its clients asked.
    pub(crate) relayed_requests: RelayedRequests,
}

impl Joined {
    /// Has the nodes hear something that a channel leads to.
    pub(crate) fn post(&self, channel: &str, content: Vec<u8>) -> Posted {
        self.link.post(channel, content)
    }

    /// Asks the nodes that hear a channel, and hands over each answer of another one. It ends when all have answered, `enough`
    /// says so, or the time is over. `content` makes what is sent of the number of the question.
    pub(crate) fn ask(
        &self,
        channel: &str,
        content: impl FnOnce(u64) -> Vec<u8>,
        mut enough: impl FnMut(&[u8]) -> bool,
    ) {
        if self.ask_timeout.is_zero() || !self.link.is_up_for(channel) {
            return;
        }
        let deadline = deadline::after(self.ask_timeout);
        let (number, answers) = self.survey.begin();
        let (asker, heard_by) = bounded(1);
        self.link.post_for(channel, content(number), Some(asker));
        let mut left = match heard_by.recv_deadline(deadline) {
            Ok(nodes) => Some(nodes),
            Err(RecvTimeoutError::Timeout) => None,
            // Redis does not take it.
            Err(RecvTimeoutError::Disconnected) => {
                self.link.tally().unanswered.add(1);
                return self.survey.end(number);
            }
        };
        while left.is_none_or(|left| left > 0) {
            match answers.recv_deadline(deadline) {
                Ok(Some(answer)) if enough(&answer) => break,
                Ok(_) => left = left.map(|left| left - 1),
                Err(_) => {
                    self.link.tally().unanswered.add(left.unwrap_or(1));
                    break;
                }
            }
        }
        self.survey.end(number);
    }

    pub(crate) fn want_session(&self, session: &SessionId) {
        self.link.want(&self.channels.session(session));
    }

    pub(crate) fn unwant_session(&self, session: &SessionId) {
        self.link.unwant(&self.channels.session(session));
    }

    pub(crate) fn want_topic(&self, topic: &str) {
        self.link.want(&self.channels.topic(topic));
    }

    pub(crate) fn unwant_topic(&self, topic: &str) {
        self.link.unwant(&self.channels.topic(topic));
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Most names of sessions and topics are no longer than that.
const ROOM_FOR_NAME: usize = 40;

/// The names of a cluster's channels. All begin with its prefix, so that several share a Redis.
#[derive(Debug, Clone)]
pub(crate) struct Channels {
    prefix: Arc<str>,
}

/// What a channel leads to.
#[derive(Debug)]
pub(crate) enum Way {
    To(Target),
    /// One connection of this node, which the message itself names.
    Connection,
    /// No connection: nodes tell each other something.
    Notices,
}

impl Channels {
    /// Pub/sub knows no databases of Redis: the number of one that is not the first becomes a part of the names.
    pub(crate) fn new(prefix: &str, database: u32) -> Self {
        let prefix = match database {
            0 => prefix.into(),
            _ => format!("{prefix}:{database}").into(),
        };
        Self { prefix }
    }

    /// Everybody's.
    pub(crate) fn all(&self) -> String {
        format!("{}:all", self.prefix)
    }

    /// One node's, for its connections.
    pub(crate) fn node(&self, node: NodeId) -> String {
        format!("{}:node:{node}", self.prefix)
    }

    /// For what a node tells all nodes of its own accord. Apart from [`all`](Self::all), so that the program does not hear
    /// of one that was missed as of a message of its own.
    pub(crate) fn notices(&self) -> String {
        format!("{}:notices", self.prefix)
    }

    /// For what it tells one node.
    pub(crate) fn notices_for(&self, node: NodeId) -> String {
        format!("{}:notices:{node}", self.prefix)
    }

    pub(crate) fn session(&self, session: &SessionId) -> String {
        let mut name = self.beginning(":session:");
        // Memory takes whatever is written.
        let _ = write!(name, "{session}");
        name
    }

    pub(crate) fn topic(&self, topic: &str) -> String {
        let mut name = self.beginning(":topic:");
        name.push_str(topic);
        name
    }

    /// Every message has its channel named: with `format` that was a third of what sending one takes.
    fn beginning(&self, kind: &str) -> String {
        let mut name = String::with_capacity(self.prefix.len() + kind.len() + ROOM_FOR_NAME);
        name.push_str(&self.prefix);
        name.push_str(kind);
        name
    }

    /// What a channel leads to, if it is one of the cluster's.
    pub(crate) fn way(&self, channel: &str) -> Option<Way> {
        let rest = channel.strip_prefix(&*self.prefix)?.strip_prefix(':')?;
        match rest.split_once(':') {
            None if rest == "all" => Some(Way::To(Target::All)),
            None if rest == "notices" => Some(Way::Notices),
            Some(("node", _)) => Some(Way::Connection),
            Some(("notices", _)) => Some(Way::Notices),
            Some(("session", session)) => Some(Way::To(Target::Session(session.parse().ok()?))),
            Some(("topic", topic)) => Some(Way::To(Target::Topic(topic.to_owned()))),
            _ => None,
        }
    }
}
