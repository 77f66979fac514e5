//! A page and its WebSocket in one server, and messages that the server sends unasked: from a function to the visitor's
//! own tabs, and from a thread to everyone.
//! Run it with `cargo run --example push`.
//! Try it by opening http://localhost:8000/ in two tabs, and in another browser.

use std::thread;
use std::time::Duration;

use rwf::http::{self, Method, Server};
use rwf::prelude::*;

fn page(request: &Request) -> Result<Response, Error> {
    // The session begins with the page, so that tabs that are opened at once have the same.
    log::info!("{} gets the page", request.session_id());
    Ok(Response::new().html(include_str!("push.html")))
}

/// The page listens, and says nothing.
fn push(mut socket: Socket) -> Result<(), Error> {
    socket.iter().for_each(drop);
    Ok(())
}

fn hello(request: &Request) -> Result<Response, Error> {
    if request.method() != Method::Post {
        return Ok(Response::method_not_allowed().header("Allow", "POST"));
    }
    Comms::websocket(request.session_id()).send("hey there")?;
    Ok(Response::no_content())
}

fn count_seconds() {
    for seconds in 1_u64.. {
        thread::sleep(Duration::from_secs(1));
        if let Err(error) = Comms::notify().send(format!("up for {seconds} s")) {
            log::warn!("nobody could be told the time: {error}");
        }
    }
}

fn main() -> Result<(), http::Error> {
    thread::spawn(count_seconds);

    Server::new(vec![
        route!("/" => page),
        route!("/websocket" => websocket(push)),
        route!("/hello" => hello),
    ])
    .run()
}
