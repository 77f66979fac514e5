//! What a client has answered to pings: which marks it has passed, and how long the way there and back takes.

use std::collections::BTreeSet;
use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// How many pings are remembered until they are answered. Of more the oldest are forgotten: their answers are then like
/// any that nobody asked for.
const MAX_AWAITED: usize = 256;
/// What a pong takes on the wire beside its payload: a header with a mask (RFC 6455 §5.2).
const PONG_HEADER: usize = 6;
/// The length of a numbered ping's payload.
const NUMBER: usize = 16;

/// The place of a ping in the order in which pings go out: the client need not answer each (RFC 6455 §5.5.3), but has
/// received those before the one that it answers. It is the payload of the ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct PingNumber {
    /// How many marks are before it in the order, or are it: pings behind messages that wait.
    marks: u64,
    /// For a ping that overtakes what waits, marks too, its number among such pings. A mark has 0.
    overtaking: u64,
}

/// What was asked of a client by pings, and what it has answered.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    /// The number of the last mark.
    marked: u64,
    /// How many marks wait no more behind messages.
    passed: u64,
    overtaking: u64,
    /// The last mark of which it is known that the client has received it.
    answered: u64,
    /// The ping by which the round trip is measured: its payload, and when it was sent with nothing before it.
    measured: Option<(Bytes, Instant)>,
    round_trip: Option<Duration>,
    /// Those that the client may answer still.
    awaited: BTreeSet<PingNumber>,
    /// Whether it may answer the ping without a payload.
    is_empty_awaited: bool,
}

/// What a pong says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// Which ping the client has received, if it was one of the numbered.
    pub(crate) number: Option<PingNumber>,
    /// Whether it answers a ping that was not answered yet.
    pub(crate) was_asked: bool,
}

impl Pings {
    /// A new mark: its number, and its ping's payload.
    pub(crate) fn next_mark(&mut self) -> (u64, Bytes) {
        self.marked += 1;
        let number = PingNumber { marks: self.marked, overtaking: 0 };
        self.await_answer(number);
        (self.marked, number.to_payload())
    }

    /// How many marks wait behind messages.
    pub(crate) fn waiting_marks(&self) -> u64 {
        self.marked - self.passed
    }

    /// So many marks more have gone out, or are in the batch that is next.
    pub(crate) fn pass_marks(&mut self, count: u64) {
        self.passed += count;
    }

    /// A new ping that does not wait behind messages, and its payload.
    pub(crate) fn next_overtaking(&mut self) -> (PingNumber, Bytes) {
        self.overtaking += 1;
        let number = PingNumber { marks: self.passed, overtaking: self.overtaking };
        self.await_answer(number);
        (number, number.to_payload())
    }

    fn await_answer(&mut self, number: PingNumber) {
        self.awaited.insert(number);
        if self.awaited.len() > MAX_AWAITED {
            self.awaited.pop_first();
        }
    }

    /// How many bytes the answers take that may come.
    pub(crate) fn awaited_bytes(&self) -> usize {
        let empty = usize::from(self.is_empty_awaited) * PONG_HEADER;
        self.awaited.len() * (PONG_HEADER + NUMBER) + empty
    }

    /// A ping goes out now, and nothing is before it.
    pub(crate) fn measure(&mut self, payload: Bytes) {
        self.is_empty_awaited |= payload.is_empty();
        self.measured = Some((payload, Instant::now()));
    }

    /// The client has answered a ping, or sent a pong unasked.
    pub(crate) fn note_pong(&mut self, payload: &[u8]) -> Answer {
        if let Some((_, sent)) = self.measured.take_if(|(measured, _)| measured == payload) {
            self.round_trip = Some(sent.elapsed());
        }
        let Some(number) = PingNumber::of_payload(payload) else {
            let was_asked = payload.is_empty() && mem::take(&mut self.is_empty_awaited);
            return Answer { number: None, was_asked };
        };
        let is_known = number.marks <= self.marked && number.overtaking <= self.overtaking;
        if !is_known {
            return Answer { number: None, was_asked: false };
        }
        self.answered = self.answered.max(number.marks);
        let was_asked = self.awaited.remove(&number);
        // It has received those before, and will not come back to them.
        while self.awaited.first().is_some_and(|awaited| *awaited < number) {
            self.awaited.pop_first();
        }
        Answer { number: Some(number), was_asked }
    }

    /// The round trip was measured in another way.
    pub(crate) fn note_round_trip(&mut self, took: Duration) {
        self.round_trip = Some(took);
    }

    /// Whether the client has received what was sent before a mark.
    pub(crate) fn has_answered(&self, mark: u64) -> bool {
        self.answered >= mark
    }

    /// How long the answer to the last ping took that was measured.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

/// What a pong with this payload takes on the wire.
pub(crate) fn pong_length(payload: &[u8]) -> usize {
    PONG_HEADER + payload.len()
}

impl PingNumber {
    fn to_payload(self) -> Bytes {
        let payload = [self.marks.to_be_bytes(), self.overtaking.to_be_bytes()].concat();
        payload.into()
    }

    fn of_payload(payload: &[u8]) -> Option<Self> {
        let (marks, overtaking) = payload.split_first_chunk()?;
        let number = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        Some(Self { marks: number(marks), overtaking: number(overtaking.try_into().ok()?) })
    }
}
