//! A chat that is one chat on as many ports or machines as one likes, over a Redis.
//!
//! ```console
//! $ redis-server --port 6379 --save ""
//! $ cargo run --features redis --example cluster -- 8000
//! $ cargo run --features redis --example cluster -- 8001
//! ```
//!
//! Then, in the consoles of two browsers' tabs, the second with 8001:
//!
//! ```js
//! const ws = new WebSocket("ws://localhost:8000/rooms/garden");
//! ws.onmessage = (event) => console.log(event.data);
//! ws.send("hello to everybody in the garden");
//! ```
//!
//! What happens when Redis is ended (`redis-cli shutdown`) and started again the log of both tells. Those on the same
//! port go on talking. What they say waits for up to ten seconds, and goes to Redis as soon as their own node is back
//! there: the others hear it if theirs is back by then. Nodes come back up to five seconds apart: a later one misses
//! it, and its clients are told so with the next message. `redis-cli psubscribe 'chat:*'` shows what crosses.

use std::env;

use rwf::cluster::Gap;
use rwf::http::{self, Server};
use rwf::prelude::*;

fn room(mut socket: Socket) -> Result<(), Error> {
    let topic = format!("room:{}", socket.request().param("room")?);
    let room = Comms::topic(&topic);
    Comms::here()?.subscribe(&topic)?;
    // Counted on all nodes.
    socket.send(format!("you are one of {} here", room.members().client_count()))?;
    while let Some(message) = socket.recv()? {
        room.send(message)?;
    }
    Ok(())
}

/// Those who may have missed something are told.
fn tell(gap: &Gap) {
    if let Gap::Missed { comms, count, .. } = gap {
        let _ = comms.send(format!("{count} messages were lost on their way here"));
    }
}

fn main() -> Result<(), http::Error> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(8000);
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1/".to_owned());
    let cluster = Cluster::redis(url).prefix("chat").on_gap(tell);
    Server::new(vec![route!("/rooms/:room" => websocket(room))])
        .bind(("127.0.0.1", port))
        .cluster(cluster)
        .run()
}
