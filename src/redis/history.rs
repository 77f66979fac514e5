//! What was heard in a channel, and for a while what was heard in those that nobody listens to any more: what comes twice is
//! seen, even where somebody has left and come back in between.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::redis::node::NodeId;
use crate::redis::sequences::{self, Heard, Place};

/// How many senders of a channel are known, at most. Nodes that have ended are among them, and whoever publishes may make
/// others up.
const MAX_SENDERS: usize = 1024;
/// How many channels that nobody listens to are remembered, at most.
const MAX_FORMER: usize = 10_000;

/// Of one channel. Whoever was heard last stands last.
#[derive(Debug, Default)]
pub(crate) struct History(SmallVec<[Sender; 1]>);

#[derive(Debug)]
struct Sender {
    node: NodeId,
    /// Its last number that was heard.
    last: u64,
    /// There may have been others since, which nobody wanted to hear.
    is_interrupted: bool,
}

impl History {
    pub(crate) fn hear(&mut self, from: NodeId, place: Place) -> Heard {
        let Some(at) = self.0.iter().rposition(|sender| sender.node == from) else {
            if self.0.len() == MAX_SENDERS {
                self.0.remove(0);
            }
            self.0.push(Sender { node: from, last: place.number, is_interrupted: false });
            return Heard::Next;
        };
        self.0[at..].rotate_left(1);
        let Some(sender) = self.0.last_mut() else { return Heard::Next };
        if sender.is_interrupted && place.number > sender.last {
            (sender.last, sender.is_interrupted) = (place.number, false);
            return Heard::Next;
        }
        sequences::hear(&mut sender.last, place)
    }
}

/// Of channels that nobody listens to any more.
#[derive(Debug, Default)]
pub(crate) struct Former {
    histories: HashMap<Arc<str>, (History, Instant)>,
    /// By the time when they were left. Some of them were taken up again.
    left: VecDeque<(Instant, Arc<str>)>,
}

impl Former {
    /// Remembers a channel, and forgets those that were left longer ago than `memory`.
    pub(crate) fn keep(
        &mut self,
        name: Arc<str>,
        mut history: History,
        now: Instant,
        memory: Duration,
    ) {
        while let Some((left, _)) = self.left.front() {
            let is_old = now.saturating_duration_since(*left) >= memory;
            if !is_old && self.left.len() < MAX_FORMER {
                break;
            }
            self.forget_first();
        }
        if history.0.is_empty() {
            return;
        }
        history.0.iter_mut().for_each(|sender| sender.is_interrupted = true);
        self.left.push_back((now, Arc::clone(&name)));
        self.histories.insert(name, (history, now));
    }

    /// What was heard in a channel that somebody listens to again.
    pub(crate) fn take(&mut self, name: &str) -> History {
        self.histories.remove(name).map(|(history, _)| history).unwrap_or_default()
    }

    /// Takes out those that are meant, for another one.
    pub(crate) fn take_all(
        &mut self,
        is_meant: &impl Fn(&str) -> bool,
    ) -> Vec<(Arc<str>, History, Instant)> {
        let taken = self.histories.extract_if(|name, _| is_meant(name));
        taken.map(|(name, (history, left))| (name, history, left)).collect()
    }

    /// Remembers what another one did.
    pub(crate) fn put(&mut self, name: Arc<str>, history: History, left: Instant) {
        self.left.push_back((left, Arc::clone(&name)));
        self.histories.insert(name, (history, left));
    }

    fn forget_first(&mut self) {
        let Some((left, name)) = self.left.pop_front() else { return };
        // It may have been taken up, and left again.
        if self.histories.get(&name).is_some_and(|(_, last)| *last == left) {
            self.histories.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: Duration = Duration::from_secs(10);

    fn place(number: u64) -> Place {
        Place { start: 1, number }
    }

    #[test]
    fn what_comes_twice_is_seen_after_an_absence_and_what_was_not_wanted_is_no_loss() {
        let (node, now, mut former) = (NodeId::random(), Instant::now(), Former::default());
        let mut history = History::default();
        assert_eq!(history.hear(node, place(5)), Heard::Next);
        former.keep("a".into(), history, now, MEMORY);
        let mut history = former.take("a");
        assert_eq!(history.hear(node, place(5)), Heard::Again);
        assert_eq!(history.hear(node, place(9)), Heard::Next, "nobody wanted 6 to 8");
        assert_eq!(history.hear(node, place(11)), Heard::After(1));
        assert!(former.take("a").0.is_empty(), "it is with whoever listens");
    }

    #[test]
    fn what_is_remembered_is_bounded_in_time_and_number() {
        let (node, now, mut former) = (NodeId::random(), Instant::now(), Former::default());
        let heard = || {
            let mut history = History::default();
            history.hear(node, place(1));
            history
        };
        former.keep("old".into(), heard(), now, MEMORY);
        former.keep("young".into(), heard(), now + MEMORY / 2, MEMORY);
        former.keep("nothing heard".into(), History::default(), now + MEMORY, MEMORY);
        assert_eq!(former.histories.len(), 1);
        assert!(!former.take("young").0.is_empty());
        for number in 0..2 * MAX_FORMER {
            // One is taken up and left each time.
            let again = former.take("again");
            let again = if again.0.is_empty() { heard() } else { again };
            let later = now + MEMORY + Duration::from_nanos(number as u64);
            former.keep("again".into(), again, later, MEMORY);
            former.keep(number.to_string().into(), heard(), later, MEMORY);
        }
        assert!(former.left.len() <= MAX_FORMER && former.histories.len() <= MAX_FORMER);
        assert!(!former.take("again").0.is_empty(), "it was left last");
    }

    #[test]
    fn senders_without_end_are_forgotten_but_for_those_that_go_on() {
        let (node, mut history) = (NodeId::random(), History::default());
        for number in 1..3 * MAX_SENDERS as u64 {
            assert_eq!(history.hear(node, place(number)), Heard::Next);
            history.hear(NodeId::random(), place(number));
        }
        assert_eq!(history.0.len(), MAX_SENDERS);
        assert_eq!(history.hear(node, place(1)), Heard::Again);
    }
}
