//! A stream to a Redis, over TCP, with TLS or without, or a Unix socket.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::path::Path;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use rustls::ClientConfig;
#[cfg(unix)]
use socket2::{Domain, SockAddr, Type};

use crate::base::deadline;
use crate::net::os;
use crate::net::socket;
use crate::redis::address::Endpoint;
#[cfg(feature = "tls")]
use crate::redis::secure::Secure;

#[derive(Debug)]
pub(crate) enum Socket {
    Plain(socket::Socket),
    #[cfg(feature = "tls")]
    Tls(Secure),
}

/// The shortest timeout that a socket takes: zero would be none.
const LEAST: Duration = Duration::from_millis(1);

impl Socket {
    pub(crate) fn connect(endpoint: &Endpoint, deadline: Instant) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    let time = deadline::until(deadline).max(LEAST);
                    match TcpStream::connect_timeout(&address, time) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(Self::Plain(stream.into()));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            #[cfg(unix)]
            Endpoint::Unix(path) => {
                connect_unix(path, deadline).map(|stream| Self::Plain(stream.into()))
            }
        }
    }

    /// The same with TLS, which is to be begun.
    #[cfg(feature = "tls")]
    pub(crate) fn secured(self, host: &str, config: &Arc<ClientConfig>) -> io::Result<Self> {
        match self {
            Self::Plain(socket::Socket::Tcp(stream)) => {
                Secure::new(stream, host, config).map(Self::Tls)
            }
            other => Ok(other),
        }
    }

    /// How long a read waits; `None` for ever.
    pub(crate) fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        let time = time.map(|time| time.clamp(LEAST, deadline::FOREVER));
        match self {
            Self::Plain(stream) => stream.set_read_timeout(time),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                stream.set_read_timeout(time.unwrap_or(deadline::FOREVER));
                Ok(())
            }
        }
    }

    /// How long a write waits without progress.
    pub(crate) fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        let time = time.clamp(LEAST, deadline::FOREVER);
        match self {
            Self::Plain(stream) => stream.set_write_timeout(Some(time)),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                stream.set_write_timeout(time);
                Ok(())
            }
        }
    }

    /// Writes what is taken at once, without waiting.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing is taken, and always on systems that have no such write.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let slices = [IoSlice::new(bytes)];
        match self {
            Self::Plain(stream) => os::send_now(stream, &slices),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write_now(&slices),
        }
    }

    /// Ends it for both sides, and wakes whoever reads or writes.
    pub(crate) fn cut(&self) {
        // It fails for one that has ended.
        let _ = match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Both),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                stream.cut();
                Ok(())
            }
        };
    }
}

/// Connecting waits while the listener's queue is full, for as long as a write does, and there is nothing to poll for.
#[cfg(unix)]
fn connect_unix(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    loop {
        let time = deadline::until(deadline).clamp(LEAST, deadline::FOREVER);
        socket.set_write_timeout(Some(time))?;
        match socket.connect(&address) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let text = "nobody has taken the connection in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(stream) => (&*stream).read(buffer),
            #[cfg(feature = "tls")]
            Socket::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(stream) => (&*stream).write(bytes),
            #[cfg(feature = "tls")]
            Socket::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_to_a_unix_socket_whose_queue_is_full_ends_in_time() {
        let name = format!("rwf-full-queue-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let endpoint = Endpoint::Unix(path.clone());
        let began = Instant::now();
        let connect = || Socket::connect(&endpoint, Instant::now() + Duration::from_millis(50));
        let mut connected = Vec::new();
        let error = loop {
            match connect() {
                Ok(socket) => connected.push(socket),
                Err(error) => break error,
            }
            assert!(connected.len() < 1000, "its queue is never full");
        };
        let _ = std::fs::remove_file(path);
        assert!(!connected.is_empty(), "it connects while there is room: {error}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        if cfg!(target_os = "linux") {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        }
    }
}
