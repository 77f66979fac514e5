//! Functions that are no WebSocket endpoints, given to `websocket`.

use rwf::prelude::*;

fn by_reference(socket: &Socket) -> Result<(), Error> {
    socket.send("hello")?;
    Ok(())
}

fn no_result(mut socket: Socket) {
    while let Ok(Some(message)) = socket.recv() {
        log::info!("{message:?}");
    }
}

fn of_a_request(_: &Request) -> Result<Response, Error> {
    Ok(Response::new())
}

async fn asynchronous(socket: Socket) -> Result<(), Error> {
    socket.send("hello")?;
    Ok(())
}

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {}

fn main() {
    let _ = route!("/a" => websocket(by_reference));
    let _ = route!("/b" => websocket(no_result));
    let _ = route!("/c" => websocket(of_a_request));
    let _ = route!("/d" => websocket(asynchronous));
    let _ = route!("/e" => websocket(Echo));
}
