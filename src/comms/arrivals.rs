//! What comes from other nodes of the cluster: opened once, framed once, and given to those who are here.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::comms::crossing;
use crate::comms::entries::Outboxes;
use crate::comms::envelope::{self, Home, Inquiry, Letter, Question};
use crate::comms::gaps::{self, Gap, Gaps};
use crate::comms::joined::Channels;
use crate::comms::members::Members;
use crate::comms::notices::{self, Notice, Pulse};
use crate::comms::presence_thread;
use crate::comms::reach;
use crate::comms::receivers::Target;
use crate::comms::registry::Registry;
use crate::comms::relay;
use crate::comms::remote_presence::RemotePresence;
use crate::comms::survey::Survey;
use crate::redis::node::NodeId;
use crate::redis::observers::{Arrivals, Event};
use crate::websocket::outbox::Outbox;
use crate::websocket::prepared::PreparedMessage;
use crate::websocket::room::Patience;
use crate::websocket::sender::Place;

/// How many messages wait for others that have come with them, over all connections, before they are written.
const MAX_UNWRITTEN: usize = 4096;

/// Runs on the thread that reads from Redis, for which nothing here waits.
pub(crate) struct Mailroom {
    pub(crate) node: NodeId,
    pub(crate) channels: Channels,
    /// Where the program wants to know of them.
    pub(crate) gaps: Option<Arc<Gaps>>,
    pub(crate) survey: Arc<Survey>,
    pub(crate) unwritten: Mutex<Unwritten>,
    pub(crate) remote_presence: Arc<RemotePresence>,
}

/// Messages that go out with others which have come with them, so that a burst is a few writes for each connection.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    outboxes: Vec<Arc<Outbox>>,
    messages: usize,
}

impl Mailroom {
    /// What other nodes report is noted here; a thread of its own does what takes longer.
    fn take_notice(&self, from: NodeId, notice: Notice) {
        let Some(joined) = Registry::global().joined() else { return };
        let again = match notice {
            Notice::Report(report) => self.remote_presence.hear_report(from, report),
            notice => {
                let is_pulse = matches!(notice, Notice::Pulse(_));
                let again = is_pulse.then(|| self.remote_presence.hear_pulse(from)).flatten();
                if matches!(notice, Notice::Bye) {
                    self.remote_presence.leave(from);
                }
                let has_watches =
                    matches!(&notice, Notice::Pulse(Pulse { watches, .. }) if !watches.is_empty());
                self.remote_presence.pass_on(from, notice);
                if has_watches {
                    presence_thread::start_or_log(&joined);
                }
                again
            }
        };
        if let Some(stream) = again {
            crossing::tell(&joined, from, &Notice::Again { stream });
        }
    }
}

impl Arrivals for Mailroom {
    fn arrive(&self, channel: &str, from: NodeId, content: &[u8], has_more: bool) -> bool {
        let way = self.channels.way(channel);
        let opened = way.and_then(|way| envelope::open(way, self.node, content));
        let Some((receivers, letter)) = opened else { return false };
        let registry = Registry::global();
        match letter {
            Letter::Send { frame, key, may_close } => {
                let place = key.as_deref().map_or(Place::Last, Place::Key);
                // Whoever waits for room waits where it has sent.
                let patience = if may_close { Patience::Settings } else { Patience::Until(None) };
                let message = PreparedMessage::from(frame);
                let members = registry.find(&receivers);
                if has_more && key.is_none() {
                    self.deliver_with_next(&members, &message, patience);
                } else {
                    reach::deliver(&members, place, &message, patience, |_| ());
                }
            }
            Letter::Close(close) => {
                reach::seal(&registry.find(&receivers), &close);
            }
            Letter::Subscribe(topic) => {
                // Whoever asked was not told how many have subscribed either.
                let _ = registry.subscribe(&receivers, &topic);
            }
            Letter::Unsubscribe(topic) => {
                registry.unsubscribe(&receivers, &topic);
            }
            Letter::Ask(Inquiry { asker, number, what }) => {
                if let Some(joined) = registry.joined() {
                    crossing::answer(&joined, asker, number, Members::answer(receivers, &what));
                }
            }
            Letter::Question(Question { number, time, message }) => {
                if let Some(joined) = registry.joined() {
                    let time = Duration::from_millis(time);
                    relay::ask(&joined, (from, number), &receivers, message, time);
                }
            }
            Letter::Flush { number, time } => {
                if let Some(joined) = registry.joined() {
                    let time = Duration::from_millis(time);
                    relay::flush(&joined, (from, number), &receivers, time);
                }
            }
            Letter::Forget(number) => {
                if let Some(joined) = registry.joined() {
                    relay::forget(&joined, (from, number));
                }
            }
            Letter::Notice(content) => match notices::read(&content) {
                Some(notice) => self.take_notice(from, notice),
                None => return false,
            },
            Letter::Answer(answer) => {
                if let Target::Connection(question) = receivers.target {
                    self.survey.answer(question.number(), Some(answer));
                }
            }
        }
        true
    }

    fn rest(&self) {
        self.write_unwritten();
    }

    fn come_home(&self, content: &[u8]) {
        match envelope::open_at_home(content) {
            Some(Home::Ask(number)) => self.survey.answer(number, None),
            Some(Home::Notice(content)) => {
                if let Some(Notice::Pulse(Pulse { turn: 1.., .. })) = notices::read(&content) {
                    self.remote_presence.end_turn();
                }
            }
            None => {}
        }
    }

    fn happen(&self, event: Event) {
        match event {
            Event::Risen { .. } => self.remote_presence.rise(),
            Event::Unpublished { .. } => self.remote_presence.note_lost(),
            Event::Fallen { .. } | Event::Missed { .. } => {}
        }
        let Some(gaps) = &self.gaps else { return };
        gaps.add(match event {
            Event::Fallen { reason } => Gap::Alone { reason },
            Event::Risen { after } => Gap::Back { after },
            Event::Missed { from, channel, count } => {
                let comms = gaps::receivers(self.channels.way(&channel));
                let Some(comms) = comms else { return };
                Gap::Missed { from, count, comms }
            }
            Event::Unpublished { count } => Gap::Unpublished { count },
        });
    }
}

impl Mailroom {
    /// Without waiting. The threads that read from the masters of a Redis Cluster come here at the same time, and each may write
    /// what others have left.
    fn deliver_with_next(&self, members: &Outboxes, message: &PreparedMessage, patience: Patience) {
        let waiting = members.iter().filter(|(_, outbox)| outbox.send_with_next(message, patience));
        let waiting: Vec<_> = waiting.map(|(_, outbox)| Arc::clone(outbox)).collect();
        let mut unwritten = self.unwritten.lock();
        unwritten.outboxes.extend(waiting);
        unwritten.messages += members.len();
        if unwritten.messages >= MAX_UNWRITTEN {
            drop(unwritten);
            self.write_unwritten();
        }
    }

    /// Without the lock while something is written.
    fn write_unwritten(&self) {
        let Unwritten { outboxes, .. } = mem::take(&mut *self.unwritten.lock());
        outboxes.iter().for_each(|outbox| outbox.write_waiting());
    }
}
