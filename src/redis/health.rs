//! How a connection to Redis is, or those to all shards of a Redis Cluster together.

use std::time::{Duration, Instant};

use crate::redis::fault::Fault;

#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) is_up: bool,
    pub(crate) since: Instant,
    /// Why it is not, or was not the last time.
    pub(crate) reason: Option<String>,
    /// How long the last probe took.
    pub(crate) round_trip: Option<Duration>,
}

impl Health {
    /// Up where all are, and it is known which has what, or why that is `unknown`. Who is not says why. Each comes with its
    /// address.
    pub(crate) fn of_all(mut all: Vec<(String, Self)>, unknown: Option<Fault>) -> Self {
        let round_trip = all.iter().filter_map(|(_, health)| health.round_trip).max();
        let are_up = all.iter().all(|(_, health)| health.is_up);
        let is_up = are_up && unknown.is_none();
        if !are_up {
            all.retain(|(_, health)| !health.is_up);
        }
        let reasons = all.iter().filter_map(|(address, health)| {
            health.reason.as_ref().map(|reason| format!("the shard {address}: {reason}"))
        });
        let unknown = unknown.map(|fault| format!("which shard has what is not known: {fault}"));
        let reasons: Vec<_> = reasons.chain(unknown).collect();
        let since = all.iter().map(|(_, health)| health.since);
        // That all are there began with the last, and that not all are with the first.
        let since = if is_up { since.max() } else { since.min() }.unwrap_or_else(Instant::now);
        let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        Self { is_up, since, reason, round_trip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_up_since_the_last_is_and_not_all_since_the_first_is_away_which_says_why() {
        let began = Instant::now();
        let shard = |name: &str, is_up: bool, second| {
            let time = Duration::from_secs(second);
            let reason = (!is_up).then(|| "gone".to_owned());
            let health =
                Health { is_up, since: began + time, reason, round_trip: is_up.then_some(time) };
            (name.to_owned(), health)
        };
        let since = |health: &Health| (health.since - began).as_secs();
        let all = Health::of_all(vec![shard("a", true, 1), shard("b", true, 2)], None);
        assert_eq!((all.is_up, since(&all), all.reason), (true, 2, None));
        assert_eq!(all.round_trip, Some(Duration::from_secs(2)));
        let three = vec![shard("a", true, 1), shard("b", false, 3), shard("c", false, 2)];
        let all = Health::of_all(three, None);
        assert_eq!((all.is_up, since(&all)), (false, 2));
        assert_eq!(all.reason.as_deref(), Some("the shard b: gone; the shard c: gone"));
        let all = Health::of_all(vec![shard("a", true, 1)], Some(Fault::no_slots()));
        let expected = format!("which shard has what is not known: {}", Fault::no_slots());
        assert_eq!((all.is_up, all.reason), (false, Some(expected)));
    }
}
