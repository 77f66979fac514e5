//! Types of the program's own that are named `Websocket`, beside the derive.

#![deny(warnings)]

use rwf::prelude::*;

pub struct Websocket {
    pub inner: u8,
}

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {}

mod a_controller {
    use rwf::prelude::*;

    #[derive(Default, macros::WebsocketController)]
    pub struct Websocket;

    #[async_trait]
    impl WebsocketController for Websocket {}
}

fn main() {
    let _ = Websocket { inner: 1 }.inner;
    let _ = vec![route!("/" => Echo), route!("/controller" => a_controller::Websocket)];
}
