//! A program's logger that sends each line to those who watch the log.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{Guest, Raw, start};
use rwf::controller::{Overflow, Websocket};
use rwf::http::Server;
use rwf::prelude::*;

/// More than the systems of both sides hold for a client that does not read.
const FILLER: usize = 24 << 20;

struct ToClients;

impl log::Log for ToClients {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = Comms::topic("log").send(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn a_client_that_is_too_slow_for_the_log_gets_its_last_lines() {
    log::set_logger(&ToClients).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let listens = |mut socket: Socket| {
        socket.iter().for_each(drop);
        Ok(())
    };
    // Room for a few more lines than the test's: the server logs some of its own, at its time.
    let settings = Websocket::new().outbox_bytes(2 * FILLER).outbox_messages(10);
    let settings = settings.overflow(Overflow::DropOldest);
    let server = start(Server::new(vec![route!("/" => websocket(listens))]).websocket(settings));
    let guest = Guest::new();
    let mut raw = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    Comms::websocket(guest).send(vec![0; FILLER]).unwrap();
    Comms::websocket(guest).subscribe("log").unwrap();
    for number in 0..100 {
        // That messages are dropped is a line of the log itself.
        log::info!("line {number}");
    }
    while raw.frame().payload != b"line 99" {}
}
