//! What waits to be written to one connection, and the one way it gets there.
//!
//! Whoever brings a frame takes the write half, which lies here while nobody writes, and writes, without blocking and
//! without a lock held. What comes meanwhile waits in a channel, whose receiver is whoever has the write half. When the
//! client does not take everything at once, the write half is laid down again with what is left, and a writer thread waits
//! until the client takes more; it ends when it has caught up, so a healthy connection costs none. Only replies to a burst
//! of input wait for each other a little, to go out together: until the reader has no more input at hand, or the watchdog
//! finds that a handler takes its time. There is one write half: frames cannot interleave, and their order is that of
//! the channel.
//!
//! A message is sent to the channel under the lock that its account is kept under. So whoever has the write half and
//! finds, under that lock, that nothing waits, knows that nothing does, and can lay it down or send the close frame.
//!
//! Payloads may be memory of the program's own, with destructors of its own: these run when neither the lock nor the
//! write half is held, so that they may send and panic. One that waits holds up what waits for the same client.

use std::io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
use std::io::{self, IoSlice};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::net::stream::Stream;
use crate::net::watchdog::{Flush, Watchdog};
use crate::websocket::batch::{Account, Batch, Payload};
use crate::websocket::close::{Close, CloseCode, Side};
use crate::websocket::frame::Frame;
use crate::websocket::outbox_state::{
    self, Ending, OutboxState, Phase, Source, Spent, Waiter, WriteHalf,
};
use crate::websocket::settings::{Overflow, Websocket};

/// Pongs that may wait; the reader stops reading before it answers more pings.
const MAX_CONTROL_FRAMES: usize = 16;
/// Batches that are written in one go: what a sender writes for others before a writer thread takes over.
const MAX_BATCHES: usize = 16;
/// So many bytes are gathered at most before they are written.
const MAX_GATHERED: usize = 32 << 10;
/// A frame up to this length is one slice of a write, copied together on the stack.
const SHORT: usize = 128;
/// How long a sender that finds the outbox full lets another one finish its write. That does not wait for the client, but
/// on a machine that is busy it may wait for a processor.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);
/// How long whoever waits for a client may take to notice that its socket was cut.
const CUT_PATIENCE: Duration = Duration::from_secs(1);
/// The writer thread's code is all in this file, and shallow; destructors of payloads may need some more.
const WRITER_STACK: usize = 256 << 10;

thread_local! {
    static THIS_THREAD: ThreadId = thread::current().id();
}

/// The outgoing half of a connection. Any thread may send; nothing blocks but a handler that floods its own client.
#[derive(Debug)]
pub(crate) struct Outbox {
    stream: Arc<Stream>,
    watchdog: Watchdog,
    limits: OutboxLimits,
    /// The thread that reads this connection and runs its handlers.
    reader: ThreadId,
    /// Mirrors `OutboxState::phase` for a look without the lock.
    is_sealed: AtomicBool,
    state: Mutex<OutboxState>,
    /// The messages that wait. Unbounded, because a bounded channel reserves its places: the account is the bound.
    queue: (Sender<Frame>, Receiver<Frame>),
    /// Signalled when room was made, the write half laid down, or the state became final.
    changed: Condvar,
}

#[derive(Debug)]
struct OutboxLimits {
    bytes: usize,
    /// Over all outboxes of the process.
    process_bytes: usize,
    messages: usize,
    topics: usize,
    overflow: Overflow,
    write_timeout: Duration,
    close_timeout: Duration,
}

/// How a round of writing ended.
#[derive(Debug)]
enum Round {
    /// Nothing waits any more.
    Drained,
    /// Something is left, and the client takes no more now.
    Blocked,
    /// Something is left; others shall write it.
    Unfinished,
    /// There is nothing more to do, ever.
    Over,
    Failed(io::Error),
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Closing,
}

impl Outbox {
    /// An outbox whose first bytes are `opening`, the response that the client waits for. Nothing is written before
    /// [`start`](Self::start), so that the connection can be registered first.
    pub(crate) fn new(
        stream: Arc<Stream>,
        watchdog: Watchdog,
        settings: &Websocket,
        process_bytes: usize,
        opening: Vec<u8>,
    ) -> Arc<Self> {
        Arc::new(Self {
            stream,
            watchdog,
            limits: OutboxLimits {
                bytes: settings.outbox_bytes,
                process_bytes,
                messages: settings.outbox_messages,
                topics: settings.max_topics,
                overflow: settings.overflow,
                write_timeout: settings.write_timeout,
                close_timeout: settings.close_timeout,
            },
            reader: THIS_THREAD.with(|id| *id),
            is_sealed: AtomicBool::new(false),
            state: Mutex::new(OutboxState::new(opening)),
            queue: unbounded(),
            changed: Condvar::new(),
        })
    }

    /// Begins to write.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.phase != Phase::Failed {
            state.write_half = WriteHalf::Free;
            self.write_what_waits(state);
        }
    }

    /// Takes a message for the client. The caller does not wait for the client, unless it is the connection's own
    /// handler: then it waits for room, up to the write timeout, which holds back a client that floods.
    pub(crate) fn send(self: &Arc<Self>, frame: &Frame) -> Result<(), NotTaken> {
        let mut state = self.state.lock();
        if !self.has_room(&state, frame) {
            state = self.make_room(state, frame);
        }
        if state.phase != Phase::Open {
            return Err(NotTaken::Closing);
        }
        if !self.has_room(&state, frame) {
            drop(state);
            if self.limits.overflow == Overflow::Close {
                self.overflow();
            }
            return Err(NotTaken::Full);
        }
        state.accept(frame);
        match state.write_half {
            WriteHalf::Free if !state.is_gathering => self.write_through(frame, state),
            WriteHalf::Free if self.is_read_by_this_thread() => {
                state.rest.gathered.push_message(frame);
                self.write_or_gather(state);
            }
            _ => {
                // The receiver lives as long as the sender does.
                let _ = self.queue.0.send(frame.clone());
                self.write_what_waits(state);
            }
        }
        Ok(())
    }

    /// Sends a ping or pong, ahead of the messages that wait. Only the reader does.
    pub(crate) fn send_control(self: &Arc<Self>, frame: &Frame) {
        let mut state = self.state.lock();
        let has_room = |state: &OutboxState| state.control_frames < MAX_CONTROL_FRAMES;
        self.wait_for(&mut state, self.limits.write_timeout, has_room);
        if state.phase == Phase::Open && has_room(&state) {
            state.rest.control.push_control(frame);
            state.control_frames += 1;
            self.write_or_gather(state);
        }
    }

    /// The reader has more input at hand: what it sends from here on may be gathered until it [flushes](Self::flush).
    pub(crate) fn gather(&self) {
        self.state.lock().is_gathering = true;
    }

    /// The reader has no more input at hand: writes what was gathered.
    pub(crate) fn flush(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.is_gathering = false;
        self.write_what_waits(state);
    }

    /// Closes: after all that waits, the close frame goes out, then the stream ends, and nothing is taken any more.
    /// What has not ended by `close_timeout` is cut. Only the first call counts; whether this was it.
    pub(crate) fn seal(self: &Arc<Self>, close: Close) -> bool {
        let frame = Frame::close(&close);
        self.seal_with(close, Some(frame), Ending::Outbox)
    }

    /// Like [`seal`](Self::seal), without a close frame: for a client that ended without one.
    pub(crate) fn seal_without_frame(self: &Arc<Self>, close: Close) -> bool {
        self.seal_with(close, None, Ending::Outbox)
    }

    /// Closes a client that is too slow. The reader is woken, because its handler shall learn of it now: the client may
    /// not send anything for a long time.
    fn overflow(self: &Arc<Self>) {
        let close = Close::new(CloseCode::TRY_AGAIN_LATER, "slow receiver");
        let frame = Frame::close(&close);
        if !Stream::CAN_INTERRUPT_READS {
            self.seal_with(close, Some(frame), Ending::Outbox);
        } else if self.seal_with(close, Some(frame), Ending::Reader) {
            self.stream.interrupt_read();
        }
    }

    fn seal_with(self: &Arc<Self>, close: Close, last: Option<Frame>, ending: Ending) -> bool {
        if self.is_sealed() {
            return false;
        }
        let cut = self.watchdog.cut_after(&self.stream, self.limits.close_timeout);
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            drop(state);
            drop(cut);
            return false;
        }
        state.phase = Phase::Sealed;
        self.is_sealed.store(true, Ordering::Release);
        let rest = &mut *state.rest;
        (rest.sealed, rest.last, rest.ending, rest.cut) = (Some(close), last, ending, Some(cut));
        self.changed.notify_all();
        self.write_what_waits(state);
        true
    }

    /// Gives the connection up, with what waits for it.
    pub(crate) fn fail(&self, by: Side, reason: String) {
        drop(self.give_up((by, reason)));
    }

    fn give_up(&self, failure: (Side, String)) -> Spent {
        let mut state = self.state.lock();
        if state.is_over() {
            return Spent::new();
        }
        let mut batches = state.fail(failure);
        self.is_sealed.store(true, Ordering::Release);
        self.changed.notify_all();
        drop(state);
        self.stream.cut();
        let queued = self.queue.1.try_iter().map(Payload::from);
        batches.iter_mut().filter_map(Batch::clear).chain(queued).collect()
    }

    /// The kernel gave up a client that takes nothing, which the reader may be told instead of the writer thread.
    pub(crate) fn fail_stalled(&self) {
        drop(self.give_up(self.stalled()));
    }

    fn stalled(&self) -> (Side, String) {
        let reason = format!("the client took nothing for {:?}", self.limits.write_timeout);
        (Side::Server, reason)
    }

    /// Whether the connection is being closed, or was given up.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed.load(Ordering::Acquire)
    }

    /// Why it is being closed: as sealed, or why it was given up.
    pub(crate) fn close(&self) -> Option<Close> {
        let state = self.state.lock();
        let failure = || {
            let (_, reason) = state.rest.failure.as_ref()?;
            Some(Close::new(CloseCode::ABNORMAL, reason.as_str()))
        };
        state.rest.sealed.clone().or_else(failure)
    }

    /// Who is the reason that it was given up, if it was before anybody closed.
    pub(crate) fn given_up_by(&self) -> Option<Side> {
        let state = self.state.lock();
        let failure = state.rest.failure.as_ref().filter(|_| state.rest.sealed.is_none());
        failure.map(|(by, _)| *by)
    }

    /// Whether a slow client has taken something within `time`: a sign of life, if it has nothing to say.
    pub(crate) fn has_taken_within(&self, time: Duration) -> bool {
        let state = self.state.lock();
        let takes_nothing = state.rest.stalled_since.is_some_and(|since| since.elapsed() >= time);
        state.is_slow() && !takes_nothing
    }

    /// Waits for the end of a sealed outbox: everything written, or given up. When the watchdog cuts the socket, whoever
    /// waits for the client finds that out, or else this does.
    pub(crate) fn wait_until_done(&self) -> Done {
        let mut state = self.state.lock();
        while !state.is_over() || matches!(state.rest.waiter, Waiter::Starting | Waiter::Thread) {
            let has_waited = self.changed.wait_for(&mut state, CUT_PATIENCE).timed_out();
            if has_waited && self.stream.was_cut() && state.write_half == WriteHalf::Blocked {
                // Whoever waited for the client is gone, as the watchdog of a server that has stopped.
                drop(state);
                drop(self.retry(Stream::write_now));
                state = self.state.lock();
            }
        }
        let (writers, spent) =
            (mem::take(&mut state.rest.writers), mem::take(&mut state.rest.spent));
        let done = Done {
            has_failed: state.phase == Phase::Failed,
            sent: state.sent_messages,
            unsent: state.waiting.messages,
        };
        drop(state);
        drop(spent);
        for writer in writers {
            let _ = writer.join();
        }
        done
    }

    /// Waits up to `time` until the connection is being closed, or was given up.
    pub(crate) fn wait_until_sealed(&self, time: Duration) {
        self.wait_for(&mut self.state.lock(), time, |_| false);
    }

    /// Waits up to `time` for anything to change.
    pub(crate) fn wait_for_change(&self, time: Duration) {
        self.changed.wait_for(&mut self.state.lock(), time);
    }

    /// To how many topics its connection may subscribe.
    pub(crate) fn max_topics(&self) -> usize {
        self.limits.topics
    }

    /// Whether the calling thread reads this connection and runs its handlers.
    pub(crate) fn is_read_by_this_thread(&self) -> bool {
        THIS_THREAD.with(|id| *id == self.reader)
    }

    /// One message always fits an empty outbox.
    fn has_room(&self, state: &OutboxState, frame: &Frame) -> bool {
        let bytes = Account::of(frame).bytes;
        let process_has_room =
            || outbox_state::queued_in_process().saturating_add(bytes) <= self.limits.process_bytes;
        state.waiting.messages == 0
            || (state.waiting.messages < self.limits.messages
                && state.waiting.bytes.saturating_add(bytes) <= self.limits.bytes
                && (!state.is_slow() || process_has_room()))
    }

    /// Before a client is judged slow, what it would take is tried. Its own handler then waits for room.
    fn make_room<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, OutboxState>,
        frame: &Frame,
    ) -> MutexGuard<'a, OutboxState> {
        let has_room = |state: &OutboxState| self.has_room(state, frame);
        self.wait_for(&mut state, WRITE_PATIENCE, |state| has_room(state) || state.is_here());
        if !has_room(&state) && state.is_here() {
            self.write_and_call_waiter(state);
            state = self.state.lock();
        }
        if self.is_read_by_this_thread() {
            self.wait_for(&mut state, self.limits.write_timeout, has_room);
        }
        state
    }

    /// Waits until `condition`, the end of sending, or the timeout.
    fn wait_for(
        &self,
        state: &mut MutexGuard<'_, OutboxState>,
        timeout: Duration,
        mut condition: impl FnMut(&OutboxState) -> bool,
    ) {
        if condition(state) {
            return;
        }
        let deadline = deadline::after(timeout);
        while !condition(state) && state.phase == Phase::Open {
            if self.changed.wait_until(state, deadline).timed_out() {
                return;
            }
        }
    }

    /// The reader's replies to a burst go out together: one write instead of many. What others send does not wait for
    /// them, and they do not wait for a handler that takes its time.
    fn write_or_gather<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, OutboxState>) {
        let may_gather = state.is_gathering
            && state.write_half == WriteHalf::Free
            && state.waiting.bytes < MAX_GATHERED
            && state.control_frames < MAX_CONTROL_FRAMES
            && !state.rest.gathered.is_full();
        if !may_gather {
            self.write_what_waits(state);
        } else if !mem::replace(&mut state.is_watched, true) {
            drop(state);
            self.have_watchdog_look();
        }
    }

    fn have_watchdog_look(self: &Arc<Self>) {
        let this: Weak<Self> = Arc::downgrade(self);
        self.watchdog.flush_soon(this);
    }

    /// The common case: nothing waits, so that the frame need not be copied to a batch.
    fn write_through<'a>(
        self: &'a Arc<Self>,
        frame: &Frame,
        mut state: MutexGuard<'a, OutboxState>,
    ) {
        state.write_half = WriteHalf::Taken;
        drop(state);
        let sent = if frame.len() <= SHORT {
            let mut bytes = SmallVec::<[u8; SHORT]>::from_slice(frame.header());
            bytes.extend_from_slice(frame.payload());
            self.stream.write_now(&[IoSlice::new(&bytes)])
        } else {
            self.stream.write_now(&[IoSlice::new(frame.header()), IoSlice::new(frame.payload())])
        };
        let written = match sent {
            Ok(written) => written,
            Err(error) if error.kind() == WouldBlock => 0,
            Err(error) => return drop(self.give_up(self.failure(&error))),
        };
        let mut state = self.state.lock();
        if written == frame.len() {
            state.settle(Account::of(frame));
            self.changed.notify_all();
        }
        if state.phase == Phase::Failed {
            return;
        }
        if written < frame.len() {
            state.rest.pipe.push_written(frame, written);
            state.block();
            self.call_waiter(state);
        } else {
            state.write_half = WriteHalf::Free;
            if state.has_work() {
                self.write_what_waits(state);
            }
        }
    }

    /// Writes from this thread what the client takes at once, if nobody writes already and the client is not slow.
    fn write_what_waits<'a>(self: &'a Arc<Self>, state: MutexGuard<'a, OutboxState>) {
        if state.write_half == WriteHalf::Free {
            self.write_and_call_waiter(state);
        }
    }

    fn write_and_call_waiter<'a>(self: &'a Arc<Self>, state: MutexGuard<'a, OutboxState>) {
        let (round, spent) = self.write_round(state, Stream::write_now);
        match round {
            Round::Drained | Round::Over => {}
            Round::Blocked | Round::Unfinished => self.call_waiter(self.state.lock()),
            Round::Failed(error) => drop(self.give_up(self.failure(&error))),
        }
        // Last of all: its destructors may take their time.
        drop(spent);
    }

    /// Takes the write half, which lies here, writes what waits, and lays it down again. What was written is for the
    /// caller to drop, when it has done what the round's end asks for.
    fn write_round(
        &self,
        mut state: MutexGuard<'_, OutboxState>,
        write: impl Fn(&Stream, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> (Round, Spent) {
        let mut pipe = state.take_write_half();
        let mut spent = mem::take(&mut state.rest.spent);
        let mut batches = 0;
        let round = loop {
            let is_anything_in_channel = !self.queue.1.is_empty();
            let next = state.load(&mut pipe, is_anything_in_channel);
            if next == Source::Nothing {
                break if state.phase == Phase::Sealed { Round::Over } else { Round::Drained };
            }
            if batches == MAX_BATCHES {
                break Round::Unfinished;
            }
            let written = MutexGuard::unlocked(&mut state, || {
                if next == Source::Channel {
                    self.receive(&mut pipe, &mut spent);
                }
                pipe.write(|slices| write(&self.stream, slices))
            });
            if written.is_ok() {
                state.rest.stalled_since = None;
                if pipe.is_written() {
                    state.settle(pipe.account());
                    self.changed.notify_all();
                    spent.extend(pipe.clear());
                    batches += 1;
                }
            }
            match written {
                _ if state.phase == Phase::Failed => break Round::Over,
                Ok(()) => {}
                Err(error) if error.kind() == WouldBlock => break Round::Blocked,
                Err(error) => break Round::Failed(error),
            }
        };
        match round {
            Round::Drained => state.free(mem::take(&mut pipe)),
            Round::Blocked | Round::Unfinished => {
                state.rest.pipe = mem::take(&mut pipe);
                state.block();
            }
            Round::Over if state.phase == Phase::Sealed => {
                if state.rest.ending == Ending::Outbox {
                    MutexGuard::unlocked(&mut state, || self.stream.finish_writing());
                }
                if state.phase == Phase::Sealed {
                    state.phase = Phase::Done;
                    state.write_half = WriteHalf::Taken;
                }
            }
            Round::Over | Round::Failed(_) => {}
        }
        self.changed.notify_all();
        drop(state);
        spent.extend(pipe.clear());
        (round, spent)
    }

    /// Fills the empty `pipe` from the channel.
    fn receive(&self, pipe: &mut Batch, spent: &mut Spent) {
        while !pipe.is_full()
            && let Ok(frame) = self.queue.1.try_recv()
        {
            spent.push(pipe.take_message(frame));
        }
    }

    /// Has somebody wait for the client, if nobody does.
    fn call_waiter<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, OutboxState>) {
        if state.write_half != WriteHalf::Blocked || state.rest.waiter != Waiter::Nobody {
            return;
        }
        let rest = &mut *state.rest;
        rest.waiter = Waiter::Starting;
        rest.writers.retain(|writer| !writer.is_finished());
        drop(state);
        let outbox = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("rwf-writer".to_owned())
            .stack_size(WRITER_STACK)
            .spawn(move || outbox.run_writer());
        match thread {
            Ok(thread) => {
                let mut state = self.state.lock();
                state.rest.waiter = Waiter::Thread;
                state.rest.writers.push(thread);
                self.changed.notify_all();
            }
            Err(_) => self.have_watchdog_wait(),
        }
    }

    /// The writer thread. There is one at a time, so that none resets the stall timeout of another.
    fn run_writer(&self) {
        self.watchdog.adopt_thread();
        loop {
            if contained(|| self.wait_for_client()).is_none() {
                self.fail(Side::Server, "the writer thread panicked".to_owned());
            }
            let mut state = self.state.lock();
            while state.rest.waiter == Waiter::Starting {
                self.changed.wait(&mut state);
            }
            // Somebody who found the client slow again left it to this thread.
            if state.is_slow() && !state.is_over() {
                continue;
            }
            state.rest.waiter = Waiter::Nobody;
            self.changed.notify_all();
            return;
        }
    }

    /// Waits and writes until the client has caught up or is given up.
    fn wait_for_client(&self) {
        self.stream.set_stall_timeout(Some(self.limits.write_timeout));
        loop {
            let (next_try, spent) = self.retry(Stream::write_patiently);
            drop(spent);
            let Some(time) = next_try else { break };
            match self.stream.wait_writable(time) {
                Err(error) if error.kind() != Interrupted => {
                    drop(self.give_up(self.failure(&error)));
                }
                _ => {}
            }
        }
        self.stream.set_stall_timeout(None);
    }

    /// Tries what a slow client takes now. How long to wait before the next try, if there is need for one.
    fn retry(
        &self,
        write: impl Fn(&Stream, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> (Option<Duration>, Spent) {
        let timeout = self.limits.write_timeout;
        let mut state = self.state.lock();
        // A sender that tries just now does not wait for the client.
        while state.write_half == WriteHalf::Retried && !state.is_over() {
            self.changed.wait(&mut state);
        }
        if state.write_half != WriteHalf::Blocked {
            return (None, Spent::new());
        }
        let (round, mut spent) = self.write_round(state, write);
        let next_try = match round {
            Round::Drained | Round::Over => None,
            Round::Unfinished => Some(Duration::ZERO),
            Round::Blocked => {
                let stalled_since = self.state.lock().rest.stalled_since;
                let stalled = stalled_since.map_or(Duration::ZERO, |since| since.elapsed());
                if stalled < timeout {
                    // Tried now and then, because a wait can overlook a little room.
                    Some((timeout - stalled).min(timeout / 4))
                } else {
                    spent.extend(self.give_up(self.stalled()));
                    None
                }
            }
            Round::Failed(error) => {
                spent.extend(self.give_up(self.failure(&error)));
                None
            }
        };
        (next_try, spent)
    }

    /// There is no thread to wait for the client: the watchdog tries now and then until it has caught up.
    fn have_watchdog_wait(self: &Arc<Self>) {
        self.stream.set_stall_timeout(Some(self.limits.write_timeout));
        let mut state = self.state.lock();
        state.rest.waiter = Waiter::Watchdog;
        self.changed.notify_all();
        let is_watched = mem::replace(&mut state.is_watched, true);
        drop(state);
        if !is_watched {
            self.have_watchdog_look();
        }
    }

    fn failure(&self, error: &io::Error) -> (Side, String) {
        match error.kind() {
            ConnectionAborted => self.stalled(),
            _ => (Side::Client, format!("cannot write: {error}")),
        }
    }
}

impl Flush for Outbox {
    /// On the watchdog's thread, which every connection relies on: nothing of the program's is dropped here.
    fn flush_waiting(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.is_watched = false;
        let is_waiting = state.rest.waiter == Waiter::Watchdog;
        let spent = if is_waiting {
            drop(state);
            self.retry(Stream::write_now).1
        } else if state.write_half == WriteHalf::Free {
            match self.write_round(state, Stream::write_now) {
                (Round::Failed(error), mut spent) => {
                    spent.extend(self.give_up(self.failure(&error)));
                    spent
                }
                (_, spent) => spent,
            }
        } else {
            return;
        };
        if is_waiting {
            self.stream.set_stall_timeout(None);
        }
        let mut state = self.state.lock();
        state.rest.spent.extend(spent);
        if is_waiting {
            state.rest.waiter = Waiter::Nobody;
        }
        // It may have become slow, or still be.
        self.call_waiter(state);
    }
}

/// How an outbox ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether the connection was given up.
    pub(crate) has_failed: bool,
    pub(crate) sent: u64,
    /// Messages that were taken and not written.
    pub(crate) unsent: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::message::Message;
    use bytes::Bytes;
    use std::cell::RefCell;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;
    use std::time::Instant;

    /// Nothing that works takes so long.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn text(text: &str) -> Frame {
        Frame::message(text.into())
    }

    fn pair() -> (Arc<Stream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        (Arc::new(Stream::new(listener.accept().unwrap().0, true).unwrap()), peer)
    }

    fn outbox(settings: &Websocket) -> (Arc<Outbox>, TcpStream) {
        let (stream, peer) = pair();
        let opening = b"opening".to_vec();
        (Outbox::new(stream, Watchdog::default(), settings, usize::MAX, opening), peer)
    }

    fn all_of(mut peer: TcpStream) -> Vec<u8> {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        received
    }

    #[test]
    fn nothing_precedes_the_opening_and_nothing_follows_the_close() {
        let (outbox, peer) = outbox(&Websocket::new());
        outbox.send(&text("early")).unwrap();
        outbox.send_control(&Frame::ping(Bytes::from_static(b"!")));
        outbox.start();
        outbox.send(&text("late")).unwrap();
        assert!(outbox.seal(Close::new(CloseCode::NORMAL, "")));
        assert!(!outbox.seal(Close::new(CloseCode::GOING_AWAY, "")), "the first close counts");
        assert_eq!(outbox.send(&text("too late")), Err(NotTaken::Closing));
        let done = outbox.wait_until_done();
        assert_eq!((done.has_failed, done.sent, done.unsent), (false, 2, 0));
        assert_eq!(all_of(peer), b"opening\x89\x01!\x81\x05early\x81\x04late\x88\x02\x03\xe8");
    }

    #[test]
    fn a_full_outbox_takes_one_message_when_it_is_empty() {
        let settings = Websocket::new().outbox_bytes(1).overflow(Overflow::Refuse);
        let (outbox, _peer) = outbox(&settings);
        let outbox_of_another_thread = Arc::clone(&outbox);
        thread::spawn(move || {
            assert_eq!(outbox_of_another_thread.send(&text("one is always taken")), Ok(()));
            assert_eq!(
                outbox_of_another_thread.send(&text("two are too many")),
                Err(NotTaken::Full)
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_reader_waits_for_room_up_to_the_write_timeout() {
        let settings = Websocket::new()
            .outbox_messages(1)
            .write_timeout(Duration::from_millis(20))
            .overflow(Overflow::Refuse);
        let (outbox, _peer) = outbox(&settings);
        outbox.send(&text("first")).unwrap();
        let began = Instant::now();
        assert_eq!(outbox.send(&text("second")), Err(NotTaken::Full));
        assert!(began.elapsed() >= Duration::from_millis(20), "it did not wait");
    }

    #[test]
    fn a_failure_gives_up_what_waits_and_says_how_much() {
        let (outbox, _peer) = outbox(&Websocket::new());
        outbox.send(&text("lost")).unwrap();
        outbox.fail(Side::Client, "the cable was cut".to_owned());
        assert_eq!(outbox.send(&text("too late")), Err(NotTaken::Closing));
        let done = outbox.wait_until_done();
        assert_eq!((done.has_failed, done.unsent), (true, 1));
        assert_eq!(outbox.close().unwrap().reason, "the cable was cut");
    }

    /// Memory with a destructor, too long to be copied.
    fn owned(length: usize, on_drop: impl FnOnce() + Send + 'static) -> Frame {
        struct Owned<F: FnOnce()>(Vec<u8>, Option<F>);
        impl<F: FnOnce()> AsRef<[u8]> for Owned<F> {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl<F: FnOnce()> Drop for Owned<F> {
            fn drop(&mut self) {
                self.1.take().into_iter().for_each(|on_drop| on_drop());
            }
        }
        let payload = Bytes::from_owner(Owned(vec![7; length], Some(on_drop)));
        Frame::message(Message::binary(payload))
    }

    #[test]
    fn the_watchdog_drops_nothing_of_the_programs() {
        let (stream, _peer) = pair();
        let watchdog = Watchdog::default();
        let watching = watchdog.start(PATIENCE, || ()).unwrap();
        let outbox = Outbox::new(stream, watchdog.clone(), &Websocket::new(), usize::MAX, vec![]);
        let (tell, told) = channel();
        let on_drop = move || tell.send(thread::current().id()).unwrap();
        outbox.send(&owned(5000, on_drop)).unwrap();
        // As if the client had not taken it, and there were no thread to wait for it.
        outbox.state.lock().block();
        outbox.have_watchdog_wait();
        let deadline = Instant::now() + PATIENCE;
        while outbox.state.lock().waiting.messages > 0 {
            assert!(Instant::now() < deadline, "the watchdog does not write");
            thread::yield_now();
        }
        assert!(told.try_recv().is_err(), "the watchdog ran a destructor");
        // The next round drops it, once the watchdog has laid the write half down.
        let dropped_on = loop {
            assert!(Instant::now() < deadline, "nobody drops it");
            outbox.gather();
            outbox.send(&text("the next")).unwrap();
            outbox.flush();
            if let Ok(thread) = told.try_recv() {
                break thread;
            }
        };
        assert_eq!(dropped_on, thread::current().id());
        watchdog.stop();
        watching.join().unwrap();
    }

    #[test]
    fn a_destructor_that_waits_for_the_client_keeps_nothing_from_it() {
        let settings = Websocket::new().outbox_bytes(64 << 20);
        let (outbox, peer) = outbox(&settings);
        let (tell, told) = channel::<()>();
        // The first is written whole; the second does not fit into what the systems hold.
        outbox.send(&owned(5000, move || told.recv_timeout(PATIENCE).unwrap())).unwrap();
        outbox.send(&Frame::message(Message::binary(vec![1; 30 << 20]))).unwrap();
        let reading = thread::spawn(move || {
            let mut peer = peer;
            let mut all = vec![0; "opening".len() + 4 + 5000 + 10 + (30 << 20)];
            peer.read_exact(&mut all).unwrap();
            tell.send(()).unwrap();
        });
        outbox.start();
        reading.join().expect("the client waited for a destructor that waits for it");
    }

    #[test]
    fn a_writer_threads_last_words_may_need_another_writer() {
        struct LastWords(RefCell<Option<Arc<Outbox>>>);
        impl Drop for LastWords {
            fn drop(&mut self) {
                let outbox = self.0.take().unwrap();
                // By now the outbox has done with this thread.
                while outbox.state.lock().rest.waiter == Waiter::Thread {
                    thread::yield_now();
                }
                for _ in 0..10 {
                    outbox.send(&Frame::message(Message::binary(vec![1; 4 << 20]))).unwrap();
                }
            }
        }
        thread_local! {
            static LAST_WORDS: LastWords = const { LastWords(RefCell::new(None)) };
        }
        let settings = Websocket::new().outbox_bytes(256 << 20);
        let (outbox, mut peer) = outbox(&settings);
        outbox.start();
        outbox.send(&Frame::message(Message::binary(vec![1; 30 << 20]))).unwrap();
        let this = Arc::clone(&outbox);
        let on_drop = move || LAST_WORDS.with(|words| *words.0.borrow_mut() = Some(this));
        outbox.send(&owned(5000, on_drop)).unwrap();
        let length = "opening".len() + 10 + (30 << 20) + 4 + 5000 + 10 * (10 + (4 << 20));
        let mut all = vec![0; length];
        peer.read_exact(&mut all).expect("the last words do not arrive");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_stall_timeout_is_set_just_while_the_client_is_slow() {
        let (outbox, mut peer) = outbox(&Websocket::new().outbox_bytes(1 << 30));
        outbox.start();
        peer.read_exact(&mut [0; "opening".len()]).unwrap();
        let mut all = vec![0; 10 + (16 << 20)];
        for round in 0..20 {
            outbox.send(&Frame::message(Message::binary(vec![1; 16 << 20]))).unwrap();
            let deadline = Instant::now() + PATIENCE;
            while !outbox.stream.has_stall_timeout() {
                assert!(Instant::now() < deadline, "round {round}: it is not set");
                thread::yield_now();
            }
            peer.read_exact(&mut all).unwrap();
            if round % 2 == 0 {
                continue;
            }
            while outbox.state.lock().rest.waiter != Waiter::Nobody {
                assert!(Instant::now() < deadline, "round {round}: the writer does not end");
                thread::yield_now();
            }
            assert!(!outbox.stream.has_stall_timeout(), "round {round}: it stays");
        }
    }
}
