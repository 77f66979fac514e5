//! Finding a session's connections among 100,000, by the shortest way through the public API.
//!
//! The samples are long, so that threads do meet. With more threads than cores, the times hold the waiting for a core.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use rwf::parts;
use rwf::prelude::*;

static SESSIONS: LazyLock<Vec<SessionId>> =
    LazyLock::new(|| (0..100_000).map(|_| SessionId::guest()).collect());

/// Times look-ups of what `choose` chooses, which is not timed.
fn look_up(bencher: Bencher<'_, '_>, choose: impl Fn() -> SessionId + Sync) {
    let _registered = parts::register(&SESSIONS).expect("a socket");
    bencher
        .with_inputs(choose)
        .bench_values(|session| assert!(Comms::websocket(session).is_connected()));
}

/// Another session each time: little of it is in a cache.
#[divan::bench(threads = [1, 2, 8], sample_count = 20, sample_size = 50_000)]
fn another_each_time(bencher: Bencher<'_, '_>) {
    let next = AtomicUsize::new(0);
    look_up(bencher, || SESSIONS[next.fetch_add(7919, Ordering::Relaxed) % SESSIONS.len()].clone());
}

/// The same session for all threads: they share its reference counts too.
#[divan::bench(threads = [1, 2, 8], sample_count = 20, sample_size = 50_000)]
fn always_the_same(bencher: Bencher<'_, '_>) {
    look_up(bencher, || SESSIONS[42].clone());
}
