//! A stream to a Redis through TLS: one thread reads and another writes, and neither waits for the other.

use std::io::{self, IoSlice};
use std::mem;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::base::deadline;
use crate::net::stream::Stream;
use crate::net::tls::{Stage, Tls};

/// What one read brings at most.
const BUFFER: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Secure {
    stream: Stream,
    /// How long a read waits, in milliseconds.
    read_timeout: AtomicU64,
    /// How long a write waits without progress, in milliseconds.
    write_timeout: AtomicU64,
    opened: Mutex<Opened>,
}

/// What was read and nobody has taken. The thread that reads has it outside of the lock meanwhile.
#[derive(Debug, Default)]
struct Opened {
    bytes: Vec<u8>,
    taken: usize,
}

impl Secure {
    /// Over a socket on which nothing has been said, to the host of that name or address.
    pub(crate) fn new(
        socket: TcpStream,
        host: &str,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = Tls::client(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Self {
            stream: Stream::new(socket, true)?.with_tls(tls),
            read_timeout: AtomicU64::new(millis(deadline::FOREVER)),
            write_timeout: AtomicU64::new(millis(deadline::FOREVER)),
            opened: Mutex::default(),
        })
    }

    /// Has the handshake done, before anything else is said.
    ///
    /// # Errors
    ///
    /// TLS has failed, the server has ended the connection ([`io::ErrorKind::UnexpectedEof`]), or has not answered in time.
    pub(crate) fn shake_hands(&self, deadline: Instant) -> io::Result<()> {
        while self.stream.tls().is_some_and(|tls| tls.stage() == Stage::Handshake) {
            let left = deadline::until(deadline);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut opened = Opened { bytes: Vec::with_capacity(BUFFER), taken: 0 };
            let read = self.stream.read(&mut opened.bytes, left);
            let is_empty = opened.bytes.is_empty();
            *self.opened.lock() = opened;
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ if !is_empty => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn set_read_timeout(&self, time: Duration) {
        self.read_timeout.store(millis(time), Ordering::Relaxed);
    }

    pub(crate) fn set_write_timeout(&self, time: Duration) {
        self.write_timeout.store(millis(time), Ordering::Relaxed);
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut opened = mem::take(&mut *self.opened.lock());
        let read = self.fill(&mut opened);
        let rest = &opened.bytes[opened.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        opened.taken += count;
        *self.opened.lock() = opened;
        read.map(|()| count)
    }

    /// Reads something, unless something is there; nothing at the end of the stream.
    fn fill(&self, opened: &mut Opened) -> io::Result<()> {
        if opened.taken < opened.bytes.len() {
            return Ok(());
        }
        opened.bytes.clear();
        opened.bytes.reserve(BUFFER);
        opened.taken = 0;
        let timeout = Duration::from_millis(self.read_timeout.load(Ordering::Relaxed));
        loop {
            match self.stream.read(&mut opened.bytes, timeout) {
                // A part of a record.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map(drop),
            }
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let timeout = Duration::from_millis(self.write_timeout.load(Ordering::Relaxed));
        self.stream.write_within(&[IoSlice::new(bytes)], timeout)
    }

    /// Writes what is taken at once.
    pub(crate) fn write_now(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_now(slices)
    }

    pub(crate) fn cut(&self) {
        self.stream.cut();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
