//! Numbers for what is sent to a channel, so that whoever listens sees what is missing and what came twice.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

/// How many channels are remembered for having been sent to last, and as many again for before. Names of channels are often
/// what clients have named, so that there is no end of them.
const MANY: usize = 64 << 10;

/// Where a message stands among those of its sender to its channel: they are numbered one by one from `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the first one since the sender remembers.
    pub(crate) start: u64,
    pub(crate) number: u64,
}

/// The last places that were given, by channel.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    recent: HashMap<Arc<str>, Cell<Place>>,
    /// Those that were used before: forgotten when there are as many others again.
    older: HashMap<Arc<str>, Cell<Place>>,
    /// As high as the highest number that was given. A channel that was forgotten begins above it, so that no number is
    /// given twice.
    highest: u64,
}

impl Sequences {
    /// The next place in a channel, and the channel's name, shared.
    pub(crate) fn next(&mut self, channel: &str) -> (Arc<str>, Place) {
        self.highest += 1;
        let after = |place: &Cell<Place>| {
            place.set(Place { number: place.get().number + 1, ..place.get() });
            place.get()
        };
        if let Some((name, place)) = self.recent.get_key_value(channel) {
            return (Arc::clone(name), after(place));
        }
        let (name, place) = match self.older.remove_entry(channel) {
            Some((name, place)) => (name, after(&place)),
            None => (channel.into(), Place { start: self.highest, number: self.highest }),
        };
        if self.recent.len() >= MANY {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(Arc::clone(&name), place.into());
        (name, place)
    }
}

/// What a number says to one who has heard others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is the next, or the first that was heard of this sender.
    Next,
    /// So many before it have not come.
    After(u64),
    /// It came before.
    Again,
}

/// Notes a number, where `last` was the last one before.
pub(crate) fn hear(last: &mut u64, place: Place) -> Heard {
    let expected = last.saturating_add(1).max(place.start);
    if place.number <= *last {
        return Heard::Again;
    }
    *last = place.number;
    match place.number.saturating_sub(expected) {
        0 => Heard::Next,
        missed => Heard::After(missed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_counts_for_itself_and_a_forgotten_one_goes_on_higher() {
        let mut sequences = Sequences::default();
        let mut next = |channel: &str| sequences.next(channel).1;
        let mut last = next("a").number;
        let mut of_b = next("b").number;
        assert_eq!(hear(&mut last, next("a")), Heard::Next);
        assert_eq!(hear(&mut last, next("a")), Heard::Next);
        let lost = next("a");
        assert_eq!(hear(&mut last, next("a")), Heard::After(1));
        assert_eq!(hear(&mut last, lost), Heard::Again);
        for number in 0..3 * MANY {
            next(&number.to_string());
            if number % MANY == 0 {
                let _lost = next("a");
                assert_eq!(hear(&mut last, next("a")), Heard::After(1), "it is used now and then");
            }
        }
        assert_eq!(hear(&mut of_b, next("b")), Heard::Next, "forgotten, and nothing is missing");
        let _lost = next("b");
        assert_eq!(hear(&mut of_b, next("b")), Heard::After(1));
        let count = sequences.recent.len() + sequences.older.len();
        assert!(count <= 2 * MANY, "{count} are remembered");
    }

    #[test]
    fn what_is_lost_first_after_a_channel_was_forgotten_is_missed_too() {
        let mut last = 5;
        let place = |number| Place { start: 100, number };
        assert_eq!(hear(&mut last, place(103)), Heard::After(3));
        assert_eq!(hear(&mut last, place(104)), Heard::Next);
        assert_eq!(hear(&mut last, place(104)), Heard::Again);
    }

    #[test]
    fn the_highest_numbers_are_heard_like_others() {
        let mut last = 5;
        let highest = Place { start: u64::MAX, number: u64::MAX };
        assert_eq!(hear(&mut last, highest), Heard::Next);
        assert_eq!(hear(&mut last, highest), Heard::Again);
    }
}
