//! How long to wait before another attempt to connect: longer after each failure, and at random.

use std::time::Duration;

use uuid::Uuid;

/// How long the first attempt to connect again waits at most; each further one twice as long.
pub(crate) const FIRST_DELAY: Duration = Duration::from_millis(50);
/// However short the pauses are to be, attempts are no spin.
const LEAST_DELAY: Duration = Duration::from_millis(2);

/// How long to wait after so many failures: at random up to a time that doubles, so that not all nodes come back at once.
pub(crate) fn delay(failures: u32, most: Duration) -> Duration {
    let most = FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(most).max(LEAST_DELAY);
    let random = Uuid::new_v4().as_u64_pair().1 as u16;
    most / 2 + most.mul_f64(f64::from(random) / f64::from(u16::MAX)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_limit_and_are_never_a_spin() {
        let ms = Duration::from_millis;
        for (failures, most, expected) in [
            (0, ms(5000), ms(25)..=ms(50)),
            (3, ms(5000), ms(200)..=ms(400)),
            (u32::MAX, ms(5000), ms(2500)..=ms(5000)),
            (u32::MAX, Duration::from_nanos(1), ms(1)..=ms(2)),
        ] {
            let delay = delay(failures, most);
            assert!(expected.contains(&delay), "{failures} {most:?}: {delay:?}");
        }
    }
}
