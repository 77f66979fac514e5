//! Cycles: connect, handshake, one echo, close, the end of the stream; so many at a time, while others stand open.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use crate::Target;
use crate::counters::Counters;
use crate::stream::Stream;
use crate::wire::{Poll, accepted, frame, handshake_request, open};

struct Slot {
    stream: Stream,
    begun: Instant,
    received: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Handshake,
    Echo,
    Close,
    End,
}

impl Slot {
    fn begin(
        target: &Target,
        request: &[u8],
        poll: &Poll,
        number: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let begun = Instant::now();
        let mut stream = Stream::connect(target)?;
        stream.tcp().set_nonblocking(true)?;
        stream.write_all(request)?;
        poll.add(stream.tcp(), number)?;
        Ok(Self { stream, begun, received: Vec::with_capacity(512), stage: Stage::Handshake })
    }

    /// Takes `expected` off the front of what was received, if all of it is there.
    fn take(&mut self, expected: &[u8]) -> Result<bool, Box<dyn Error>> {
        if !expected.starts_with(&self.received[..self.received.len().min(expected.len())]) {
            return Err(format!("received {:02x?}", self.received).into());
        }
        let whole = self.received.len() >= expected.len();
        if whole {
            self.received.drain(..expected.len());
        }
        Ok(whole)
    }

    fn go_on(&mut self, frames: &[Vec<u8>; 4]) -> Result<bool, Box<dyn Error>> {
        let [message, reply, close, closed] = frames;
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) if matches!(self.stage, Stage::End) => return Ok(true),
            Ok(0) => return Err("the server closed".into()),
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        match self.stage {
            Stage::Handshake => {
                if let Some(length) = accepted(&self.received)? {
                    self.received.drain(..length);
                    self.stream.write_all(message)?;
                    self.stage = Stage::Echo;
                }
            }
            Stage::Echo => {
                if self.take(reply)? {
                    self.stream.write_all(close)?;
                    self.stage = Stage::Close;
                }
            }
            Stage::Close => {
                if self.take(closed)? {
                    self.stage = Stage::End;
                }
            }
            Stage::End => return Err("more after the close frame".into()),
        }
        Ok(false)
    }
}

pub(crate) fn run(target: &Target, slots: usize, standing: usize) -> Result<(), Box<dyn Error>> {
    let _standing = (0..standing).map(|_| open(target, "/")).collect::<Result<Vec<_>, _>>()?;
    let request = handshake_request(target, "/");
    let text = [b'x'; 32];
    let code = 1000_u16.to_be_bytes();
    let frames = [
        frame(1, &text, true),
        frame(1, &text, false),
        frame(8, &code, true),
        frame(8, &code, false),
    ];
    let poll = Poll::new()?;
    let mut counters = Counters::start(target);
    let mut all = (0..slots)
        .map(|number| Slot::begin(target, &request, &poll, number))
        .collect::<Result<Vec<_>, _>>()?;
    let mut events = Vec::with_capacity(256);
    let (mut handshakes, mut as_told) = (0, 0);
    while counters.go_on()? {
        poll.wait(&mut events)?;
        for event in &events {
            let number = event.data.u64() as usize;
            if all[number].go_on(&frames)? {
                if counters.is_counting() {
                    handshakes += 1;
                    let is_resumed = all[number].stream.is_resumed();
                    as_told += usize::from(is_resumed == target.resumes);
                }
                counters.count(all[number].begun, Instant::now());
                all[number] = Slot::begin(target, &request, &poll, number)?;
            }
        }
    }
    // A server may forget a session now and then.
    if as_told * 10 < handshakes * 9 {
        return Err(format!("only {as_told} of {handshakes} handshakes are as told").into());
    }
    counters.report(0)
}
