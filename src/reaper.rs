//! Cuts connections whose closing takes too long: one thread for a whole server.
//!
//! A reader that waits for bytes cannot watch the clock for a close that another thread began.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::socket::Socket;

/// A handle to the thread; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper {
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
    is_stopped: bool,
}

#[derive(Debug)]
struct Due {
    at: Instant,
    socket: Weak<Socket>,
}

impl Reaper {
    /// Starts the thread; it runs until [`stop`](Self::stop).
    pub(crate) fn start(&self) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name("rwf-reaper".to_owned()).spawn(move || shared.run())
    }

    /// Cuts `socket` after `delay`, if it is still open then.
    pub(crate) fn cut_after(&self, socket: &Arc<Socket>, delay: Duration) {
        let due = Due { at: Instant::now() + delay, socket: Arc::downgrade(socket) };
        let mut state = self.shared.state.lock();
        let is_next = state.due.peek().is_none_or(|Reverse(first)| due.at < first.at);
        state.due.push(Reverse(due));
        if is_next {
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
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.is_stopped {
            match state.due.peek().map(|Reverse(due)| due.at) {
                Some(at) if at > Instant::now() => {
                    self.changed.wait_until(&mut state, at);
                }
                Some(_) => {
                    let due = state.due.pop();
                    parking_lot::MutexGuard::unlocked(&mut state, || {
                        if let Some(socket) = due.and_then(|Reverse(due)| due.socket.upgrade()) {
                            socket.cut();
                        }
                    });
                }
                None => self.changed.wait(&mut state),
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
        let reaper = Reaper::default();
        let thread = reaper.start().unwrap();
        let began = Instant::now();
        reaper.cut_after(&late, Duration::from_millis(120));
        reaper.cut_after(&soon, Duration::from_millis(40));
        assert_eq!(soon_peer.read(&mut [0]).unwrap(), 0);
        assert!(began.elapsed() >= Duration::from_millis(40), "cut too early");
        assert_eq!(late_peer.read(&mut [0]).unwrap(), 0);
        assert!(began.elapsed() >= Duration::from_millis(120), "cut too early");
        reaper.stop();
        thread.join().unwrap();
    }
}
