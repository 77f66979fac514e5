//! A chat with rooms: a controller made for each connection, from a parameter of the path.
//! Run it with `cargo run --example rooms`.
//! Try it by opening http://localhost:8000/ in two tabs (a 404 page will do), and in the console of each:
//! `ws = new WebSocket("ws://localhost:8000/rooms/blue"); ws.onmessage = event => console.log(event.data)`,
//! then `ws.send("hello")`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rwf::http::{self, Server};
use rwf::prelude::*;

type Members = HashMap<String, HashSet<ConnectionId>>;

#[derive(Clone, Default)]
struct Rooms(Arc<Mutex<Members>>);

impl Rooms {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Controller for Rooms {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let chat = Chat {
            room: request.param("room")?.to_owned(),
            connection: request.connection_id(),
            rooms: self.clone(),
        };
        WebsocketController::handle(&chat, request).await
    }
}

/// One tab in one room.
struct Chat {
    room: String,
    connection: ConnectionId,
    rooms: Rooms,
}

impl Chat {
    fn tell_everyone(&self, text: &str) {
        // Not under the lock: a send to this connection itself may wait for its client.
        let members = self.rooms.lock().get(&self.room).cloned().unwrap_or_default();
        for member in members {
            if let Err(error) = Comms::connection(member).send(text) {
                log::debug!("{member} misses a message: {error}");
            }
        }
    }
}

#[async_trait]
impl WebsocketController for Chat {
    async fn handle_connection(&self, _: &SessionId) -> Result<(), Error> {
        self.rooms.lock().entry(self.room.clone()).or_default().insert(self.connection);
        self.tell_everyone(&format!("{} has come", self.connection));
        Ok(())
    }

    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        let Some(text) = message.as_text() else {
            let error = Error::new("a binary message in a chat");
            return Err(error.with_close(CloseCode::UnsupportedData, "text only"));
        };
        self.tell_everyone(&format!("{}: {text}", self.connection));
        Ok(())
    }

    async fn handle_close(&self, _: &SessionId, _: CloseCode, _: &str) -> Result<(), Error> {
        let mut rooms = self.rooms.lock();
        if let Some(members) = rooms.get_mut(&self.room) {
            members.remove(&self.connection);
        }
        rooms.retain(|_, members| !members.is_empty());
        drop(rooms);
        self.tell_everyone(&format!("{} has left", self.connection));
        Ok(())
    }
}

#[rwf::main]
async fn main() -> Result<(), http::Error> {
    Server::new(vec![route!("/rooms/:room" => Rooms)]).launch().await
}
