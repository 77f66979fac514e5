//! The documented echo through the whole of rwf, without a logger, and a fan-out beside it.

use std::error::Error as StdError;

use rwf::http::Server;
use rwf::prelude::*;

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        log::info!("Client {:?} connected to the echo server", client);
        Ok(())
    }

    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        let comms = Comms::websocket(client);
        comms.send(message)?;
        Ok(())
    }
}

#[derive(Default, macros::WebsocketController)]
struct Fan;

#[async_trait]
impl WebsocketController for Fan {
    async fn handle_message(&self, _client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::notify().send(message)?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn StdError>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: rwf PORT")?.parse()?;
    let server = Server::new(vec![route!("/" => Echo), route!("/fan" => Fan)])
        .max_connections(20_000)
        .bind(("127.0.0.1", port))
        .spawn()?;
    server.join()?;
    Ok(())
}
