//! How long things take, counted in buckets.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bounds of the buckets, in microseconds: an echo takes the least, and whoever waits for a database the most.
const BOUNDS: [u64; 19] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Those of the bounds, and one for what took longer than the last.
const BUCKETS: usize = BOUNDS.len() + 1;

/// How long things took: how many took up to 10 µs, up to 25 µs and so on to 10 s, and how long all took together.
///
/// ```
/// # let server = rwf::http::Server::new(vec![]).bind("127.0.0.1:0").spawn()?;
/// let handshakes = server.stats().handshake_times;
/// for (bound, count) in handshakes.buckets() {
///     println!("{count} handshakes took up to {bound:?}");
/// }
/// println!("{} handshakes took {:?} in all", handshakes.count(), handshakes.sum());
/// # Ok::<(), rwf::http::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Of each bucket alone.
    counts: [u64; BUCKETS],
    nanos: u64,
}

impl Histogram {
    /// For each bound, in order, how many took so long or less: each count has those before it in it.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut count = 0;
        BOUNDS.iter().zip(&self.counts).map(move |(bound, of_bucket)| {
            count += of_bucket;
            (Duration::from_micros(*bound), count)
        })
    }

    /// How many there were, those that took longer than the last bound included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long they took together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.nanos += other.nanos;
    }
}

/// The count and the sum.
impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("sum", &self.sum())
            .finish_non_exhaustive()
    }
}

/// The nanoseconds of a time, without the detour of `as_nanos` over 128 bits.
pub(crate) fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

/// A histogram that threads count in.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    counts: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Buckets {
    pub(crate) fn record(&self, took: Duration) {
        let nanos = nanos(took);
        let micros = nanos.div_ceil(1000);
        // One after the other: what happens often takes the least.
        let bucket = BOUNDS.iter().take_while(|bound| **bound < micros).count();
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn add_to(&self, histogram: &mut Histogram) {
        for (count, more) in histogram.counts.iter_mut().zip(&self.counts) {
            *count += more.load(Ordering::Relaxed);
        }
        histogram.nanos += self.nanos.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_buckets_whose_bounds_it_does_not_exceed() {
        let buckets = Buckets::default();
        let times = [0, 10_000, 10_001, 999_999, 1_000_000, 10_000_000_000, 10_000_000_001];
        times.map(Duration::from_nanos).iter().for_each(|took| buckets.record(*took));
        let mut histogram = Histogram::default();
        buckets.add_to(&mut histogram);
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6]);
        assert_eq!(histogram.count(), 7, "the longest is in no bucket with a bound");
        assert_eq!(histogram.sum(), Duration::from_nanos(times.iter().sum()));
        histogram.add(&histogram.clone());
        assert_eq!(histogram.count(), 14);
    }
}
