//! A program with servers that end on signals, for `tests/signals.rs`. It prints a line for each thing that happens, runs
//! until its input ends, and does what the lines of its input say:
//!
//! - `run`: `run()` on another thread; `address=…`, and `ended` when it has
//! - `fail`: a `run()` for which there is no address; `failed`
//! - `handle`: a handler of its own for SIGTERM; `handles`, and `own SIGTERM` for each
//! - `echo`: `echo`

use std::error::Error as StdError;
use std::io::{self, BufRead};
use std::net::TcpListener;
use std::thread;

use rwf::http::Server;
use rwf::prelude::*;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

#[derive(Default, macros::WebsocketController)]
struct Quiet;

#[async_trait]
impl WebsocketController for Quiet {}

fn main() -> Result<(), Box<dyn StdError>> {
    for command in io::stdin().lock().lines() {
        match command?.as_str() {
            "run" => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                println!("address={}", listener.local_addr()?);
                thread::spawn(move || {
                    let server = Server::new(vec![route!("/" => Quiet)]).listener(listener);
                    println!(
                        "{}",
                        server.run().map_or_else(|error| error.to_string(), |()| "ended".into())
                    );
                });
            }
            "fail" => {
                let taken = TcpListener::bind("127.0.0.1:0")?;
                let server = Server::new(vec![]).bind(taken.local_addr()?);
                println!("{}", server.run().map_or("failed", |()| "ended"));
            }
            "handle" => {
                let mut signals = Signals::new([SIGTERM])?;
                thread::spawn(move || signals.forever().for_each(|_| println!("own SIGTERM")));
                println!("handles");
            }
            other => println!("{other}"),
        }
    }
    Ok(())
}
