//! How often something may happen: a rate with a burst, and the token bucket that measures it. The clock is passed in.

use std::fmt;
use std::time::{Duration, Instant};

use crate::base::deadline::FOREVER;

/// No bucket is further from full than that.
const MOST_NANOS: u64 = FOREVER.as_nanos() as u64;

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
#[doc(alias("rate_limit", "throttle"))]
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
    fn nanos_of(&self, amount: usize) -> u64 {
        let (period, count) = (nanos(self.period.min(FOREVER)), self.count.max(1) as u64);
        let nanos = match period.checked_mul(amount as u64) {
            // Nearly always: a division of 128 bits costs several times as much.
            Some(all) => all / count,
            None => {
                let all = u128::from(period) * amount as u128 / u128::from(count);
                u64::try_from(all).unwrap_or(u64::MAX)
            }
        };
        nanos.min(MOST_NANOS)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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
///
/// It counts in nanoseconds: a client's every message takes from buckets, and arithmetic with [`Instant`]s costs several
/// times as much.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// In what time one may happen, which is what a message takes: known, it saves a division. And the burst.
    one: u64,
    burst: u64,
    /// What the next counts from.
    began: Instant,
    full_at: u64,
}

/// It is not there in time; it will be after this.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooEarly(pub(crate) Duration);

impl Bucket {
    /// A full one.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        let (one, burst) = (rate.nanos_of(1), rate.nanos_of(rate.burst));
        Self { rate, one, burst, began: now, full_at: 0 }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// When it is full; one that is full is as good as a new one.
    pub(crate) fn full_at(&self) -> Instant {
        self.began + Duration::from_nanos(self.full_at)
    }

    fn nanos_until(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.began))
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
        let now = self.nanos_until(now);
        let taken = if amount == 1 { self.one } else { self.rate.nanos_of(amount) };
        let missing = (self.full_at.saturating_sub(now) + taken).min(MOST_NANOS);
        let wait = Duration::from_nanos(missing.saturating_sub(self.burst));
        if wait > patience {
            return Err(TooEarly(wait));
        }
        self.full_at = now + missing;
        Ok(wait)
    }

    /// Puts back what was taken and need not have been.
    pub(crate) fn give_back(&mut self, amount: usize) {
        self.full_at = self.full_at.saturating_sub(self.rate.nanos_of(amount));
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
    fn what_is_given_back_is_there_again_and_no_more() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate::per_second(1).burst(3), now);
        for _ in 0..100 {
            assert_eq!(bucket.take(3, now, Duration::ZERO), Ok(Duration::ZERO));
            bucket.give_back(3);
        }
        bucket.give_back(1000);
        assert_eq!(bucket.take(3, now, Duration::ZERO), Ok(Duration::ZERO));
        assert!(bucket.take(1, now, Duration::ZERO).is_err(), "it holds no more than the burst");
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
                    bucket.give_back(usize::MAX);
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

    fn time_of(rate: Rate, amount: usize) -> Duration {
        Duration::from_nanos(rate.nanos_of(amount))
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
                    given.push((now + wait, time_of(rate, amount)));
                }
            }
            for first in 0..given.len() {
                let mut sum = Duration::ZERO;
                for (at, cost) in &given[first..] {
                    sum += *cost;
                    let allowed = time_of(rate, rate.burst) + (*at - given[first].0) + given[first].1;
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
                now += time_of(rate, amount) + Duration::from_nanos(pause);
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
