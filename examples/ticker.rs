//! Prices that change all the time: a client that cannot keep up gets the newest ones, and all are told how many watch.
//! Run it with `cargo run --example ticker`.
//! Try it in the console of any page of http://localhost:8000/ (a 404 page will do):
//! `ws = new WebSocket("ws://localhost:8000/prices"); ws.onmessage = event => console.log(event.data)`.

use std::thread;
use std::time::Duration;

use rwf::controller::Websocket;
use rwf::http::{self, Server};
use rwf::prelude::*;

const SYMBOLS: [&str; 4] = ["ACME", "GLOBEX", "INITECH", "UMBRELLA"];

/// One who watches. There is nothing to say but goodbye.
fn watch(mut socket: Socket) -> Result<(), Error> {
    Comms::here()?.subscribe("prices")?;
    socket.iter().for_each(drop);
    Ok(())
}

/// Sends a thousand prices a second. Each replaces the one of its symbol that a slow client did not take yet.
fn trade() {
    let mut cents = SYMBOLS.map(|_| 10_000);
    for step in 0_usize.. {
        let which = step * 7 % SYMBOLS.len();
        let (symbol, price) = (SYMBOLS[which], &mut cents[which]);
        *price += if step % 13 < 6 { 7 } else { -6 };
        let text = format!("{symbol} {}.{:02}", *price / 100, *price % 100);
        // When nobody can take it, the next one is as good.
        let _ = Comms::topic("prices").send_latest(symbol, text);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Tells all how many watch, people and not tabs, whenever that changes.
fn count() -> Result<(), Error> {
    for _ in &Comms::topic("prices").presence()? {
        let watchers = Comms::topic("prices").members().session_count();
        let _ = Comms::topic("prices").send_latest("watchers", format!("{watchers} watch"));
    }
    Ok(())
}

fn main() -> Result<(), http::Error> {
    thread::spawn(trade);
    thread::spawn(count);
    // What is on its way to a slow client is new, too.
    let settings = Websocket::new().max_lag(Duration::from_millis(100));
    Server::new(vec![route!("/prices" => websocket(watch))]).websocket(settings).run()
}
