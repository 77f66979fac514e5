//! What waits to be written to one connection: senders put it in (`sender.rs`), and whoever has the write half writes
//! it (`writer.rs`).
//!
//! There is one write half, which is in the outbox while nobody writes. Whoever brings a frame takes it and writes,
//! without blocking and without holding the lock. What others bring meanwhile waits in a channel, whose receiver is
//! whoever has the write half: so frames cannot interleave, and their order is that of the channel.
//!
//! When the client does not take everything at once, the write half is put back with what is left, and a writer thread
//! waits until the client takes more. That thread ends when the client has caught up, so a healthy connection costs no
//! second thread. Only the reader's replies to a burst of input wait for each other a little, to go out in one write:
//! until the reader has no more input at hand, or until the watchdog finds that a handler takes its time; and messages that
//! come from other nodes of a cluster in one piece.
//!
//! Whoever sends a message puts it into the channel while holding the lock that its account is kept under. So whoever has
//! the write half and finds, under that lock, that nothing waits, knows that nothing does, and can put the write
//! half back or send the close frame.
//!
//! Payloads may be memory of the program's own, with destructors of its own. These run when neither the lock nor the
//! write half is held, so that they may send and panic. A destructor that waits holds up what waits for the same client.

use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::base::deadline;
use crate::net::stream::Stream;
use crate::net::watchdog::Watchdog;
use crate::websocket::batch::{Batch, Payload};
use crate::websocket::close::{Cause, Close, CloseCode, Closed};
use crate::websocket::compression::{Agreement, Deflation};
use crate::websocket::frame::Frame;
use crate::websocket::latest::Waiting;
use crate::websocket::outbox_state::{OutboxState, Phase, Spent, Waiter, WriteHalf};
use crate::websocket::prepared::PreparedMessage;
use crate::websocket::questions::Questions;
use crate::websocket::settings::{Overflow, Websocket};
use crate::websocket::traffic::{Received, Traffic};

thread_local! {
    static THIS_THREAD: ThreadId = thread::current().id();
}

/// The outgoing half of a connection. Any thread may send; nothing blocks but a handler that floods its own client.
///
/// In this order in memory: every message needs what stands first, and with thousands of connections it is in none of the
/// processor's caches by then. Not aligned to their lines: an aligned allocation takes up to two lines more, and none that a
/// handshake has given back.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Outbox {
    pub(super) state: Mutex<OutboxState>,
    pub(super) stream: Arc<Stream>,
    /// Signalled when room was made, the write half was put back, the waiter changed, or the phase did.
    pub(super) changed: Condvar,
    /// How messages are compressed, where that was agreed on.
    pub(super) deflation: Option<Box<Deflation>>,
    /// What the client is asked, from its first question on.
    questions: OnceLock<Box<Questions>>,
    pub(crate) received: Received,
    /// Whether `OutboxState::phase` is not `Open` any more, for a look without the lock.
    pub(super) is_sealed: AtomicBool,
    pub(super) has_started: AtomicBool,
    /// The thread that reads this connection and runs its handlers.
    reader: ThreadId,
    pub(super) limits: OutboxLimits,
    /// The messages that wait. Unbounded, because a bounded channel reserves its places: the account is the bound. Made
    /// for the first message that waits: most connections never have one, and it takes half a kilobyte.
    queue: OnceLock<(Sender<Waiting>, Receiver<Waiting>)>,
    pub(super) watchdog: Watchdog,
    /// The connection's name in the log.
    pub(crate) label: Arc<str>,
}

/// How much may wait for the client, and how long.
#[derive(Debug)]
pub(super) struct OutboxLimits {
    pub(super) bytes: usize,
    /// Over all outboxes of the process.
    pub(super) process_bytes: usize,
    pub(super) messages: usize,
    topics: usize,
    pub(super) overflow: Overflow,
    pub(super) write_timeout: Duration,
    pub(super) close_timeout: Duration,
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
        agreement: Option<Agreement>,
        label: Arc<str>,
    ) -> Arc<Self> {
        Arc::new(Self {
            deflation: agreement.map(|agreement| Box::new(Deflation::new(&agreement))),
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
            label,
            reader: THIS_THREAD.with(|id| *id),
            is_sealed: AtomicBool::new(false),
            has_started: AtomicBool::new(false),
            received: Received::default(),
            state: Mutex::new(OutboxState::new(opening, settings.lag())),
            queue: OnceLock::new(),
            questions: OnceLock::new(),
            changed: Condvar::new(),
        })
    }

    /// An outbox that has not started, whose opening is `opening`, and its client, which waits for a while for what it
    /// reads.
    #[cfg(test)]
    pub(crate) fn with_client(
        settings: &Websocket,
        watchdog: Watchdog,
    ) -> (Arc<Self>, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let stream = Arc::new(Stream::new(listener.accept().unwrap().0, true).unwrap());
        (
            Self::new(
                stream,
                watchdog,
                settings,
                usize::MAX,
                b"opening".to_vec(),
                None,
                "a tab".into(),
            ),
            client,
        )
    }

    /// To how many topics the connection may subscribe.
    pub(crate) fn max_topics(&self) -> usize {
        self.limits.topics
    }

    /// Whether the calling thread reads this connection and runs its handlers.
    pub(crate) fn is_read_by_this_thread(&self) -> bool {
        THIS_THREAD.with(|id| *id == self.reader)
    }

    /// Whether the connection is being closed, or was given up.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed.load(Ordering::Acquire)
    }

    /// Whether it has begun to write: the client is told that its WebSocket is open.
    pub(crate) fn has_started(&self) -> bool {
        self.has_started.load(Ordering::Relaxed)
    }

    /// The frame of a message that waits for this client.
    pub(super) fn frame_of<'a>(&self, message: &'a PreparedMessage) -> &'a Frame {
        // What is not taken need not be compressed.
        message.frame_for(self.deflation.as_deref().filter(|_| !self.is_sealed()))
    }

    /// Whether what waits is compressed when it is written, because it refers to what was before it.
    pub(super) fn deflates_when_written(&self) -> bool {
        self.deflation.as_ref().is_some_and(|deflation| deflation.method().is_none())
    }

    /// What is written in the place of a frame that has waited. The caller has the write half, and writes it next.
    pub(super) fn deflate_next(&self, frame: &Frame) -> Option<Frame> {
        self.deflation.as_ref()?.next(frame)
    }

    /// Why the connection is being closed, or else why it was given up.
    pub(crate) fn closed(&self) -> Option<Closed> {
        let state = self.state.lock();
        let unsent = state.waiting.messages;
        let failure = || {
            let (cause, reason) = state.rest.failure.as_ref()?;
            Some((Close::new(CloseCode::ABNORMAL, reason.as_str()), *cause))
        };
        let (Close { code, reason }, cause) = state.rest.sealed.clone().or_else(failure)?;
        Some(Closed { code, reason, cause, unsent, dropped: state.rest.dropped })
    }

    /// What has gone over the WebSocket so far.
    pub(crate) fn traffic(&self) -> Traffic {
        let mut traffic = self.state.lock().traffic();
        traffic.received_messages = self.received.messages();
        traffic.received_bytes = self.received.bytes();
        traffic
    }

    /// What the client is asked.
    pub(crate) fn questions(&self) -> &Questions {
        self.questions.get_or_init(Box::default)
    }

    /// What the client is asked, if it ever was.
    pub(crate) fn asked(&self) -> Option<&Questions> {
        self.questions.get().map(Box::as_ref)
    }

    /// How many messages were dropped for newer ones.
    pub(crate) fn dropped(&self) -> u64 {
        self.state.lock().rest.dropped
    }

    /// Whether a slow client has taken something within `time`: a sign of life, although it may send nothing.
    pub(crate) fn has_taken_within(&self, time: Duration) -> bool {
        let state = self.state.lock();
        let takes_nothing = state.rest.stalled_since.is_some_and(|since| since.elapsed() >= time);
        state.is_blocked() && !takes_nothing
    }

    /// Puts a message into the channel. The caller holds the lock of the state.
    pub(super) fn enqueue(&self, waiting: Waiting) {
        let (sender, _) = self.queue.get_or_init(unbounded);
        // The receiver lives as long as the sender does.
        let _ = sender.send(waiting);
    }

    /// Takes the next message out of the channel. The caller has the write half, or drops what has waited longest.
    pub(super) fn dequeue(&self) -> Option<Waiting> {
        self.queue.get()?.1.try_recv().ok()
    }

    pub(super) fn is_anything_queued(&self) -> bool {
        self.queue.get().is_some_and(|(_, queue)| !queue.is_empty())
    }

    /// Waits up to `time` until the connection is being closed, or was given up.
    pub(crate) fn wait_until_sealed(&self, time: Duration) {
        self.wait_for(&mut self.state.lock(), time, |_| false);
    }

    /// Waits up to `time` for whoever writes to note why the connection broke. Where nobody writes, nobody knows.
    pub(crate) fn wait_for_failure(&self, time: Duration) {
        self.wait_for(&mut self.state.lock(), time, |state| {
            matches!(state.write_half, WriteHalf::Free | WriteHalf::Held)
                && state.rest.waiter == Waiter::Nobody
        });
    }

    /// Waits up to `time` for anything to change.
    pub(crate) fn wait_for_change(&self, time: Duration) {
        self.changed.wait_for(&mut self.state.lock(), time);
    }

    /// Waits until `condition` holds, nothing can be sent any more, or the timeout is over.
    pub(super) fn wait_for(
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

    /// Gives the connection up, and drops what waits for it.
    pub(crate) fn fail(&self, cause: Cause, reason: String) {
        drop(self.give_up((cause, reason)));
    }

    /// Gives the connection up because the kernel has, after the client took nothing. The kernel tells one thread,
    /// which may be the reader instead of the writer thread.
    pub(crate) fn fail_stalled(&self) {
        drop(self.give_up(self.stalled()));
    }

    pub(super) fn stalled(&self) -> (Cause, String) {
        let reason = format!("the client took nothing for {:?}", self.limits.write_timeout);
        (Cause::Stalled, reason)
    }

    /// Gives the connection up. The caller drops what is returned, which waited for it.
    pub(super) fn give_up(&self, failure: (Cause, String)) -> Spent {
        let mut state = self.state.lock();
        if state.is_over() {
            return Spent::new();
        }
        let mut batches = state.fail(failure);
        let head = state.rest.head.take();
        self.is_sealed.store(true, Ordering::Release);
        self.changed.notify_all();
        drop(state);
        if let Some(questions) = self.asked() {
            questions.abandon();
        }
        self.stream.cut();
        let queued = iter::from_fn(|| self.dequeue()).filter_map(Waiting::into_parts);
        let waiting = head.map(Waiting::Latest).into_iter().filter_map(Waiting::into_parts);
        let queued = waiting.chain(queued).map(|(frame, _)| Payload::from(frame));
        batches.iter_mut().filter_map(Batch::clear).chain(queued).collect()
    }
}
