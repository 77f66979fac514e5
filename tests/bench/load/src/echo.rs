//! Echo: every connection keeps so many messages in flight, and sends the next when a reply is there.

use std::error::Error;
use std::time::Instant;

use crate::Target;
use crate::counters::Counters;
use crate::wire::{Begun, Connection, Poll, Ring, open};

pub(crate) fn run(
    target: &Target,
    path: &str,
    connections: usize,
    flight: usize,
    ring: &Ring,
) -> Result<(), Box<dyn Error>> {
    let poll = Poll::new()?;
    let mut all = Vec::with_capacity(connections);
    for number in 0..connections {
        let connection = Connection::new(open(target, path)?, number % ring.messages)?;
        connection.add_to(&poll, number)?;
        all.push((connection, Begun::new(flight)));
    }
    let mut counters = Counters::start(target);
    for (number, (connection, begun)) in all.iter_mut().enumerate() {
        begun.set(0..flight, Instant::now());
        connection.write(ring, flight, &poll, number)?;
    }
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 256 << 10];
    while counters.go_on()? {
        poll.wait(&mut events)?;
        for event in &events {
            let number = event.data.u64() as usize;
            let (connection, begun) = &mut all[number];
            let before = connection.replies(ring);
            connection.read(ring, &mut buffer)?;
            let after = connection.replies(ring);
            let now = Instant::now();
            (before..after).for_each(|message| counters.count(begun.get(message), now));
            begun.set(connection.begun(ring)..after + flight, now);
            connection.write(ring, after + flight, &poll, number)?;
        }
    }
    counters.report(ring.reply)
}
