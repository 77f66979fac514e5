//! Points in time to wait until.

use std::time::{Duration, Instant};

/// Longer than any connection lasts.
pub(crate) const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The moment `timeout` from now. A timeout that means "never", such as `Duration::MAX`, does not overflow.
pub(crate) fn after(timeout: Duration) -> Instant {
    later(Instant::now(), timeout)
}

/// The moment `time` after another one, for which the same holds.
pub(crate) fn later(moment: Instant, time: Duration) -> Instant {
    moment + time.min(FOREVER)
}

/// What is left until `deadline`; zero when it has passed.
pub(crate) fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_far_away_and_the_past_is_zero() {
        assert!(until(after(Duration::MAX)) > FOREVER / 2);
        assert_eq!(until(after(Duration::ZERO)), Duration::ZERO);
        let now = Instant::now();
        assert_eq!(later(now, Duration::MAX), now + FOREVER);
    }
}
