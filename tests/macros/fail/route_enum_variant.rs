//! A variant alone looks like a type: it is written with its enum, `Chat::Public`.

use rwf::prelude::*;

#[derive(macros::WebsocketController)]
enum Chat {
    Public,
}

#[async_trait]
impl WebsocketController for Chat {}

use Chat::Public;

fn main() {
    let _ = route!("/public" => Public);
}
