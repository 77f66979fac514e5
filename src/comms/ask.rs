//! What a sender can learn from its clients: what they answer, and how far away they are.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use crate::base::deadline;
#[cfg(feature = "redis")]
use crate::comms::asking::{Asking, NotAsked, Unanswered};
use crate::comms::client::Client;
use crate::comms::entries::Outboxes;
use crate::comms::flush::is_own_handler;
use crate::comms::outcome::SendError;
use crate::comms::reach::Comms;
use crate::comms::registry::Registry;
#[cfg(feature = "redis")]
use crate::comms::relayed_requests::Reply;
use crate::websocket::close::Cause;
use crate::websocket::message::{Message, Outgoing};
use crate::websocket::outbox::Outbox;
use crate::websocket::questions::{self, Asker};
use crate::websocket::room::NotTaken;

impl Comms {
    /// Asks those who are meant, and returns the first answer. It can be called on any thread but the one that runs the
    /// handlers of the client that is asked.
    ///
    /// The question goes out as a message that begins with a line `rwf-question` and its number, and the answer comes
    /// back as one that begins with `rwf-answer` and the same number. In a page that takes these lines:
    ///
    /// ```js
    /// socket.addEventListener("message", ({ data }) => {
    ///     const [, number, question] = /^rwf-question (\d+)\n([^]*)$/.exec(data) ?? [];
    ///     if (number) socket.send(`rwf-answer ${number}\n${confirm(question)}`);
    /// });
    /// ```
    ///
    /// The answer's line ends with `\n` or `\r\n`; where nothing follows it, or it has no end, the answer is empty. A
    /// binary question begins with the same line, in bytes, and so may an answer. From its first question on, a
    /// connection's messages that begin with such a line are not handed to its handlers, even when they come too late.
    /// An answer arrives while the client's function receives or its controller waits for messages, behind what the
    /// client has sent before: one that is held back by a [rate](crate::controller::Websocket::message_rate) answers
    /// late.
    ///
    /// In a [cluster](crate::guide::cluster#clients-are-asked) those on all nodes are asked, and the first answer of any is
    /// heard. While Redis is away those of this node are.
    ///
    /// A question that was sent is not taken back. It may reach a client late, when it was answered by another one or its
    /// time is over, and nobody hears the answer: a client that was slow, or whose node hung for a while. What must not be
    /// done twice needs a number of its own in the question.
    ///
    /// It is sent like any message: where old ones are [dropped](crate::controller::Overflow::DropOldest) for new ones, so
    /// may a question be, and nobody answers it.
    ///
    /// ```
    /// use rwf::prelude::*;
    /// use std::time::Duration;
    ///
    /// fn may_delete(tab: ConnectionId) -> bool {
    ///     match Comms::connection(tab).request("Delete the file?", Duration::from_secs(30)) {
    ///         Ok(answer) => answer == "true",
    ///         Err(error) => {
    ///             log::info!("nobody said yes: {error}");
    ///             false
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RequestError`] says why there is no answer.
    pub fn request(
        &self,
        message: impl Into<Outgoing>,
        timeout: Duration,
    ) -> Result<Message, RequestError> {
        let members = Registry::global().find(&self.receivers);
        if is_own_handler(&members) {
            return Err(RequestError::OwnHandler);
        }
        let (message, deadline) = (message.into(), deadline::after(timeout));
        #[cfg(feature = "redis")]
        match Asking::begin(&self.receivers, !members.is_empty(), message.clone(), deadline) {
            Ok(elsewhere) => return request_everywhere(&members, elsewhere, message, deadline),
            Err(NotAsked::Alone) if members.is_empty() => return Err(RequestError::Alone),
            Err(NotAsked::Alone | NotAsked::NotMeant) => {}
        }
        request(&members, message, deadline)
    }
}

impl Client {
    /// Asks it, and returns its answer, like [`Comms::request`].
    ///
    /// # Errors
    ///
    /// [`RequestError`] says why there is no answer.
    pub fn request(
        &self,
        message: impl Into<Outgoing>,
        timeout: Duration,
    ) -> Result<Message, RequestError> {
        let members = self.members();
        if is_own_handler(&members) {
            return Err(RequestError::OwnHandler);
        }
        request(&members, message.into(), deadline::after(timeout))
    }

    /// How long the way to it and back took when that was last measured: by a ping to a silent client, every
    /// [`ping_interval`](crate::controller::Websocket::ping_interval), by a [`flush`](Self::flush) while nothing waited
    /// for it, or by the pings beside newest values, where these have a
    /// [limit](crate::controller::Websocket::max_lag). `None` before that, and when it has left.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.outbox()?.round_trip()
    }
}

/// A question that clients of this node were sent.
struct Question<'a> {
    number: u64,
    asked: Vec<&'a Arc<Outbox>>,
    /// Ends when all of these have left.
    answers: Receiver<Message>,
    /// Why those were not asked who were not.
    reason: RequestError,
}

impl<'a> Question<'a> {
    fn ask(members: &'a Outboxes, message: Outgoing) -> Self {
        let number = questions::next_number();
        let question = questions::prepare(number, message);
        let (asker, answers) = bounded(1);
        // Those who are asked hold it.
        let asker: Arc<dyn Asker> = Arc::new(asker);
        let (mut asked, mut reason) = (Vec::new(), RequestError::NotConnected);
        for (_, outbox) in members {
            match outbox.ask(number, &question, &asker) {
                Ok(()) => asked.push(outbox),
                Err(NotTaken::Full) => reason = RequestError::NotSent(SendError::Full),
                Err(NotTaken::Closing) => reason = why_closed(outbox),
            }
        }
        Self { number, asked, answers, reason }
    }

    /// Why nobody can answer any more.
    fn why_closed(&self) -> RequestError {
        self.asked.last().map_or(self.reason, |last| why_closed(last))
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.asked.iter().for_each(|outbox| outbox.questions().remove(self.number));
    }
}

fn request(
    members: &Outboxes,
    message: Outgoing,
    deadline: Instant,
) -> Result<Message, RequestError> {
    let question = Question::ask(members, message);
    question.answers.recv_deadline(deadline).map_err(|error| match error {
        RecvTimeoutError::Timeout => RequestError::Timeout,
        RecvTimeoutError::Disconnected => question.why_closed(),
    })
}

/// Those of this node, and those whom `elsewhere` asks.
#[cfg(feature = "redis")]
fn request_everywhere(
    members: &Outboxes,
    mut elsewhere: Asking,
    message: Outgoing,
    deadline: Instant,
) -> Result<Message, RequestError> {
    let question = Question::ask(members, message);
    elsewhere.wait(&question.answers, deadline).map_err(|unanswered| match unanswered {
        Unanswered::Timeout => RequestError::Timeout,
        Unanswered::Nobody(reason) => match (question.why_closed(), reason) {
            // Whoever was here tells more than that nobody was elsewhere.
            (here, Reply::Nobody | Reply::Answer(_)) => here,
            (_, Reply::Full) => RequestError::NotSent(SendError::Full),
            (_, Reply::Closed) => RequestError::Closed,
            (_, Reply::Shutdown) => RequestError::Shutdown,
            (_, Reply::TooMany) => RequestError::TooMany,
            (_, Reply::Lost) => RequestError::Lost,
        },
    })
}

fn why_closed(outbox: &Arc<Outbox>) -> RequestError {
    match outbox.closed() {
        Some(closed) if closed.cause == Cause::Shutdown => RequestError::Shutdown,
        _ => RequestError::Closed,
    }
}

/// Why a question has no answer: [`Comms::request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// Nobody is connected who could be asked.
    NotConnected,
    /// The question could not be sent.
    NotSent(SendError),
    /// Nobody has answered in time. In a cluster a node that was asked may have died.
    Timeout,
    /// Everybody who was asked has left or was closed before answering.
    Closed,
    /// The server of those who were asked shuts down, or the last one of this process.
    Shutdown,
    /// The calling thread runs a handler of a connection that is meant: that connection is not read meanwhile.
    OwnHandler,
    /// The [cluster](crate::guide::cluster)'s Redis is away, and nobody is here who could be asked. With the feature `redis`.
    #[cfg(feature = "redis")]
    Alone,
    /// The question did not get to the other nodes of the cluster, or the answer did not get back: it is larger than
    /// [`max_message_size`](crate::cluster::Cluster::max_message_size), or as much as may wait for Redis does so already. With
    /// the feature `redis`.
    #[cfg(feature = "redis")]
    Lost,
    /// A node where clients could be asked has 10,000 questions of others that are not answered. With the feature `redis`.
    #[cfg(feature = "redis")]
    TooMany,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => f.write_str("nobody is connected who could answer"),
            Self::NotSent(error) => write!(f, "the question was not sent: {error}"),
            Self::Timeout => f.write_str("no answer came in time"),
            Self::Closed => f.write_str("the connection was closed before an answer came"),
            Self::Shutdown => f.write_str("the server shuts down"),
            Self::OwnHandler => f.write_str(
                "a handler cannot wait for its own client, whose answer is read after the handler: \
                 use another thread",
            ),
            #[cfg(feature = "redis")]
            Self::Alone => f.write_str(
                "nobody is connected here who could answer, and other nodes cannot be asked: Redis is away",
            ),
            #[cfg(feature = "redis")]
            Self::Lost => f.write_str(
                "question or answer did not cross the cluster: it is larger than `max_message_size`, or as \
                 much waits for Redis as may",
            ),
            #[cfg(feature = "redis")]
            Self::TooMany => f.write_str("another node has as many open questions as it takes"),
        }
    }
}

impl std::error::Error for RequestError {}
