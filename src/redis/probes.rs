//! Whether a Redis is still there: when it is asked for a sign of life, and for how long it may give none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::deadline;

/// The thread that reads has something to do.
const BUSY: u64 = u64::MAX;

/// The probes of one connection after the other. One at a time is under way.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    /// The number of the last one.
    last: u64,
    /// When the one was sent that has not come back.
    sent: Option<Instant>,
    next: Option<Instant>,
}

impl Probes {
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.sent.is_none() && self.next.is_none_or(|at| at <= now)
    }

    pub(crate) fn is_awaited(&self) -> bool {
        self.sent.is_some()
    }

    /// When the next one is due, if that is known.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// The number of one that is sent now.
    pub(crate) fn send(&mut self, now: Instant, interval: Duration) -> u64 {
        self.last += 1;
        self.sent = Some(now);
        self.next = Some(deadline::later(now, interval));
        self.last
    }

    /// One has come back; how long that took.
    pub(crate) fn came(&mut self, number: u64) -> Option<Duration> {
        if number == self.last { self.answered() } else { None }
    }

    /// The last one was answered, if it is awaited; how long that took.
    pub(crate) fn answered(&mut self) -> Option<Duration> {
        self.sent.take().map(|sent| sent.elapsed())
    }

    /// The connection is over: none is awaited, and the next one has its first at once.
    pub(crate) fn reset(&mut self) {
        (self.sent, self.next) = (None, None);
    }

    /// When a connection whose probe has not come back counts as dead, if nothing comes until then. Anything that comes is a
    /// sign of life: the probe may stand behind much of it, and what keeps this node busy is not the fault of Redis.
    pub(crate) fn dead_at(
        &self,
        silence: &Silence,
        now: Instant,
        timeout: Duration,
    ) -> Option<Instant> {
        let sent = self.sent?;
        let since = silence.since().map_or(now, |since| since.max(sent));
        Some(deadline::later(since, timeout))
    }
}

/// Since when the thread that reads waits for Redis to say something.
#[derive(Debug)]
pub(crate) struct Silence {
    began: Instant,
    /// In milliseconds since then, or [`BUSY`].
    since: AtomicU64,
}

impl Silence {
    /// None.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), since: AtomicU64::new(BUSY) }
    }

    /// From now on the thread that reads waits.
    pub(crate) fn begin(&self) {
        let time = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(BUSY);
        self.since.store(time, Ordering::Relaxed);
    }

    /// Redis has said something.
    pub(crate) fn end(&self) {
        self.since.store(BUSY, Ordering::Relaxed);
    }

    fn since(&self) -> Option<Instant> {
        match self.since.load(Ordering::Relaxed) {
            BUSY => None,
            millis => Some(self.began + Duration::from_millis(millis)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_probe_is_under_way_and_an_older_one_does_not_count_for_it() {
        let (mut probes, now) = (Probes::default(), Instant::now());
        assert!(probes.is_due(now), "the first one at once");
        let first = probes.send(now, SECOND);
        assert!(!probes.is_due(now + 2 * SECOND), "while it is awaited");
        assert!(probes.came(first).is_some() && probes.came(first).is_none(), "it comes once");
        assert!(!probes.is_due(now) && probes.is_due(now + SECOND));
        probes.send(now, Duration::MAX);
        assert_eq!((probes.came(first), probes.is_awaited()), (None, true));
        probes.reset();
        assert!(!probes.is_awaited() && probes.is_due(now), "on the next connection");
    }

    #[test]
    fn a_connection_is_dead_when_a_probe_is_awaited_and_nothing_at_all_has_come_for_so_long() {
        let (mut probes, silence) = (Probes::default(), Silence::new());
        silence.begin();
        let sent = Instant::now() + SECOND;
        assert_eq!(probes.dead_at(&silence, sent, SECOND), None, "nothing is awaited");
        probes.send(sent, SECOND);
        let now = sent + SECOND;
        assert_eq!(probes.dead_at(&silence, now, SECOND), Some(now), "silence before it is none");
        silence.end();
        assert_eq!(probes.dead_at(&silence, now, SECOND), Some(now + SECOND), "this node is busy");
    }
}
