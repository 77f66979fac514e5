//! Sending to connections that have nothing else to do, through the public API.

use std::error::Error as StdError;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

use rwf::http::Server;
use rwf::prelude::*;

static SESSION: LazyLock<SessionId> =
    LazyLock::new(|| connect().expect("a server on this machine"));
static CONNECTED: Mutex<Option<Sender<SessionId>>> = Mutex::new(None);

#[derive(Default, macros::WebsocketController)]
struct Silent;

#[async_trait]
impl WebsocketController for Silent {
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        if let Some(sender) = CONNECTED.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = sender.send(client.clone());
        }
        Ok(())
    }

    async fn handle_message(&self, _client: &SessionId, _message: Message) -> Result<(), Error> {
        Ok(())
    }
}

/// One client, whose messages a thread reads and drops.
fn connect() -> Result<SessionId, Box<dyn StdError>> {
    let (sender, receiver) = channel();
    *CONNECTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    let server = Server::new(vec![route!("/" => Silent)]).bind("127.0.0.1:0").spawn()?;
    let mut client = TcpStream::connect(server.local_addr())?;
    client.write_all(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )?;
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
        drop(server);
    });
    Ok(receiver.recv()?)
}

fn main() {
    LazyLock::force(&SESSION);
    divan::main();
}

#[divan::bench]
fn to_nobody() -> Result<usize, impl StdError> {
    Comms::websocket(divan::black_box(42)).send("hey there")
}

#[divan::bench]
fn to_one_connection() -> Result<usize, impl StdError> {
    Comms::websocket(divan::black_box(&*SESSION)).send("hey there")
}
