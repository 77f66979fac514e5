//! What has gone over a connection to Redis, counted.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds what others claim, which has no bounds.
    pub(crate) fn add_claimed(&self, count: u64) {
        let add = |old: u64| Some(old.saturating_add(count));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Messages that Redis has confirmed.
    pub(crate) published: Counter,
    /// Messages of other nodes.
    pub(crate) received: Counter,
    /// Messages from here that could not be published in time.
    pub(crate) lost: Counter,
    /// Messages of other nodes that did not get here.
    pub(crate) missed: Counter,
    /// Messages that came once more, and were passed over.
    pub(crate) repeated: Counter,
    /// Messages of other versions, which were passed over.
    pub(crate) unknown: Counter,
    /// Nodes that did not answer in time.
    pub(crate) unanswered: Counter,
    pub(crate) reconnects: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_claim_ends_at_the_largest_number() {
        let counter = Counter::default();
        counter.add(1);
        counter.add_claimed(u64::MAX);
        assert_eq!(counter.get(), u64::MAX);
    }
}
