//! Watches the clock, one thread for a whole server: cuts connections whose closing takes too long, lets go of replies that
//! were gathered for long enough, and has a look round.
//!
//! A reader that waits for bytes cannot watch the clock for a close that another thread began, nor a handler for itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::deadline;
use crate::socket::Socket;

/// How long replies to a burst are gathered at most, when the handlers that give them take their time.
const GATHERING_TIME: Duration = Duration::from_millis(2);

/// What gathers, and can be told to let go.
pub(crate) trait Gathers: fmt::Debug + Send + Sync {
    /// Writes what was gathered.
    fn flush(self: Arc<Self>);
}

/// A handle to the thread; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: BinaryHeap<Reverse<Due>>,
    gathering: Vec<Weak<dyn Gathers>>,
    /// When those that gather are told to let go.
    next_flush: Option<Instant>,
    is_stopped: bool,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    socket: Weak<Socket>,
}

impl Watchdog {
    /// Starts the thread; it runs until [`stop`](Self::stop), and calls `look_round` once in every `interval`.
    pub(crate) fn start(
        &self,
        interval: Duration,
        look_round: impl FnMut() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name("rwf-watchdog".to_owned())
            .spawn(move || shared.run(interval, look_round))
    }

    /// Cuts `socket` after `delay`, if it is still open then.
    pub(crate) fn cut_after(&self, socket: &Arc<Socket>, delay: Duration) {
        let due = Due { at: deadline::after(delay), socket: Arc::downgrade(socket) };
        let mut state = self.shared.state.lock();
        let is_next = state.due.peek().is_none_or(|Reverse(first)| due.at < first.at);
        state.due.push(Reverse(due));
        if is_next {
            self.shared.changed.notify_one();
        }
    }

    /// Has `gathering` flushed soon.
    pub(crate) fn flush_soon(&self, gathering: Weak<dyn Gathers>) {
        let mut state = self.shared.state.lock();
        state.gathering.push(gathering);
        if state.next_flush.is_none() {
            state.next_flush = Some(Instant::now() + GATHERING_TIME);
            self.shared.changed.notify_one();
        }
    }

    /// Ends the thread. Nothing is cut any more.
    pub(crate) fn stop(&self) {
        self.shared.state.lock().is_stopped = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self, interval: Duration, mut look_round: impl FnMut()) {
        let mut next_look = deadline::after(interval);
        let mut state = self.state.lock();
        while !state.is_stopped {
            let now = Instant::now();
            let next_cut = state.due.peek().map(|Reverse(due)| due.at);
            if state.next_flush.is_some_and(|at| at <= now) {
                state.next_flush = None;
                let gathering = std::mem::take(&mut state.gathering);
                MutexGuard::unlocked(&mut state, || {
                    gathering.iter().filter_map(Weak::upgrade).for_each(Gathers::flush);
                });
            } else if next_cut.is_some_and(|at| at <= now) {
                let due = state.due.pop();
                MutexGuard::unlocked(&mut state, || {
                    if let Some(socket) = due.and_then(|Reverse(due)| due.socket.upgrade()) {
                        socket.cut();
                    }
                });
            } else if next_look <= now {
                MutexGuard::unlocked(&mut state, &mut look_round);
                next_look = deadline::after(interval);
            } else {
                let moments = [next_cut, state.next_flush].into_iter().flatten();
                let next = moments.fold(next_look, Instant::min);
                self.changed.wait_until(&mut state, next);
            }
        }
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn sockets_are_cut_when_due_and_not_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = || {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            (Arc::new(Socket::new(listener.accept().unwrap().0, true).unwrap()), peer)
        };
        let (late, mut late_peer) = open();
        let (soon, mut soon_peer) = open();
        let watchdog = Watchdog::default();
        let (looked, looks) = std::sync::mpsc::channel();
        let look_round = move || looked.send(()).unwrap_or_default();
        let thread = watchdog.start(Duration::from_millis(10), look_round).unwrap();
        let began = Instant::now();
        watchdog.cut_after(&late, Duration::from_millis(120));
        watchdog.cut_after(&soon, Duration::from_millis(40));
        assert_eq!(soon_peer.read(&mut [0]).unwrap(), 0);
        assert!(began.elapsed() >= Duration::from_millis(40), "cut too early");
        assert_eq!(late_peer.read(&mut [0]).unwrap(), 0);
        assert!(began.elapsed() >= Duration::from_millis(120), "cut too early");
        watchdog.stop();
        thread.join().unwrap();
        let looks = looks.iter().count();
        assert!((1..=20).contains(&looks), "{looks} looks in {:?}", began.elapsed());
    }
}
