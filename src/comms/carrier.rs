//! Asks clients of this node what another node wants to know of them, and tells it what they say.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::base::deadline;
use crate::comms::crossing;
use crate::comms::errands::{Errand, Key, Opened, Reply};
use crate::comms::flush::{self, Flushed};
use crate::comms::joined::Joined;
use crate::comms::receivers::Receivers;
use crate::comms::registry::Registry;
use crate::comms::watchman;
use crate::redis::desk::Posted;
use crate::websocket::message::{Message, Outgoing};
use crate::websocket::questions::{self, Asker};
use crate::websocket::room::NotTaken;

/// Waits for the answer: whoever is asked holds it. When nobody does any more, there is none to come.
#[derive(Debug)]
struct Carrier {
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
    let errand = Errand { number, until: deadline::after(time), asked };
    // Before anybody can answer.
    let opened = joined.errands.open(key, errand);
    match opened {
        Opened::First | Opened::Later => {}
        Opened::Known => return,
        Opened::TooMany => return reply(joined, key, &Reply::TooMany),
    }
    let carrier: Arc<dyn Asker> = Arc::new(Carrier { joined: Arc::clone(joined), key });
    let (mut count, mut reason) = (0, Reply::Nobody);
    for (_, outbox) in &members {
        match outbox.ask(number, &question, &carrier) {
            Ok(()) => count += 1,
            Err(NotTaken::Full) => reason = Reply::Full,
            Err(NotTaken::Closing) => reason = Reply::Closed,
        }
    }
    if count == 0 {
        if joined.errands.take(key).is_some() {
            reply(joined, key, &reason);
        }
    } else if opened == Opened::First {
        // It keeps the time.
        watchman::start_or_log(joined);
        joined.lookout.ring();
    }
}

/// Nobody waits for the answer any more.
pub(crate) fn forget(joined: &Joined, key: Key) {
    if let Some(errand) = joined.errands.take(key) {
        errand.retire();
    }
}

/// Waits, on a thread, until those who are meant have received all.
pub(crate) fn flush(joined: &Arc<Joined>, key: Key, receivers: &Receivers, time: Duration) {
    let members = Registry::global().find(receivers);
    if members.is_empty() {
        return tell(joined, key, Some(&Flushed::default()));
    }
    let Some(place) = joined.errands.begin_flush() else { return tell(joined, key, None) };
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
    for key in joined.errands.keys() {
        if let Some(errand) = joined.errands.take(key) {
            reply(joined, key, &Reply::Closed);
            errand.retire();
        }
    }
}

fn reply(joined: &Joined, (node, number): Key, reply: &Reply) {
    let posted = crossing::answer(joined, node, number, reply.write());
    if posted == Posted::TooLarge {
        crossing::answer(joined, node, number, Reply::Lost.write());
    }
}

impl Asker for Carrier {
    fn answer(&self, message: Message) {
        if let Some(errand) = self.joined.errands.take(self.key) {
            reply(&self.joined, self.key, &Reply::Answer(message));
            errand.retire();
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Some(errand) = self.joined.errands.take(self.key) {
            reply(&self.joined, self.key, &errand.why_closed());
        }
    }
}
