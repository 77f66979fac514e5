//! The load generator: one thread, one epoll, many connections. Frames are masked beforehand, and what comes back is
//! compared with what must come back, byte by byte and in order. Prints one line of JSON.

mod counters;
mod cycles;
mod echo;
mod fan;
mod idle;
mod wire;

use std::error::Error;
use std::time::Duration;

const USAGE: &str = "usage: load PORT SERVER_PID SECONDS SCENARIO
scenarios: echo:CONNECTIONS:IN_FLIGHT:BYTES (binary from 1,024 bytes on)
           fan:RECEIVERS   cycles:AT_A_TIME:STANDING   idle:CONNECTIONS";

/// What every scenario needs to know.
struct Target {
    port: u16,
    pid: u32,
    warm_up: Duration,
    window: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, pid, seconds, scenario] = arguments.as_slice() else { return Err(USAGE.into()) };
    let window = Duration::from_secs_f64(seconds.parse()?);
    let warm_up = (window / 3).clamp(Duration::from_millis(200), Duration::from_secs(1));
    let target = Target { port: port.parse()?, pid: pid.parse()?, warm_up, window };
    let (name, numbers) = scenario.split_once(':').ok_or(USAGE)?;
    let numbers = numbers.split(':').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    match (name, numbers.as_slice()) {
        ("echo", &[connections, flight, bytes]) => echo::run(&target, connections, flight, bytes),
        ("fan", &[receivers]) => fan::run(&target, receivers),
        ("cycles", &[slots, standing]) => cycles::run(&target, slots, standing),
        ("idle", &[connections]) => idle::run(&target, connections),
        _ => Err(USAGE.into()),
    }
}
