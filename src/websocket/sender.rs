//! Sending into an outbox: what senders and the reader of a connection call, from the first message to the close.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::net::stream::Stream;
use crate::websocket::batch::Account;
use crate::websocket::close::{Cause, Close, CloseCode};
use crate::websocket::frame::Frame;
use crate::websocket::outbox::Outbox;
use crate::websocket::outbox_state::{self, Ending, OutboxState, Phase, Waiter, WriteHalf};
use crate::websocket::settings::Overflow;

/// How many pings and pongs may wait. When there are as many, the reader waits before it sends another one, and does
/// not read what the client sends meanwhile.
const MAX_CONTROL_FRAMES: usize = 16;
/// How many bytes the reader gathers before they are written.
const MAX_GATHERED: usize = 32 << 10;
/// How long a sender that finds the outbox full waits for another thread to finish its write. That one does not wait
/// for the client, but on a busy machine it may wait for a processor.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a handler waits for its own client before the log warns of it: it may hold a lock meanwhile.
const SILENT_WAIT: Duration = Duration::from_secs(1);
/// How long whoever waits for a client may take to notice that its socket was cut.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Closing,
}

/// How long a sender waits for room in a full outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As the endpoint's settings say: a handler waits for its own client, up to the write timeout, and nobody waits for
    /// another's client. One that is too slow is closed, or its message refused.
    Settings,
    /// Whoever sends waits until then, or not at all for `None`. The client is not closed for being slow.
    Until(Option<Instant>),
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

impl Outbox {
    /// Begins to write, with the opening.
    pub(crate) fn start(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.phase != Phase::Failed {
            state.write_half = WriteHalf::Free;
            self.write_what_waits(state);
        }
    }

    /// Takes a message for the client, as the endpoint's settings say.
    pub(crate) fn send(self: &Arc<Self>, frame: &Frame) -> Result<(), NotTaken> {
        self.send_with(frame, Patience::Settings)
    }

    /// Takes a message for the client, after a wait for room if `patience` allows one.
    pub(crate) fn send_with(
        self: &Arc<Self>,
        frame: &Frame,
        patience: Patience,
    ) -> Result<(), NotTaken> {
        let mut state = self.state.lock();
        if !self.has_room(&state, frame) {
            state = self.make_room(state, frame, patience);
        }
        if state.phase != Phase::Open {
            return Err(NotTaken::Closing);
        }
        if !self.has_room(&state, frame) {
            drop(state);
            if patience == Patience::Settings && self.limits.overflow == Overflow::Close {
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

    /// Tries to make room for `frame`, first by writing what the client takes now: one that reads must not be judged
    /// slow. Then this waits for the client, as `patience` says.
    ///
    /// Apart, so that the frame of a send that finds room stays small.
    #[cold]
    #[inline(never)]
    fn make_room<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, OutboxState>,
        frame: &Frame,
        patience: Patience,
    ) -> MutexGuard<'a, OutboxState> {
        let has_room = |state: &OutboxState| self.has_room(state, frame);
        self.wait_for(&mut state, WRITE_PATIENCE, |state| {
            has_room(state) || state.can_take_write_half()
        });
        if !has_room(&state) && state.can_take_write_half() {
            self.write_and_ensure_waiter(state);
            state = self.state.lock();
        }
        match patience {
            Patience::Settings if self.is_read_by_this_thread() => {
                let timeout = self.limits.write_timeout;
                let silent = timeout.min(SILENT_WAIT);
                self.wait_for(&mut state, silent, has_room);
                if silent < timeout && state.phase == Phase::Open && !has_room(&state) {
                    MutexGuard::unlocked(&mut state, || contained(|| self.warn_of_wait()));
                    self.wait_for(&mut state, timeout - silent, has_room);
                }
            }
            Patience::Until(Some(deadline)) => {
                self.wait_for(&mut state, deadline::until(deadline), has_room);
            }
            Patience::Settings | Patience::Until(None) => {}
        }
        state
    }

    #[inline(never)]
    fn warn_of_wait(&self) {
        log::warn!(
            "a handler waits for its own client to take messages, and holds up whoever waits for it: {}",
            self.label
        );
    }

    /// Sends a ping or pong, ahead of the messages that wait. Only the reader does. Whether there was room for it within
    /// `time` and the write timeout.
    pub(crate) fn send_control(self: &Arc<Self>, frame: &Frame, time: Duration) -> bool {
        let mut state = self.state.lock();
        let has_room = |state: &OutboxState| state.control_frames < MAX_CONTROL_FRAMES;
        self.wait_for(&mut state, self.limits.write_timeout.min(time), has_room);
        let may_send = state.phase == Phase::Open && has_room(&state);
        if may_send {
            state.rest.control.push_control(frame);
            state.control_frames += 1;
            self.write_or_gather(state);
        }
        may_send
    }

    /// Writes what waits, unless the reader has more input at hand: then its replies are gathered, to go out in one
    /// write. Messages of other threads do not wait for them, and if a handler takes its time the watchdog writes them.
    fn write_or_gather<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, OutboxState>) {
        let may_gather = state.is_gathering
            && state.write_half == WriteHalf::Free
            && state.waiting.bytes < MAX_GATHERED
            && state.control_frames < MAX_CONTROL_FRAMES
            && !state.rest.gathered.is_full();
        if !may_gather {
            self.write_what_waits(state);
        } else if !mem::replace(&mut state.is_flush_ordered, true) {
            drop(state);
            self.order_flush();
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
    /// What has not ended by `close_timeout` is cut. Only the first call has an effect; returns whether
    /// this was the first.
    pub(crate) fn seal(self: &Arc<Self>, close: Close, cause: Cause) -> bool {
        let frame = Frame::close(&close);
        self.seal_with((close, cause), Some(frame), Ending::Outbox)
    }

    /// Like [`seal`](Self::seal), without a close frame: for a client that ended without one.
    pub(crate) fn seal_without_frame(self: &Arc<Self>, close: Close, cause: Cause) -> bool {
        self.seal_with((close, cause), None, Ending::Outbox)
    }

    /// Closes a client that is too slow. The reader is woken, which may wait for bytes for a long time, so that the
    /// handler learns of the close now.
    fn overflow(self: &Arc<Self>) {
        let close = Close::new(CloseCode::TRY_AGAIN_LATER, "slow receiver");
        let frame = Frame::close(&close);
        let why = (close, Cause::SlowReceiver);
        if !Stream::CAN_INTERRUPT_READS {
            self.seal_with(why, Some(frame), Ending::Outbox);
        } else if self.seal_with(why, Some(frame), Ending::Reader) {
            self.stream.interrupt_read();
        }
    }

    fn seal_with(
        self: &Arc<Self>,
        why: (Close, Cause),
        last: Option<Frame>,
        ending: Ending,
    ) -> bool {
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
        (rest.sealed, rest.last, rest.ending, rest.cut) = (Some(why), last, ending, Some(cut));
        self.changed.notify_all();
        self.write_what_waits(state);
        true
    }

    /// Waits for the end of a sealed outbox: everything written, or given up. When the watchdog has cut the socket,
    /// whoever waits for the client notices, or this call does if nobody waits any more.
    pub(crate) fn wait_until_done(&self) -> Done {
        let mut state = self.state.lock();
        while !state.is_over() || matches!(state.rest.waiter, Waiter::Starting | Waiter::Thread) {
            let has_waited = self.changed.wait_for(&mut state, CUT_PATIENCE).timed_out();
            if has_waited && self.stream.was_cut() && state.write_half == WriteHalf::Blocked {
                // Nobody waits for the client any more: it was the watchdog, and its server has stopped.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::watchdog::Watchdog;
    use crate::websocket::settings::Websocket;
    use bytes::Bytes;
    use std::io::Read;
    use std::net::TcpStream;
    use std::thread;

    fn text(text: &str) -> Frame {
        Frame::message(text.into())
    }

    fn outbox(settings: &Websocket) -> (Arc<Outbox>, TcpStream) {
        Outbox::with_client(settings, Watchdog::default())
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
        assert!(outbox.send_control(&Frame::ping(Bytes::from_static(b"!")), Duration::ZERO));
        outbox.start();
        outbox.send(&text("late")).unwrap();
        assert!(outbox.seal(Close::new(CloseCode::NORMAL, ""), Cause::Program));
        assert!(
            !outbox.seal(Close::new(CloseCode::GOING_AWAY, ""), Cause::Program),
            "the first close counts"
        );
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
        outbox.fail(Cause::Lost, "the cable was cut".to_owned());
        assert_eq!(outbox.send(&text("too late")), Err(NotTaken::Closing));
        let done = outbox.wait_until_done();
        assert_eq!((done.has_failed, done.unsent), (true, 1));
        assert_eq!(outbox.closed().unwrap().reason, "the cable was cut");
    }
}
