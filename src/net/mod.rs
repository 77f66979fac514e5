//! Sockets, the system they come from, and the clock that watches them. No protocol.

#[cfg(feature = "tls")]
mod ciphertext;
#[cfg(feature = "tls")]
pub(crate) mod cryptography;
pub(crate) mod listener;
pub(crate) mod os;
pub(crate) mod peer;
pub(crate) mod socket;
#[cfg(unix)]
pub(crate) mod socket_file;
pub(crate) mod stream;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(feature = "tls")]
mod tls_state;
pub(crate) mod watchdog;
