//! What waits to be written to one connection, and the one way it gets there.
//!
//! Whoever brings a frame takes the write half, which lies here while nobody writes, and writes, without blocking and
//! without a lock held. A frame that comes meanwhile is left for it. When the client does not take everything at once,
//! the write half is laid down again with what is left, and a writer thread waits until the client takes more; it ends
//! when it has caught up, so a healthy connection costs none. Only replies to a burst of input wait for each other a
//! little, to go out together: until the reader has no more input at hand, or the watchdog finds that a handler takes
//! its time. There is one write half: frames cannot interleave, and their order is that of the queue.
//!
//! Payloads may be memory of the program's own, with destructors of its own: these run when neither the lock nor the
//! write half is held, so that they may send, wait or panic.

use std::collections::VecDeque;
use std::io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
use std::io::{self, IoSlice};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::deadline;
use crate::socket::Socket;
use crate::watchdog::{Cut, Flush, Watchdog};
use crate::websocket::batch::{Account, Batch};
use crate::websocket::close::{Close, CloseCode};
use crate::websocket::frame::Frame;
use crate::websocket::settings::{Overflow, Websocket};

/// Pongs that may wait; the reader stops reading before it answers more pings.
const MAX_CONTROL_FRAMES: usize = 16;
/// Batches that are written in one go: what a sender writes for others before a writer thread takes over.
const MAX_BATCHES: usize = 16;
/// So many bytes are gathered at most before they are written.
const MAX_GATHERED: usize = 32 << 10;
/// A frame up to this length is one slice of a write, copied together on the stack.
const SHORT: usize = 128;
/// How long a sender that finds the outbox full lets another one finish its write, which does not wait for the client
/// but perhaps for a processor.
const WRITE_PATIENCE: Duration = Duration::from_millis(10);
/// The writer thread's code is all in this file, and shallow; destructors of payloads may need some more.
const WRITER_STACK: usize = 256 << 10;

/// Bytes of messages that wait for slow clients, over all outboxes of the process.
static QUEUED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THIS_THREAD: ThreadId = thread::current().id();
}

/// The outgoing half of a connection. Any thread may send; nothing blocks but a handler that floods its own client.
#[derive(Debug)]
pub(crate) struct Outbox {
    socket: Arc<Socket>,
    watchdog: Watchdog,
    limits: Limits,
    /// The thread that reads this connection and runs its handlers.
    reader: ThreadId,
    /// Mirrors `State::phase` for a look without the lock.
    is_sealed: AtomicBool,
    state: Mutex<State>,
    /// Signalled when room was made, the write half laid down, or the state became final.
    changed: Condvar,
}

#[derive(Debug)]
struct Limits {
    bytes: usize,
    /// Over all outboxes of the process.
    process_bytes: usize,
    messages: usize,
    topics: usize,
    overflow: Overflow,
    write_timeout: Duration,
    close_timeout: Duration,
}

/// What every send looks at: little, because a message to thousands finds all of it cold. The rest is apart.
#[derive(Debug)]
struct State {
    phase: Phase,
    write_half: WriteHalf,
    /// Messages accepted and not yet written whole. While the client is slow they are part of [`QUEUED`].
    waiting: Account,
    sent_messages: u64,
    control_frames: usize,
    /// Whether the reader has more input at hand, so that its replies go out together when it has not.
    is_gathering: bool,
    /// Whether the watchdog will have a look at what waits.
    is_watched: bool,
    rest: Box<Rest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
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
enum WriteHalf {
    /// It lies here, and nothing waits but what the reader gathers.
    Free,
    /// Somebody writes; or nobody may, before the start and after a failure.
    Taken,
    /// It lies here, because the client took no more. Somebody waits for the client.
    Blocked,
    /// As `Blocked`, and somebody is trying what the client takes now.
    Retried,
}

/// What is needed when something waits, and at the end.
#[derive(Debug, Default)]
struct Rest {
    /// The batch on its way, while the write half lies here.
    pipe: Batch,
    /// Pings and pongs: they overtake messages, and have a limit of their own.
    control: Batch,
    /// Messages that wait: those of the full batches come first.
    full: VecDeque<Batch>,
    open: Batch,
    /// Since when the slow client takes nothing.
    stalled_since: Option<Instant>,
    waiter: Waiter,
    sealed: Option<Close>,
    /// The close frame, until the pipe takes it.
    last: Option<Frame>,
    ending: Ending,
    failure: Option<String>,
    cut: Option<Cut>,
}

/// Who waits for a slow client.
#[derive(Debug, Default)]
enum Waiter {
    #[default]
    Nobody,
    /// A thread that is being started.
    Starting,
    Thread(JoinHandle<()>),
    /// A thread that has nothing to do any more, and is about to end.
    Ended(JoinHandle<()>),
    /// There was no thread to be had: the watchdog tries now and then.
    Watchdog,
}

/// Who ends the stream when everything was written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Ending {
    #[default]
    Outbox,
    Reader,
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
pub(crate) enum Refused {
    Full,
    Closing,
}

impl Outbox {
    /// An outbox whose first bytes are `opening`, the response that the client waits for. Nothing is written before
    /// [`start`](Self::start), so that the connection can be registered first.
    pub(crate) fn new(
        socket: Arc<Socket>,
        watchdog: Watchdog,
        settings: &Websocket,
        process_bytes: usize,
        opening: Vec<u8>,
    ) -> Arc<Self> {
        let rest = Rest { control: Batch::opening(opening), ..Rest::default() };
        Arc::new(Self {
            socket,
            watchdog,
            limits: Limits {
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
            state: Mutex::new(State {
                phase: Phase::Open,
                write_half: WriteHalf::Taken,
                waiting: Account::default(),
                sent_messages: 0,
                control_frames: 0,
                is_gathering: false,
                is_watched: false,
                rest: Box::new(rest),
            }),
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
    pub(crate) fn send(self: &Arc<Self>, frame: &Frame) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if !self.has_room(&state, frame) {
            state = self.make_room(state, frame);
        }
        if state.phase != Phase::Open {
            return Err(Refused::Closing);
        }
        if !self.has_room(&state, frame) {
            drop(state);
            if self.limits.overflow == Overflow::Close {
                self.overflow();
            }
            return Err(Refused::Full);
        }
        state.accept(frame);
        if state.write_half == WriteHalf::Free && !state.is_gathering {
            self.write_through(frame, state);
        } else {
            state.queue(frame);
            self.write_or_gather(state);
        }
        Ok(())
    }

    /// Sends a ping or pong, ahead of the messages that wait. Only the reader does.
    pub(crate) fn send_control(self: &Arc<Self>, frame: &Frame) {
        let mut state = self.state.lock();
        let has_room = |state: &State| state.control_frames < MAX_CONTROL_FRAMES;
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
        let close = Close::new(CloseCode::TryAgainLater, "slow receiver");
        let frame = Frame::close(&close);
        if !Socket::CAN_INTERRUPT_READS {
            self.seal_with(close, Some(frame), Ending::Outbox);
        } else if self.seal_with(close, Some(frame), Ending::Reader) {
            self.socket.interrupt_read();
        }
    }

    fn seal_with(self: &Arc<Self>, close: Close, last: Option<Frame>, ending: Ending) -> bool {
        if self.is_sealed() {
            return false;
        }
        let cut = self.watchdog.cut_after(&self.socket, self.limits.close_timeout);
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
    pub(crate) fn fail(&self, reason: String) {
        let mut state = self.state.lock();
        if state.is_over() {
            return;
        }
        state.phase = Phase::Failed;
        self.is_sealed.store(true, Ordering::Release);
        if state.is_slow() {
            QUEUED.fetch_sub(state.waiting.bytes, Ordering::Relaxed);
        }
        // Nobody may write any more; whoever does finds that out.
        state.write_half = WriteHalf::Taken;
        let rest = &mut *state.rest;
        rest.failure = Some(reason);
        let given_up =
            (mem::take(&mut rest.pipe), mem::take(&mut rest.full), mem::take(&mut rest.open));
        self.changed.notify_all();
        drop(state);
        self.socket.cut();
        drop(given_up);
    }

    /// The kernel gave up a client that takes nothing, which the reader may be told instead of the writer thread.
    pub(crate) fn fail_stalled(&self) {
        self.fail(format!("the client took nothing for {:?}", self.limits.write_timeout));
    }

    /// Whether the connection is being closed, or was given up.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed.load(Ordering::Acquire)
    }

    /// Why it is being closed: as sealed, or why it was given up.
    pub(crate) fn close(&self) -> Option<Close> {
        let state = self.state.lock();
        let failure = || Some(Close::new(CloseCode::Abnormal, state.rest.failure.as_deref()?));
        state.rest.sealed.clone().or_else(failure)
    }

    /// Waits for the end of a sealed outbox: everything written, or given up by the watchdog's cut at the latest.
    pub(crate) fn wait_until_done(&self) -> Done {
        let mut state = self.state.lock();
        let has_thread =
            |state: &State| matches!(state.rest.waiter, Waiter::Starting | Waiter::Thread(_));
        while !state.is_over() || has_thread(&state) {
            self.changed.wait(&mut state);
        }
        let waiter = mem::take(&mut state.rest.waiter);
        let done = Done {
            failure: state.rest.failure.clone(),
            sent: state.sent_messages,
            unsent: state.waiting.messages,
        };
        drop(state);
        if let Waiter::Ended(thread) = waiter {
            let _ = thread.join();
        }
        done
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
    fn has_room(&self, state: &State, frame: &Frame) -> bool {
        let bytes = Account::of(frame).bytes;
        let process_has_room =
            || QUEUED.load(Ordering::Relaxed).saturating_add(bytes) <= self.limits.process_bytes;
        state.waiting.messages == 0
            || (state.waiting.messages < self.limits.messages
                && state.waiting.bytes.saturating_add(bytes) <= self.limits.bytes
                && (!state.is_slow() || process_has_room()))
    }

    /// Before a client is judged slow, what it would take is tried. Its own handler then waits for room.
    fn make_room<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        frame: &Frame,
    ) -> MutexGuard<'a, State> {
        let has_room = |state: &State| self.has_room(state, frame);
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
        state: &mut MutexGuard<'_, State>,
        timeout: Duration,
        mut condition: impl FnMut(&State) -> bool,
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

    /// Replies to a burst go out together: one write instead of many. What others send does not wait for them, and they
    /// do not wait for a handler that takes its time.
    fn write_or_gather<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) {
        let may_gather = state.is_gathering
            && state.write_half == WriteHalf::Free
            && state.waiting.bytes < MAX_GATHERED
            && state.control_frames < MAX_CONTROL_FRAMES
            && self.is_read_by_this_thread();
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
    fn write_through<'a>(self: &'a Arc<Self>, frame: &Frame, mut state: MutexGuard<'a, State>) {
        state.write_half = WriteHalf::Taken;
        drop(state);
        let sent = if frame.len() <= SHORT {
            let mut bytes = SmallVec::<[u8; SHORT]>::from_slice(frame.header());
            bytes.extend_from_slice(frame.payload());
            self.socket.write_now(&[IoSlice::new(&bytes)])
        } else {
            self.socket.write_now(&[IoSlice::new(frame.header()), IoSlice::new(frame.payload())])
        };
        let written = match sent {
            Ok(written) => written,
            Err(error) if error.kind() == WouldBlock => 0,
            Err(error) => return self.fail_to_write(&error),
        };
        let mut state = self.state.lock();
        if written == frame.len() {
            self.settle(&mut state, Account::of(frame));
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
    fn write_what_waits<'a>(self: &'a Arc<Self>, state: MutexGuard<'a, State>) {
        if state.write_half == WriteHalf::Free {
            self.write_and_call_waiter(state);
        }
    }

    fn write_and_call_waiter<'a>(self: &'a Arc<Self>, state: MutexGuard<'a, State>) {
        match self.write_round(state, Socket::write_now) {
            Round::Drained | Round::Over => {}
            Round::Blocked | Round::Unfinished => self.call_waiter(self.state.lock()),
            Round::Failed(error) => self.fail_to_write(&error),
        }
    }

    /// Takes the write half, which lies here, writes what waits, and lays it down again.
    fn write_round(
        &self,
        mut state: MutexGuard<'_, State>,
        write: impl Fn(&Socket, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Round {
        let mut pipe = state.take_write_half();
        let mut spent = Vec::new();
        let mut batches = 0;
        let round = loop {
            if pipe.is_empty() && !state.load(&mut pipe) {
                break if state.phase == Phase::Sealed { Round::Over } else { Round::Drained };
            }
            if batches == MAX_BATCHES {
                break Round::Unfinished;
            }
            let written = MutexGuard::unlocked(&mut state, || {
                pipe.write(|slices| write(&self.socket, slices))
            });
            if written.is_ok() {
                state.rest.stalled_since = None;
                if pipe.is_written() {
                    self.settle(&mut state, pipe.account());
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
                    MutexGuard::unlocked(&mut state, || self.socket.finish_writing());
                }
                if state.phase == Phase::Sealed {
                    state.phase = Phase::Done;
                }
            }
            Round::Over | Round::Failed(_) => {}
        }
        self.changed.notify_all();
        drop(state);
        drop((spent, pipe));
        round
    }

    /// Takes written messages off the account.
    fn settle(&self, state: &mut State, written: Account) {
        state.waiting.messages -= written.messages;
        state.waiting.bytes -= written.bytes;
        if state.is_slow() {
            QUEUED.fetch_sub(written.bytes, Ordering::Relaxed);
        }
        state.sent_messages += written.messages as u64;
        self.changed.notify_all();
    }

    /// Has somebody wait for the client, if nobody does.
    fn call_waiter<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) {
        if state.write_half != WriteHalf::Blocked {
            return;
        }
        let ended = match mem::take(&mut state.rest.waiter) {
            Waiter::Nobody => None,
            Waiter::Ended(thread) => Some(thread),
            waiting => {
                state.rest.waiter = waiting;
                return;
            }
        };
        state.rest.waiter = Waiter::Starting;
        drop(state);
        if let Some(thread) = ended {
            let _ = thread.join();
        }
        let outbox = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("rwf-writer".to_owned())
            .stack_size(WRITER_STACK)
            .spawn(move || outbox.run_writer());
        match thread {
            Ok(thread) => {
                self.state.lock().rest.waiter = Waiter::Thread(thread);
                self.changed.notify_all();
            }
            Err(_) => self.have_watchdog_wait(),
        }
    }

    /// The writer thread. There is one at a time, so that none resets the stall timeout of another; the reader joins the
    /// last one when the connection ends.
    fn run_writer(&self) {
        loop {
            let waited = catch_unwind(AssertUnwindSafe(|| self.wait_for_client()));
            if waited.is_err() {
                self.fail("the writer thread panicked".to_owned());
            }
            let mut state = self.state.lock();
            while matches!(state.rest.waiter, Waiter::Starting) {
                self.changed.wait(&mut state);
            }
            // Somebody who found the client slow again left it to this thread.
            if state.is_slow() && !state.is_over() {
                continue;
            }
            if let Waiter::Thread(thread) = mem::take(&mut state.rest.waiter) {
                state.rest.waiter = Waiter::Ended(thread);
            }
            self.changed.notify_all();
            return;
        }
    }

    /// Waits and writes until the client has caught up or is given up.
    fn wait_for_client(&self) {
        self.socket.set_stall_timeout(Some(self.limits.write_timeout));
        while let Some(time) = self.retry(Socket::write_patiently) {
            match self.socket.wait_writable(time) {
                Err(error) if error.kind() != Interrupted => self.fail_to_write(&error),
                _ => {}
            }
        }
        self.socket.set_stall_timeout(None);
    }

    /// Tries what a slow client takes now. How long to wait before the next try; `None` when there is no need for one.
    fn retry(
        &self,
        write: impl Fn(&Socket, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Option<Duration> {
        let timeout = self.limits.write_timeout;
        let mut state = self.state.lock();
        // A sender that tries just now does not wait for the client.
        while state.write_half == WriteHalf::Retried && !state.is_over() {
            self.changed.wait(&mut state);
        }
        if state.write_half != WriteHalf::Blocked {
            return None;
        }
        match self.write_round(state, write) {
            Round::Drained | Round::Over => None,
            Round::Unfinished => Some(Duration::ZERO),
            Round::Blocked => {
                let stalled_since = self.state.lock().rest.stalled_since;
                let left =
                    timeout.saturating_sub(stalled_since.map_or(Duration::ZERO, |at| at.elapsed()));
                if left.is_zero() {
                    self.fail_stalled();
                    return None;
                }
                // Tried now and then, because a wait can overlook a little room.
                Some(left.min(timeout / 4))
            }
            Round::Failed(error) => {
                self.fail_to_write(&error);
                None
            }
        }
    }

    /// There is no thread to wait for the client: the watchdog tries now and then until it has caught up.
    fn have_watchdog_wait(self: &Arc<Self>) {
        self.socket.set_stall_timeout(Some(self.limits.write_timeout));
        let mut state = self.state.lock();
        state.rest.waiter = Waiter::Watchdog;
        self.changed.notify_all();
        let is_watched = mem::replace(&mut state.is_watched, true);
        drop(state);
        if !is_watched {
            self.have_watchdog_look();
        }
    }

    fn fail_to_write(&self, error: &io::Error) {
        match error.kind() {
            ConnectionAborted => self.fail_stalled(),
            _ => self.fail(format!("cannot write: {error}")),
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.is_slow() {
            QUEUED.fetch_sub(state.waiting.bytes, Ordering::Relaxed);
        }
    }
}

impl Flush for Outbox {
    fn flush_waiting(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.is_watched = false;
        if !matches!(state.rest.waiter, Waiter::Watchdog) {
            return self.write_what_waits(state);
        }
        drop(state);
        if self.retry(Socket::write_now).is_some() {
            return self.have_watchdog_wait();
        }
        self.socket.set_stall_timeout(None);
        let mut state = self.state.lock();
        if state.is_slow() && !state.is_over() {
            drop(state);
            return self.have_watchdog_wait();
        }
        state.rest.waiter = Waiter::Nobody;
        self.write_what_waits(state);
    }
}

/// How an outbox ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Why the connection was given up, if it was.
    pub(crate) failure: Option<String>,
    pub(crate) sent: u64,
    /// Messages that were taken and not written.
    pub(crate) unsent: usize,
}

impl State {
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Failed)
    }

    /// Whether the write half lies here, so that it can be taken.
    fn is_here(&self) -> bool {
        matches!(self.write_half, WriteHalf::Free | WriteHalf::Blocked)
    }

    /// Whether the client did not take everything at once, and has not caught up.
    fn is_slow(&self) -> bool {
        matches!(self.write_half, WriteHalf::Blocked | WriteHalf::Retried)
    }

    fn has_work(&self) -> bool {
        self.waiting.messages > 0 || self.control_frames > 0 || self.phase != Phase::Open
    }

    fn accept(&mut self, frame: &Frame) {
        let Account { messages, bytes } = Account::of(frame);
        self.waiting.messages += messages;
        self.waiting.bytes += bytes;
        if self.is_slow() {
            QUEUED.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn queue(&mut self, frame: &Frame) {
        let Rest { full, open, .. } = &mut *self.rest;
        if open.is_full() {
            full.push_back(mem::take(open));
        }
        open.push_message(frame);
    }

    /// Fills the empty `pipe` with what is next; whether there was anything.
    fn load(&mut self, pipe: &mut Batch) -> bool {
        let rest = &mut *self.rest;
        if !rest.control.is_empty() {
            mem::swap(pipe, &mut rest.control);
            self.control_frames = 0;
        } else if let Some(batch) = rest.full.pop_front() {
            *pipe = batch;
        } else if !rest.open.is_empty() {
            mem::swap(pipe, &mut rest.open);
        } else if let Some(frame) = rest.last.take() {
            pipe.push_control(&frame);
        } else {
            return false;
        }
        true
    }

    fn take_write_half(&mut self) -> Batch {
        self.write_half = match self.write_half {
            WriteHalf::Free | WriteHalf::Taken => WriteHalf::Taken,
            WriteHalf::Blocked | WriteHalf::Retried => WriteHalf::Retried,
        };
        mem::take(&mut self.rest.pipe)
    }

    /// Lays the write half down: nothing waits.
    fn free(&mut self, pipe: Batch) {
        self.rest.pipe = pipe;
        // What a burst needed, an idle connection does not.
        self.rest.full = VecDeque::new();
        self.write_half = WriteHalf::Free;
    }

    /// Lays the write half down: the client takes no more, so that the rest waits for it.
    fn block(&mut self) {
        if !self.is_slow() {
            QUEUED.fetch_add(self.waiting.bytes, Ordering::Relaxed);
        }
        self.write_half = WriteHalf::Blocked;
        self.rest.stalled_since.get_or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn text(text: &str) -> Frame {
        Frame::message(text.into())
    }

    fn outbox(settings: &Websocket) -> (Arc<Outbox>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let socket = Arc::new(Socket::new(listener.accept().unwrap().0, true).unwrap());
        let opening = b"opening".to_vec();
        (Outbox::new(socket, Watchdog::default(), settings, usize::MAX, opening), peer)
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
        assert!(outbox.seal(Close::new(CloseCode::Normal, "")));
        assert!(!outbox.seal(Close::new(CloseCode::GoingAway, "")), "the first close counts");
        assert_eq!(outbox.send(&text("too late")), Err(Refused::Closing));
        let done = outbox.wait_until_done();
        assert_eq!((done.failure, done.sent, done.unsent), (None, 2, 0));
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
                Err(Refused::Full)
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
        assert_eq!(outbox.send(&text("second")), Err(Refused::Full));
        assert!(began.elapsed() >= Duration::from_millis(20), "it did not wait");
    }

    #[test]
    fn a_failure_gives_up_what_waits_and_says_how_much() {
        let (outbox, _peer) = outbox(&Websocket::new());
        outbox.send(&text("lost")).unwrap();
        outbox.fail("the cable was cut".to_owned());
        assert_eq!(outbox.send(&text("too late")), Err(Refused::Closing));
        let done = outbox.wait_until_done();
        assert_eq!((done.failure.as_deref(), done.unsent), (Some("the cable was cut"), 1));
    }
}
