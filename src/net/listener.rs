//! Where connections come from: listeners of either kind, whose `accept` ends at a stop, or whoever has accepted one.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::fd::OwnedFd;
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Type};

use crate::base::shown::Shown;
#[cfg(unix)]
use crate::net::os;
use crate::net::os::Stop;
use crate::net::peer::Peer;
use crate::net::socket::Socket;
#[cfg(unix)]
use crate::net::socket_file::SocketFile;

/// How long to try to wake a blocked `accept`.
const WAKE_TIME: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to wake it.
const MAX_WAKE_PAUSE: Duration = Duration::from_millis(100);

/// A listener that a program has already: made of a [`TcpListener`], or on Unix of a `UnixListener`.
///
/// [`Server::listener`](crate::http::Server::listener) takes either.
#[derive(Debug)]
pub struct Listener {
    /// Dropped before the listener, so that a file that is ours goes before nobody listens.
    #[cfg(unix)]
    _file: Option<SocketFile>,
    kind: Kind,
    /// The program brought it. Others may hold it too and share its flags, which are therefore left alone.
    is_given: bool,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// A connection that somebody else has accepted: made of a [`TcpStream`], or on Unix of a `UnixStream`.
///
/// [`ServerHandle::serve`](crate::http::ServerHandle::serve) takes either.
#[derive(Debug)]
pub struct Accepted(Socket);

/// Where a server listens: from [`ServerHandle::local_addrs`](crate::http::ServerHandle::local_addrs).
///
/// `Display` is what the log says as `address`: `127.0.0.1:8000`, or `unix:/run/chat.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LocalAddr {
    /// On an address, with the port that the system chose, if it was bound to port 0.
    Tcp(SocketAddr),
    /// On a Unix socket, at this path; `@` and a name where it is not in the file system, and nothing where it has none.
    Unix(PathBuf),
}

impl LocalAddr {
    /// The address, if it is one.
    #[must_use]
    pub fn as_tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether it is a loopback address.
    pub(crate) fn is_loopback(&self) -> bool {
        self.as_tcp().is_some_and(|address| address.ip().to_canonical().is_loopback())
    }
}

impl From<&SockAddr> for LocalAddr {
    fn from(address: &SockAddr) -> Self {
        match address.as_socket() {
            Some(address) => Self::Tcp(address),
            #[cfg(unix)]
            None => Self::Unix(unix_path(address)),
            #[cfg(not(unix))]
            None => Self::Unix(PathBuf::new()),
        }
    }
}

#[cfg(unix)]
fn unix_path(address: &SockAddr) -> PathBuf {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    match address.as_abstract_namespace() {
        Some(name) => PathBuf::from(OsStr::from_bytes(&[b"@", name].concat())),
        None => address.as_pathname().map(PathBuf::from).unwrap_or_default(),
    }
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", Shown::value(path.display())),
        }
    }
}

impl Listener {
    /// Listens on `address`. `ipv6_only` says of `[::]` whether IPv4 is left out.
    pub(crate) fn bind_tcp(address: SocketAddr, backlog: u32, ipv6_only: bool) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
        // Not on Windows, where it means that several may have an address at the same time.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        // Not every system can listen to both, but none has to where one IPv6 address is meant.
        if address.is_ipv6() && (ipv6_only || address.ip().is_unspecified()) {
            socket.set_only_v6(ipv6_only)?;
        }
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Self { is_given: false, ..TcpListener::from(socket).into() })
    }

    /// Listens at a path, for those whom `mode` lets write; see [`SocketFile::listen`].
    #[cfg(unix)]
    pub(crate) fn bind_unix(path: &std::path::Path, backlog: u32, mode: u32) -> io::Result<Self> {
        let (listener, file) = SocketFile::listen(path, mode, backlog)?;
        Ok(Self { _file: Some(file), kind: Kind::Unix(listener), is_given: false })
    }

    /// Whether connections come from it.
    #[cfg(all(unix, feature = "systemd"))]
    pub(crate) fn is_listening(&self) -> io::Result<bool> {
        Ok(rustix::net::sockopt::socket_acceptconn(&*self.sock_ref())?)
    }

    fn sock_ref(&self) -> SockRef<'_> {
        match &self.kind {
            Kind::Tcp(listener) => SockRef::from(listener),
            #[cfg(unix)]
            Kind::Unix(listener) => SockRef::from(listener),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<LocalAddr> {
        Ok(LocalAddr::from(&self.sock_ref().local_addr()?))
    }

    fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((stream.into(), peer.into()))
            }
            #[cfg(unix)]
            Kind::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let peer = Peer::Unix(os::credentials(&stream));
                Ok((stream.into(), peer))
            }
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self {
            #[cfg(unix)]
            _file: None,
            kind: Kind::Tcp(listener),
            is_given: true,
        }
    }
}

#[cfg(unix)]
impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self { _file: None, kind: Kind::Unix(listener), is_given: true }
    }
}

impl Accepted {
    /// The connection, who is at its other end, and at which address it has come in.
    ///
    /// # Errors
    ///
    /// The other end has left.
    pub(crate) fn into_parts(self) -> io::Result<(Socket, Peer, LocalAddr)> {
        let Self(socket) = self;
        let (peer, local) = match &socket {
            Socket::Tcp(stream) => {
                (stream.peer_addr()?.into(), SockRef::from(stream).local_addr()?)
            }
            #[cfg(unix)]
            Socket::Unix(stream) => {
                let peer = Peer::Unix(os::credentials(stream));
                (peer, SockRef::from(stream).local_addr()?)
            }
        };
        Ok((socket, peer, LocalAddr::from(&local)))
    }
}

impl From<TcpStream> for Accepted {
    fn from(stream: TcpStream) -> Self {
        Self(stream.into())
    }
}

#[cfg(unix)]
impl From<UnixStream> for Accepted {
    fn from(stream: UnixStream) -> Self {
        Self(stream.into())
    }
}

/// A listener whose `accept` ends at a stop.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: Listener,
    /// Dropped after the listener: so the [`AcceptWaker`] learns that it is closed.
    _running: Sender<()>,
}

/// Wakes an [`Acceptor`] that is blocked in `accept`, where it does not see a stop.
#[derive(Debug)]
pub(crate) struct AcceptWaker {
    /// Where to connect to, so that `accept` returns; `None` if it never blocks.
    address: Option<SockAddr>,
    /// What the address leads through.
    #[cfg(unix)]
    _file: Option<OwnedFd>,
    ended: Receiver<()>,
}

impl Acceptor {
    pub(crate) fn new(listener: Listener) -> io::Result<(Self, AcceptWaker)> {
        let may_block = listener.is_given || cfg!(not(unix));
        let address = if may_block {
            Some(listener.sock_ref().local_addr()?)
        } else {
            // A client may leave between the wait and the `accept`, which would block then.
            listener.sock_ref().set_nonblocking(true)?;
            None
        };
        // Whoever starts next may put a file of its own in the place of a shared socket's.
        #[cfg(unix)]
        let (file, address) = match address.as_ref().and_then(os::lasting_address) {
            Some((file, address)) => (Some(file), Some(address)),
            None => (None, address),
        };
        let (running, ended) = channel();
        let waker = AcceptWaker {
            address,
            #[cfg(unix)]
            _file: file,
            ended,
        };
        Ok((Self { listener, _running: running }, waker))
    }

    /// Waits for the next connection. Once `stop` was told it returns too, with a connection or an error, whichever.
    pub(crate) fn accept(&self, stop: &Stop) -> io::Result<(Socket, Peer)> {
        #[cfg(unix)]
        stop.wait_for(&*self.listener.sock_ref())?;
        #[cfg(not(unix))]
        let _ = stop;
        // Several servers may wait for a shared listener. A connection wakes all of them and one gets it. The others,
        // if the listener blocks, wait here for the next one.
        self.listener.accept()
    }
}

impl AcceptWaker {
    /// Wakes a blocked `accept` of a server that was told to stop; whether it will not be blocked any more.
    pub(crate) fn wake(&self) -> bool {
        let Some(address) = &self.address else {
            return true;
        };
        let address = reachable(address);
        let began = Instant::now();
        let mut pause = Duration::from_millis(1);
        while self.ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            if began.elapsed() >= WAKE_TIME {
                return false;
            }
            // `accept` returns with this connection, unless another server that shares the listener takes it.
            if let Ok(socket) = socket2::Socket::new(address.domain(), Type::STREAM, None) {
                let _ = socket.connect_timeout(&address, MAX_WAKE_PAUSE);
            }
            pause = (2 * pause).min(MAX_WAKE_PAUSE);
        }
        true
    }
}

/// An address to connect to of one to listen on, which may mean all of a machine's.
fn reachable(address: &SockAddr) -> SockAddr {
    match address.as_socket() {
        Some(SocketAddr::V4(all)) if all.ip().is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, all.port())).into()
        }
        Some(SocketAddr::V6(all)) if all.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, all.port())).into()
        }
        _ => address.clone(),
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::thread;

    #[test]
    fn a_blocked_accept_is_woken_wherever_the_file_of_its_socket_has_gone() {
        let path = std::env::temp_dir().join(format!("rwf-{}-woken", std::process::id()));
        for is_replaced in [false, true] {
            let _ = fs::remove_file(&path);
            let (acceptor, waker) =
                Acceptor::new(UnixListener::bind(&path).unwrap().into()).unwrap();
            fs::remove_file(&path).unwrap();
            let _other = is_replaced.then(|| UnixListener::bind(&path).unwrap());
            // As where another server, which shares the listener, got the connection that has ended the wait before.
            let blocked = thread::spawn(|| {
                let acceptor = acceptor;
                acceptor.listener.accept().map(drop)
            });
            let began = Instant::now();
            assert!(waker.wake(), "it is blocked still, replaced: {is_replaced}");
            assert!(began.elapsed() < WAKE_TIME / 2, "{:?}", began.elapsed());
            blocked.join().unwrap().unwrap();
        }
        fs::remove_file(&path).unwrap();
    }
}
