//! The state of an outbox: what waits and for how many bytes it counts, where the write half is, and who waits for the
//! client.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::net::watchdog::Order;
use crate::websocket::batch::{Account, Batch, Payload};
use crate::websocket::close::{Cause, Close};
use crate::websocket::frame::Frame;
use crate::websocket::lag::Lag;
use crate::websocket::latest::{Latest, LatestKeys};
use crate::websocket::pings::Pings;
use crate::websocket::traffic::{COUNTS, Traffic};

/// Bytes of messages that wait for slow clients, over all outboxes of the process.
static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// How many bytes wait for slow clients now, over all outboxes of the process.
pub(crate) fn queued_in_process() -> usize {
    QUEUED.load(Ordering::Relaxed)
}

/// What every send looks at. It is kept small, because a message to thousands of connections finds none of it in the
/// processor's caches; what is needed more rarely is in [`Rest`].
#[derive(Debug)]
pub(crate) struct OutboxState {
    pub(crate) phase: Phase,
    pub(crate) write_half: WriteHalf,
    /// Messages accepted and not yet written whole. While the client is slow they are part of [`QUEUED`].
    pub(crate) waiting: Account,
    pub(crate) sent_messages: u64,
    /// What the client's system took, beginning with the opening.
    sent_bytes: u64,
    pub(crate) control_frames: usize,
    /// Whether the reader has more input at hand: until it has none, its replies are gathered, to go out together.
    pub(crate) is_gathering: bool,
    /// Whether the watchdog was asked to flush, and has not begun to.
    pub(crate) is_flush_ordered: bool,
    pub(crate) rest: Box<Rest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// Takes nothing any more; what waits goes out, then the close.
    Sealed,
    /// Everything was written.
    Done,
    /// Given up, with what waited.
    Failed,
}

/// Where the write half is, which is the right to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteHalf {
    /// In the outbox, and nothing waits but what the reader gathers, and what goes out with messages right behind it.
    Free,
    /// In the outbox, and what waits begins with a newest value that waits for the client to answer for those before it.
    Held,
    /// Taken by whoever writes. Before the start and after the end it counts as taken too, because nobody may write.
    Taken,
    /// In the outbox, because the client took no more. Somebody waits for the client.
    Blocked,
    /// Taken, after it was `Blocked` or `Held`, by somebody who tries what the client takes now.
    Retried,
}

/// What is needed when something waits, and at the end.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// The length of the opening.
    opening: u64,
    /// What is written in part, while the write half is in the outbox. Whoever takes the write half takes this along.
    pub(crate) batch: Batch,
    /// Pings and pongs: they overtake messages, and have a limit of their own.
    pub(crate) control: Batch,
    /// The reader's replies to a burst, and messages with others right behind them, while the write half is free. They came
    /// before what waits in the channel.
    pub(crate) gathered: Batch,
    pub(crate) pings: Pings,
    /// How far newest values may run ahead of the client, where that is limited.
    pub(crate) lag: Option<Box<Lag>>,
    /// The newest value that was received from the channel first and has to wait, while the write half is `Held`.
    pub(crate) head: Option<Arc<Latest>>,
    /// Where the newest values of keys wait in the channel.
    pub(crate) latest: LatestKeys,
    /// Messages that were dropped for newer ones: because the outbox was full, and because their key has a newer value.
    pub(crate) dropped: u64,
    pub(crate) replaced: u64,
    /// Whether the log says that messages are dropped.
    pub(crate) is_dropping_logged: bool,
    /// How many threads look for room: newest values wait for no answers meanwhile, because nobody is to be taken for slow,
    /// and nothing to be dropped, for what the client would take.
    pub(crate) room_seekers: usize,
    /// Since when the slow client takes nothing.
    pub(crate) stalled_since: Option<Instant>,
    pub(crate) waiter: Waiter,
    /// The writer threads that were started, for the reader to join; less those that were seen to have ended.
    pub(crate) writers: Vec<JoinHandle<()>>,
    /// Payloads that the watchdog has written and must not drop. Whoever writes next drops them.
    pub(crate) spent: Spent,
    /// Why the connection is being closed.
    pub(crate) sealed: Option<(Close, Cause)>,
    /// The close frame, until it is in a batch.
    pub(crate) last: Option<Frame>,
    pub(crate) ending: Ending,
    /// Why the connection was given up, also in words for people.
    pub(crate) failure: Option<(Cause, String)>,
    /// Has the watchdog cut the socket if closing takes too long.
    pub(crate) cut: Option<Order>,
}

/// Who waits for a slow client.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    #[default]
    Nobody,
    /// A writer thread whose start is not noted yet.
    Starting,
    Thread,
    /// The system gave no thread: the watchdog tries every few milliseconds what the client takes.
    Watchdog,
}

/// Who ends the stream when everything was written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    Outbox,
    Reader,
}

/// Where the bytes are that are to be written next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the batch that is being written.
    Batch,
    /// In the channel: its messages have to be received first.
    Channel,
    /// In the channel, behind a newest value that has to wait.
    Held,
    /// Nothing waits.
    Nothing,
}

/// What whoever writes may receive from the channel, and has received.
#[derive(Debug, Default)]
pub(crate) struct Reception {
    /// The newest value that comes first, or has to wait.
    pub(crate) head: Option<Arc<Latest>>,
    /// Whether newest values wait for the client's answers.
    pub(crate) is_limited: bool,
    /// Whether those that are received are a round, which may go out.
    pub(crate) is_round: bool,
    pub(crate) has_latest: bool,
    /// The values that were received, whose keys are to be forgotten.
    pub(crate) taken: Vec<Arc<Latest>>,
    /// How many marks were received.
    pub(crate) marks: u64,
    /// What goes along with a round, unless it has gone already.
    pub(crate) ping: Option<Frame>,
}

impl Reception {
    pub(crate) fn takes_latest(&self) -> bool {
        !self.is_limited || self.is_round
    }
}

/// Payloads that are not needed any more. Their destructors may be the program's, so whoever has them drops them last
/// of all, without the lock and the write half.
pub(crate) type Spent = Vec<Payload>;

impl OutboxState {
    /// Nothing may be written yet; `opening` comes first then.
    pub(crate) fn new(opening: Vec<u8>, lag: Option<Lag>) -> Self {
        let length = opening.len() as u64;
        let (control, lag) = (Batch::opening(opening), lag.map(Box::new));
        let rest = Rest { opening: length, control, lag, ..Rest::default() };
        Self {
            phase: Phase::Open,
            write_half: WriteHalf::Taken,
            waiting: Account::default(),
            sent_messages: 0,
            sent_bytes: 0,
            control_frames: 0,
            is_gathering: false,
            is_flush_ordered: false,
            rest: Box::new(rest),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Failed)
    }

    /// Whether the write half is in the outbox.
    pub(crate) fn can_take_write_half(&self) -> bool {
        matches!(self.write_half, WriteHalf::Free | WriteHalf::Held | WriteHalf::Blocked)
    }

    /// Whether nobody writes and nothing waits: what comes now can be written before it ever waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.write_half == WriteHalf::Free && self.waiting.bytes == 0 && !self.is_gathering
    }

    /// Whether the client did not take everything at once, and has not caught up.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.write_half, WriteHalf::Blocked | WriteHalf::Held | WriteHalf::Retried)
    }

    /// Whether the client's system takes no more now, as far as is known.
    pub(crate) fn is_blocked(&self) -> bool {
        matches!(self.write_half, WriteHalf::Blocked | WriteHalf::Retried)
    }

    /// Whether there is something to write although newest values wait for the client's answer.
    fn ends_hold(&self) -> bool {
        let lag = self.rest.lag.as_ref().filter(|_| self.is_limited());
        self.control_frames > 0 || lag.is_none_or(|lag| lag.has_room() || lag.is_overdue())
    }

    /// Whether newest values wait for the client's answers.
    fn is_limited(&self) -> bool {
        self.phase == Phase::Open
            && self.rest.room_seekers == 0
            && self.rest.lag.as_ref().is_some_and(|lag| lag.is_attended())
    }

    /// Whether whoever takes the write half now finds something to write.
    pub(crate) fn can_write(&self) -> bool {
        match self.write_half {
            WriteHalf::Free => true,
            WriteHalf::Held => self.ends_hold(),
            WriteHalf::Taken | WriteHalf::Blocked | WriteHalf::Retried => false,
        }
    }

    /// Whether there is anything to write, or an end to be made.
    pub(crate) fn has_work(&self) -> bool {
        self.waiting.bytes > 0 || self.control_frames > 0 || self.phase != Phase::Open
    }

    /// Adds messages to the account.
    pub(crate) fn accept(&mut self, accepted: Account) {
        self.waiting.messages += accepted.messages;
        self.waiting.bytes += accepted.bytes;
        if self.is_slow() {
            QUEUED.fetch_add(accepted.bytes, Ordering::Relaxed);
        }
    }

    /// Takes messages off the account that are not to be written any more.
    pub(crate) fn discard(&mut self, discarded: Account) {
        self.waiting.messages -= discarded.messages;
        self.waiting.bytes -= discarded.bytes;
        if self.is_slow() {
            QUEUED.fetch_sub(discarded.bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn take_write_half(&mut self) -> Batch {
        self.write_half = match self.write_half {
            WriteHalf::Free | WriteHalf::Taken => WriteHalf::Taken,
            WriteHalf::Held | WriteHalf::Blocked | WriteHalf::Retried => WriteHalf::Retried,
        };
        mem::take(&mut self.rest.batch)
    }

    /// Puts the write half back: nothing waits.
    pub(crate) fn free(&mut self, batch: Batch) {
        self.rest.batch = batch;
        self.write_half = WriteHalf::Free;
    }

    /// Puts the write half back: the rest waits until the client has answered.
    pub(crate) fn hold(&mut self, batch: Batch) {
        self.rest.batch = batch;
        self.wait_for_client(WriteHalf::Held);
    }

    fn wait_for_client(&mut self, write_half: WriteHalf) {
        if !self.is_slow() {
            QUEUED.fetch_add(self.waiting.bytes, Ordering::Relaxed);
        }
        self.write_half = write_half;
    }

    /// Puts the write half back: the client takes no more, and the rest waits for it.
    pub(crate) fn block(&mut self) {
        self.wait_for_client(WriteHalf::Blocked);
        self.rest.stalled_since.get_or_insert_with(Instant::now);
    }

    /// Fills an empty `batch` with what is to be written next. Messages in the channel are left there: to receive them
    /// takes no lock.
    pub(crate) fn load(&mut self, batch: &mut Batch, is_anything_in_channel: bool) -> Source {
        if !batch.is_empty() {
            return Source::Batch;
        }
        let must_wait = self.rest.head.is_some() && !self.may_send_latest();
        let rest = &mut *self.rest;
        if !rest.control.is_empty() {
            mem::swap(batch, &mut rest.control);
            self.control_frames = 0;
        } else if !rest.gathered.is_empty() {
            mem::swap(batch, &mut rest.gathered);
        } else if is_anything_in_channel || rest.head.is_some() {
            return if must_wait { Source::Held } else { Source::Channel };
        } else if let Some(frame) = rest.last.take() {
            batch.push_control(&frame);
        } else {
            return Source::Nothing;
        }
        Source::Batch
    }

    fn may_send_latest(&mut self) -> bool {
        let is_limited = self.is_limited();
        match &mut self.rest.lag {
            Some(lag) if is_limited => {
                if lag.is_overdue() {
                    lag.give_up();
                }
                lag.has_room()
            }
            _ => true,
        }
    }

    /// Begins to receive from the channel.
    pub(crate) fn begin_reception(&mut self) -> Reception {
        let is_limited = self.is_limited();
        let has_latest = self.rest.head.is_some() || !self.rest.latest.is_empty();
        let is_round = is_limited && has_latest && self.may_send_latest();
        let rest = &mut *self.rest;
        let head = rest.head.take();
        let Some(lag) = rest.lag.as_mut().filter(|_| is_round) else {
            return Reception { head, is_limited, ..Reception::default() };
        };
        let ping = lag.begin_round().then(|| {
            let (number, payload) = rest.pings.next_overtaking();
            lag.note_ping(number);
            Frame::ping(payload)
        });
        Reception { head, is_limited, is_round, ping, ..Reception::default() }
    }

    /// Takes note of what was received. Returns the payload of a newest value that was kept aside, if the connection was
    /// given up meanwhile.
    pub(crate) fn end_reception(&mut self, reception: Reception) -> Option<Payload> {
        let Reception { head, is_round, has_latest, taken, marks, ping, .. } = reception;
        self.rest.pings.pass_marks(marks);
        taken.iter().for_each(|latest| self.rest.latest.remove(latest));
        if is_round
            && !has_latest
            && let Some(lag) = &mut self.rest.lag
        {
            lag.cancel_round();
        } else if let Some(ping) = ping {
            // It could not stand behind a long payload in the same batch.
            self.rest.control.push_control(&ping);
            self.control_frames += 1;
        }
        if self.phase == Phase::Failed {
            return head?.take().map(Payload::from);
        }
        self.rest.head = head;
        None
    }

    /// The client has sent a pong. Whether it was asked for.
    pub(crate) fn note_pong(&mut self, payload: &[u8]) -> bool {
        let rest = &mut *self.rest;
        let answer = rest.pings.note_pong(payload);
        if let Some(lag) = &mut rest.lag
            && let Some(number) = answer.number
        {
            let needs_another = lag.note_pong(number);
            if let Some(round_trip) = lag.round_trip() {
                rest.pings.note_round_trip(round_trip);
            }
            // Nothing goes out behind the close frame, which may be on its way.
            if needs_another && self.phase == Phase::Open {
                let (number, payload) = rest.pings.next_overtaking();
                lag.note_ping(number);
                rest.control.push_control(&Frame::ping(payload));
                self.control_frames += 1;
            }
        }
        answer.was_asked
    }

    /// The client's system has taken so many bytes.
    pub(crate) fn note_sent(&mut self, bytes: usize) {
        if COUNTS {
            self.sent_bytes += bytes as u64;
        }
    }

    /// Takes written messages off the account.
    pub(crate) fn settle(&mut self, written: Account) {
        self.discard(written);
        self.sent_messages += written.messages as u64;
    }

    /// What was sent and what waits.
    pub(crate) fn traffic(&self) -> Traffic {
        let (messages, bytes) = (self.waiting.messages as u64, self.waiting.bytes as u64);
        let is_over = self.is_over();
        Traffic {
            sent_messages: self.sent_messages,
            sent_bytes: self.sent_bytes.saturating_sub(self.rest.opening),
            waiting_messages: if is_over { 0 } else { messages },
            waiting_bytes: if is_over { 0 } else { bytes },
            lost: if is_over { messages } else { 0 },
            dropped: self.rest.dropped,
            replaced: self.rest.replaced,
            has_writer: matches!(self.rest.waiter, Waiter::Starting | Waiter::Thread),
            ..Traffic::default()
        }
    }

    /// Gives the connection up, and takes what waits for it off the account of the process. Returns what waits outside
    /// of the channel.
    pub(crate) fn fail(&mut self, failure: (Cause, String)) -> [Batch; 2] {
        if self.is_slow() {
            QUEUED.fetch_sub(self.waiting.bytes, Ordering::Relaxed);
        }
        self.phase = Phase::Failed;
        // Nobody may write any more; whoever is writing sees the phase when the write returns.
        self.write_half = WriteHalf::Taken;
        self.rest.failure = Some(failure);
        [mem::take(&mut self.rest.batch), mem::take(&mut self.rest.gathered)]
    }
}

impl Drop for OutboxState {
    fn drop(&mut self) {
        if self.is_slow() {
            QUEUED.fetch_sub(self.waiting.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_answer_that_comes_while_the_connection_is_closed_brings_no_further_ping() {
        for phase in [Phase::Open, Phase::Sealed] {
            let lag = Lag::new(Duration::from_secs(1), Duration::MAX);
            let mut state = OutboxState::new(Vec::new(), Some(lag));
            let (number, payload) = state.rest.pings.next_overtaking();
            let lag = state.rest.lag.as_mut().unwrap();
            lag.begin_round();
            lag.note_ping(number);
            // There are as many rounds behind it as may be, and no ping.
            lag.begin_round();
            lag.begin_round();
            state.phase = phase;
            state.note_pong(&payload);
            assert_eq!(state.control_frames, usize::from(phase == Phase::Open), "{phase:?}");
        }
    }
}
