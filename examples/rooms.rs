//! A chat with rooms: a controller made for each connection, from a parameter of the path, and a topic for each room.
//! Run it with `cargo run --example rooms`.
//! Try it by opening http://localhost:8000/ in two tabs (a 404 page will do), and in the console of each:
//! `ws = new WebSocket("ws://localhost:8000/rooms/blue"); ws.onmessage = event => console.log(event.data)`,
//! then `ws.send("hello")`.

use rwf::http::{self, Server};
use rwf::prelude::*;

#[derive(Default)]
struct Rooms;

#[async_trait]
impl Controller for Rooms {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let chat = Chat {
            topic: format!("room:{}", request.param("room")?),
            tab: request.connection_id(),
        };
        WebsocketController::handle(&chat, request).await
    }
}

/// One tab in one room.
struct Chat {
    topic: String,
    tab: ConnectionId,
}

#[async_trait]
impl WebsocketController for Chat {
    async fn handle_connection(&self, _: &SessionId) -> Result<(), Error> {
        Comms::connection(self.tab).subscribe(&self.topic)?;
        Comms::topic(&self.topic).send(format!("{} has come", self.tab))?;
        Ok(())
    }

    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        let Some(text) = message.as_text() else {
            let error = Error::new("a binary message in a chat");
            return Err(error.with_close(CloseCode::UNSUPPORTED_DATA, "text only"));
        };
        Comms::topic(&self.topic).send(format!("{}: {text}", self.tab))?;
        Ok(())
    }

    async fn handle_close(&self, _: &SessionId, _: CloseCode, _: &str) -> Result<(), Error> {
        // This tab has left its topics by now.
        Comms::topic(&self.topic).send(format!("{} has left", self.tab))?;
        Ok(())
    }
}

#[rwf::main]
async fn main() -> Result<(), http::Error> {
    Server::new(vec![route!("/rooms/:room" => Rooms)]).launch().await
}
