//! The documented program imports `Websocket` and does not use it: no warning, wherever the import is.

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

mod generic {
    use rwf::controller::Websocket;
    use rwf::prelude::*;

    #[derive(Default, macros::WebsocketController)]
    pub struct Room<'a, T>(pub &'a [T]);

    #[async_trait]
    impl<T: Sync> WebsocketController for Room<'_, T> {}
}

fn in_a_function() -> rwf::http::Route {
    use rwf::controller::Websocket;

    #[derive(Default, macros::WebsocketController)]
    struct Inner;

    #[async_trait]
    impl WebsocketController for Inner {}

    route!("/inner" => Inner)
}

fn main() {
    let _ = vec![
        route!("/" => Echo),
        route!("/second" => Second),
        route!("/generic" => generic::Room(&[1, 2, 3])),
        in_a_function(),
    ];
}
