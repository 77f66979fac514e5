//! rwf's echo in a loop of the program's own, which takes all clients' messages from a channel. Without a logger.

use std::error::Error as StdError;

use rwf::http::Server;
use rwf::prelude::*;

fn main() -> Result<(), Box<dyn StdError>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: rwf-events PORT")?.parse()?;
    let (endpoint, events) = rwf::events(64);
    let _server = Server::new(vec![route!("/" => endpoint)])
        .max_connections(20_000)
        .bind(("127.0.0.1", port))
        .spawn()?;
    for event in &events {
        if let Event::Message(client, message) = event {
            // One that has left meanwhile gets no answer.
            let _ = client.send(message);
        }
    }
    Ok(())
}
