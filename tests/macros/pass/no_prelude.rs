//! The macros name everything by its path: no import of the prelude, and names of its own in the way.

#![deny(warnings)]

#[derive(Default, rwf::macros::WebsocketController)]
struct Echo;

impl rwf::controller::WebsocketController for Echo {}

#[allow(dead_code)]
mod in_the_way {
    pub struct Controller;
    pub struct Request;
    pub struct Response;
    pub struct Error;
    pub struct Result;
    pub mod core {}
    pub mod std {}

    #[derive(Default, rwf::macros::WebsocketController)]
    pub struct Crowded;

    impl rwf::controller::WebsocketController for Crowded {}
}

#[rwf::main]
async fn main() -> Result<(), rwf::http::Error> {
    let _ = rwf::http::Server::new(vec![
        rwf::route!("/echo" => Echo),
        rwf::route!("/crowded" => in_the_way::Crowded),
    ]);
    Ok(())
}
