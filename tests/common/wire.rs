//! How the clients of the tests reach a server: over TCP; over a Unix socket in the tests of `tests/over_unix.rs`, or over
//! TLS in those of `tests/over_tls*.rs`.

use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use rwf::http::{self, Server, ServerHandle};

use super::tls::{IDENTITY, TlsState, TlsWire};
use super::{DEADLINE, unused_name};

/// The sockets of servers, by their addresses.
static SOCKETS: Mutex<Option<HashMap<SocketAddr, PathBuf>>> = Mutex::new(None);

/// Whether these tests are those of `tests/over_unix.rs`, which takes in other files whole.
fn is_over_unix() -> bool {
    module_path!().starts_with("over_unix::")
}

/// Whether they are those of `tests/over_tls*.rs`.
pub fn is_over_tls() -> bool {
    module_path!().starts_with("over_tls")
}

/// Starts `server` where it says, with TLS where clients speak it.
pub fn spawn(server: Server) -> Result<ServerHandle, http::Error> {
    let server = if is_over_tls() { server.tls(IDENTITY.tls()) } else { server };
    server.spawn()
}

/// Starts `server` on a free port of `address`, and where clients come over Unix sockets on such a one beside it.
pub fn try_start(server: Server, address: Ipv4Addr) -> Result<ServerHandle, http::Error> {
    let server = server.bind((address, 0));
    if !is_over_unix() {
        return spawn(server);
    }
    #[cfg(not(unix))]
    unreachable!("there are no Unix sockets here");
    #[cfg(unix)]
    {
        let path = std::env::temp_dir().join(unused_name());
        let handle = server.bind_unix(&path).spawn()?;
        SOCKETS.lock().get_or_insert_default().insert(handle.local_addr(), path);
        Ok(handle)
    }
}

/// An address that other processes do not use: a port that becomes free while a client is on its way to it may be taken
/// by somebody else's server at once, as many as tests start, and strangers would count there as clients.
pub fn own_loopback() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    if cfg!(target_os = "linux") {
        Ipv4Addr::new(127, 64 | high, middle, low.max(2))
    } else {
        Ipv4Addr::LOCALHOST
    }
}

/// A client's end of a connection.
#[derive(Debug)]
pub enum Wire {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Tls(TlsWire),
}

/// Evaluates the same for the socket of any kind.
macro_rules! either {
    ($wire:expr, $stream:ident => $value:expr) => {
        match $wire {
            Wire::Tcp($stream) => $value,
            #[cfg(unix)]
            Wire::Unix($stream) => $value,
            Wire::Tls(TlsWire { socket: $stream, .. }) => $value,
        }
    };
}

/// Evaluates the same for what the bytes of a client go through.
macro_rules! through {
    ($wire:expr, $stream:ident => $value:expr) => {
        match $wire {
            Wire::Tcp($stream) => $value,
            #[cfg(unix)]
            Wire::Unix($stream) => $value,
            Wire::Tls($stream) => $value,
        }
    };
}

impl Wire {
    /// Connects to the server at this address, in the way of these tests.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        #[cfg(unix)]
        if is_over_unix() {
            let sockets = SOCKETS.lock();
            let path = sockets.as_ref().and_then(|sockets| sockets.get(&address).cloned());
            drop(sockets);
            // A server that has gone may have left its port to one that the test has started by itself.
            if let Some(path) = path.filter(|path| path.exists()) {
                return UnixStream::connect(path).map(Self::Unix);
            }
        }
        if is_over_tls() {
            return TlsWire::connect(address).map(Self::Tls);
        }
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            #[cfg(unix)]
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tls(wire) => Self::Tls(wire.try_clone()?),
        })
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        either!(self, stream => stream.shutdown(how))
    }

    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_read_timeout(timeout))
    }

    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        either!(self, stream => stream.set_write_timeout(timeout))
    }

    pub fn set_nonblocking(&self, is_nonblocking: bool) -> io::Result<()> {
        either!(self, stream => stream.set_nonblocking(is_nonblocking))
    }

    /// What comes next, which stays.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(buffer),
            #[cfg(unix)]
            Self::Unix(stream) => {
                Ok(rustix::net::recv(stream, buffer, rustix::net::RecvFlags::PEEK)?.0)
            }
            Self::Tls(wire) => wire.peek(buffer),
        }
    }

    /// The client's address.
    ///
    /// # Panics
    ///
    /// It came over a Unix socket.
    #[track_caller]
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// The server's address.
    ///
    /// # Panics
    ///
    /// The client came over a Unix socket.
    #[track_caller]
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// The stream, for what TCP alone can do.
    #[track_caller]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) | Self::Tls(TlsWire { socket: stream, .. }) => stream,
            #[cfg(unix)]
            Self::Unix(_) => panic!("this is no TCP stream"),
        }
    }
}

impl Wire {
    /// What speaks TLS for this client.
    #[track_caller]
    pub fn tls(&self) -> &TlsState {
        match self {
            Self::Tls(wire) => &wire.state,
            _ => panic!("this client does not speak TLS"),
        }
    }

    /// Ends the stream in good order, as a client that has said all.
    pub fn say_goodbye(&self) {
        match self {
            Self::Tls(wire) => wire.say_goodbye(),
            _ => self.shutdown(Shutdown::Write).unwrap(),
        }
    }
}

impl From<TlsWire> for Wire {
    fn from(wire: TlsWire) -> Self {
        Self::Tls(wire)
    }
}

impl Read for &Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        through!(self, stream => (&mut &*stream).read(buffer))
    }
}

impl Write for &Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        through!(self, stream => (&mut &*stream).write(buffer))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        through!(self, stream => (&mut &*stream).write_vectored(slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self).write(buffer)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::Tcp(stream)
    }
}

#[cfg(unix)]
impl From<UnixStream> for Wire {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}
