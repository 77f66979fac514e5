//! Handshakes, frames, and waiting for many sockets.

use std::error::Error;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::Target;
use crate::stream::{Received, Stream};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Replies from this length on are long.
const LONG: usize = 16 << 10;
/// Of the reads of long replies, one in so many is looked at.
const SAMPLES: usize = 16;
/// The answer to the key of RFC 6455 §1.3.
pub(crate) const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) fn handshake_request(target: &Target, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{}\r\n",
        target.port, target.offer
    )
    .into_bytes()
}

/// The length of a whole 101 at the beginning of `received`; nothing if it goes on.
pub(crate) fn accepted(received: &[u8]) -> Result<Option<usize>, Box<dyn Error>> {
    let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &received[..end];
    if head.starts_with(b"HTTP/1.1 101") && head.windows(ACCEPT.len()).any(|bytes| bytes == ACCEPT)
    {
        return Ok(Some(end + 4));
    }
    Err(String::from_utf8_lossy(head).into())
}

/// An open WebSocket, in blocking mode.
pub(crate) fn open(target: &Target, path: &str) -> Result<Stream, Box<dyn Error>> {
    let mut stream = Stream::connect(target)?;
    stream.tcp().set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&handshake_request(target, path))?;
    let mut received = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err("closed before the 101".into());
        }
        received.extend_from_slice(&buffer[..count]);
        if let Some(length) = accepted(&received)? {
            return if length == received.len() {
                Ok(stream)
            } else {
                Err("more than a 101".into())
            };
        }
    }
}

/// A frame; `opcode` may bring RSV1.
pub(crate) fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    let flag = if masked { 0x80 } else { 0 };
    match payload.len() {
        length @ ..126 => frame.push(flag | length as u8),
        length @ ..=0xffff => {
            frame.push(flag | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(flag | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        frame.extend_from_slice(payload);
    }
    frame
}

/// Different messages of one length, again and again: what goes out, and what must come back.
pub(crate) struct Ring {
    pub(crate) requests: Vec<u8>,
    pub(crate) replies: Vec<u8>,
    pub(crate) request: usize,
    pub(crate) reply: usize,
    pub(crate) messages: usize,
}

impl Ring {
    pub(crate) fn new(bytes: usize) -> Self {
        let (opcode, messages) = if bytes < 1024 { (1, 64) } else { (2, 4) };
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        for message in 0..messages {
            let payload: Vec<u8> =
                (0..bytes).map(|byte| b' ' + ((byte * 7 + message) % 90) as u8).collect();
            requests.extend(frame(opcode, &payload, true));
            replies.extend(frame(opcode, &payload, false));
        }
        let (request, reply) = (requests.len() / messages, replies.len() / messages);
        Self { requests, replies, request, reply, messages }
    }

    /// One message again and again.
    pub(crate) fn of(requests: Vec<u8>, replies: Vec<u8>) -> Self {
        let (request, reply) = (requests.len(), replies.len());
        Self { requests, replies, request, reply, messages: 1 }
    }
}

/// Whether `bytes` are what stands in the ring from `at` on.
fn compare(ring: &Ring, at: usize, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let (mut at, mut rest) = (at, bytes);
    while !rest.is_empty() {
        let place = at % ring.replies.len();
        let length = rest.len().min(ring.replies.len() - place);
        if rest[..length] != ring.replies[place..place + length] {
            return Err(format!("a wrong reply: the {}th", at / ring.reply).into());
        }
        at += length;
        rest = &rest[length..];
    }
    Ok(())
}

/// One connection's place in the ring, in bytes sent and received since its first message.
pub(crate) struct Connection {
    stream: Stream,
    first: usize,
    sent: usize,
    received: usize,
    reads: usize,
    blocked: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream, first: usize) -> Result<Self, Box<dyn Error>> {
        stream.tcp().set_nonblocking(true)?;
        Ok(Self { stream, first, sent: 0, received: 0, reads: 0, blocked: false })
    }

    /// Replies that arrived whole.
    pub(crate) fn replies(&self, ring: &Ring) -> usize {
        self.received / ring.reply
    }

    /// Messages of which at least a part is sent.
    pub(crate) fn begun(&self, ring: &Ring) -> usize {
        self.sent.div_ceil(ring.request)
    }

    /// Reads what is there and compares it with the ring: all of short messages, and samples of long ones, whose copying
    /// would make the load the bottleneck.
    pub(crate) fn read(&mut self, ring: &Ring, buffer: &mut [u8]) -> Result<(), Box<dyn Error>> {
        self.reads += 1;
        let is_sample = ring.reply < LONG || self.reads.is_multiple_of(SAMPLES);
        let (first, replied) = (self.first * ring.reply, &mut self.received);
        self.stream.receive(buffer, !is_sample, |received| {
            match received {
                Received::Bytes(bytes) if is_sample => compare(ring, first + *replied, bytes)?,
                _ => {}
            }
            *replied += received.len();
            Ok(())
        })
    }

    /// Sends up to the end of message number `until`, as far as the socket takes it.
    pub(crate) fn write(
        &mut self,
        ring: &Ring,
        until: usize,
        poll: &Poll,
        number: usize,
    ) -> Result<(), Box<dyn Error>> {
        let end = until * ring.request;
        let mut blocked = false;
        while !blocked && (self.sent < end || self.stream.has_unsent()) {
            let at = (self.first * ring.request + self.sent) % ring.requests.len();
            let first = (end - self.sent).min(ring.requests.len() - at);
            let second = (end - self.sent - first).min(at);
            let slices = [
                IoSlice::new(&ring.requests[at..at + first]),
                IoSlice::new(&ring.requests[..second]),
            ];
            let count = if second == 0 { 1 } else { 2 };
            match self.stream.send(&slices[..count]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => blocked = true,
                Err(error) => return Err(error.into()),
            }
        }
        if blocked != self.blocked {
            self.blocked = blocked;
            poll.change(self.stream.tcp(), number, blocked)?;
        }
        Ok(())
    }

    pub(crate) fn add_to(&self, poll: &Poll, number: usize) -> Result<(), Box<dyn Error>> {
        poll.add(self.stream.tcp(), number)
    }
}

/// Which sockets have something to read, or room to write.
pub(crate) struct Poll {
    epoll: OwnedFd,
}

impl Poll {
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(&self, stream: &TcpStream, number: usize) -> Result<(), Box<dyn Error>> {
        let data = epoll::EventData::new_u64(number as u64);
        Ok(epoll::add(&self.epoll, stream, data, epoll::EventFlags::IN)?)
    }

    fn change(&self, stream: &TcpStream, number: usize, write: bool) -> Result<(), Box<dyn Error>> {
        let flags = epoll::EventFlags::IN
            | if write { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        Ok(epoll::modify(&self.epoll, stream, epoll::EventData::new_u64(number as u64), flags)?)
    }

    /// The numbers of the sockets that are ready, after at most 50 ms.
    pub(crate) fn wait(&self, events: &mut Vec<epoll::Event>) -> Result<(), Box<dyn Error>> {
        events.clear();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// When each message in flight was sent.
pub(crate) struct Begun(Vec<Instant>);

impl Begun {
    pub(crate) fn new(flight: usize) -> Self {
        Self(vec![Instant::now(); flight])
    }

    pub(crate) fn set(&mut self, messages: std::ops::Range<usize>, now: Instant) {
        let flight = self.0.len();
        messages.for_each(|message| self.0[message % flight] = now);
    }

    pub(crate) fn get(&self, message: usize) -> Instant {
        self.0[message % self.0.len()]
    }
}
