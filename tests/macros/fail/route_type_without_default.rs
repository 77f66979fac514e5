//! A type in `route!` is made with `Default`.

use rwf::prelude::*;

#[derive(macros::WebsocketController)]
struct Chat {
    greeting: String,
}

#[async_trait]
impl WebsocketController for Chat {}

fn main() {
    let _ = route!("/chat" => Chat);
}
