//! The state of an outbox: what waits, where the write half is, who waits for the client, and what all that counts for.

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

/// How many bytes that are, at the moment.
pub(crate) fn queued_in_process() -> usize {
    QUEUED.load(Ordering::Relaxed)
}

/// What every send looks at: little, because a message to thousands finds all of it cold. The rest is apart.
#[derive(Debug)]
pub(crate) struct OutboxState {
    pub(crate) phase: Phase,
    pub(crate) write_half: WriteHalf,
    /// Messages accepted and not yet written whole. While the client is slow they are part of [`QUEUED`].
    pub(crate) waiting: Account,
    pub(crate) sent_messages: u64,
    pub(crate) control_frames: usize,
    /// Whether the reader has more input at hand, so that its replies go out together when it has not.
    pub(crate) is_gathering: bool,
    /// Whether the watchdog will have a look at what waits.
    pub(crate) is_watched: bool,
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

/// Where the right to write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteHalf {
    /// It lies here, and nothing waits but what the reader gathers.
    Free,
    /// Somebody writes; or nobody may, before the start and after the end.
    Taken,
    /// It lies here, because the client took no more. Somebody waits for the client.
    Blocked,
    /// As `Blocked`, and somebody is trying what the client takes now.
    Retried,
}

/// What is needed when something waits, and at the end.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// The batch on its way, while the write half lies here.
    pub(crate) pipe: Batch,
    /// Pings and pongs: they overtake messages, and have a limit of their own.
    pub(crate) control: Batch,
    /// The reader's replies to a burst, while the write half is free. They came before what waits in the channel.
    pub(crate) gathered: Batch,
    /// Since when the slow client takes nothing.
    pub(crate) stalled_since: Option<Instant>,
    pub(crate) waiter: Waiter,
    /// The writer threads that there were, but for those whose end was seen. The reader joins them.
    pub(crate) writers: Vec<JoinHandle<()>>,
    /// What the watchdog leaves to others to drop.
    pub(crate) spent: Spent,
    /// Why it is being closed.
    pub(crate) sealed: Option<(Close, Cause)>,
    /// The close frame, until the pipe takes it.
    pub(crate) last: Option<Frame>,
    pub(crate) ending: Ending,
    /// Why it was given up, also in words for people.
    pub(crate) failure: Option<(Cause, String)>,
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
    /// There was no thread to be had: the watchdog tries now and then.
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

/// Payloads that are not needed any more. Their destructors may be the program's, so they are dropped last of all.
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
            is_watched: false,
            rest: Box::new(rest),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Failed)
    }

    /// Whether the write half lies here, so that it can be taken.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.write_half, WriteHalf::Free | WriteHalf::Blocked)
    }

    /// Whether the client did not take everything at once, and has not caught up.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(self.write_half, WriteHalf::Blocked | WriteHalf::Retried)
    }

    pub(crate) fn has_work(&self) -> bool {
        self.waiting.messages > 0 || self.control_frames > 0 || self.phase != Phase::Open
    }

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
        mem::take(&mut self.rest.pipe)
    }

    /// Lays the write half down: nothing waits.
    pub(crate) fn free(&mut self, pipe: Batch) {
        self.rest.pipe = pipe;
        self.write_half = WriteHalf::Free;
    }

    /// Lays the write half down: the client takes no more, so that the rest waits for it.
    pub(crate) fn block(&mut self) {
        if !self.is_slow() {
            QUEUED.fetch_add(self.waiting.bytes, Ordering::Relaxed);
        }
        self.write_half = WriteHalf::Blocked;
        self.rest.stalled_since.get_or_insert_with(Instant::now);
    }

    /// Fills `pipe` with what is next, if it is empty, unless that is in the channel, which needs no lock.
    pub(crate) fn load(&mut self, pipe: &mut Batch, is_anything_in_channel: bool) -> Source {
        let rest = &mut *self.rest;
        if !pipe.is_empty() {
            return Source::Batch;
        }
        if !rest.control.is_empty() {
            mem::swap(pipe, &mut rest.control);
            self.control_frames = 0;
        } else if !rest.gathered.is_empty() {
            mem::swap(pipe, &mut rest.gathered);
        } else if is_anything_in_channel {
            return Source::Channel;
        } else if let Some(frame) = rest.last.take() {
            pipe.push_control(&frame);
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

    /// Gives up what waits, which the account of the process does not hold any more. What is not in the channel.
    pub(crate) fn fail(&mut self, failure: (Cause, String)) -> [Batch; 2] {
        if self.is_slow() {
            QUEUED.fetch_sub(self.waiting.bytes, Ordering::Relaxed);
        }
        self.phase = Phase::Failed;
        // Nobody may write any more; whoever does finds that out.
        self.write_half = WriteHalf::Taken;
        self.rest.failure = Some(failure);
        [mem::take(&mut self.rest.pipe), mem::take(&mut self.rest.gathered)]
    }
}

impl Drop for OutboxState {
    fn drop(&mut self) {
        if self.is_slow() {
            QUEUED.fetch_sub(self.waiting.bytes, Ordering::Relaxed);
        }
    }
}
