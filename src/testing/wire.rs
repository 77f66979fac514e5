//! The connection of a test's client: its socket, through TLS where the server has it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::base::deadline;
#[cfg(feature = "tls")]
use crate::testing::tls::Tls;

/// Where the server is, and how its clients speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Whose certificates the clients take, and what they show, where the server has TLS.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<std::sync::Arc<rustls::ClientConfig>>,
}

/// A connection to the server of a test.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    #[cfg(feature = "tls")]
    tls: Option<Box<Tls>>,
}

impl Wire {
    /// Connects, and has the handshake of TLS done, in which the client asks for `host`.
    pub(crate) fn connect(target: &Target, host: &str, deadline: Instant) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target.address, deadline::until(deadline))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(deadline::until(deadline)))?;
        let mut wire = Self {
            stream,
            #[cfg(feature = "tls")]
            tls: None,
        };
        wire.begin_tls(target, host, deadline)?;
        Ok(wire)
    }

    #[cfg(feature = "tls")]
    fn begin_tls(&mut self, target: &Target, host: &str, deadline: Instant) -> io::Result<()> {
        let Some(config) = &target.tls else { return Ok(()) };
        let mut tls = Tls::new(config, host)?;
        while tls.is_shaking_hands() {
            if !may_wait(&self.stream, deadline) {
                let text = "the handshake of TLS takes longer than `Visitor::timeout`";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            match tls.shake_hands(&mut self.stream) {
                Err(error) if is_a_pause(&error) => {}
                result => result?,
            }
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    #[cfg(not(feature = "tls"))]
    fn begin_tls(&mut self, _: &Target, _: &str, _: Instant) -> io::Result<()> {
        Ok(())
    }

    /// The socket, for its timeouts.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The socket alone, for a client that understands nothing any more.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return tls.read(&mut self.stream, buffer);
        }
        self.stream.read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return tls.write(&mut self.stream, bytes);
        }
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has the next read wait until `deadline`; whether that is not over.
pub(crate) fn may_wait(stream: &TcpStream, deadline: Instant) -> bool {
    let remaining = deadline::until(deadline);
    // Less than a millisecond may be taken for no timeout at all. It fails for a connection that has ended, of which the
    // read tells.
    let _ = stream.set_read_timeout(Some(remaining.max(Duration::from_millis(1))));
    !remaining.is_zero()
}

/// Whether a read that failed so may be tried again.
pub(crate) fn is_a_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock | TimedOut)
}
