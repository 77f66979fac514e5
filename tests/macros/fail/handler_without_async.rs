//! The methods of a controller are `async`, also where they block: a plain `fn`, and one whose `impl` lacks the attribute.

use rwf::prelude::*;

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(message)?;
        Ok(())
    }
}

#[derive(Default, macros::WebsocketController)]
struct Plain;

impl WebsocketController for Plain {
    fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(message)?;
        Ok(())
    }
}

#[derive(Default, macros::WebsocketController)]
struct Bare;

impl WebsocketController for Bare {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(message)?;
        Ok(())
    }
}

struct Health;

impl Controller for Health {
    fn handle(&self, _: &Request) -> Result<Response, Error> {
        Ok(Response::new().text("well"))
    }
}

fn main() {}
