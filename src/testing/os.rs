//! What misbehaving depends on the operating system for, each a plain function with a way for every system.

use std::net::TcpStream;

/// The system makes the smallest buffer of it that it has.
#[cfg(unix)]
const SMALLEST_BUFFER: usize = 1;

/// Ends the connection with a reset. Systems other than Unix offer none: there the stream just ends.
pub(crate) fn reset(stream: TcpStream) {
    // A close that waits for nothing sends a reset.
    #[cfg(unix)]
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
    drop(stream);
}

/// Has the system take in as little as it can of what the test does not read; without it that may be megabytes.
pub(crate) fn shrink_receive_buffer(stream: &TcpStream) {
    #[cfg(unix)]
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(stream, SMALLEST_BUFFER);
    #[cfg(not(unix))]
    let _ = stream;
}
