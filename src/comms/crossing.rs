//! Takes what is said to connections to the other nodes of a cluster, if there is one. Nothing here waits for Redis, but
//! for the first subscriber of a topic, and questions about who is there.

#[cfg(feature = "redis")]
pub(crate) use self::with_redis::*;
#[cfg(not(feature = "redis"))]
pub(crate) use self::without::*;

#[cfg(feature = "redis")]
mod with_redis {
    use std::sync::Arc;

    use crate::comms::entries::Outboxes;
    use crate::comms::envelope::{self, Inquiry, Letter, What};
    use crate::comms::joined::Joined;
    use crate::comms::notices::{self, Notice};
    use crate::comms::outcome::{Elsewhere, Outcome};
    use crate::comms::receivers::{Peer, Receivers, Target};
    use crate::comms::registry::Registry;
    use crate::comms::session::{ConnectionId, SessionId};
    use crate::redis::node::NodeId;
    use crate::redis::writer::Posted;
    use crate::websocket::close::Close;
    use crate::websocket::prepared::PreparedMessage;
    use crate::websocket::room::Patience;
    use crate::websocket::sender::Place;

    pub(crate) fn send(
        receivers: &Receivers,
        here: &Outboxes,
        place: Place<'_>,
        message: &PreparedMessage,
        patience: Patience,
        outcome: &mut Outcome,
    ) {
        outcome.elsewhere = cross(receivers, !here.is_empty(), || Letter::Send {
            frame: message.frame_for(None).clone(),
            key: match place {
                Place::Key(key) => Some(key.to_owned()),
                Place::Last => None,
            },
            may_close: patience == Patience::Settings,
        });
    }

    pub(crate) fn close(receivers: &Receivers, here: &Outboxes, close: Close) {
        cross(receivers, !here.is_empty(), || Letter::Close(close));
    }

    /// The connections that are here have subscribed already. The first of the node waits until Redis brings what is sent to
    /// the topic, no longer than the cluster's settings say.
    pub(crate) fn subscribe(receivers: &Receivers, topic: &str) {
        let Some(joined) = Registry::global().joined() else { return };
        let is_here = is_here(receivers);
        cross_in(&joined, receivers, is_here, || Letter::Subscribe(topic.to_owned()));
        joined.link.wait_until_held(&joined.channels.topic(topic));
    }

    pub(crate) fn unsubscribe(receivers: &Receivers, topic: &str) {
        let Some(joined) = Registry::global().joined() else { return };
        let is_here = is_here(receivers);
        cross_in(&joined, receivers, is_here, || Letter::Unsubscribe(topic.to_owned()));
    }

    fn is_here(receivers: &Receivers) -> bool {
        !Registry::global().find(receivers).is_empty()
    }

    fn cross(receivers: &Receivers, is_here: bool, letter: impl FnOnce() -> Letter) -> Elsewhere {
        match Registry::global().joined() {
            Some(joined) => cross_in(&joined, receivers, is_here, letter),
            None => Elsewhere::NotMeant,
        }
    }

    /// `is_here` says whether any of those who are meant are.
    fn cross_in(
        joined: &Joined,
        receivers: &Receivers,
        is_here: bool,
        letter: impl FnOnce() -> Letter,
    ) -> Elsewhere {
        let Some(channel) = channel(joined, receivers, is_here) else { return Elsewhere::NotMeant };
        match joined.post(&channel, envelope::seal(receivers, &letter())) {
            Posted::Handed => Elsewhere::Handed,
            Posted::Waiting => Elsewhere::Waiting,
            Posted::Lost | Posted::TooLarge => Elsewhere::Lost,
        }
    }

    /// The channel that leads to those who are on other nodes, if any may be.
    fn channel(joined: &Joined, receivers: &Receivers, is_here: bool) -> Option<String> {
        if receivers.is_local || receivers.server.is_some() {
            return None;
        }
        Some(match &receivers.target {
            Target::Connection(connection) => match connection.node() {
                _ if is_here => return None,
                node if node == NodeId::NONE || node == joined.node => return None,
                node => joined.channels.node(node),
            },
            Target::Session(session) => joined.channels.session(session),
            Target::Topic(topic) => joined.channels.topic(topic),
            Target::All => joined.channels.all(),
        })
    }

    /// Answers a question of another node.
    pub(crate) fn answer(joined: &Joined, asker: NodeId, number: u64, answer: Vec<u8>) -> Posted {
        let question = Target::Connection(ConnectionId::on(asker, number)).into();
        let content = envelope::seal(&question, &Letter::Answer(answer));
        joined.post(&joined.channels.node(asker), content)
    }

    /// The cluster, and the channel that leads to those who are on other nodes, if any may be.
    pub(crate) fn way(receivers: &Receivers, is_here: bool) -> Option<(Arc<Joined>, String)> {
        let joined = Registry::global().joined()?;
        let channel = channel(&joined, receivers, is_here)?;
        Some((joined, channel))
    }

    /// The answer to a question to clients is not waited for any more.
    pub(crate) fn forget(joined: &Joined, channel: &str, receivers: &Receivers, number: u64) {
        joined.post(channel, envelope::seal(receivers, &Letter::Forget(number)));
    }

    /// Tells another node something of who comes and who goes.
    pub(crate) fn tell(joined: &Joined, node: NodeId, notice: &Notice) {
        let letter = Letter::Notice(notices::write(notice));
        joined
            .post(&joined.channels.notices_for(node), envelope::seal(&Target::All.into(), &letter));
    }

    /// Tells all nodes, this one included.
    pub(crate) fn tell_all(joined: &Joined, notice: &Notice) {
        let letter = Letter::Notice(notices::write(notice));
        joined.post(&joined.channels.notices(), envelope::seal(&Target::All.into(), &letter));
    }

    /// Whether some who are meant may be on other nodes.
    pub(crate) fn may_be_elsewhere(receivers: &Receivers) -> bool {
        let joined = Registry::global().joined();
        joined.is_some_and(|joined| channel(&joined, receivers, false).is_some())
    }

    pub(crate) fn is_connected(receivers: &Receivers) -> bool {
        is_true(receivers, What::IsConnected)
    }

    pub(crate) fn contains(receivers: &Receivers, peer: &Peer) -> bool {
        is_true(receivers, What::Contains(peer.clone()))
    }

    /// How many connections that are meant are on other nodes.
    pub(crate) fn count(receivers: &Receivers) -> usize {
        let mut sum = 0_usize;
        ask(receivers, What::Count, |answer| {
            let count = answer.try_into().map_or(0, u64::from_be_bytes);
            sum = sum.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
            false
        });
        sum
    }

    /// The sessions that are meant, of other nodes; some may come several times.
    pub(crate) fn sessions(receivers: &Receivers) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        ask(receivers, What::Sessions, |answer| {
            sessions.extend(envelope::read_sessions(answer));
            false
        });
        sessions
    }

    fn is_true(receivers: &Receivers, what: What) -> bool {
        let mut is_true = false;
        ask(receivers, what, |answer| {
            is_true |= answer == [1];
            is_true
        });
        is_true
    }

    fn ask(receivers: &Receivers, what: What, enough: impl FnMut(&[u8]) -> bool) {
        let Some(joined) = Registry::global().joined() else { return };
        let Some(channel) = channel(&joined, receivers, false) else { return };
        let content = |number| {
            let inquiry = Inquiry { asker: joined.node, number, what };
            envelope::seal(receivers, &Letter::Ask(inquiry))
        };
        joined.ask(&channel, content, enough);
    }
}

#[cfg(not(feature = "redis"))]
mod without {
    use crate::comms::entries::Outboxes;
    use crate::comms::outcome::Outcome;
    use crate::comms::receivers::{Peer, Receivers};
    use crate::comms::session::SessionId;
    use crate::websocket::close::Close;
    use crate::websocket::prepared::PreparedMessage;
    use crate::websocket::room::Patience;
    use crate::websocket::sender::Place;

    pub(crate) fn send(
        _: &Receivers,
        _: &Outboxes,
        _: Place<'_>,
        _: &PreparedMessage,
        _: Patience,
        _: &mut Outcome,
    ) {
    }

    pub(crate) fn close(_: &Receivers, _: &Outboxes, _: Close) {}

    pub(crate) fn subscribe(_: &Receivers, _: &str) {}

    pub(crate) fn unsubscribe(_: &Receivers, _: &str) {}

    pub(crate) fn may_be_elsewhere(_: &Receivers) -> bool {
        false
    }

    pub(crate) fn is_connected(_: &Receivers) -> bool {
        false
    }

    pub(crate) fn contains(_: &Receivers, _: &Peer) -> bool {
        false
    }

    pub(crate) fn count(_: &Receivers) -> usize {
        0
    }

    pub(crate) fn sessions(_: &Receivers) -> Vec<SessionId> {
        Vec::new()
    }
}
