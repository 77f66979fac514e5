//! Whom to believe about a request: its host, and what a proxy says of its client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::http::headers::Headers;
use crate::http::host::{bracketed_address, canonical, is_name, split_authority};

/// Whether a server that listens on `local_addr` takes requests for `host`, a `Host` header.
///
/// On a loopback address only loopback names and `allowed` ones are ours: any site can have a name of its own resolve
/// to 127.0.0.1, and its page would then be of the same origin as this server's (DNS rebinding).
pub(crate) fn is_our_host(host: &str, local_addr: SocketAddr, allowed: &[String]) -> bool {
    if !local_addr.ip().to_canonical().is_loopback() {
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

/// The client's address: that of the connection, or what the proxies before it say, as far as they are trusted. All
/// addresses are canonical: an IPv4 one is never written as IPv6.
///
/// Each proxy appends to `X-Forwarded-For` whom it got the request from, so the list is read from its end, up to the
/// first address that is no trusted proxy's: anybody may have written what stands before that.
pub(crate) fn client_ip(headers: &Headers, peer: IpAddr, trusted: &[IpAddr]) -> IpAddr {
    let mut client = peer;
    let forwarded: Vec<_> = headers.list("X-Forwarded-For").collect();
    for address in forwarded.into_iter().rev() {
        if !trusted.contains(&client) {
            break;
        }
        match address.parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
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

/// Whether a trusted proxy says that its client came over TLS.
pub(crate) fn is_secure(headers: &Headers, peer: IpAddr, trusted: &[IpAddr]) -> bool {
    trusted.contains(&peer)
        && headers
            .list("X-Forwarded-Proto")
            .last()
            .is_some_and(|last| last.eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_server_is_for_loopback_names() {
        let local = "127.0.0.1:8000".parse().unwrap();
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
            assert_eq!(is_our_host(host, local, &allowed), expected, "{host:?}");
        }
        let mapped = "[::ffff:127.0.0.1]:8000".parse().unwrap();
        assert!(!is_our_host("evil.example", mapped, &allowed), "it is a loopback address too");
        let open = "0.0.0.0:8000".parse().unwrap();
        assert!(is_our_host("evil.example", open, &[]), "a public server has any name");
    }

    #[test]
    fn proxies_are_believed_as_far_as_they_are_trusted() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let trusted = [ip("10.0.0.1"), ip("10.0.0.2")];
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
            let client = client_ip(&headers, ip(peer), &trusted);
            assert_eq!(client, ip(expected), "{forwarded:?} from {peer}");
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
        let trusted = ["10.0.0.1".parse().unwrap()];
        let mut headers = Headers::default();
        headers.append("X-Forwarded-Proto", "HTTPS");
        assert!(is_secure(&headers, trusted[0], &trusted));
        assert!(!is_secure(&headers, "9.9.9.9".parse().unwrap(), &trusted));
        assert!(!is_secure(&Headers::default(), trusted[0], &trusted));
    }
}
