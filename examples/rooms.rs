//! A chat with rooms: a function for each connection, a parameter of the path, and a topic for each room.
//! Run it with `cargo run --example rooms`.
//! Try it by opening http://localhost:8000/ in two tabs (a 404 page will do), and in the console of each:
//! `ws = new WebSocket("ws://localhost:8000/rooms/blue"); ws.onmessage = event => console.log(event.data)`,
//! then `ws.send("hello")`.

use rwf::http::{self, Server};
use rwf::prelude::*;

/// One tab in one room.
fn chat(mut socket: Socket) -> Result<(), Error> {
    let topic = format!("room:{}", socket.request().param("room")?);
    let (tab, room) = (socket.connection_id(), Comms::topic(&topic));
    Comms::connection(tab).subscribe(&topic)?;
    // This tab is in the room too: when nobody there can take a message, it ends with the error.
    room.send(format!("{tab} has come"))?;
    while let Some(message) = socket.recv()? {
        match message.as_text() {
            Some(text) => drop(room.send(format!("{tab}: {text}"))?),
            None => socket.close(CloseCode::UNSUPPORTED_DATA, "text only")?,
        }
    }
    // It has left its topics by now.
    room.send(format!("{tab} has left"))?;
    Ok(())
}

fn main() -> Result<(), http::Error> {
    Server::new(vec![route!("/rooms/:room" => websocket(chat))]).run()
}
