//! What has gone over a WebSocket so far: counted where it passes, by whoever is the only one there, and read by others.

use std::sync::atomic::{AtomicU64, Ordering};

/// Whether that is done: always, but in the program by which `tests/bench` finds out what it costs.
pub(crate) const COUNTS: bool = !cfg!(bench_uncounted);

/// What came from the client. Only the reader counts, so that it need not be a read-modify-write, which costs ten times
/// as much.
#[derive(Debug, Default)]
pub(crate) struct Received {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Received {
    /// A message is handed to the program.
    pub(crate) fn note_message(&self) {
        add(&self.messages, 1);
    }

    /// Frames have come from the client, or parts of some.
    pub(crate) fn note_bytes(&self, count: usize) {
        add(&self.bytes, count as u64);
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn add(counter: &AtomicU64, count: u64) {
    if COUNTS {
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

/// What has gone over a WebSocket, and what waits. Bytes are those of frames, with their headers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    pub(crate) received_messages: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_messages: u64,
    pub(crate) sent_bytes: u64,
    /// Accepted and not yet written whole, with the bytes for which they count in the outbox.
    pub(crate) waiting_messages: u64,
    pub(crate) waiting_bytes: u64,
    /// Accepted, and given up with the connection.
    pub(crate) lost: u64,
    pub(crate) dropped: u64,
    pub(crate) replaced: u64,
    /// Whether a writer thread waits for the client.
    pub(crate) has_writer: bool,
}
