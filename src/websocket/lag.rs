//! How far newest values may run ahead of their client: how many rounds of them may be on their way unanswered.
//!
//! What the network and the client's system hold cannot be replaced any more, and a slow client's system holds seconds of it.
//! So pings go along with the values, and how long their answers take tells how far the client is behind. As long as they
//! take little longer than when nothing else is on its way, more rounds may be; when they take longer, fewer, down to one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::base::deadline::FOREVER;
use crate::net::watchdog::Order;
use crate::websocket::pings::PingNumber;

/// The most rounds that are on their way. So many are lost on a client that has been fast, and suddenly is not.
const MAX_WINDOW: u64 = 64;

/// The rounds of a client: what one batch takes of the newest values.
#[derive(Debug)]
pub(crate) struct Lag {
    max: Duration,
    /// How long an answer may take before the client is taken for one that answers no pings, and is not waited for.
    patience: Duration,
    /// So many rounds may be on their way.
    window: u64,
    /// The last round before the window was changed: what is answered for later tells of the new one.
    adjusted: u64,
    /// The last round that has gone out, and the last that was answered for.
    sent: u64,
    answered: u64,
    /// Those that were not answered.
    pings: VecDeque<Ping>,
    /// How long the answer took when nothing else was on its way.
    base: Duration,
    /// Since when no answers are seen: the reader runs a handler, or is behind with what the client has sent.
    away_since: Option<Instant>,
    /// Has the watchdog look at values that wait, when they have to wait no longer.
    pub(crate) wake: Option<Order>,
}

#[derive(Debug)]
struct Ping {
    number: PingNumber,
    /// The last round before it.
    round: u64,
    /// Whether that was all that was on its way.
    was_alone: bool,
    sent: Instant,
}

impl Lag {
    pub(crate) fn new(max: Duration, patience: Duration) -> Self {
        let (window, pings, base) = (1, VecDeque::new(), Duration::MAX);
        let away_since = Some(Instant::now());
        Self {
            max,
            patience,
            window,
            adjusted: 0,
            sent: 0,
            answered: 0,
            pings,
            base,
            away_since,
            wake: None,
        }
    }

    /// Answers are seen from here on, or are not.
    pub(crate) fn note_reading(&mut self, reads: bool) {
        self.away_since = match reads {
            true => None,
            false => Some(self.away_since.unwrap_or_else(Instant::now)),
        };
    }

    /// Whether answers are seen. A handler may take some time; but nothing waits for answers that nobody reads for long.
    pub(crate) fn is_attended(&self) -> bool {
        self.away_since.is_none_or(|since| since.elapsed() < self.max)
    }

    /// When values wait no longer, if nothing happens before.
    pub(crate) fn waits_until(&self) -> Instant {
        let overdue = self.pings.front().map(|ping| ping.sent + self.patience.min(FOREVER));
        let unattended = self.away_since.map(|since| since + self.max.min(FOREVER));
        overdue.into_iter().chain(unattended).min().unwrap_or_else(Instant::now)
    }

    /// How long the way to the client and back takes, as far as the answers so far tell.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        (self.base < Duration::MAX).then_some(self.base)
    }

    /// Whether another round may go out.
    pub(crate) fn has_room(&self) -> bool {
        self.on_its_way() < self.window
    }

    /// Whether the client's answers are so late that it seems to give none, or there are none to wait for.
    pub(crate) fn is_overdue(&self) -> bool {
        let oldest = self.pings.front();
        oldest.map_or(!self.has_room(), |ping| ping.sent.elapsed() >= self.patience)
    }

    /// A round goes out. Whether a ping has to go along: the faster the client, the fewer are needed.
    pub(crate) fn begin_round(&mut self) -> bool {
        self.sent += 1;
        let last = self.pings.back().map_or(self.answered, |ping| ping.round);
        self.sent - last >= (self.window / 4).max(1) || !self.has_room()
    }

    /// There was nothing of a round to be sent.
    pub(crate) fn cancel_round(&mut self) {
        self.sent -= 1;
        // A client that guesses marks may have answered for it.
        self.answered = self.answered.min(self.sent);
        if self.pings.back().is_some_and(|ping| ping.round > self.sent) {
            self.pings.pop_back();
        }
    }

    /// A ping goes out behind the rounds so far.
    pub(crate) fn note_ping(&mut self, number: PingNumber) {
        let was_alone = self.on_its_way() == 1;
        self.pings.push_back(Ping { number, round: self.sent, was_alone, sent: Instant::now() });
    }

    /// The client has answered the ping of `number`, and so the pings before that. Whether it has to be asked for the rounds
    /// that are on their way still: nothing else would go out, and no ping is behind them.
    pub(crate) fn note_pong(&mut self, number: PingNumber) -> bool {
        while self.pings.front().is_some_and(|ping| ping.number <= number)
            && let Some(ping) = self.pings.pop_front()
        {
            self.answered = ping.round;
            self.adjust(&ping, ping.sent.elapsed());
        }
        !self.has_room() && self.pings.is_empty()
    }

    /// Takes all for answered: the client answers no pings.
    pub(crate) fn give_up(&mut self) {
        self.pings.clear();
        self.answered = self.sent;
    }

    fn on_its_way(&self) -> u64 {
        self.sent - self.answered
    }

    /// The answer to a ping took so long.
    fn adjust(&mut self, ping: &Ping, took: Duration) {
        self.base = if ping.was_alone { took } else { self.base.min(took) };
        if ping.round <= self.adjusted {
            return;
        }
        self.adjusted = self.sent;
        let late = took.saturating_sub(self.base);
        self.window = if late > self.max / 2 {
            (self.window / 2).max(1)
        } else if late > self.max / 8 {
            (self.window + 1).min(MAX_WINDOW)
        } else {
            (self.window * 2).min(MAX_WINDOW)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::pings::Pings;

    const MAX: Duration = Duration::from_millis(100);

    /// One of several pings, by their order.
    fn number(place: u64) -> PingNumber {
        let mut pings = Pings::default();
        let numbers = std::iter::repeat_with(|| pings.next_overtaking().0);
        numbers.take(place.try_into().unwrap()).last().unwrap()
    }

    /// The most rounds that are on their way, after a while, to a client that is `away` and takes one in `round`.
    fn settle(lag: &mut Lag, away: Duration, round: Duration) -> u64 {
        let (mut mark, mut most) = (0, 0);
        // How many rounds the client had to take before it answered each ping.
        let mut before = VecDeque::new();
        for step in 0..500 {
            while lag.has_room() {
                if lag.begin_round() {
                    mark += 1;
                    lag.note_ping(number(mark));
                    before.push_back(u32::try_from(lag.on_its_way()).unwrap());
                }
            }
            if step > 100 {
                most = most.max(lag.on_its_way());
            }
            let ping = lag.pings.pop_front().expect("nothing would ever go out again");
            lag.answered = ping.round;
            lag.adjust(&ping, away + round * before.pop_front().unwrap());
            if lag.pings.is_empty() && !lag.has_room() {
                mark += 1;
                lag.note_ping(number(mark));
                before.push_back(u32::try_from(lag.on_its_way()).unwrap());
            }
        }
        lag.give_up();
        most
    }

    #[test]
    fn a_fast_client_is_not_held_back_wherever_it_is() {
        for millis in [0, 1, 20, 300] {
            let mut lag = Lag::new(MAX, Duration::MAX);
            let window = settle(&mut lag, Duration::from_millis(millis), Duration::from_micros(10));
            assert_eq!(window, MAX_WINDOW, "{millis} ms away");
        }
    }

    #[test]
    fn a_slow_client_is_kept_close_wherever_it_is() {
        for millis in [0, 1, 20, 300] {
            let mut lag = Lag::new(MAX, Duration::MAX);
            let window = settle(&mut lag, Duration::from_millis(millis), Duration::from_millis(50));
            assert!(window <= 4, "{window} values, of 50 ms each, {millis} ms away");
        }
    }

    #[test]
    fn a_client_that_gets_slow_is_found() {
        let mut lag = Lag::new(MAX, Duration::MAX);
        assert_eq!(settle(&mut lag, Duration::ZERO, Duration::from_micros(10)), MAX_WINDOW);
        assert!(settle(&mut lag, Duration::ZERO, Duration::from_millis(50)) <= 4);
        assert_eq!(settle(&mut lag, Duration::ZERO, Duration::from_micros(10)), MAX_WINDOW);
    }

    #[test]
    fn what_is_answered_for_together_is_off_its_way_together() {
        let mut lag = Lag::new(MAX, Duration::MAX);
        lag.window = 5;
        for mark in 1..=3 {
            assert!(lag.begin_round());
            lag.note_ping(number(mark));
        }
        assert!(!lag.note_pong(number(2)));
        assert_eq!(lag.on_its_way(), 1);
        assert!(!lag.note_pong(number(1)), "an answer that comes late, or twice");
        assert_eq!(lag.on_its_way(), 1);
        lag.begin_round();
        lag.cancel_round();
        assert_eq!((lag.on_its_way(), lag.pings.len()), (1, 1));
    }

    #[test]
    fn an_answer_to_a_ping_that_never_goes_out_answers_for_nothing() {
        let mut lag = Lag::new(MAX, Duration::MAX);
        assert!(lag.begin_round());
        lag.note_ping(number(1));
        lag.note_pong(number(1));
        lag.cancel_round();
        assert_eq!((lag.on_its_way(), lag.has_room()), (0, true));
    }

    #[test]
    fn a_window_that_shrinks_below_what_is_on_its_way_needs_another_ping() {
        let mut lag = Lag::new(Duration::ZERO, Duration::MAX);
        lag.window = 16;
        lag.base = Duration::ZERO;
        let pings: Vec<bool> = (0..6).map(|_| lag.begin_round()).collect();
        assert_eq!(pings, [false, false, false, true, true, true]);
        lag.note_ping(number(1));
        lag.window = 3;
        assert!(lag.note_pong(number(1)) || lag.has_room(), "nothing would ever go out again");
    }
}
