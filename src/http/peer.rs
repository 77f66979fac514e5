//! Whom to believe about a request: its host, and what a proxy says of its client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::http::headers::Headers;
use crate::http::host::{bracketed_address, canonical, is_name, split_authority};
use crate::net::peer::Peer;

/// A proxy that is believed, for [`Server::trust_proxy`](crate::http::Server::trust_proxy). Made of an IP address, or one
/// of those that come over a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proxy {
    /// The one at this address.
    Ip(IpAddr),
    /// Whoever comes over a Unix socket: who that can be is up to its
    /// [mode](crate::http::Server::unix_mode) and its folder.
    Unix,
    /// The processes of this user that come over a Unix socket, where the system tells whose they are.
    UnixUser(u32),
}

impl Proxy {
    fn is(&self, peer: &Peer) -> bool {
        match (self, peer) {
            (Self::Ip(own), Peer::Tcp(address)) => *own == address.ip(),
            (Self::Unix, Peer::Unix(_)) => true,
            (Self::UnixUser(own), Peer::Unix(Some(credentials))) => *own == credentials.uid,
            _ => false,
        }
    }

    /// Whether `peer` is one of `proxies`.
    pub(crate) fn is_among(proxies: &[Self], peer: &Peer) -> bool {
        proxies.iter().any(|proxy| proxy.is(peer))
    }
}

macro_rules! proxy_of {
    ($($address:ty)*) => {
        $(impl From<$address> for Proxy {
            fn from(address: $address) -> Self {
                Self::Ip(IpAddr::from(address).to_canonical())
            }
        })*
    };
}

proxy_of!(IpAddr Ipv4Addr Ipv6Addr [u8; 4] [u8; 16] [u16; 8]);

/// Whether a server takes requests for `host`, a `Host` header, that come to where it listens.
///
/// On a loopback address only loopback names and `allowed` ones are ours: any site can have a name of its own resolve
/// to 127.0.0.1, and its page would then be of the same origin as this server's (DNS rebinding).
pub(crate) fn is_our_host(host: &str, is_loopback: bool, allowed: &[String]) -> bool {
    if !is_loopback {
        return true;
    }
    split_authority(host).is_some_and(|(name, _)| {
        let is_allowed = |allowed: &String| canonical(allowed) == canonical(name);
        is_loopback_name(name) || allowed.iter().any(is_allowed)
    })
}

/// Whether a host name means this machine wherever it is looked up (RFC 6761 §6.3).
pub(crate) fn is_loopback_name(name: &str) -> bool {
    if let Some(address) = bracketed_address(name) {
        return address.to_canonical().is_loopback();
    }
    let lower = name.to_ascii_lowercase();
    lower == "localhost"
        || (lower.ends_with(".localhost") && is_name(name))
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// The client: the other end of the connection, or what the proxies before it say, as far as they are trusted. All
/// addresses are canonical: an IPv4 one is never written as IPv6.
///
/// Each proxy appends to `X-Forwarded-For` whom it got the request from, so the list is read from its end, up to the
/// first address that is no trusted proxy's: anybody may have written what stands before that.
pub(crate) fn client(headers: &Headers, peer: Peer, trusted: &[Proxy]) -> Peer {
    let mut client = peer;
    let forwarded: Vec<_> = headers.list("X-Forwarded-For").collect();
    for address in forwarded.into_iter().rev() {
        if !Proxy::is_among(trusted, &client) {
            break;
        }
        match address.parse::<IpAddr>() {
            // Its port is not told.
            Ok(address) => client = Peer::from(SocketAddr::from((address, 0))),
            Err(_) => break,
        }
    }
    client
}

/// The addresses that one client has for itself: with IPv6 a network of 64 bits (RFC 4291 §2.5.1), and it would be too
/// easy to take another one each time.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Whether a trusted proxy says that its client came over TLS; `None` where none says how it came.
pub(crate) fn is_secure(headers: &Headers, peer: &Peer, trusted: &[Proxy]) -> Option<bool> {
    let last = headers.list("X-Forwarded-Proto").last();
    last.filter(|_| Proxy::is_among(trusted, peer)).map(|last| last.eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::peer::PeerCredentials;

    #[test]
    fn a_loopback_server_is_for_loopback_names() {
        let allowed = ["chat.example", "[0:0::5]", "[2001:DB8::1]"].map(str::to_owned);
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:8000", true),
            ("app.localhost:8000", true),
            ("127.0.0.1:8000", true),
            ("127.1.2.3", true),
            ("[::1]:8000", true),
            ("[::ffff:127.0.0.1]:8000", true),
            ("[::ffff:7f00:1]", true),
            ("[::ffff:8.8.8.8]", false),
            ("chat.example", true),
            ("Chat.Example:80", true),
            ("[::5]", true),
            ("[0::0:5]:8000", true),
            ("[2001:db8:0::1]", true),
            ("[::6]", false),
            ("evil.example", false),
            ("localhost.evil.example:8000", false),
            ("127.0.0.1.evil.example", false),
            ("192.168.0.1", false),
            ("", false),
            ("a].localhost", false),
            ("a:1.localhost", false),
            (".localhost", false),
            ("user@localhost", false),
            ("localhost:port", false),
            ("[::1", false),
            ("::1", false),
            ("[127.0.0.1]", false),
            ("[[::1]]", false),
            ("chat.example:99999", false),
        ] {
            assert_eq!(is_our_host(host, true, &allowed), expected, "{host:?}");
        }
        assert!(is_our_host("evil.example", false, &[]), "a public server has any name");
    }

    #[test]
    fn proxies_are_believed_as_far_as_they_are_trusted() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let peer_at = |address| Peer::from(SocketAddr::from((address, 0)));
        let trusted = [ip("10.0.0.1"), ip("10.0.0.2")].map(Proxy::from);
        for (peer, forwarded, expected) in [
            ("9.9.9.9", "1.1.1.1", "9.9.9.9"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("10.0.0.1", "1.1.1.1, nonsense", "10.0.0.1"),
            ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", "::ffff:1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "1.1.1.1, ::ffff:10.0.0.2", "1.1.1.1"),
        ] {
            let mut headers = Headers::default();
            headers.append("X-Forwarded-For", forwarded);
            let client = client(&headers, peer_at(ip(peer)), &trusted);
            assert_eq!(client, peer_at(ip(expected)), "{forwarded:?} from {peer}");
        }
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(network(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn tls_is_believed_of_a_trusted_proxy_alone() {
        let peer_at = |address: [u8; 4]| Peer::from(SocketAddr::from((address, 0)));
        let (proxy, trusted) = (peer_at([10, 0, 0, 1]), [Proxy::from([10, 0, 0, 1])]);
        let mut headers = Headers::default();
        headers.append("X-Forwarded-Proto", "HTTPS");
        assert_eq!(is_secure(&headers, &proxy, &trusted), Some(true));
        assert_eq!(is_secure(&headers, &peer_at([9, 9, 9, 9]), &trusted), None);
        assert_eq!(is_secure(&Headers::default(), &proxy, &trusted), None);
        headers.append("X-Forwarded-Proto", "http");
        assert_eq!(is_secure(&headers, &proxy, &trusted), Some(false));
    }

    #[test]
    fn over_a_unix_socket_a_proxy_is_believed_by_choice() {
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let unix = |uid| Peer::Unix(Some(PeerCredentials { pid: 1, uid, gid: 1 }));
        let is_trusted = |proxy: Proxy, peer: Peer| Proxy::is_among(&[proxy], &peer);
        for (proxy, user_33, user_34, unknown, tcp) in [
            (Proxy::Unix, true, true, true, false),
            (Proxy::UnixUser(33), true, false, false, false),
            (Proxy::from([0, 0, 0, 0]), false, false, false, true),
        ] {
            assert_eq!(is_trusted(proxy, unix(33)), user_33, "{proxy:?}");
            assert_eq!(is_trusted(proxy, unix(34)), user_34, "{proxy:?}");
            assert_eq!(is_trusted(proxy, Peer::Unix(None)), unknown, "{proxy:?}");
            assert_eq!(is_trusted(proxy, address.into()), tcp, "{proxy:?}");
        }
        let mut headers = Headers::default();
        headers.append("X-Forwarded-For", "192.0.2.7");
        let client = |proxies: &[Proxy]| client(&headers, unix(33), proxies);
        assert_eq!(client(&[Proxy::Unix]).ip(), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(client(&[]), unix(33));
    }
}
