//! Tells the program when the cluster does not bring everything: on a thread of its own, which no message waits for.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::contained::contained;
use crate::comms::joined::Way;
use crate::comms::reach::Comms;
use crate::redis::node::NodeId;

/// How many gaps wait for the program, each by itself. Further ones are added to those of the same kind.
const MAX_WAITING: usize = 1024;
/// What could not be published is told once in this time: what the program sends then may not be published either.
const QUIET: Duration = Duration::from_secs(1);

/// What a cluster has not brought, or may not bring: told to the function that
/// [`Cluster::on_gap`](crate::cluster::Cluster::on_gap) takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Gap {
    /// This node has lost Redis. What is sent reaches those who are here, and others only if Redis is back in time. Of a
    /// Redis Cluster it is one master, which the reason names; what goes through others goes on.
    #[non_exhaustive]
    Alone {
        /// Why, for people.
        reason: String,
    },
    /// Redis is back, and this node hears again all that it wants to hear. What was sent meanwhile by nodes that had Redis
    /// did not get here; where they send more to the same receivers, it is counted as [`Missed`](Self::Missed).
    #[non_exhaustive]
    Back {
        /// How long it was away.
        after: Duration,
    },
    /// Messages of another node did not get here.
    #[non_exhaustive]
    Missed {
        /// Which node's.
        from: NodeId,
        /// How many.
        count: u64,
        /// Those of this node for whom they were: to have their clients load what they show anew, say. There are more of
        /// them in it than were meant, where so many gaps wait to be told that they are added up.
        comms: Comms,
    },
    /// Messages of this node did not get to the others in time. Told once a second at most.
    #[non_exhaustive]
    Unpublished {
        /// How many.
        count: u64,
    },
}

/// The gaps that wait to be told.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Gap>,
    /// How many messages of this node did not get to the others, and when that was last told.
    unpublished: u64,
    told: Option<Instant>,
    is_over: bool,
}

/// The program's function.
pub(crate) type Hook = Arc<dyn Fn(&Gap) + Send + Sync>;

impl Gaps {
    /// Calls `hook` with each gap, until [`end`](Self::end).
    pub(crate) fn start(self: &Arc<Self>, hook: Hook) -> io::Result<JoinHandle<()>> {
        let gaps = Arc::clone(self);
        thread::Builder::new().name("rwf-gaps".to_owned()).spawn(move || {
            while let Some(gap) = gaps.next() {
                contained(|| hook(&gap));
            }
        })
    }

    pub(crate) fn add(&self, gap: Gap) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        state.add(gap);
        drop(state);
        self.changed.notify_one();
    }

    /// What waits is told still.
    pub(crate) fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_one();
    }

    fn next(&self) -> Option<Gap> {
        let mut state = self.state.lock();
        loop {
            let gap = state.waiting.pop_front().or_else(|| state.take_unpublished());
            if gap.is_some() || state.is_over {
                return gap;
            }
            match state.told.filter(|_| state.unpublished > 0) {
                Some(told) => drop(self.changed.wait_until(&mut state, told + QUIET)),
                None => self.changed.wait(&mut state),
            }
        }
    }
}

impl State {
    /// No gap is forgotten, and no more of them wait than there is room for.
    fn add(&mut self, gap: Gap) {
        let is_full = self.waiting.len() >= MAX_WAITING;
        match &gap {
            Gap::Unpublished { count } => {
                self.unpublished = self.unpublished.saturating_add(*count);
                return;
            }
            Gap::Missed { from: other, count: more, .. } if is_full => {
                let is_same =
                    |waiting: &Gap| matches!(waiting, Gap::Missed { from, .. } if from == other);
                let is_one = |waiting: &Gap| matches!(waiting, Gap::Missed { .. });
                // There is no end of names that a node may have. Rather than none, it is told by another one's.
                let at = self.waiting.iter().rposition(is_same);
                let at = at.or_else(|| self.waiting.iter().rposition(is_one));
                let waiting = at.and_then(|at| self.waiting.get_mut(at));
                if let Some(Gap::Missed { count, comms, .. }) = waiting {
                    *count = count.saturating_add(*more);
                    *comms = Comms::notify().on_this_node();
                    return;
                }
            }
            // There is one of each for each time that Redis is lost, and the delays between these grow.
            Gap::Missed { .. } | Gap::Alone { .. } | Gap::Back { .. } => {}
        }
        self.waiting.push_back(gap);
    }

    fn take_unpublished(&mut self) -> Option<Gap> {
        let is_early = self.told.is_some_and(|told| told.elapsed() < QUIET) && !self.is_over;
        if self.unpublished == 0 || is_early {
            return None;
        }
        self.told = Some(Instant::now());
        Some(Gap::Unpublished { count: mem::take(&mut self.unpublished) })
    }
}

/// Those of this node whom a channel leads to; nobody for what nodes tell each other.
pub(crate) fn receivers(way: Option<Way>) -> Option<Comms> {
    let comms = match way {
        Some(Way::To(target)) => Comms::to(target),
        // Which connection it was is in the message that did not come.
        Some(Way::Connection) | None => Comms::notify(),
        Some(Way::Notices) => return None,
    };
    Some(comms.on_this_node())
}

/// As a line for the log of a program.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone { reason } => write!(f, "this node is on its own: {reason}"),
            Self::Back { after } => write!(f, "this node is back in the cluster after {after:.1?}"),
            Self::Missed { from, count, .. } => {
                write!(f, "{count} messages of the node {from} did not get here")
            }
            Self::Unpublished { count } => {
                write!(f, "{count} messages did not get to other nodes")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_takes_is_added_up_and_nothing_is_forgotten() {
        let (gaps, nodes) = (Gaps::default(), [NodeId::random(), NodeId::random()]);
        for number in 0..10 * MAX_WAITING {
            let (from, comms) = (nodes[number % 2], Comms::topic(number.to_string()));
            gaps.add(Gap::Missed { from, count: 1, comms });
            gaps.add(Gap::Unpublished { count: 1 });
        }
        gaps.end();
        gaps.add(Gap::Unpublished { count: 1 });
        let told: Vec<_> = std::iter::from_fn(|| gaps.next()).collect();
        assert!(told.len() <= MAX_WAITING + 2, "{} wait", told.len());
        let (mut missed, mut unpublished) = (0, 0);
        for gap in told {
            match gap {
                Gap::Missed { count, .. } => missed += count,
                Gap::Unpublished { count } => unpublished += count,
                other => panic!("{other}"),
            }
        }
        assert_eq!((missed, unpublished), (10 * MAX_WAITING as u64, 10 * MAX_WAITING as u64));
    }
    #[test]
    fn what_could_not_be_published_is_told_at_once_and_then_once_a_second() {
        let gaps = Gaps::default();
        let began = Instant::now();
        for _ in 0..2 {
            gaps.add(Gap::Unpublished { count: 1 });
            assert!(matches!(gaps.next(), Some(Gap::Unpublished { count: 1 })));
        }
        assert!(began.elapsed() >= QUIET, "the second one after {:?}", began.elapsed());
        for _ in 0..5 {
            gaps.add(Gap::Unpublished { count: 1 });
            let back = Gap::Back { after: QUIET };
            gaps.add(back);
            assert!(matches!(gaps.next(), Some(Gap::Back { .. })), "others do not wait for it");
        }
        gaps.end();
        assert!(matches!(gaps.next(), Some(Gap::Unpublished { count: 5 })), "at the end too");
        assert!(gaps.next().is_none());
    }

    #[test]
    fn losses_of_nodes_without_end_take_no_more_room() {
        let gaps = Gaps::default();
        for _ in 0..2 * MAX_WAITING {
            let comms = Comms::topic("a");
            gaps.add(Gap::Missed { from: NodeId::random(), count: 1, comms });
        }
        assert_eq!(gaps.state.lock().waiting.len(), MAX_WAITING);
        gaps.end();
        let told = std::iter::from_fn(|| gaps.next()).map(|gap| match gap {
            Gap::Missed { count, .. } => count,
            other => panic!("{other}"),
        });
        assert_eq!(told.sum::<u64>(), 2 * MAX_WAITING as u64);
    }
}
