//! The echo server that the conformance cases and the clients of `tests/clients` talk to, on `127.0.0.1`: the first
//! argument is the port, 0 for any free one. It prints its address, and runs until its input ends.

use std::env;
use std::error::Error as StdError;
use std::io::{self, Write};

use rwf::controller::Websocket;
use rwf::http::Server;
use rwf::prelude::*;

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

fn main() -> Result<(), Box<dyn StdError>> {
    let port: u16 = env::args().nth(1).ok_or("usage: conformance-echo PORT")?.parse()?;
    let websocket = Websocket::new()
        // The longest messages of the cases have 16 MiB; four of them may wait.
        .max_message_size(64 << 20)
        .outbox_bytes(64 << 20)
        .subprotocols(["echo.v2", "echo.v1"]);
    let server = Server::new(vec![route!("/" => Echo)])
        .websocket(websocket)
        .bind(("127.0.0.1", port))
        .spawn()?;
    writeln!(io::stdout(), "{}", server.local_addr())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    server.shutdown()?;
    Ok(())
}
