//! The documented program imports `Websocket` and does not use it: no warning.

#![deny(warnings)]

use rwf::controller::Websocket;
use rwf::prelude::*;

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {}

#[derive(Default, macros::WebsocketController)]
struct Second;

#[async_trait]
impl WebsocketController for Second {}

fn main() {
    let _ = vec![route!("/" => Echo), route!("/second" => Second)];
}
