//! The promises hold over TLS: the same tests, whose servers and clients speak it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::duplicate_mod, reason = "each of the files has its own part of what they share")]

#[path = "asking.rs"]
mod asking;
#[path = "closing.rs"]
mod closing;
#[path = "downloads.rs"]
mod downloads;
#[path = "events.rs"]
mod events;
#[path = "lag.rs"]
mod lag;
#[path = "latest.rs"]
mod latest;
#[path = "outbox.rs"]
mod outbox;
#[path = "rates.rs"]
mod rates;
#[path = "shutdown.rs"]
mod shutdown;
#[path = "slow_peers.rs"]
mod slow_peers;
#[path = "socket.rs"]
mod socket;
#[path = "styles.rs"]
mod styles;
