//! The echo server that the conformance cases and the clients of `tests/clients` talk to, on `127.0.0.1`: the first
//! argument is the port, 0 for any free one. It prints its address, and runs until its input ends.
//!
//! With a folder as the second argument it serves the same over TLS, on a free port: its address is the second line, and
//! clients find its certificate, which is for `localhost`, in `cert.pem` there.

use std::env;
use std::error::Error as StdError;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rwf::controller::{Deflate, Websocket};
use rwf::http::{Server, Tls};
use rwf::prelude::*;
use rwf::stats::Metrics;

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        if message == "close me" {
            return Err(Error::new("asked to close").with_close(4001, "asked"));
        }
        Comms::websocket(client).send(message)?;
        Ok(())
    }
}

/// Asks its client something when told to, and sends what was answered.
fn asks(mut socket: Socket) -> Result<(), Error> {
    while socket.recv()?.is_some() {
        let client = socket.client();
        thread::spawn(move || {
            let answer = client.request("Delete the file?\nReally?", Duration::from_secs(10));
            client.send(format!("answered: {answer:?}"))
        });
    }
    Ok(())
}

/// The echo, with messages that refer to those before them, however short they are.
#[derive(Default, macros::WebsocketController)]
struct EchoWithContext;

#[async_trait]
impl WebsocketController for EchoWithContext {
    fn websocket(&self, defaults: Websocket) -> Websocket {
        defaults.deflate(Deflate::new().context_takeover(true).threshold(0))
    }

    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Echo.handle_message(client, message).await
    }
}

/// The server, before it is told where to listen.
fn server() -> Server {
    let settings = Websocket::new()
        // The longest messages of the cases have 16 MiB; four of them may wait.
        .max_message_size(64 << 20)
        .outbox_bytes(64 << 20)
        .subprotocols(["echo.v2", "echo.v1"]);
    let routes = vec![
        route!("/" => Echo),
        route!("/asked" => websocket(asks)),
        route!("/context" => EchoWithContext),
        route!("/metrics" => Metrics::new()),
        // For clients that read metrics: a label whose value has to be escaped.
        route!("/\\\"quoted\"" => Echo),
    ];
    Server::new(routes).websocket(settings)
}

/// A certificate of its own, which leaves its files in the folder.
fn tls(folder: &Path) -> Result<Tls, Box<dyn StdError>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    fs::write(&certificate, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    Ok(Tls::files(certificate, key)?)
}

fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = env::args().skip(1);
    let port: u16 = arguments.next().ok_or("usage: conformance-echo PORT [FOLDER]")?.parse()?;
    let mut servers = vec![server().bind(("127.0.0.1", port)).spawn()?];
    if let Some(folder) = arguments.next() {
        servers.push(server().bind(("127.0.0.1", 0)).tls(tls(folder.as_ref())?).spawn()?);
    }
    for server in &servers {
        writeln!(io::stdout(), "{}", server.local_addr())?;
    }
    io::copy(&mut io::stdin(), &mut io::sink())?;
    for server in servers {
        server.shutdown()?;
    }
    Ok(())
}
