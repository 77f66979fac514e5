//! Sending to connections that have nothing else to do.

use std::error::Error as StdError;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use rwf::http::Server;
use rwf::prelude::*;

static ALONE: LazyLock<SessionId> = LazyLock::new(|| open(1).expect("a server on this machine"));
static CROWD: LazyLock<SessionId> = LazyLock::new(|| open(100).expect("a server on this machine"));

#[derive(Default, macros::WebsocketController)]
struct Silent;

#[async_trait]
impl WebsocketController for Silent {
    async fn handle_message(&self, _client: &SessionId, _message: Message) -> Result<(), Error> {
        Ok(())
    }
}

/// A session with so many connections. One thread reads and drops what they are sent: each is sent everything, so that
/// it can wait for one after the other.
fn open(connections: usize) -> Result<SessionId, Box<dyn StdError>> {
    let secret = rwf::Uuid::new_v4().to_string();
    let session = SessionId::from_cookie(&secret).ok_or("no cookie")?;
    let server = Server::new(vec![route!("/" => Silent)]).bind("127.0.0.1:0").spawn()?;
    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = TcpStream::connect(server.local_addr())?;
        write!(
            client,
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Cookie: rwf_session={secret}\r\n\r\n"
        )?;
        clients.push(client);
    }
    while Comms::websocket(&session).send("")? < connections {
        thread::sleep(Duration::from_millis(1));
    }
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while clients.iter_mut().all(|client| client.read(&mut buffer).is_ok_and(|count| count > 0))
        {
        }
        drop(server);
    });
    Ok(session)
}

/// Opens the connections, so that this is not measured.
pub(crate) fn connect() {
    LazyLock::force(&ALONE);
    LazyLock::force(&CROWD);
}

/// Sends to a session, whose connections all have to take it.
fn send(session: impl Into<SessionId>, connections: usize) {
    assert_eq!(Comms::websocket(session).send("hey there"), Ok(connections));
}

#[divan::bench(sample_size = 1000)]
fn to_nobody() {
    send(divan::black_box(42), 0);
}

#[divan::bench(sample_size = 100)]
fn to_one_connection() {
    send(divan::black_box(&*ALONE), 1);
}

#[divan::bench(sample_size = 10)]
fn to_a_session_of_100() {
    send(divan::black_box(&*CROWD), 100);
}
