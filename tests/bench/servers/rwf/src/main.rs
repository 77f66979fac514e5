//! The documented echo through the whole of rwf, without a logger, and beside it a fan-out: to all, of newest values, and by
//! topics.

use std::error::Error as StdError;

use rwf::http::Server;
use rwf::prelude::*;

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        log::info!("Client {:?} connected to the echo server", client);
        Ok(())
    }

    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        let comms = Comms::websocket(client);
        comms.send(message)?;
        Ok(())
    }
}

#[derive(Default, macros::WebsocketController)]
struct Fan;

#[async_trait]
impl WebsocketController for Fan {
    async fn handle_message(&self, _client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::notify().send(message)?;
        Ok(())
    }
}

/// The newest value for all.
#[derive(Default, macros::WebsocketController)]
struct Latest;

#[async_trait]
impl WebsocketController for Latest {
    async fn handle_message(&self, _client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::notify().send_latest("value", message)?;
        Ok(())
    }
}

/// One topic for all.
#[derive(Default, macros::WebsocketController)]
struct OneTopic;

#[async_trait]
impl WebsocketController for OneTopic {
    async fn handle_connection(&self, _client: &SessionId) -> Result<(), Error> {
        Comms::here()?.subscribe("topic")?;
        Ok(())
    }

    async fn handle_message(&self, _client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::topic("topic").send(message)?;
        Ok(())
    }
}

/// A topic for each, through which it echoes.
#[derive(Default, macros::WebsocketController)]
struct ManyTopics;

#[async_trait]
impl WebsocketController for ManyTopics {
    async fn handle_connection(&self, client: &SessionId) -> Result<(), Error> {
        Comms::here()?.subscribe(&format!("topic:{client}"))?;
        Ok(())
    }

    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::topic(format!("topic:{client}")).send(message)?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn StdError>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: rwf PORT")?.parse()?;
    let routes = vec![
        route!("/" => Echo),
        route!("/fan" => Fan),
        route!("/latest" => Latest),
        route!("/topic" => OneTopic),
        route!("/topics" => ManyTopics),
    ];
    let server = Server::new(routes).max_connections(20_000).bind(("127.0.0.1", port));
    #[cfg(feature = "tls")]
    let server = {
        if let Some(provider) = bench_tls::chosen_provider() {
            provider.install_default().map_err(|_| "there is one already")?;
        }
        let [certificate, key] = [2, 3].map(|at| std::env::args().nth(at).unwrap_or_default());
        server.tls(rwf::http::Tls::files(certificate, key)?)
    };
    server.spawn()?.join()?;
    Ok(())
}
