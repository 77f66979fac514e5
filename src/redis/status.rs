//! What is told of a connection to Redis: how it is, in the log, in counters, and to whoever observes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::contained::contained;
use crate::redis::address::Address;
use crate::redis::fault::Fault;
use crate::redis::health::Health;
use crate::redis::log_throttle::LogThrottle;
use crate::redis::node::NodeId;
use crate::redis::observers::{Arrivals, Event};
use crate::redis::tally::Tally;
use crate::redis::writer::Posted;

/// Redis is away still: the log says so again after this time.
const REMINDER: Duration = Duration::from_secs(60);

pub(crate) struct Status {
    /// Where Redis is, as it is shown.
    address: String,
    /// Whether it is a shard of a Redis Cluster.
    is_shard: bool,
    arrivals: Arc<dyn Arrivals>,
    pub(crate) tally: Arc<Tally>,
    state: Mutex<State>,
    missed: LogThrottle,
    lost: LogThrottle,
}

struct State {
    health: Health,
    /// When the log last said that it is away, and why.
    told: Option<(Instant, Fault)>,
}

impl Status {
    /// Of a connection that is yet to be made.
    pub(crate) fn new(
        address: &Address,
        is_shard: bool,
        arrivals: Arc<dyn Arrivals>,
        tally: Arc<Tally>,
    ) -> Self {
        let health = Health { is_up: false, since: Instant::now(), reason: None, round_trip: None };
        Self {
            address: address.to_string(),
            is_shard,
            arrivals,
            tally,
            state: Mutex::new(State { health, told: None }),
            missed: LogThrottle::default(),
            lost: LogThrottle::default(),
        }
    }

    pub(crate) fn health(&self) -> Health {
        self.state.lock().health.clone()
    }

    /// A probe was answered, after so much time.
    pub(crate) fn note_round_trip(&self, time: Duration) {
        self.state.lock().health.round_trip = Some(time);
    }

    pub(crate) fn note_up(&self) {
        let mut state = self.state.lock();
        let (time, was_away) = (state.health.since.elapsed(), state.told.take().is_some());
        // Whoever sees that it is up sees that too.
        self.tally.reconnects.add(was_away.into());
        (state.health.is_up, state.health.since) = (true, Instant::now());
        drop(state);
        if !was_away {
            return;
        }
        let address = &self.address;
        contained(|| {
            if self.is_shard {
                log::info!(
                    target: "rwf::cluster",
                    "a shard is back redis={address} after={time:.1?}"
                );
            } else {
                log::info!(
                    target: "rwf::cluster",
                    "this node is back in the cluster redis={address} after={time:.1?}"
                );
            }
        });
        self.arrivals.happen(Event::Risen { after: time });
    }

    /// The connection is over, which [`tell_down`](Self::tell_down) tells, unless it was to end.
    pub(crate) fn note_down(&self, fault: &Fault) {
        let mut state = self.state.lock();
        state.health.is_up = false;
        state.health.since = Instant::now();
        state.health.reason = Some(fault.to_string());
        state.told = Some((Instant::now(), fault.clone()));
    }

    pub(crate) fn tell_down(&self, fault: &Fault) {
        let address = &self.address;
        contained(|| {
            if self.is_shard {
                log::warn!(target: "rwf::cluster", "a shard is away redis={address}: {fault}");
            } else {
                log::warn!(target: "rwf::cluster", "this node is on its own redis={address}: {fault}");
            }
        });
        let reason = match self.is_shard {
            false => fault.to_string(),
            true => format!("the shard {address}: {fault}"),
        };
        self.arrivals.happen(Event::Fallen { reason });
    }

    /// It could not be made again. The log tells when another reason is found, and now and then.
    pub(crate) fn note_still_down(&self, fault: &Fault) {
        let mut state = self.state.lock();
        let (address, time) = (&self.address, state.health.since.elapsed());
        state.health.reason = Some(fault.to_string());
        let is_known =
            |(told, known): &(Instant, Fault)| known == fault && told.elapsed() < REMINDER;
        if state.told.as_ref().is_some_and(is_known) {
            return;
        }
        state.told = Some((Instant::now(), fault.clone()));
        drop(state);
        contained(|| {
            if self.is_shard {
                log::warn!(
                    target: "rwf::cluster",
                    "a shard is still away redis={address} after={time:.1?}: {fault}"
                );
            } else {
                log::warn!(
                    target: "rwf::cluster",
                    "this node is still on its own redis={address} after={time:.1?}: {fault}"
                );
            }
        });
    }

    /// It has ended for good, where others bring its channels from now on: they are back when its heirs are, of which the first
    /// that is not there yet tells so.
    pub(crate) fn pass_on<'a>(&self, heirs: impl Iterator<Item = &'a Self>) {
        let mut state = self.state.lock();
        let (since, told) = (state.health.since, state.told.take());
        drop(state);
        let Some(told) = told else { return };
        for heir in heirs {
            let mut state = heir.state.lock();
            if !state.health.is_up {
                state.health.since = state.health.since.min(since);
                state.told.get_or_insert(told);
                return;
            }
        }
        self.tally.reconnects.add(1);
        self.arrivals.happen(Event::Risen { after: since.elapsed() });
    }

    pub(crate) fn note_missed(&self, from: NodeId, channel: &str, count: u64) {
        self.tally.missed.add_claimed(count);
        if let Some(count) = self.missed.add(count) {
            contained(|| {
                log::warn!(
                    target: "rwf::cluster",
                    "messages of another node did not get here node={from} missed={count}"
                );
            });
        }
        self.arrivals.happen(Event::Missed { from, channel: channel.to_owned(), count });
    }

    /// Tells of a message that was lost, where no lock is held.
    pub(crate) fn note_posted(&self, posted: Posted) -> Posted {
        match posted {
            Posted::Handed | Posted::Waiting => {}
            Posted::Lost => self.note_lost(1, "no more may wait for it"),
            Posted::TooLarge => self.note_lost(1, "it is larger than `max_message_size`"),
        }
        posted
    }

    /// Tells of messages that were not confirmed when this node left.
    pub(crate) fn note_left_behind(&self, count: u64) {
        if count > 0 {
            self.note_lost(count, "this node leaves the cluster");
        }
    }

    pub(crate) fn note_lost(&self, count: u64, why: &str) {
        self.tally.lost.add(count);
        if let Some(count) = self.lost.add(count) {
            let address = &self.address;
            contained(|| {
                log::warn!(
                    target: "rwf::cluster",
                    "messages did not get to other nodes redis={address} lost={count}: {why}"
                );
            });
        }
        self.arrivals.happen(Event::Unpublished { count });
    }
}
