//! A program with work of its own, not async, that shows its progress to whoever looks: the server runs beside it.
//! Run it with `cargo run --example embed`, or `cargo run --example embed -- 127.0.0.1:8000` for a port of your choice.
//! Try it by opening the address that it prints; it ends by itself after ten seconds.

use std::env;
use std::time::{Duration, Instant};

use rwf::http::{self, Server};
use rwf::prelude::*;

const PAGE: &str = r#"<!doctype html>
<title>primes</title>
<p id="progress">waiting</p>
<script>
  const ws = new WebSocket(`ws://${location.host}/progress`);
  ws.onmessage = (event) => (document.getElementById("progress").textContent = event.data);
</script>"#;

/// The page listens, and says nothing.
fn progress(mut socket: Socket) -> Result<(), Error> {
    socket.iter().for_each(drop);
    Ok(())
}

fn is_prime(number: u64) -> bool {
    (2..)
        .take_while(|divisor| divisor * divisor <= number)
        .all(|divisor| !number.is_multiple_of(divisor))
}

fn main() -> Result<(), http::Error> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = Server::new(vec![
        route!("/" => |_: &Request| Ok(Response::new().html(PAGE))),
        route!("/progress" => websocket(progress)),
    ])
    .bind(address)
    .spawn()?;
    println!("looking for primes; watch it at http://{}/", server.local_addr());

    let mut numbers = 2_u64..;
    let mut found = 0;
    for percent in 1..=100 {
        let next_report = Instant::now() + Duration::from_millis(100);
        while Instant::now() < next_report {
            found += numbers.by_ref().take(1000).filter(|number| is_prime(*number)).count();
        }
        if let Err(error) = Comms::notify().send(format!("{percent} %: {found} primes")) {
            println!("nobody could be told: {error}");
        }
    }

    let report = server.shutdown()?;
    println!("{found} primes below {}", numbers.start);
    println!("{} connections closed, {} cut", report.closed, report.cut);
    Ok(())
}
