//! What comes before a connection's first request: the header of a proxy that says whose connection it is.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::controller::connection::Connection;
use crate::controller::refusal::Refusal;
use crate::http::peer::Proxy;
use crate::http::proxy_header::{self, Malformed, Step};

/// Whose connection it is, as the proxy says that it comes from, if it is one that does. Of what stands behind the header
/// nothing is read.
///
/// # Errors
///
/// It says nothing, or nothing that makes sense; why.
pub(crate) fn read_client(
    connection: &Connection,
    deadline: Instant,
) -> Result<Option<SocketAddr>, String> {
    let settings = &connection.context.settings;
    if !Proxy::is_among(&settings.proxy_protocol, &connection.peer()) {
        return Ok(None);
    }
    let mut header = Vec::new();
    loop {
        let step = proxy_header::parse(&header, settings.max_head_size);
        match step.map_err(|Malformed(reason)| reason.to_owned())? {
            Step::Whole(client) => return Ok(client),
            Step::Needs(count) => read(connection, deadline, &mut header, count)?,
        }
    }
}

/// Appends at most `count` bytes.
fn read(
    connection: &Connection,
    deadline: Instant,
    header: &mut Vec<u8>,
    count: usize,
) -> Result<(), String> {
    let remaining = deadline::until(deadline);
    let mut part = Vec::with_capacity(count);
    let read = if remaining.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        connection.stream.read_beneath_tls(Some(&connection.context.stop), &mut part, remaining)
    };
    header.append(&mut part);
    match read {
        Ok(1..) => Ok(()),
        Ok(0) => Err("it ends before its PROXY header does".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err("its PROXY header took too long".to_owned())
        }
        Err(error) => Err(format!("its PROXY header cannot be read: {error}")),
    }
}

/// A connection is closed because its proxy does not say whose it is.
pub(crate) fn note_failure(connection: &Connection, reason: &str) {
    let (id, peer, refusal) = (connection.id, connection.peer(), Refusal::ProxyHeader);
    connection.context.counters.note_refusal(refusal);
    contained(|| {
        log::info!(
            target: "rwf::connection",
            "closed reason={refusal} connection={id} peer={peer}: {reason}"
        );
    });
}
