//! The server that the suites talk to, on `127.0.0.1`: the first argument is the port, 0 for any free one. It prints
//! its address, and runs until its input ends.

use std::env;
use std::error::Error as StdError;
use std::io::{self, Write};

use rwf::controller::Websocket;
use rwf::http::Server;
use rwf::prelude::*;

/// Whom the requests of the suites are for.
const HOSTS: [&str; 5] = ["0.0.0.0", "0.0.0.0=5000", "a", "example.com", "x"];

/// Sends every message back, and closes after a `Goodbye`.
#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    fn websocket(&self, defaults: Websocket) -> Websocket {
        defaults.allow_any_origin()
    }

    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        let is_last = message == "Goodbye";
        let comms = Comms::websocket(client);
        comms.send(message)?;
        if is_last {
            comms.close(CloseCode::NORMAL, "")?;
        }
        Ok(())
    }
}

/// Lets no page of another origin in.
#[derive(Default, macros::WebsocketController)]
struct OriginCheck;

#[async_trait]
impl WebsocketController for OriginCheck {}

#[derive(Default, macros::WebsocketController)]
struct InternalError;

#[async_trait]
impl WebsocketController for InternalError {
    fn websocket(&self, defaults: Websocket) -> Websocket {
        defaults.allow_any_origin()
    }

    async fn handle_connection(&self, _: &SessionId) -> Result<(), Error> {
        Err(Error::new("intended"))
    }
}

/// Tells what was understood of a request that is for nothing else here.
#[derive(Default)]
struct Understood;

#[async_trait]
impl Controller for Understood {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let mut answer = format!("{} {}\n", request.method(), request.path()).into_bytes();
        answer.extend_from_slice(request.body());
        Ok(Response::not_found().bytes(answer))
    }
}

fn main() -> Result<(), Box<dyn StdError>> {
    let port: u16 = env::args().nth(1).ok_or("usage: suites-server PORT")?.parse()?;
    let routes = vec![
        route!("/" => Echo),
        route!("/echo" => Echo),
        route!("/close" => Echo),
        route!("/resource" => Echo),
        route!("/resource/*rest" => Echo),
        route!("/internal_error" => InternalError),
        route!("/origin_check" => OriginCheck),
        route!("/*path" => Understood),
    ];
    let server = HOSTS.into_iter().fold(Server::new(routes), Server::allow_host);
    let server = server.bind(("127.0.0.1", port)).spawn()?;
    writeln!(io::stdout(), "{}", server.local_addr())?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    server.shutdown()?;
    Ok(())
}
