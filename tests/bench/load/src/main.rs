//! The load generator: one thread, one epoll, many connections. Frames are masked beforehand, and what comes back is
//! compared with what must come back, byte by byte and in order. Prints one line of JSON.

mod counters;
mod cycles;
mod deflate;
mod echo;
mod fan;
mod idle;
mod stream;
mod tls;
mod wire;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::wire::Ring;

const USAGE: &str = "usage: load PORT SERVER_PID SECONDS SCENARIO
       load certificate FOLDER (makes certificate.pem and key.pem)
scenarios: echo:CONNECTIONS:IN_FLIGHT:BYTES (binary from 1,024 bytes on)
           fan:RECEIVERS   cycles:AT_A_TIME:STANDING   idle:CONNECTIONS
           deflate-echo:CONNECTIONS:IN_FLIGHT   deflate-fan:RECEIVERS   deflate-idle:CONNECTIONS
           (2 KiB of JSON, with permessage-deflate; plain-echo, plain-fan without)
           topic:SUBSCRIBERS (of one topic)   topics:CONNECTIONS (with a topic each)
           latest:RECEIVERS (of newest values)
each of them over TLS with tls- before it, each connection with a whole handshake;
tls-resumed: is tls-cycles: with handshakes that take up an earlier session";

/// What every scenario needs to know.
struct Target {
    /// The header that offers compression.
    offer: &'static str,
    tls: Option<Arc<ClientConfig>>,
    /// Whether each TLS handshake takes up an earlier session.
    resumes: bool,
    port: u16,
    pid: u32,
    warm_up: Duration,
    window: Duration,
}

impl Target {
    /// A message of 2 KiB of JSON, compressed or not; from here on connections offer to compress, or do not.
    fn json(&mut self, deflate: bool) -> Result<Ring, Box<dyn Error>> {
        self.offer = if deflate { deflate::OFFER } else { "" };
        deflate::ring(self, deflate)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, folder] = arguments.as_slice()
        && command == "certificate"
    {
        return tls::make_certificate(Path::new(folder));
    }
    let [port, pid, seconds, scenario] = arguments.as_slice() else { return Err(USAGE.into()) };
    let window = Duration::from_secs_f64(seconds.parse()?);
    let warm_up = (window / 3).clamp(Duration::from_millis(200), Duration::from_secs(1));
    let (name, numbers) = scenario.split_once(':').ok_or(USAGE)?;
    let resumes = name == "tls-resumed";
    let (name, tls) = match name.strip_prefix("tls-") {
        Some(name) => (if resumes { "cycles" } else { name }, Some(tls::config(resumes)?)),
        None => (name, None),
    };
    let (port, pid) = (port.parse()?, pid.parse()?);
    let mut target = Target { offer: "", tls, resumes, port, pid, warm_up, window };
    let numbers = numbers.split(':').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    match (name, numbers.as_slice()) {
        ("echo", &[connections, flight, bytes]) => {
            echo::run(&target, "/", connections, flight, &Ring::new(bytes))
        }
        ("fan", &[receivers]) => fan::run(&target, "/fan", receivers, &Ring::new(32)),
        ("topic", &[subscribers]) => fan::run(&target, "/topic", subscribers, &Ring::new(32)),
        ("topics", &[connections]) => echo::run(&target, "/topics", connections, 1, &Ring::new(32)),
        ("deflate-echo" | "plain-echo", &[connections, flight]) => {
            let ring = target.json(name.starts_with("deflate"))?;
            echo::run(&target, "/", connections, flight, &ring)
        }
        ("deflate-fan" | "plain-fan", &[receivers]) => {
            let ring = target.json(name.starts_with("deflate"))?;
            fan::run(&target, "/fan", receivers, &ring)
        }
        ("latest", &[receivers]) => fan::run(&target, "/latest", receivers, &Ring::new(32)),
        ("cycles", &[slots, standing]) => cycles::run(&target, slots, standing),
        ("idle", &[connections]) => idle::run(&target, connections),
        ("deflate-idle", &[connections]) => {
            target.json(true)?;
            idle::run(&target, connections)
        }
        _ => Err(USAGE.into()),
    }
}
