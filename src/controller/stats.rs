//! What is going on in a server, or in all servers of the process, in numbers.

use crate::controller::histogram::Histogram;
use crate::controller::refusal::Refusal;
use crate::controller::slowest::{self, SlowHandler};
use crate::websocket::close::Cause;
use crate::websocket::traffic::Traffic;

/// What is going on in a server: [`ServerHandle::stats`](crate::http::ServerHandle::stats); or in all servers of the
/// process: [`rwf::stats()`](crate::stats()).
///
/// What happened is counted where it happens, and exact when nothing happens meanwhile. Counts of what ever was never go
/// down, also when clients leave and, of the process, when servers end.
///
/// ```
/// use rwf::http::Server;
/// use rwf::prelude::*;
///
/// # fn chat(mut socket: Socket) -> Result<(), Error> { socket.iter().for_each(drop); Ok(()) }
/// # fn main() -> Result<(), rwf::http::Error> {
/// let server = Server::new(vec![route!("/chat" => websocket(chat))]).bind("127.0.0.1:0").spawn()?;
/// let stats = server.stats();
/// println!("{} of {} connections are WebSockets", stats.websockets.now, stats.connections.now);
/// for route in &stats.routes {
///     println!("{}: {} messages came", route.route, route.received.messages);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// TCP connections, those that are WebSockets included. Refused ones are not counted.
    pub connections: Count,
    /// WebSockets, from the 101 until TCP has ended too.
    pub websockets: Count,
    /// HTTP requests, those that opened WebSockets and those without a route included. Those that made no sense, or were for
    /// another host, are among what was [refused](Self::refused).
    pub requests: u64,
    /// The same by route, in the order in which the routes were written. Of several servers, routes that are written the
    /// same are one.
    pub routes: Vec<RouteStats>,
    /// What came over all WebSockets.
    pub received: Volume,
    /// What went out over all WebSockets.
    pub sent: Volume,
    /// What waits for clients to take it. A message counts for 64 bytes more than it is long, as for
    /// [`outbox_bytes`](crate::controller::Websocket::outbox_bytes).
    pub waiting: Volume,
    /// The threads that wait for clients that are slow.
    pub writer_threads: u64,
    /// How many WebSockets ended for each cause. All causes are there.
    pub closed: Vec<(Cause, u64)>,
    /// How often the server refused something, for each reason. All reasons are there.
    pub refused: Vec<(Refusal, u64)>,
    /// Messages that were dropped for newer ones, where
    /// [`Overflow::DropOldest`](crate::controller::Overflow::DropOldest) says so.
    pub dropped: u64,
    /// Messages that a newer one under the same key replaced ([`send_latest`](crate::comms::Comms::send_latest)).
    pub replaced: u64,
    /// Messages that were accepted, and given up with their connection.
    pub lost: u64,
    /// The slowest call of each route and kind, the slowest of all first, and no more than ten.
    pub slowest: Vec<SlowHandler>,
    /// How long it took from the whole head of a request to the 101.
    pub handshake_times: Histogram,
    /// How long handlers took: each HTTP request, and of WebSockets the beginning, the end, and the first message of
    /// those that arrived together.
    pub handler_times: Histogram,
}

/// How many there are, and how many there ever were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// Now.
    pub now: u64,
    /// Since the server began, those that there are now included.
    pub ever: u64,
}

/// How much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Volume {
    /// Messages, without pings, pongs and closes.
    pub messages: u64,
    /// Bytes of frames: with their headers, and those of pings, pongs and closes.
    pub bytes: u64,
}

/// What is going on at one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteStats {
    /// The route's path, as it was written.
    pub route: String,
    /// HTTP requests, those that opened WebSockets included.
    pub requests: u64,
    /// Its WebSockets.
    pub websockets: Count,
    /// What came over them.
    pub received: Volume,
    /// What went out over them.
    pub sent: Volume,
}

impl Stats {
    /// Nothing has happened yet.
    pub(crate) fn new(routes: &[String]) -> Self {
        let route = |route: &String| RouteStats { route: route.clone(), ..RouteStats::default() };
        Self {
            routes: routes.iter().map(route).collect(),
            closed: Cause::ALL.map(|cause| (cause, 0)).into(),
            refused: Refusal::ALL.map(|reason| (reason, 0)).into(),
            ..Self::default()
        }
    }

    /// How many WebSockets ended for `cause`.
    #[must_use]
    pub fn closed_for(&self, cause: Cause) -> u64 {
        self.closed.iter().find(|(other, _)| *other == cause).map_or(0, |(_, count)| *count)
    }

    /// How often the server refused something for `reason`.
    #[must_use]
    pub fn refused_for(&self, reason: Refusal) -> u64 {
        self.refused.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count)
    }

    /// The numbers of a route, by its path as it was written.
    #[must_use]
    pub fn route(&self, route: &str) -> Option<&RouteStats> {
        self.routes.iter().find(|other| other.route == route)
    }

    /// Counts a WebSocket of a route; `ended` is why, if it has.
    pub(crate) fn note_websocket(&mut self, route: usize, traffic: &Traffic, ended: Option<Cause>) {
        let count = Count { now: u64::from(ended.is_none()), ever: 1 };
        let volume = |messages, bytes| Volume { messages, bytes };
        let received = volume(traffic.received_messages, traffic.received_bytes);
        let sent = volume(traffic.sent_messages, traffic.sent_bytes);
        self.websockets.add(count);
        self.received.add(received);
        self.sent.add(sent);
        if let Some(route) = self.routes.get_mut(route) {
            route.websockets.add(count);
            route.received.add(received);
            route.sent.add(sent);
        }
        if let Some((_, count)) = ended.and_then(|cause| self.closed.get_mut(cause as usize)) {
            *count += 1;
        }
        self.waiting.add(volume(traffic.waiting_messages, traffic.waiting_bytes));
        self.writer_threads += u64::from(traffic.has_writer);
        self.dropped += traffic.dropped;
        self.replaced += traffic.replaced;
        self.lost += traffic.lost;
    }

    /// Adds what another server has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self { connections, websockets, requests, received, sent, waiting, .. } = other;
        self.connections.add(*connections);
        self.websockets.add(*websockets);
        self.requests += requests;
        self.received.add(*received);
        self.sent.add(*sent);
        self.waiting.add(*waiting);
        let Self { routes, writer_threads, closed, refused, dropped, replaced, lost, .. } = other;
        for route in routes {
            match self.routes.iter_mut().find(|known| known.route == route.route) {
                Some(known) => known.add(route),
                None => self.routes.push(route.clone()),
            }
        }
        self.writer_threads += writer_threads;
        for ((_, count), (_, more)) in self.closed.iter_mut().zip(closed) {
            *count += more;
        }
        for ((_, count), (_, more)) in self.refused.iter_mut().zip(refused) {
            *count += more;
        }
        self.dropped += dropped;
        self.replaced += replaced;
        self.lost += lost;
        self.slowest.extend(other.slowest.iter().cloned());
        slowest::shorten(&mut self.slowest);
        self.handshake_times.add(&other.handshake_times);
        self.handler_times.add(&other.handler_times);
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.now += other.now;
        self.ever += other.ever;
    }
}

impl Volume {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

impl RouteStats {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.websockets.add(other.websockets);
        self.received.add(other.received);
        self.sent.add(other.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_and_reasons_stand_at_their_places() {
        let stats = Stats::new(&[]);
        for (place, (cause, _)) in stats.closed.iter().enumerate() {
            assert_eq!(*cause as usize, place, "{cause}");
        }
        for (place, (reason, _)) in stats.refused.iter().enumerate() {
            assert_eq!(*reason as usize, place, "{reason}");
        }
    }

    #[test]
    fn servers_are_summed_by_route() {
        let [mut one, two] = [&["/a", "/b"][..], &["/b", "/c"]].map(|routes| {
            let routes: Vec<_> = routes.iter().map(ToString::to_string).collect();
            let mut stats = Stats::new(&routes);
            let traffic = Traffic { received_messages: 2, ..Traffic::default() };
            stats.note_websocket(0, &traffic, Some(Cause::Silent));
            stats.note_websocket(1, &traffic, None);
            stats
        });
        one.add(&two);
        let routes: Vec<_> = one
            .routes
            .iter()
            .map(|route| (&*route.route, route.websockets.ever, route.received.messages))
            .collect();
        assert_eq!(routes, [("/a", 1, 2), ("/b", 2, 4), ("/c", 1, 2)]);
        assert_eq!((one.websockets, one.closed_for(Cause::Silent)), (Count { now: 2, ever: 4 }, 2));
    }
}
