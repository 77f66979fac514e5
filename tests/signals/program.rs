//! A program with servers that end on signals, for `tests/signals.rs`. It prints a line for each thing that happens, runs
//! until its input ends, and does what the lines of its input say:
//!
//! - `run`: `run()` on another thread; `address=…`, and `ended` when it has
//! - `tls CERTIFICATE KEY`: the same over TLS, with these files
//! - `fail`: a `run()` for which there is no address; `failed`
//! - `handle`: a handler of its own for SIGTERM; `handles`, and `own SIGTERM` for each
//! - `echo`: `echo`

use std::error::Error as StdError;
use std::io::{self, BufRead};
use std::net::TcpListener;
use std::thread;

use rwf::http::{Server, Tls};
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
            files if files.starts_with("tls ") => {
                let files: Vec<_> = files.split(' ').skip(1).map(str::to_owned).collect();
                let tls = Tls::files(&files[0], &files[1])?;
                let listener = TcpListener::bind("127.0.0.1:0")?;
                println!("address={}", listener.local_addr()?);
                let server = Server::new(vec![route!("/" => Quiet)]).listener(listener).tls(tls);
                thread::spawn(move || {
                    println!("{}", server.run().map_or("failed", |()| "ended"));
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
