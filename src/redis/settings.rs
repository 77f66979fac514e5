//! The limits and timeouts of a connection to Redis, with their defaults; `Cluster` has the setters and their
//! documentation.

use std::time::Duration;

use crate::base::rule::{self, Checked};

/// Nodes say four times in a lease that they are there. It is not to be all that they do.
const LEAST_LEASE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    pub(crate) subscribe_timeout: Duration,
    pub(crate) ask_timeout: Duration,
    pub(crate) presence_lease: Duration,
    pub(crate) probe_interval: Duration,
    pub(crate) probe_timeout: Duration,
    pub(crate) max_reconnect_delay: Duration,
    pub(crate) max_message_size: usize,
    pub(crate) max_waiting_bytes: usize,
    pub(crate) max_waiting_age: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            subscribe_timeout: Duration::from_secs(1),
            ask_timeout: Duration::from_secs(1),
            // The longest pause between attempts to connect, three times.
            presence_lease: Duration::from_secs(15),
            probe_interval: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(5),
            max_reconnect_delay: Duration::from_secs(5),
            // Half of what Redis holds for a subscriber by default.
            max_message_size: 16 << 20,
            max_waiting_bytes: 16 << 20,
            max_waiting_age: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// The first setting that cannot work. Each has a line here, so that none is forgotten.
    pub(crate) fn check(&self) -> Checked {
        let Self {
            connect_timeout,
            // Zero is not at all.
            subscribe_timeout: _,
            // Zero does not ask.
            ask_timeout: _,
            presence_lease,
            probe_interval,
            probe_timeout,
            max_reconnect_delay,
            max_message_size,
            // Zero is one message at a time.
            max_waiting_bytes: _,
            max_waiting_age,
        } = self;
        rule::time("connect_timeout", *connect_timeout)?;
        rule::at_least_time("presence_lease", *presence_lease, LEAST_LEASE)?;
        rule::time("probe_interval", *probe_interval)?;
        rule::time("probe_timeout", *probe_timeout)?;
        rule::time("max_reconnect_delay", *max_reconnect_delay)?;
        rule::at_least("max_message_size", *max_message_size, 1)?;
        rule::time("max_waiting_age", *max_waiting_age)
    }
}
