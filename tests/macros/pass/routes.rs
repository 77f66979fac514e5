//! All that `route!` takes: types by path, values, constants, expressions; paths that are not literals.

#![deny(warnings)]

use rwf::http::Route;
use rwf::prelude::*;

mod chat {
    use rwf::prelude::*;

    #[derive(Default, macros::WebsocketController)]
    pub struct Chat {
        pub greeting: String,
    }

    #[async_trait]
    impl WebsocketController for Chat {}

    impl Chat {
        pub fn new(greeting: &str) -> Self {
            Self { greeting: greeting.to_owned() }
        }
    }

    pub const QUIET: Chat = Chat { greeting: String::new() };
}

#[derive(macros::WebsocketController)]
enum Room {
    Public,
    Named(&'static str),
}

#[async_trait]
impl WebsocketController for Room {}

fn function(request: &Request) -> Result<Response, Error> {
    Ok(Response::new().text(request.path()))
}

fn socket(mut socket: Socket) -> Result<(), Error> {
    socket.iter().for_each(drop);
    Ok(())
}

const PATH: &str = "/constant";

fn main() {
    let chat = chat::Chat::default();
    let prefix = String::from("/prefix");
    let _: Vec<Route> = vec![
        route!("/type" => chat::Chat),
        route!("/type/:parameter/*rest" => self::chat::Chat),
        route!("/value" => chat),
        route!("/call" => chat::Chat::new("hello")),
        route!("/struct" => chat::Chat { greeting: "hello".to_owned() }),
        route!("/constant" => chat::QUIET),
        route!("/block" => { let greeting = "hello"; chat::Chat::new(greeting) }),
        route!("/boxed" => chat::Chat::new(if prefix.is_empty() { "a" } else { "b" })),
        route!("/variant" => Room::Public),
        route!("/variant/path" => self::Room::Public),
        route!("/variant/named" => Room::Named("blue")),
        route!("/function" => function),
        route!("/closure" => |_: &Request| Ok(Response::no_content())),
        route!("/socket" => websocket(socket)),
        route!(PATH => chat::Chat),
        route!(format!("{prefix}/more") => chat::Chat),
        route!(prefix => chat::Chat,),
    ];
}
