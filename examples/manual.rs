//! An endpoint without the derive: a controller looks at the request before it becomes a WebSocket.
//! Run it with `cargo run --example manual`.
//! Try it by opening http://localhost:8000/, and in that page's console:
//! `ws = new WebSocket("ws://localhost:8000/websocket?name=Ann"); ws.onmessage = event => console.log(event.data)`,
//! then `ws.send("hello")`. Without a name there is no WebSocket.

use rwf::http::{self, Server};
use rwf::prelude::*;

#[derive(Default)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        log::info!("Client {client} connected to the echo server");
        Ok(())
    }

    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(message)?;
        Ok(())
    }
}

#[async_trait]
impl Controller for Echo {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let Some(name) = request.query("name") else {
            return Ok(Response::bad_request().text("say who you are: /websocket?name=Ann"));
        };
        log::info!("{name:?} comes from {}", request.peer_addr());
        WebsocketController::handle(self, request).await
    }
}

fn welcome(_: &Request) -> Result<Response, Error> {
    Ok(Response::new().text("There is an echo at /websocket?name=..."))
}

#[rwf::main]
async fn main() -> Result<(), http::Error> {
    Server::new(vec![route!("/" => welcome), route!("/websocket" => Echo)]).launch().await
}
