//! A line of the log that could come often: it comes once a second at most, with how often it would have.

use std::mem;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const QUIET: Duration = Duration::from_secs(1);

/// When the line last came, and how often it would have since.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<(Option<Instant>, u64)>);

impl LogThrottle {
    /// How often it was since it was last told, if it is to be told now.
    pub(crate) fn add(&self, count: u64) -> Option<u64> {
        let mut state = self.0.lock();
        state.1 = state.1.saturating_add(count);
        if state.0.is_some_and(|told| told.elapsed() < QUIET) {
            return None;
        }
        state.0 = Some(Instant::now());
        Some(mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_seldom_is_added_up_whatever_number_comes() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.add(1), Some(1));
        assert_eq!([u64::MAX, u64::MAX].map(|count| throttle.add(count)), [None; 2]);
        throttle.0.lock().0 = None;
        assert_eq!(throttle.add(1), Some(u64::MAX));
    }
}
