//! What a server counts while it runs, apart from what each WebSocket counts by itself (`websocket/traffic.rs`).
//!
//! What all connections count is spread over lines of memory of which each connection has one, so that they do not wait
//! for each other; whoever asks adds them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::comms::session::ConnectionId;
use crate::controller::histogram::Buckets;
use crate::controller::refusal::Refusal;
use crate::controller::slowest::{Call, Slowest};
use crate::controller::stats::Stats;

const SHARDS: usize = 16;

/// The counters of one server.
#[derive(Debug)]
pub(crate) struct Counters {
    /// The routes' paths, as they were written.
    routes: Vec<String>,
    shards: [Shard; SHARDS],
    refused: [AtomicU64; Refusal::ALL.len()],
    slowest: Slowest,
}

/// What some of the connections count in. Processors fetch lines of 64 bytes in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    handler_times: Buckets,
    handshake_times: Buckets,
    requests: AtomicU64,
    by_route: Box<[Padded]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

impl Counters {
    pub(crate) fn new(routes: Vec<String>) -> Self {
        let by_route = || routes.iter().map(|_| Padded::default()).collect();
        Self {
            shards: [(); SHARDS].map(|()| Shard { by_route: by_route(), ..Shard::default() }),
            refused: Default::default(),
            slowest: Slowest::new(routes.len()),
            routes,
        }
    }

    fn shard(&self, connection: ConnectionId) -> &Shard {
        &self.shards[connection.number() as usize % SHARDS]
    }

    /// A request has come whole, for the route of that number if there is one.
    pub(crate) fn note_request(&self, connection: ConnectionId, route: Option<usize>) {
        let shard = self.shard(connection);
        shard.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(requests) = route.and_then(|route| shard.by_route.get(route)) {
            requests.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A 101 was written, so long after its request's head was there.
    pub(crate) fn note_handshake(&self, connection: ConnectionId, took: Duration) {
        self.shard(connection).handshake_times.record(took);
    }

    /// A handler is done.
    #[inline]
    pub(crate) fn note_handler(
        &self,
        connection: ConnectionId,
        route: usize,
        name: &'static str,
        call: Call,
        took: Duration,
    ) {
        self.shard(connection).handler_times.record(took);
        let path = self.routes.get(route).map_or("", String::as_str);
        self.slowest.record(route, path, name, call, took);
    }

    pub(crate) fn note_refusal(&self, reason: Refusal) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The routes' paths, in the order in which they were written.
    pub(crate) fn routes(&self) -> &[String] {
        &self.routes
    }

    /// Adds up what was counted here.
    pub(crate) fn add_to(&self, stats: &mut Stats) {
        for shard in &self.shards {
            stats.requests += shard.requests.load(Ordering::Relaxed);
            for (route, requests) in stats.routes.iter_mut().zip(&shard.by_route) {
                route.requests += requests.0.load(Ordering::Relaxed);
            }
            shard.handler_times.add_to(&mut stats.handler_times);
            shard.handshake_times.add_to(&mut stats.handshake_times);
        }
        for ((_, count), more) in stats.refused.iter_mut().zip(&self.refused) {
            *count += more.load(Ordering::Relaxed);
        }
        self.slowest.add_to(&mut stats.slowest);
    }
}
