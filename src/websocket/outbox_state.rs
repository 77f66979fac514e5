//! The state of an outbox: what waits and for how many bytes it counts, where the write half is, and who waits for the
//! client.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::net::watchdog::Cut;
use crate::websocket::batch::{Account, Batch, Payload};
use crate::websocket::close::{Cause, Close};
use crate::websocket::frame::Frame;

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
    /// In the outbox, and nothing waits but what the reader gathers.
    Free,
    /// Taken by whoever writes. Before the start and after the end it counts as taken too, because nobody may write.
    Taken,
    /// In the outbox, because the client took no more. Somebody waits for the client.
    Blocked,
    /// Taken, after it was `Blocked`, by somebody who tries what the client takes now.
    Retried,
}

/// What is needed when something waits, and at the end.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// What is written in part, while the write half is in the outbox. Whoever takes the write half takes this along.
    pub(crate) batch: Batch,
    /// Pings and pongs: they overtake messages, and have a limit of their own.
    pub(crate) control: Batch,
    /// The reader's replies to a burst, while the write half is free. They came before what waits in the channel.
    pub(crate) gathered: Batch,
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
    pub(crate) cut: Option<Cut>,
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
    /// Nothing waits.
    Nothing,
}

/// Payloads that are not needed any more. Their destructors may be the program's, so whoever has them drops them last
/// of all, without the lock and the write half.
pub(crate) type Spent = Vec<Payload>;

impl OutboxState {
    /// Nothing may be written yet; `opening` comes first then.
    pub(crate) fn new(opening: Vec<u8>) -> Self {
        let rest = Rest { control: Batch::opening(opening), ..Rest::default() };
        Self {
            phase: Phase::Open,
            write_half: WriteHalf::Taken,
            waiting: Account::default(),
            sent_messages: 0,
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
        matches!(self.write_half, WriteHalf::Free | WriteHalf::Blocked)
    }

    /// Whether the client did not take everything at once, and has not caught up.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.write_half, WriteHalf::Blocked | WriteHalf::Retried)
    }

    /// Whether there is anything to write, or an end to be made.
    pub(crate) fn has_work(&self) -> bool {
        self.waiting.messages > 0 || self.control_frames > 0 || self.phase != Phase::Open
    }

    /// Adds a message to the account.
    pub(crate) fn accept(&mut self, frame: &Frame) {
        let Account { messages, bytes } = Account::of(frame);
        self.waiting.messages += messages;
        self.waiting.bytes += bytes;
        if self.is_slow() {
            QUEUED.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn take_write_half(&mut self) -> Batch {
        self.write_half = match self.write_half {
            WriteHalf::Free | WriteHalf::Taken => WriteHalf::Taken,
            WriteHalf::Blocked | WriteHalf::Retried => WriteHalf::Retried,
        };
        mem::take(&mut self.rest.batch)
    }

    /// Puts the write half back: nothing waits.
    pub(crate) fn free(&mut self, batch: Batch) {
        self.rest.batch = batch;
        self.write_half = WriteHalf::Free;
    }

    /// Puts the write half back: the client takes no more, and the rest waits for it.
    pub(crate) fn block(&mut self) {
        if !self.is_slow() {
            QUEUED.fetch_add(self.waiting.bytes, Ordering::Relaxed);
        }
        self.write_half = WriteHalf::Blocked;
        self.rest.stalled_since.get_or_insert_with(Instant::now);
    }

    /// Fills an empty `batch` with what is to be written next. Messages in the channel are left there: to receive them
    /// takes no lock.
    pub(crate) fn load(&mut self, batch: &mut Batch, is_anything_in_channel: bool) -> Source {
        let rest = &mut *self.rest;
        if !batch.is_empty() {
            return Source::Batch;
        }
        if !rest.control.is_empty() {
            mem::swap(batch, &mut rest.control);
            self.control_frames = 0;
        } else if !rest.gathered.is_empty() {
            mem::swap(batch, &mut rest.gathered);
        } else if is_anything_in_channel {
            return Source::Channel;
        } else if let Some(frame) = rest.last.take() {
            batch.push_control(&frame);
        } else {
            return Source::Nothing;
        }
        Source::Batch
    }

    /// Takes written messages off the account.
    pub(crate) fn settle(&mut self, written: Account) {
        self.waiting.messages -= written.messages;
        self.waiting.bytes -= written.bytes;
        if self.is_slow() {
            QUEUED.fetch_sub(written.bytes, Ordering::Relaxed);
        }
        self.sent_messages += written.messages as u64;
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
