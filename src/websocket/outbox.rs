//! What waits to be written to one connection, and the one way it gets there.
//!
//! Whoever brings a frame while nobody writes becomes the writer: it takes the pipe, which is the write half, out of the
//! state and writes, without blocking and without a lock held. A frame that comes meanwhile is left for it. What the
//! client does not take at once goes, with the pipe, to a writer thread that waits; it ends when it has caught up, so a
//! healthy connection costs none. Only replies to a burst of input wait for each other a little, to go out together:
//! until the reader has no more input at hand, or the watchdog finds that a handler takes its time. The pipe moves, and
//! there is one: frames cannot interleave, and their order is that of the queue.

use std::collections::VecDeque;
use std::io::ErrorKind::{ConnectionAborted, TimedOut, WouldBlock};
use std::io::IoSlice;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::deadline;
use crate::socket::Socket;
use crate::watchdog::{Gathers, Watchdog};
use crate::websocket::batch::Batch;
use crate::websocket::close::{Close, CloseCode};
use crate::websocket::frame::Frame;
use crate::websocket::settings::{Overflow, Websocket};

/// Pongs that may wait; the reader stops reading before it answers more pings.
const MAX_CONTROL_FRAMES: usize = 16;
/// Batches that a sender writes for others before the writer thread takes over.
const MAX_BATCHES_FOR_OTHERS: usize = 16;
/// So many bytes are gathered at most before they are written.
const MAX_GATHERED: usize = 32 << 10;
/// A frame up to this length is one slice of a write, copied together on the stack.
const SHORT: usize = 128;
/// The writer thread's code is all in this file, and shallow.
const WRITER_STACK: usize = 64 << 10;

/// Bytes of messages that wait for writer threads, over all outboxes of the process.
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
    /// Mirrors `State::is_closing` for a look without the lock.
    is_sealed: AtomicBool,
    state: Mutex<State>,
    /// Signalled when room was made, or the state became final.
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
#[derive(Debug, Default)]
struct State {
    /// Messages accepted and not yet written whole, with those in the pipe; and their bytes.
    waiting_messages: usize,
    waiting_bytes: usize,
    sent_messages: u64,
    control_frames: usize,
    /// Whether nobody writes. Whoever unsets it has the write half, and with it the pipe.
    is_free: bool,
    /// Whether a writer thread has the pipe, because the client is slow: what waits then is part of [`QUEUED`].
    has_writer: bool,
    /// Whether the reader has more input at hand, so that its replies go out together when it has not.
    is_gathering: bool,
    /// Whether the watchdog will flush what is gathered, if a handler takes its time.
    is_watched: bool,
    /// Sealed or failed.
    is_closing: bool,
    /// Everything was written and the stream was ended.
    is_finished: bool,
    rest: Box<Rest>,
}

/// What is needed when something waits, and at the end.
#[derive(Debug, Default)]
struct Rest {
    /// The batch on its way.
    pipe: Batch,
    /// Pings and pongs: they overtake messages, and have a limit of their own.
    control: Batch,
    /// Messages that wait: those of the full batches come first.
    full: VecDeque<Batch>,
    open: Batch,
    sealed: Option<Close>,
    /// The close frame, until the pipe takes it.
    last: Option<Frame>,
    failure: Option<String>,
    /// The newest writer thread; it may have ended.
    writer: Option<JoinHandle<()>>,
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
            state: Mutex::new(State { rest: Box::new(rest), ..State::default() }),
            changed: Condvar::new(),
        })
    }

    /// Begins to write.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.is_free = true;
        self.write_what_waits(state);
    }

    /// Takes a message for the client. The caller does not wait for the client, unless it is the connection's own
    /// handler: then it waits for room, up to the write timeout, which holds back a client that floods.
    pub(crate) fn send(self: &Arc<Self>, frame: &Frame) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if !self.has_room(&state, frame) && self.is_read_by_this_thread() {
            if state.is_gathering {
                self.write_what_waits(state);
                state = self.state.lock();
            }
            self.wait_for(&mut state, |state| self.has_room(state, frame));
        }
        if state.is_closing {
            return Err(Refused::Closing);
        }
        if !self.has_room(&state, frame) {
            drop(state);
            if self.limits.overflow == Overflow::Close {
                self.seal(Close::new(CloseCode::TryAgainLater, "slow receiver"));
            }
            return Err(Refused::Full);
        }
        state.count(frame);
        if state.is_free && !state.is_gathering {
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
        self.wait_for(&mut state, has_room);
        if !state.is_closing && has_room(&state) {
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
        self.seal_with(close, Some(frame))
    }

    /// Like [`seal`](Self::seal), without a close frame: for a client that ended without one.
    pub(crate) fn seal_without_frame(self: &Arc<Self>, close: Close) -> bool {
        self.seal_with(close, None)
    }

    fn seal_with(self: &Arc<Self>, close: Close, last: Option<Frame>) -> bool {
        let mut state = self.state.lock();
        if state.is_closing {
            return false;
        }
        state.is_closing = true;
        state.rest.sealed = Some(close);
        state.rest.last = last;
        self.is_sealed.store(true, Ordering::Release);
        self.changed.notify_all();
        self.write_what_waits(state);
        self.watchdog.cut_after(&self.socket, self.limits.close_timeout);
        true
    }

    /// Gives the connection up, with what waits for it.
    pub(crate) fn fail(&self, reason: String) {
        let mut state = self.state.lock();
        if state.rest.failure.is_none() && !state.is_finished {
            state.is_closing = true;
            state.rest.failure = Some(reason);
            self.is_sealed.store(true, Ordering::Release);
            let dropped = (mem::take(&mut state.rest.full), mem::take(&mut state.rest.open));
            self.changed.notify_all();
            drop(state);
            drop(dropped);
            self.socket.cut();
        }
    }

    /// The kernel gave up a client that takes nothing, which the reader may be told instead of the writer thread.
    pub(crate) fn fail_stalled(&self) {
        self.fail(format!("the client took nothing for {:?}", self.limits.write_timeout));
    }

    /// Whether the connection is being closed, or was given up.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed.load(Ordering::Acquire)
    }

    /// Why it is being closed.
    pub(crate) fn sealed(&self) -> Option<Close> {
        self.state.lock().rest.sealed.clone()
    }

    /// Waits for the end of a sealed outbox: everything written, or given up by the watchdog's cut at the latest.
    pub(crate) fn wait_until_done(&self) -> Done {
        let mut state = self.state.lock();
        while !state.is_finished && state.rest.failure.is_none() {
            self.changed.wait(&mut state);
        }
        let writer = state.rest.writer.take();
        let done = Done {
            failure: state.rest.failure.clone(),
            sent: state.sent_messages,
            unsent: state.waiting_messages,
        };
        drop(state);
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        done
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
        state.waiting_messages == 0
            || (state.waiting_messages < self.limits.messages
                && state.waiting_bytes.saturating_add(frame.len()) <= self.limits.bytes
                && (!state.has_writer
                    || QUEUED.load(Ordering::Relaxed).saturating_add(frame.len())
                        <= self.limits.process_bytes))
    }

    /// Waits until `condition`, the end, or the write timeout.
    fn wait_for(
        &self,
        state: &mut MutexGuard<'_, State>,
        mut condition: impl FnMut(&State) -> bool,
    ) {
        let deadline = deadline::after(self.limits.write_timeout);
        while !condition(state) && !state.is_closing {
            if self.changed.wait_until(state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Replies to a burst go out together: one write instead of many. What others send does not wait for them, and they
    /// do not wait for a handler that takes its time.
    fn write_or_gather<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) {
        let may_gather = state.is_gathering
            && state.waiting_bytes < MAX_GATHERED
            && state.control_frames < MAX_CONTROL_FRAMES
            && self.is_read_by_this_thread();
        if !may_gather {
            self.write_what_waits(state);
        } else if !mem::replace(&mut state.is_watched, true) {
            drop(state);
            let this: Weak<Self> = Arc::downgrade(self);
            self.watchdog.flush_soon(this);
        }
    }

    /// The common case: nothing waits, so that the frame need not be copied to a batch.
    fn write_through<'a>(self: &'a Arc<Self>, frame: &Frame, mut state: MutexGuard<'a, State>) {
        state.is_free = false;
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
            Err(error) => return self.fail(format!("cannot write: {error}")),
        };
        let mut state = self.state.lock();
        if written < frame.len() {
            let mut pipe = mem::take(&mut state.rest.pipe);
            pipe.push_written(frame, written);
            return self.write_on(pipe, state);
        }
        self.settle(&mut state, (1, written));
        state.is_free = true;
        if state.has_work() {
            self.write_what_waits(state);
        }
    }

    /// Writes from this thread what the client takes at once, if nobody writes already.
    fn write_what_waits<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) {
        if mem::take(&mut state.is_free) {
            let pipe = mem::take(&mut state.rest.pipe);
            self.write_on(pipe, state);
        }
    }

    fn write_on<'a>(self: &'a Arc<Self>, mut pipe: Batch, mut state: MutexGuard<'a, State>) {
        let mut batches = 0;
        while let Some(mut loaded) = self.load(pipe, state) {
            batches += 1;
            let written = if batches > MAX_BATCHES_FOR_OTHERS {
                Err(WouldBlock.into())
            } else {
                loaded.write(|slices| self.socket.write_now(slices))
            };
            match written {
                Ok(()) => {
                    state = self.state.lock();
                    pipe = loaded;
                }
                Err(error) if error.kind() == WouldBlock => {
                    return self.hand_to_writer(loaded);
                }
                Err(error) => return self.fail(format!("cannot write: {error}")),
            }
        }
    }

    fn hand_to_writer(self: &Arc<Self>, pipe: Batch) {
        {
            let mut state = self.state.lock();
            state.has_writer = true;
            QUEUED.fetch_add(state.waiting_bytes, Ordering::Relaxed);
        }
        let outbox = Arc::clone(self);
        let writer = thread::Builder::new()
            .name("rwf-writer".to_owned())
            .stack_size(WRITER_STACK)
            .spawn(move || outbox.write_all(pipe));
        match writer {
            Ok(writer) => self.state.lock().rest.writer = Some(writer),
            Err(error) => self.fail(format!("no thread to wait for a slow client: {error}")),
        }
    }

    /// The writer thread: owns the pipe, ends when nothing waits any more or the client takes nothing for the write
    /// timeout, and is joined by the reader when the connection ends.
    fn write_all(&self, mut pipe: Batch) {
        let timeout = self.limits.write_timeout;
        // Longer than the timeout of a write, which mostly finds it first.
        self.socket.set_stall_timeout(Some(timeout + timeout / 4));
        loop {
            let written = pipe.write(|slices| self.socket.write_within(slices, timeout));
            match written {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), TimedOut | ConnectionAborted) => {
                    return self.fail_stalled();
                }
                Err(error) => return self.fail(format!("cannot write: {error}")),
            }
            match self.load(pipe, self.state.lock()) {
                Some(loaded) => pipe = loaded,
                None => return self.socket.set_stall_timeout(None),
            }
        }
    }

    /// Takes written messages off the account.
    fn settle(&self, state: &mut State, (messages, bytes): (usize, usize)) {
        state.waiting_messages -= messages;
        state.waiting_bytes -= bytes;
        if state.has_writer {
            QUEUED.fetch_sub(bytes, Ordering::Relaxed);
        }
        state.sent_messages += messages as u64;
        self.changed.notify_all();
    }

    /// Fills `pipe` with what is next; without anything it lays the pipe down, or ends the stream when that was all.
    fn load(&self, mut pipe: Batch, mut state: MutexGuard<'_, State>) -> Option<Batch> {
        if state.rest.failure.is_some() {
            return None;
        }
        if !pipe.is_written() {
            return Some(pipe);
        }
        self.settle(&mut state, pipe.messages());
        pipe.clear();
        let rest = &mut *state.rest;
        if !rest.control.is_empty() {
            mem::swap(&mut pipe, &mut rest.control);
            state.control_frames = 0;
        } else if let Some(batch) = rest.full.pop_front() {
            pipe = batch;
        } else if !rest.open.is_empty() {
            mem::swap(&mut pipe, &mut rest.open);
        } else if let Some(frame) = rest.last.take() {
            pipe.push_control(&frame);
        } else if rest.sealed.is_some() {
            state.is_finished = true;
            drop(state);
            self.socket.finish_writing();
            self.changed.notify_all();
            return None;
        } else {
            // What a burst needed, an idle connection does not.
            rest.full = VecDeque::new();
            rest.pipe = pipe;
            state.has_writer = false;
            state.is_free = true;
            return None;
        }
        Some(pipe)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.has_writer {
            QUEUED.fetch_sub(state.waiting_bytes, Ordering::Relaxed);
        }
    }
}

impl Gathers for Outbox {
    fn flush(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.is_watched = false;
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
    fn has_work(&self) -> bool {
        self.waiting_messages > 0 || self.control_frames > 0 || self.is_closing
    }

    fn count(&mut self, frame: &Frame) {
        self.waiting_messages += 1;
        self.waiting_bytes += frame.len();
        if self.has_writer {
            QUEUED.fetch_add(frame.len(), Ordering::Relaxed);
        }
    }

    fn queue(&mut self, frame: &Frame) {
        let Rest { full, open, .. } = &mut *self.rest;
        if open.is_full() {
            full.push_back(mem::take(open));
        }
        open.push_message(frame);
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
        let began = std::time::Instant::now();
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
