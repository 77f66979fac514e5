//! Writing what waits in an outbox. Whoever has its write half does it: a sender or the reader, without waiting for the
//! client; a writer thread, which waits; or the watchdog, where the system gives no thread.

use std::io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
use std::io::{self, IoSlice};
use std::mem;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::MutexGuard;

use crate::base::contained::contained;
use crate::net::stream::Stream;
use crate::net::watchdog::Flush;
use crate::websocket::batch::{Account, Batch};
use crate::websocket::close::Cause;
use crate::websocket::frame::Frame;
use crate::websocket::header;
use crate::websocket::latest::Waiting;
use crate::websocket::outbox::Outbox;
use crate::websocket::outbox_state::{
    Ending, OutboxState, Phase, Reception, Source, Spent, Waiter, WriteHalf,
};

/// How many batches a thread writes in one go. A sender writes so much for others before it leaves the rest to a writer
/// thread.
const MAX_BATCHES: usize = 16;
/// So many bytes are compressed within some milliseconds, at the highest level too.
const SOON_COMPRESSED: usize = 64 << 10;
/// The writer thread's own code is shallow; destructors of payloads may need some more.
const WRITER_STACK: usize = 256 << 10;

/// How a round of writing ended.
#[derive(Debug)]
pub(super) enum Round {
    /// Nothing waits any more.
    Drained,
    /// Something is left, and the client takes no more now.
    Blocked,
    /// Something is left that waits for the client's answers.
    Held,
    /// Something is left, and this thread has written enough: a writer thread has to go on.
    Unfinished,
    /// Nothing will be written any more: all was, with the close, or the connection was given up.
    Over,
    Failed(io::Error),
}

impl Outbox {
    /// Writes a frame when nothing else waits, which is the common case: it need not be copied to a batch. A short one is
    /// one slice, copied together on the stack.
    pub(super) fn write_through<'a>(
        self: &'a Arc<Self>,
        frame: &Frame,
        account: Account,
        mut state: MutexGuard<'a, OutboxState>,
    ) {
        state.write_half = WriteHalf::Taken;
        drop(state);
        let deflated = self.deflate_next(frame);
        let frame = deflated.as_ref().unwrap_or(frame);
        let length = frame.len();
        let sent = if let Some(header) = frame.short_header() {
            let mut bytes = [0; 2 + header::SHORT];
            bytes[..2].copy_from_slice(&header);
            bytes[2..length].copy_from_slice(frame.payload());
            self.stream.write_now(&[IoSlice::new(&bytes[..length])])
        } else {
            self.write_long(frame)
        };
        let written = match sent {
            Ok(written) => written,
            Err(error) if error.kind() == WouldBlock => 0,
            Err(error) => return self.fail_to_write(&error),
        };
        if written < length {
            return self.block_with(frame, account, written);
        }
        let mut state = self.state.lock();
        state.note_sent(written);
        state.settle(account);
        self.changed.notify_all();
        if state.phase == Phase::Failed {
            return;
        }
        state.write_half = WriteHalf::Free;
        if state.has_work() {
            self.write_what_waits(state);
        }
    }

    #[inline(never)]
    fn write_long(&self, frame: &Frame) -> io::Result<usize> {
        let mut header = [0; header::MAX_SENT];
        let slices = [frame.header(&mut header), frame.payload()].map(IoSlice::new);
        self.stream.write_now(&slices)
    }

    /// Puts the write half back with a frame of which the client took `written` bytes.
    #[cold]
    #[inline(never)]
    fn block_with(self: &Arc<Self>, frame: &Frame, account: Account, written: usize) {
        let mut state = self.state.lock();
        state.note_sent(written);
        if state.phase != Phase::Failed {
            state.rest.batch.push_written(frame, account, written);
            state.block();
            self.ensure_waiter(state);
        }
    }

    /// Gives the connection up, because a write failed.
    #[cold]
    #[inline(never)]
    fn fail_to_write(&self, error: &io::Error) {
        drop(self.give_up(self.failure(error)));
    }

    /// Writes from this thread what the client takes at once, if nobody writes already and the client is not slow.
    pub(super) fn write_what_waits<'a>(self: &'a Arc<Self>, state: MutexGuard<'a, OutboxState>) {
        if state.can_write() {
            self.write_and_ensure_waiter(state);
        }
    }

    /// Writes from this thread what the client takes at once. When something is left, somebody else waits for the
    /// client. Whether the client would take more now.
    #[inline(never)]
    pub(super) fn write_and_ensure_waiter<'a>(
        self: &'a Arc<Self>,
        state: MutexGuard<'a, OutboxState>,
    ) -> bool {
        let (round, spent) = self.write_round(state, Stream::write_now);
        let takes_more = matches!(round, Round::Drained | Round::Unfinished);
        match round {
            Round::Drained | Round::Held | Round::Over => {}
            Round::Blocked | Round::Unfinished => self.ensure_waiter(self.state.lock()),
            Round::Failed(error) => self.fail_to_write(&error),
        }
        // Last of all, because these destructors may take their time.
        drop(spent);
        takes_more
    }

    /// Takes the write half out of the outbox, writes what waits, and puts it back. The caller sees to what the round's
    /// end asks for, and then drops the payloads that were written.
    fn write_round(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, OutboxState>,
        write: impl Fn(&Stream, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> (Round, Spent) {
        let mut batch = state.take_write_half();
        let mut spent = mem::take(&mut state.rest.spent);
        let mut batches = 0;
        let round = loop {
            let next = state.load(&mut batch, self.is_anything_queued());
            if next == Source::Nothing {
                break self.end(&mut state);
            }
            if next == Source::Held {
                break Round::Held;
            }
            if batches == MAX_BATCHES {
                break Round::Unfinished;
            }
            let mut reception = (next == Source::Channel).then(|| state.begin_reception());
            let written = MutexGuard::unlocked(&mut state, || {
                if let Some(reception) = &mut reception {
                    self.receive(reception, &mut batch, &mut spent);
                }
                // It is empty where the first that waits is a newest value that has to wait.
                if batch.is_empty() {
                    return Ok(0);
                }
                batch.write(|slices| write(&self.stream, slices))
            });
            if let Some(reception) = reception {
                spent.extend(state.end_reception(reception));
            }
            if let Ok(count) = written {
                state.note_sent(count);
                state.rest.stalled_since = None;
                if batch.is_written() {
                    state.settle(batch.account());
                    self.changed.notify_all();
                    spent.extend(batch.clear());
                    batches += 1;
                }
            }
            match written {
                _ if state.phase == Phase::Failed => break Round::Over,
                Ok(_) => {}
                Err(error) if error.kind() == WouldBlock => break Round::Blocked,
                Err(error) => break Round::Failed(error),
            }
        };
        match round {
            Round::Drained => state.free(mem::take(&mut batch)),
            Round::Held => {
                state.hold(mem::take(&mut batch));
                self.order_wake(&mut state);
            }
            Round::Blocked | Round::Unfinished => {
                state.rest.batch = mem::take(&mut batch);
                state.block();
            }
            Round::Over if state.phase == Phase::Sealed => {
                state.phase = Phase::Done;
                state.write_half = WriteHalf::Taken;
            }
            Round::Over | Round::Failed(_) => {}
        }
        self.changed.notify_all();
        drop(state);
        spent.extend(batch.clear());
        (round, spent)
    }

    /// How a round ends that finds nothing more to write: the end of the stream comes behind the last of a sealed outbox.
    fn end(&self, state: &mut MutexGuard<'_, OutboxState>) -> Round {
        if state.phase != Phase::Sealed {
            return Round::Drained;
        }
        if state.rest.ending == Ending::Outbox {
            let finished = MutexGuard::unlocked(state, || self.stream.finish_writing());
            // It is given up, or the client has no room even for a goodbye.
            if finished.is_err() && state.phase == Phase::Sealed {
                return Round::Blocked;
            }
        }
        Round::Over
    }

    /// Fills an empty `batch` from the channel, up to a newest value that has to wait.
    fn receive(&self, reception: &mut Reception, batch: &mut Batch, spent: &mut Spent) {
        let mut head = reception.head.take().map(Waiting::Latest);
        while !batch.is_full()
            && let Some(waiting) = head.take().or_else(|| self.dequeue())
        {
            if let Waiting::Latest(latest) = &waiting {
                if !reception.takes_latest() {
                    reception.head = Some(Arc::clone(latest));
                    return;
                }
                reception.has_latest = true;
                reception.taken.push(Arc::clone(latest));
            }
            if let Some((frame, account)) = waiting.into_parts() {
                reception.marks += u64::from(frame.is_control());
                batch.push_message(self.deflate_next(&frame).as_ref().unwrap_or(&frame), account);
                spent.push(frame.into());
            }
        }
        if reception.has_latest
            && !batch.is_full()
            && let Some(ping) = reception.ping.take()
        {
            batch.push_control(&ping);
        }
    }

    /// Starts a writer thread, if the client takes no more and nobody waits for it yet. Where the system gives no
    /// thread, the watchdog does its work.
    fn ensure_waiter<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, OutboxState>) {
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
            Err(_) => self.wait_by_watchdog(),
        }
    }

    /// The writer thread. There is one at a time, so that none resets the stall timeout of another.
    fn run_writer(self: &Arc<Self>) {
        self.watchdog.adopt_thread();
        loop {
            if contained(|| self.wait_for_client()).is_none() {
                self.fail(Cause::Lost, "the writer thread panicked".to_owned());
            }
            let mut state = self.state.lock();
            while state.rest.waiter == Waiter::Starting {
                self.changed.wait(&mut state);
            }
            // The client became slow again meanwhile, and no other thread was started because this one is the waiter.
            if state.is_blocked() && !state.is_over() {
                continue;
            }
            state.rest.waiter = Waiter::Nobody;
            self.changed.notify_all();
            return;
        }
    }

    /// Waits and writes until the client has caught up or is given up.
    fn wait_for_client(self: &Arc<Self>) {
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

    /// Writes what a slow client takes now. Returns how long to wait before the next try, `None` if there is no need
    /// for one, and payloads for the caller to drop.
    pub(super) fn retry(
        self: &Arc<Self>,
        write: impl Fn(&Stream, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> (Option<Duration>, Spent) {
        let timeout = self.limits.write_timeout;
        let mut state = self.state.lock();
        // A sender may be trying just now. That is soon over, because it does not wait for the client.
        while state.write_half == WriteHalf::Retried && !state.is_over() {
            self.changed.wait(&mut state);
        }
        if state.write_half != WriteHalf::Blocked {
            return (None, Spent::new());
        }
        let (round, mut spent) = self.write_round(state, write);
        let next_try = match round {
            Round::Drained | Round::Held | Round::Over => None,
            Round::Unfinished => Some(Duration::ZERO),
            Round::Blocked => {
                let stalled_since = self.state.lock().rest.stalled_since;
                let stalled = stalled_since.map_or(Duration::ZERO, |since| since.elapsed());
                if stalled < timeout {
                    // Tried several times, because a wait may overlook a little room: see `os::wait_writable`.
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

    /// Has the watchdog try what the client takes, every few milliseconds until the client has caught up.
    fn wait_by_watchdog(self: &Arc<Self>) {
        self.stream.set_stall_timeout(Some(self.limits.write_timeout));
        let mut state = self.state.lock();
        state.rest.waiter = Waiter::Watchdog;
        self.changed.notify_all();
        let is_flush_ordered = mem::replace(&mut state.is_flush_ordered, true);
        drop(state);
        if !is_flush_ordered {
            self.order_flush();
        }
    }

    /// Has the watchdog call [`flush_waiting`](Flush::flush_waiting) in a moment.
    pub(super) fn order_flush(self: &Arc<Self>) {
        let this: Weak<Self> = Arc::downgrade(self);
        self.watchdog.flush_soon(this);
    }

    /// Where newest values wait for the client's answers, has the watchdog [wake](Flush::wake) this when they have waited
    /// for long enough: nobody else may come by.
    pub(super) fn order_wake(self: &Arc<Self>, state: &mut OutboxState) {
        if state.write_half != WriteHalf::Held {
            return;
        }
        if let Some(lag) = &mut state.rest.lag {
            let due = lag.waits_until();
            if lag.wake.as_ref().is_none_or(|wake| wake.at() > due) {
                let this: Weak<Self> = Arc::downgrade(self);
                lag.wake = Some(self.watchdog.wake_at(due, this));
            }
        }
    }

    /// Writes what the client takes at once, and leaves what was written to whoever writes next, to be dropped.
    fn write_and_drop_nothing(self: &Arc<Self>, state: MutexGuard<'_, OutboxState>) -> Spent {
        match self.write_round(state, Stream::write_now) {
            (Round::Failed(error), mut spent) => {
                spent.extend(self.give_up(self.failure(&error)));
                spent
            }
            (_, spent) => spent,
        }
    }

    fn failure(&self, error: &io::Error) -> (Cause, String) {
        match error.kind() {
            ConnectionAborted => self.stalled(),
            _ => (Cause::Lost, format!("cannot write: {error}")),
        }
    }
}

impl Flush for Outbox {
    /// Runs on the watchdog's thread, which every connection relies on, so no payload is dropped here: its destructor
    /// may be the program's.
    fn flush_waiting(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.is_flush_ordered = false;
        let is_waiting = state.rest.waiter == Waiter::Watchdog;
        let spent = if is_waiting {
            drop(state);
            self.retry(Stream::write_now).1
        } else if state.write_half == WriteHalf::Free {
            self.write_and_drop_nothing(state)
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
        // The client may have become slow, or still be.
        self.ensure_waiter(state);
    }

    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock();
        if let Some(lag) = &mut state.rest.lag {
            lag.wake = None;
        }
        if state.write_half != WriteHalf::Held || !state.can_write() {
            return self.order_wake(&mut state);
        }
        if self.deflates_when_written() && state.waiting.bytes > SOON_COMPRESSED {
            // Cuts of others would wait for that: a writer thread does it.
            state.block();
            return self.ensure_waiter(state);
        }
        let spent = self.write_and_drop_nothing(state);
        let mut state = self.state.lock();
        state.rest.spent.extend(spent);
        self.ensure_waiter(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::watchdog::Watchdog;
    use crate::websocket::message::Message;
    use crate::websocket::settings::Websocket;
    use bytes::Bytes;
    use std::cell::RefCell;
    use std::io::Read;
    use std::net::TcpStream;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    /// Nothing that works takes so long.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn outbox(settings: &Websocket) -> (Arc<Outbox>, TcpStream) {
        Outbox::with_client(settings, Watchdog::default())
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
        let watchdog = Watchdog::default();
        let watching = watchdog.start(PATIENCE, || ()).unwrap();
        let (outbox, _peer) = Outbox::with_client(&Websocket::new(), watchdog.clone());
        let (tell, told) = channel();
        let on_drop = move || tell.send(thread::current().id()).unwrap();
        outbox.send(&owned(5000, on_drop)).unwrap();
        // As if the client had not taken it, and there were no thread to wait for it.
        outbox.state.lock().block();
        outbox.wait_by_watchdog();
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
            outbox.send(&Frame::message("the next".into())).unwrap();
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
    #[cfg(feature = "deflate")]
    fn what_takes_long_to_compress_is_not_compressed_by_the_watchdog() {
        use crate::websocket::compression::Deflation;
        use crate::websocket::deflate::Deflate;
        use crate::websocket::extensions::{Agreement, Side};
        use crate::websocket::prepared::PreparedMessage;
        use crate::websocket::room::Patience;
        use crate::websocket::sender::Place;
        for (length, threads) in [(SOON_COMPRESSED / 2, 0), (8 << 20, 1)] {
            let settings = Websocket::new().outbox_bytes(64 << 20).max_lag(PATIENCE);
            let (mut outbox, mut peer) = outbox(&settings.ping_timeout(Duration::from_millis(300)));
            let side = Side { window_bits: 15, keeps_context: true };
            let settings = Deflate::new().context_takeover(true).level(9);
            let agreement = Agreement { settings, server: side, client: side };
            Arc::get_mut(&mut outbox).unwrap().deflation =
                Some(Box::new(Deflation::new(&agreement)));
            outbox.start();
            let text: String =
                (0..length).map(|at| (b'a' + (at * at % 23) as u8) as char).collect();
            for value in ["first", &text].map(PreparedMessage::new) {
                outbox.send_in(Place::Key("value"), &value, Patience::Settings).unwrap();
            }
            assert_eq!(outbox.state.lock().write_half, WriteHalf::Held, "it waits for no answer");
            let deadline = Instant::now() + PATIENCE;
            while outbox.state.lock().write_half == WriteHalf::Held {
                assert!(Instant::now() < deadline, "it waits for an answer without end");
                Arc::clone(&outbox).wake();
                thread::sleep(Duration::from_millis(1));
            }
            let started = outbox.state.lock().rest.writers.len();
            assert_eq!(started, threads, "writer threads for {length} bytes");
            while outbox.state.lock().waiting.messages > 0 {
                assert!(Instant::now() < deadline, "nobody writes it");
                thread::yield_now();
            }
            let mut received = [0; "opening".len() + 2 + "first".len() + 2];
            peer.read_exact(&mut received).unwrap();
            let [.., ping, length] = received;
            assert_eq!(ping, 0x89, "no ping behind the first value");
            let mut received = vec![0; usize::from(length) + 1];
            peer.read_exact(&mut received).unwrap();
            assert_eq!(received.last(), Some(&0xc1), "a compressed text");
        }
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
    fn what_a_writer_thread_sends_while_it_ends_may_need_another_writer() {
        struct SendsAtItsEnd(RefCell<Option<Arc<Outbox>>>);
        impl Drop for SendsAtItsEnd {
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
            static AT_ITS_END: SendsAtItsEnd = const { SendsAtItsEnd(RefCell::new(None)) };
        }
        let settings = Websocket::new().outbox_bytes(256 << 20);
        let (outbox, mut peer) = outbox(&settings);
        outbox.start();
        outbox.send(&Frame::message(Message::binary(vec![1; 30 << 20]))).unwrap();
        let this = Arc::clone(&outbox);
        let on_drop = move || AT_ITS_END.with(|sends| *sends.0.borrow_mut() = Some(this));
        outbox.send(&owned(5000, on_drop)).unwrap();
        let length = "opening".len() + 10 + (30 << 20) + 4 + 5000 + 10 * (10 + (4 << 20));
        let mut all = vec![0; length];
        peer.read_exact(&mut all).expect("what the ending thread has sent does not arrive");
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
