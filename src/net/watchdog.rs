//! Watches the clock, one thread for a whole server: it cuts connections whose closing takes too long, has outboxes
//! write what has waited for a moment, or until then, and calls a check of the server's at regular intervals.
//!
//! The thread of a connection cannot do this itself: it may be waiting for bytes, or running a handler.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::base::contained::contained;
use crate::base::deadline;
use crate::net::stream::Stream;

/// How long after [`Watchdog::flush_soon`] an outbox is flushed. That is asked for when the reader gathers replies, in
/// case a handler takes its time, and when a client is slow and the system gives no thread to wait for it.
const FLUSH_DELAY: Duration = Duration::from_millis(2);

/// An outbox, as the watchdog knows it.
pub(crate) trait Flush: fmt::Debug + Send + Sync {
    /// Writes what waits, without waiting for the client.
    fn flush_waiting(self: Arc<Self>);

    /// The moment has come that was given to [`Watchdog::wake_at`].
    fn wake(self: Arc<Self>);
}

thread_local! {
    /// The server that this thread belongs to, by the address of its watchdog.
    static SERVER: Cell<usize> = const { Cell::new(0) };
}

/// A handle to the thread; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    schedule: Mutex<Schedule>,
    changed: Condvar,
}

/// What is to be done, and when.
#[derive(Debug, Default)]
struct Schedule {
    cuts: BTreeMap<OrderKey, Weak<Stream>>,
    wakes: BTreeMap<OrderKey, Weak<dyn Flush>>,
    /// How many of both were ordered so far: a part of each key, because several may be due at the same moment.
    ordered: u64,
    /// The outboxes to flush at `next_flush`.
    waiting: Vec<Weak<dyn Flush>>,
    next_flush: Option<Instant>,
    /// When the sleeping thread wakes by itself. Whoever orders something for an earlier moment wakes it.
    wakes_at: Option<Instant>,
    is_stopped: bool,
}

type OrderKey = (Instant, u64);

/// A cut or a wake that was ordered. It is called off when this is dropped.
#[derive(Debug)]
pub(crate) struct Order {
    shared: Arc<Shared>,
    key: OrderKey,
}

impl Order {
    /// When it is due.
    pub(crate) fn at(&self) -> Instant {
        self.key.0
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        let mut schedule = self.shared.schedule.lock();
        let called_off = (schedule.cuts.remove(&self.key), schedule.wakes.remove(&self.key));
        // Without the lock: this may be the last reference to the memory of a stream or an outbox.
        drop(schedule);
        drop(called_off);
    }
}

impl Watchdog {
    /// Starts the thread; it runs until [`stop`](Self::stop), and calls `check` once in every `interval`.
    pub(crate) fn start(
        &self,
        interval: Duration,
        check: impl FnMut() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let this = self.clone();
        thread::Builder::new().name("rwf-watchdog".to_owned()).spawn(move || {
            this.adopt_thread();
            this.shared.run(interval, check);
        })
    }

    /// Cuts `stream` after `delay`, unless the returned order is dropped before.
    pub(crate) fn cut_after(&self, stream: &Arc<Stream>, delay: Duration) -> Order {
        let stream = Arc::downgrade(stream);
        self.order(deadline::after(delay), |schedule, key| {
            schedule.cuts.insert(key, stream);
        })
    }

    /// Wakes `waiting` at that moment, unless the returned order is dropped before.
    pub(crate) fn wake_at(&self, at: Instant, waiting: Weak<dyn Flush>) -> Order {
        self.order(at, |schedule, key| {
            schedule.wakes.insert(key, waiting);
        })
    }

    fn order(&self, at: Instant, enter: impl FnOnce(&mut Schedule, OrderKey)) -> Order {
        let mut schedule = self.shared.schedule.lock();
        let key = (at, schedule.ordered);
        schedule.ordered += 1;
        enter(&mut schedule, key);
        if schedule.wakes_at.is_some_and(|wakes_at| at < wakes_at) {
            self.shared.changed.notify_one();
        }
        Order { shared: Arc::clone(&self.shared), key }
    }

    /// Has the watchdog flush `waiting` in a moment.
    pub(crate) fn flush_soon(&self, waiting: Weak<dyn Flush>) {
        let mut schedule = self.shared.schedule.lock();
        schedule.waiting.push(waiting);
        if schedule.next_flush.is_none() {
            schedule.next_flush = Some(Instant::now() + FLUSH_DELAY);
            self.shared.changed.notify_one();
        }
    }

    /// Notes that the calling thread belongs to this server. The server's end waits for it, so it must not wait for
    /// that.
    pub(crate) fn adopt_thread(&self) {
        SERVER.set(self.address());
    }

    /// Whether the calling thread belongs to this server.
    pub(crate) fn is_own_thread(&self) -> bool {
        // While a thread ends, `SERVER` may be gone before the destructors of the program's thread-locals run.
        SERVER.try_with(Cell::get) == Ok(self.address())
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.shared).addr()
    }

    /// Ends the thread. Nothing is cut any more.
    pub(crate) fn stop(&self) {
        self.shared.schedule.lock().is_stopped = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// Cuts that are due come first, also between two flushes: no close takes longer because many outboxes are flushed.
    fn run(&self, interval: Duration, mut check: impl FnMut()) {
        let mut flushing = VecDeque::new();
        let mut next_check = deadline::after(interval);
        let mut schedule = self.schedule.lock();
        while !schedule.is_stopped {
            let now = Instant::now();
            let next_cut = schedule.cuts.first_key_value().map(|((at, _), _)| *at);
            let next_wake = schedule.wakes.first_key_value().map(|((at, _), _)| *at);
            if next_cut.is_some_and(|at| at <= now) {
                let due = schedule.cuts.pop_first();
                unlocked(&mut schedule, || {
                    if let Some(stream) = due.and_then(|(_, stream)| stream.upgrade()) {
                        stream.cut();
                    }
                });
            } else if next_check <= now {
                unlocked(&mut schedule, &mut check);
                next_check = deadline::after(interval);
            } else if next_wake.is_some_and(|at| at <= now) {
                let due = schedule.wakes.pop_first();
                unlocked(&mut schedule, || {
                    if let Some(waiting) = due.and_then(|(_, waiting)| waiting.upgrade()) {
                        waiting.wake();
                    }
                });
            } else if let Some(waiting) = flushing.pop_front() {
                unlocked(&mut schedule, || {
                    if let Some(waiting) = Weak::<dyn Flush>::upgrade(&waiting) {
                        waiting.flush_waiting();
                    }
                });
            } else if schedule.next_flush.is_some_and(|at| at <= now) {
                schedule.next_flush = None;
                flushing.extend(schedule.waiting.drain(..));
            } else {
                let moments = [next_cut, next_wake, schedule.next_flush].into_iter().flatten();
                let next = moments.fold(next_check, Instant::min);
                schedule.wakes_at = Some(next);
                self.changed.wait_until(&mut schedule, next);
                schedule.wakes_at = None;
            }
        }
    }
}

/// Runs `action` without the lock. It may run code of the program, a destructor or a logger, whose panic must not end
/// the thread that every connection relies on.
fn unlocked(schedule: &mut MutexGuard<'_, Schedule>, action: impl FnOnce()) {
    MutexGuard::unlocked(schedule, || contained(action));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::{Sender, channel};

    fn pair() -> (Arc<Stream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (Arc::new(Stream::new(listener.accept().unwrap().0, true).unwrap()), peer)
    }

    #[test]
    fn sockets_are_cut_when_due_and_not_before() {
        let (late, mut late_peer) = pair();
        let (soon, mut soon_peer) = pair();
        let watchdog = Watchdog::default();
        let (checked, checks) = channel();
        let check = move || checked.send(()).unwrap_or_default();
        let thread = watchdog.start(Duration::from_millis(10), check).unwrap();
        let began = Instant::now();
        let _late = watchdog.cut_after(&late, Duration::from_millis(120));
        let _soon = watchdog.cut_after(&soon, Duration::from_millis(40));
        assert_eq!(soon_peer.read(&mut [0]).unwrap(), 0);
        assert!(began.elapsed() >= Duration::from_millis(40), "cut too early");
        assert_eq!(late_peer.read(&mut [0]).unwrap(), 0);
        assert!(began.elapsed() >= Duration::from_millis(120), "cut too early");
        watchdog.stop();
        thread.join().unwrap();
        let checks = checks.iter().count();
        assert!((1..=20).contains(&checks), "{checks} checks in {:?}", began.elapsed());
    }

    #[test]
    fn a_cut_that_is_called_off_leaves_nothing_behind() {
        let (stream, _peer) = pair();
        let watchdog = Watchdog::default();
        let cuts = [Duration::ZERO, Duration::ZERO, Duration::MAX]
            .map(|delay| watchdog.cut_after(&stream, delay));
        assert_eq!(watchdog.shared.schedule.lock().cuts.len(), 3);
        drop(cuts);
        assert_eq!(watchdog.shared.schedule.lock().cuts.len(), 0);
        assert_eq!(Arc::weak_count(&stream), 0, "the stream's memory is held");
    }

    /// Tells when it is flushed, which takes its time, and panics.
    #[derive(Debug)]
    struct Slow(Sender<Instant>);

    impl Flush for Slow {
        fn flush_waiting(self: Arc<Self>) {
            thread::park_timeout(Duration::from_millis(20));
            let _ = self.0.send(Instant::now());
            panic!("as the test wishes");
        }

        fn wake(self: Arc<Self>) {
            let _ = self.0.send(Instant::now());
        }
    }

    #[test]
    fn outboxes_are_woken_when_due_and_not_before() {
        let (woken, wakes) = channel();
        let waiting: Arc<dyn Flush> = Arc::new(Slow(woken));
        let watchdog = Watchdog::default();
        let thread = watchdog.start(Duration::from_secs(60), || ()).unwrap();
        let at = |millis| Instant::now() + Duration::from_millis(millis);
        let late = watchdog.wake_at(at(60_000), Arc::downgrade(&waiting));
        let called_off = watchdog.wake_at(at(20), Arc::downgrade(&waiting));
        let soon = watchdog.wake_at(at(40), Arc::downgrade(&waiting));
        drop(called_off);
        let woken = wakes.recv_timeout(Duration::from_secs(10)).expect("it is not woken");
        assert!(woken >= soon.at(), "too early");
        assert!(wakes.try_recv().is_err(), "woken twice");
        drop((soon, late));
        assert_eq!(Arc::weak_count(&waiting), 0, "the outbox's memory is held");
        watchdog.stop();
        thread.join().unwrap();
    }

    #[test]
    fn many_slow_flushes_that_panic_hold_up_no_cut() {
        let (flushed, flushes) = channel();
        let waiting: Vec<Arc<dyn Flush>> =
            (0..25).map(|_| Arc::new(Slow(flushed.clone())) as _).collect();
        let watchdog = Watchdog::default();
        let thread = watchdog.start(Duration::from_secs(60), || ()).unwrap();
        waiting.iter().for_each(|waiting| watchdog.flush_soon(Arc::downgrade(waiting)));
        let (stream, mut peer) = pair();
        let _cut = watchdog.cut_after(&stream, Duration::from_millis(10));
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        let cut = Instant::now();
        let times: Vec<_> = flushes.iter().take(waiting.len()).collect();
        assert!(cut < times[waiting.len() - 1], "the cut waited for all flushes");
        watchdog.stop();
        thread.join().expect("a panic ended the watchdog");
    }
}
