//! A route wants a controller: a type that is none, and a WebSocket controller without the derive.

use rwf::prelude::*;

#[derive(Default)]
struct Chat;

#[derive(Default)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {}

fn main() {
    let _ = route!("/chat" => Chat);
    let _ = route!("/echo" => Echo);
}
