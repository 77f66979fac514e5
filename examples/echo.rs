//! The smallest WebSocket server: sends every message back.
//! Run it with `cargo run --example echo`.
//! Try it by opening http://localhost:8000/ (a 404 page will do), and in its console:
//! `ws = new WebSocket("ws://localhost:8000/websocket"); ws.onmessage = event => console.log(event.data)`,
//! then `ws.send("hello")`.

use rwf::controller::Websocket;
use rwf::http::{self, Server};
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

#[rwf::main]
async fn main() -> Result<(), http::Error> {
    Server::new(vec![route!("/websocket" => Echo)]).launch().await
}
