//! The import of `Websocket` in use, beside the derive.

#![deny(warnings)]

use rwf::controller::Websocket;
use rwf::prelude::*;

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    fn websocket(&self, defaults: Websocket) -> Websocket {
        defaults.max_message_size(1024)
    }
}

fn main() {
    let _ = route!("/" => Echo);
}
