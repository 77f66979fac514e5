//! Items of the program's own that are named `Websocket`, of whatever kind, beside the derive.

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

mod a_type_with_parameters {
    use rwf::prelude::*;

    pub struct Websocket<'a, T>(pub &'a T);

    #[derive(Default, macros::WebsocketController)]
    pub struct Echo;

    #[async_trait]
    impl WebsocketController for Echo {}
}

mod a_trait {
    use rwf::prelude::*;

    pub trait Websocket {
        fn name(&self) -> &'static str;
    }

    #[derive(Default, macros::WebsocketController)]
    pub struct Echo;

    #[async_trait]
    impl WebsocketController for Echo {}

    impl Websocket for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
    }
}

#[allow(non_snake_case)]
mod functions_and_macros {
    use rwf::prelude::*;

    pub fn Websocket() {}

    #[allow(unused_macros)]
    macro_rules! Websocket {
        () => {};
    }

    #[derive(Default, macros::WebsocketController)]
    pub struct Echo;

    #[async_trait]
    impl WebsocketController for Echo {}
}

mod a_glob {
    use super::a_trait::*;
    use rwf::prelude::*;

    #[derive(Default, macros::WebsocketController)]
    pub struct Second;

    #[async_trait]
    impl WebsocketController for Second {}

    pub fn name() -> &'static str {
        Echo.name()
    }
}

fn main() {
    let _ = Websocket { inner: 1 }.inner;
    let _ = a_type_with_parameters::Websocket(&1).0;
    functions_and_macros::Websocket();
    let _ = a_glob::name();
    let _ = vec![
        route!("/" => Echo),
        route!("/controller" => a_controller::Websocket),
        route!("/parameters" => a_type_with_parameters::Echo),
        route!("/trait" => a_trait::Echo),
        route!("/function" => functions_and_macros::Echo),
        route!("/glob" => a_glob::Second),
    ];
}
