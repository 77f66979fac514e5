use rwf::prelude::*;
use rwf::http::{Server, self};

#[rwf::main]
async fn main() -> Result<(), http::Error> {
    Server::new(vec![
        route!("/websocket" => Echo),
    ])
    .launch()
    .await
}
