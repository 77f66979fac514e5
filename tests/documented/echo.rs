use rwf::controller::Websocket;
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
