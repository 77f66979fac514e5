//! Asks clients of this node what another node wants to know of them, and tells it what they say.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::base::deadline;
use crate::comms::crossing;
use crate::comms::flush::{self, Flushed};
use crate::comms::joined::Joined;
use crate::comms::presence_thread;
use crate::comms::receivers::Receivers;
use crate::comms::registry::Registry;
use crate::comms::relayed_requests::{Key, Opened, RelayedRequest, Reply};
use crate::redis::writer::Posted;
use crate::websocket::message::{Message, Outgoing};
use crate::websocket::questions::{self, Asker};
use crate::websocket::room::NotTaken;

/// Waits for the answer: whoever is asked holds it. When nobody does any more, there is none to come.
#[derive(Debug)]
struct Relay {
    joined: Arc<Joined>,
    key: Key,
}

/// Asks those who are meant, and waits for none of them.
pub(crate) fn ask(
    joined: &Arc<Joined>,
    key: Key,
    receivers: &Receivers,
    question: Outgoing,
    time: Duration,
) {
    let members = Registry::global().find(receivers);
    if members.is_empty() {
        return reply(joined, key, &Reply::Nobody);
    }
    let number = questions::next_number();
    let question = questions::prepare(number, question);
    let asked = members.iter().map(|(_, outbox)| Arc::downgrade(outbox)).collect();
    let request = RelayedRequest { number, until: deadline::after(time), asked };
    // Before anybody can answer.
    let opened = joined.relayed_requests.open(key, request);
    match opened {
        Opened::First | Opened::Later => {}
        Opened::Known => return,
        Opened::TooMany => return reply(joined, key, &Reply::TooMany),
    }
    let relay: Arc<dyn Asker> = Arc::new(Relay { joined: Arc::clone(joined), key });
    let (mut count, mut reason) = (0, Reply::Nobody);
    for (_, outbox) in &members {
        match outbox.ask(number, &question, &relay) {
            Ok(()) => count += 1,
            Err(NotTaken::Full) => reason = Reply::Full,
            Err(NotTaken::Closing) => reason = Reply::Closed,
        }
    }
    if count == 0 {
        if joined.relayed_requests.take(key).is_some() {
            reply(joined, key, &reason);
        }
    } else if opened == Opened::First {
        // It keeps the time.
        presence_thread::start_or_log(joined);
        joined.remote_presence.ring();
    }
}

/// Nobody waits for the answer any more.
pub(crate) fn forget(joined: &Joined, key: Key) {
    if let Some(request) = joined.relayed_requests.take(key) {
        request.retire();
    }
}

/// Waits, on a thread, until those who are meant have received all.
pub(crate) fn flush(joined: &Arc<Joined>, key: Key, receivers: &Receivers, time: Duration) {
    let members = Registry::global().find(receivers);
    if members.is_empty() {
        return tell(joined, key, Some(&Flushed::default()));
    }
    let Some(place) = joined.relayed_requests.begin_flush() else { return tell(joined, key, None) };
    let (kept, deadline) = (Arc::clone(joined), deadline::after(time));
    let wait = move || {
        tell(&kept, key, Some(&flush::flush(&members, deadline)));
        drop(place);
    };
    if thread::Builder::new().name("rwf-flush".to_owned()).spawn(wait).is_err() {
        tell(joined, key, None);
    }
}

/// None is that it cannot be said, for which an empty answer stands.
fn tell(joined: &Joined, (node, number): Key, flushed: Option<&Flushed>) {
    let answer = flushed.map_or(Vec::new(), Flushed::write);
    if crossing::answer(joined, node, number, answer) == Posted::TooLarge {
        crossing::answer(joined, node, number, Vec::new());
    }
}

/// This node leaves the cluster.
pub(crate) fn forget_all(joined: &Joined) {
    for key in joined.relayed_requests.keys() {
        if let Some(request) = joined.relayed_requests.take(key) {
            reply(joined, key, &Reply::Closed);
            request.retire();
        }
    }
}

fn reply(joined: &Joined, (node, number): Key, reply: &Reply) {
    let posted = crossing::answer(joined, node, number, reply.write());
    if posted == Posted::TooLarge {
        crossing::answer(joined, node, number, Reply::Lost.write());
    }
}

impl Asker for Relay {
    fn answer(&self, message: Message) {
        if let Some(request) = self.joined.relayed_requests.take(self.key) {
            reply(&self.joined, self.key, &Reply::Answer(message));
            request.retire();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(request) = self.joined.relayed_requests.take(self.key) {
            reply(&self.joined, self.key, &request.why_closed());
        }
    }
}
