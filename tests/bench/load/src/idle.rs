//! Idle: what a WebSocket that does nothing costs the server in memory, and the system's kernel for both its ends.

use std::error::Error;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::Target;
use crate::deflate;
use crate::wire::open;

/// The sum of these lines of a file of `/proc`, in KiB.
fn kibibytes(path: &str, names: &[&str]) -> Result<f64, Box<dyn Error>> {
    let mut sum = 0.0;
    for line in fs::read_to_string(path)?.lines() {
        if let Some((name, value)) = line.split_once(':')
            && names.contains(&name)
        {
            sum += value.trim().trim_end_matches(" kB").parse::<f64>()?;
        }
    }
    Ok(sum)
}

pub(crate) fn run(target: &Target, connections: usize) -> Result<(), Box<dyn Error>> {
    let resident = || kibibytes(&format!("/proc/{}/status", target.pid), &["VmRSS"]);
    let kernel = || kibibytes("/proc/meminfo", &["Slab", "KernelStack", "PageTables"]);
    // What the first connection brings in is not counted.
    let _first = open(target, "/")?;
    thread::sleep(Duration::from_millis(100));
    let before = (resident()?, kernel()?);
    let mut all = (0..connections).map(|_| open(target, "/")).collect::<Result<Vec<_>, _>>()?;
    // Where messages are compressed, each has had one: what is kept between messages counts.
    for connection in all.iter_mut().filter(|_| !target.offer.is_empty()) {
        deflate::exchange(connection)?;
    }
    thread::sleep(Duration::from_secs(1));
    let after = (resident()?, kernel()?);
    println!(
        "{{\"rss\": {:.1}, \"kernel\": {:.1}}}",
        (after.0 - before.0) / connections as f64,
        (after.1 - before.1) / connections as f64
    );
    Ok(())
}
