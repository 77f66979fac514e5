//! rwf's echo as a plain function with every limit of how often set, and never reached. Without a logger.

use std::error::Error as StdError;

use rwf::controller::{Rate, Websocket};
use rwf::http::Server;
use rwf::prelude::*;

fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(message)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn StdError>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: rwf-limited PORT")?.parse()?;
    let never = Rate::per_second(1_000_000_000);
    let limits = Websocket::new()
        .message_rate(never)
        .byte_rate(never)
        .message_rate_per_session(never)
        .byte_rate_per_session(never);
    let server = Server::new(vec![route!("/" => websocket(echo))])
        .max_connections(20_000)
        .websocket(limits)
        .bind(("127.0.0.1", port))
        .spawn()?;
    server.join()?;
    Ok(())
}
