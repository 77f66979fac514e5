//! Fan-out: one connection sends, all receive, the sender too; the next message goes out when all have the last one.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use crate::Target;
use crate::counters::Counters;
use crate::wire::{Connection, Poll, Ring, open};

pub(crate) fn run(
    target: &Target,
    path: &str,
    receivers: usize,
    ring: &Ring,
) -> Result<(), Box<dyn Error>> {
    let poll = Poll::new()?;
    let mut all = Vec::with_capacity(receivers);
    for number in 0..receivers {
        let connection = Connection::new(open(target, path)?, 0)?;
        connection.add_to(&poll, number)?;
        all.push(connection);
    }
    // Most servers register a connection when the 101 is out.
    thread::sleep(Duration::from_millis(300));
    let mut counters = Counters::start(target);
    let mut rounds = 1;
    let mut missing = receivers;
    let mut begun = Instant::now();
    all[0].write(ring, rounds, &poll, 0)?;
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 4 << 10];
    while counters.go_on()? {
        poll.wait(&mut events)?;
        for event in &events {
            let connection = &mut all[event.data.u64() as usize];
            let before = connection.replies(ring);
            connection.read(ring, &mut buffer)?;
            let deliveries = connection.replies(ring) - before;
            let now = Instant::now();
            (0..deliveries).for_each(|_| counters.count(begun, now));
            missing = missing.checked_sub(deliveries).ok_or("more deliveries than receivers")?;
            if missing == 0 {
                (rounds, missing, begun) = (rounds + 1, receivers, now);
                all[0].write(ring, rounds, &poll, 0)?;
            }
        }
    }
    counters.report(ring.reply)
}
