//! What is promised of connections, over Unix sockets: the same tests as over TCP, taken in whole. Their `common` sees
//! where it is, and connects accordingly.
#![cfg(unix)]
#![allow(
    clippy::duplicate_mod,
    reason = "`common` is a module of each test, and there the way that it connects is chosen"
)]

#[path = "closing.rs"]
mod closing;
#[path = "latest.rs"]
mod latest;
#[path = "misbehaving_handlers.rs"]
mod misbehaving_handlers;
#[path = "races.rs"]
mod races;
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
