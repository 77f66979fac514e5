//! The echo server that the conformance cases and the clients of `tests/clients` talk to, on `127.0.0.1`: the first
//! argument is the port, 0 for any free one. It prints its address, and runs until its input ends.

use std::env;
use std::error::Error as StdError;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use rwf::controller::{Deflate, Websocket};
use rwf::http::Server;
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

fn main() -> Result<(), Box<dyn StdError>> {
    let port: u16 = env::args().nth(1).ok_or("usage: conformance-echo PORT")?.parse()?;
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
    let server = Server::new(routes).websocket(settings).bind(("127.0.0.1", port)).spawn()?;
    writeln!(io::stdout(), "{}", server.local_addr())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    server.shutdown()?;
    Ok(())
}
