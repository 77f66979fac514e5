//! A controller inside of a function, as tests have them.

#![deny(warnings)]

use rwf::prelude::*;

fn main() {
    #[derive(Default, macros::WebsocketController)]
    struct Echo;

    #[async_trait]
    impl WebsocketController for Echo {}

    let _ = route!("/" => Echo);
}
