//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Who is at the other end of a connection, which may be a proxy: from [`Request::peer`](crate::http::Request::peer).
///
/// `Display` is what the log says as `peer`: `192.0.2.7:50123`, or `unix:pid:4711:uid:1000`.
///
/// ```
/// use rwf::http::{Peer, PeerCredentials};
/// use rwf::prelude::*;
///
/// /// For the web server of this machine alone, which runs as the user 33.
/// fn internal(request: &Request) -> Result<Response, Error> {
///     match request.peer() {
///         Peer::Unix(Some(credentials)) if credentials.uid == 33 => Ok(Response::new().text("yes")),
///         _ => Ok(Response::forbidden()),
///     }
/// }
///
/// let request = Request::get("/").peer(Peer::Unix(Some(PeerCredentials::new(4711, 33, 33))));
/// assert_eq!(internal(&request.build()).unwrap().body_bytes(), b"yes");
/// assert_eq!(internal(&Request::get("/").build()).unwrap().status_code().code(), 403);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// Over TCP, from this address. An IPv4 address is one also where the server listens on an IPv6 address.
    Tcp(SocketAddr),
    /// Over a Unix socket; with who it is where the system tells: Linux does, except of a process in a PID namespace that is
    /// not to be seen from here, as of another container.
    Unix(Option<PeerCredentials>),
}

/// The process at the other end of a Unix socket, as it was when it connected (`SO_PEERCRED`): the system vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// Its process, for people: the number may be another process's by now.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl PeerCredentials {
    /// Those of a process, for [requests that a test makes](crate::http::RequestBuilder::peer).
    #[must_use]
    pub const fn new(pid: u32, uid: u32, gid: u32) -> Self {
        Self { pid, uid, gid }
    }
}

impl Peer {
    /// Its address; `0.0.0.0:0`, which nobody has, over a Unix socket.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) => *address,
            Self::Unix(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        }
    }

    /// The IP address of [`addr`](Self::addr).
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.addr().ip()
    }
}

/// What counts as one peer where a limit is per peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Ip(IpAddr),
    /// Over Unix sockets a user, or all whose user the system does not tell.
    User(Option<u32>),
}

impl Peer {
    pub(crate) fn owner(&self) -> Owner {
        match self {
            Self::Tcp(address) => Owner::Ip(address.ip()),
            Self::Unix(credentials) => Owner::User(credentials.map(|credentials| credentials.uid)),
        }
    }
}

impl From<SocketAddr> for Peer {
    /// To a listener on an IPv6 address IPv4 clients come as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
    fn from(mut address: SocketAddr) -> Self {
        address.set_ip(address.ip().to_canonical());
        Self::Tcp(address)
    }
}

/// Over a Unix socket it is no address.
impl PartialEq<SocketAddr> for Peer {
    fn eq(&self, address: &SocketAddr) -> bool {
        matches!(self, Self::Tcp(own) if own == address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(PeerCredentials { pid, uid, .. })) => {
                write!(f, "unix:pid:{pid}:uid:{uid}")
            }
            Self::Unix(None) => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_shown_in_one_word_and_has_an_address_of_its_own_kind() {
        let credentials = PeerCredentials { pid: 4711, uid: 1000, gid: 100 };
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (peer, shown, addr) in [
            (address("192.0.2.7:80").into(), "192.0.2.7:80", "192.0.2.7:80"),
            (address("[::ffff:192.0.2.7]:80").into(), "192.0.2.7:80", "192.0.2.7:80"),
            (address("[2001:db8::1]:80").into(), "[2001:db8::1]:80", "[2001:db8::1]:80"),
            (Peer::Unix(Some(credentials)), "unix:pid:4711:uid:1000", "0.0.0.0:0"),
            (Peer::Unix(None), "unix", "0.0.0.0:0"),
        ] {
            assert_eq!((peer.to_string().as_str(), peer.addr()), (shown, address(addr)));
            assert_eq!(peer == address(addr), matches!(peer, Peer::Tcp(_)), "{shown}");
        }
        assert!(size_of::<Peer>() <= size_of::<SocketAddr>(), "each connection has one");
    }
}
