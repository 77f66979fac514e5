//! How often something may happen: a rate with a burst, and the token bucket that measures it. The clock is passed in.

use std::fmt;
use std::time::{Duration, Instant};

use crate::base::deadline::FOREVER;

/// So much in a period on average, and so much at once.
///
/// For what clients send and how often they come: the limits of an endpoint
/// ([`message_rate`](crate::controller::Websocket::message_rate) and its neighbours), and
/// [`handshake_rate_per_peer`](crate::http::Server::handshake_rate_per_peer).
///
/// ```
/// use rwf::controller::Rate;
/// use std::time::Duration;
///
/// let typing = Rate::per_second(5).burst(20);
/// let reconnecting = Rate::per(10, Duration::from_secs(60));
/// assert_eq!(typing.to_string(), "5 per 1s");
/// assert_eq!(reconnecting, reconnecting.burst(10), "what a period allows may come at once");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: usize,
    period: Duration,
    burst: usize,
}

impl Rate {
    /// `count` in a second, all of them at once if need be.
    #[must_use]
    pub fn per_second(count: usize) -> Self {
        Self::per(count, Duration::from_secs(1))
    }

    /// `count` in a `period`, all of them at once if need be. A period of more than a year counts as a year.
    #[must_use]
    pub fn per(count: usize, period: Duration) -> Self {
        Self { count, period, burst: count }
    }

    /// Lets `amount` come at once, after a while without any. Less than the count makes a rate even; more allows for
    /// people who do much now and then, and for networks and handlers that pause, behind which everything comes together.
    #[must_use]
    pub fn burst(mut self, amount: usize) -> Self {
        self.burst = amount;
        self
    }

    /// Whether anything may happen at all.
    pub(crate) fn allows_something(&self) -> bool {
        self.count > 0 && self.burst > 0 && !self.period.is_zero()
    }

    /// How much may happen in `time`.
    pub(crate) fn amount_in(&self, time: Duration) -> usize {
        let period = self.period.min(FOREVER).as_nanos().max(1);
        let amount = self.count as u128 * time.min(FOREVER).as_nanos() / period;
        usize::try_from(amount).unwrap_or(usize::MAX)
    }

    /// In what time `amount` may happen: rounded down, in favour of whoever keeps to the rate.
    fn time_of(&self, amount: usize) -> Duration {
        let nanos =
            self.period.min(FOREVER).as_nanos() * amount as u128 / self.count.max(1) as u128;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(FOREVER)
    }
}

/// Without the burst: `20 per 1s`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {:?}", self.count, self.period)
    }
}

/// What may still happen under a rate: a bucket that holds the burst, and fills at the rate.
///
/// One moment says it all: when the bucket is full again, if nothing more is taken. What is taken moves that moment on.
/// Nothing is there while it is further away than a whole burst takes. (The generic cell rate algorithm, GCRA.)
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    full_at: Instant,
}

/// It is not there in time; it will be after this.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooEarly(pub(crate) Duration);

impl Bucket {
    /// A full one.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// When it is full; one that is full is as good as a new one.
    pub(crate) fn full_at(&self) -> Instant {
        self.full_at
    }

    /// Takes `amount`, which is there after the returned time. Whoever takes some meanwhile gets it after that.
    ///
    /// # Errors
    ///
    /// It is not there within `patience`; then nothing is taken.
    pub(crate) fn take(
        &mut self,
        amount: usize,
        now: Instant,
        patience: Duration,
    ) -> Result<Duration, TooEarly> {
        let full_at = (self.full_at.max(now) + self.rate.time_of(amount)).min(now + FOREVER);
        let missing = full_at.saturating_duration_since(now);
        let wait = missing.saturating_sub(self.rate.time_of(self.rate.burst));
        if wait > patience {
            return Err(TooEarly(wait));
        }
        self.full_at = full_at;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_burst_comes_at_once_and_then_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::per_second(4).burst(3), now);
        let mut take = |at: Duration| bucket.take(1, now + at, Duration::ZERO);
        for _ in 0..3 {
            assert_eq!(take(Duration::ZERO), Ok(Duration::ZERO));
        }
        assert_eq!(take(Duration::ZERO), Err(TooEarly(SECOND / 4)));
        assert_eq!(take(SECOND / 5), Err(TooEarly(SECOND / 20)), "what is refused takes nothing");
        assert_eq!(take(SECOND / 4), Ok(Duration::ZERO));
        assert!(take(SECOND / 4).is_err());
        for _ in 0..3 {
            assert_eq!(take(60 * SECOND), Ok(Duration::ZERO), "it is full again");
        }
        assert!(take(60 * SECOND).is_err(), "it holds no more than the burst");
    }

    #[test]
    fn those_who_wait_get_it_one_after_the_other() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::per_second(10).burst(1), now);
        let waits: Vec<_> = (0..4).map(|_| bucket.take(1, now, SECOND).unwrap()).collect();
        assert_eq!(waits, [0, 100, 200, 300].map(Duration::from_millis));
    }

    #[test]
    fn extremes_do_not_overflow() {
        let now = Instant::now();
        for period in [Duration::from_nanos(1), SECOND, Duration::MAX] {
            for count in [1, usize::MAX] {
                let rate = Rate::per(count, period);
                for rate in [rate, rate.burst(1), rate.burst(usize::MAX)] {
                    let mut bucket = Bucket::new(rate, now);
                    for amount in [1, 1, usize::MAX, usize::MAX, 0] {
                        let wait = bucket.take(amount, now, Duration::MAX).unwrap();
                        assert!(wait <= FOREVER, "{rate:?}: {wait:?}");
                    }
                    let _ = rate.amount_in(Duration::MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod properties {
    use proptest::prelude::*;

    use super::*;

    fn rates() -> impl Strategy<Value = Rate> {
        let period = (1_u64..10_000_000_000).prop_map(Duration::from_nanos);
        (1_usize..1000, period, 1_usize..1000)
            .prop_map(|(count, period, burst)| Rate::per(count, period).burst(burst))
    }

    /// How long after the last time, how much, and how long that may take.
    fn requests() -> impl Strategy<Value = Vec<(u64, usize, u64)>> {
        proptest::collection::vec((0_u64..1_000_000_000, 0_usize..50, 0_u64..1_000_000_000), 1..60)
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_the_time_allows(rate in rates(), requests in requests()) {
            let began = Instant::now();
            let (mut now, mut bucket) = (began, Bucket::new(rate, began));
            // When each was there, and for how long of the rate it counts.
            let mut given: Vec<(Instant, Duration)> = Vec::new();
            for (pause, amount, patience) in requests {
                now += Duration::from_nanos(pause);
                if let Ok(wait) = bucket.take(amount, now, Duration::from_nanos(patience)) {
                    given.push((now + wait, rate.time_of(amount)));
                }
            }
            for first in 0..given.len() {
                let mut sum = Duration::ZERO;
                for (at, cost) in &given[first..] {
                    sum += *cost;
                    let allowed = rate.time_of(rate.burst) + (*at - given[first].0) + given[first].1;
                    prop_assert!(sum <= allowed, "{sum:?} of {allowed:?}");
                }
            }
        }

        #[test]
        fn whoever_keeps_to_the_rate_never_waits(
            rate in rates(),
            amounts in proptest::collection::vec((1_usize..50, 0_u64..1_000_000), 1..60),
        ) {
            let mut now = Instant::now();
            let mut bucket = Bucket::new(rate, now);
            for (amount, pause) in amounts {
                let amount = amount.min(rate.burst);
                prop_assert_eq!(bucket.take(amount, now, Duration::ZERO), Ok(Duration::ZERO));
                now += rate.time_of(amount) + Duration::from_nanos(pause);
            }
        }

        #[test]
        fn a_refusal_tells_when_it_is_there_and_not_a_nanosecond_more(
            rate in rates(),
            requests in requests(),
        ) {
            let mut now = Instant::now();
            let mut bucket = Bucket::new(rate, now);
            for (pause, amount, _) in requests {
                now += Duration::from_nanos(pause);
                if let Err(TooEarly(wait)) = bucket.take(amount, now, Duration::ZERO) {
                    let early = now + wait - Duration::from_nanos(1);
                    prop_assert!(bucket.take(amount, early, Duration::ZERO).is_err() || amount > rate.burst);
                    now += wait;
                    // More than the burst is never there at once.
                    let is_there = bucket.take(amount, now, Duration::ZERO).is_ok();
                    prop_assert!(is_there || amount > rate.burst);
                }
            }
        }

        #[test]
        fn one_that_is_full_is_as_good_as_a_new_one(rate in rates(), requests in requests()) {
            let mut now = Instant::now();
            let mut bucket = Bucket::new(rate, now);
            for (pause, amount, patience) in &requests {
                now += Duration::from_nanos(*pause);
                let _ = bucket.take(*amount, now, Duration::from_nanos(*patience));
            }
            now = now.max(bucket.full_at());
            let mut fresh = Bucket::new(rate, now);
            for (pause, amount, patience) in requests {
                now += Duration::from_nanos(pause);
                let patience = Duration::from_nanos(patience);
                prop_assert_eq!(bucket.take(amount, now, patience), fresh.take(amount, now, patience));
            }
        }
    }
}
