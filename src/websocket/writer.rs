//! Writing what waits in an outbox. Whoever has its write half does it: a sender or the reader, without waiting for the
//! client; a writer thread, which waits; or the watchdog, where the system gives no thread.

use std::io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
use std::io::{self, IoSlice};
use std::mem;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::base::contained::contained;
use crate::net::stream::Stream;
use crate::net::watchdog::Flush;
use crate::websocket::batch::{Account, Batch};
use crate::websocket::close::Cause;
use crate::websocket::frame::Frame;
use crate::websocket::outbox::Outbox;
use crate::websocket::outbox_state::{
    Ending, OutboxState, Phase, Source, Spent, Waiter, WriteHalf,
};

/// How many batches a thread writes in one go. A sender writes so much for others before it leaves the rest to a writer
/// thread.
const MAX_BATCHES: usize = 16;
/// A frame up to this length is one slice of a write, copied together on the stack.
const SHORT: usize = 128;
/// The writer thread's own code is shallow; destructors of payloads may need some more.
const WRITER_STACK: usize = 256 << 10;

/// How a round of writing ended.
#[derive(Debug)]
pub(super) enum Round {
    /// Nothing waits any more.
    Drained,
    /// Something is left, and the client takes no more now.
    Blocked,
    /// Something is left, and this thread has written enough: a writer thread has to go on.
    Unfinished,
    /// Nothing will be written any more: all was, with the close, or the connection was given up.
    Over,
    Failed(io::Error),
}

impl Outbox {
    /// Writes a frame when nothing else waits, which is the common case: it need not be copied to a batch.
    pub(super) fn write_through<'a>(
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
            state.rest.batch.push_written(frame, written);
            state.block();
            self.ensure_waiter(state);
        } else {
            state.write_half = WriteHalf::Free;
            if state.has_work() {
                self.write_what_waits(state);
            }
        }
    }

    /// Writes from this thread what the client takes at once, if nobody writes already and the client is not slow.
    pub(super) fn write_what_waits<'a>(self: &'a Arc<Self>, state: MutexGuard<'a, OutboxState>) {
        if state.write_half == WriteHalf::Free {
            self.write_and_ensure_waiter(state);
        }
    }

    /// Writes from this thread what the client takes at once. When something is left, somebody else waits for the
    /// client.
    pub(super) fn write_and_ensure_waiter<'a>(
        self: &'a Arc<Self>,
        state: MutexGuard<'a, OutboxState>,
    ) {
        let (round, spent) = self.write_round(state, Stream::write_now);
        match round {
            Round::Drained | Round::Over => {}
            Round::Blocked | Round::Unfinished => self.ensure_waiter(self.state.lock()),
            Round::Failed(error) => drop(self.give_up(self.failure(&error))),
        }
        // Last of all, because these destructors may take their time.
        drop(spent);
    }

    /// Takes the write half out of the outbox, writes what waits, and puts it back. The caller sees to what the round's
    /// end asks for, and then drops the payloads that were written.
    fn write_round(
        &self,
        mut state: MutexGuard<'_, OutboxState>,
        write: impl Fn(&Stream, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> (Round, Spent) {
        let mut batch = state.take_write_half();
        let mut spent = mem::take(&mut state.rest.spent);
        let mut batches = 0;
        let round = loop {
            let is_anything_in_channel = !self.queue.1.is_empty();
            let next = state.load(&mut batch, is_anything_in_channel);
            if next == Source::Nothing {
                break if state.phase == Phase::Sealed { Round::Over } else { Round::Drained };
            }
            if batches == MAX_BATCHES {
                break Round::Unfinished;
            }
            let written = MutexGuard::unlocked(&mut state, || {
                if next == Source::Channel {
                    self.receive(&mut batch, &mut spent);
                }
                batch.write(|slices| write(&self.stream, slices))
            });
            if written.is_ok() {
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
                Ok(()) => {}
                Err(error) if error.kind() == WouldBlock => break Round::Blocked,
                Err(error) => break Round::Failed(error),
            }
        };
        match round {
            Round::Drained => state.free(mem::take(&mut batch)),
            Round::Blocked | Round::Unfinished => {
                state.rest.batch = mem::take(&mut batch);
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
        spent.extend(batch.clear());
        (round, spent)
    }

    /// Fills an empty `batch` from the channel.
    fn receive(&self, batch: &mut Batch, spent: &mut Spent) {
        while !batch.is_full()
            && let Ok(frame) = self.queue.1.try_recv()
        {
            spent.push(batch.take_message(frame));
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
    fn run_writer(&self) {
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

    /// Writes what a slow client takes now. Returns how long to wait before the next try, `None` if there is no need
    /// for one, and payloads for the caller to drop.
    pub(super) fn retry(
        &self,
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
            Round::Drained | Round::Over => None,
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
        // The client may have become slow, or still be.
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
