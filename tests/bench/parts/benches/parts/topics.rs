//! Topics, among 100,000 connections: with one other topic, and with one for each connection.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use rwf::comms::Presence;
use rwf::parts::{self, Registered};
use rwf::prelude::*;

/// How many are in the one topic that is not small.
const ROOM: usize = 5_000;

static SESSIONS: LazyLock<Vec<SessionId>> =
    LazyLock::new(|| (0..100_000).map(|_| SessionId::guest()).collect());

/// So many topics, with one subscriber each.
#[derive(Clone, Copy)]
struct Topics(usize);

const FEW_AND_MANY: [Topics; 2] = [Topics(1), Topics(100_000)];

impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} topics", self.0)
    }
}

impl Topics {
    fn make(self) -> Registered {
        let registered = parts::register(&SESSIONS).expect("a socket");
        for number in 0..self.0 {
            assert_eq!(Comms::websocket(&SESSIONS[number]).subscribe(&topic(number)), Ok(1));
        }
        registered
    }
}

fn topic(number: usize) -> String {
    format!("topic:{number}")
}

/// Some connection, another one each time.
fn some() -> &'static SessionId {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    &SESSIONS[NEXT.fetch_add(7919, Ordering::Relaxed) % SESSIONS.len()]
}

fn come_and_go(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(|| Comms::websocket(some())).bench_refs(|one| {
        assert_eq!(one.subscribe("a topic of its own"), Ok(1));
        assert_eq!(one.unsubscribe("a topic of its own"), 1);
    });
}

/// One subscribes to a topic where nobody is, and unsubscribes.
#[divan::bench(args = FEW_AND_MANY, sample_count = 20, sample_size = 10_000)]
fn subscribe_and_unsubscribe(bencher: Bencher<'_, '_>, topics: Topics) {
    let _registered = topics.make();
    come_and_go(bencher);
}

/// The same, with somebody who watches the topics with another prefix.
#[divan::bench(args = FEW_AND_MANY, sample_count = 20, sample_size = 10_000)]
fn subscribe_and_unsubscribe_beside_a_watch(bencher: Bencher<'_, '_>, topics: Topics) {
    let _registered = topics.make();
    let _watch = Comms::presence_in("room:").expect("a thread");
    come_and_go(bencher);
}

/// The same, watched, and with a watcher who takes nothing.
#[divan::bench(args = FEW_AND_MANY, sample_count = 20, sample_size = 10_000)]
fn subscribe_and_unsubscribe_watched(bencher: Bencher<'_, '_>, topics: Topics) {
    let _registered = topics.make();
    let _watch: Presence = Comms::topic("a topic of its own").presence().expect("a thread");
    come_and_go(bencher);
}

fn look_up(bencher: Bencher<'_, '_>, topics: Topics, step: usize) {
    let _registered = topics.make();
    let next = AtomicUsize::new(0);
    bencher
        .with_inputs(|| Comms::topic(topic(next.fetch_add(step, Ordering::Relaxed) % topics.0)))
        .bench_refs(|comms| assert!(comms.is_connected()));
}

/// Finding the one subscriber of a topic, always the same.
#[divan::bench(args = FEW_AND_MANY, sample_count = 20, sample_size = 50_000)]
fn look_up_the_same(bencher: Bencher<'_, '_>, topics: Topics) {
    look_up(bencher, topics, 0);
}

/// Finding the one subscriber of another topic each time: little of it is in a cache, when there are many.
#[divan::bench(args = FEW_AND_MANY, sample_count = 20, sample_size = 50_000)]
fn look_up_another(bencher: Bencher<'_, '_>, topics: Topics) {
    look_up(bencher, topics, 7919);
}

fn room(topics: Topics) -> (Registered, Comms) {
    let registered = topics.make();
    for session in &SESSIONS[..ROOM] {
        assert_eq!(Comms::websocket(session).subscribe("room"), Ok(1));
    }
    (registered, Comms::topic("room"))
}

/// Finding all 5,000 subscribers of a topic, as a send to them does.
#[divan::bench(args = FEW_AND_MANY, sample_count = 20, sample_size = 20)]
fn look_up_5000(bencher: Bencher<'_, '_>, topics: Topics) {
    let (_registered, room) = room(topics);
    bencher.bench_local(|| assert!(room.is_connected()));
}

/// Counting the 5,000 connections of a topic.
#[divan::bench(args = FEW_AND_MANY, sample_count = 20, sample_size = 50_000)]
fn count_5000(bencher: Bencher<'_, '_>, topics: Topics) {
    let (_registered, room) = room(topics);
    bencher.bench_local(|| assert_eq!(room.members().client_count(), ROOM));
}

/// Counting the sessions of these.
#[divan::bench(args = FEW_AND_MANY, sample_count = 20, sample_size = 20)]
fn count_sessions_of_5000(bencher: Bencher<'_, '_>, topics: Topics) {
    let (_registered, room) = room(topics);
    bencher.bench_local(|| assert_eq!(room.members().session_count(), ROOM));
}
