//! The buckets of many, each by its key. One that somebody has taken from is kept until it is full again, so that nobody
//! gets a new one by coming back.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::base::rate::{Bucket, Rate};

/// A bucket for all who have the same key.
pub(crate) type SharedBucket = Arc<Mutex<Bucket>>;

/// How many buckets that nobody holds are kept. When there are more, of clients with a whole network of addresses say,
/// the fuller half is forgotten.
const MAX_KEPT: usize = 65_536;
/// With fewer than this, it is not worth looking for those that are full again.
const FEW: usize = 64;

#[derive(Debug)]
pub(crate) struct Buckets<K> {
    kept: Mutex<Kept<K>>,
}

#[derive(Debug)]
struct Kept<K> {
    buckets: HashMap<K, SharedBucket>,
    /// With how many those that are not needed any more are dropped next. It is about twice as many as were needed the
    /// last time, so that each new one pays for looking at two.
    sweep_at: usize,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept { buckets: HashMap::new(), sweep_at: FEW }) }
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// The bucket of `key`; a full one of this rate if there is none.
    pub(crate) fn get(&self, key: K, rate: Rate, now: Instant) -> SharedBucket {
        let mut kept = self.kept.lock();
        if let Some(bucket) = kept.buckets.get(&key) {
            return Arc::clone(bucket);
        }
        if kept.buckets.len() >= kept.sweep_at {
            kept.sweep(now);
        }
        let bucket = Arc::new(Mutex::new(Bucket::new(rate, now)));
        kept.buckets.insert(key, Arc::clone(&bucket));
        bucket
    }
}

impl<K: Eq + Hash> Kept<K> {
    /// Drops the buckets that are full and that nobody holds, and others if they are still too many.
    fn sweep(&mut self, now: Instant) {
        // Nobody gets hold of one meanwhile: that takes the lock of the map.
        let is_held = |bucket: &SharedBucket| Arc::strong_count(bucket) > 1;
        let full_at = |bucket: &SharedBucket| bucket.lock().full_at();
        self.buckets.retain(|_, bucket| is_held(bucket) || full_at(bucket) > now);
        let mut left: Vec<_> =
            self.buckets.values().filter(|bucket| !is_held(bucket)).map(full_at).collect();
        let held = self.buckets.len() - left.len();
        if left.len() >= MAX_KEPT {
            let middle = left.len() / 2;
            let (.., median, _) = left.select_nth_unstable(middle);
            let median = *median;
            self.buckets.retain(|_, bucket| is_held(bucket) || full_at(bucket) > median);
        }
        self.sweep_at = (2 * self.buckets.len()).clamp(FEW, held + MAX_KEPT);
        self.buckets.shrink_to(self.sweep_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn take(buckets: &Buckets<usize>, key: usize, now: Instant) -> bool {
        let bucket = buckets.get(key, Rate::per_second(1), now);
        bucket.lock().take(1, now, Duration::ZERO).is_ok()
    }

    fn len(buckets: &Buckets<usize>) -> usize {
        buckets.kept.lock().buckets.len()
    }

    #[test]
    fn whoever_comes_back_finds_the_bucket_that_was_left() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        assert!(take(&buckets, 1, now));
        assert!(!take(&buckets, 1, now), "it is a new one");
        assert!(take(&buckets, 2, now), "another's is not concerned");
        assert!(take(&buckets, 1, now + SECOND));
    }

    #[test]
    fn those_that_are_full_again_are_dropped_and_those_in_use_never() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        let held: Vec<_> = (0..10).map(|key| buckets.get(key, Rate::per_second(1), now)).collect();
        for key in 0..100_000 {
            let now = now + SECOND * u32::try_from(key / 50).unwrap();
            assert!(take(&buckets, 10 + key, now));
            assert!(len(&buckets) <= 300, "{} buckets after {key} keys", len(&buckets));
        }
        for (key, held) in held.iter().enumerate() {
            let now = now + 10_000 * SECOND;
            assert!(Arc::ptr_eq(held, &buckets.get(key, Rate::per_second(1), now)));
        }
    }

    #[test]
    fn an_attacker_with_many_keys_does_not_fill_the_memory() {
        let (buckets, now) = (Buckets::default(), Instant::now());
        // Those who took more are remembered for longer.
        let worst = buckets.get(usize::MAX, Rate::per_second(1), now);
        worst.lock().take(1000, now, Duration::MAX).unwrap();
        drop(worst);
        for key in 0..300_000 {
            assert!(take(&buckets, key, now + Duration::from_nanos(key as u64)));
            assert!(len(&buckets) <= MAX_KEPT, "{} buckets", len(&buckets));
        }
        assert!(len(&buckets) > MAX_KEPT / 4, "it forgets too much");
        assert!(!take(&buckets, usize::MAX, now), "the worst is forgotten");
    }
}
