//! Asks a Redis Cluster which master has which slots, on a connection of its own.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::base::deadline;
use crate::redis::address::Endpoint;
use crate::redis::dialer::Dialer;
use crate::redis::fault::Fault;
use crate::redis::frame::Malformed;
use crate::redis::handshake;
use crate::redis::node::NodeId;
use crate::redis::read_buffer::ReadBuffer;
use crate::redis::resp::{self, Reply};
use crate::redis::slots::Map;

/// The map, as one of its nodes knows it.
pub(crate) fn ask(dialer: &Dialer, node: NodeId, timeout: Duration) -> Result<Map, Fault> {
    let of_stream = |error| Fault::of_stream(&error);
    let deadline = deadline::after(timeout);
    let socket = Arc::new(dialer.dial(deadline)?);
    dialer.shake_hands(&socket, deadline)?;
    let mut buffer = Vec::new();
    handshake::hello(&dialer.address, node, &mut buffer);
    resp::command(&mut buffer, &[b"CLUSTER", b"SLOTS"]);
    socket.set_write_timeout(deadline::until(deadline)).map_err(of_stream)?;
    (&*socket).write_all(&buffer).map_err(of_stream)?;
    let host = match &dialer.address.endpoint {
        Endpoint::Tcp { host, .. } => host,
        #[cfg(unix)]
        Endpoint::Unix(_) => "localhost",
    };
    let mut received = ReadBuffer::new(Arc::clone(&socket));
    let mut is_greeted = false;
    loop {
        let left = deadline::until(deadline);
        if left.is_zero() {
            return Err(Fault::late());
        }
        socket.set_read_timeout(Some(left)).map_err(of_stream)?;
        received.fill()?;
        while let Some((reply, length)) =
            resp::parse(received.unread()).map_err(|Malformed| Fault::no_redis())?
        {
            match reply {
                Reply::Greeting(_) => is_greeted = true,
                Reply::Slots(ranges) => return Ok(Map::new(&ranges, host)),
                Reply::Error(error) => {
                    let command = if is_greeted { "CLUSTER SLOTS" } else { "HELLO" };
                    return Err(Fault::answer(command, error));
                }
                _ => {}
            }
            received.take(length);
        }
    }
}
