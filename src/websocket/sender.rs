//! Sending into an outbox: what senders and the reader of a connection call, from the first message to the close.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::net::stream::Stream;
use crate::websocket::batch::{Account, Payload};
use crate::websocket::close::{Cause, Close, CloseCode};
use crate::websocket::frame::Frame;
use crate::websocket::latest::Waiting;
use crate::websocket::outbox::Outbox;
use crate::websocket::outbox_state::{Ending, OutboxState, Phase, Spent, Waiter, WriteHalf};
use crate::websocket::prepared::PreparedMessage;
use crate::websocket::questions::Asker;
use crate::websocket::room::{NotTaken, Patience};

/// How many pings and pongs may wait. When there are as many, the reader waits before it sends another one, and does
/// not read what the client sends meanwhile.
const MAX_CONTROL_FRAMES: usize = 16;
/// How many bytes the reader gathers before they are written.
const MAX_GATHERED: usize = 32 << 10;
/// How long whoever waits for a client may take to notice that its socket was cut.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// Where a message waits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// Behind all others.
    Last,
    /// In the place of the one that waits under this key, or else behind all others.
    Key(&'a str),
}

/// How an outbox ended.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether the connection was given up.
    pub(crate) has_failed: bool,
    pub(crate) sent: u64,
    /// Messages that were taken and not written.
    pub(crate) unsent: usize,
    /// Messages that made room for newer ones, and those that newer ones under the same key replaced.
    pub(crate) dropped: u64,
    pub(crate) replaced: u64,
}

impl Outbox {
    /// Begins to write, with the opening.
    pub(crate) fn start(self: &Arc<Self>) {
        self.has_started.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.phase != Phase::Failed {
            state.write_half = WriteHalf::Free;
            self.write_what_waits(state);
        }
    }

    #[cfg(test)]
    pub(crate) fn send(self: &Arc<Self>, frame: &Frame) -> Result<usize, NotTaken> {
        self.send_with(frame, Patience::Settings)
    }

    /// Asks the client something. Its answer goes to `asker`, which is held until then, or until it can answer no more.
    pub(crate) fn ask(
        self: &Arc<Self>,
        number: u64,
        question: &PreparedMessage,
        asker: &Arc<dyn Asker>,
    ) -> Result<(), NotTaken> {
        self.questions().insert(number, Arc::clone(asker));
        let sent = self.send_in(Place::Last, question, Patience::Settings);
        if sent.is_err() {
            self.questions().retract(number);
        }
        sent.map(drop)
    }

    /// Takes a message for the client, to wait in `place`, and after a wait for room if `patience` allows one. Returns how
    /// many older ones were dropped for it.
    #[inline]
    pub(crate) fn send_in(
        self: &Arc<Self>,
        place: Place<'_>,
        message: &PreparedMessage,
        patience: Patience,
    ) -> Result<usize, NotTaken> {
        let frame = self.frame_of(message);
        match place {
            Place::Last => self.send_with(frame, patience),
            Place::Key(key) => self.send_latest(key, frame, patience),
        }
    }

    /// The same for a frame that waits behind all others.
    #[inline(never)]
    pub(super) fn send_with(
        self: &Arc<Self>,
        frame: &Frame,
        patience: Patience,
    ) -> Result<usize, NotTaken> {
        let account = Account::of(frame);
        let state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(NotTaken::Closing);
        }
        if !self.has_room(&state, account.bytes) {
            return self.send_when_full(frame, account, patience, state);
        }
        self.take(frame, account, state);
        Ok(0)
    }

    /// Takes a message that goes out with others, which come right behind it; it goes out at once where it would have to
    /// wait for room, or much waits already. Whether the caller is to have it written by
    /// [`write_waiting`](Self::write_waiting), to which no earlier message has obliged it.
    #[cfg(feature = "redis")]
    pub(crate) fn send_with_next(
        self: &Arc<Self>,
        message: &PreparedMessage,
        patience: Patience,
    ) -> bool {
        let frame = self.frame_of(message);
        let account = Account::of(frame);
        let mut state = self.state.lock();
        let may_wait = state.phase == Phase::Open
            && state.write_half == WriteHalf::Free
            && state.waiting.bytes + account.bytes < MAX_GATHERED
            && !state.rest.gathered.is_full()
            && self.has_room(&state, account.bytes);
        if !may_wait {
            drop(state);
            // Whoever has sent it is elsewhere.
            let _ = self.send_with(frame, patience);
            return false;
        }
        // What waits already may be what the reader gathers.
        let is_first = state.waiting.bytes == 0 || state.is_gathering;
        state.accept(account);
        self.gather_message(frame, account, &mut state);
        is_first
    }

    /// Writes what [`send_with_next`](Self::send_with_next) has left.
    #[cfg(feature = "redis")]
    pub(crate) fn write_waiting(self: &Arc<Self>) {
        let state = self.state.lock();
        if state.has_work() {
            self.write_what_waits(state);
        }
    }

    /// The same for an outbox without room.
    #[cold]
    #[inline(never)]
    fn send_when_full<'a>(
        self: &'a Arc<Self>,
        frame: &Frame,
        account: Account,
        patience: Patience,
        state: MutexGuard<'a, OutboxState>,
    ) -> Result<usize, NotTaken> {
        let mut dropped = Spent::new();
        let state = self.make_room(state, account.bytes, patience, &mut dropped)?;
        if state.phase != Phase::Open {
            return Err(NotTaken::Closing);
        }
        self.take(frame, account, state);
        Ok(dropped.len())
    }

    fn take<'a>(
        self: &'a Arc<Self>,
        frame: &Frame,
        account: Account,
        mut state: MutexGuard<'a, OutboxState>,
    ) {
        let is_idle = state.is_idle();
        state.accept(account);
        if is_idle {
            self.write_through(frame, account, state);
        } else {
            self.queue_up(frame, account, state);
        }
    }

    /// Puts an accepted message where it waits.
    ///
    /// Apart, like all that most messages do not need, so that the frame of a send stays small: at thousands of
    /// connections each line of a stack is out of the caches by the next message.
    #[inline(never)]
    fn queue_up<'a>(
        self: &'a Arc<Self>,
        frame: &Frame,
        account: Account,
        mut state: MutexGuard<'a, OutboxState>,
    ) {
        let is_free = state.write_half == WriteHalf::Free;
        if is_free && state.is_gathering && self.is_read_by_this_thread() {
            self.gather_message(frame, account, &mut state);
            self.write_or_gather(state);
        } else {
            self.enqueue(Waiting::Message(frame.clone()));
            self.write_what_waits(state);
        }
    }

    /// Puts an accepted message where it waits for others to go out with. The write half is free.
    fn gather_message(&self, frame: &Frame, account: Account, state: &mut OutboxState) {
        if self.deflates_when_written() {
            self.enqueue(Waiting::Message(frame.clone()));
        } else {
            state.rest.gathered.push_message(frame, account);
        }
    }

    /// Takes the newest value of a key for the client: in the place of the value that still waits under that key, or else
    /// like a message.
    #[inline(never)]
    fn send_latest(
        self: &Arc<Self>,
        key: &str,
        frame: &Frame,
        patience: Patience,
    ) -> Result<usize, NotTaken> {
        let mut state = self.state.lock();
        let mut dropped = Spent::new();
        let mut old = self.replace(&mut state, key, frame);
        let account = Account::of_latest(frame, key.len());
        if old.is_none() && !self.has_room(&state, account.bytes) {
            state = self.make_room(state, account.bytes, patience, &mut dropped)?;
            // Another thread may have sent under this key while this one waited for room.
            old = self.replace(&mut state, key, frame);
        }
        if state.phase != Phase::Open {
            return Err(NotTaken::Closing);
        }
        // Where newest values wait for the client's answers, all of them go through the channel.
        let may_wait = state.rest.lag.is_some()
            || state.write_half != WriteHalf::Free
            || (state.waiting.bytes > 0 && !state.is_gathering);
        if old.is_some() {
            self.write_what_waits(state);
        } else if may_wait || (state.is_gathering && !self.is_read_by_this_thread()) {
            state.accept(account);
            self.enqueue(Waiting::Latest(state.rest.latest.insert(key, frame)));
            self.write_what_waits(state);
        } else {
            self.take(frame, Account::of(frame), state);
        }
        drop(old);
        Ok(dropped.len())
    }

    /// Replaces what waits under `key`, unless that is nothing, or the outbox has no room for the difference. The caller
    /// drops what is returned without the lock.
    fn replace(&self, state: &mut OutboxState, key: &str, frame: &Frame) -> Option<Payload> {
        if state.phase != Phase::Open {
            return None;
        }
        let is_alone = state.waiting.messages == 1;
        let may_grow = |bytes| is_alone || bytes == 0 || self.has_room_for_bytes(state, bytes);
        let (payload, old, new) = state.rest.latest.replace(key, frame, may_grow)?;
        state.accept(new);
        state.discard(old);
        state.rest.replaced += 1;
        Some(payload)
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
    #[inline(always)]
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
        // Many clients cannot answer over TLS once they were told that the server's stream has ended.
        let is_answered = cause == Cause::Client || !self.stream.has_tls();
        let ending = if is_answered { Ending::Outbox } else { Ending::Reader };
        self.seal_with((close, cause), Some(frame), ending)
    }

    /// Like [`seal`](Self::seal), without a close frame: for a client that ended without one.
    pub(crate) fn seal_without_frame(self: &Arc<Self>, close: Close, cause: Cause) -> bool {
        self.seal_with((close, cause), None, Ending::Outbox)
    }

    /// Closes a client that is too slow. The reader is woken, which may wait for bytes for a long time, so that the
    /// handler learns of the close now.
    pub(super) fn overflow(self: &Arc<Self>) {
        let close = Close::new(CloseCode::TRY_AGAIN_LATER, "slow receiver");
        let frame = Frame::close(&close);
        let why = (close, Cause::SlowReceiver);
        if !self.stream.can_interrupt_reads() {
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
        if let Some(questions) = self.asked() {
            questions.abandon();
        }
        true
    }

    /// Whether it is for the reader to end the stream, when everything was written and the client has answered.
    pub(crate) fn leaves_end_to_reader(&self) -> bool {
        self.state.lock().rest.ending == Ending::Reader
    }

    /// Whether everything was written, or given up.
    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().is_over()
    }

    /// Waits for the end of a sealed outbox: everything written, or given up. When the watchdog has cut the socket,
    /// whoever waits for the client notices, or this call does if nobody waits any more.
    pub(crate) fn wait_until_done(self: &Arc<Self>) -> Done {
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
            dropped: state.rest.dropped,
            replaced: state.rest.replaced,
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
    use crate::websocket::message::Message;
    use crate::websocket::settings::{Overflow, Websocket};
    use bytes::Bytes;
    use std::io::Read;
    use std::net::TcpStream;
    use std::thread;
    use std::time::Instant;

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

    #[cfg(feature = "redis")]
    #[test]
    fn what_goes_out_with_the_next_goes_out_before_it_and_before_all_that_comes_later() {
        let prepared = |of: &str| PreparedMessage::from(text(of));
        let (outbox, peer) = outbox(&Websocket::new());
        outbox.start();
        let settings = Patience::Settings;
        assert!(outbox.send_with_next(&prepared("a"), settings), "the first is to be written");
        assert!(!outbox.send_with_next(&prepared("b"), settings));
        assert_eq!(outbox.traffic().waiting_messages, 2, "nothing has gone out");
        outbox.send(&text("c")).unwrap();
        assert_eq!(outbox.traffic().waiting_messages, 0);
        assert!(outbox.send_with_next(&prepared("d"), settings));
        outbox.send_latest("key", &text("e"), settings).unwrap();
        assert!(outbox.send_with_next(&prepared("f"), settings));
        outbox.write_waiting();
        outbox.write_waiting();
        assert_eq!(outbox.traffic().waiting_messages, 0);
        // While the reader gathers, what comes from elsewhere does not wait for it.
        outbox.gather();
        outbox.send(&text("g")).unwrap();
        assert!(outbox.send_with_next(&prepared("h"), settings));
        outbox.write_waiting();
        assert_eq!(outbox.traffic().waiting_messages, 0);
        outbox.flush();
        assert!(outbox.send_with_next(&prepared("i"), settings));
        outbox.seal(Close::new(CloseCode::NORMAL, ""), Cause::Program);
        assert!(!outbox.send_with_next(&prepared("too late"), settings));
        outbox.wait_until_done();
        let letters: Vec<_> = (b'a'..=b'i').flat_map(|letter| [0x81, 1, letter]).collect();
        let expected = [&b"opening"[..], &letters, b"\x88\x02\x03\xe8"].concat();
        assert_eq!(all_of(peer), expected);
    }

    #[cfg(feature = "redis")]
    #[test]
    fn what_goes_out_with_the_next_is_held_to_the_limits() {
        let long = PreparedMessage::from(text(&"x".repeat(MAX_GATHERED)));
        let short = PreparedMessage::from(text("short"));
        let settings = Websocket::new().outbox_messages(2).overflow(Overflow::Refuse);
        let (outbox, _peer) = outbox(&settings);
        outbox.start();
        assert!(outbox.send_with_next(&short, Patience::Settings));
        assert!(!outbox.send_with_next(&long, Patience::Settings), "much is written at once");
        assert_eq!(outbox.traffic().waiting_messages, 0);
        for _ in 0..2 {
            outbox.send_with_next(&short, Patience::Settings);
        }
        assert!(!outbox.send_with_next(&short, Patience::Settings), "it is full: that is written");
        assert_eq!((outbox.traffic().sent_messages, outbox.traffic().waiting_messages), (5, 0));
    }

    #[test]
    fn keys_are_forgotten_when_their_values_have_gone_out_though_others_wait() {
        let (outbox, mut peer) = outbox(&Websocket::new().outbox_bytes(128 << 20));
        let keys = || outbox.state.lock().rest.latest.len();
        let long = Frame::message(Message::binary(vec![0; 24 << 20]));
        outbox.start();
        outbox.send(&long).unwrap();
        for number in 0..20 {
            let value = text("value");
            outbox.send_latest(&number.to_string(), &value, Patience::Settings).unwrap();
        }
        outbox.send(&long).unwrap();
        assert_eq!(keys(), 20);
        peer.read_exact(&mut vec![0; "opening".len() + long.len() + 20 * 7]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while keys() > 0 {
            assert!(Instant::now() < deadline, "{} keys are kept", keys());
            thread::yield_now();
        }
        assert!(outbox.traffic().waiting_messages > 0, "nothing waits any more");
        outbox.fail(Cause::Lost, String::new());
    }

    #[test]
    fn keys_are_forgotten_when_their_values_are_dropped() {
        let settings = Websocket::new().outbox_bytes(64 << 20).outbox_messages(10);
        let settings = settings.overflow(Overflow::DropOldest);
        let (outbox, _peer) = outbox(&settings);
        outbox.start();
        outbox.send(&Frame::message(Message::binary(vec![0; 24 << 20]))).unwrap();
        for number in 0..100 {
            let value = text("value");
            outbox.send_latest(&number.to_string(), &value, Patience::Settings).unwrap();
        }
        assert_eq!(outbox.state.lock().rest.latest.len(), 9, "with what is being written, ten");
        outbox.fail(Cause::Lost, String::new());
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

    #[test]
    fn why_a_connection_broke_is_waited_for_while_somebody_writes_and_no_longer() {
        let (outbox, _peer) = outbox(&Websocket::new());
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(30));
        let began = Instant::now();
        outbox.wait_for_failure(short);
        assert!(began.elapsed() >= short, "the opening is still to be written");
        outbox.start();
        outbox.wait_for_failure(long);
        assert!(began.elapsed() < long, "it waited for a writer that is not there");
    }
}
