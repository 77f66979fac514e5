//! Which handlers took longest: of each route and kind of call the slowest one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::controller::histogram::nanos;

/// How many are told of.
const MOST: usize = 10;

/// What a handler was called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// An HTTP request.
    Request,
    /// A WebSocket that was opened: `handle_connection`, or a function until it receives.
    Connection,
    /// A message: `handle_message`, or a function from one receive to the next.
    Message,
    /// The end of a WebSocket: `handle_close`, or a function from when it was told of the end until it returns.
    Close,
}

impl Call {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 4] = [Self::Request, Self::Connection, Self::Message, Self::Close];
}

/// One word: `request`, `connection`, `message`, `close`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Connection => "connection",
            Self::Message => "message",
            Self::Close => "close",
        })
    }
}

/// A handler that took long.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowHandler {
    /// The route, as it was written.
    pub route: String,
    /// The name of the controller's type or of the function.
    pub handler: &'static str,
    /// What it was called for.
    pub call: Call,
    /// How long it took.
    pub took: Duration,
    /// When it was done.
    pub when: SystemTime,
}

/// The slowest call of each route and kind.
#[derive(Debug)]
pub(crate) struct Slowest {
    /// For a look without the lock, which is all that a call costs that is not the slowest so far.
    nanos: Box<[[AtomicU64; Call::ALL.len()]]>,
    slowest: Mutex<Vec<SlowHandler>>,
}

impl Slowest {
    pub(crate) fn new(routes: usize) -> Self {
        let nanos = (0..routes).map(|_| Default::default()).collect();
        Self { nanos, slowest: Mutex::default() }
    }

    /// `handler` has taken so long; `route` is the number of its route, and `path` what was written for it.
    pub(crate) fn record(
        &self,
        route: usize,
        path: &str,
        handler: &'static str,
        call: Call,
        took: Duration,
    ) {
        let nanos = nanos(took);
        let Some(most) = self.nanos.get(route).map(|calls| &calls[call as usize]) else { return };
        if nanos > most.load(Ordering::Relaxed) {
            self.replace(most, path, handler, call, took);
        }
    }

    #[cold]
    #[inline(never)]
    fn replace(
        &self,
        most: &AtomicU64,
        path: &str,
        handler: &'static str,
        call: Call,
        took: Duration,
    ) {
        let (nanos, route, when) = (nanos(took), path.to_owned(), SystemTime::now());
        let new = SlowHandler { route, handler, call, took, when };
        let mut slowest = self.slowest.lock();
        if nanos <= most.load(Ordering::Relaxed) {
            return;
        }
        most.store(nanos, Ordering::Relaxed);
        match slowest.iter_mut().find(|slow| slow.route == new.route && slow.call == new.call) {
            Some(slow) => *slow = new,
            None => slowest.push(new),
        }
    }

    pub(crate) fn add_to(&self, list: &mut Vec<SlowHandler>) {
        list.extend(self.slowest.lock().iter().cloned());
        shorten(list);
    }
}

/// The slowest first, each route and call once, and not too many.
pub(crate) fn shorten(list: &mut Vec<SlowHandler>) {
    list.sort_by_key(|slow| std::cmp::Reverse(slow.took));
    let mut seen = Vec::new();
    list.retain(|slow| {
        let is_new = seen.len() < MOST && !seen.contains(&(slow.route.clone(), slow.call));
        if is_new {
            seen.push((slow.route.clone(), slow.call));
        }
        is_new
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_call_of_each_kind_and_route_is_kept() {
        let slowest = Slowest::new(2);
        for (route, path, call, millis) in [
            (0, "/a", Call::Message, 5),
            (0, "/a", Call::Message, 9),
            (0, "/a", Call::Message, 7),
            (1, "/b", Call::Message, 8),
            (1, "/b", Call::Close, 1),
        ] {
            slowest.record(route, path, "chat", call, Duration::from_millis(millis));
        }
        let mut list = Vec::new();
        slowest.add_to(&mut list);
        slowest.add_to(&mut list);
        let told: Vec<_> =
            list.iter().map(|slow| (&*slow.route, slow.call, slow.took.as_millis())).collect();
        let expected = [("/a", Call::Message, 9), ("/b", Call::Message, 8), ("/b", Call::Close, 1)];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_list_stays_short() {
        let slowest = Slowest::new(100);
        for route in 0..100 {
            let took = Duration::from_millis(route as u64 + 1);
            slowest.record(route, &route.to_string(), "chat", Call::Request, took);
        }
        let mut list = Vec::new();
        slowest.add_to(&mut list);
        assert_eq!((list.len(), &*list[0].route), (MOST, "99"));
    }
}
