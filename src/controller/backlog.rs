//! What finds no room in the channel of an endpoint's events waits here, in order, until a thread hands it on.
//!
//! If each connection's thread waited at the channel, a wake-up for each event would be the least that it costs: crossbeam
//! walks through all who wait, and who waits has to look now and then whether its client is still there. So one thread
//! waits there for all, while there is anything to wait for, and a client's thread goes on until the client has its share.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::comms::client::Client;

/// A client waits when more bytes of it do. So one event may wait whatever its size, or many short ones.
const SHARE: usize = 4 << 10;
/// How long the thread that hands on stays when nothing waits any more. While the channel is full now and then, that is
/// cheaper than to begin anew each time; and for so long it keeps a loop over the events from ending.
const LINGER: Duration = Duration::from_millis(20);
/// After what time a client that is held first looks whether it is over meanwhile, and whether the thread that hands on
/// has to be begun again because the system had none to give.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// Where many are held for long, they look more and more rarely, up to this.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The way into a channel.
#[derive(Debug)]
pub(crate) struct Backlog<T> {
    sender: Sender<T>,
    queue: Mutex<Queue<T>>,
    /// Whether anything waits, for a look without the lock.
    is_behind: AtomicBool,
    /// Tells the thread that hands on that something waits.
    has_more: Condvar,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Whether there is a thread that hands on.
    is_served: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    bytes: usize,
    share: Arc<Share>,
}

/// What waits of one client.
#[derive(Debug, Default)]
pub(crate) struct Share {
    bytes: Mutex<usize>,
    /// Signalled when nothing waits any more.
    is_taken: Condvar,
}

/// Nobody takes anything out of the channel any more.
pub(crate) struct Disconnected;

impl<T: Send + 'static> Backlog<T> {
    pub(crate) fn new(sender: Sender<T>) -> Arc<Self> {
        Arc::new(Self {
            sender,
            queue: Mutex::new(Queue::new()),
            is_behind: AtomicBool::new(false),
            has_more: Condvar::new(),
        })
    }

    /// Puts `item`, which counts for `bytes`, into the channel, or behind what waits already. What a client puts in comes
    /// out in that order. Whether the client may go on, or is to be [held](Self::hold).
    ///
    /// # Errors
    ///
    /// Nobody takes it any more.
    pub(crate) fn put(
        self: &Arc<Self>,
        item: T,
        bytes: usize,
        share: &Arc<Share>,
    ) -> Result<bool, Disconnected> {
        // Where nothing waits, nothing of this client does, which could be overtaken.
        let item = if self.is_behind.load(Ordering::Acquire) {
            item
        } else {
            match self.sender.try_send(item) {
                Ok(()) => return Ok(true),
                Err(TrySendError::Full(item)) => item,
                Err(TrySendError::Disconnected(_)) => return Err(Disconnected),
            }
        };
        // One that has no size needs its place all the same.
        let bytes = bytes + size_of::<Waiting<T>>();
        let is_full = share.add(bytes);
        let mut queue = self.queue.lock();
        queue.waiting.push_back(Waiting { item, bytes, share: Arc::clone(share) });
        self.is_behind.store(true, Ordering::Release);
        let is_served = self.ensure_served(queue);
        Ok(is_served && !is_full)
    }

    /// Takes back the first of what waits of a client, if anything does.
    pub(crate) fn take_back(&self, share: &Arc<Share>) -> Option<T> {
        let mut queue = self.queue.lock();
        let place = queue.waiting.iter().position(|waiting| Arc::ptr_eq(&waiting.share, share))?;
        let Waiting { item, bytes, .. } = queue.waiting.remove(place)?;
        drop(queue);
        share.settle(bytes);
        Some(item)
    }

    /// Holds a client back while anything of it waits, and it is connected.
    pub(crate) fn hold(self: &Arc<Self>, share: &Share, client: &Client) {
        let mut look = FIRST_LOOK;
        while !share.is_empty() && client.is_connected() {
            self.ensure_served(self.queue.lock());
            share.wait(look);
            look = LAST_LOOK.min(2 * look);
        }
    }

    /// Has a thread hand on what waits, if none does; whether there was one to be had.
    fn ensure_served<'a>(self: &'a Arc<Self>, mut queue: MutexGuard<'a, Queue<T>>) -> bool {
        let was_served = mem::replace(&mut queue.is_served, true);
        drop(queue);
        if was_served {
            self.has_more.notify_one();
            return true;
        }
        let this = Arc::clone(self);
        let thread = thread::Builder::new().name("rwf-events".to_owned());
        let is_served = thread.spawn(move || this.hand_on()).is_ok();
        if !is_served {
            self.queue.lock().is_served = false;
        }
        is_served
    }

    fn hand_on(&self) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(Waiting { item, bytes, share }) = queue.waiting.pop_front() {
                drop(queue);
                // When nobody takes events any more, the rest goes the same way.
                let _ = self.sender.send(item);
                share.settle(bytes);
                queue = self.queue.lock();
                continue;
            }
            self.is_behind.store(false, Ordering::Release);
            let is_late = self.has_more.wait_for(&mut queue, LINGER).timed_out();
            if is_late && queue.waiting.is_empty() {
                *queue = Queue::new();
                return;
            }
        }
    }
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self { waiting: VecDeque::new(), is_served: false }
    }
}

impl Share {
    /// So many bytes more wait; whether that is more than its share.
    fn add(&self, more: usize) -> bool {
        let mut bytes = self.bytes.lock();
        *bytes += more;
        *bytes > SHARE
    }

    /// Whether nothing of it waits.
    pub(crate) fn is_empty(&self) -> bool {
        *self.bytes.lock() == 0
    }

    /// Waits up to `time` until nothing does.
    fn wait(&self, time: Duration) {
        self.is_taken.wait_while_for(&mut self.bytes.lock(), |bytes| *bytes > 0, time);
    }

    /// So many bytes wait no more.
    fn settle(&self, taken: usize) {
        let mut bytes = self.bytes.lock();
        *bytes -= taken;
        if *bytes == 0 {
            self.is_taken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comms::session::{ConnectionId, SessionId};
    use crate::net::watchdog::Watchdog;
    use crate::websocket::close::CloseCode;
    use crate::websocket::outbox::Outbox;
    use crate::websocket::settings::Websocket;
    use crossbeam_channel::{Receiver, bounded};
    use std::time::Instant;

    /// Nothing that works takes so long.
    const PATIENCE: Duration = Duration::from_secs(5);

    struct Tab {
        client: Client,
        share: Arc<Share>,
        _connection: (Arc<Outbox>, std::net::TcpStream),
    }

    fn tab() -> Tab {
        let connection = Outbox::with_client(&Websocket::new(), Watchdog::default());
        let client = Client::new(ConnectionId::next(), SessionId::guest(), &connection.0);
        Tab { client, share: Arc::default(), _connection: connection }
    }

    fn backlog() -> (Arc<Backlog<u32>>, Receiver<u32>) {
        let (sender, receiver) = bounded(1);
        (Backlog::new(sender), receiver)
    }

    /// Whether the client may go on.
    fn put(backlog: &Arc<Backlog<u32>>, item: u32, tab: &Tab) -> bool {
        backlog.put(item, 0, &tab.share).unwrap_or_else(|_| panic!("nobody takes {item}"))
    }

    #[track_caller]
    fn take(receiver: &Receiver<u32>) -> u32 {
        receiver.recv_timeout(PATIENCE).expect("nothing came")
    }

    #[test]
    fn what_waits_comes_in_order_and_lets_its_client_go_on() {
        let (backlog, receiver) = backlog();
        let (greedy, modest) = (tab(), tab());
        let mut count = 0;
        while put(&backlog, count, &greedy) {
            count += 1;
        }
        count += 1;
        assert!((10..1000).contains(&count), "{count} items without a size are a share");
        assert!(put(&backlog, count, &modest), "the other has its own share");
        thread::scope(|scope| {
            let held = scope.spawn(|| {
                let began = Instant::now();
                backlog.hold(&greedy.share, &greedy.client);
                began.elapsed()
            });
            for expected in 0..=count {
                assert_eq!(take(&receiver), expected);
            }
            let time = held.join().unwrap();
            assert!(time < PATIENCE, "it was held for {time:?}");
        });
        assert!(greedy.share.is_empty());
    }

    #[test]
    fn a_client_that_is_closed_is_held_no_longer_and_leaves_nothing_behind() {
        let (backlog, receiver) = backlog();
        let (first, second) = (tab(), tab());
        // One is in the channel, and one in the hands of the thread that waits there.
        put(&backlog, 1, &first);
        put(&backlog, 2, &first);
        let deadline = Instant::now() + PATIENCE;
        while !backlog.queue.lock().waiting.is_empty() {
            assert!(Instant::now() < deadline, "no thread takes what waits");
            thread::yield_now();
        }
        put(&backlog, 3, &second);
        put(&backlog, 4, &first);
        thread::scope(|scope| {
            let held = scope.spawn(|| backlog.hold(&second.share, &second.client));
            assert_eq!(second.client.close(CloseCode::NORMAL, ""), Ok(true));
            held.join().unwrap();
        });
        assert_eq!(backlog.take_back(&second.share), Some(3));
        assert!(second.share.is_empty() && !first.share.is_empty());
        assert_eq!([take(&receiver), take(&receiver), take(&receiver)], [1, 2, 4]);
    }

    #[test]
    fn the_thread_ends_when_nothing_waits_and_when_nobody_takes_it() {
        for is_taken in [true, false] {
            let (backlog, receiver) = backlog();
            let tab = tab();
            (0..20).for_each(|item| assert!(put(&backlog, item, &tab)));
            if is_taken {
                (0..20).for_each(|item| assert_eq!(take(&receiver), item));
            } else {
                drop(receiver);
            }
            backlog.hold(&tab.share, &tab.client);
            let deadline = Instant::now() + PATIENCE;
            while backlog.queue.lock().is_served {
                assert!(Instant::now() < deadline, "the thread stays; taken: {is_taken}");
                thread::yield_now();
            }
            let is_open = backlog.put(20, 0, &tab.share).is_ok();
            assert_eq!(is_open, is_taken);
        }
    }
}
