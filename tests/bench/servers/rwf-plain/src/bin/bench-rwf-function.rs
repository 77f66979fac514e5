//! rwf's echo as a plain function, without a logger.

use std::error::Error as StdError;

use rwf::http::Server;
use rwf::prelude::*;

fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(message)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn StdError>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: rwf-function PORT")?.parse()?;
    let server = Server::new(vec![route!("/" => websocket(echo))])
        .max_connections(20_000)
        .bind(("127.0.0.1", port))
        .spawn()?;
    server.join()?;
    Ok(())
}
